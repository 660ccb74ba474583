"""A participant that outlives its callers: its own database, and a guard in the same transaction as every effect.

Owns the tables that the verdict is read from: who called, which keys were seen, what took effect and in which order. It
survives SIGKILL of the calling process (a transaction is there or not), and more is not needed here, so it does not
sync. Called by the sagas in `definitions`, from the event loop and from threads.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import apsw

_SCHEMA = """
CREATE TABLE IF NOT EXISTS calls (
    id INTEGER PRIMARY KEY, saga TEXT NOT NULL, step TEXT NOT NULL, operation TEXT NOT NULL, attempt INTEGER NOT NULL,
    pid INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS keys (key TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS undone (action_key TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS effects (
    id INTEGER PRIMARY KEY, saga TEXT NOT NULL, step TEXT NOT NULL, operation TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS refused (id INTEGER PRIMARY KEY, saga TEXT NOT NULL, step TEXT NOT NULL);
"""
_NEW_KEY = "INSERT INTO keys (key) VALUES (?) ON CONFLICT DO NOTHING RETURNING 1"
_NEW_TOMBSTONE = "INSERT INTO undone (action_key) VALUES (?) ON CONFLICT DO NOTHING"
_EFFECT = "INSERT INTO effects (saga, step, operation) VALUES (?, ?, ?)"


class Call(NamedTuple):
    """One call of user code, noted before anything else happened in it."""

    saga: str
    step: str
    operation: str
    attempt: int
    pid: int


class Effect(NamedTuple):
    """One effect that is there for good; `id` grows in the order in which they happened."""

    id: int
    saga: str
    step: str
    operation: str


class Refused(Exception):
    """The action came after its compensation and had no effect."""


class Participant:
    """One connection to the participant's file, usable from every thread."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._connection: Any = apsw.Connection(str(path))
        self._connection.set_busy_timeout(10_000)
        self._connection.pragma("journal_mode", "WAL")
        self._connection.pragma("synchronous", "OFF")
        with self._transaction():
            self._connection.execute(_SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def called(self, saga: str, step: str, operation: str, attempt: int) -> None:
        """Note that user code was called."""
        with self._transaction():
            row = (saga, step, operation, attempt, os.getpid())
            self._connection.execute(
                "INSERT INTO calls (saga, step, operation, attempt, pid) VALUES (?, ?, ?, ?, ?)", row
            )

    def act(self, saga: str, step: str, key: str) -> None:
        """Have the action's effect, once for its key.

        Raises:
            Refused: It was compensated before.
        """
        with self._transaction():
            late = self._connection.execute("SELECT 1 FROM undone WHERE action_key = ?", (key,)).fetchone()
            if late is not None:
                self._connection.execute("INSERT INTO refused (saga, step) VALUES (?, ?)", (saga, step))
            elif self._connection.execute(_NEW_KEY, (key,)).fetchone() is not None:
                self._connection.execute(_EFFECT, (saga, step, "action"))
        if late is not None:
            raise Refused(f"{step} was compensated before")

    def undo(self, saga: str, step: str, key: str, action_key: str) -> None:
        """Undo what the action did, once; if it did nothing, see to it that it never will."""
        with self._transaction():
            if self._connection.execute(_NEW_KEY, (key,)).fetchone() is None:
                return
            self._connection.execute(_NEW_TOMBSTONE, (action_key,))
            if self._connection.execute("SELECT 1 FROM keys WHERE key = ?", (action_key,)).fetchone() is not None:
                self._connection.execute(_EFFECT, (saga, step, "compensation"))

    def calls(self) -> list[Call]:
        """Return all calls in the order in which they came."""
        rows = self._connection.execute("SELECT saga, step, operation, attempt, pid FROM calls ORDER BY id")
        return [Call(*row) for row in rows]

    def effects(self) -> list[Effect]:
        """Return all effects in the order in which they happened."""
        return [Effect(*row) for row in self._connection.execute("SELECT * FROM effects ORDER BY id")]

    def refusals(self) -> int:
        """Return how many actions came after their compensation."""
        return int(self._connection.execute("SELECT count(*) FROM refused").get)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")
