"""Writers that meet: at a saga's next version, at a worker's death, at a saga's birth, at what nobody owns.

Where an order matters, a transaction of the test's own holds a row until the other side is seen waiting for it; the
rest is many rounds, judged by what must hold after any of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from atone.errors import StoreUnavailable, WorkerDead
from atone.store import Delivered, Hot, Turn, TurnResult
from atone.stores._postgres_commit import Batch
from atone.stores.postgres import PostgresStore
from atone.testing._subject import birth_of, request_for, turn_of
from tests.servers.postgres import WORKER, Bench, Place, until

APPLIED = TurnResult.APPLIED
LEASE_SECONDS = 10.0
ORDER = [("Order", 1, "hash")]
WAITS = "SELECT count(*) FROM pg_stat_activity WHERE usename = %s AND wait_event_type = 'Lock'"


@contextmanager
def held(bench: Bench, place: Place) -> Iterator[psycopg.Connection[Any]]:
    """Open a transaction that holds what it touches, until it is committed or rolled back."""
    with psycopg.connect(bench.server.url()) as connection:
        connection.execute(f'SET search_path TO "{place.schema}"')
        yield connection


async def waiting(place: Place, count: int = 1) -> None:
    """Wait until so many of the stores' statements wait for a lock."""
    await until(lambda: place.sql(WAITS, WORKER) == [(count,)])


async def worker_on(store: PostgresStore, lease_seconds: float = LEASE_SECONDS) -> str:
    worker = uuid4().hex
    await asyncio.to_thread(store.renew, worker, lease_seconds, register=())
    return worker


@asynccontextmanager
async def stores(place: Place, count: int, **options: Any) -> AsyncIterator[list[PostgresStore]]:
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(place.store(**{"statement_seconds": 30, **options})) for _ in range(count)
        ]


async def claim(store: PostgresStore, worker: str, *, known: Any = (), limit: int = 100) -> tuple[bytes, ...]:
    found = await store.claim(worker, definitions=ORDER, known=known, limit=limit, lease_seconds=LEASE_SECONDS)
    return found.taken


def together(*calls: Awaitable[Any]) -> Awaitable[list[Any]]:
    return asyncio.gather(*calls)


@pytest.mark.parametrize("dies", [True, False])
def test_a_commit_that_meets_its_workers_death_waits_for_it(postgres_bench: Bench, dies: bool) -> None:
    """Being declared dead and writing exclude each other: who is second sees what the first has done."""
    place = postgres_bench.place()

    async def main() -> None:
        async with stores(place, 1) as (store,):
            worker = await worker_on(store)
            first, second = birth_of(b"1" * 16), birth_of(b"2" * 16)
            await store.commit(worker, [first])
            with held(postgres_bench, place) as death:
                death.execute("UPDATE workers SET dead = true WHERE id = %s", [worker])
                batch = [turn_of(first.key, 2, Hot("waiting", False, None)), second]
                writing = asyncio.ensure_future(store.commit(worker, batch))
                await waiting(place)
                death.commit() if dies else death.rollback()
            if dies:
                with pytest.raises(WorkerDead):
                    await writing
            else:
                assert await writing == [APPLIED] * 2
            shown = place.sql("SELECT status FROM sagas ORDER BY key")
            assert shown == ([("running",)] if dies else [("waiting",), ("running",)])
            assert place.sql("SELECT count(*) FROM journal") == [(1 if dies else 3,)]

    asyncio.run(main())


