"""Pitfalls that other libraries fell into, one test each, numbered as in the list of them; all on SQLite."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from atone import Compensated, Completed, Context, NeedsAttention, Orchestrator, Reject, Saga, SagaStatus, Tried, step
from atone.errors import DefinitionError, DefinitionMismatch
from atone.store import Turn
from tests.runtime.faulty_store import FaultyStore
from tests.runtime.world import (
    ONCE,
    Landing,
    Order,
    PlaceOrder,
    World,
    crashing,
    hangs,
    lands_and_hangs,
    opened,
    raises,
    run,
    sqlite,
    until,
    waits,
)


@pytest.mark.parametrize("commits", range(1, 7))
def test_01_a_crash_between_any_two_commits_strands_nothing(tmp_path: Path, commits: int) -> None:
    """Forward and backward, whichever commit was the last: the next process ends the saga as it would have ended."""

    async def main() -> None:
        world = World()
        world.always("ship", raises(Reject("no van")))
        async with crashing(tmp_path, PlaceOrder(world)) as (orchestrator, store):

            def crash_after(turns: Sequence[Turn]) -> None:
                if len(store.turns) == commits:
                    store.unplug()

            store.on_commit = crash_after
            await orchestrator.start(PlaceOrder, Order(), saga_id="1")
            await until(lambda: store.unplugged)
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            assert isinstance(await orchestrator.outcome(PlaceOrder, "1", timeout=20), Compensated)
        assert world.standing() == set()
        assert set(world.effects.values()) == {1}

    run(main())


def test_02_a_crash_between_the_start_and_its_first_step_strands_nothing(tmp_path: Path) -> None:
    """A saga that nobody has run yet is found by whoever comes."""

    async def main() -> None:
        world = World()
        world.script("reserve", hangs)
        async with crashing(tmp_path, PlaceOrder(world), sagas_in_flight_max=1) as (orchestrator, _):
            await orchestrator.start(PlaceOrder, Order(), saga_id="first")
            await orchestrator.start(PlaceOrder, Order(), saga_id="second")
            assert {info.status for info in await orchestrator.list()} >= {SagaStatus.PENDING}
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            for saga_id in ("first", "second"):
                assert isinstance(await orchestrator.outcome(PlaceOrder, saga_id, timeout=20), Completed)

    run(main())


def test_03_a_step_in_doubt_is_undone(tmp_path: Path) -> None:
    """The process died in the middle of the charge, which had landed; then the customer cancels."""

    async def main() -> None:
        world = World()
        world.script("charge", lands_and_hangs, raises(Reject("this card was charged already")))
        async with crashing(tmp_path, PlaceOrder(world)) as (orchestrator, _):
            await orchestrator.start(PlaceOrder, Order(), saga_id="1")
            await world.reached("charge")
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            assert isinstance(await orchestrator.outcome(PlaceOrder, "1", timeout=20), Compensated)
        assert "refund" in world.names
        assert world.standing() == set()

    run(main())


class Tight(Saga[Order], late_grace=300):
    """Its charge is given up on soon, and would be undone only minutes later if nobody said that it landed."""

    def __init__(self, world: World, gate: threading.Event) -> None:
        self.world, self.gate = world, gate
        self.undone: list[str | None] = []

    @step(retry=ONCE, timeout=0.05)
    def charge(self, ctx: Context[Order]) -> str:
        assert self.gate.wait(20)
        return self.world.land("charge", ctx)

    @charge.compensation(retry=ONCE)
    async def refund(self, ctx: Context[Order], tried: Tried[str]) -> None:
        self.undone.append(tried.result)
        self.world.land("refund", ctx, tried)


def test_04_a_success_that_comes_after_its_time_out_is_not_dropped(tmp_path: Path) -> None:
    """The rollback has begun without it; it joins, and is undone."""

    async def main() -> None:
        world, gate = World(), threading.Event()
        saga = Tight(world, gate)
        async with opened(sqlite(tmp_path), saga) as orchestrator:
            handle = await orchestrator.start(Tight, Order(), saga_id="1")
            async for progress in handle.watch():
                if progress.status is SagaStatus.COMPENSATING:
                    gate.set()
            assert isinstance(await handle.outcome(timeout=20), Compensated)
        assert saga.undone == ["charge of 1"]
        assert world.standing() == set()

    run(main())


def test_05_and_06_a_failed_undo_is_neither_a_rollback_nor_its_end(tmp_path: Path) -> None:
    """It has a status of its own, every failure is kept, and the other undos are made."""

    async def main() -> None:
        world = World()
        world.always("ship", raises(Reject("no van")))
        world.always("refund", raises(OSError("the bank is down")))
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            outcome = await orchestrator.execute(PlaceOrder, Order(), saga_id="1")
            assert isinstance(outcome, NeedsAttention), outcome
            assert "the bank is down" in outcome.cause
            (info,) = await orchestrator.list(status=SagaStatus.NEEDS_ATTENTION)
            assert info.saga_id == "1"
        assert world.count("refund") == 3
        assert world.count("release") == 1
        assert world.standing() == {"charge"}

    run(main())


def shop(world: World, place: str) -> Any:
    """Return one of two classes in which everything is called the same."""

    class Undoing(Saga[Order], name=f"Undoing_{place}", late_grace=0):
        @step(retry=ONCE)
        async def act(self, ctx: Context[Order]) -> str:
            return world.land(f"act {place}", ctx)

        @act.compensation(retry=ONCE)
        async def undo(self, ctx: Context[Order], tried: Tried[str]) -> None:
            world.calls.append(SimpleNamespace(step=f"undo {place}", seen=tried.result))

        @step(retry=ONCE, no_compensation="a test")
        async def fail(self, ctx: Context[Order]) -> None:
            raise Reject("no")

    return Undoing


def test_07_an_undo_belongs_to_its_step_not_to_its_name(tmp_path: Path) -> None:
    """Two sagas whose functions share all names undo each their own."""

    async def main() -> None:
        world = World()
        inventory, payment = shop(world, "inventory"), shop(world, "payment")
        async with opened(sqlite(tmp_path), inventory(), payment()) as orchestrator:
            for kind in (inventory, payment):
                assert isinstance(await orchestrator.execute(kind, Order(), saga_id="1"), Compensated)
        told = [(call.step, call.seen) for call in world.calls]
        assert told == [("undo inventory", "act inventory of 1"), ("undo payment", "act payment of 1")]

    run(main())


def test_08_an_undo_that_can_not_be_called_is_found_before_anything_runs(tmp_path: Path) -> None:
    """The signature is compared when the orchestrator is built, not when the refund is due."""
    with pytest.raises(DefinitionError):

        class Careless(Saga[Order]):
            @step()
            async def charge(self, ctx: Context[Order]) -> str:
                return ctx.saga_id

            @charge.compensation
            async def refund(self, ctx: Context[Order], payment_id: str) -> None: ...

        opened(sqlite(tmp_path), Careless())


def test_09_an_undo_that_this_process_lacks_is_never_skipped(tmp_path: Path) -> None:
    """A process whose code can't undo a step does not get the saga; one that can undoes it."""

    class WithoutUndo(Saga[Order], name="PlaceOrder", late_grace=0):
        @step(no_compensation="somebody has deleted it")
        async def reserve(self, ctx: Context[Order]) -> str:
            return "never called"

    async def main() -> None:
        world = World()
        world.always("ship", raises(Reject("no van")))
        world.script("refund", hangs)
        async with crashing(tmp_path, PlaceOrder(world)) as (orchestrator, _):
            await orchestrator.start(PlaceOrder, Order(), saga_id="1")
            await world.reached("refund")
        with pytest.raises(DefinitionMismatch):
            async with opened(sqlite(tmp_path), WithoutUndo()):
                pytest.fail("it must not open")
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            assert isinstance(await orchestrator.outcome(PlaceOrder, "1", timeout=20), Compensated)
        assert world.names[-2:] == ["refund", "release"]
        assert world.standing() == set()

    run(main())


