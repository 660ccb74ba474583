"""The names that annotations of a saga class may mean: its module's, its own, and those of functions around it.

Owns the look at the frames of enclosing functions, taken once, when a class inside a function is made: afterwards
they are gone, while annotations are only resolved when the orchestrator is built. Called by `saga`.
"""

from __future__ import annotations

from collections.abc import Mapping
from inspect import currentframe
from types import FrameType, FunctionType
from typing import Any

from atone._define.step import is_step


def names_around(cls: type) -> Mapping[str, Any]:
    """Return the local names an annotation in `cls` can see, the innermost winning; the module's own are not copied."""
    found: dict[str, Any] = {}
    for frame in reversed(_enclosing(cls)):
        found.update(frame.f_locals)
    own = {name: value for name, value in vars(cls).items() if not (is_step(value) or isinstance(value, FunctionType))}
    return found | {name: value for name, value in own.items() if not name.startswith("__")}


def _enclosing(cls: type) -> list[FrameType]:
    parts = cls.__qualname__.split(".<locals>.")
    functions = {".<locals>.".join(parts[:end]) for end in range(1, len(parts))}
    found: list[FrameType] = []
    frame = currentframe() if functions else None
    while frame is not None and functions:
        if frame.f_code.co_qualname in functions and frame.f_globals.get("__name__") == cls.__module__:
            functions.discard(frame.f_code.co_qualname)
            found.append(frame)
        frame = frame.f_back
    return found
