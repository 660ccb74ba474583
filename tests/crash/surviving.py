"""What survives a process, as a digest: two crashes that leave the same have the same future, so one of them will do.

Owns the look at everything that a dead process leaves: store, ledger, databases, broker, the clock, and what the other
processes have done. Objects are compared field by field, in order, so a difference that does not matter counts as one;
never the other way round. Must not change what it looks at. Used by `points`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from hashlib import sha256
from itertools import count
from typing import Any

from atone.brokers.memory import Server
from atone.stores.memory import MemoryStore
from tests.shapes.databases import MemoryDatabases
from tests.shapes.shape import Stage

_PLAIN = (str, bytes, int, float, bool, type(None))
_COUNT = type(count())
_HOLDERS = {"_Hands", "MemoryBroker", "PointedBroker"}  # of a process, and told by `_broker`


class Surface:
    """Everything that outlives a process. `changed` is to be called by whatever changes the store or the broker."""

    def __init__(
        self, store: MemoryStore, stage: Stage, now: Callable[[], float], elsewhere: Callable[[], object]
    ) -> None:
        self.store, self.stage, self.now, self.elsewhere = store, stage, now, elsewhere
        self.server: Server | None = None
        self.changes = 0
        self._cheap: object = None
        self._digest = b""
        self._databases: dict[str, bytes] = {}
        self._holders: dict[int, int] = {}

    def changed(self) -> None:
        """Note that something may be different from now on."""
        self.changes += 1

    def digest(self) -> bytes:
        """Return the digest of what would survive if the process died here."""
        # Most points come between two changes: then nothing has to be looked at again.
        cheap = (self.changes, len(self.stage.lines), self._rows(), self.now(), self.elsewhere())
        if cheap != self._cheap:
            self._cheap = cheap
            parts = (plain(vars(self.store)), self.stage.lines, self._dumps(), self.now(), self.elsewhere())
            told = repr((parts, self._broker()))
            self._digest = sha256(told.encode()).digest()
        return self._digest

    def _broker(self) -> object:
        """Return what the broker holds; who has a message in hand is told by the order in which they first had one."""
        if self.server is None:
            return None
        held = [
            (name, [(one.number, self._holders.setdefault(id(one.holder), len(self._holders))) for one in items])
            for name, items in ((name, group.items.values()) for name, group in self.server.groups.items())
        ]
        return held, self.server.is_up, plain(self.server.groups), repr(self.server.numbers)

    def _connections(self) -> Mapping[str, sqlite3.Connection]:
        databases = self.stage.databases
        assert isinstance(databases, MemoryDatabases)
        return databases.connections

    def _rows(self) -> tuple[int, ...]:
        return tuple(one.total_changes * 2 + one.in_transaction for one in self._connections().values())

    def _dumps(self) -> list[tuple[str, bytes]]:
        for name, connection in self._connections().items():
            # What stands in an open transaction dies with its process, and there was a point right before it.
            if not connection.in_transaction:
                self._databases[name] = _dump(connection)
        return list(self._databases.items())


def _dump(connection: sqlite3.Connection) -> bytes:
    try:
        return sha256(connection.serialize()).digest()
    except sqlite3.OperationalError:  # there is nothing in it yet
        return b""


def plain(value: Any) -> Any:
    """Return a value as plain data whose text says all that is in it."""
    if isinstance(value, Enum) or isinstance(value, _PLAIN):
        return value
    if isinstance(value, Mapping):
        return [(plain(key), plain(one)) for key, one in value.items()]
    if isinstance(value, tuple | list) or type(value).__name__ == "deque":
        return [plain(one) for one in value]
    if isinstance(value, set | frozenset):
        return sorted(map(repr, map(plain, value)))
    if isinstance(value, _COUNT):
        return repr(value)
    if is_dataclass(value):
        return [(one.name, plain(getattr(value, one.name))) for one in fields(value)]
    inside = getattr(value, "__dict__", None)
    if inside and type(value).__module__.startswith("atone") and type(value).__name__ not in _HOLDERS:
        return [(name, plain(one)) for name, one in inside.items()]
    return type(value).__qualname__  # locks, clocks, functions
