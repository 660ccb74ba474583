"""The catalogue of saga shapes that every proof goes through.

Owns the list. What Atone does not have is not in it: nested child sagas, and steps that are made while a saga runs.
The choreographies are in `choreographed`, for they have no orchestrator and no journal; commands are in `commanding`,
for they take a participant of its own. Must not hold a definition. Read by the simulation, by every-point crashes and
by real kills.
"""

from __future__ import annotations

from collections.abc import Mapping

from tests.shapes import branching, doubtful, guarded, straight, waiting
from tests.shapes.shape import Shape

SHAPES: Mapping[str, Shape] = {
    shape.name: shape
    for shapes in (straight.SHAPES, branching.SHAPES, doubtful.SHAPES, waiting.SHAPES, guarded.SHAPES)
    for shape in shapes
}
