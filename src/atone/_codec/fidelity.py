"""Is what came back the same as what went out? Compared down to the types.

Owns the rule by which a payload counts as faithful. Must not encode, decode or raise for a difference.
Called by the codec, on every payload before it is journalled: the common case has to cost about a microsecond.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from operator import attrgetter
from typing import Any, TypeAlias
from uuid import UUID

import msgspec

Difference: TypeAlias = tuple[str, str] | None  # where and what; None: the same
_Check: TypeAlias = Callable[[Any, Any], Difference]

_VALUES = frozenset({str, int, float, bytes, Decimal, UUID, date, timedelta})
_AT_ONCE = _VALUES | {bool, type(None)}


class Twins:
    """Compare values with what was decoded for them; remember how, class by class.

    `==` alone is not enough: it takes True for 1 and a tuple's heir for a tuple, skips fields that are declared
    `compare=False`, and finds a dataclass with `eq=False` unlike its own copy.
    """

    def __init__(self) -> None:
        self._checks: dict[type, _Check] = {datetime: _moments, time: _moments}

    def differ(self, a: object, b: object) -> Difference:
        """Return where and how `a` is not the same as `b`, which was decoded as the declared type; None if it is."""
        kind = type(b)
        check = self._checks.get(kind)
        if check is None:
            check = self._checks[kind] = self._check_for(kind)
        return check(a, b)

    def _check_for(self, kind: Any) -> _Check:
        fields = _fields(kind)
        if fields is not None:
            return self._records(kind, fields)
        for base, check in ((list, self._items), (tuple, self._items), (dict, self._entries)):
            if issubclass(kind, base):
                return check
        return self._members if issubclass(kind, set | frozenset) else _leaves

    def _records(self, kind: Any, fields: tuple[str, ...]) -> _Check:
        get = getter(fields)
        differ = self.differ

        def records(a: Any, b: Any) -> Difference:
            if type(a) is not kind:
                return _changed(a, b)
            out, back = get(a), get(b)
            # The common case in a few calls of C, at a third of the loop's cost: plain values of the same types.
            kinds = [*map(type, back)]
            if _AT_ONCE.issuperset(kinds) and kinds == [*map(type, out)] and out == back:
                return None
            for field, x, y in zip(fields, out, back, strict=True):
                if type(x) is type(y) and type(y) in _AT_ONCE and x == y:
                    continue  # the common case, without a call
                found = differ(x, y)
                if found is not None:
                    return f".{field}{found[0]}", found[1]
            return None

        return records

    def _items(self, a: Any, b: Any) -> Difference:
        if type(a) is not type(b) or len(a) != len(b):
            return _changed(a, b)
        for at, (x, y) in enumerate(zip(a, b, strict=True)):
            if type(x) is type(y) and type(y) in _AT_ONCE and x == y:
                continue
            found = self.differ(x, y)
            if found is not None:
                return f"[{at}]{found[0]}", found[1]
        return None

    def _members(self, a: Any, b: Any) -> Difference:
        if type(a) is not type(b) or len(a) != len(b):
            return _changed(a, b)
        twins = {x: x for x in b}
        for x in a:
            if x not in twins or self.differ(x, twins[x]) is not None:
                return "", f"a {type(x).__qualname__} in it does not come back as it was"
        return None

    def _entries(self, a: Any, b: Any) -> Difference:
        if type(a) is not type(b) or len(a) != len(b):
            return _changed(a, b)
        found = self._members(a.keys(), b.keys())
        if found is not None:
            return found
        for key, x in a.items():
            found = self.differ(x, b[key])
            if found is not None:
                return f"[...]{found[0]}", found[1]  # a key is data: it is not named
        return None


def _changed(a: object, b: object) -> Difference:
    was, is_now = type(a).__qualname__, type(b).__qualname__
    return "", f"a {was} does not come back equal" if type(a) is type(b) else f"a {was} comes back as a {is_now}"


def _leaves(a: object, b: object) -> Difference:
    kind = type(b)
    if type(a) is not kind:
        widened = kind is float and type(a) is int
        plain = kind in _VALUES and isinstance(a, kind)  # a member of a str enum, a driver's own UUID
        if not (widened or plain):
            return _changed(a, b)
    return None if a == b else _changed(a, b)


def _moments(a: Any, b: Any) -> Difference:
    """Compare datetimes or times by clock, offset and fold; `==` sees instants only, and no fold."""
    if not isinstance(a, type(b)) or (a.tzinfo is None) is not (b.tzinfo is None):
        return _changed(a, b)
    if a.tzinfo is None:
        return None if a == b and a.fold == b.fold else _changed(a, b)
    same = a.replace(tzinfo=None) == b.replace(tzinfo=None) and a.utcoffset() == b.utcoffset()
    return None if same else _changed(a, b)


def _fields(kind: Any) -> tuple[str, ...] | None:
    """Return the names of a record's fields; None for a class that is no record."""
    if issubclass(kind, msgspec.Struct):
        names: tuple[str, ...] = kind.__struct_fields__
        return names
    if dataclasses.is_dataclass(kind):
        return tuple(field.name for field in dataclasses.fields(kind))
    attributes = getattr(kind, "__attrs_attrs__", None)
    return None if attributes is None else tuple(attribute.name for attribute in attributes)


def getter(fields: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    """Return what reads these attributes, in one call where there are several."""
    if len(fields) > 1:
        return attrgetter(*fields)
    if not fields:
        return lambda record: ()
    only = attrgetter(fields[0])
    return lambda record: (only(record),)
