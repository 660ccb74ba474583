"""The seed's flaws about keys and repeats, one test each; see `test_seed_flaws.py`.

The participant's side of these (its guard row) comes with the barrier; this is what the orchestrator owes it.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from atone import Compensated, Completed, Context, Reject, Saga, step
from atone.errors import ConflictingStart
from atone.orchestrator import Orchestrator
from tests.runtime.world import (
    AT_ONCE,
    Order,
    PlaceOrder,
    World,
    crashing,
    hangs,
    lands_and_hangs,
    limits,
    opened,
    raises,
    returns,
    run,
    sqlite,
)


async def recovered(orchestrator: Orchestrator, saga: type[Saga[Any]] = PlaceOrder, saga_id: str = "1") -> Any:
    """Return how the saga that another process left ends here."""
    return await orchestrator.outcome(saga, saga_id, timeout=20)


def test_p10_two_starts_at_once_have_one_effect(tmp_path: Path) -> None:
    """Refutes `existing = await self.store.get(key)` then `set`: between them, two callers both charge."""

    async def main() -> None:
        world = World()
        async with (
            opened(sqlite(tmp_path), PlaceOrder(world)) as one,
            opened(sqlite(tmp_path), PlaceOrder(world)) as two,
        ):
            starts = [
                orchestrator.execute(PlaceOrder, Order(), saga_id="1") for orchestrator in (one, two) for _ in range(10)
            ]
            outcomes = await asyncio.gather(*starts)
            assert all(isinstance(outcome, Completed) for outcome in outcomes)
        assert world.names == ["reserve", "charge", "ship"]

    run(main())


def test_p10_none_is_a_result_like_any_other(tmp_path: Path) -> None:
    """Refutes `if existing:`: what was done once and returned nothing is not done again."""

    class Quiet(Saga[Order]):
        def __init__(self, world: World) -> None:
            self.world = world

        @step(retry=AT_ONCE, no_compensation="a test")
        async def note(self, ctx: Context[Order]) -> None:
            await self.world.act("note", ctx)

        @step(note, retry=AT_ONCE, no_compensation="a test")
        async def pause(self, ctx: Context[Order], noted: None) -> None:
            await self.world.act("pause", ctx)

    async def main() -> None:
        world = World()
        world.always("note", returns(None))
        world.script("pause", hangs)
        world.always("pause", returns(None))
        async with crashing(tmp_path, Quiet(world)) as (orchestrator, _):
            await orchestrator.start(Quiet, Order(), saga_id="1")
            await world.reached("pause")
        async with opened(sqlite(tmp_path), Quiet(world)) as orchestrator:
            outcome = await recovered(orchestrator, Quiet)
            assert isinstance(outcome, Completed), outcome
            assert outcome[Quiet.note] is None
        assert world.names == ["note", "pause", "pause"]

    run(main())


def test_p11_action_and_compensation_have_different_keys(tmp_path: Path) -> None:
    """Refutes `f"{saga_id}:{self.step_name}"`: under one key the refund returned the charge's result."""

    async def main() -> None:
        world = World()
        world.script("ship", raises(Reject("no van")))
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            assert isinstance(await orchestrator.execute(PlaceOrder, Order(), saga_id="1"), Compensated)
        calls = {call.step: call for call in world.calls}
        assert len({call.key for call in world.calls}) == len(world.calls) == 5
        assert calls["refund"].tried == calls["charge"].key
        assert calls["release"].tried == calls["reserve"].key

    run(main())


def test_p11_every_attempt_worker_and_restart_sends_the_same_key(tmp_path: Path) -> None:
    """Refutes a key that is made anew: then a participant could not recognise the repeat."""

    async def main() -> None:
        world = World()
        world.script("charge", raises(OSError("no answer")), lands_and_hangs)
        async with crashing(tmp_path, PlaceOrder(world)) as (orchestrator, _):
            await orchestrator.start(PlaceOrder, Order(), saga_id="1")
            await world.reached("charge", 2)
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            assert isinstance(await recovered(orchestrator), Completed)
        charges = [call for call in world.calls if call.step == "charge"]
        assert [call.attempt for call in charges] == [1, 2, 3]
        assert len({call.key for call in charges}) == 1

    run(main())


def test_p12_another_input_under_the_same_id_is_refused(tmp_path: Path) -> None:
    """Refutes `return existing["result"]` whatever the arguments are."""

    async def main() -> None:
        world = World()
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            await orchestrator.execute(PlaceOrder, Order(total=100), saga_id="1")
            with pytest.raises(ConflictingStart):
                await orchestrator.start(PlaceOrder, Order(total=999), saga_id="1")
        assert world.names == ["reserve", "charge", "ship"]

    run(main())


def test_p13_ids_that_join_to_the_same_text_have_different_keys(tmp_path: Path) -> None:
    """Refutes the join with a colon: `a:b` and `c` gave the key of `a` and `b:c`."""

    async def main() -> None:
        world = World()
        pairs = [(f"a{sign}PlaceOrder", "b") for sign in ":./-"] + [("a", f"PlaceOrder{sign}b") for sign in ":./-"]
        for tenant, saga_id in pairs:
            store = sqlite(tmp_path)
            async with Orchestrator(store, sagas=[PlaceOrder(world)], tenant=tenant, limits=limits()) as orchestrator:
                assert isinstance(await orchestrator.execute(PlaceOrder, Order(), saga_id=saga_id), Completed)
        assert len({call.key for call in world.calls}) == len(world.calls) == 24

    run(main())
