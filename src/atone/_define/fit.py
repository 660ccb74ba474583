"""Whether a value of one type may be taken as another, and what a type is called.

Owns a cautious comparison: it says no only where no type checker would say yes. Labels are part of a plan's hash, so
they leave out modules (a type may move) and are the same on every Python. Called by `annotate`.
"""

from __future__ import annotations

from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin  # pyright: ignore[reportDeprecated]

# `Optional[X]` and `X | None` have different origins on Python 3.11 to 3.13.
_UNIONS = (UnionType, Union)  # pyright: ignore[reportDeprecated]
_PROMOTED = {(int, float), (int, complex), (float, complex)}


def fits(given: Any, wanted: Any) -> bool:
    """Return False only if a `given` surely is no `wanted`."""
    given, wanted = _bare(given), _bare(wanted)
    if given == wanted or wanted in (Any, object) or given is Any:
        return True
    if _is_union(given):
        return all(fits(one, wanted) for one in get_args(given))
    if _is_union(wanted):
        return any(fits(given, one) for one in get_args(wanted))
    mine, theirs = get_origin(given) or given, get_origin(wanted) or wanted
    if not (isinstance(mine, type) and isinstance(theirs, type)) or (mine, theirs) in _PROMOTED:
        return True
    if not _is_subclass(mine, theirs):
        return False
    inside, asked = get_args(given), get_args(wanted)
    if mine is not theirs or len(inside) != len(asked):
        return True
    return all(fits(one, other) for one, other in zip(inside, asked, strict=True))


def label(hint: Any) -> str:
    """Name a type in one stable line."""
    hint = _bare(hint)
    if hint is NoneType or hint is None:
        return "None"
    if hint is Ellipsis:
        return "..."
    if _is_union(hint):
        members = sorted({label(one) for one in get_args(hint)}, key=lambda name: (name == "None", name))
        return " | ".join(members)
    origin, inside = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f"Literal[{', '.join(sorted(map(repr, inside)))}]"
    name = _name(origin or hint)
    return f"{name}[{', '.join(map(_inner_label, inside))}]" if inside else name


def _inner_label(hint: Any) -> str:
    if not isinstance(hint, list):
        return label(hint)
    parts: Any = cast("Any", hint)
    return f"[{', '.join(map(label, parts))}]"


def _name(hint: Any) -> str:
    name: str = getattr(hint, "__qualname__", None) or getattr(hint, "__name__", None) or str(hint)
    return name.rpartition("<locals>.")[2]


def _bare(hint: Any) -> Any:
    return _bare(get_args(hint)[0]) if get_origin(hint) is Annotated else hint


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in _UNIONS


def _is_subclass(mine: type, theirs: type) -> bool:
    try:
        return issubclass(mine, theirs)
    except TypeError:  # a protocol without run-time checks: only a type checker knows
        return True
