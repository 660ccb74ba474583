"""Connections that end, are refused, are all busy, or break inside the driver: the outcome is unknown, no more.

Each call says StoreUnavailable with the next move, the same call made again gets a definite answer, and what was
acknowledged is there once.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import uuid4

import asyncpg
import psycopg
import pytest

from atone.errors import StoreError, StoreUnavailable
from atone.store import Query, TurnResult
from atone.stores._postgres_errors import keeps_the_connection, translated
from atone.stores.postgres import PostgresStore
from atone.testing._subject import birth_of, request_for, turn_of
from tests.servers.postgres import WORKER, Bench, Place

APPLIED = TurnResult.APPLIED
KILL = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = %s AND application_name = 'atone'"


async def worker_on(store: PostgresStore) -> str:
    worker = uuid4().hex
    await asyncio.to_thread(store.renew, worker, 600.0, register=())
    return worker


async def until_definite(call: Callable[[], Any]) -> tuple[Any, int]:
    """Make a call until it is answered; return the answer, and how often there was none."""
    for unknown in range(1000):
        try:
            return await call(), unknown
        except StoreUnavailable:
            await asyncio.sleep(0.001)
    raise AssertionError("there never was an answer")


def test_connections_that_are_ended_all_the_time_lose_nothing(postgres_bench: Bench) -> None:
    """An administrator ends every session again and again: each batch that was acknowledged stands there, once."""
    place = postgres_bench.place()

    async def main() -> None:
        async with place.store(real_clock=True) as store:
            worker = await worker_on(store)
            keys = [uuid4().bytes for _ in range(30)]
            over = asyncio.Event()
            counts = {"unknown": 0, "killed": 0}

            async def kill() -> None:
                with psycopg.connect(postgres_bench.server.url(), autocommit=True) as admin:
                    while not over.is_set():
                        (killed,) = admin.execute(KILL, [WORKER]).fetchone() or (0,)
                        counts["killed"] += killed
                        await asyncio.sleep(random.uniform(0.02, 0.1))  # a connection takes a while to make

            killing = asyncio.ensure_future(kill())
            version = 0
            while counts["unknown"] < 20:
                version += 1
                batch = [birth_of(key) if version == 1 else turn_of(key, version) for key in keys]
                results, unknown = await until_definite(lambda batch=batch: store.commit(worker, batch))
                assert results == [APPLIED] * len(keys)
                counts["unknown"] += unknown
            over.set()
            await killing
            loaded, _ = await until_definite(lambda: store.load(keys))
            assert [[row.version for row in one.rows] for one in loaded] == [list(range(1, version + 1))] * 30
            assert counts["killed"] >= 20

    asyncio.run(main())


BROKEN = [
    asyncpg.InternalClientError("got result for unknown protocol state 3"),
    asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
    asyncpg.InterfaceError("cannot perform operation: another operation is in progress"),
    asyncpg.TargetServerAttributeNotMatched("None of the hosts match the target attribute requirement"),
    ConnectionResetError(104, "Connection reset by peer"),
    BrokenPipeError(32, "Broken pipe"),
    TimeoutError(),
    EOFError(),
    OSError("no route to host"),
]


@pytest.mark.parametrize("error", BROKEN, ids=lambda error: type(error).__name__)
def test_whatever_breaks_inside_the_driver_leaves_the_outcome_unknown(error: Exception, postgres_bench: Bench) -> None:
    """All was written, the driver failed on the answer: the connection is dropped, the same turns settle it."""
    place = postgres_bench.place()

    async def main() -> None:
        async with place.store(real_clock=True) as store:
            worker = await worker_on(store)
            lines: Any = store._open
            await store.commit(worker, [])
            session = await _session_of(lines.commits)
            connection = session.connection
            session.connection = Breaking(connection, error)
            batch = [birth_of(uuid4().bytes), birth_of(uuid4().bytes)]
            with pytest.raises(StoreUnavailable, match=r"[Ss]end it again|[Tt]ry again"):
                await store.commit(worker, batch)
            assert connection.is_closed()
            assert place.sql("SELECT count(*) FROM journal") == [(2,)]
            assert await store.commit(worker, batch) == [APPLIED] * 2
            assert place.sql("SELECT count(*) FROM journal") == [(2,)]
            assert await _session_of(lines.commits) is not session

    assert not keeps_the_connection(error)
    assert isinstance(translated(error, "here"), StoreUnavailable)
    asyncio.run(main())


async def _session_of(line: Any) -> Any:
    async def itself(session: Any) -> Any:
        return session

    return await line.do(itself)


class Breaking:
    """A connection that does what it is asked for, and fails when it should say so."""

    def __init__(self, inner: Any, error: Exception) -> None:
        self._inner, self._error = inner, error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def fetchrow(self, *values: Any) -> Any:
        await self._inner.fetchrow(*values)
        raise self._error


def test_a_server_that_has_no_connection_left_says_so_and_is_used_when_it_has(postgres_bench: Bench) -> None:
    """Too many connections is an outage like another: nothing is lost, and the message names what to do."""
    place = postgres_bench.place()

    async def main() -> None:
        async with place.store(real_clock=True) as store:
            worker = await worker_on(store)
            first = birth_of(uuid4().bytes)
            assert await store.commit(worker, [first]) == [APPLIED]
            place.sql(f"ALTER ROLE {WORKER} CONNECTION LIMIT 0")
            try:
                place.sql(KILL, WORKER)
                with suppress(StoreUnavailable):  # it may not know yet that its connection has ended
                    await store.commit(worker, [turn_of(first.key, 2)])
                for call in (
                    lambda: store.commit(worker, [turn_of(first.key, 2)]),
                    lambda: store.find(Query()),
                    lambda: store.deliver(request_for("x")),
                ):
                    with pytest.raises(StoreUnavailable, match=r"too many connections.*Give it more, then try again"):
                        await until_refused(call)
            finally:
                place.sql(f"ALTER ROLE {WORKER} CONNECTION LIMIT -1")
            assert await store.commit(worker, [turn_of(first.key, 2)]) == [APPLIED]

    asyncio.run(main())


async def until_refused(call: Callable[[], Any]) -> None:
    """Make a call until it meets a new connection; the old one may end only now."""
    for _ in range(5):
        try:
            await call()
        except StoreUnavailable as error:
            if "was lost" in str(error) or "stopping" in str(error):
                continue
            raise


def test_who_waits_too_long_for_a_free_connection_is_told_so(postgres_bench: Bench) -> None:
    """All are busy, and stay so: a bounded wait, a message with the next move, and nothing was sent."""
    place = postgres_bench.place()

    async def main() -> None:
        async with place.store(real_clock=True, readers=2, statement_seconds=0.5) as store:
            worker = await worker_on(store)
            first = birth_of(uuid4().bytes, saga_id="7")
            await store.commit(worker, [first])
            lines: Any = store._open
            free = asyncio.Event()
            busy = [asyncio.ensure_future(lines.others.do(lambda session: free.wait())) for _ in range(2)]
            await asyncio.sleep(0)
            calls = [store.load([first.key]), store.find(Query()), store.deliver(request_for("7"))]
            answers = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(one) for one in answers] == [StoreUnavailable] * 3
            assert all("All 2 connections" in str(one) and "more readers" in str(one) for one in answers)
            # Commits and leases have connections of their own.
            assert await store.commit(worker, [turn_of(first.key, 2)]) == [APPLIED]
            assert store.renew(worker, 600.0).until > 0
            free.set()
            await asyncio.gather(*busy)
            (loaded,) = await store.load([first.key])
            assert loaded is not None
            assert [row.version for row in loaded.rows] == [1, 2]

    asyncio.run(main())


def test_more_callers_than_connections_all_get_their_turn(postgres_bench: Bench) -> None:
    """A burst is no exhaustion: who waits a moment is served."""
    place = postgres_bench.place()

    async def main() -> None:
        async with place.store(real_clock=True, readers=1) as store:
            worker = await worker_on(store)
            keys = [uuid4().bytes for _ in range(50)]
            await store.commit(worker, [birth_of(key) for key in keys])
            loaded = await asyncio.gather(*(store.load([key]) for key in keys))
            assert [one and one.summary.key for (one,) in loaded] == keys

    asyncio.run(main())


def test_a_user_without_rights_is_told_which_role_to_grant(postgres_bench: Bench) -> None:
    """Opening, and working after a right was taken away: both name the role, and nothing is written."""
    place = postgres_bench.place()
    login = f"nobody_{uuid4().hex[:8]}"
    place.sql(f"CREATE ROLE {login} LOGIN PASSWORD 'x'")

    async def refused() -> None:
        with pytest.raises(StoreError, match="atone_worker"):
            async with place.store(postgres_bench.server.url(user=login, password="x")):
                pass

    async def main(place: Place) -> None:
        await refused()
        async with place.store(real_clock=True) as store:
            worker = await worker_on(store)
            place.sql("REVOKE INSERT ON journal FROM atone_worker")
            first = birth_of(uuid4().bytes)
            with pytest.raises(StoreError, match="atone_worker"):
                await store.commit(worker, [first])
            assert place.sql("SELECT count(*) FROM sagas") == [(0,)]
            place.sql("GRANT INSERT ON journal TO atone_worker")
            assert await store.commit(worker, [first]) == [APPLIED]

    asyncio.run(main(place))
