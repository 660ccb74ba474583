"""An exception as bounded text, for the journal and for people.

Owns what is kept of an exception. Must not raise, whatever the exception does when asked, nor keep local values or
source; nothing makes an exception of the text again. Called by the runtime for every failed attempt, and by the codec.
"""

from __future__ import annotations

from collections.abc import Iterator
from traceback import walk_tb
from types import TracebackType
from typing import TypeAlias, cast

from atone._core.facts import Problem

_TYPE_MAX, _MESSAGE_MAX, _TRACEBACK_MAX = 200, 2_000, 16_000
_LINKS_MAX = 8  # exceptions told of one: itself, its causes, its group's members
_FRAMES_MAX = 40  # of one exception; a recursion has thousands

_Group: TypeAlias = BaseExceptionGroup[BaseException]


def describe(exc: BaseException) -> Problem:
    """Return an exception as text: its type (200 characters), message (2,000) and traceback (16,000).

    The traceback names files, lines and functions of the exception, then types and frames of its causes and of its
    group's members. All text is valid UTF-8 without NUL, so any store and any JSON takes it.
    """
    trace = _clip("\n".join(_frames(exc)), _TRACEBACK_MAX)
    return Problem(_clip(type_name(exc), _TYPE_MAX), _clip(message_of(exc), _MESSAGE_MAX), trace)


def message_of(exc: BaseException) -> str:
    """Return `str(exc)` whatever its class does; not clipped."""
    try:
        return str.__str__(str(exc))  # an exact str: a subclass may do anything when it is sliced
    except Exception as error:  # noqa: BLE001 - foreign code, asked for a courtesy
        return f"(no message: its __str__ raised {type_name(error)})"


def type_name(exc: BaseException) -> str:
    """Return the name of an exception's class, with its module unless it is builtin."""
    try:
        kind = type(exc)
        module, name = str(kind.__module__), str(kind.__qualname__)
    except Exception:  # noqa: BLE001 - a metaclass may do anything
        return "(a type without a name)"
    return name if module == "builtins" else f"{module}.{name}"


def _clip(text: str, limit: int) -> str:
    clean = text[: limit + 1].encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def _frames(exc: BaseException) -> Iterator[str]:
    todo: list[tuple[str, BaseException]] = [("", exc)]
    seen: set[int] = set()
    while todo and len(seen) < _LINKS_MAX:
        relation, link = todo.pop(0)
        if id(link) in seen:  # causes can form a ring
            continue
        seen.add(id(link))
        if relation:
            yield f"{relation} {type_name(link)}"
        yield from _stack(link.__traceback__)
        if isinstance(link, BaseExceptionGroup):
            todo += [("holding", member) for member in cast("_Group", link).exceptions[:_LINKS_MAX]]
        cause = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
        if cause is not None:
            todo.append(("caused by", cause))


def _stack(tb: TracebackType | None) -> list[str]:
    frames = list(walk_tb(tb))
    lines = [
        f"  {frame.f_code.co_filename}:{line} in {frame.f_code.co_qualname}"
        for frame, line in frames[: _FRAMES_MAX // 2] + frames[_FRAMES_MAX // 2 :][-_FRAMES_MAX // 2 :]
    ]
    if len(frames) > _FRAMES_MAX:
        lines.insert(_FRAMES_MAX // 2, f"  ({len(frames) - _FRAMES_MAX} frames left out)")
    return lines