def test_a_worker_is_not_declared_dead_while_it_writes(postgres_bench: Bench) -> None:
    """Its lease may be over by then: who takes its sagas waits, and then finds everything that it has written."""
    place = postgres_bench.place()

    async def main() -> None:
        async with stores(place, 2) as (store, other):
            worker, heir = await worker_on(store), await worker_on(other, 1000)
            first = birth_of(b"1" * 16)
            await store.commit(worker, [first])
            with held(postgres_bench, place) as blocker:
                blocker.execute("INSERT INTO journal VALUES (%s, 2, 0, '', '')", [first.key])
                second = turn_of(first.key, 2)
                writing = asyncio.ensure_future(store.commit(worker, [second]))
                await waiting(place)
                place.advance(LEASE_SECONDS + 1)
                taking = asyncio.ensure_future(claim(other, heir))
                await waiting(place, 2)
                blocker.rollback()
            assert await writing == [APPLIED]
            assert await taking == (first.key,)
            (loaded,) = await other.load([first.key])
            assert loaded is not None
            assert [row.commit_id for row in loaded.rows] == [first.commit_id, second.commit_id]
            with pytest.raises(WorkerDead):
                await store.commit(worker, [turn_of(first.key, 3)])

    asyncio.run(main())


def test_of_two_turns_at_one_version_one_stands(postgres_bench: Bench) -> None:
    """Also when they come over two connections at the same moment, in large batches that differ."""
    place = postgres_bench.place()

    async def main() -> None:
        async with stores(place, 2) as (one, other):
            worker = await worker_on(one)
            keys = [bytes([number]) * 16 for number in range(40)]
            await one.commit(worker, [birth_of(key) for key in keys])
            for version in range(2, 12):
                mine, theirs = ([turn_of(key, version) for key in some] for some in (keys[:30], keys[:9:-1]))
                results = await together(one.commit(worker, mine), other.commit(worker, theirs))
                applied = [
                    turn.commit_id
                    for turn, result in zip([*mine, *theirs], [*results[0], *results[1]], strict=True)
                    if result is APPLIED
                ]
                stand = place.sql("SELECT commit_id FROM journal WHERE version = %s", version)
                assert sorted(applied) == sorted(commit_id for (commit_id,) in stand)
                assert len(stand) == 40

    asyncio.run(main())


def test_no_request_is_lost_between_the_turns_of_its_saga(postgres_bench: Bench) -> None:
    """Many requests and many turns at once: each request stands there once, no version is missing or double."""
    place = postgres_bench.place()

    async def main() -> None:
        async with stores(place, 3, readers=6) as (store, one, other):
            worker = await worker_on(store)
            first = birth_of(b"1" * 16, saga_id="7")
            await store.commit(worker, [first])
            requests = [request_for("7", request_id=str(number)) for number in range(150)]
            todo = iter(requests)
            answers: list[Delivered] = []

            async def deliver(by: PostgresStore) -> None:
                for request in todo:  # one after the other, and shared with the others who deliver
                    answer = await by.deliver(request)
                    answers.append(answer)

            async def write() -> int:
                version, conflicts = 1, 0
                while len(answers) < len(requests):
                    (result,) = await store.commit(worker, [turn_of(first.key, version + 1)])
                    if result is APPLIED:
                        version += 1
                    else:
                        assert result is TurnResult.CONFLICT
                        conflicts += 1
                        (loaded,) = await store.load([first.key])
                        version = loaded.rows[-1].version if loaded else 0
                return conflicts

            conflicts, *_ = await together(write(), *(deliver(by) for by in (one, other) for _ in range(3)))
            assert answers == [Delivered.APPENDED] * len(requests)
            (loaded,) = await store.load([first.key])
            rows = loaded.rows if loaded else ()
            assert [row.version for row in rows] == list(range(1, len(rows) + 1))
            stand = [row.commit_id for row in rows]
            assert all(stand.count(request.commit_id) == 1 for request in requests)
            assert conflicts, "they never met"
            await store.commit(worker, [turn_of(first.key, len(rows) + 1)])
            claimed = await store.claim(worker, definitions=ORDER, known=[first.key], limit=0, lease_seconds=10)
            assert claimed.newer == ()
            await one.deliver(request_for("7", request_id="last"))
            claimed = await store.claim(worker, definitions=ORDER, known=[first.key], limit=0, lease_seconds=10)
            assert claimed.newer == (first.key,)

    asyncio.run(main())


