"""Leaving an orchestrator: calls under way finish or go on elsewhere, what waits is handed back, none is cancelled."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from atone import Compensated, Completed, Context, Orchestrator, Saga, delay, step
from atone.errors import Shutdown
from tests.runtime.faulty_store import FaultyStore, held
from tests.runtime.world import (
    ONCE,
    Landing,
    Order,
    PlaceOrder,
    World,
    hangs,
    lands_and_hangs,
    limits,
    opened,
    run,
    sqlite,
    until,
    waits,
)


class Impatient(Saga[Order], late_grace=0):
    """Its one step may be called once."""

    def __init__(self, world: World) -> None:
        self.world = world

    @step(retry=ONCE, timeout=20, no_compensation="a test")
    async def call(self, ctx: Context[Order]) -> str:
        return await self.world.act("call", ctx)


async def closing(orchestrator: Orchestrator) -> asyncio.Task[Any]:
    """Begin to leave the orchestrator, and return when it drains."""
    worker = orchestrator._worker
    assert worker is not None
    task = asyncio.ensure_future(orchestrator.__aexit__(None, None, None))
    await until(lambda: worker.draining)
    return task


def test_a_call_that_ends_within_the_grace_is_recorded(tmp_path: Path) -> None:
    """Its result is durable before the process goes; the next step begins in the next one."""

    async def main() -> None:
        world, gate = World(), asyncio.Event()
        world.script("charge", waits(gate))
        orchestrator = await opened(sqlite(tmp_path), PlaceOrder(world), grace_seconds=20).__aenter__()
        await orchestrator.start(PlaceOrder, Order(), saga_id="1")
        await world.reached("charge")
        closed = await closing(orchestrator)
        gate.set()
        await closed
        assert world.names == ["reserve", "charge"]
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            assert isinstance(await orchestrator.outcome(PlaceOrder, "1", timeout=20), Completed)
        assert world.names == ["reserve", "charge", "ship"]

    run(main())


def test_a_call_that_takes_longer_is_interrupted_and_repeated_elsewhere(tmp_path: Path) -> None:
    """That is no failure of the step: even one that may be called once goes on."""

    async def main() -> None:
        world = World()
        world.script("call", lands_and_hangs)
        async with opened(sqlite(tmp_path), Impatient(world)) as orchestrator:
            await orchestrator.start(Impatient, Order(), saga_id="1")
            await world.reached("call")
        async with opened(sqlite(tmp_path), Impatient(world)) as orchestrator:
            assert isinstance(await orchestrator.outcome(Impatient, "1", timeout=20), Completed)
        assert [call.attempt for call in world.calls] == [1, 2]
        assert set(world.effects.values()) == {1}

    run(main())


def test_a_compensation_under_way_is_shielded_from_the_shutdown(tmp_path: Path) -> None:
    """It is given the grace, and goes on elsewhere if that is not enough; the saga never goes forward again."""

    async def main() -> None:
        from atone import Reject

        world = World()

        async def refuses(at: Landing) -> Any:
            raise Reject("no van")

        world.always("ship", refuses)
        world.script("refund", hangs)
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            await orchestrator.start(PlaceOrder, Order(), saga_id="1")
            await world.reached("refund")
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            assert isinstance(await orchestrator.outcome(PlaceOrder, "1", timeout=20), Compensated)
        assert world.names == ["reserve", "charge", "ship", "refund", "refund", "release"]

    run(main())


class Pausing(Saga[Order]):
    """Waits for a second, short enough to be kept in memory."""

    pause = delay(1.0)

    @step(no_compensation="a test")
    async def done(self, ctx: Context[Order]) -> None: ...


def test_a_saga_that_only_waits_is_handed_back(tmp_path: Path) -> None:
    """Nobody has to wait for this process's lease to end before it goes on."""

    async def main() -> None:
        async with opened(sqlite(tmp_path), Pausing(), grace_seconds=20) as orchestrator:
            await orchestrator.start(Pausing, Order(), saga_id="1")
            (info,) = await orchestrator.list()
            assert info.worker is not None
        async with opened(sqlite(tmp_path)) as looker:
            (info,) = await looker.list()
            assert info.worker is None
            assert info.wake_at is not None
        async with opened(sqlite(tmp_path), Pausing()) as orchestrator:
            assert isinstance(await orchestrator.outcome(Pausing, "1", timeout=20), Completed)

    run(main())


class Clock:
    def __init__(self) -> None:
        self.readings = 0

    def monotonic(self) -> float:
        self.readings += 1
        return time.monotonic()


class Forked(Saga[Order], late_grace=0):
    """A long call beside a short one with a successor, and a condition that takes its time."""

    def __init__(self, world: World, answers: asyncio.Event) -> None:
        self.world, self.answers = world, answers

    @step(retry=ONCE, timeout=20, no_compensation="a test", after=())
    async def long(self, ctx: Context[Order]) -> str:
        return await self.world.act("long", ctx)

    @step(retry=ONCE, timeout=20, no_compensation="a test", after=())
    async def short(self, ctx: Context[Order]) -> str:
        return await self.world.act("short", ctx)

    @step(short, retry=ONCE, timeout=20, no_compensation="a test")
    async def after_short(self, ctx: Context[Order], short: str) -> str:
        return await self.world.act("after_short", ctx)

    @step(retry=ONCE, timeout=20, no_compensation="a test", after=())
    async def perhaps(self, ctx: Context[Order]) -> str:
        return await self.world.act("perhaps", ctx)

    @perhaps.when
    async def may(self, ctx: Context[Order]) -> bool:
        return await self.answers.wait()