def test_10_a_race_of_starts_has_one_winner(tmp_path: Path) -> None:
    """Five callers in each of two processes; the saga runs once, also if it is started again after its end."""

    async def main() -> None:
        world = World()
        first, second = opened(sqlite(tmp_path), PlaceOrder(world)), opened(sqlite(tmp_path), PlaceOrder(world))
        async with first as one, second as two:
            starts = [atone.start(PlaceOrder, Order(), saga_id="1") for _ in range(5) for atone in (one, two)]
            handles = await asyncio.gather(*starts)
            assert len({handle.key for handle in handles}) == 1
            outcomes = await asyncio.gather(*[handle.outcome(timeout=20) for handle in handles])
            assert all(isinstance(outcome, Completed) for outcome in outcomes)
            assert isinstance(await two.execute(PlaceOrder, Order(), saga_id="1"), Completed)
        assert world.names == ["reserve", "charge", "ship"]

    run(main())


def test_11_a_saga_that_was_rolled_back_never_goes_forward_again(tmp_path: Path) -> None:
    """Neither by a start with the same id, nor after a crash in the middle of its rollback."""

    async def main() -> None:
        world = World()
        world.script("ship", raises(Reject("no van")))
        world.script("refund", hangs)
        async with crashing(tmp_path, PlaceOrder(world)) as (orchestrator, _):
            await orchestrator.start(PlaceOrder, Order(), saga_id="1")
            await world.reached("refund")
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            assert isinstance(await orchestrator.execute(PlaceOrder, Order(), saga_id="1", timeout=20), Compensated)
            assert isinstance(await orchestrator.execute(PlaceOrder, Order(), saga_id="1", timeout=20), Compensated)
        assert world.names == ["reserve", "charge", "ship", "refund", "refund", "release"]

    run(main())


