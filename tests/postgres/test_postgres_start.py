"""A start within the caller's transaction, on every kind of connection: there with the commit, or not at all."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any
from uuid import uuid4

import asyncpg
import psycopg
import pytest
import sqlalchemy
from psycopg.rows import dict_row
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from atone.errors import StoreError, StoreUnavailable
from atone.store import Delivered, Hot, TurnResult
from atone.stores.postgres import PostgresStore
from atone.testing._subject import birth_of, request_for
from tests.servers.postgres import Bench, Place, until

APPLIED = TurnResult.APPLIED
Ends = Callable[[bool], Any]
Joined = Callable[[str], AbstractAsyncContextManager[tuple[Any, Ends]]]


@asynccontextmanager
async def of_asyncpg(url: str) -> AsyncIterator[tuple[Any, Ends]]:
    connection = await asyncpg.connect(url)
    transaction = connection.transaction()
    await transaction.start()
    try:
        yield connection, lambda commits: transaction.commit() if commits else transaction.rollback()
    finally:
        await connection.close()


@asynccontextmanager
async def of_asyncpgs_pool(url: str) -> AsyncIterator[tuple[Any, Ends]]:
    async with asyncpg.create_pool(url, min_size=1, max_size=1) as pool, pool.acquire() as connection:
        transaction = connection.transaction(isolation="repeatable_read")
        await transaction.start()
        yield connection, lambda commits: transaction.commit() if commits else transaction.rollback()


@asynccontextmanager
async def of_psycopg(url: str) -> AsyncIterator[tuple[Any, Ends]]:
    async with await psycopg.AsyncConnection.connect(url, row_factory=dict_row) as connection:
        yield connection, lambda commits: connection.commit() if commits else connection.rollback()


@asynccontextmanager
async def of_psycopg_sync(url: str) -> AsyncIterator[tuple[Any, Ends]]:
    with psycopg.connect(url, cursor_factory=psycopg.ClientCursor) as connection:
        yield connection, lambda commits: _done(connection.commit() if commits else connection.rollback())


@asynccontextmanager
async def of_sqlalchemy(url: str) -> AsyncIterator[tuple[Any, Ends]]:
    engine = sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        yield connection, lambda commits: _done(connection.commit() if commits else connection.rollback())
    engine.dispose()


@asynccontextmanager
async def of_sqlalchemy_session(url: str) -> AsyncIterator[tuple[Any, Ends]]:
    engine = sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with Session(engine) as session:
        yield session, lambda commits: _done(session.commit() if commits else session.rollback())
    engine.dispose()


@asynccontextmanager
async def of_sqlalchemy_async(url: str, driver: str = "asyncpg") -> AsyncIterator[tuple[Any, Ends]]:
    engine = create_async_engine(url.replace("postgresql:", f"postgresql+{driver}:"))
    async with AsyncConnection(engine) as connection:
        yield connection, lambda commits: connection.commit() if commits else connection.rollback()
    await engine.dispose()


def of_sqlalchemy_async_over_psycopg(url: str) -> AbstractAsyncContextManager[tuple[Any, Ends]]:
    return of_sqlalchemy_async(url, "psycopg")


@asynccontextmanager
async def of_sqlalchemy_async_session(url: str, driver: str = "psycopg") -> AsyncIterator[tuple[Any, Ends]]:
    engine = create_async_engine(url.replace("postgresql:", f"postgresql+{driver}:"))
    async with AsyncSession(engine) as session:
        yield session, lambda commits: session.commit() if commits else session.rollback()
    await engine.dispose()


def of_sqlalchemy_async_session_over_asyncpg(url: str) -> AbstractAsyncContextManager[tuple[Any, Ends]]:
    return of_sqlalchemy_async_session(url, "asyncpg")


async def _done(result: object) -> None:
    assert result is None


KINDS: list[Joined] = [
    of_asyncpg,
    of_asyncpgs_pool,
    of_psycopg,
    of_psycopg_sync,
    of_sqlalchemy,
    of_sqlalchemy_session,
    of_sqlalchemy_async,
    of_sqlalchemy_async_over_psycopg,
    of_sqlalchemy_async_session,
    of_sqlalchemy_async_session_over_asyncpg,
]


@pytest.fixture(scope="module")
def place(postgres_bench: Bench) -> Place:
    place = postgres_bench.place()
    place.sql("CREATE TABLE orders (id text PRIMARY KEY)")
    place.sql("GRANT ALL ON orders TO PUBLIC")
    return place


@pytest.fixture(autouse=True)
def _empty(place: Place) -> None:
    place.empty()
    place.sql("TRUNCATE orders")


async def order(connection: Any, place: Place, name: str) -> None:
    """Write something of the caller's own."""
    await run(connection, f"INSERT INTO \"{place.schema}\".orders VALUES ('{name}')")