def test_a_request_that_meets_the_last_turn_is_before_it_or_is_told_that_all_is_over(postgres_bench: Bench) -> None:
    """Nothing is ever written behind the row that ends a saga."""
    place = postgres_bench.place()

    async def main() -> None:
        async with stores(place, 2) as (store, other):
            worker = await worker_on(store)
            answers: list[Delivered] = []
            for number in range(60):
                first = birth_of(number.to_bytes(16, "big"))
                await store.commit(worker, [first])
                end = turn_of(first.key, 2, Hot("completed", False, None))
                (result,), answer = await together(
                    store.commit(worker, [end]), other.deliver(request_for(first.key.hex()))
                )
                answers.append(answer)
                (loaded,) = await store.load([first.key])
                assert loaded is not None
                assert len(loaded.rows) == 2
                assert (result, answer) in {
                    (APPLIED, Delivered.FINAL),
                    (TurnResult.CONFLICT, Delivered.APPENDED),
                }
            assert len(answers) == 60

    asyncio.run(main())


def test_one_request_from_many_sides_stands_once(postgres_bench: Bench) -> None:
    """The id decides: one of them is APPENDED, the others are DUPLICATE."""
    place = postgres_bench.place()

    async def main() -> None:
        async with stores(place, 2, readers=5) as (store, other):
            worker = await worker_on(store)
            for number in range(10):
                first = birth_of(number.to_bytes(16, "big"))
                await store.commit(worker, [first])
                calls = [by.deliver(request_for(first.key.hex())) for by in (store, other) for _ in range(5)]
                answers = await together(*calls)
                assert sorted(answers) == [Delivered.APPENDED, *[Delivered.DUPLICATE] * 9]
                assert place.sql("SELECT count(*) FROM journal WHERE saga = %s", first.key) == [(2,)]

    asyncio.run(main())


def test_an_event_that_meets_the_birth_of_its_saga_reaches_it(postgres_bench: Bench) -> None:
    """Neither can see the other's transaction; at the next claim at the latest it is in the journal, once."""
    place = postgres_bench.place()

    async def main() -> None:
        async with stores(place, 2) as (store, other):
            worker = await worker_on(store)
            for number in range(60):
                first = birth_of(number.to_bytes(16, "big"), status="waiting", owned=False)
                event = request_for(first.key.hex(), keep_seconds=60)
                (result,), answer = await together(store.commit(worker, [first]), other.deliver(event))
                assert result is APPLIED
                assert answer in {Delivered.KEPT, Delivered.APPENDED}
                await claim(store, worker)
                stand = place.sql("SELECT commit_id FROM journal WHERE saga = %s ORDER BY version", first.key)
                assert stand == [(first.commit_id,), (event.commit_id,)]
                assert place.sql("SELECT count(*) FROM early_events") == [(0,)]

    asyncio.run(main())


def test_an_event_that_was_kept_beside_a_birth_that_was_not_visible_yet_is_not_forgotten(postgres_bench: Bench) -> None:
    """The saga's transaction is open for long, as a caller's own may be: the next claim brings the two together."""
    place = postgres_bench.place()

    async def main() -> None:
        async with stores(place, 1) as (store,):
            worker = await worker_on(store, 1000)
            first = birth_of(b"1" * 16, status="pending", owned=False)
            with place.join() as joined:
                await store.start(first, connection=joined.connection)
                event = request_for(first.key.hex(), keep_seconds=60)
                assert await store.deliver(event) is Delivered.KEPT
                joined.commit()
            assert place.sql("SELECT count(*) FROM journal") == [(1,)]
            assert await claim(store, worker) == (first.key,)
            assert await store.deliver(event) is Delivered.DUPLICATE
            assert place.sql("SELECT count(*) FROM journal") == [(2,)]

    asyncio.run(main())


