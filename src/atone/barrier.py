"""The participant's guard: in its own transaction, every effect happens once, and none after its compensation.

Owns one row for each action's key, written first, in the transaction of the business rows: a duplicate returns the
stored result, a compensation of nothing leaves a tombstone, and an action that comes after it is refused. Must not
begin, commit or roll back a transaction. Called by services that sagas call; it needs no store and no orchestrator.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from enum import StrEnum
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import msgspec

from atone._connections.face import Dialect, Face, awaited, changes, face_of, finish
from atone.codec import Codec
from atone.errors import AlreadyCompensated, ArgumentsDiffer, BarrierMisplaced, PayloadError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

__all__ = ["AlreadyCompensated", "ArgumentsDiffer", "Barrier", "BarrierMisplaced", "BlockingBarrier", "Undo"]

R = TypeVar("R")

KEY_LENGTH_MAX = 1500
KEY_BYTES_MAX = 2500  # below what PostgreSQL's index takes of one row; letters of most alphabets have one to three

_TABLE_NAME = re.compile(r"[a-z_][a-z0-9_]{0,50}(\.[a-z_][a-z0-9_]{0,50})?")

_CREATE: dict[Dialect, str] = {
    "postgresql": """
CREATE TABLE IF NOT EXISTS {table} (
    key          text        NOT NULL PRIMARY KEY,
    state        text        NOT NULL CHECK (state IN ('begun', 'done', 'undone', 'nothing')),
    arguments    bytea,
    result       bytea,
    compensation text,
    at           timestamptz NOT NULL DEFAULT now()
)""",
    "sqlite": """
CREATE TABLE IF NOT EXISTS {table} (
    key          TEXT NOT NULL PRIMARY KEY,
    state        TEXT NOT NULL CHECK (state IN ('begun', 'done', 'undone', 'nothing')),
    arguments    BLOB,
    result       BLOB,
    compensation TEXT,
    at           TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
) WITHOUT ROWID""",
}
_OLDER: dict[Dialect, str] = {
    "postgresql": "at < now() - make_interval(secs => CAST(:seconds AS float8))",
    "sqlite": "at < datetime('now', '-' || :seconds || ' seconds')",
}
_LOCKED: dict[Dialect, str] = {"postgresql": "FOR UPDATE", "sqlite": ""}
_INSERT = """
INSERT INTO {table} (key, state, arguments, compensation) VALUES (:key, :state, :arguments, :compensation)
    ON CONFLICT (key) DO NOTHING
