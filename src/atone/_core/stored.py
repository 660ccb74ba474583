"""Whether what was read from a stored text has the plain types that its dataclass declares.

A text in a database can be damaged or edited, and a name that is a number would go unnoticed until a rule trips over
it. Owns that check and nothing of what the fields mean. Called where a plan or an event map is read.
"""

from __future__ import annotations

from dataclasses import fields
from math import isnan
from typing import Any, cast

# No length of time comes near it; a larger whole number can't be reckoned with.
_NUMBER_MAX = 10**300


def known_fields(cls: type, found: Any) -> dict[str, Any]:
    """Return what `found` says of the fields of a dataclass; keys of a newer release are left out.

    Raises:
        TypeError: `found` is no JSON object, or a field of a plain type holds something else.
    """
    if not isinstance(found, dict):
        raise TypeError(f"{cls.__name__} is no object")
    kinds = {one.name: str(one.type) for one in fields(cls)}
    known = {key: value for key, value in cast("dict[str, Any]", found).items() if key in kinds}
    for key, value in known.items():
        if not _is(value, kinds[key]):
            raise TypeError(f"{cls.__name__}.{key} is no {kinds[key]}")
    return known


def _is(value: Any, kind: str) -> bool:
    if kind.endswith(" | None"):
        return value is None or _is(value, kind.removesuffix(" | None"))
    match kind:
        case "str":
            return isinstance(value, str)
        case "bool":
            return isinstance(value, bool)
        case "int" | "float":  # nothing stops `Retry(attempts=math.inf)` where no types are checked, and it works
            return _is_number(value)
        case "tuple[str, ...]":
            return isinstance(value, list) and all(isinstance(one, str) for one in cast("list[object]", value))
        case "tuple[tuple[str, ...], ...]":
            return isinstance(value, list) and all(_is(one, "tuple[str, ...]") for one in cast("list[object]", value))
        case _:
            return True  # a class of its own, which is checked when it is made


def _is_number(value: Any) -> bool:
    if isinstance(value, float):
        return not isnan(value)
    return isinstance(value, int) and not isinstance(value, bool) and -_NUMBER_MAX < value < _NUMBER_MAX
