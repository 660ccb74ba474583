"""Bounds: sagas in flight, whatever starts, claims and restarts do at once; and all sagas end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from atone import Completed, Orchestrator
from tests.runtime.faulty_store import FaultyStore, held
from tests.runtime.world import (
    Landing,
    Order,
    PlaceOrder,
    World,
    crashing,
    hangs,
    opened,
    run,
    sqlite,
    until,
)


class Gauge:
    """How many sagas call something at once, and how many are owned."""

    def __init__(self, world: World) -> None:
        self.now = self.most = 0
        for step in ("reserve", "charge", "ship"):
            world.always(step, self.counts)

    @contextmanager
    def inside(self) -> Iterator[None]:
        self.now += 1
        self.most = max(self.most, self.now)
        yield
        self.now -= 1

    async def counts(self, at: Landing) -> Any:
        with self.inside():
            for _ in range(3):
                await asyncio.sleep(0)
            return at.land()


def owned(orchestrator: Orchestrator) -> int:
    assert orchestrator._worker is not None
    return len(orchestrator._worker.runners)


def test_fifty_starts_never_have_more_than_five_in_flight(tmp_path: Path) -> None:
    """The rest is stored, waits its turn, and ends too."""

    async def main() -> None:
        world = World()
        gauge, most = Gauge(world), 0
        store = FaultyStore(sqlite(tmp_path))
        async with opened(store, PlaceOrder(world), sagas_in_flight_max=5) as orchestrator:

            def note(turns: Any) -> None:
                nonlocal most
                most = max(most, owned(orchestrator))

            store.on_commit = note
            starts = [orchestrator.execute(PlaceOrder, Order(), saga_id=str(number)) for number in range(50)]
            outcomes = await asyncio.gather(*starts)
            assert all(isinstance(outcome, Completed) for outcome in outcomes)
        assert gauge.most <= 5
        assert 0 < most <= 5
        assert set(world.effects.values()) == {1}
        assert len(world.effects) == 150

    run(main())


def test_starts_while_a_claim_is_under_way_do_not_exceed_the_bound(tmp_path: Path) -> None:
    """What the claim may bring counts already."""

    async def main() -> None:
        left = World()
        left.always("reserve", hangs)
        async with crashing(tmp_path, PlaceOrder(left)) as (orchestrator, _):
            for number in range(5):
                await orchestrator.start(PlaceOrder, Order(), saga_id=f"left {number}")
            await left.reached("reserve", 5)
        world, gate, reached = World(), asyncio.Event(), asyncio.Event()
        calls = asyncio.Event()

        async def waits(at: Landing) -> Any:
            await calls.wait()
            return at.land()

        world.always("reserve", waits)
        store = FaultyStore(sqlite(tmp_path))
        store.script("claim", held(gate, reached))
        async with opened(store, PlaceOrder(world), sagas_in_flight_max=5) as orchestrator:
            await reached.wait()
            starts = [
                asyncio.ensure_future(orchestrator.execute(PlaceOrder, Order(), saga_id=f"new {number}"))
                for number in range(5)
            ]
            await until(lambda: len(store.turns) == 5)
            gate.set()
            again = asyncio.Event()
            store.script("claim", held(again, reached := asyncio.Event()))
            await reached.wait()  # what the first claim has brought is under way
            assert owned(orchestrator) == 5
            again.set()
            calls.set()
            await asyncio.gather(*starts)
            for number in range(5):
                outcome = await orchestrator.outcome(PlaceOrder, f"left {number}", timeout=20)
                assert isinstance(outcome, Completed)

    run(main())


@pytest.mark.parametrize("bound", [1, 3, 2000])
def test_what_another_process_left_is_taken_over_page_by_page(tmp_path: Path, bound: int) -> None:
    """However many there are, and however few fit at once."""

    async def main() -> None:
        left = World()
        left.always("charge", hangs)
        async with crashing(tmp_path, PlaceOrder(left)) as (orchestrator, _):
            await asyncio.gather(
                *[orchestrator.start(PlaceOrder, Order(), saga_id=str(number)) for number in range(30)]
            )
            await left.reached("charge", 30)
        world = World()
        gauge = Gauge(world)
        async with opened(sqlite(tmp_path), PlaceOrder(world), sagas_in_flight_max=bound) as orchestrator:
            outcomes = [orchestrator.outcome(PlaceOrder, str(number), timeout=40) for number in range(30)]
            assert all(isinstance(outcome, Completed) for outcome in await asyncio.gather(*outcomes))
        assert gauge.most <= bound
        assert world.count("charge") == world.count("ship") == 30

    run(main())


def test_a_full_worker_still_answers_what_is_asked_of_its_sagas(tmp_path: Path) -> None:
    """Having no room for more is no reason to be deaf."""

    async def main() -> None:
        world, gate = World(), asyncio.Event()

        async def waits(at: Landing) -> Any:
            await gate.wait()
            return at.land()

        world.always("charge", waits)
        async with opened(sqlite(tmp_path), PlaceOrder(world), sagas_in_flight_max=1) as orchestrator:
            handle = await orchestrator.start(PlaceOrder, Order(), saga_id="1")
            waiting = await orchestrator.start(PlaceOrder, Order(), saga_id="2")
            await world.reached("charge")
            async with opened(sqlite(tmp_path), sagas_in_flight_max=1) as other:
                from atone._runtime.requests import ask

                receipt = await ask(other._store, "default", "PlaceOrder", "1", "cancel", by="me", reason="why not")
                assert (await receipt.answer(timeout=20)).applied
            gate.set()
            assert type(await handle.outcome(timeout=20)).__name__ == "Compensated"
            assert isinstance(await waiting.outcome(timeout=20), Completed)

    run(main())


def test_an_idle_orchestrator_keeps_nothing_of_sagas_that_are_over(tmp_path: Path) -> None:
    """After a thousand there is no runner, no waiter, no watcher and no task left of them."""

    async def main() -> None:
        world = World()
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            await orchestrator.execute(PlaceOrder, Order(), saga_id="first")
            await until(lambda: owned(orchestrator) == 0)
            tasks = len(asyncio.all_tasks())
            starts = [orchestrator.execute(PlaceOrder, Order(), saga_id=str(number)) for number in range(300)]
            await asyncio.gather(*starts)
            await until(lambda: len(asyncio.all_tasks()) <= tasks)
            assert owned(orchestrator) == 0
            assert not orchestrator._waiting._outcomes._waiting
            assert not orchestrator._watchers._queues
            assert not orchestrator._worker._starts._answers

    run(main())
