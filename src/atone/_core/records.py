"""How the core makes its named tuples where every turn comes by.

The constructor that `NamedTuple` writes is Python code around `tuple.__new__`; called by itself that takes half the
time. Owns nothing else. It does not check how many fields it gets, so it is for places that write all of them.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

_Record = TypeVar("_Record", bound=tuple[Any, ...])


class _New(Protocol):
    def __call__(self, kind: type[_Record], fields: tuple[object, ...], /) -> _Record: ...


new: _New = tuple[Any, ...].__new__
