"""The participant's guard: every effect once, whatever arrives twice, late or in the wrong order.

Owns the two tables `replies` (what was answered to each idempotency key) and `undone` (the tombstones), both in the
participant's own database and written in the same transaction as the business rows. All three services stand on it.
Knows nothing of HTTP, of what the business does, or of who calls.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar

import msgspec

T = TypeVar("T")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS replies (
    key TEXT PRIMARY KEY,
    operation TEXT NOT NULL,
    request BLOB NOT NULL,
    saga_id TEXT NOT NULL,
    status INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS undone (
    action_key TEXT PRIMARY KEY,
    compensation_key TEXT NOT NULL
);
"""
_PENDING = 0  # a status that only the open transaction itself can see


@dataclass(frozen=True, slots=True)
class Call:
    """One request as the guard sees it: which operation, under which key, asking for what."""

    operation: str
    key: str
    request: bytes
    saga_id: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: an HTTP status and a JSON body."""

    status: int
    body: bytes

    @property
    def landed(self) -> bool:
        """Whether the action had its effect."""
        return 200 <= self.status < 300


class Rejected(Exception):
    """Raise in an effect: refused for good. Whatever it wrote is taken back, the answer is kept under the key."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(status, reason)
        self.status, self.reason = status, reason


class KeyReused(Exception):
    """The key belongs to another request; nothing was written."""


Effect: TypeAlias = Callable[[sqlite3.Connection], object]
Undo: TypeAlias = Callable[[sqlite3.Connection, str], None]


class Participant:
    """One database, one writer thread, and the guard around everything that changes it."""

    def __init__(self, database: Path, schema: str) -> None:
        """Open the database and create what is missing: the guard's tables and the business's own `schema`."""
        self._connection = sqlite3.connect(database, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.executescript(_SCHEMA + schema)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="participant")
        self.met: Counter[str] = Counter()
        """How often the guard had something to do: duplicates, compensations of nothing, late actions."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._thread.shutdown()
        self._connection.close()

    async def act(self, call: Call, effect: Effect) -> Reply:
        """Have the effect once and answer; a repeat gets the first answer, an action after its compensation a 409.

        Raises:
            KeyReused: the key came with another request before. Nothing was written.
        """
        return await self._in_transaction(lambda: self._act(call, effect))

    async def compensate(self, call: Call, *, action: str, action_key: str, undo: Undo) -> Reply:
        """Undo what `action` did under `action_key`, once; if it did nothing, see to it that it never will.

        Raises:
            KeyReused: the call's key came with another request before, or `action_key` is not a key of `action`.
                Nothing was written.
        """
        return await self._in_transaction(lambda: self._compensate(call, action, action_key, undo))

    async def find(self, key: str) -> Reply | None:
        """Return the answer given to this key; None if it never came or was undone. Changes nothing."""
        return await self._in_transaction(lambda: None if self._is_undone(key) else self._reply_to(key))

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Read what stands in the database; for who shares the process with it."""
        return self._connection.execute(query).fetchall()

    def _act(self, call: Call, effect: Effect) -> Reply:
        if self._is_undone(call.key):
            self.met["late actions refused"] += 1
            return _json_reply(409, {"refused": "this action was compensated before; it can have no effect any more"})
        if not self._claim(call):
            return self._repeat(call)
        reply = self._have(effect)
        self._keep(call.key, reply)
        return reply

    def _compensate(self, call: Call, action: str, action_key: str, undo: Undo) -> Reply:
        if not self._claim(call):
            return self._repeat(call)
        self._check_operation(action_key, action)
        acted = self._reply_to(action_key)
        cursor = self._connection.execute(
            "INSERT INTO undone (action_key, compensation_key) VALUES (?, ?) ON CONFLICT DO NOTHING",
            (action_key, call.key),
        )
        has_effect = cursor.rowcount == 1 and acted is not None and acted.landed
        if has_effect:
            undo(self._connection, action_key)
        else:
            self.met["compensations of nothing"] += 1
        reply = _json_reply(200, {"undone": has_effect})
        self._keep(call.key, reply)
        return reply

    def _claim(self, call: Call) -> bool:
        """Insert the key first; whoever can't is a repeat. The row and the effect are committed together."""
        cursor = self._connection.execute(
            "INSERT INTO replies (key, operation, request, saga_id, status, body) VALUES (?, ?, ?, ?, ?, x'')"
            " ON CONFLICT DO NOTHING",
            (call.key, call.operation, call.request, call.saga_id, _PENDING),
        )
        return cursor.rowcount == 1

    def _repeat(self, call: Call) -> Reply:
        operation, request, status, body = self._connection.execute(
            "SELECT operation, request, status, body FROM replies WHERE key = ?", (call.key,)
        ).fetchone()
        if (operation, request) != (call.operation, call.request):
            raise KeyReused("this Idempotency-Key came with another request before; use a new key for a new request")
        self.met["repeats answered from memory"] += 1
        return Reply(status, body)

    def _have(self, effect: Effect) -> Reply:
        self._connection.execute("SAVEPOINT effect")
        try:
            reply = _json_reply(201, effect(self._connection))
        except Rejected as rejected:
            # A rejection promises "no effect": half a reservation must not stay.
            self._connection.execute("ROLLBACK TO effect")
            reply = _json_reply(rejected.status, {"rejected": rejected.reason})
        self._connection.execute("RELEASE effect")
        return reply

    def _keep(self, key: str, reply: Reply) -> None:
        self._connection.execute(
            "UPDATE replies SET status = ?, body = ? WHERE key = ?", (reply.status, reply.body, key)
        )

    def _check_operation(self, action_key: str, action: str) -> None:
        row = self._connection.execute("SELECT operation FROM replies WHERE key = ?", (action_key,)).fetchone()
        if row is not None and row[0] != action:
            raise KeyReused(f"action_key names a call of {row[0]}, not of {action}; send the key that the action had")

    def _reply_to(self, key: str) -> Reply | None:
        row = self._connection.execute("SELECT status, body FROM replies WHERE key = ?", (key,)).fetchone()
        return None if row is None else Reply(*row)

    def _is_undone(self, key: str) -> bool:
        return self._connection.execute("SELECT 1 FROM undone WHERE action_key = ?", (key,)).fetchone() is not None

    async def _in_transaction(self, work: Callable[[], T]) -> T:
        def transact() -> T:
            with self._transaction():
                return work()

        return await asyncio.get_running_loop().run_in_executor(self._thread, transact)

    @contextmanager
    def _transaction(self) -> Generator[None, None, None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")


def _json_reply(status: int, body: object) -> Reply:
    return Reply(status, msgspec.json.encode(body))