async def run(connection: Any, statement: str) -> None:
    """Run a statement of the caller's own, the way that this kind of connection does."""
    text: Any = sqlalchemy.text(statement) if "sqlalchemy" in type(connection).__module__ else statement
    result = connection.execute(text)
    if asyncio.iscoroutine(result):
        await result


def orders(place: Place) -> list[str]:
    return [name for (name,) in place.sql("SELECT id FROM orders ORDER BY id")]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_start_shares_the_fate_of_the_callers_transaction(place: Place, kind: Joined) -> None:
    """Committed, the saga is there with what the caller wrote; rolled back, neither is."""

    async def main(store: PostgresStore, url: str) -> None:
        for commits in (False, True):
            first = birth_of(uuid4().bytes, saga_id="7", entries=b'{"50%": ":no_name $1 \xc3\xa4"}')
            async with kind(url) as (connection, end):
                await order(connection, place, "one")
                assert await store.start(first, connection=connection) is APPLIED
                assert await store.start(first, connection=connection) is APPLIED
                await order(connection, place, "two")
                assert await store.load([first.key]) == [None]
                await end(commits)
            (loaded,) = await store.load([first.key])
            assert (loaded is not None) is commits
            assert orders(place) == (["one", "two"] if commits else [])
            if loaded is not None:
                assert loaded.rows[0][2:] == (first.commit_id, first.entries)
                assert loaded.summary.owner is None
                assert loaded.summary.wake_at == loaded.summary.created_at

    asyncio.run(_with_store(place, main))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_what_can_not_be_started_leaves_the_callers_transaction_whole(place: Place, kind: Joined) -> None:
    """TAKEN and REFUSED are answers; what the caller has written, and writes afterwards, is not affected."""

    async def main(store: PostgresStore, url: str) -> None:
        there = birth_of(uuid4().bytes, saga_id="7", owned=False)
        async with kind(url) as (connection, end):
            await store.start(there, connection=connection)
            await end(True)
        again = [
            birth_of(uuid4().bytes, saga_id="7"),
            birth_of(there.key, saga_id="8"),
            birth_of(uuid4().bytes, saga_id="nul \0"),
            birth_of(uuid4().bytes, saga_id="surrogate \ud800"),
            birth_of(uuid4().bytes, saga_id=os.urandom(5000).hex()),
            birth_of(uuid4().bytes, entries=b"x" * 200_000),
            birth_of(uuid4().bytes)._replace(hot=None),
        ]
        async with kind(url) as (connection, end):
            await order(connection, place, "before")
            results = [await store.start(one, connection=connection) for one in again]
            await order(connection, place, "behind")
            await end(True)
        assert results == [TurnResult.TAKEN, TurnResult.CONFLICT, *[TurnResult.REFUSED] * 5]
        assert orders(place) == ["before", "behind"]
        assert place.sql("SELECT count(*) FROM sagas") == [(1,)]

    asyncio.run(_with_store(place, main))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_early_events_come_along(place: Place, kind: Joined) -> None:
    """They are in the journal when the caller's transaction is, and still wait if it is rolled back."""

    async def main(store: PostgresStore, url: str) -> None:
        event = request_for("7", keep_seconds=60)
        assert await store.deliver(event) is Delivered.KEPT
        first = birth_of(uuid4().bytes, saga_id="7", owned=False)
        for commits in (False, True):
            async with kind(url) as (connection, end):
                assert await store.start(first, connection=connection) is APPLIED
                await end(commits)
            (loaded,) = await store.load([first.key])
            stand = [row.commit_id for row in loaded.rows] if loaded else []
            assert stand == ([first.commit_id, event.commit_id] if commits else [])

    asyncio.run(_with_store(place, main))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_several_starts_share_one_transaction_and_a_savepoint_takes_back_its_own(place: Place, kind: Joined) -> None:
    """What the caller rolls back to a savepoint is gone with its sagas; what stood before and comes after is not."""

    async def main(store: PostgresStore, url: str) -> None:
        first, dropped, last = (birth_of(uuid4().bytes, saga_id=name) for name in ("first", "dropped", "last"))
        again = birth_of(uuid4().bytes, saga_id="first")
        async with kind(url) as (connection, end):
            assert await store.start(first, connection=connection) is APPLIED
            await run(connection, "SAVEPOINT mine")
            assert await store.start(dropped, connection=connection) is APPLIED
            await order(connection, place, "dropped")
            await run(connection, "ROLLBACK TO SAVEPOINT mine")
            assert await store.start(again, connection=connection) is TurnResult.TAKEN
            assert await store.start(last, connection=connection) is APPLIED
            assert await store.start(last, connection=connection) is APPLIED
            await order(connection, place, "kept")
            await end(True)
        loaded = await store.load([first.key, dropped.key, again.key, last.key])
        assert [one and len(one.rows) for one in loaded] == [1, None, None, 1]
        assert orders(place) == ["kept"]

    asyncio.run(_with_store(place, main))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_transaction_that_has_failed_already_takes_no_saga(place: Place, kind: Joined) -> None:
    """It can only be rolled back; the error says that nothing was written."""

    async def main(store: PostgresStore, url: str) -> None:
        first = birth_of(uuid4().bytes)
        async with kind(url) as (connection, end):
            with pytest.raises(Exception, match="nosuch"):
                await run(connection, "SELECT * FROM nosuch")
            with pytest.raises(StoreError, match=r"failed.*[Rr]oll it back"):
                await store.start(first, connection=connection)
            await end(False)
            assert await store.load([first.key]) == [None]

    asyncio.run(_with_store(place, main))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_connection_that_the_server_has_ended_takes_no_saga(place: Place, kind: Joined) -> None:
    """The caller's transaction is gone with it, and only the caller can repeat it: the error says so."""
    name = f"caller_{uuid4().hex[:8]}"

    async def end_it(connection: Any) -> None:
        await run(connection, f"SET application_name = {name}")
        ended = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = %s"
        assert place.sql(ended, name) == [(1,)]
        await until(lambda: place.sql("SELECT 1 FROM pg_stat_activity WHERE application_name = %s", name) == [])

    error = asyncio.run(_error_after(place, kind, end_it))
    assert isinstance(error, StoreUnavailable), error
    assert "repeat the whole transaction" in str(error)


