"""Relays and writers that meet in an outbox: at the head of a key, at what commits late, at what is being forgotten.

Where an order matters, a transaction of the test's own stands in the midst of what the other side did; the rest is many
rounds, judged by what must hold after any of them.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from uuid import uuid4

from atone.broker import Message, Outgoing
from atone.store import TurnResult
from atone.stores.postgres import PostgresStore
from atone.testing._subject import birth_of, turn_of
from tests.postgres.test_postgres_races import held, stores, together, worker_on
from tests.servers.postgres import Bench, Place

APPLIED = TurnResult.APPLIED


def sent(*keys: str) -> tuple[Message, ...]:
    """Return messages with these keys."""
    return tuple(Message(uuid4().hex, "order.placed", key, b"{}") for key in keys)


async def post(store: PostgresStore, worker: str, *keys: str) -> None:
    """Have messages wait, in this order."""
    first = birth_of(uuid4().bytes)._replace(messages=sent(*keys))
    assert await store.commit(worker, [first]) == [APPLIED]


async def relay(store: PostgresStore, published: Collection[int] = (), limit: int = 100) -> Sequence[Outgoing]:
    """Make one call of a relay, under a name of its own."""
    found = await store.relay(uuid4().hex, published=published, refused={}, limit=limit, lease_seconds=1000)
    return found.messages


def keys_of(found: Sequence[Outgoing]) -> list[str]:
    return [one.message.key for one in found]


@asynccontextmanager
async def posted(place: Place, *keys: str, relays: int = 1) -> AsyncIterator[list[PostgresStore]]:
    async with stores(place, relays) as some:
        await post(some[0], await worker_on(some[0], 100_000), *keys)
        yield some


def test_what_commits_late_is_found_though_newer_ones_are_gone(postgres_bench: Bench) -> None:
    """Its number was drawn before theirs; a relay that looks for larger numbers only would never see it."""
    place = postgres_bench.place()

    async def main() -> None:
        async with stores(place, 1) as (store,):
            worker = await worker_on(store, 100_000)
            with place.join() as joined:
                slow = birth_of(b"1" * 16, owned=False)._replace(messages=sent("slow", "slow"))
                assert await store.start(slow, connection=joined.connection) is APPLIED
                await post(store, worker, "quick", "quick")
                found = await relay(store)
                assert keys_of(found) == ["quick", "quick"]
                assert await relay(store, [one.ref for one in found]) == ()
                joined.commit()
            late = await relay(store)
            assert [one.message for one in late] == list(slow.messages)
            assert max(one.ref for one in late) < min(one.ref for one in found)

    asyncio.run(main())


def test_a_key_whose_head_another_relay_is_claiming_is_left_out_whole(postgres_bench: Bench) -> None:
    """At once, without waiting for it; nothing behind the head is mistaken for one."""
    place = postgres_bench.place()

    async def main() -> None:
        async with posted(place, "a", "a", "a", "b") as (store,):
            with held(postgres_bench, place) as claiming:
                claiming.execute("SELECT 1 FROM outbox WHERE key = 'a' ORDER BY ref LIMIT 1 FOR UPDATE")
                assert keys_of(await relay(store)) == ["b"]
                claiming.rollback()
            assert keys_of(await relay(store)) == ["a"] * 3

    asyncio.run(main())


def test_what_follows_a_message_that_is_being_forgotten_waits_for_that(postgres_bench: Bench) -> None:
    """It is the head of its key only when the one before it is surely gone."""
    place = postgres_bench.place()

    async def main() -> None:
        async with posted(place, "a", "a") as (store,):
            with held(postgres_bench, place) as forgetting:
                forgetting.execute("DELETE FROM outbox WHERE ref = (SELECT min(ref) FROM outbox)")
                assert keys_of(await relay(store)) == []
                forgetting.commit()
            assert keys_of(await relay(store)) == ["a"]

    asyncio.run(main())


def test_who_comes_late_with_what_it_published_holds_up_nobody(postgres_bench: Bench) -> None:
    """A follower that is being forgotten is skipped: it is with the broker already."""
    place = postgres_bench.place()

    async def main() -> None:
        async with posted(place, "a", "a", "a") as (store,):
            with held(postgres_bench, place) as forgetting:
                forgetting.execute("DELETE FROM outbox WHERE ref = (SELECT min(ref) + 1 FROM outbox)")
                found = await relay(store)
                assert [one.ref - found[0].ref for one in found] == [0, 2]
                forgetting.commit()

    asyncio.run(main())


def test_two_relays_at_once_never_have_one_key(postgres_bench: Bench) -> None:
    """Whatever their limits cut, in many rounds; together they leave nothing."""
    place = postgres_bench.place()

    async def main() -> None:
        async with posted(place, *(str(number % 7) for number in range(60)), relays=2) as (one, other):
            left = 60
            while left:
                mine, theirs = await together(relay(one, limit=11), relay(other, limit=5))
                assert not {*keys_of(mine)} & {*keys_of(theirs)}
                published = [found.ref for found in (*mine, *theirs)]
                assert published, "nothing is claimed any more, so something can be"
                left -= len(published)
                await relay(one, published, limit=0)
            assert place.sql("SELECT count(*) FROM outbox") == [(0,)]

    asyncio.run(main())


def test_writers_and_relays_together_lose_nothing_and_keep_each_keys_order(postgres_bench: Bench) -> None:
    """Each saga's turns go on while three relays publish: each message once, in the order of the turns."""
    place, keys, versions = postgres_bench.place(), 12, 12
    published: dict[str, list[str]] = defaultdict(list)

    async def write(store: PostgresStore, worker: str, number: int) -> list[str]:
        key = number.to_bytes(16, "big")
        ids: list[str] = []
        for version in range(1, versions + 1):
            turn = birth_of(key) if version == 1 else turn_of(key, version)
            messages = sent(*[str(number)] * ((version + number) % 3))
            assert await store.commit(worker, [turn._replace(messages=messages)]) == [APPLIED]
            ids += [one.id for one in messages]
        return ids

    async def publish(store: PostgresStore, done: asyncio.Event) -> None:
        refs: list[int] = []
        while True:
            last = done.is_set()
            found = await relay(store, refs, limit=7)
            for one in found:
                published[one.message.key].append(one.message.id)
            refs = [one.ref for one in found]
            if last and not refs:
                return

    async def main() -> None:
        async with stores(place, 3) as some:
            worker, done = await worker_on(some[0], 100_000), asyncio.Event()
            publishing = [asyncio.ensure_future(publish(store, done)) for store in some]
            written = await together(*(write(some[0], worker, number) for number in range(keys)))
            done.set()
            await together(*publishing)
            assert {str(number): ids for number, ids in enumerate(written)} == published
            assert place.sql("SELECT count(*) FROM outbox") == [(0,)]

    asyncio.run(main())
