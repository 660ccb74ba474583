"""A worker's life: its lease, its death by declaration, its next life, and what it leaves behind when it closes."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from atone import Completed, Context, Orchestrator, Saga, step
from atone._runtime.committer import Committer
from atone._runtime.heartbeat import Heartbeat
from atone._runtime.worker import Worker
from atone.clock import StoreTime
from atone.errors import StoreUnavailable, WorkerDead
from atone.store import Turn, TurnResult
from atone.stores.memory import MemoryStore
from tests.runtime.faulty_store import FaultyStore, fails_with, held
from tests.runtime.world import (
    ONCE,
    Landing,
    Order,
    PlaceOrder,
    World,
    crashing,
    hangs,
    limits,
    opened,
    run,
    sqlite,
    until,
    waits,
)


class ManualClock:
    """The machine's clock, moved by hand."""

    def __init__(self) -> None:
        self.ahead_seconds = 0.0
        self.readings = 0

    def monotonic(self) -> float:
        self.readings += 1
        return time.monotonic() + self.ahead_seconds


def worker_of(orchestrator: Orchestrator) -> Worker:
    assert orchestrator._worker is not None
    return orchestrator._worker


def declare_dead(store: FaultyStore, worker: str) -> None:
    """Do what another worker's claim does when a lease is over."""
    store.inner.renew(worker, 0.0)


def heartbeats() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "atone-heartbeat"]


def test_a_worker_declared_dead_interrupts_its_calls_and_goes_on_under_a_new_id(tmp_path: Path) -> None:
    """Its sagas are dropped at once; the next life takes them over like anybody's."""

    async def main() -> None:
        world, interrupted = World(), asyncio.Event()

        async def notices(at: Landing) -> Any:
            try:
                await asyncio.Event().wait()
            finally:
                interrupted.set()

        world.script("charge", notices)
        store = FaultyStore(sqlite(tmp_path))
        async with opened(store, PlaceOrder(world)) as orchestrator:
            handle = await orchestrator.start(PlaceOrder, Order(), saga_id="1")
            await world.reached("charge")
            first = worker_of(orchestrator).membership.id
            declare_dead(store, first)
            await interrupted.wait()
            assert isinstance(await handle.outcome(timeout=20), Completed)
            assert worker_of(orchestrator).membership.id != first
        assert world.names == ["reserve", "charge", "charge", "ship"]

    run(main())


def test_a_dead_workers_last_commit_writes_nothing(tmp_path: Path) -> None:
    """An outcome that comes after the death is not recorded by the dead; the next owner asks again."""

    async def main() -> None:
        world, gate = World(), asyncio.Event()
        world.script("charge", waits(gate))
        store = FaultyStore(sqlite(tmp_path))
        store.always("claim", fails_with(StoreUnavailable("it must be the commit that finds out")))
        store.renewals_pass.clear()
        async with opened(store, PlaceOrder(world)) as orchestrator:
            handle = await orchestrator.start(PlaceOrder, Order(), saga_id="1")
            await world.reached("charge")
            turns = len(store.turns)
            declare_dead(store, worker_of(orchestrator).membership.id)
            store.registrations_pass.clear()
            gate.set()
            await until(lambda: worker_of(orchestrator).membership.committer is None)
            assert len(store.turns) == turns
            store.always("claim", None)
            store.renewals_pass.set()
            store.registrations_pass.set()
            assert isinstance(await handle.outcome(timeout=20), Completed)
        assert world.count("charge") == 2

    run(main())


def test_a_report_of_a_death_that_comes_late_does_not_end_the_next_life(tmp_path: Path) -> None:
    """The heartbeat of the first life learns of its death after the second has begun: that is no news."""

    async def main() -> None:
        store = FaultyStore(sqlite(tmp_path))
        async with opened(store, PlaceOrder(World()), lease_seconds=0.9) as orchestrator:
            worker = worker_of(orchestrator)
            (beat,) = heartbeats()
            store.renewals_pass.clear()
            await asyncio.sleep(0.35)  # the thread stands in a renewal now; if not, it stands in the next
            first = worker.membership.id
            declare_dead(store, first)
            await until(lambda: worker.membership.id not in {first, ""} and worker.membership.committer is not None)
            second = worker.membership.id
            store.renewals_pass.set()
            await asyncio.to_thread(beat.join)
            await asyncio.sleep(0)
            assert worker.membership.id == second
            assert worker.membership.committer is not None

    run(main())


