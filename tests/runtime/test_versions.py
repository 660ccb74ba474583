"""Definitions change under sagas: another plan, two versions side by side, a version that is gone."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from atone import Compensated, Completed, Context, NeedsAttention, Reject, Saga, Tried, step
from atone.errors import ConflictingStart, DefinitionMismatch, PayloadError
from tests.runtime.world import (
    AT_ONCE,
    Order,
    PlaceOrder,
    World,
    crashing,
    hangs,
    opened,
    raises,
    run,
    sqlite,
    until,
)


@dataclass(frozen=True)
class BigOrder:
    id: str
    lines: list[str]


class WithoutShip(Saga[Order], name="PlaceOrder", late_grace=0):
    """The code after somebody has deleted the last step."""

    def __init__(self, world: World) -> None:
        self.world = world

    @step(retry=AT_ONCE, timeout=20, barrier=True)
    async def reserve(self, ctx: Context[Order]) -> str:
        return await self.world.act("reserve", ctx)

    @reserve.compensation(retry=AT_ONCE)
    async def release(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.world.act("release", ctx, tried)

    @step(retry=AT_ONCE, timeout=20, barrier=True)
    async def charge(self, ctx: Context[Order]) -> str:
        return await self.world.act("charge", ctx)

    @charge.compensation(retry=AT_ONCE)
    async def refund(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.world.act("refund", ctx, tried)


class PlaceOrder2(Saga[Order], name="PlaceOrder", version=2, late_grace=0):
    """The next version: one step, of another type."""

    def __init__(self, world: World) -> None:
        self.world = world

    @step(retry=AT_ONCE, no_compensation="a test")
    async def charge(self, ctx: Context[Order]) -> int:
        await self.world.act("charge2", ctx)
        return 2


class PlaceOrder3(Saga[BigOrder], name="PlaceOrder", version=3):
    """A version with another input."""

    @step(no_compensation="a test")
    async def charge(self, ctx: Context[BigOrder]) -> None: ...


async def left_hanging(path: Path, at: str = "ship") -> World:
    """Leave one saga of `PlaceOrder` in the middle of a step."""
    world = World()
    world.script(at, hangs)
    async with crashing(path, PlaceOrder(world)) as (orchestrator, _):
        await orchestrator.start(PlaceOrder, Order(), saga_id="1")
        await world.reached(at)
    return world


def test_a_definition_that_lost_a_step_is_refused_while_its_sagas_are_unfinished(tmp_path: Path) -> None:
    """Before anything runs: the message names the saga, and says what to do."""

    async def main() -> None:
        world = await left_hanging(tmp_path)
        with pytest.raises(DefinitionMismatch, match=r"PlaceOrder version 1 .*'1'.* new version="):
            async with opened(sqlite(tmp_path), WithoutShip(world)):
                pytest.fail("it must not open")
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            assert isinstance(await orchestrator.outcome(PlaceOrder, "1", timeout=20), Completed)
        assert world.names == ["reserve", "charge", "ship", "ship"]

    run(main())


def test_a_definition_that_lost_a_step_loads_when_its_sagas_are_over(tmp_path: Path) -> None:
    """What is over is still shown truly, by the plan that it followed."""

    async def main() -> None:
        world = World()
        world.script("ship", raises(Reject("no van")))
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            await orchestrator.execute(PlaceOrder, Order(), saga_id="back")
            await orchestrator.execute(PlaceOrder, Order(), saga_id="there")
        async with opened(sqlite(tmp_path), WithoutShip(world)) as orchestrator:
            assert isinstance(await orchestrator.outcome(WithoutShip, "back", timeout=5), Compensated)
            done = await orchestrator.outcome(WithoutShip, "there", timeout=5)
            assert isinstance(done, Completed)
            assert done[WithoutShip.charge] == "charge of there"
            assert list(done.results) == ["reserve", "charge", "ship"]
            async for progress in orchestrator.watch(WithoutShip, "there"):
                assert set(progress.steps) == {"reserve", "charge", "ship"}
            again = await orchestrator.execute(WithoutShip, Order(), saga_id="there", timeout=5)
            assert isinstance(again, Completed)
            assert isinstance(await orchestrator.execute(WithoutShip, Order(), saga_id="new"), Completed)
        assert [call.step for call in world.calls if call.saga_id == "new"] == ["reserve", "charge"]

    run(main())


def test_policies_may_change_under_sagas_in_flight(tmp_path: Path) -> None:
    """Retries and time-outs are no part of the plan's identity."""

    class Retimed(Saga[Order], name="PlaceOrder", late_grace=0):
        def __init__(self, world: World) -> None:
            self.world = world

        @step(timeout=3, barrier=True)
        async def reserve(self, ctx: Context[Order]) -> str:
            return await self.world.act("reserve", ctx)

        @reserve.compensation
        async def release(self, ctx: Context[Order], tried: Tried[str]) -> None: ...

        @step(timeout=3, barrier=True)
        async def charge(self, ctx: Context[Order]) -> str:
            return await self.world.act("charge", ctx)

        @charge.compensation
        async def refund(self, ctx: Context[Order], tried: Tried[str]) -> None: ...

        @step(timeout=3, barrier=True)
        async def ship(self, ctx: Context[Order]) -> str:
            return await self.world.act("ship", ctx)

        @ship.compensation
        async def recall(self, ctx: Context[Order], tried: Tried[str]) -> None: ...

    async def main() -> None:
        world = await left_hanging(tmp_path)
        async with opened(sqlite(tmp_path), Retimed(world)) as orchestrator:
            assert isinstance(await orchestrator.outcome(Retimed, "1", timeout=20), Completed)

    run(main())


