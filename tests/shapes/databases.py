"""The participants' own databases: SQLite, as one connection that outlives the processes, or as files.

Owns how a transaction begins and ends, with crash points before and after its commit; leaving it by an exception rolls
back, as a server does when its client has gone. In memory the clock may be a virtual one, which SQLite is told of.
`tick()` orders what is written in several of them.
Must not know what is written. Used by steps with a barrier, and by all participants that are served.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from pathlib import Path
from typing import Protocol

_JULIAN_DAY_OF_EPOCH = 2440587.5
_BUSY_SECONDS = 10.0


class Databases(Protocol):
    """Where the databases are, by name."""

    def __call__(self, name: str) -> Callable[[], AbstractContextManager[sqlite3.Connection]]:
        """Return what begins a transaction there."""
        ...


class MemoryDatabases:
    """In this process; `clock` is what SQLite takes for now."""

    def __init__(self, *, point: Callable[[str], None], clock: Callable[[], float] = time.time) -> None:
        self.point, self.clock = point, clock
        self.connections: dict[str, sqlite3.Connection] = {}
        self._lock, self._ticks = threading.RLock(), count(1)

    def __call__(self, name: str) -> Callable[[], AbstractContextManager[sqlite3.Connection]]:
        """See `Databases`."""
        return lambda: self._begin(name)

    def close(self) -> None:
        """Forget everything."""
        for connection in self.connections.values():
            connection.close()
        self.connections.clear()

    def _connection(self, name: str) -> sqlite3.Connection:
        if name not in self.connections:
            made = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            made.create_function("julianday", 1, lambda _: self.clock() / 86400.0 + _JULIAN_DAY_OF_EPOCH)
            made.create_function("tick", 0, lambda: next(self._ticks))
            self.connections[name] = made
        return self.connections[name]

    @contextmanager
    def _begin(self, name: str) -> Iterator[sqlite3.Connection]:
        with self._lock:
            connection = self._connection(name)
            with _transaction(connection, name, self.point):
                yield connection


class FileDatabases:
    """Files in a folder, which several processes may share."""

    def __init__(self, folder: Path, *, point: Callable[[str], None]) -> None:
        self.folder, self.point = folder, point

    def __call__(self, name: str) -> Callable[[], AbstractContextManager[sqlite3.Connection]]:
        """See `Databases`."""
        return lambda: self._begin(name)

    @contextmanager
    def _begin(self, name: str) -> Iterator[sqlite3.Connection]:
        path = self.folder / f"{name}.db"
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=_BUSY_SECONDS)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.create_function("tick", 0, time.monotonic_ns)
            with _transaction(connection, name, self.point):
                yield connection
        finally:
            connection.close()


@contextmanager
def _transaction(connection: sqlite3.Connection, name: str, point: Callable[[str], None]) -> Iterator[None]:
    point(f"before a transaction of {name}")
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        point(f"before a commit of {name}")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
    point(f"after a commit of {name}")
