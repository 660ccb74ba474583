"""A commit whose answer is lost is settled by sending it again, whether it was written, was not, or will be later."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import pytest

from atone.errors import StoreUnavailable, WorkerDead
from atone.store import Delivered, Hot, Turn, TurnResult
from atone.stores.postgres import PostgresStore
from atone.testing._subject import birth_of, request_for, turn_of
from atone.testing.postgres import Stop
from tests.servers.postgres import WORKER, Bench, Place, until
from tests.servers.proxy import Mode, Proxy

APPLIED = TurnResult.APPLIED
LONG_SECONDS = 600.0


@contextmanager
def proxied(bench: Bench, place: Place, **options: float) -> Iterator[tuple[Proxy, PostgresStore]]:
    with Proxy(bench.server.port) as proxy:
        url = bench.worker_url.replace(f":{bench.server.port}/", f":{proxy.port}/")
        yield proxy, place.store(url, real_clock=True, **{"statement_seconds": 0.4, **options})


def versions(place: Place, key: bytes) -> list[int]:
    """Look past the store: which versions stand in the journal."""
    return [version for (version,) in place.sql("SELECT version FROM journal WHERE saga = %s ORDER BY 1", key)]


def key() -> bytes:
    return uuid4().bytes


@pytest.mark.parametrize(
    ("mode", "is_there"),
    [("drop_replies", True), ("reset_on_reply", True), ("drop_requests", False), ("reset_on_request", False)],
)
def test_a_lost_answer_is_settled_by_sending_again(postgres_bench: Bench, mode: Mode, is_there: bool) -> None:
    """The error does not tell whether the rows were written; the same turns sent again are there once, all of them."""
    place = postgres_bench.place()

    async def main() -> None:
        with proxied(postgres_bench, place) as (proxy, store):
            async with store:
                worker = uuid4().hex
                store.renew(worker, LONG_SECONDS, register=())
                old = birth_of(key())
                assert await store.commit(worker, [old]) == [APPLIED]
                batch = [turn_of(old.key, 2, Hot("waiting", True, 5.0)), birth_of(key()), birth_of(key(), owned=False)]
                proxy.mode = mode
                with pytest.raises(StoreUnavailable):
                    await store.commit(worker, batch)
                written = [[2, 1], [1], [1]][: len(batch)] if is_there else [[1], [], []]
                found = [versions(place, turn.key) for turn in batch]
                assert [sorted(one) for one in found] == [sorted(one) for one in written]
                proxy.mode = "pass"
                assert await store.commit(worker, batch) == [APPLIED] * 3
                assert [versions(place, turn.key) for turn in batch] == [[1, 2], [1], [1]]

    asyncio.run(main())


def test_a_commit_that_arrives_after_it_was_sent_again_changes_nothing(postgres_bench: Bench) -> None:
    """The network may keep a statement and hand it over when its turns are history: an old state must not come back."""
    place = postgres_bench.place()

    async def main() -> None:
        with proxied(postgres_bench, place) as (proxy, store):
            async with store, place.store(real_clock=True) as other:
                worker, third = uuid4().hex, uuid4().hex
                store.renew(worker, LONG_SECONDS, register=())
                other.renew(third, LONG_SECONDS, register=())
                first = birth_of(key())
                await store.commit(worker, [first])
                late = [turn_of(first.key, 2, Hot("waiting", False, 0.0)), birth_of(key())]
                proxy.mode = "hold_requests"
                with pytest.raises(StoreUnavailable):
                    await store.commit(worker, late)
                assert proxy.held
                proxy.mode = "pass"
                assert await store.commit(worker, late) == [APPLIED] * 2
                claimed = await other.claim(
                    third, definitions=[("Order", 1, "hash")], known=(), limit=9, lease_seconds=LONG_SECONDS
                )
                assert claimed.taken == (first.key,)
                assert await other.commit(third, [turn_of(first.key, 3, Hot("running", True, 9.0))]) == [APPLIED]
                shown = place.sql("SELECT * FROM sagas ORDER BY key")
                errors = postgres_bench.server.log.count("duplicate key")
                proxy.release()
                # until the server has met the old statement and turned it down
                await until(lambda: postgres_bench.server.log.count("duplicate key") > errors)
                assert place.sql("SELECT * FROM sagas ORDER BY key") == shown
                assert [versions(place, turn.key) for turn in late] == [[1, 2, 3], [1]]

    asyncio.run(main())


def test_a_commit_that_arrives_after_its_worker_was_declared_dead_writes_nothing(postgres_bench: Bench) -> None:
    """The statement carries its own check: it does not matter how long it was under way."""
    place = postgres_bench.place()

    async def main() -> None:
        with proxied(postgres_bench, place) as (proxy, store):
            async with store:
                worker = uuid4().hex
                store.renew(worker, LONG_SECONDS, register=())
                first = birth_of(key())
                await store.commit(worker, [first])
                proxy.mode = "hold_requests"
                with pytest.raises(StoreUnavailable):
                    await store.commit(worker, [turn_of(first.key, 2), birth_of(key())])
                place.sql("UPDATE workers SET dead = true")
                before = _backends(place)
                proxy.release()
                # until the one that had the old statement is through, and gone
                await until(lambda: not before <= _backends(place))
                assert versions(place, first.key) == [1]
                assert place.sql("SELECT count(*) FROM sagas") == [(1,)]
                with pytest.raises(WorkerDead):
                    await store.commit(worker, [turn_of(first.key, 2)])

    asyncio.run(main())


def _backends(place: Place) -> set[int]:
    """Look which processes of the server serve a worker's connections."""
    return {pid for (pid,) in place.sql("SELECT pid FROM pg_stat_activity WHERE usename = %s", WORKER)}