def test_a_drain_waits_quietly(tmp_path: Path) -> None:
    """A step that is due, and not begun any more, does not keep the loop spinning until the long call ends."""

    async def main() -> None:
        world, gate, answers, clock = World(), asyncio.Event(), asyncio.Event(), Clock()
        world.script("long", waits(gate))
        short = asyncio.Event()
        world.script("short", waits(short))
        settings = limits(grace_seconds=20)
        orchestrator = Orchestrator(sqlite(tmp_path), sagas=[Forked(world, answers)], limits=settings, clock=clock)
        await orchestrator.__aenter__()
        await orchestrator.start(Forked, Order(), saga_id="1")
        await world.reached("long")
        closed = await closing(orchestrator)
        short.set()
        await asyncio.sleep(0.05)
        before = clock.readings
        await asyncio.sleep(0.3)
        assert clock.readings - before < 50
        gate.set()
        answers.set()
        await closed
        assert sorted(world.names) == ["long", "short"]
        async with opened(sqlite(tmp_path), Forked(world, answers)) as orchestrator:
            assert isinstance(await orchestrator.outcome(Forked, "1", timeout=20), Completed)
        assert sorted(world.names) == ["after_short", "long", "perhaps", "short"]

    run(main())


def test_a_closing_orchestrator_takes_nothing_new(tmp_path: Path) -> None:
    """And whoever waits for an outcome is told why there is none."""

    async def main() -> None:
        world = World()
        world.always("charge", hangs)
        orchestrator = await opened(sqlite(tmp_path), PlaceOrder(world), grace_seconds=0.3).__aenter__()
        handle = await orchestrator.start(PlaceOrder, Order(), saga_id="1")
        await world.reached("charge")
        waiter = asyncio.ensure_future(handle.outcome())
        await asyncio.sleep(0)
        closed = await closing(orchestrator)
        with pytest.raises(Shutdown):
            await orchestrator.start(PlaceOrder, Order(), saga_id="2")
        await closed
        with pytest.raises(Shutdown):
            await waiter
        with pytest.raises(Shutdown):
            await handle.outcome()

    run(main())


def test_a_start_under_way_at_the_end_is_answered(tmp_path: Path) -> None:
    """It is durable, or the caller hears of the shutdown; it never waits for ever."""

    async def main() -> None:
        store, gate, reached = FaultyStore(sqlite(tmp_path)), asyncio.Event(), asyncio.Event()
        orchestrator = await opened(store, PlaceOrder(World()), lease_seconds=0.5).__aenter__()
        store.script("commit", held(gate, reached))
        start = asyncio.ensure_future(orchestrator.start(PlaceOrder, Order(), saga_id="1"))
        await reached.wait()
        await (await closing(orchestrator))
        done, _ = await asyncio.wait([start], timeout=10)
        assert done
        with pytest.raises(Exception, match=r"closing|closed|not open"):
            start.result()

    run(main())


def test_leaving_is_finished_although_it_is_cancelled(tmp_path: Path) -> None:
    """Half a closing would leave a lease, threads and an open file behind."""

    async def main() -> None:
        world, gate = World(), asyncio.Event()
        world.script("charge", waits(gate))
        orchestrator = await opened(sqlite(tmp_path), PlaceOrder(world), grace_seconds=20).__aenter__()
        await orchestrator.start(PlaceOrder, Order(), saga_id="1")
        await world.reached("charge")
        closed = await closing(orchestrator)
        closed.cancel()
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await closed
        left = {thread.name for thread in threading.enumerate()} & {"atone-heartbeat", "atone-sqlite"}
        assert not left
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            assert isinstance(await orchestrator.outcome(PlaceOrder, "1", timeout=20), Completed)
        assert world.names == ["reserve", "charge", "ship"]

    run(main())


def test_a_call_that_ignores_its_interruption_does_not_hold_the_process(tmp_path: Path) -> None:
    """After the grace and `cancel_grace_seconds` the orchestrator is left all the same."""

    async def main() -> None:
        world, end = World(), asyncio.Event()

        async def stubborn(at: Landing) -> Any:
            while not end.is_set():
                try:
                    await end.wait()
                except asyncio.CancelledError:
                    continue
            return at.land()

        world.script("charge", stubborn)
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            await orchestrator.start(PlaceOrder, Order(), saga_id="1")
            await world.reached("charge")
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            assert isinstance(await orchestrator.outcome(PlaceOrder, "1", timeout=20), Completed)
        end.set()
        await asyncio.sleep(0)
        assert world.names == ["reserve", "charge", "charge", "ship"]

    run(main())


def test_an_orchestrator_may_be_entered_again(tmp_path: Path) -> None:
    """Also in another event loop; a handle of its earlier time works again."""
    world = World()
    orchestrator = opened(sqlite(tmp_path), PlaceOrder(world))
    handles: list[Any] = []

    async def once(saga_id: str) -> None:
        async with orchestrator:
            assert isinstance(await orchestrator.execute(PlaceOrder, Order(), saga_id=saga_id, timeout=20), Completed)
            handles.append(await orchestrator.get(PlaceOrder, saga_id))
            assert [isinstance(await handle.outcome(timeout=20), Completed) for handle in handles]

    run(once("1"))
    run(once("2"))
    assert world.names == ["reserve", "charge", "ship"] * 2


def test_a_worker_retires_although_no_thread_can_be_started(tmp_path: Path) -> None:
    """At the interpreter's end executors take no work any more; the id is given up all the same."""

    async def main() -> None:
        store = FaultyStore(sqlite(tmp_path))
        executor = ThreadPoolExecutor(4)
        asyncio.get_running_loop().set_default_executor(executor)
        async with opened(store, PlaceOrder(World())) as orchestrator:
            await orchestrator.execute(PlaceOrder, Order(), saga_id="1")
            executor.shutdown()
        assert store.renewals[-1] == 0.0

    run(main())
