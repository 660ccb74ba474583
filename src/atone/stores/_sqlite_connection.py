"""What Atone uses of an apsw connection, as types: apsw's own stubs name a type that Python 3.11 does not have.

It must not wrap anything: at run time these are apsw's objects. Called by the SQLite adapter's private modules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, cast

import apsw

_Values = Sequence[Any] | Mapping[str, Any]


class Cursor(Protocol):
    """The rows of a statement; reading them drives it on."""

    def __iter__(self) -> Iterator[Any]: ...
    def fetchone(self) -> Any: ...
    def fetchall(self) -> list[Any]: ...
    @property
    def get(self) -> Any: ...


class Connection(Protocol):
    """A connection; `with` makes a savepoint of it."""

    row_trace: Any
    exec_trace: Any

    @property
    def in_transaction(self) -> bool: ...
    def execute(self, statements: str, bindings: _Values | None = None) -> Cursor: ...
    def executemany(self, statements: str, sequenceofbindings: Iterable[_Values]) -> Cursor: ...
    def total_changes(self) -> int: ...
    def pragma(self, name: str, value: object = None) -> Any: ...
    def limit(self, id: int, newval: int = -1) -> int: ...  # noqa: A002 - apsw's name
    def set_busy_handler(self, callable: Callable[[int], bool] | None) -> None: ...  # noqa: A002 - apsw's name
    def close(self) -> None: ...
    def __enter__(self) -> object: ...
    def __exit__(
        self, etype: type[BaseException] | None, evalue: BaseException | None, etraceback: TracebackType | None
    ) -> bool | None: ...


def connect(path: str) -> Connection:
    """Open a file, or make an empty one."""
    return cast("Connection", apsw.Connection(path))