def test_a_server_that_says_nothing_is_given_up_in_time(postgres_bench: Bench) -> None:
    """Silence must not outlast the lease: statement_seconds and a little."""
    place = postgres_bench.place()

    async def main() -> None:
        with proxied(postgres_bench, place) as (proxy, store):
            async with store:
                worker = uuid4().hex
                store.renew(worker, LONG_SECONDS, register=())
                await store.commit(worker, [])
                proxy.mode = "drop_replies"
                began = time.monotonic()
                calls = [
                    store.commit(worker, [birth_of(key())]),
                    store.load([key()]),
                    store.deliver(request_for("x")),
                    asyncio.to_thread(store.renew, worker, 10.0),
                ]
                answers = await asyncio.gather(*calls, return_exceptions=True)
                assert [type(one) for one in answers] == [StoreUnavailable] * 4, answers
                assert time.monotonic() - began < 10
                proxy.mode = "pass"
                assert await store.commit(worker, []) == []
                assert store.renew(worker, 10.0).until > 0

    asyncio.run(main())


def test_a_request_whose_answer_is_lost_may_be_sent_again(postgres_bench: Bench) -> None:
    """It stands there once, and the second answer says so."""
    place = postgres_bench.place()

    async def main() -> None:
        with proxied(postgres_bench, place) as (proxy, store):
            async with store:
                worker = uuid4().hex
                store.renew(worker, LONG_SECONDS, register=())
                first = birth_of(key(), saga_id="7")
                await store.commit(worker, [first])
                request = request_for("7")
                await store.load([])  # so that the connection is there, and only the request's answer is lost
                proxy.mode = "reset_on_reply"
                with pytest.raises(StoreUnavailable):
                    await store.deliver(request)
                proxy.mode = "pass"
                assert await store.deliver(request) in {Delivered.APPENDED, Delivered.DUPLICATE}
                assert await store.deliver(request) is Delivered.DUPLICATE
                assert versions(place, first.key) == [1, 2]

    asyncio.run(main())


@pytest.mark.parametrize("how", ["fast", "immediate", "kill"])
def test_a_server_that_is_restarted_in_the_middle_loses_nothing_that_was_acknowledged(
    postgres_bench: Bench, how: Stop
) -> None:
    """Batches go on while it stops and starts; each that was acknowledged stands there, once."""
    place = postgres_bench.place()

    async def write(store: PostgresStore, worker: str, turns: list[Turn]) -> None:
        while True:
            try:
                assert await store.commit(worker, turns) == [APPLIED] * len(turns)
            except StoreUnavailable:
                await asyncio.sleep(0.005)
            else:
                return

    async def main() -> None:
        async with place.store(real_clock=True) as store:
            worker = uuid4().hex
            store.renew(worker, LONG_SECONDS, register=())
            keys = [key() for _ in range(20)]
            await write(store, worker, [birth_of(one) for one in keys])
            restarting = asyncio.ensure_future(asyncio.to_thread(_restart, postgres_bench, how))
            version = 1
            while not restarting.done() or version < 4:
                version += 1
                await write(store, worker, [turn_of(one, version) for one in keys])
            await restarting
            loaded = await store.load(keys)
            assert [[row.version for row in one.rows] for one in loaded if one] == [list(range(1, version + 1))] * 20
            assert store.renew(worker, 5.0).until > 0

    asyncio.run(main())


def _restart(bench: Bench, how: Stop) -> None:
    bench.server.restart(how)
    bench.reconnect()