def test_12_many_recoveries_at_once_run_each_saga_once(tmp_path: Path) -> None:
    """Four processes come up together over twenty sagas that a fifth has left."""

    async def main() -> None:
        left = World()
        left.always("charge", hangs)
        async with crashing(tmp_path, PlaceOrder(left)) as (orchestrator, _):
            await asyncio.gather(
                *[orchestrator.start(PlaceOrder, Order(), saga_id=str(number)) for number in range(20)]
            )
            await left.reached("charge", 20)
        world = World()
        fleet = [opened(sqlite(tmp_path), PlaceOrder(world)) for _ in range(4)]
        await asyncio.gather(*[one.__aenter__() for one in fleet])
        ends = [fleet[number % 4].outcome(PlaceOrder, str(number), timeout=30) for number in range(20)]
        assert all(isinstance(outcome, Completed) for outcome in await asyncio.gather(*ends))
        await asyncio.gather(*[one.__aexit__(None, None, None) for one in fleet])
        assert world.count("charge") == world.count("ship") == 20
        assert world.count("reserve") == 0

    run(main())


def test_13_a_step_that_outlasts_its_lease_is_called_once(tmp_path: Path) -> None:
    """The lease is renewed while the call goes on, so the other process has nothing to take."""

    async def main() -> None:
        world, gate = World(), asyncio.Event()
        world.script("charge", waits(gate))
        store = FaultyStore(sqlite(tmp_path))
        first = opened(store, PlaceOrder(world), lease_seconds=0.3)
        second = opened(sqlite(tmp_path), PlaceOrder(world), lease_seconds=0.3)
        async with first as one, second:
            handle = await one.start(PlaceOrder, Order(), saga_id="1")
            await world.reached("charge")
            renewed = len(store.renewals)
            await until(lambda: len(store.renewals) >= renewed + 6)
            gate.set()
            assert isinstance(await handle.outcome(timeout=20), Completed)
        assert world.names == ["reserve", "charge", "ship"]

    run(main())


