"""Delays, events and back-offs: durable, over restarts, without a task or a runner meanwhile."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
import pytest

from atone import (
    Compensated,
    Completed,
    Context,
    NeedsAttention,
    Orchestrator,
    Retry,
    Saga,
    SagaStatus,
    Tried,
    delay,
    step,
    wait_for_event,
)
from atone.errors import OutcomeTimeout, PayloadError, RequestRefused, UnknownSaga
from atone.store import Delivered, Delivery
from tests.runtime.faulty_store import FaultyStore
from tests.runtime.world import (
    AT_ONCE,
    Landing,
    Order,
    World,
    crashing,
    hangs,
    lands,
    opened,
    raises,
    run,
    sqlite,
    until,
)


@dataclass(frozen=True)
class Paid:
    amount: int


class PaidOrder(Saga[Order], late_grace=0):
    """Reserve, wait for the payment's event, then ship."""

    def __init__(self, world: World) -> None:
        self.world = world

    @step(retry=AT_ONCE, barrier=True)
    async def reserve(self, ctx: Context[Order]) -> str:
        return await self.world.act("reserve", ctx)

    @reserve.compensation(retry=AT_ONCE)
    async def release(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.world.act("release", ctx, tried)

    paid = wait_for_event("paid", Paid, timeout=3600)

    @step(paid, retry=AT_ONCE, no_compensation="a test")
    async def ship(self, ctx: Context[Order], paid: Paid) -> int:
        await self.world.act("ship", ctx)
        return paid.amount


class ImpatientOrder(Saga[Order], late_grace=0):
    """The same with a short patience."""

    def __init__(self, world: World) -> None:
        self.world = world

    @step(retry=AT_ONCE, barrier=True)
    async def reserve(self, ctx: Context[Order]) -> str:
        return await self.world.act("reserve", ctx)

    @reserve.compensation(retry=AT_ONCE)
    async def release(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.world.act("release", ctx, tried)

    paid = wait_for_event("paid", Paid, timeout=0.2)


class Reminder(Saga[Order]):
    """Its second step comes a little later."""

    def __init__(self, world: World) -> None:
        self.world = world

    @step(retry=AT_ONCE, no_compensation="a test")
    async def note(self, ctx: Context[Order]) -> str:
        return await self.world.act("note", ctx)

    pause = delay(0.6)

    @step(retry=AT_ONCE, no_compensation="a test")
    async def remind(self, ctx: Context[Order]) -> str:
        return await self.world.act("remind", ctx)


def runners(orchestrator: Orchestrator) -> dict[bytes, Any]:
    assert orchestrator._worker is not None
    return orchestrator._worker.runners


async def started_and_waiting(orchestrator: Orchestrator, kind: Any, saga_id: str = "1") -> Any:
    handle = await orchestrator.start(kind, Order(), saga_id=saga_id)
    await until(lambda: handle.key not in runners(orchestrator))
    return handle


def test_waiting_sagas_hold_no_runner_and_no_task(tmp_path: Path) -> None:
    """A hundred of them leave this process as empty as none."""

    async def main() -> None:
        async with opened(sqlite(tmp_path), PaidOrder(World())) as orchestrator:
            await asyncio.sleep(0)
            tasks = len(asyncio.all_tasks())
            handles = [await orchestrator.start(PaidOrder, Order(), saga_id=str(number)) for number in range(100)]
            await until(lambda: not runners(orchestrator))
            assert len(asyncio.all_tasks()) <= tasks
            assert {info.status for info in await orchestrator.list()} == {SagaStatus.RUNNING}
            assert all(info.worker is None for info in await orchestrator.list())
            receipt = await handles[7].send_event("paid", Paid(7))
            assert (await receipt.answer()).applied
            done = await handles[7].outcome(timeout=20)
            assert isinstance(done, Completed)
            assert done[PaidOrder.ship] == 7

    run(main())


def test_a_delay_goes_on_over_a_crash(tmp_path: Path) -> None:
    """The end of the delay is stored; the second process keeps to it, and repeats nothing."""

    async def main() -> None:
        world = World()
        async with crashing(tmp_path, Reminder(world), keep_seconds=0.0) as (orchestrator, _):
            await started_and_waiting(orchestrator, Reminder)
        async with opened(sqlite(tmp_path), Reminder(world)) as orchestrator:
            assert isinstance(await orchestrator.outcome(Reminder, "1", timeout=20), Completed)
        assert world.names == ["note", "remind"]

    run(main())


@pytest.mark.parametrize("keep_seconds", [0.0, 5.0], ids=["handed back", "kept"])
def test_a_delay_is_at_least_as_long_as_it_says(tmp_path: Path, keep_seconds: float) -> None:
    """Whether its saga stays in memory or not."""

    async def main() -> None:
        world, times = World(), list[float]()

        async def notes_when(at: Landing) -> Any:
            times.append(asyncio.get_running_loop().time())
            return at.land()

        world.always("note", notes_when)
        world.always("remind", notes_when)
        async with opened(sqlite(tmp_path), Reminder(world), keep_seconds=keep_seconds) as orchestrator:
            handle = await orchestrator.start(Reminder, Order(), saga_id="1")
            await world.reached("note")
            if not keep_seconds:
                await until(lambda: not runners(orchestrator))
            assert isinstance(await handle.outcome(timeout=20), Completed)
        assert times[1] - times[0] >= 0.59

    run(main())


def test_an_event_that_comes_before_its_saga_waits_for_it(tmp_path: Path) -> None:
    """Sent to an id that nobody has started yet, and kept over a restart."""

    async def main() -> None:
        async with opened(sqlite(tmp_path), PaidOrder(World())) as orchestrator:
            receipt = await orchestrator.send_event(PaidOrder, "1", "paid", Paid(5), event_id="e1")
            assert receipt.delivered is Delivered.KEPT
            with pytest.raises(UnknownSaga):
                await receipt.answer()
            again = await orchestrator.send_event(PaidOrder, "1", "paid", Paid(6), event_id="e1")
            assert again.delivered is Delivered.DUPLICATE
        async with opened(sqlite(tmp_path), PaidOrder(World())) as orchestrator:
            done = await orchestrator.execute(PaidOrder, Order(), saga_id="1", timeout=20)
            assert isinstance(done, Completed)
            assert done[PaidOrder.paid] == Paid(5)

    run(main())


def test_an_event_that_comes_before_its_step_waits_for_it(tmp_path: Path) -> None:
    """The saga runs, and has not come to the wait yet."""

    async def main() -> None:
        world, gate = World(), asyncio.Event()

        async def waits(at: Landing) -> Any:
            await gate.wait()
            return at.land()

        world.always("reserve", waits)
        async with opened(sqlite(tmp_path), PaidOrder(world)) as orchestrator:
            handle = await orchestrator.start(PaidOrder, Order(), saga_id="1")
            await world.reached("reserve")
            receipt = await handle.send_event("paid", Paid(1))
            assert (await receipt.answer()).applied
            late = await handle.send_event("paid", Paid(2))
            assert (await late.answer()).verdict == "ignored"
            gate.set()
            done = await handle.outcome(timeout=20)
            assert isinstance(done, Completed)
            assert done[PaidOrder.paid] == Paid(1)
        assert world.names == ["reserve", "ship"]

    run(main())


def test_an_event_is_taken_once_by_its_id(tmp_path: Path) -> None:
    """A sender that repeats itself is answered as a duplicate."""

    async def main() -> None:
        async with opened(sqlite(tmp_path), PaidOrder(World())) as orchestrator:
            handle = await started_and_waiting(orchestrator, PaidOrder)
            sent = [await handle.send_event("paid", Paid(number), event_id="e1") for number in range(3)]
            assert [one.delivered for one in sent] == [Delivered.APPENDED, Delivered.DUPLICATE, Delivered.DUPLICATE]
            done = await handle.outcome(timeout=20)
            assert isinstance(done, Completed)
            assert done[PaidOrder.paid] == Paid(0)
            with pytest.raises(RequestRefused):
                await handle.send_event("paid", Paid(9), event_id="e2")

    run(main())


@pytest.mark.parametrize("payload", [None, 7, "text", Order(), {"amount": "much"}, Paid("7")], ids=repr)
def test_an_event_of_a_wrong_type_is_not_sent(tmp_path: Path, payload: Any) -> None:
    """The sender is told; the saga waits on."""

    async def main() -> None:
        async with opened(sqlite(tmp_path), PaidOrder(World())) as orchestrator:
            handle = await started_and_waiting(orchestrator, PaidOrder)
            with pytest.raises(PayloadError):
                await handle.send_event("paid", payload)
            with pytest.raises(UnknownSaga):
                await handle.send_event("payed", Paid(1))
            assert await handle.status() is SagaStatus.RUNNING
            await handle.send_event("paid", Paid(1))
            assert isinstance(await handle.outcome(timeout=20), Completed)

    run(main())


@pytest.mark.parametrize("event_id", [7, b"1", "\ud800", ["1"]], ids=ascii)
def test_an_event_id_of_a_wrong_type_does_not_damage_the_journal(tmp_path: Path, event_id: Any) -> None:
    """It is refused before it is written."""

    async def main() -> None:
        async with opened(sqlite(tmp_path), PaidOrder(World())) as orchestrator:
            handle = await started_and_waiting(orchestrator, PaidOrder)
            with pytest.raises(RequestRefused):
                await handle.send_event("paid", Paid(1), event_id=event_id)
            await handle.send_event("paid", Paid(1))
            assert isinstance(await handle.outcome(timeout=20), Completed)

    run(main())


def test_an_event_that_another_program_has_written_wrongly_is_refused(tmp_path: Path) -> None:
    """Its payload is looked at before the saga takes it, so a step never meets what it does not expect."""

    async def main() -> None:
        store = FaultyStore(sqlite(tmp_path))
        async with opened(store, PaidOrder(World())) as orchestrator:
            handle = await started_and_waiting(orchestrator, PaidOrder)
            entries = b'[{"type":"request_received","id":"e1","kind":"event","by":"x","reason":"paid","event":"paid",'
            entries += b'"payload":{"amount":"much"}}]'
            wrong = Delivery("default", "PaidOrder", "1", "e1", entries, b"1" * 16)
            assert await store.deliver(wrong) is Delivered.APPENDED
            await handle.send_event("paid", Paid(2), event_id="e2")
            done = await handle.outcome(timeout=20)
            assert isinstance(done, Completed)
            assert done[PaidOrder.paid] == Paid(2)

    run(main())


def test_an_event_that_does_not_come_in_time_turns_the_saga_back(tmp_path: Path) -> None:
    """Also if no process was there when the time ran out; an event after that is refused."""

    async def main() -> None:
        world = World()
        async with crashing(tmp_path, ImpatientOrder(world), keep_seconds=0.0) as (orchestrator, _):
            await started_and_waiting(orchestrator, ImpatientOrder)
        async with opened(sqlite(tmp_path), ImpatientOrder(world)) as orchestrator:
            outcome = await orchestrator.outcome(ImpatientOrder, "1", timeout=20)
            assert isinstance(outcome, Compensated), outcome
            assert "did not come" in outcome.cause
            with pytest.raises(RequestRefused):
                await orchestrator.send_event(ImpatientOrder, "1", "paid", Paid(1))
        assert world.names == ["reserve", "release"]

    run(main())


def test_an_early_event_that_nobody_starts_for_becomes_a_dead_letter(tmp_path: Path) -> None:
    """It is not applied to a saga that is started after its time."""

    async def main() -> None:
        async with opened(sqlite(tmp_path), PaidOrder(World())) as orchestrator:
            await orchestrator.send_event(PaidOrder, "1", "paid", Paid(5), keep=0.01)
            file = apsw.Connection(str(tmp_path / "sagas.db"))
            await until(lambda: file.execute("SELECT count(*) FROM dead_letters").get == 1)
            file.close()
            handle = await orchestrator.start(PaidOrder, Order(), saga_id="1")
            with pytest.raises(OutcomeTimeout):
                await handle.outcome(timeout=0.2)

    run(main())


class Trying(Saga[Order], late_grace=0):
    """A step that may be called three times, with a pause in between."""

    def __init__(self, world: World) -> None:
        self.world = world

    @step(retry=Retry(attempts=3, initial=0.3, factor=1, jitter=0), barrier=True)
    async def call(self, ctx: Context[Order]) -> str:
        return await self.world.act("call", ctx)

    @call.compensation(retry=AT_ONCE)
    async def undo(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.world.act("undo", ctx, tried)


def test_attempts_are_counted_over_restarts(tmp_path: Path) -> None:
    """Two failures in one process and one in the next make three; a crash is none of them."""

    async def main() -> None:
        world = World()
        world.script("call", raises(OSError("no answer")), raises(OSError("no answer")), hangs)
        world.always("call", raises(OSError("no answer")))
        async with crashing(tmp_path, Trying(world)) as (orchestrator, _):
            await orchestrator.start(Trying, Order(), saga_id="1")
            await world.reached("call", 3)
        async with opened(sqlite(tmp_path), Trying(world)) as orchestrator:
            assert isinstance(await orchestrator.outcome(Trying, "1", timeout=20), Compensated)
        assert [call.attempt for call in world.calls if call.step == "call"] == [1, 2, 3, 4]
        assert world.names == ["call", "call", "call", "call", "undo"]

    run(main())


def test_a_compensation_keeps_its_count_over_a_restart(tmp_path: Path) -> None:
    """It is given up after its own number of failures, wherever they happened."""

    async def main() -> None:
        from atone import Reject

        world = World()

        async def lands_then_is_refused(at: Landing) -> Any:
            await lands(at)
            raise OSError("no answer") if at.ctx.attempt < 2 else Reject("no")

        world.always("call", lands_then_is_refused)
        world.script("undo", raises(OSError("no answer")), raises(OSError("no answer")), hangs)
        world.always("undo", raises(OSError("no answer")))
        async with crashing(tmp_path, Trying(world)) as (orchestrator, _):
            await orchestrator.start(Trying, Order(), saga_id="1")
            await world.reached("undo", 3)
        async with opened(sqlite(tmp_path), Trying(world)) as orchestrator:
            outcome = await orchestrator.outcome(Trying, "1", timeout=20)
            assert isinstance(outcome, NeedsAttention), outcome
            assert "failed 3 times" in outcome.cause
        assert world.count("undo") == 4

    run(main())
