"""What is asked of a saga from outside: cancels before, during and after the pivot, and operators' commands."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from atone import Compensated, Completed, Context, Failed, NeedsAttention, Reject, Saga, SagaStatus, pivot
from atone.errors import OutcomeTimeout, RequestRefused, UnknownSaga
from tests.runtime.world import (
    Landing,
    Order,
    PlaceOrder,
    ShipOrder,
    World,
    crashing,
    hangs,
    lands_and_raises,
    opened,
    raises,
    run,
    sqlite,
    waits,
)


def test_a_cancel_before_the_pivot_undoes_what_was_done(tmp_path: Path) -> None:
    """The call under way is waited for, and undone with its result."""

    async def main() -> None:
        world, gate = World(), asyncio.Event()
        world.script("reserve", waits(gate))
        async with opened(sqlite(tmp_path), ShipOrder(world)) as orchestrator:
            handle = await orchestrator.start(ShipOrder, Order(), saga_id="1")
            await world.reached("reserve")
            receipt = await handle.cancel(reason="changed my mind", by="the customer")
            answer = await receipt.answer(timeout=20)
            assert answer.applied
            again = await handle.cancel(reason="really")
            assert (await again.answer(timeout=20)).applied
            gate.set()
            outcome = await handle.outcome(timeout=20)
            assert isinstance(outcome, Compensated)
            assert "changed my mind" in outcome.cause
        assert world.names == ["reserve", "release"]
        assert world.standing() == set()

    run(main())


def test_a_cancel_during_the_pivot_is_answered_by_its_outcome(tmp_path: Path) -> None:
    """It lands: too late. Nobody is answered before that."""

    async def main() -> None:
        world, gate = World(), asyncio.Event()
        world.script("ship", waits(gate))
        async with opened(sqlite(tmp_path), ShipOrder(world)) as orchestrator:
            handle = await orchestrator.start(ShipOrder, Order(), saga_id="1")
            await world.reached("ship")
            receipt = await handle.cancel(reason="changed my mind")
            with pytest.raises(OutcomeTimeout):
                await receipt.answer(timeout=0.2)
            gate.set()
            answer = await receipt.answer(timeout=20)
            assert answer.too_late
            assert not answer.applied
            assert isinstance(await handle.outcome(timeout=20), Completed)
        assert world.names == ["reserve", "ship", "confirm"]

    run(main())


def test_a_cancel_during_a_pivot_that_is_rejected_is_applied(tmp_path: Path) -> None:
    """It turned back anyhow."""

    async def main() -> None:
        world, gate = World(), asyncio.Event()

        async def refuses_late(at: Landing) -> Any:
            await gate.wait()
            raise Reject("no van")

        world.script("ship", refuses_late)
        async with opened(sqlite(tmp_path), ShipOrder(world)) as orchestrator:
            handle = await orchestrator.start(ShipOrder, Order(), saga_id="1")
            await world.reached("ship")
            receipt = await handle.cancel(reason="changed my mind")
            gate.set()
            assert (await receipt.answer(timeout=20)).applied
            assert isinstance(await handle.outcome(timeout=20), Compensated)
        assert world.names == ["reserve", "ship", "release"]

    run(main())


def test_a_cancel_after_the_pivot_is_too_late(tmp_path: Path) -> None:
    """The saga goes forward; and once it is over, nothing can be asked of it."""

    async def main() -> None:
        world, gate = World(), asyncio.Event()
        world.script("confirm", waits(gate))
        async with opened(sqlite(tmp_path), ShipOrder(world)) as orchestrator:
            handle = await orchestrator.start(ShipOrder, Order(), saga_id="1")
            await world.reached("confirm")
            receipt = await handle.cancel(reason="changed my mind")
            assert (await receipt.answer(timeout=20)).too_late
            gate.set()
            assert isinstance(await handle.outcome(timeout=20), Completed)
            with pytest.raises(RequestRefused):
                await handle.cancel(reason="changed my mind")

    run(main())


def test_a_cancel_by_another_process_reaches_the_owner(tmp_path: Path) -> None:
    """It is durable when it returns; the owner's next look finds it."""

    async def main() -> None:
        world, gate = World(), asyncio.Event()
        world.script("charge", waits(gate))
        one, two = opened(sqlite(tmp_path), PlaceOrder(world)), opened(sqlite(tmp_path), PlaceOrder(World()))
        async with one as owner, two as other:
            handle = await owner.start(PlaceOrder, Order(), saga_id="1")
            await world.reached("charge")
            receipt = await other.cancel(PlaceOrder, "1", reason="changed my mind")
            assert (await receipt.answer(timeout=20)).applied
            gate.set()
            assert isinstance(await other.outcome(PlaceOrder, "1", timeout=20), Compensated)
            assert isinstance(await handle.outcome(timeout=20), Compensated)
        assert world.names == ["reserve", "charge", "refund", "release"]

    run(main())