def test_what_nobody_owns_is_shared_out_without_rest_and_without_quarrel(postgres_bench: Bench) -> None:
    """Several workers claim small pages at once: each saga is taken by one, and none is left."""
    place = postgres_bench.place()

    async def main() -> None:
        async with stores(place, 4) as several:
            gone = await worker_on(several[0])
            keys = [number.to_bytes(16, "big") for number in range(120)]
            births = [birth_of(key, owned=number % 2 == 0, wake_at=1.0) for number, key in enumerate(keys)]
            await several[0].commit(gone, births)
            several[0].renew(gone, 0)
            workers = [await worker_on(store) for store in several]

            async def take(store: PostgresStore, worker: str) -> list[bytes]:
                taken: list[bytes] = []
                while place.sql("SELECT count(*) FROM sagas WHERE owner IS NULL OR owner = %s", gone) != [(0,)]:
                    taken += await claim(store, worker, known=taken, limit=7)
                return taken

            pages = await together(*(take(store, worker) for store, worker in zip(several, workers, strict=True)))
            assert sorted(key for page in pages for key in page) == keys
            for worker, page in zip(workers, pages, strict=True):
                mine = place.sql("SELECT key FROM sagas WHERE owner = %s ORDER BY key", worker)
                assert mine == [(key,) for key in sorted(page)]

    asyncio.run(main())


def test_a_birth_elsewhere_that_does_not_end_holds_up_no_neighbour(postgres_bench: Bench) -> None:
    """Somebody's long transaction has the same name: that start alone is told TAKEN, the rest of the batch lands."""
    place = postgres_bench.place()

    async def main() -> None:
        async with stores(place, 1, statement_seconds=1.2) as (store,):
            worker = await worker_on(store, 1000)
            old = birth_of(b"0" * 16)
            await store.commit(worker, [old])
            theirs, mine = birth_of(b"1" * 16, saga_id="7", owned=False), birth_of(b"2" * 16, saga_id="7")
            with place.join() as joined:
                assert await store.start(theirs, connection=joined.connection) is APPLIED
                batch = [turn_of(old.key, 2), birth_of(b"3" * 16), mine, birth_of(b"4" * 16)]
                results = await store.commit(worker, batch)
                assert results == [APPLIED, APPLIED, TurnResult.TAKEN, APPLIED]
                joined.roll_back()
            assert await store.commit(worker, [mine]) == [APPLIED]

    asyncio.run(main())


