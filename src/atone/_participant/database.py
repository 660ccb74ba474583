"""A service's own database as transactions: whatever the service calls it, one connection in one transaction at a time.

Owns how an engine, a pool or a function becomes a transaction, and that synchronous ones run in a thread of their own.
Must not know what is written. Leaving the context commits, or rolls back after an exception: that is the driver's part.
Used by whatever of a participant begins transactions: deliveries, time-outs and the relay.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from typing import Any, TypeAlias, TypeVar

from atone._connections.face import finish
from atone._threads import DaemonThreads
from atone.errors import DefinitionError

T = TypeVar("T")

Transaction: TypeAlias = AbstractAsyncContextManager[Any] | AbstractContextManager[Any]
Work: TypeAlias = Callable[[Any], Coroutine[Any, Any, T]]

_KINDS = (
    "database= is an engine or a pool (SQLAlchemy, asyncpg, psycopg), or a function that returns a context manager "
    "which yields a connection in a transaction, commits when it is left, and rolls back after an exception."
)


class Database:
    """Run work in transactions of its own. Leaving it lets no work begin any more."""

    def __init__(self, database: Any, *, threads_max: int = 8) -> None:
        self._begin = _beginner(database)
        self._threads_max = threads_max
        self._threads: DaemonThreads | None = None
        self._is_sync = False

    async def run(self, work: Work[T]) -> T:
        """Begin a transaction, do the work with its connection, commit, and return what the work returned.

        With a synchronous connection the work runs in a thread, and may await nothing but that connection.
        """
        if self._is_sync:
            return await self._aside(_begun_in_thread, self._begin, work)
        transaction = self._begin()
        if hasattr(transaction, "__aenter__"):
            async with transaction as connection:
                return await work(connection)
        _check_sync(transaction)
        self._is_sync = True  # from now on it is begun in its thread too, for a driver may connect there
        return await self._aside(_in_thread, transaction, work)

    async def _aside(self, call: Callable[..., T], *arguments: Any) -> T:
        if self._threads is None:
            self._threads = DaemonThreads(self._threads_max, "atone-participant")
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)

    def run_here(self, work: Work[T]) -> T:
        """Do the same in this thread, with a synchronous connection, for callers without an event loop."""
        transaction = self._begin()
        _check_sync(transaction)
        return _in_thread(transaction, work)

    def close(self) -> None:
        """Let the threads end, if there are any."""
        if self._threads is not None:
            self._threads.shutdown()
            self._threads = None


def _check_sync(transaction: object) -> None:
    if not hasattr(transaction, "__enter__"):
        raise DefinitionError(f"{_KINDS} What was given returns a {type(transaction).__qualname__}.")


def _begun_in_thread(begin: Callable[[], Any], work: Work[T]) -> T:
    return _in_thread(begin(), work)


def _in_thread(transaction: AbstractContextManager[Any], work: Work[T]) -> T:
    with transaction as connection:
        return finish(work(connection))


def _beginner(database: Any) -> Callable[[], Any]:
    if isinstance(database, Database):
        raise DefinitionError(_KINDS)
    package = type(database).__module__.partition(".")[0]
    if package == "asyncpg":
        return lambda: _of_asyncpg(database)
    if package == "sqlalchemy" and hasattr(database, "begin"):
        begin: Callable[[], Any] = database.begin
        return begin
    if package == "psycopg_pool":
        connect: Callable[[], Any] = database.connection
        return connect
    if callable(database):
        called: Callable[[], Any] = database
        return called
    raise DefinitionError(f"{_KINDS} It is a {type(database).__qualname__}.")


@asynccontextmanager
async def _of_asyncpg(pool: Any) -> AsyncGenerator[Any, None]:
    async with pool.acquire() as connection, connection.transaction():
        yield connection
