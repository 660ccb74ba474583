"""What survives a process, as a digest: two crashes that leave the same have the same future, so one of them will do.

Owns the look at everything that a dead process leaves: store, ledger, databases, broker, the clock, and what the other
processes have done. All of it is compared in full and in order, so a difference that does not matter counts as one,
never the other way round. Must not change what it looks at. Used by `points`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any

from atone.brokers.memory import Server
from atone.stores.memory import MemoryStore
from tests.shapes.databases import MemoryDatabases
from tests.shapes.shape import Stage

# Of no process, without contents of their own, or locks around the rest.
_EMPTY = {"_clock", "_lock", "_fits", "_ids"}


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
            text = repr((told(vars(self.store)), self.stage.lines, self._dumps(), cheap[3:], self._broker()))
            assert " at 0x" not in text, "an object is told by its address, which says nothing of what is in it"
            self._digest = sha256(text.encode()).digest()
        return self._digest

    def _broker(self) -> object:
        """Return what the broker holds; who has a message in hand is told by the order in which they first had one."""
        if self.server is None:
            return None
        groups = [(name, group, sorted(group.topics)) for name, group in self.server.groups.items()]
        return self.server.is_up, repr(self.server.numbers), [
            (
                name,
                topics,
                sorted(group.later),
                group.parked,
                [(one.number, one.message, one.due, one.attempts, self._holder(one.holder))
                 for one in group.items.values()],
            )
            for name, group, topics in groups
        ]  # fmt: skip

    def _holder(self, holder: object) -> int:
        return -1 if holder is None else self._holders.setdefault(id(holder), len(self._holders))

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


def told(inside: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return an object's fields so that their text says all that is in them."""
    return [
        (name, told(vars(value)) if type(value).__module__.startswith("atone.stores") else value)
        for name, value in inside.items()
        if name not in _EMPTY
    ]