def test_two_versions_run_side_by_side(tmp_path: Path) -> None:
    """Each saga follows the version it was started with, whichever class is used to ask for it."""

    async def main() -> None:
        world = await left_hanging(tmp_path)
        async with opened(sqlite(tmp_path), PlaceOrder(world), PlaceOrder2(world)) as orchestrator:
            second = await orchestrator.execute(PlaceOrder2, Order(), saga_id="2", timeout=20)
            assert isinstance(second, Completed)
            assert second[PlaceOrder2.charge] == 2
            first = await orchestrator.outcome(PlaceOrder2, "1", timeout=20)
            assert isinstance(first, Completed)
            assert first[PlaceOrder.ship] == "ship of 1"
            assert {info.saga_id: info.version for info in await orchestrator.list(PlaceOrder)} == {"1": 1, "2": 2}
            again = await orchestrator.execute(PlaceOrder2, Order(), saga_id="1", timeout=20)
            assert isinstance(again, Completed)
            assert list(again.results) == ["reserve", "charge", "ship"]
        assert world.count("charge2") == 1

    run(main())


def test_a_result_of_a_version_that_is_gone_is_not_read_as_another_type(tmp_path: Path) -> None:
    """The outcome is told; only the result itself needs the definition that wrote it."""

    async def main() -> None:
        world = World()
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            await orchestrator.execute(PlaceOrder, Order(), saga_id="1")
        async with opened(sqlite(tmp_path), PlaceOrder2(world)) as orchestrator:
            done = await orchestrator.outcome(PlaceOrder2, "1", timeout=5)
            assert isinstance(done, Completed)
            with pytest.raises(PayloadError, match="version 1"):
                _ = done[PlaceOrder2.charge]

    run(main())


def test_a_start_under_an_id_that_another_version_took_compares_inputs(tmp_path: Path) -> None:
    """An input of another type is another input."""

    async def main() -> None:
        async with opened(sqlite(tmp_path), PlaceOrder(World()), PlaceOrder3()) as orchestrator:
            await orchestrator.execute(PlaceOrder, Order(), saga_id="1")
            with pytest.raises(ConflictingStart):
                await orchestrator.start(PlaceOrder3, BigOrder("1", ["a"]), saga_id="1")

    run(main())


def test_a_saga_whose_version_is_not_registered_waits_and_is_counted(tmp_path: Path, caplog: Any) -> None:
    """A worker that lacks it does not claim it; one that has it goes on."""

    async def main() -> None:
        world = await left_hanging(tmp_path)
        with caplog.at_level(logging.WARNING, logger="atone.worker"):
            async with opened(sqlite(tmp_path), PlaceOrder2(world)) as orchestrator:
                await until(lambda: orchestrator._worker.recovery.unclaimable == 1)
                assert isinstance(await orchestrator.execute(PlaceOrder2, Order(), saga_id="2"), Completed)
        assert "1 due sagas have a definition that is not registered here" in caplog.text
        assert world.count("ship") == 1
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            assert isinstance(await orchestrator.outcome(PlaceOrder, "1", timeout=20), Completed)

    run(main())


def test_a_worker_takes_only_what_it_can_run(tmp_path: Path) -> None:
    """Two processes with one version each share a file; nobody runs the other's."""

    async def main() -> None:
        old, new = World(), World()
        one, two = opened(sqlite(tmp_path), PlaceOrder(old)), opened(sqlite(tmp_path), PlaceOrder2(new))
        async with one as first, two as second:
            starts = [first.execute(PlaceOrder, Order(), saga_id=f"old {number}") for number in range(5)]
            starts += [second.execute(PlaceOrder2, Order(), saga_id=f"new {number}") for number in range(5)]
            assert all(isinstance(outcome, Completed) for outcome in await asyncio.gather(*starts))
        assert set(old.names) == {"reserve", "charge", "ship"}
        assert set(new.names) == {"charge2"}

    run(main())


def test_a_compensation_that_was_deleted_is_asked_of_a_person(tmp_path: Path) -> None:
    """A saga that turns backward where the code can no longer undo a step is not called compensated."""

    class Forgetful(Saga[Order], name="PlaceOrder", late_grace=0):
        """Same plan but for the compensations' code, which is no part of it: here they all fail."""

        def __init__(self, world: World) -> None:
            self.world = world

        @step(retry=AT_ONCE, timeout=20, barrier=True)
        async def reserve(self, ctx: Context[Order]) -> str:
            return await self.world.act("reserve", ctx)

        @reserve.compensation(retry=AT_ONCE)
        async def release(self, ctx: Context[Order], tried: Tried[str]) -> None:
            raise NotImplementedError

        @step(retry=AT_ONCE, timeout=20, barrier=True)
        async def charge(self, ctx: Context[Order]) -> str:
            return await self.world.act("charge", ctx)

        @charge.compensation(retry=AT_ONCE)
        async def refund(self, ctx: Context[Order], tried: Tried[str]) -> None:
            await self.world.act("refund", ctx, tried)

        @step(retry=AT_ONCE, timeout=20, barrier=True)
        async def ship(self, ctx: Context[Order]) -> str:
            raise Reject("no van")

        @ship.compensation(retry=AT_ONCE)
        async def recall(self, ctx: Context[Order], tried: Tried[str]) -> None: ...

    async def main() -> None:
        world = await left_hanging(tmp_path)
        async with opened(sqlite(tmp_path), Forgetful(world)) as orchestrator:
            outcome = await orchestrator.outcome(Forgetful, "1", timeout=20)
            assert isinstance(outcome, NeedsAttention), outcome
            assert outcome.step == "reserve"

    run(main())