def test_14_a_worker_that_lost_its_lease_can_not_go_on(tmp_path: Path) -> None:
    """The old owner wakes up after the takeover: what it wants to write is refused, and it calls nothing more."""

    async def main() -> None:
        old, new, gate = World(), World(), asyncio.Event()
        old.script("charge", waits(gate))
        store = FaultyStore(sqlite(tmp_path))
        first = opened(store, PlaceOrder(old), lease_seconds=0.4, poll_seconds=60.0)
        async with first as one:
            await one.start(PlaceOrder, Order(), saga_id="1")
            await old.reached("charge")
            store.fail_renewals()
            async with opened(sqlite(tmp_path), PlaceOrder(new)) as two:
                assert isinstance(await two.outcome(PlaceOrder, "1", timeout=20), Completed)
                turns = len(store.turns)
                gate.set()
                await until(lambda: one._worker is not None and not one._worker.runners)
                assert len(store.turns) == turns
            store.allow_renewals()
        assert old.names == ["reserve", "charge"]
        assert new.names == ["charge", "ship"]

    run(main())


def test_15_a_blocked_event_loop_does_not_look_dead(tmp_path: Path) -> None:
    """A step computes for much longer than the lease; another process that is looking finds nothing to take."""

    async def main() -> None:
        world, other, stop = World(), World(), threading.Event()

        async def looks() -> None:
            async with opened(sqlite(tmp_path), PlaceOrder(other)):
                await asyncio.to_thread(stop.wait, 20)

        async def blocks(at: Landing) -> Any:
            time.sleep(1.2)  # noqa: ASYNC251 - this is the point
            return at.land()

        world.script("charge", blocks)
        async with opened(sqlite(tmp_path), PlaceOrder(world), lease_seconds=0.4) as orchestrator:
            rival = threading.Thread(target=lambda: asyncio.run(looks()))
            rival.start()
            outcome = await orchestrator.execute(PlaceOrder, Order(), saga_id="1", timeout=20)
            stop.set()
            await asyncio.to_thread(rival.join)
            assert isinstance(outcome, Completed)
        assert world.names == ["reserve", "charge", "ship"]
        assert other.names == []

    run(main())


def test_16_a_second_process_is_somebody_else(tmp_path: Path) -> None:
    """Started with the same arguments, while the first is inside a step: it takes nothing that the first one runs."""

    async def main() -> None:
        world, gate = World(), asyncio.Event()
        world.script("charge", waits(gate))

        def process() -> Orchestrator:
            return opened(sqlite(tmp_path), PlaceOrder(world))

        async with process() as one:
            handle = await one.start(PlaceOrder, Order(), saga_id="1")
            await world.reached("charge")
            async with process() as two:
                mine = [info.worker for info in await two.list() if info.worker is not None]
                assert mine == [one._worker.membership.id] != [two._worker.membership.id]
                assert isinstance(await two.execute(PlaceOrder, Order(), saga_id="2", timeout=20), Completed)
            gate.set()
            assert isinstance(await handle.outcome(timeout=20), Completed)
        assert [call.step for call in world.calls if call.saga_id == "1"] == ["reserve", "charge", "ship"]

    run(main())


def test_17_a_cancel_undoes_the_step_in_flight_too(tmp_path: Path) -> None:
    """The charge lands after the cancel was asked for: it is refunded like what came before it."""

    async def main() -> None:
        world, gate = World(), asyncio.Event()
        world.script("charge", waits(gate))
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            handle = await orchestrator.start(PlaceOrder, Order(), saga_id="1")
            await world.reached("charge")
            receipt = await handle.cancel(reason="changed my mind")
            assert (await receipt.answer(timeout=20)).applied
            gate.set()
            assert isinstance(await handle.outcome(timeout=20), Compensated)
        assert world.names == ["reserve", "charge", "refund", "release"]
        assert world.standing() == set()

    run(main())


def test_17_a_cancelled_task_undoes_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    """A client that hangs up, or a deploy, is no cancel: the saga goes on, in this process or the next."""

    async def main() -> None:
        world = World()
        world.script("charge", lands_and_hangs)
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            client = asyncio.ensure_future(orchestrator.execute(PlaceOrder, Order(), saga_id="1"))
            await world.reached("charge")
            client.cancel()
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            assert isinstance(await orchestrator.outcome(PlaceOrder, "1", timeout=20), Completed)
        assert world.standing() == {"reserve", "charge", "ship"}
        assert set(world.effects.values()) == {1}

    run(main())