def test_a_cancel_outlives_the_process_that_took_it(tmp_path: Path) -> None:
    """The owner crashes before it has looked; the next one undoes the saga."""

    async def main() -> None:
        world = World()
        world.script("charge", hangs)
        async with crashing(tmp_path, PlaceOrder(world), poll_seconds=30.0) as (orchestrator, store):
            await orchestrator.start(PlaceOrder, Order(), saga_id="1")
            await world.reached("charge")
            async with opened(sqlite(tmp_path), sagas_in_flight_max=1) as looker:
                from atone._runtime.requests import ask

                await ask(looker._store, "default", "PlaceOrder", "1", "cancel", by="me", reason="changed my mind")
            store.unplug()
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            assert isinstance(await orchestrator.outcome(PlaceOrder, "1", timeout=20), Compensated)
        assert world.names == ["reserve", "charge", "refund", "release"]

    run(main())


def test_a_cancel_of_a_saga_that_needs_attention_is_heard(tmp_path: Path) -> None:
    """An unknown pivot is never turned back by it; it is answered when the pivot is."""

    async def main() -> None:
        world = World()
        world.always("ship", lands_and_raises(OSError("no answer")))
        async with opened(sqlite(tmp_path), ShipOrder(world)) as orchestrator:
            outcome = await orchestrator.execute(ShipOrder, Order(), saga_id="1")
            assert isinstance(outcome, NeedsAttention)
            cancel = await orchestrator.cancel(ShipOrder, "1", reason="changed my mind")
            with pytest.raises(OutcomeTimeout):
                await cancel.answer(timeout=0.3)
            fixed = await orchestrator.resolve(ShipOrder, "1", "ship", landed=True, result="SH1", reason="I looked")
            assert (await fixed.answer(timeout=20)).applied
            assert (await cancel.answer(timeout=20)).too_late
            assert isinstance(await orchestrator.outcome(ShipOrder, "1", timeout=20), Completed)
        assert world.standing() == {"reserve", "ship", "confirm"}

    run(main())


@pytest.mark.parametrize("how", ["retry", "resolve", "skip", "terminate"])
def test_an_operator_ends_a_rollback_that_is_stuck(tmp_path: Path, how: str) -> None:
    """Each command says truly how the saga ended."""

    async def main() -> None:
        world = World()
        world.always("ship", raises(Reject("no van")))
        world.script("refund", *[raises(OSError("the bank is down"))] * 3)
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as atone:
            outcome = await atone.execute(PlaceOrder, Order(), saga_id="1")
            assert isinstance(outcome, NeedsAttention)
            assert outcome.step == "charge"
            match how:
                case "retry":
                    receipt = await atone.retry(PlaceOrder, "1", reason="the bank is back")
                case "resolve":
                    receipt = await atone.resolve(PlaceOrder, "1", "charge", landed=True, result="", reason="by hand")
                case "skip":
                    receipt = await atone.skip(PlaceOrder, "1", "charge", reason="it is on us")
                case _:
                    receipt = await atone.terminate(PlaceOrder, "1", reason="enough")
            answer = await receipt.answer(timeout=20)
            assert answer.applied, answer
            outcome = await atone.outcome(PlaceOrder, "1", timeout=20)
        assert type(outcome) is (Compensated if how in {"retry", "resolve"} else Failed)
        assert world.count("refund") == (4 if how == "retry" else 3)
        assert ("charge" in world.standing()) == (how != "retry")
        if isinstance(outcome, Failed):
            assert ("it is on us" if how == "skip" else "enough") in outcome.reason

    run(main())


def test_terminate_stops_a_running_saga_without_undo(tmp_path: Path) -> None:
    """Its call under way is not waited for, effects stand, and the reason is kept."""

    async def main() -> None:
        world = World()
        world.script("charge", hangs)
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            handle = await orchestrator.start(PlaceOrder, Order(), saga_id="1")
            await world.reached("charge")
            await orchestrator.terminate(PlaceOrder, "1", reason="a duplicate", by="ops")
            outcome = await handle.outcome(timeout=20)
            assert isinstance(outcome, Failed)
            assert "a duplicate" in outcome.reason
            assert "ops" in outcome.reason
            assert await handle.status() is SagaStatus.FAILED
        assert world.names == ["reserve", "charge"]
        assert world.standing() == {"reserve"}

    run(main())