@pytest.mark.parametrize("kind", [of_asyncpg, of_psycopg, of_psycopg_sync, of_sqlalchemy, of_sqlalchemy_async])
def test_a_connection_that_is_closed_takes_no_saga(place: Place, kind: Joined) -> None:
    """A driver's own words about it would name no next move."""

    async def close(connection: Any) -> None:
        result = connection.close()
        if asyncio.iscoroutine(result):
            await result

    error = asyncio.run(_error_after(place, kind, close))
    assert isinstance(error, StoreUnavailable), error
    assert "closed" in str(error)


async def _error_after(place: Place, kind: Joined, harm: Callable[[Any], Any]) -> BaseException | None:
    """Return what a start says on a connection that was harmed; how that one is left is not our concern."""
    first, error = birth_of(uuid4().bytes), None
    async with place.store() as store:
        with suppress(psycopg.Error, sqlalchemy.exc.SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError):
            async with kind(place.bench.worker_url) as (connection, end):
                await harm(connection)
                try:
                    await store.start(first, connection=connection)
                except Exception as caught:
                    error = caught
                await end(False)
        assert await store.load([first.key]) == [None]
    return error


@asynccontextmanager
async def asyncpg_outside(url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def psycopg_outside(url: str) -> AsyncIterator[Any]:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        yield connection


@asynccontextmanager
async def sqlalchemy_outside(url: str) -> AsyncIterator[Any]:
    engine = create_async_engine(url.replace("postgresql:", "postgresql+asyncpg:"), isolation_level="AUTOCOMMIT")
    async with AsyncSession(engine) as session:
        yield session
    await engine.dispose()


@pytest.mark.parametrize("kind", [asyncpg_outside, psycopg_outside, sqlalchemy_outside], ids=lambda kind: kind.__name__)
def test_a_connection_in_no_transaction_has_nothing_to_join(place: Place, kind: Any) -> None:
    """The saga would be there at once, whatever becomes of the caller's work: that is not what was asked for."""

    async def main(store: PostgresStore, url: str) -> None:
        async with kind(url) as connection:
            with pytest.raises(TypeError, match="Begin one first"):
                await store.start(birth_of(uuid4().bytes), connection=connection)
        assert place.sql("SELECT count(*) FROM sagas") == [(0,)]

    asyncio.run(_with_store(place, main))


def test_a_connection_of_another_kind_is_told_which_ones_there_are(place: Place) -> None:
    """TypeError with the reason, before anything is sent."""
    engine = sqlalchemy.create_engine("sqlite://")

    class Cursor:
        __module__ = "psycopg2.extensions"

    async def main(store: PostgresStore, url: str) -> None:
        pool = await asyncpg.create_pool(url, min_size=0)
        with engine.connect() as sqlite, psycopg.connect(url) as connection:
            for wrong, says in [
                (object(), "asyncpg, psycopg 3 or SQLAlchemy"),
                (None, "asyncpg, psycopg 3 or SQLAlchemy"),
                ("postgresql://", "asyncpg, psycopg 3 or SQLAlchemy"),
                (Cursor(), "psycopg 3, or give the SQLAlchemy session"),
                (pool, "Acquire one"),
                (connection.cursor(), "the connection itself"),
                (engine, "connect"),
                (sqlite, "connected to sqlite"),
            ]:
                with pytest.raises(TypeError, match=says):
                    await store.start(birth_of(uuid4().bytes), connection=wrong)
        await pool.close()

    asyncio.run(_with_store(place, main))
    engine.dispose()


def test_a_connection_to_another_store_is_refused(place: Place, postgres_bench: Bench) -> None:
    """It may be of the right kind, and lead to a copy, or to a database that has no sagas at all."""
    postgres_bench.admin.execute("CREATE DATABASE elsewhere")
    twin = postgres_bench.place()

    async def main(store: PostgresStore, url: str) -> None:
        first = birth_of(uuid4().bytes)
        async with of_psycopg(url.replace("/postgres", "/elsewhere")) as (connection, end):
            with pytest.raises(TypeError, match="another database"):
                await store.start(first, connection=connection)
            assert await (await connection.execute("SELECT 1 AS one")).fetchone() == {"one": 1}
            await end(True)
        place.sql("UPDATE identity SET id = 'a copy'")
        async with of_psycopg(url) as (connection, _):
            with pytest.raises(TypeError, match="another database"):
                await store.start(first, connection=connection)
        assert place.sql("SELECT count(*) FROM sagas") == [(0,)]
        async with twin.store() as other, of_psycopg(url) as (connection, end):
            assert await other.start(first, connection=connection) is APPLIED
            await end(True)
            assert await other.load([first.key]) != [None]

    asyncio.run(_with_store(place, main))


def test_a_caller_without_rights_is_told_which_role_to_grant(place: Place, postgres_bench: Bench) -> None:
    """And may go on with the transaction."""
    postgres_bench.admin.execute("CREATE ROLE stranger LOGIN PASSWORD 'stranger'")

    async def main(store: PostgresStore, url: str) -> None:
        url = postgres_bench.server.url(user="stranger", password="stranger")
        async with of_asyncpg(url) as (connection, end):
            with pytest.raises(StoreError, match="atone_worker"):
                await store.start(birth_of(uuid4().bytes), connection=connection)
            assert await connection.fetchval("SELECT 1") == 1
            await end(True)

    asyncio.run(_with_store(place, main))


async def _with_store(place: Place, main: Callable[[PostgresStore, str], Any]) -> None:
    async with place.store() as store:
        await main(store, place.bench.worker_url)


def test_a_later_start_waits_for_its_time(place: Place) -> None:
    """`wake_at` is kept if the first turn says one."""

    async def main(store: PostgresStore, url: str) -> None:
        first = birth_of(uuid4().bytes)._replace(hot=Hot("pending", True, 12.5))
        async with of_asyncpg(url) as (connection, end):
            await store.start(first, connection=connection)
            await end(True)
        (loaded,) = await store.load([first.key])
        assert loaded is not None
        assert (loaded.summary.owner, loaded.summary.wake_at) == (None, 12.5)

    asyncio.run(_with_store(place, main))
