"""The census on PostgreSQL: exact, by an index of unfinished sagas alone, with a worker's rights."""

from __future__ import annotations

from typing import Any

from atone.store import Count
from atone.stores import _postgres_read
from tests.runtime.world import Order, PlaceOrder, World, hangs, opened, run
from tests.servers.postgres import Bench


def test_unfinished_sagas_are_counted_and_finished_ones_are_not(postgres_bench: Bench) -> None:
    """An empty store has a time and no counts."""
    place, world = postgres_bench.place(), World()

    async def main() -> None:
        store = place.store(real_clock=True)
        async with opened(store, PlaceOrder(world)) as orchestrator:
            empty = await store.census()
            assert empty.counts == ()
            assert empty.now > 0
            await orchestrator.execute(PlaceOrder, Order(), saga_id="over")
            world.script("charge", hangs, hangs)
            for saga_id in "ab":
                await orchestrator.start(PlaceOrder, Order(), saga_id=saga_id)
            await world.reached("charge", 3)
            census = await store.census()
            (count,) = census.counts
            assert count == Count("PlaceOrder", "running", 2, count.oldest_at)
            assert census.now - 60 < count.oldest_at <= census.now

    run(main())


def test_the_count_goes_by_the_index_of_what_is_unfinished(postgres_bench: Bench) -> None:
    """A million finished sagas cost it nothing."""
    place = postgres_bench.place()

    async def main() -> Any:
        async with place.store() as store:
            text = store._place.sql(_postgres_read._COUNT)
            return await store._open.others.do(lambda session: session.rows("EXPLAIN " + text))

    assert "sagas_unfinished" in "\n".join(row[0] for row in run(main()))
