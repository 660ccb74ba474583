"""The seed's flaws, one test each, against the real orchestrator on SQLite: none of them is ours.

Numbers are those of the flaw list; each docstring names the line of the seed that the test refutes. Flaws about
crashes stand in `test_seed_flaws_of_recovery.py`, about keys in `test_seed_flaws_of_keys.py`.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from atone import Compensated, Completed, Context, NeedsAttention, Reject, Saga, SagaStatus, Tried, step
from atone.errors import RequestRefused
from atone.orchestrator import Orchestrator
from tests.runtime.world import (
    ONCE,
    Landing,
    Order,
    PlaceOrder,
    ShipOrder,
    World,
    lands_and_hangs,
    lands_and_raises,
    opened,
    raises,
    run,
    sqlite,
)


async def recovered(orchestrator: Orchestrator, saga: type[Saga[Any]] = PlaceOrder, saga_id: str = "1") -> Any:
    """Return how the saga that another process left ends here."""
    return await orchestrator.outcome(saga, saga_id, timeout=20)


def test_p01_a_failed_compensation_is_never_called_compensated(tmp_path: Path) -> None:
    """Refutes `except Exception as e: step.error = ...` followed by `saga.status = SagaStatus.COMPENSATED`."""

    async def main() -> None:
        world = World()
        world.script("ship", raises(Reject("no van")))
        world.always("refund", raises(OSError("the bank is down")))
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            outcome = await orchestrator.execute(PlaceOrder, Order(), saga_id="1")
            assert isinstance(outcome, NeedsAttention), outcome
            assert outcome.step == "charge"
            assert "the bank is down" in outcome.cause
            assert [info.status for info in await orchestrator.list()] == [SagaStatus.NEEDS_ATTENTION]
        assert world.count("refund") == 3
        assert world.standing() == {"charge"}, "the other undo was made all the same"

    run(main())


@pytest.mark.parametrize("value", ["text", 7, [1, 2], 0, "", None, False], ids=repr)
def test_p04_a_result_of_any_type_is_a_success(tmp_path: Path, value: object) -> None:
    """Refutes `saga.data.update(step.result or {})`, which made a landed effect a failure, or lost a falsy result."""

    class Answering(Saga[Order]):
        @step(no_compensation="a test")
        async def ask(self, ctx: Context[Order]) -> str | int | list[int] | bool | None:
            return value

        @step(ask, no_compensation="a test")
        async def hear(self, ctx: Context[Order], answer: str | int | list[int] | bool | None) -> str:
            return repr(answer)

    async def main() -> None:
        async with opened(sqlite(tmp_path), Answering()) as orchestrator:
            outcome = await orchestrator.execute(Answering, Order(), saga_id="1")
            assert isinstance(outcome, Completed), outcome
            assert outcome[Answering.ask] == value
            assert type(outcome[Answering.ask]) is type(value)
            assert outcome[Answering.hear] == repr(value)

    run(main())


def test_p05_each_compensation_sees_the_result_of_its_own_action(tmp_path: Path) -> None:
    """Refutes the one dict for all results, where two steps that return the same key overwrite each other."""
    seen: dict[str, dict[str, str] | None] = {}

    class TwoIds(Saga[Order]):
        @step(retry=ONCE)
        async def first(self, ctx: Context[Order]) -> dict[str, str]:
            return {"id": "one"}

        @first.compensation
        async def undo_first(self, ctx: Context[Order], tried: Tried[dict[str, str]]) -> None:
            seen["first"] = tried.result

        @step(retry=ONCE)
        async def second(self, ctx: Context[Order]) -> dict[str, str]:
            return {"id": "two"}

        @second.compensation
        async def undo_second(self, ctx: Context[Order], tried: Tried[dict[str, str]]) -> None:
            seen["second"] = tried.result

        @step(retry=ONCE, no_compensation="a test")
        async def third(self, ctx: Context[Order]) -> None:
            raise Reject("no")

    async def main() -> None:
        async with opened(sqlite(tmp_path), TwoIds()) as orchestrator:
            assert isinstance(await orchestrator.execute(TwoIds, Order(), saga_id="1"), Compensated)
        assert seen == {"first": {"id": "one"}, "second": {"id": "two"}}

    run(main())


def test_p06_a_cancelled_caller_leaves_no_effects_behind(tmp_path: Path) -> None:
    """Refutes `except Exception`, which misses CancelledError: the saga stayed RUNNING with its effects."""

    async def main() -> None:
        world, gate = World(), asyncio.Event()

        async def when_open(at: Landing) -> Any:
            await gate.wait()
            return at.land()

        world.script("charge", when_open)
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            caller = asyncio.ensure_future(orchestrator.execute(PlaceOrder, Order(), saga_id="1"))
            await world.reached("charge")
            caller.cancel()
            with pytest.raises(asyncio.CancelledError):
                await caller
            gate.set()
            assert isinstance(await recovered(orchestrator), Completed)
        assert world.names == ["reserve", "charge", "ship"]

    run(main())


def test_p06_a_process_that_stops_leaves_no_effects_behind(tmp_path: Path) -> None:
    """Refutes the same line for SIGTERM: a step that is cut off by a shutdown goes on in the next process."""

    async def main() -> None:
        world = World()
        world.script("charge", lands_and_hangs)
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            await orchestrator.start(PlaceOrder, Order(), saga_id="1")
            await world.reached("charge")
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            assert isinstance(await recovered(orchestrator), Completed)
        assert world.names == ["reserve", "charge", "charge", "ship"]
        assert set(world.effects.values()) == {1}

    run(main())


@pytest.mark.parametrize("refused", [False, True], ids=["completed", "compensated"])
def test_p07_a_saga_that_is_over_is_never_run_again(tmp_path: Path, refused: bool) -> None:
    """Refutes `saga.status = SagaStatus.RUNNING` without a look at what it was."""

    async def main() -> None:
        world = World()
        if refused:
            world.script("charge", raises(Reject("declined")))
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            first = await orchestrator.execute(PlaceOrder, Order(), saga_id="1")
            calls = list(world.calls)
            second = await orchestrator.execute(PlaceOrder, Order(), saga_id="1")
            assert isinstance(first, Compensated if refused else Completed)
            assert type(second) is type(first)
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            assert type(await orchestrator.execute(PlaceOrder, Order(), saga_id="1")) is type(first)
        assert world.calls == calls

    run(main())


def test_p08_a_retry_repeats_only_the_step_that_failed(tmp_path: Path) -> None:
    """Refutes `resume(saga, from_step=...)` inside the `try`: a later step's failure charged three times."""

    async def main() -> None:
        world = World()
        world.script("ship", *[raises(OSError("no van"))] * 3)
        world.script("confirm", raises(OSError("no mail")), raises(OSError("no mail")))
        async with opened(sqlite(tmp_path), ShipOrder(world)) as orchestrator:
            outcome = await orchestrator.execute(ShipOrder, Order(), saga_id="1")
            assert isinstance(outcome, NeedsAttention), outcome
            receipt = await orchestrator.retry(ShipOrder, "1", "ship", reason="a van is here")
            assert (await receipt.answer()).applied
            assert isinstance(await recovered(orchestrator, ShipOrder), Completed)
        assert world.names == ["reserve", *["ship"] * 4, *["confirm"] * 3]
        assert len({call.key for call in world.calls if call.step == "ship"}) == 1

    run(main())