def test_a_command_that_does_not_apply_is_refused_with_the_reason(tmp_path: Path) -> None:
    """The saga goes on as if nothing had been asked."""

    async def main() -> None:
        world, gate = World(), asyncio.Event()
        world.script("charge", waits(gate))
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            handle = await orchestrator.start(PlaceOrder, Order(), saga_id="1")
            await world.reached("charge")
            for receipt in (
                await orchestrator.retry(PlaceOrder, "1", "charge", reason="a test"),
                await orchestrator.skip(PlaceOrder, "1", "charge", reason="a test"),
                await orchestrator.skip(PlaceOrder, "1", "ship", reason="a test"),
                await orchestrator.resolve(PlaceOrder, "1", "ship", landed=False, reason="a test"),
            ):
                answer = await receipt.answer(timeout=20)
                assert answer.verdict == "refused"
                assert answer.note
            for call in (orchestrator.retry, orchestrator.skip):
                with pytest.raises(UnknownSaga, match="its steps are reserve"):
                    await call(PlaceOrder, "1", "no such step", reason="a test")
            gate.set()
            assert isinstance(await handle.outcome(timeout=20), Completed)
        assert world.names == ["reserve", "charge", "ship"]

    run(main())


def test_an_undo_is_vouched_for_without_a_result(tmp_path: Path) -> None:
    """A compensation returns nothing, so there is nothing to say but that it landed."""

    async def main() -> None:
        world = World()
        world.always("ship", raises(Reject("no van")))
        world.script("refund", *[raises(OSError("the bank is down"))] * 3)
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as atone:
            assert isinstance(await atone.execute(PlaceOrder, Order(), saga_id="1"), NeedsAttention)
            receipt = await atone.resolve(PlaceOrder, "1", "charge", landed=True, reason="by hand")
            assert (await receipt.answer(timeout=20)).applied
            assert isinstance(await atone.outcome(PlaceOrder, "1", timeout=20), Compensated)

    run(main())


class Silent(Saga[Order], late_grace=0):
    """Its action returns nothing."""

    def __init__(self, world: World) -> None:
        self.world = world

    @pivot(at_most_once=True, timeout=20)
    async def send(self, ctx: Context[Order]) -> None:
        await self.world.act("send", ctx)


class Optional(Saga[Order], late_grace=0):
    """Its result may be None, and that is a result."""

    def __init__(self, world: World) -> None:
        self.world = world

    @pivot(at_most_once=True, timeout=20)
    async def find(self, ctx: Context[Order]) -> str | None:
        return await self.world.act("find", ctx)


def test_a_result_that_is_none_is_not_a_missing_one(tmp_path: Path) -> None:
    """Without a result an action is refused in the saga's words; None that is given is what it returned."""

    async def main() -> None:
        world = World()
        world.always("find", lands_and_raises(OSError("no answer")))
        async with opened(sqlite(tmp_path), Optional(world)) as atone:
            assert isinstance(await atone.execute(Optional, Order(), saga_id="1"), NeedsAttention)
            missing = await atone.resolve(Optional, "1", "find", landed=True, reason="I looked")
            answer = await missing.answer(timeout=20)
            assert not answer.applied
            assert "give the result" in answer.note
            given = await atone.resolve(Optional, "1", "find", landed=True, result=None, reason="I looked")
            assert (await given.answer(timeout=20)).applied
            done = await atone.outcome(Optional, "1", timeout=20)
            assert isinstance(done, Completed)
            assert done[Optional.find] is None

    run(main())


def test_an_action_that_returns_nothing_is_vouched_for_without_a_result(tmp_path: Path) -> None:
    """There is only one thing that it can have returned."""

    async def main() -> None:
        world = World()
        world.always("send", lands_and_raises(OSError("no answer")))
        async with opened(sqlite(tmp_path), Silent(world)) as atone:
            assert isinstance(await atone.execute(Silent, Order(), saga_id="1"), NeedsAttention)
            receipt = await atone.resolve(Silent, "1", "send", landed=True, reason="I looked")
            assert (await receipt.answer(timeout=20)).applied

    run(main())
