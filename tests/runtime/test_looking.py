"""Waiting for outcomes, watching, listing: from any orchestrator on the same store, and never a hold on a saga."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from atone import Compensated, Completed, NeedsAttention, Reject, SagaStatus
from atone.errors import NoResult, OutcomeTimeout, StoreUnavailable, UnknownSaga
from tests.runtime.faulty_store import FaultyStore, fails_with, held, lost_before
from tests.runtime.world import (
    Order,
    PlaceOrder,
    ShipOrder,
    World,
    hangs,
    lands_and_raises,
    opened,
    raises,
    run,
    sqlite,
    until,
    waits,
)


def test_an_outcome_is_known_to_every_orchestrator_on_the_file(tmp_path: Path) -> None:
    """Before it happens, after it happened, and after everybody has gone."""

    async def main() -> None:
        world, gate = World(), asyncio.Event()
        world.script("charge", waits(gate))
        one, two = opened(sqlite(tmp_path), PlaceOrder(world)), opened(sqlite(tmp_path), PlaceOrder(World()))
        async with one as runs, two as looks:
            handle = await runs.start(PlaceOrder, Order(), saga_id="1")
            early = asyncio.ensure_future(looks.outcome(PlaceOrder, "1", timeout=20))
            await world.reached("charge")
            gate.set()
            done = await early
            assert isinstance(done, Completed)
            assert done[PlaceOrder.charge] == "charge of 1"
            assert isinstance(await handle.outcome(timeout=20), Completed)
            assert isinstance(await looks.outcome(PlaceOrder, "1", timeout=20), Completed)
        async with opened(sqlite(tmp_path), PlaceOrder(World())) as later:
            done = await later.outcome(PlaceOrder, "1", timeout=20)
            assert isinstance(done, Completed)
            assert done[PlaceOrder.ship] == "ship of 1"
            assert dict(done.results) == {name: f"{name} of 1" for name in ("reserve", "charge", "ship")}

    run(main())


def test_a_cancelled_waiter_does_not_touch_the_saga(tmp_path: Path) -> None:
    """Neither does one that ran out of patience; the others still hear."""

    async def main() -> None:
        world, gate = World(), asyncio.Event()
        world.script("charge", waits(gate))
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            handle = await orchestrator.start(PlaceOrder, Order(), saga_id="1")
            await world.reached("charge")
            waiters = [asyncio.ensure_future(handle.outcome()) for _ in range(3)]
            await asyncio.sleep(0)
            waiters[0].cancel()
            for patience in (0.01, timedelta(milliseconds=10), 0):
                with pytest.raises(OutcomeTimeout):
                    await handle.outcome(timeout=patience)
            gate.set()
            results = await asyncio.gather(*waiters, return_exceptions=True)
            assert [type(result) for result in results] == [asyncio.CancelledError, Completed, Completed]
        assert world.names == ["reserve", "charge", "ship"]

    run(main())


def test_thousands_of_waiters_share_one_query(tmp_path: Path) -> None:
    """For sagas that run elsewhere, a poll asks for all keys at once."""

    async def main() -> None:
        world, gate = World(), asyncio.Event()

        async def waits_for_all(at: Any) -> Any:
            await gate.wait()
            return at.land()

        world.always("ship", waits_for_all)
        store = FaultyStore(sqlite(tmp_path))
        queries = 0

        async def counts(call: Any) -> Any:
            nonlocal queries
            queries += 1
            return await call()

        one, two = opened(sqlite(tmp_path), PlaceOrder(world)), opened(store, PlaceOrder(World()))
        async with one as runs, two as looks:
            sagas = [await runs.start(PlaceOrder, Order(), saga_id=str(number)) for number in range(40)]
            handles = [await looks.get(PlaceOrder, saga.saga_id) for saga in sagas]
            await world.reached("ship", 40)
            waiters = [asyncio.ensure_future(handle.outcome(timeout=20)) for handle in handles for _ in range(25)]
            store.always("find", counts)
            await asyncio.sleep(0.3)
            gate.set()
            assert all(isinstance(outcome, Completed) for outcome in await asyncio.gather(*waiters))
        assert queries < 100, "a thousand waiters must not ask a thousand times"

    run(main())


def test_waiting_survives_a_store_that_is_away(tmp_path: Path) -> None:
    """A poll that fails, in whatever way, is one more poll."""

    async def main() -> None:
        world, gate = World(), asyncio.Event()
        world.script("ship", waits(gate))
        store = FaultyStore(sqlite(tmp_path))
        one, two = opened(sqlite(tmp_path), PlaceOrder(world)), opened(store, PlaceOrder(World()))
        async with one as runs, two as looks:
            await runs.start(PlaceOrder, Order(), saga_id="1")
            handle = await looks.get(PlaceOrder, "1")
            waiter = asyncio.ensure_future(handle.outcome(timeout=20))
            store.script("find", lost_before, fails_with(RuntimeError("a bug")), lost_before)
            store.script("load", fails_with(StoreUnavailable("away")))
            await world.reached("ship")
            gate.set()
            assert isinstance(await waiter, Completed)

    run(main())


def test_watching_and_answers_survive_a_store_that_is_away(tmp_path: Path) -> None:
    """They look again."""

    async def main() -> None:
        world, gate = World(), asyncio.Event()
        world.script("charge", waits(gate))
        store = FaultyStore(sqlite(tmp_path))
        one, two = opened(sqlite(tmp_path), PlaceOrder(world)), opened(store, PlaceOrder(World()))
        async with one as runs, two as looks:
            await runs.start(PlaceOrder, Order(), saga_id="1")
            await world.reached("charge")
            receipt = await looks.cancel(PlaceOrder, "1", reason="changed my mind")
            last = None
            async for progress in looks.watch(PlaceOrder, "1"):
                if last is None:
                    store.script("load", lost_before, lost_before)
                last = progress
                gate.set()
            assert last is not None
            assert last.status is SagaStatus.COMPENSATED
            store.script("load", lost_before)
            assert (await receipt.answer(timeout=20)).applied

    run(main())


def test_a_result_is_read_by_its_step(tmp_path: Path) -> None:
    """A step of another saga has no result here, and the message says which ones there are."""

    async def main() -> None:
        async with opened(sqlite(tmp_path), PlaceOrder(World())) as orchestrator:
            done = await orchestrator.execute(PlaceOrder, Order(), saga_id="1")
            assert isinstance(done, Completed)
            with pytest.raises(NoResult, match="reserve, charge, ship"):
                _ = done[ShipOrder.confirm]
            assert repr(done) == "Completed(results=<results of reserve, charge, ship>)"

    run(main())


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "elsewhere"])
def test_watching_ends_with_the_saga_and_tells_every_state_once(tmp_path: Path, elsewhere: bool) -> None:
    """Versions only grow; here every turn is told, elsewhere at least the first and the last."""

    async def main() -> None:
        world, gate = World(), asyncio.Event()
        world.script("charge", waits(gate))
        world.script("ship", raises(Reject("no van")))
        one, two = opened(sqlite(tmp_path), PlaceOrder(world)), opened(sqlite(tmp_path), PlaceOrder(World()))
        async with one as runs, two as looks:
            handle = await runs.start(PlaceOrder, Order(), saga_id="1")
            await world.reached("charge")
            seen = []
            watcher = looks if elsewhere else runs
            async for progress in watcher.watch(PlaceOrder, "1"):
                seen.append(progress)
                gate.set()
            await handle.outcome(timeout=20)
        versions = [progress.version for progress in seen]
        assert versions == sorted(set(versions))
        assert seen[0].steps == {"reserve": "succeeded", "charge": "running", "ship": "pending"}
        assert seen[-1].status is SagaStatus.COMPENSATED
        assert seen[-1].steps == {"reserve": "compensated", "charge": "compensated", "ship": "failed"}
        if not elsewhere:
            assert versions == list(range(2, 7))

    run(main())


def test_watching_a_saga_that_is_over_tells_its_end(tmp_path: Path) -> None:
    """Once."""

    async def main() -> None:
        async with opened(sqlite(tmp_path), PlaceOrder(World())) as orchestrator:
            await orchestrator.execute(PlaceOrder, Order(), saga_id="1")
            seen = [progress.status async for progress in orchestrator.watch(PlaceOrder, "1")]
            assert seen == [SagaStatus.COMPLETED]
            with pytest.raises(UnknownSaga):
                await anext(orchestrator.watch(PlaceOrder, "2"))

    run(main())


def test_a_watcher_that_stops_early_is_forgotten(tmp_path: Path) -> None:
    """Nothing is kept for somebody who does not look any more."""

    async def main() -> None:
        world = World()
        world.script("charge", hangs)
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            await orchestrator.start(PlaceOrder, Order(), saga_id="1")
            watching = orchestrator.watch(PlaceOrder, "1")
            await anext(watching)
            assert orchestrator._watchers._queues
            await watching.aclose()
            assert not orchestrator._watchers._queues

    run(main())


def test_a_list_is_paged_without_a_gap_or_a_repeat(tmp_path: Path) -> None:
    """Oldest first, by name and status as asked, also while more are started."""

    async def main() -> None:
        world = World()
        world.always("ship", lands_and_raises(OSError("no answer")))
        async with opened(sqlite(tmp_path), PlaceOrder(world), ShipOrder(world)) as orchestrator:
            for number in range(25):
                kind: Any = (PlaceOrder, ShipOrder)[number % 2]
                await orchestrator.execute(kind, Order(), saga_id=str(number))
            pages, after = [], None
            while page := await orchestrator.list(limit=4, after=after):
                pages.append([info.saga_id for info in page])
                after = page[-1]
                await orchestrator.execute(PlaceOrder, Order(), saga_id=f"later {len(pages)}")
                if len(pages) == 7:
                    break
            found = [saga_id for page in pages for saga_id in page]
            assert found[:25] == [str(number) for number in range(25)]
            assert len(found) == len(set(found))
            need = await orchestrator.list(status=SagaStatus.NEEDS_ATTENTION)
            assert {info.name for info in need} == {"ShipOrder"}
            assert len(need) == 12
            back = await orchestrator.list(PlaceOrder, status=[SagaStatus.COMPENSATED, SagaStatus.COMPLETED])
            assert {info.status for info in back} == {SagaStatus.COMPENSATED}
            assert await orchestrator.list(PlaceOrder, status=[]) == []
            assert await orchestrator.list(ShipOrder, status=SagaStatus.COMPLETED) == []

    run(main())


def test_needing_attention_is_told_again_until_somebody_acts(tmp_path: Path) -> None:
    """And after a retry the next wait is for the next end."""

    async def main() -> None:
        world, gate = World(), asyncio.Event()
        world.script("ship", *[raises(OSError("no answer"))] * 3, waits(gate))
        async with opened(sqlite(tmp_path), ShipOrder(world)) as orchestrator:
            handle = await orchestrator.start(ShipOrder, Order(), saga_id="1")
            for _ in range(2):
                outcome = await handle.outcome(timeout=20)
                assert isinstance(outcome, NeedsAttention)
                assert outcome.step == "ship"
                assert "no answer" in outcome.cause
            receipt = await orchestrator.retry(ShipOrder, "1", reason="it answers again")
            assert (await receipt.answer(timeout=20)).applied
            waiter = asyncio.ensure_future(handle.outcome(timeout=20))
            await world.reached("ship", 4)
            await until(lambda: not waiter.done())
            gate.set()
            assert isinstance(await waiter, Completed)

    run(main())


def test_a_saga_that_is_set_going_while_it_is_read_is_waited_for(tmp_path: Path) -> None:
    """It needed a person when it was found, and not any more when it was read."""

    async def main() -> None:
        world, gate, reading = World(), asyncio.Event(), asyncio.Event()
        world.script("ship", *[raises(OSError("no answer"))] * 3)
        store = FaultyStore(sqlite(tmp_path))
        # It only looks: if it took the retried saga over, its own held reading would hold the saga.
        store.always("claim", fails_with(StoreUnavailable("it only looks")))
        one, two = opened(sqlite(tmp_path), ShipOrder(world)), opened(store, ShipOrder(World()))
        async with one as runs, two as looks:
            assert isinstance(await runs.execute(ShipOrder, Order(), saga_id="1"), NeedsAttention)
            world.script("ship", waits(gate))
            handle = await looks.get(ShipOrder, "1")
            store.always("load", held(go := asyncio.Event(), reading))
            waiter = asyncio.ensure_future(handle.outcome(timeout=20))
            await reading.wait()
            await runs.retry(ShipOrder, "1", reason="it answers again")
            await world.reached("ship", 4)
            go.set()
            done, _ = await asyncio.wait([waiter], timeout=0.2)
            assert not done
            gate.set()
            assert isinstance(await waiter, Completed)

    run(main())


def test_the_same_tenantless_id_is_another_saga_in_another_tenant(tmp_path: Path) -> None:
    """Tenants share a store and see nothing of each other."""

    async def main() -> None:
        from atone import Orchestrator
        from tests.runtime.world import limits

        world = World()
        one = Orchestrator(sqlite(tmp_path), sagas=[PlaceOrder(world)], tenant="one", limits=limits())
        two = Orchestrator(sqlite(tmp_path), sagas=[PlaceOrder(world)], tenant="two", limits=limits())
        async with one, two:
            assert isinstance(await one.execute(PlaceOrder, Order(total=1), saga_id="1"), Completed)
            assert await two.list() == []
            with pytest.raises(UnknownSaga):
                await two.get(PlaceOrder, "1")
            world.script("ship", raises(Reject("no van")))
            assert isinstance(await two.execute(PlaceOrder, Order(total=2), saga_id="1"), Compensated)
            assert [info.status for info in await one.list()] == [SagaStatus.COMPLETED]

    run(main())
