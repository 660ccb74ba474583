"""The claim protocol: one row for each action's key, inserted first, with an owner and a lease by the database's clock.

Owns the table and what each state of a row means to who comes next; a key that is new, in progress, done or used
otherwise is told apart in one transaction. Must not call user code, nor begin or end a transaction. Called by
`atone.idempotency`, which has a transaction for each of these calls and the action between two of them.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, NamedTuple

from atone._connections.face import Dialect, Face, face_of
from atone._participant.sql import FOR_UPDATE, NOW, checked_table, joined

_CREATE: dict[Dialect, str] = {
    "postgresql": """
CREATE TABLE IF NOT EXISTS {table} (
    key          text    NOT NULL PRIMARY KEY,
    state        text    NOT NULL CHECK (state IN ('claimed', 'lost', 'done', 'undoing', 'undone', 'nothing')),
    arguments    bytea,
    result       bytea,
    owner        text,
    lease_until  float8  NOT NULL,
    lost         integer NOT NULL DEFAULT 0,
    compensation text,
    at           float8  NOT NULL
)""",
    "sqlite": """
CREATE TABLE IF NOT EXISTS {table} (
    key          TEXT    NOT NULL PRIMARY KEY,
    state        TEXT    NOT NULL CHECK (state IN ('claimed', 'lost', 'done', 'undoing', 'undone', 'nothing')),
    arguments    BLOB,
    result       BLOB,
    owner        TEXT,
    lease_until  REAL    NOT NULL,
    lost         INTEGER NOT NULL DEFAULT 0,
    compensation TEXT,
    at           REAL    NOT NULL
) WITHOUT ROWID""",
}
_CLAIM = """
INSERT INTO {table} (key, state, arguments, owner, lease_until, at)
VALUES (:key, 'claimed', :arguments, :owner, {now} + CAST(:seconds AS float8), {now})
    ON CONFLICT (key) DO NOTHING
RETURNING 1"""
_BURY = """
INSERT INTO {table} (key, state, lease_until, compensation, at)
VALUES (:key, 'nothing', {now}, :compensation, {now})
    ON CONFLICT (key) DO NOTHING
RETURNING 1"""
_READ = "SELECT state, arguments, result, lease_until - {now} FROM {table} WHERE key = :key {for_update}"
_CLAIM_AGAIN = """
UPDATE {table} SET state = 'claimed', owner = :owner, lease_until = {now} + CAST(:seconds AS float8), lost = lost + 1
 WHERE key = :key"""
_UNDO = """
UPDATE {table} SET state = 'undoing', owner = :owner, lease_until = {now} + CAST(:seconds AS float8),
                   compensation = :compensation
 WHERE key = :key"""
_END = """
UPDATE {table} SET state = :state, result = coalesce(:result, result), owner = NULL, lease_until = {now}
 WHERE key = :key AND owner = :owner
RETURNING 1"""
_FORGET = "DELETE FROM {table} WHERE key = :key AND owner = :owner AND lost = 0 RETURNING 1"
_SETTLE = """
UPDATE {table} SET state = 'done', result = :result
 WHERE key = :key AND lease_until <= {now} AND state IN ('claimed', 'lost')
RETURNING 1"""
_SETTLE_NOT = """
DELETE FROM {table} WHERE key = :key AND lease_until <= {now} AND state IN ('claimed', 'lost') RETURNING 1"""
_PURGE = """
DELETE FROM {table} WHERE key IN (
    SELECT key FROM {table} WHERE at < {now} - CAST(:seconds AS float8) AND state IN ('done', 'undone', 'nothing')
     LIMIT :most)