def test_a_claim_that_is_answered_between_two_lives_strands_no_saga(tmp_path: Path) -> None:
    """What the dead life took over is not kept by the next one as if it were running."""

    async def main() -> None:
        world = World()
        world.script("charge", hangs)
        async with crashing(tmp_path, PlaceOrder(world)) as (orchestrator, _):
            await orchestrator.start(PlaceOrder, Order(), saga_id="1")
            await world.reached("charge")
        store = FaultyStore(sqlite(tmp_path))
        gate, loading = asyncio.Event(), asyncio.Event()
        async with opened(store, PlaceOrder(world), lease_seconds=0.3) as orchestrator:
            store.script("load", held(gate, loading))
            worker = worker_of(orchestrator)
            await loading.wait()
            store.registrations_pass.clear()
            declare_dead(store, worker.membership.id)
            await until(lambda: worker.membership.committer is None)
            gate.set()
            await asyncio.sleep(0.1)  # the answer is heard while nobody is registered
            store.registrations_pass.set()
            assert isinstance(await orchestrator.outcome(PlaceOrder, "1", timeout=10), Completed)

    run(main())


def test_a_start_between_two_lives_waits_for_the_next(tmp_path: Path) -> None:
    """Nothing is closing, so nobody is told that it is."""

    async def main() -> None:
        world = World()
        store = FaultyStore(sqlite(tmp_path))
        async with opened(store, PlaceOrder(world), lease_seconds=0.3) as orchestrator:
            worker = worker_of(orchestrator)
            store.registrations_pass.clear()
            declare_dead(store, worker.membership.id)
            await until(lambda: worker.membership.committer is None)
            start = asyncio.ensure_future(orchestrator.execute(PlaceOrder, Order(), saga_id="1", timeout=20))
            done, _ = await asyncio.wait([start], timeout=0.1)
            assert not done
            store.registrations_pass.set()
            assert isinstance(await start, Completed)

    run(main())


def test_no_call_begins_after_the_lease_has_ended_by_this_machines_clock(tmp_path: Path) -> None:
    """The intent is durable, and yet the step waits until the lease is renewed."""

    async def main() -> None:
        world, gate, clock = World(), asyncio.Event(), ManualClock()
        world.script("reserve", waits(gate))
        store = FaultyStore(sqlite(tmp_path))
        async with Orchestrator(store, sagas=[PlaceOrder(world)], limits=limits(lease_seconds=3), clock=clock) as atone:
            handle = await atone.start(PlaceOrder, Order(), saga_id="1")
            store.fail_renewals()
            clock.ahead_seconds = 4.0
            gate.set()
            await until(lambda: len(store.turns) == 2)
            asked = clock.readings
            await until(lambda: clock.readings > asked + 20)
            assert world.names == ["reserve"]
            store.allow_renewals()
            assert isinstance(await handle.outcome(timeout=20), Completed)
        assert world.names == ["reserve", "charge", "ship"]

    run(main())


class Hasty(Saga[Order], late_grace=0):
    """Its second step has little time."""

    def __init__(self, gate: asyncio.Event) -> None:
        self.gate = gate
        self.attempts: list[int] = []

    @step(retry=ONCE, timeout=20, no_compensation="a test")
    async def first(self, ctx: Context[Order]) -> None:
        await self.gate.wait()

    @step(retry=ONCE, timeout=0.2, no_compensation="a test")
    async def second(self, ctx: Context[Order]) -> None:
        self.attempts.append(ctx.attempt)


