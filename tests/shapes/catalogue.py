"""The catalogue of saga shapes that every proof goes through.

Owns the list of those that have an orchestrator; `DANCES` in `choreographed` are the others. What Atone does not have
is in neither: nested child sagas, and steps that are made while a saga runs. A step in the journal's own database is
not here, for `start(connection=)` is of real databases, and tested there. Must not hold a definition. Read by the
simulation, by every-point crashes and by real kills; `shape.serving` and `shape.is_long` say which need more.
"""

from __future__ import annotations

from collections.abc import Mapping

from tests.shapes import branching, commanding, doubtful, guarded, straight, waiting
from tests.shapes.shape import Shape

SHAPES: Mapping[str, Shape] = {
    shape.name: shape
    for shapes in (
        straight.SHAPES, branching.SHAPES, doubtful.SHAPES, waiting.SHAPES, guarded.SHAPES, commanding.SHAPES,
    )
    for shape in shapes
}  # fmt: skip