RETURNING 1"""

_TURNS_MAX = 10  # of a row that is forgotten between two looks at it, again and again


class Said(Enum):
    """What a claim came to: the four of the protocol, and the two that a compensation and lost attempts add."""

    NEW = "new"
    IN_PROGRESS = "in_progress"
    DONE = "done"
    MISMATCH = "mismatch"
    COMPENSATED = "compensated"
    LOST = "lost"


class Claim(NamedTuple):
    """What was said; `result` of what is done, `seconds` until the lease of what is in progress ends."""

    said: Said
    result: bytes | None = None
    seconds: float = 0.0


class Wanted(NamedTuple):
    """Who claims which key, and for how long."""

    key: str
    owner: str
    seconds: float


class ClaimTable:
    """Read and write claims on connections that are in a transaction of the caller's."""

    def __init__(self, table: str) -> None:
        self._table = checked_table(table)

    def create_sql(self, dialect: Dialect) -> str:
        """Return the statement that makes the table."""
        return _CREATE[dialect].format(table=self._table)

    async def create(self, connection: Any) -> None:
        """Make the table, if it is not there."""
        face = face_of(connection)
        await face.run(self.create_sql(face.dialect))

    async def claim(self, connection: Any, wanted: Wanted, print_of: bytes, *, repeats: bool) -> Claim:
        """Claim an action's key, or tell why not. An attempt that was lost is repeated only if it `repeats`."""
        face = await joined(connection)
        for _ in range(_TURNS_MAX):
            if await self._run(face, _CLAIM, **wanted._asdict(), arguments=print_of):
                return Claim(Said.NEW)
            rows = await self._run(face, _READ, key=wanted.key)
            if rows:
                return await self._claim_again(face, wanted, rows[0], print_of, repeats=repeats)
        return Claim(Said.IN_PROGRESS, seconds=wanted.seconds)

    async def _claim_again(self, face: Face, wanted: Wanted, row: Any, print_of: bytes, *, repeats: bool) -> Claim:
        state, arguments, result, seconds = row
        if state in {"undoing", "undone", "nothing"}:
            return Claim(Said.COMPENSATED)
        if bytes(arguments) != print_of:
            return Claim(Said.MISMATCH)
        if state == "done":
            return Claim(Said.DONE, bytes(result))
        if state == "claimed" and seconds > 0:
            return Claim(Said.IN_PROGRESS, seconds=seconds)
        if not repeats:
            return Claim(Said.LOST)
        await self._run(face, _CLAIM_AGAIN, **wanted._asdict())
        return Claim(Said.NEW)

    async def claim_undo(self, connection: Any, wanted: Wanted, compensation: str) -> Claim:
        """Claim an action's key for its compensation; from now on the action is refused.

        NEW with the action's result, or without one if nobody knows it; LOST stands for "nothing to undo".
        """
        face = await joined(connection)
        for _ in range(_TURNS_MAX):
            if await self._run(face, _BURY, key=wanted.key, compensation=compensation):
                return Claim(Said.LOST)
            rows = await self._run(face, _READ, key=wanted.key)
            if rows:
                return await self._claim_undo_of(face, wanted, rows[0], compensation)
        return Claim(Said.IN_PROGRESS, seconds=wanted.seconds)

    async def _claim_undo_of(self, face: Face, wanted: Wanted, row: Any, compensation: str) -> Claim:
        state, _, result, seconds = row
        if state in {"undone", "nothing"}:
            return Claim(Said.COMPENSATED if state == "undone" else Said.LOST)
        if state in {"claimed", "undoing"} and seconds > 0:
            return Claim(Said.IN_PROGRESS, seconds=seconds)
        await self._run(face, _UNDO, **wanted._asdict(), compensation=compensation)
        return Claim(Said.NEW, None if result is None else bytes(result))

    async def end(self, connection: Any, wanted: Wanted, state: str, result: bytes | None = None) -> bool:
        """End my claim in this state; False if it is mine no longer."""
        face = await joined(connection)
        return bool(await self._run(face, _END, key=wanted.key, owner=wanted.owner, state=state, result=result))

    async def forget(self, connection: Any, wanted: Wanted) -> None:
        """Free the key of an attempt that surely had no effect; if an earlier one may have had one, it is lost."""
        face = await joined(connection)
        if not await self._run(face, _FORGET, key=wanted.key, owner=wanted.owner):
            await self.end(connection, wanted, "lost")

    async def settle(self, connection: Any, key: str, result: bytes | None) -> bool:
        """Write down what a person found out about a lost attempt: its result, or None: no effect."""
        face = await joined(connection)
        if result is None:
            return bool(await self._run(face, _SETTLE_NOT, key=key))
        return bool(await self._run(face, _SETTLE, key=key, result=result))

    async def purge(self, connection: Any, *, seconds: float, most: int) -> int:
        """Delete old rows that are over, and return how many."""
        return len(await self._run(await joined(connection), _PURGE, seconds=seconds, most=most))

    async def _run(self, face: Face, statement: str, **values: Any) -> list[Any]:
        dialect = face.dialect
        text = statement.format(table=self._table, now=NOW[dialect], for_update=FOR_UPDATE[dialect])
        return await face.run(text, values)