def test_a_call_that_the_lease_held_up_past_its_deadline_is_begun_anew(tmp_path: Path) -> None:
    """Begun late it could have its effect after its undo; and it has not failed, so even one try is enough."""

    async def main() -> None:
        gate, clock = asyncio.Event(), ManualClock()
        store, saga = FaultyStore(sqlite(tmp_path)), Hasty(gate)
        async with Orchestrator(store, sagas=[saga], limits=limits(lease_seconds=3), clock=clock) as atone:
            handle = await atone.start(Hasty, Order(), saga_id="1")
            store.fail_renewals()
            clock.ahead_seconds = 4.0
            await until(lambda: abs(worker_of(atone).now() - time.time()) < 1.0)  # the store has told the time
            gate.set()
            await until(lambda: len(store.turns) == 2)
            await asyncio.sleep(0.3)  # the call's time passes
            assert saga.attempts == []
            store.allow_renewals()
            assert isinstance(await handle.outcome(timeout=20), Completed)
        assert saga.attempts == [2]

    run(main())


class Blocking(Saga[Order], late_grace=0):
    """Its step blocks the event loop."""

    def __init__(self, block: Any) -> None:
        self.block = block

    @step(retry=ONCE, timeout=20, no_compensation="a test")
    async def think(self, ctx: Context[Order]) -> int:
        self.block(ctx.attempt)
        return ctx.attempt


def rival_takes(path: Path, seconds: float) -> bool:
    """Try to take sagas over, as another process, for a while; give them back at the end."""

    async def main() -> bool:
        end = time.monotonic() + seconds
        async with sqlite(path) as store:
            store.renew("rival", 60, register=[])
            taken: tuple[bytes, ...] = ()
            while not taken and time.monotonic() < end:
                plan = Blocking.plan()
                wanted = [(plan.name, plan.version, plan.plan_hash)]
                found = await store.claim("rival", definitions=wanted, known=(), limit=10, lease_seconds=60)
                taken = found.taken
                await asyncio.sleep(0.02)
            store.renew("rival", 0)
            return bool(taken)

    return asyncio.run(main())


@pytest.mark.parametrize("stall_seconds", [30.0, 0.3], ids=["survives", "lets go"])
def test_a_blocked_loop_keeps_its_lease_and_a_hung_one_loses_it(tmp_path: Path, stall_seconds: float) -> None:
    """The heartbeat runs beside the loop: it renews for a busy one, not for one that has stopped."""
    lost: list[bool] = []

    def block(attempt: int) -> None:
        if attempt == 1:
            rival = threading.Thread(
                target=lambda: lost.append(rival_takes(tmp_path, 2.0 if stall_seconds > 1 else 20))
            )
            rival.start()
            rival.join()

    async def main() -> None:
        saga = Blocking(block)
        async with opened(sqlite(tmp_path), saga, lease_seconds=1.0, loop_stall_seconds=stall_seconds) as orchestrator:
            done = await orchestrator.execute(Blocking, Order(), saga_id="1", timeout=20)
            assert isinstance(done, Completed)
            assert lost == [stall_seconds < 1]
            assert done[Blocking.think] == (2 if lost[0] else 1)

    run(main())


def test_a_loop_that_does_not_run_is_not_renewed_for() -> None:
    """Whatever the reason: nobody would hear that the worker is dead, and its sagas stand still."""

    async def main() -> None:
        store, clock = FaultyStore(MemoryStore(allow_volatile=True)), ManualClock()
        store.renew("w", 60, register=[])
        heard: list[Any] = []
        beat = Heartbeat(
            store, "w", clock, lease_seconds=0.03, loop_stall_seconds=5.0,
            on_lease=lambda *lease: heard.append(lease), on_dead=lambda: heard.append("dead"),
        )  # fmt: skip
        beat.started(clock.monotonic())
        await until(lambda: len(store.renewals) > 3)
        clock.ahead_seconds = 6.0
        time.sleep(0.1)  # noqa: ASYNC251 - the loop hangs
        renewed = len(store.renewals)
        time.sleep(0.3)  # noqa: ASYNC251 - the loop hangs
        assert len(store.renewals) == renewed
        await until(lambda: len(store.renewals) > renewed + 3)  # it runs again
        await asyncio.to_thread(beat.stop)
        assert "dead" not in heard

    run(main())