def test_p09_a_compensated_saga_can_not_be_retried_into_going_forward(tmp_path: Path) -> None:
    """Refutes `retry_failed_step`, which ran after `execute` had compensated, and shipped what was refunded."""

    async def main() -> None:
        world = World()
        world.script("ship", raises(Reject("no van")))
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            assert isinstance(await orchestrator.execute(PlaceOrder, Order(), saga_id="1"), Compensated)
            calls = list(world.calls)
            with pytest.raises(RequestRefused):
                await orchestrator.retry(PlaceOrder, "1", "ship", reason="try again")
            assert isinstance(await recovered(orchestrator), Compensated)
        assert world.calls == calls

    run(main())


def test_o1_a_charge_that_may_have_landed_is_refunded(tmp_path: Path) -> None:
    """Refutes `range(failed_step - 1, -1, -1)`: the customer was charged, the goods released, all "COMPENSATED"."""

    async def main() -> None:
        world = World()
        world.always("charge", lands_and_raises(TimeoutError("no reply")))
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            outcome = await orchestrator.execute(PlaceOrder, Order(), saga_id="1")
            assert isinstance(outcome, Compensated)
        assert world.names == ["reserve", "charge", "charge", "charge", "refund", "release"]
        assert world.standing() == set()

    run(main())


