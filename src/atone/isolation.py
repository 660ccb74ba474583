"""What keeps sagas out of each other's half-done work: semantic locks, rereading, and operations that commute.

Owns the countermeasures, in the participant's own database. A saga has no isolation of its own: its steps are visible
as they happen, and may be undone. Must not begin, commit or roll back a caller's transaction; nothing is ever taken
from its holder because time has passed. Called by services that sagas call.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import update_wrapper
from typing import Any, Generic, NoReturn, ParamSpec, TypeVar, cast

from atone._connections.face import Dialect, Face, awaited, face_of, finish
from atone._messaging import headers
from atone._participant.database import Database, Work
from atone._participant.locks import Held, LockTable
from atone._participant.sql import FOR_UPDATE, joined
from atone.broker import Message
from atone.errors import Changed, DeadlockFound, DefinitionError, Locked, PayloadError

__all__ = [
    "BlockingSemanticLocks",
    "Changed",
    "Commutative",
    "DeadlockFound",
    "Held",
    "Locked",
    "SemanticLocks",
    "blocking_reread",
    "commutative",
    "reread",
]

P = ParamSpec("P")
R = TypeVar("R")

_NAME_LENGTH_MAX = 300
_RESOURCES_MAX = 1000
_ENDS = frozenset({"saga.completed", "saga.compensated", "saga.failed"})
_COLUMN = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_TABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}(\.[A-Za-z_][A-Za-z0-9_]{0,62})?")
_SAME: dict[Dialect, str] = {"postgresql": "IS NOT DISTINCT FROM", "sqlite": "IS"}


class _Locks:
    """What both colours share."""

    def __init__(self, database: Any, *, table: str = "atone_locks", retry_seconds: float = 1.0) -> None:
        self._table = LockTable(table)
        self._database = Database(database)
        self._retry_seconds = retry_seconds

    def table_sql(self, dialect: Dialect) -> str:
        """Return the statements that make the tables, for your own migrations."""
        return ";\n".join(self._table.statements(dialect))

    async def _create(self, connection: object) -> None:
        face = face_of(connection)
        for statement in self._table.statements(face.dialect):
            await face.run(statement)

    async def _acquire(self, connection: object, saga: str, resources: tuple[str, ...]) -> None:
        _check(saga, *resources)
        refused = await self._table.take(await joined(connection), saga, sorted(set(resources)))
        if refused is not None:
            raise Locked(saga, refused.resource, refused.holder, self._retry_seconds)

    def _waiting(self, locked: Locked) -> Work[None]:
        async def work(connection: Any) -> None:
            cycle = await self._table.wait(await joined(connection), locked.saga, locked.resource)
            if cycle:
                raise DeadlockFound(tuple(cycle))

        return work

    def _holding(self, saga: str, resources: Sequence[str], do: Callable[[Any], Any]) -> Work[Any]:
        async def work(connection: Any) -> Any:
            await self._acquire(connection, saga, tuple(resources))
            return await awaited(do(connection))

        return work

    async def _release(self, connection: object, saga: str) -> list[str]:
        _check(saga)
        return await self._table.release(await joined(connection), saga)

    async def _hear(self, connection: object, message: Message, saga: str | None) -> list[str]:
        said = message.headers
        if said.get(headers.KIND) != headers.LIFECYCLE or said.get(headers.NAME) not in _ENDS:
            return []
        return await self._release(connection, said.get(headers.SAGA_ID, "") if saga is None else saga)


class SemanticLocks(_Locks):
    """Hold resources for a saga, from a step of its to its end: rows in the service's own database.

    `database` is an engine or a pool (SQLAlchemy, asyncpg, psycopg), or a function that returns a context manager which
    yields a connection in a transaction and commits when it is left. The tables are made by `create_table`, or by your
    migrations from `table_sql`. A saga is named by its id; if two definitions may have sagas with one id, put the
    definition's name before it, here and for `hear`. For synchronous code there is `BlockingSemanticLocks`.
    """

    async def create_table(self, connection: object) -> None:
        """Make the tables, if they are not there."""
        await self._create(connection)

    async def acquire(self, connection: object, saga: str, /, *resources: str) -> None:
        """Take these locks for a saga within your transaction; what it holds already, it keeps.

        Give all that a step needs at once: they are taken in the order of their names, whatever order they are given
        in, so that two steps can't each have half. They count when you commit. Behind a barrier, call this in the
        function that the barrier calls: a duplicate then takes none, and neither does a late call.

        Raises:
            Locked: Another saga holds one; a `RetryAfter`. Roll back, then call `wait` to have a deadlock found.
            BarrierMisplaced: The connection is in no transaction. Nothing was written.
        """
        await self._acquire(connection, saga, resources)

    async def wait(self, locked: Locked) -> NoReturn:
        """Write down, in a transaction of its own, who waits for whom, and raise: `locked`, or what is worse.

        Call it when your own transaction is over. The saga that waits is forgotten when it gets its locks or gives
        them back.

        Raises:
            DeadlockFound: Each of several sagas waits for the next one, and this is the one to turn back; a `Reject`.
            Locked: None was found.
        """
        await self._database.run(self._waiting(locked))
        raise locked

    async def run(self, saga: str, resources: Sequence[str], do: Callable[[Any], Awaitable[R]]) -> R:
        """Begin a transaction, take the locks, call `do(connection)`, commit; `wait` if a lock is held."""
        try:
            done: R = await self._database.run(self._holding(saga, resources, do))
            return done
        except Locked as locked:
            refused = locked
        return await self.wait(refused)

    async def release_all(self, connection: object, saga: str) -> list[str]:
        """Give back all that a saga holds, within your transaction, and return what that was.

        Call it where the saga ends: in its last step and in its last compensation, or see `hear`.
        """
        return await self._release(connection, saga)

    async def hear(self, connection: object, message: Message, *, saga: str | None = None) -> list[str]:
        """Give back what a saga holds if the message says that it has ended; within the transaction of your inbox.

        That is an orchestrator's lifecycle event: `saga.completed`, `saga.compensated` or `saga.failed`. `saga` is what
        it took its locks as, if that was not its id alone; the definition's name is in the header `atone-saga`.
        """
        return await self._hear(connection, message, saga)

    async def held(self, connection: object, *, limit: int = 100) -> list[Held]:
        """Return the locks that are held, the oldest first: what to look at when something waits for long."""
        return await self._table.held(face_of(connection), limit)


class BlockingSemanticLocks(_Locks):
    """The same for synchronous connections: psycopg, sqlite3, SQLAlchemy. Functions are plain ones."""

    def create_table(self, connection: object) -> None:
        """Make the tables, if they are not there."""
        finish(self._create(connection))

    def acquire(self, connection: object, saga: str, /, *resources: str) -> None:
        """Take these locks within your transaction; see `SemanticLocks.acquire`."""
        finish(self._acquire(connection, saga, resources))

    def wait(self, locked: Locked) -> NoReturn:
        """Write down who waits for whom, and raise; see `SemanticLocks.wait`."""
        self._database.run_here(self._waiting(locked))
        raise locked

    def run(self, saga: str, resources: Sequence[str], do: Callable[[Any], R]) -> R:
        """Begin a transaction, take the locks, call `do(connection)`, commit; see `SemanticLocks.run`."""
        try:
            done: R = self._database.run_here(self._holding(saga, resources, do))
            return done
        except Locked as locked:
            refused = locked
        return self.wait(refused)

    def release_all(self, connection: object, saga: str) -> list[str]:
        """Give back all that a saga holds; see `SemanticLocks.release_all`."""
        return finish(self._release(connection, saga))

    def hear(self, connection: object, message: Message, *, saga: str | None = None) -> list[str]:
        """Give back what a saga holds if the message says that it has ended; see `SemanticLocks.hear`."""
        return finish(self._hear(connection, message, saga))

    def held(self, connection: object, *, limit: int = 100) -> list[Held]:
        """Return the locks that are held, the oldest first."""
        return finish(self._table.held(face_of(connection), limit))


async def reread(connection: object, table: str, key: Mapping[str, Any], seen: Mapping[str, Any]) -> None:
    """Make sure that a row is still as it was seen, in the transaction that writes it; it stays so until that ends.

    `key` names the row by its columns, `seen` what an earlier step has read of it: a version, or the values that the
    decision was made on. Names of tables and columns are yours, never a caller's.

    Raises:
        Changed: It is not, or it is gone; a `Reject`. Nothing was written.
        BarrierMisplaced: The connection is in no transaction.
    """
    face = await joined(connection)
    if not await face.run(*_as_seen(face, table, key, seen)):
        raise Changed(f"A row of {table} is not as it was when this saga read it. Turn back, and begin anew.")


def blocking_reread(connection: object, table: str, key: Mapping[str, Any], seen: Mapping[str, Any]) -> None:
    """Do the same on a synchronous connection; see `reread`."""
    finish(reread(connection, table, key, seen))


class Commutative(Generic[P, R]):
    """An action that commutes with itself and its kind; called, it is the function. Made by `commutative`."""

    def __init__(self, do: Callable[P, R]) -> None:
        self._do = do
        self.undo: Callable[..., Any] | None = None
        update_wrapper(cast("Any", self), do)

    def __call__(self, *arguments: P.args, **named: P.kwargs) -> R:
        return self._do(*arguments, **named)

    def compensation(self, undo: Callable[..., Any]) -> Callable[..., Any]:
        """Declare the undo: `undo(connection, result, *arguments)`, as the barrier calls it. It has to commute too."""
        if self.undo is not None:
            raise DefinitionError(f"{self._do.__qualname__} has a compensation already. Keep one.")
        self.undo = undo
        return undo


def commutative(do: Callable[P, R]) -> Commutative[P, R]:
    """Mark `do(connection, *arguments)` as one whose order among its kind makes no difference: it needs no lock.

    It adds and takes away, and never writes what it has read. `atone.testing.commutative` shows whether that is true.
    """
    if inspect.isclass(do) or not callable(do):
        raise DefinitionError("@commutative stands above a function: do(connection, *arguments).")
    return Commutative(do)


def _as_seen(face: Face, table: str, key: Mapping[str, Any], seen: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    if not _TABLE.fullmatch(table) or not all(_COLUMN.fullmatch(name) for name in (*key, *seen)):
        raise ValueError("Tables and columns have plain names here: letters, digits and underscores. Use a view.")
    if not key or not seen:
        raise ValueError("key= names the row and seen= what was read of it; give a column of each at least.")
    named = [*((name, f"key_{at}", "=") for at, name in enumerate(key))]
    named += [(name, f"seen_{at}", _SAME[face.dialect]) for at, name in enumerate(seen)]
    where = " AND ".join(f"{name} {sign} :{place}" for name, place, sign in named)
    values = dict(zip((place for _, place, _ in named), (*key.values(), *seen.values()), strict=True))
    return f"SELECT 1 FROM {table} WHERE {where} {FOR_UPDATE[face.dialect]}", values  # noqa: S608 - checked above


def _check(saga: object, *resources: object) -> None:
    if len(resources) > _RESOURCES_MAX:
        raise PayloadError(f"A saga takes at most {_RESOURCES_MAX} locks at once. Lock what they belong to.")
    for given in (saga, *resources):
        if type(given) is not str or not 1 <= len(given) <= _NAME_LENGTH_MAX or "\0" in given:
            raise PayloadError(
                f"Sagas and resources have names of 1 to {_NAME_LENGTH_MAX} characters without NUL; give one."
            )