RETURNING 1"""
_READ = "SELECT state, arguments, result, compensation FROM {table} WHERE key = :key {locked}"
_DONE = "UPDATE {table} SET state = 'done', result = :result WHERE key = :key"
_UNDONE = "UPDATE {table} SET state = 'undone', compensation = :compensation WHERE key = :key"
_PURGE = "DELETE FROM {table} WHERE {older}"

_MARK, _BACK, _FORGET = (
    f"{words} atone_barrier" for words in ("SAVEPOINT", "ROLLBACK TO SAVEPOINT", "RELEASE SAVEPOINT")
)

_NOT_INSIDE = (
    "The connection is in no transaction, so the barrier and your rows would not be written together. "
    "Begin one around the call and around nothing else."
)
_NO_ROWS = (
    "{name} changed no row on the connection that it was given, so its rows are written elsewhere, or nowhere, and the "
    "barrier does not guard them. Write on that connection; if the function is to change nothing, say writes=False."
)
_HALF = (
    "The action with this key ended its transaction itself, so its effect stands without its result. "
    "Leave commit and rollback to whoever calls the barrier, then look after the row of key {key!r}."
)


class Undo(StrEnum):
    """What a compensation came to, now or the first time. Both are a success."""

    UNDONE = "undone"
    NOTHING_TO_UNDO = "nothing_to_undo"


class _Row(NamedTuple):
    state: str
    arguments: bytes | None
    result: bytes | None
    compensation: str | None


class Barrier:
    """Guard a participant's effects, in its own database: PostgreSQL or SQLite, through any of their usual drivers.

    `table` is made by `create_table`, or by your migrations from `table_sql`. `codec` writes the results down. One
    object serves any number of connections. For connections that are synchronous, there is `BlockingBarrier`.
    """

    def __init__(self, *, table: str = "atone_barrier", codec: Codec | None = None) -> None:
        if not _TABLE_NAME.fullmatch(table):
            raise ValueError("table= is a plain lower-case name, or schema.name; give one.")
        self._table = table
        self._codec = codec or Codec()
        self._plain = self._codec.schema(Any)
        self._proven: set[object] = set()

    def table_sql(self, dialect: Dialect) -> str:
        """Return the statement that makes the table, for your own migrations."""
        return self._sql(_CREATE[dialect])

    async def create_table(self, connection: object) -> None:
        """Make the table, if it is not there."""
        face = face_of(connection)
        await face.run(self._sql(_CREATE[face.dialect]))

    async def action(
        self,
        connection: Any,
        key: str,
        do: Callable[..., Awaitable[R]],
        /,
        *arguments: Any,
        returns: type[R] | None = None,
        writes: bool = True,
    ) -> R:
        """Call `do(connection, *arguments)` once for this key, and return its result, then and ever after.

        Within a transaction of yours on `connection`; the call counts when you commit it. A second call with the key
        waits for the first one's transaction and returns its result, without calling. `returns` is the type that a
        stored result is read as; None: plain JSON. What raises leaves nothing behind, so the key is free again.

        Raises:
            AlreadyCompensated: The compensation was here first. Nothing was written, and never will be.
            ArgumentsDiffer: The key was used with other arguments. Nothing was written.
            BarrierMisplaced: There is no transaction, or `do` wrote no row on the connection: see `writes`.
            PayloadError: The result can't be stored as declared. Nothing was written.
        """
        face, print_of = await self._ready(connection, key, arguments)
        async with self._marked(face):
            if await self._insert(face, key, "begun", print_of):
                schema = self._plain if returns is None else self._codec.schema(returns)
                result = await self._call(face, connection, do, arguments, writes=writes)
                await face.run(self._sql(_DONE), {"key": key, "result": schema.encode(result)})
                return cast("R", result)
            row = await self._read(face, key)
        return self._repeated(row, key, print_of, returns)

    async def compensation(
        self,
        connection: Any,
        key: str,
        undo: Callable[..., Awaitable[object]],
        /,
        *arguments: Any,
        action_key: str,
        returns: type[Any] | None = None,
        writes: bool = True,
    ) -> Undo:
        """Call `undo(connection, result, *arguments)` once, if the action with `action_key` has had its effect.

        `result` is what that action returned, read as `returns`. If it has not come, nothing is called, and it will be
        refused when it comes. Errors and transactions as for `action`.
        """
        face, print_of = await self._ready(connection, key, arguments)
        _check_key(action_key)
        async with self._marked(face):
            if await self._insert(face, action_key, "nothing", print_of, key):
                return Undo.NOTHING_TO_UNDO
            row = await self._read(face, action_key)
            if row.state == "done":
                result = self._stored(row, returns)
                await self._call(face, connection, undo, (result, *arguments), writes=writes)
                await face.run(self._sql(_UNDONE), {"key": action_key, "compensation": key})
                return Undo.UNDONE
        if row.state == "begun":
            raise BarrierMisplaced(_HALF.format(key=action_key))
        return Undo.UNDONE if row.state == "undone" else Undo.NOTHING_TO_UNDO

    async def purge(self, connection: object, *, older_than_days: float) -> None:
        """Delete what is older. Keep it longer than any saga runs: a purged key is a new one."""
        if older_than_days < 1:
            raise ValueError("older_than_days= is at least 1: what is purged no longer guards.")
        face = face_of(connection)
        seconds = older_than_days * 86_400
        await face.run(self._sql(_PURGE, older=_OLDER[face.dialect]), {"seconds": seconds})

    async def _ready(self, connection: object, key: str, arguments: tuple[Any, ...]) -> tuple[Face, bytes]:
        face = face_of(connection)
        _check_key(key)
        print_of = sha256(_canonical(self._codec, arguments)).digest()
        if not await face.joins():
            raise BarrierMisplaced(_NOT_INSIDE)
        return face, print_of

    @asynccontextmanager
    async def _marked(self, face: Face) -> AsyncGenerator[None, None]:
        """Take back all that was written inside, if it raises: whoever swallows that and commits, commits nothing."""
        await face.run(_MARK)
        try:
            yield
        except Exception:
            if await face.is_inside():  # else the mark went with the transaction, and would hide this error
                await face.run(_BACK)
                await face.run(_FORGET)
            raise
        await face.run(_FORGET)

    async def _insert(self, face: Face, key: str, state: str, print_of: bytes, compensation: str | None = None) -> bool:
        values = {"key": key, "state": state, "arguments": print_of, "compensation": compensation}
        return bool(await face.run(self._sql(_INSERT), values))

    async def _read(self, face: Face, key: str) -> _Row:
        (found,) = await face.run(self._sql(_READ, locked=_LOCKED[face.dialect]), {"key": key})
        state, arguments, result, compensation = found
        return _Row(state, _bytes(arguments), _bytes(result), compensation)

    async def _call(
        self, face: Face, connection: Any, function: Callable[..., Any], arguments: tuple[Any, ...], *, writes: bool
    ) -> Any:
        proof = getattr(function, "__func__", function)
        if not writes or proof in self._proven:
            return await awaited(function(connection, *arguments))
        before = await changes(face)
        result = await awaited(function(connection, *arguments))
        if await changes(face) == before:
            raise BarrierMisplaced(_NO_ROWS.format(name=getattr(proof, "__qualname__", repr(proof))))
        # Counting is not free, and a function does not move to another connection between two calls.
        self._proven.add(proof)
        return result

    def _repeated(self, row: _Row, key: str, print_of: bytes, returns: type[R] | None) -> R:
        if row.state in {"undone", "nothing"}:
            raise AlreadyCompensated(
                f"The action with key {key!r} was compensated before it came; nothing was done, and nothing will be. "
                "Answer that it has surely had no effect."
            )
        if row.state == "begun":
            raise BarrierMisplaced(_HALF.format(key=key))
        if row.arguments != print_of:
            raise ArgumentsDiffer(
                f"The key {key!r} was used with other arguments; nothing was done. "
                "Send the same arguments with the same key, or another key."
            )
        return cast("R", self._stored(row, returns))

    def _stored(self, row: _Row, returns: type[Any] | None) -> Any:
        schema = self._plain if returns is None else self._codec.schema(returns)
        return schema.decode(row.result or b"null")

    def _sql(self, statement: str, **parts: str) -> str:
        return statement.format(table=self._table, **parts)


class BlockingBarrier:
    """The same for synchronous connections: psycopg, sqlite3, SQLAlchemy. Functions are plain ones."""

    def __init__(self, *, table: str = "atone_barrier", codec: Codec | None = None) -> None:
        self._barrier = Barrier(table=table, codec=codec)

    def table_sql(self, dialect: Dialect) -> str:
        """Return the statement that makes the table; see `Barrier.table_sql`."""
        return self._barrier.table_sql(dialect)

    def create_table(self, connection: object) -> None:
        """Make the table, if it is not there."""
        finish(self._barrier.create_table(connection))

    def action(
        self,
        connection: Any,
        key: str,
        do: Callable[..., R],
        /,
        *arguments: Any,
        returns: type[R] | None = None,
        writes: bool = True,
    ) -> R:
        """Call `do(connection, *arguments)` once for this key; see `Barrier.action`."""
        call = cast("Callable[..., Awaitable[R]]", do)
        return finish(self._barrier.action(connection, key, call, *arguments, returns=returns, writes=writes))

    def compensation(
        self,
        connection: Any,
        key: str,
        undo: Callable[..., object],
        /,
        *arguments: Any,
        action_key: str,
        returns: type[Any] | None = None,
        writes: bool = True,
    ) -> Undo:
        """Call `undo(connection, result, *arguments)` once, if there is something to undo; see `Barrier`."""
        call = cast("Callable[..., Awaitable[object]]", undo)
        work = self._barrier.compensation(
            connection, key, call, *arguments, action_key=action_key, returns=returns, writes=writes
        )
        return finish(work)

    def purge(self, connection: object, *, older_than_days: float) -> None:
        """Delete what is older; see `Barrier.purge`."""
        finish(self._barrier.purge(connection, older_than_days=older_than_days))


def _check_key(key: object) -> None:
    if type(key) is not str or not 1 <= len(key) <= KEY_LENGTH_MAX or "\0" in key:
        raise PayloadError(f"A key is a text of 1 to {KEY_LENGTH_MAX} characters without NUL; give the call's own.")
    if len(key.encode(errors="surrogatepass")) > KEY_BYTES_MAX:
        raise PayloadError(f"A key has at most {KEY_BYTES_MAX} bytes in UTF-8; take a shorter saga id.")


def _canonical(codec: Codec, arguments: tuple[Any, ...]) -> bytes:
    encoded = msgspec.json.encode(arguments, order="sorted")
    codec.check_limits(encoded)
    return encoded


def _bytes(value: Any) -> bytes | None:
    return None if value is None else bytes(value)