class FixedClock:
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def monotonic(self) -> float:
        return self.seconds


def test_an_answer_that_a_blocked_loop_hears_late_does_not_set_the_clock_back() -> None:
    """The store's clock was read at some moment between asking and hearing; the offset moves no further than that."""
    machine = FixedClock(10.0)
    clock = StoreTime(machine)
    clock.observe(1000.0, asked_at=9.9)
    assert clock.now() == 1000.0
    machine.seconds = 30.0
    clock.observe(1001.0, asked_at=11.0)  # asked at once, heard 19 s later
    assert clock.now() == 1020.0
    clock.observe(1021.0, asked_at=30.0, heard_at=30.0)  # the store's clock is ahead
    assert clock.now() == 1021.0
    clock.observe(900.0, asked_at=29.0, heard_at=30.0)  # somebody has set it back
    assert 900.0 <= clock.now() <= 901.0


def test_a_bug_in_a_renewal_does_not_end_the_heartbeat(tmp_path: Path) -> None:
    """The worker lives on through errors that no store should raise."""

    async def main() -> None:
        store = FaultyStore(sqlite(tmp_path))
        async with opened(store, PlaceOrder(World()), lease_seconds=0.6) as orchestrator:
            first = worker_of(orchestrator).membership.id
            store.fail_renewals(RuntimeError("a bug"))
            await until(lambda: store.failed_renewals >= 2)
            store.allow_renewals()
            renewed = len(store.renewals)
            await until(lambda: len(store.renewals) >= renewed + 2)
            assert worker_of(orchestrator).membership.id == first

    run(main())


def test_closing_while_the_store_is_down_leaves_no_thread(tmp_path: Path) -> None:
    """A worker that can't retire stops renewing all the same."""

    async def main() -> None:
        async with crashing(tmp_path, PlaceOrder(World()), lease_seconds=0.3):
            (beat,) = heartbeats()
        await asyncio.to_thread(beat.join, 5)
        assert not beat.is_alive()

    run(main())


def test_an_error_that_no_store_should_raise_is_only_one_more_try(tmp_path: Path) -> None:
    """The one writer of a process does not die of a bug in an adapter."""

    async def main() -> None:
        store = FaultyStore(sqlite(tmp_path))
        async with opened(store, PlaceOrder(World())) as orchestrator:
            store.script("commit", fails_with(RuntimeError("a bug")), fails_with(ValueError("another")))
            assert isinstance(await orchestrator.execute(PlaceOrder, Order(), saga_id="1", timeout=20), Completed)

    run(main())


def test_a_saga_whose_turn_can_not_be_taken_in_stops_no_other() -> None:
    """The committer goes on when somebody fails to hear what became of a turn."""

    async def main() -> None:
        store, heard = MemoryStore(allow_volatile=True), asyncio.Event()
        store.renew("w", 60, register=[])
        committer = Committer(store, "w", lambda: None)
        committer.start()

        def fails(result: TurnResult) -> None:
            raise RuntimeError("a bug")

        committer.submit(Turn(b"1" * 16, 2, b"1" * 16, b"[]"), fails)
        committer.submit(Turn(b"2" * 16, 2, b"2" * 16, b"[]"), lambda result: heard.set())
        async with asyncio.timeout(5):
            await heard.wait()
        await committer.close()

    run(main())


def test_a_dead_worker_is_told_once() -> None:
    """The committer of a dead worker stops, and what is queued is not written."""

    async def main() -> None:
        told: list[str] = []
        store = FaultyStore(MemoryStore(allow_volatile=True))
        store.always("commit", fails_with(WorkerDead("dead")))
        committer = Committer(store, "w", lambda: told.append("dead"))
        committer.start()
        committer.submit(Turn(b"1" * 16, 2, b"1" * 16, b"[]"), lambda result: told.append("landed"))
        await until(lambda: bool(told))
        await committer.close()
        assert told == ["dead"]
        assert committer.waiting == 0

    run(main())
