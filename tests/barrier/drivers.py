"""Every kind of connection that the barrier serves, each opened, asked and ended in its own way, behind one face.

A test is a coroutine whatever the driver; a synchronous connection gets the blocking barrier and plain functions.
"""

from __future__ import annotations

import inspect
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import aiosqlite
import asyncpg
import psycopg
import sqlalchemy
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from atone.barrier import Barrier, BlockingBarrier, Undo


class Line:
    """One connection in one transaction of a participant's."""

    def __init__(self, connection: Any, is_sync: bool, begin: str | None = None) -> None:
        self.connection, self._is_sync, self._begin = connection, is_sync, begin
        self.barrier: Any = (BlockingBarrier if is_sync else Barrier)(table="guard")

    async def begin(self) -> None:
        """Begin a transaction, where the driver does not do so by itself."""
        if self._begin is not None:
            await self.write(self._begin)

    async def write(self, statement: str) -> None:
        """Run a statement as the participant's own code does."""
        await _done(_write(self.connection, statement))

    def effect(self, name: str, result: Any = None) -> Callable[..., Any]:
        """Return a function of the participant's that writes a row, of the driver's colour."""

        def plain(connection: Any, *_: Any) -> Any:
            _write(connection, f"INSERT INTO effects VALUES ('{name}')")
            return result

        async def awaiting(connection: Any, *_: Any) -> Any:
            await _done(_write(connection, f"INSERT INTO effects VALUES ('{name}')"))
            return result

        return plain if self._is_sync else awaiting

    async def action(self, key: str, do: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Call the barrier for an action."""
        return await _done(self.barrier.action(self.connection, key, do, *arguments, **options))

    async def compensation(self, key: str, undo: Callable[..., Any], *arguments: Any, **options: Any) -> Undo:
        """Call the barrier for a compensation."""
        found: Undo = await _done(self.barrier.compensation(self.connection, key, undo, *arguments, **options))
        return found

    async def end(self, *, commits: bool = True) -> None:
        """End the transaction the driver's way."""
        if hasattr(self.connection, "is_in_transaction"):
            await self.connection.execute("COMMIT" if commits else "ROLLBACK")
        else:
            await _done(self.connection.commit() if commits else self.connection.rollback())


Kind = Callable[[str], AbstractAsyncContextManager[Line]]


def _write(connection: Any, statement: str) -> Any:
    by_sqlalchemy = type(connection).__module__.startswith("sqlalchemy")
    return connection.execute(sqlalchemy.text(statement) if by_sqlalchemy else statement)


async def _done(given: Any) -> Any:
    return await given if inspect.isawaitable(given) else given


@asynccontextmanager
async def of_asyncpg(url: str) -> AsyncIterator[Line]:
    connection = await asyncpg.connect(url)
    try:
        yield Line(connection, False, "BEGIN")
    finally:
        await connection.close()


@asynccontextmanager
async def of_psycopg(url: str) -> AsyncIterator[Line]:
    connection = await psycopg.AsyncConnection.connect(url)
    try:
        yield Line(connection, False)
    finally:
        await connection.close()


@asynccontextmanager
async def of_psycopg_sync(url: str) -> AsyncIterator[Line]:
    connection = psycopg.connect(url)
    try:
        yield Line(connection, True)
    finally:
        connection.close()


@asynccontextmanager
async def of_sqlalchemy(url: str) -> AsyncIterator[Line]:
    engine = sqlalchemy.create_engine(_dialect(url, "psycopg", "pysqlite"))
    try:
        with engine.connect() as connection:
            yield Line(connection, True)
    finally:
        engine.dispose()


@asynccontextmanager
async def of_sqlalchemy_session(url: str) -> AsyncIterator[Line]:
    engine = sqlalchemy.create_engine(_dialect(url, "psycopg", "pysqlite"))
    try:
        with Session(engine) as session:
            yield Line(session, True)
    finally:
        engine.dispose()


@asynccontextmanager
async def of_sqlalchemy_async(url: str) -> AsyncIterator[Line]:
    engine = create_async_engine(_dialect(url, "asyncpg", "aiosqlite"))
    try:
        async with engine.connect() as connection:
            yield Line(connection, False)
    finally:
        await engine.dispose()


@asynccontextmanager
async def of_sqlalchemy_async_session(url: str) -> AsyncIterator[Line]:
    engine = create_async_engine(_dialect(url, "psycopg", "aiosqlite"))
    try:
        async with AsyncSession(engine) as session:
            yield Line(session, False)
    finally:
        await engine.dispose()


@asynccontextmanager
async def of_sqlite3(url: str) -> AsyncIterator[Line]:
    connection = sqlite3.connect(url)
    try:
        yield Line(connection, True)
    finally:
        connection.close()


@asynccontextmanager
async def of_sqlite3_by_hand(url: str) -> AsyncIterator[Line]:
    connection = sqlite3.connect(url, isolation_level=None)
    try:
        yield Line(connection, True, "BEGIN")
    finally:
        connection.close()


@asynccontextmanager
async def of_aiosqlite(url: str) -> AsyncIterator[Line]:
    async with aiosqlite.connect(url) as connection:
        yield Line(connection, False)


def _dialect(url: str, on_postgres: str, on_sqlite: str) -> str:
    if url.startswith("postgresql:"):
        return url.replace("postgresql:", f"postgresql+{on_postgres}:")
    return f"sqlite+{on_sqlite}:///{url}"


SQLALCHEMY = [of_sqlalchemy, of_sqlalchemy_session, of_sqlalchemy_async, of_sqlalchemy_async_session]
ON_POSTGRES: list[Kind] = [of_asyncpg, of_psycopg, of_psycopg_sync, *SQLALCHEMY]
ON_SQLITE: list[Kind] = [of_sqlite3, of_sqlite3_by_hand, of_aiosqlite, *SQLALCHEMY]