def test_who_waits_for_a_birth_elsewhere_waits_alone(postgres_bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """At first its neighbours meet it once, and only births do; from then on it goes apart, and waits for a moment."""
    place, real = postgres_bench.place(), Batch._send
    sent: list[tuple[set[bytes], bool]] = []

    async def send(batch: Batch, turns: Sequence[Turn]) -> Sequence[Turn]:
        sent.append(({turn.key for turn in turns}, batch._lock_ms <= 20))
        return await real(batch, turns)

    async def main() -> None:
        async with stores(place, 1, statement_seconds=1.2) as (store,):
            worker = await worker_on(store, 1000)
            old, theirs, mine = birth_of(b"0" * 16), birth_of(b"1" * 16, saga_id="7"), birth_of(b"9" * 16, saga_id="7")
            await store.commit(worker, [old])
            with place.join() as joined:
                assert await store.start(theirs, connection=joined.connection) is APPLIED
                monkeypatch.setattr(Batch, "_send", send)
                first = [turn_of(old.key, 2), birth_of(b"3" * 16), mine]
                assert await store.commit(worker, first) == [APPLIED, APPLIED, TurnResult.TAKEN]
                assert sent[:2] == [({turn.key for turn in first}, False), ({old.key}, False)]
                assert all(hurried and old.key not in keys for keys, hurried in sent[2:])
                sent.clear()
                twin = mine._replace(key=b"8" * 16)
                later = [turn_of(old.key, 3), birth_of(b"4" * 16), twin, mine]
                assert await store.commit(worker, later) == [APPLIED, APPLIED, TurnResult.TAKEN, TurnResult.TAKEN]
                assert sent == [({later[0].key, later[1].key}, False), ({twin.key}, True)]
                joined.roll_back()
            sent.clear()
            assert await store.commit(worker, [mine]) == [APPLIED]
            assert await store.commit(worker, [birth_of(b"5" * 16), mine]) == [APPLIED, APPLIED]
            assert sent[1] == ({b"5" * 16, mine.key}, False), "the name is free again"

    asyncio.run(main())


def test_a_commit_that_is_cancelled_is_written_whole_or_not_at_all(postgres_bench: Bench) -> None:
    """And the next one does not read its answer."""
    place = postgres_bench.place()

    async def main() -> None:
        async with stores(place, 1) as (store,):
            worker = await worker_on(store)
            first = birth_of(b"1" * 16)
            await store.commit(worker, [first])
            with held(postgres_bench, place) as blocker:
                blocker.execute("INSERT INTO journal VALUES (%s, 2, 0, '', '')", [first.key])
                batch = [turn_of(first.key, 2), birth_of(b"2" * 16)]
                writing = asyncio.ensure_future(store.commit(worker, batch))
                await waiting(place)
                writing.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await writing
                blocker.rollback()
            again = birth_of(b"3" * 16)
            assert await store.commit(worker, [again]) == [APPLIED]
            rows = {count for (count,) in place.sql("SELECT count(*) FROM journal")}
            assert rows <= {2, 4}
            assert await store.commit(worker, batch) == [APPLIED] * 2

    asyncio.run(main())


def test_a_row_that_somebody_holds_for_too_long_is_an_outage_and_no_verdict(postgres_bench: Bench) -> None:
    """Nothing was written, and the same commit lands when the row is free."""
    place = postgres_bench.place()

    async def main() -> None:
        async with stores(place, 1, statement_seconds=0.6) as (store,):
            worker = await worker_on(store)
            first = birth_of(b"1" * 16)
            await store.commit(worker, [first])
            with held(postgres_bench, place) as blocker:
                blocker.execute("SELECT FROM sagas FOR UPDATE")
                turn = turn_of(first.key, 2, Hot("waiting", True, None))
                with pytest.raises(StoreUnavailable, match="lock"):
                    await store.commit(worker, [turn])
                blocker.rollback()
            assert await store.commit(worker, [turn]) == [APPLIED]

    asyncio.run(main())


def test_a_birth_under_way_when_its_worker_is_declared_dead_is_not_forgotten(postgres_bench: Bench) -> None:
    """Whoever declares the worker dead looks anew afterwards: what was born meanwhile is his to take."""
    place = postgres_bench.place()

    async def main() -> None:
        async with stores(place, 2) as (store, other):
            worker, heir = await worker_on(store), await worker_on(other, 1000)
            born = birth_of(b"1" * 16)
            with held(postgres_bench, place) as blocker:
                blocker.execute("INSERT INTO journal VALUES (%s, 1, 0, '', '')", [born.key])
                writing = asyncio.ensure_future(store.commit(worker, [born]))
                await waiting(place)
                place.advance(LEASE_SECONDS + 1)
                taking = asyncio.ensure_future(claim(other, heir))
                await waiting(place, 2)
                blocker.rollback()
            assert await writing == [APPLIED]
            assert await taking or await claim(other, heir)  # not at once perhaps, but not never
            assert place.sql("SELECT owner FROM sagas") == [(heir,)]

    asyncio.run(main())


def test_a_claim_that_meets_its_own_workers_death_takes_nothing(postgres_bench: Bench) -> None:
    """Sagas taken by a worker that was dead already, and perhaps forgotten, would be nobody's for ever."""
    place = postgres_bench.place()

    async def main() -> None:
        async with stores(place, 2) as (store, other):
            gone, heir = await worker_on(store), await worker_on(other, 1000)
            first = birth_of(b"1" * 16)
            await store.commit(gone, [first])
            store.renew(gone, 0)
            with held(postgres_bench, place) as death:
                death.execute("UPDATE workers SET dead = true, holds = false WHERE id = %s", [heir])
                taking = asyncio.ensure_future(claim(other, heir))
                await waiting(place)
                death.commit()
            with suppress(WorkerDead):
                assert await taking == ()
            assert place.sql("SELECT owner FROM sagas") == [(gone,)]
            survivor = await worker_on(store)
            assert await claim(store, survivor) == (first.key,)

    asyncio.run(main())