def test_o2_goods_that_may_be_on_their_way_are_recalled_before_the_refund(tmp_path: Path) -> None:
    """Refutes the same line for the last step, whose compensation `_cancel_shipment` could never run."""

    async def main() -> None:
        world = World()
        world.always("ship", lands_and_raises(ConnectionError("no reply")))
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            assert isinstance(await orchestrator.execute(PlaceOrder, Order(), saga_id="1"), Compensated)
        assert world.names[-3:] == ["recall", "refund", "release"]
        assert world.standing() == set()

    run(main())


def test_o2_an_unknown_pivot_is_never_undone_around(tmp_path: Path) -> None:
    """Refutes it for a step that can't be undone: what is before it stands until somebody knows."""

    async def main() -> None:
        world = World()
        world.always("ship", lands_and_raises(ConnectionError("no reply")))
        async with opened(sqlite(tmp_path), ShipOrder(world)) as orchestrator:
            outcome = await orchestrator.execute(ShipOrder, Order(), saga_id="1")
            assert isinstance(outcome, NeedsAttention), outcome
            assert outcome.step == "ship"
        assert world.standing() == {"reserve", "ship"}

    run(main())


def test_o3_a_compensation_works_without_the_result_that_never_came(tmp_path: Path) -> None:
    """Refutes `data["payment_id"]`, a KeyError (swallowed) if the charge landed and its reply was lost."""
    seen: list[Any] = []

    async def main() -> None:
        world = World()
        world.always("charge", lands_and_raises(TimeoutError("no reply")))

        async def looks(at: Landing) -> Any:
            seen.append(at.tried)
            return at.land()

        world.script("refund", looks)
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            assert isinstance(await orchestrator.execute(PlaceOrder, Order(), saga_id="1"), Compensated)
        (tried,) = seen
        assert tried.result is None
        assert tried.idempotency_key == next(call.key for call in world.calls if call.step == "charge")
        assert world.standing() == set()

    run(main())


def test_s1_a_plain_function_is_an_action_too(tmp_path: Path) -> None:
    """Refutes `await step.action(saga.data)`: a `def` had its effect, then awaiting its dict failed, and it stood."""

    class Plain(Saga[Order]):
        def __init__(self, world: World) -> None:
            self.world = world

        @step(retry=ONCE)
        def reserve(self, ctx: Context[Order]) -> dict[str, str]:
            self.world.note("reserve", ctx)
            return {"id": self.world.land("reserve", ctx)}

        @reserve.compensation
        def release(self, ctx: Context[Order], tried: Tried[dict[str, str]]) -> None:
            self.world.note("release", ctx, tried)
            self.world.land("release", ctx, tried)

        @step(reserve, retry=ONCE, no_compensation="a test")
        def check(self, ctx: Context[Order], reservation: dict[str, str]) -> str:
            if ctx.input.total > 500:
                raise Reject("too dear")
            return reservation["id"]

    async def main() -> None:
        world = World()
        async with opened(sqlite(tmp_path), Plain(world)) as orchestrator:
            done = await orchestrator.execute(Plain, Order(), saga_id="1")
            assert isinstance(done, Completed)
            assert done[Plain.check] == "reserve of 1"
            assert isinstance(await orchestrator.execute(Plain, Order(total=999), saga_id="2"), Compensated)
        assert world.standing("1") == {"reserve"}
        assert world.standing("2") == set()

    run(main())
