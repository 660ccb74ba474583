"""Bad input to the orchestrator: a clear error each, at worst a parked saga, neighbours untouched."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from atone import Compensated, Completed, Context, NeedsAttention, Orchestrator, Reject, Saga, Tried, pivot, step
from atone.codec import Codec
from atone.errors import (
    AtoneError,
    ConflictingStart,
    DefinitionError,
    PayloadError,
    RequestRefused,
    Shutdown,
    UnknownSaga,
    VolatileStore,
)
from tests.runtime.world import AT_ONCE, Order, PlaceOrder, ShipOrder, World, limits, opened, returns, run, sqlite


class Loop:
    """A class that no codec knows."""


@dataclass
class Node:
    next: Any = None


def looped() -> Node:
    node = Node()
    node.next = node
    return node


def deep(levels: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(levels):
        found = [found]
    return found


WRONG_RESULTS = {
    "unencodable": Loop(),
    "of another type": 7,
    "none": None,
    "oversized": "x" * 2000,
    "not unicode": "\ud800",
    "holding itself": looped(),
    "nested too deeply": deep(2000),
    "a coroutine's name": Loop,
}


@pytest.mark.parametrize("value", WRONG_RESULTS.values(), ids=WRONG_RESULTS.keys())
def test_a_wrong_result_is_an_unknown_outcome_and_undone(tmp_path: Path, value: object) -> None:
    """The effect may have landed, and calling again would not help: undone at once, with the cause in words."""

    async def main() -> None:
        world = World()

        async def wrong_for_one(at: Any) -> Any:
            at.land()
            return value if at.ctx.saga_id == "1" else "fine"

        world.always("charge", wrong_for_one)
        codec = Codec(payload_bytes_max=1000)
        store = sqlite(tmp_path)
        async with Orchestrator(store, sagas=[PlaceOrder(world)], codec=codec, limits=limits()) as orchestrator:
            starts = [orchestrator.execute(PlaceOrder, Order(), saga_id=str(number)) for number in (1, 2)]
            outcome, neighbour = await asyncio.gather(*starts)
            assert isinstance(outcome, Compensated), outcome
            assert outcome.cause.startswith("charge: ")
            assert "PayloadError" in outcome.cause
            assert isinstance(neighbour, Completed)
        assert [call.step for call in world.calls if call.saga_id == "1"] == ["reserve", "charge", "refund", "release"]
        assert world.standing("1") == set()

    run(main())


def test_a_wrong_result_of_the_pivot_calls_a_person(tmp_path: Path) -> None:
    """It has landed; what is before it stands until somebody says what it returned."""

    async def main() -> None:
        world = World()
        world.always("ship", returns(7))
        async with opened(sqlite(tmp_path), ShipOrder(world)) as orchestrator:
            outcome = await orchestrator.execute(ShipOrder, Order(), saga_id="1")
            assert isinstance(outcome, NeedsAttention), outcome
            assert outcome.step == "ship"
            with pytest.raises(PayloadError):
                await orchestrator.resolve(ShipOrder, "1", "ship", landed=True, result=7, reason="I looked")
        assert world.standing() == {"reserve", "ship"}

    run(main())


WRONG_INPUTS = {
    "unencodable": Loop(),
    "of another type": "1",
    "none": None,
    "oversized": Order(id="x" * 2000),
    "not unicode": Order(id="\ud800"),
    "with a wrong field": Order(id=7),
}


@pytest.mark.parametrize("value", WRONG_INPUTS.values(), ids=WRONG_INPUTS.keys())
def test_a_wrong_input_starts_nothing(tmp_path: Path, value: Any) -> None:
    """The caller gets a PayloadError, the store keeps nothing, the id stays free."""

    async def main() -> None:
        store, codec = sqlite(tmp_path), Codec(payload_bytes_max=1000)
        async with Orchestrator(store, sagas=[PlaceOrder(World())], codec=codec, limits=limits()) as orchestrator:
            with pytest.raises(PayloadError):
                await orchestrator.start(PlaceOrder, value, saga_id="1")
            assert await orchestrator.list() == []
            assert isinstance(await orchestrator.execute(PlaceOrder, Order(), saga_id="1"), Completed)

    run(main())


@pytest.mark.parametrize("saga_id", ["", "x" * 301, "a\x00b", "\ud800", 7, None, b"1"], ids=repr)
def test_a_wrong_id_is_refused_everywhere(tmp_path: Path, saga_id: Any) -> None:
    """Starting, asking and looking all answer with an error of ours, and nothing is left behind."""

    async def main() -> None:
        async with opened(sqlite(tmp_path), PlaceOrder(World())) as orchestrator:
            for call in (
                orchestrator.start(PlaceOrder, Order(), saga_id=saga_id),
                orchestrator.execute(PlaceOrder, Order(), saga_id=saga_id),
                orchestrator.get(PlaceOrder, saga_id),
                orchestrator.outcome(PlaceOrder, saga_id),
                orchestrator.cancel(PlaceOrder, saga_id, reason="a test"),
                orchestrator.explain(PlaceOrder, saga_id),
            ):
                with pytest.raises(AtoneError):
                    await call
            assert not orchestrator._worker.runners
            assert await orchestrator.list() == []

    run(main())


@pytest.mark.parametrize("saga_id", ["a b", "naïve/ü", "'; DROP TABLE sagas; --", "%", "🙂" * 300, "\n\t"], ids=ascii)
def test_any_other_text_is_an_id_like_another(tmp_path: Path, saga_id: str) -> None:
    """Quotes, slashes and emoji mean nothing here."""

    async def main() -> None:
        world = World()
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            assert isinstance(await orchestrator.execute(PlaceOrder, Order(), saga_id=saga_id), Completed)
            assert (await orchestrator.get(PlaceOrder, saga_id)).saga_id == saga_id
            assert [info.saga_id for info in await orchestrator.list()] == [saga_id]
        assert len({call.key for call in world.calls}) == 3

    run(main())


def test_an_unknown_saga_is_said_to_be_unknown(tmp_path: Path) -> None:
    """Whatever is asked of it."""

    async def main() -> None:
        async with opened(sqlite(tmp_path), PlaceOrder(World())) as orchestrator:
            for call in (
                orchestrator.get(PlaceOrder, "none"),
                orchestrator.outcome(PlaceOrder, "none", timeout=1),
                orchestrator.cancel(PlaceOrder, "none", reason="a test"),
                orchestrator.terminate(PlaceOrder, "none", reason="a test"),
                orchestrator.retry(PlaceOrder, "none", reason="a test"),
                orchestrator.skip(PlaceOrder, "none", "charge", reason="a test"),
                orchestrator.resolve(PlaceOrder, "none", "charge", landed=False, reason="a test"),
                orchestrator.resolve(PlaceOrder, "none", "no such step", landed=False, reason="a test"),
                orchestrator.send_event(PlaceOrder, "none", "no such event"),
                orchestrator.start(ShipOrder, Order(), saga_id="1"),
                orchestrator.list(ShipOrder),
            ):
                with pytest.raises(UnknownSaga):
                    await call
            with pytest.raises(UnknownSaga):
                async for _ in orchestrator.watch(PlaceOrder, "none"):
                    pytest.fail("there is nothing to watch")

    run(main())


@pytest.mark.parametrize(
    ("by", "reason"), [("", "why"), ("me", ""), ("me", " "), ("me", "x" * 2001), ("me", "\ud800"), ("\ud800", "why")]
)
def test_a_request_says_who_and_why(tmp_path: Path, by: str, reason: str) -> None:
    """In bounded, valid text; else nothing is written."""

    async def main() -> None:
        world = World()
        world.always("charge", returns(7))
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            await orchestrator.start(PlaceOrder, Order(), saga_id="1")
            with pytest.raises(RequestRefused):
                await orchestrator.cancel(PlaceOrder, "1", reason=reason, by=by)

    run(main())


def test_a_conflicting_start_leaves_the_first_one_alone(tmp_path: Path) -> None:
    """Also while it runs, and in another orchestrator."""

    async def main() -> None:
        world, gate = World(), asyncio.Event()

        async def waits(at: Any) -> Any:
            await gate.wait()
            return at.land()

        world.always("charge", waits)
        async with (
            opened(sqlite(tmp_path), PlaceOrder(world)) as one,
            opened(sqlite(tmp_path), PlaceOrder(world)) as two,
        ):
            handle = await one.start(PlaceOrder, Order(total=1), saga_id="1")
            for orchestrator in (one, two):
                with pytest.raises(ConflictingStart):
                    await orchestrator.start(PlaceOrder, Order(total=2), saga_id="1")
                assert (await orchestrator.start(PlaceOrder, Order(total=1), saga_id="1")).key == handle.key
            gate.set()
            assert isinstance(await handle.outcome(timeout=20), Completed)
        assert world.names == ["reserve", "charge", "ship"]

    run(main())


def test_many_conflicting_starts_at_once_have_one_winner(tmp_path: Path) -> None:
    """Exactly one input is run; every other caller is told."""

    async def main() -> None:
        world = World()
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            starts = [orchestrator.start(PlaceOrder, Order(total=number), saga_id="1") for number in range(20)]
            found = await asyncio.gather(*starts, return_exceptions=True)
            handles = [one for one in found if not isinstance(one, BaseException)]
            assert len(handles) == 1
            assert all(isinstance(one, ConflictingStart) for one in found if isinstance(one, BaseException))
            assert isinstance(await handles[0].outcome(timeout=20), Completed)
        assert world.names == ["reserve", "charge", "ship"]

    run(main())


def test_what_an_orchestrator_is_built_with_is_checked() -> None:
    """Classes instead of objects, two of one name and version, a store that forgets."""
    world = World()
    with pytest.raises(DefinitionError, match="objects, not classes"):
        Orchestrator("memory://", sagas=[PlaceOrder], allow_volatile=True)
    with pytest.raises(DefinitionError, match="given twice"):
        Orchestrator("memory://", sagas=[PlaceOrder(world), PlaceOrder(world)], allow_volatile=True)
    with pytest.raises(VolatileStore):
        Orchestrator("memory://", sagas=[PlaceOrder(world)])
    with pytest.raises(DefinitionError):
        Orchestrator("memory://", sagas=[PlaceOrder(world)], tenant="", allow_volatile=True)


def test_an_orchestrator_that_is_not_open_says_so(tmp_path: Path) -> None:
    """Before it is entered, and after it is left."""

    async def main() -> None:
        orchestrator = opened(sqlite(tmp_path), PlaceOrder(World()))
        with pytest.raises(Shutdown):
            await orchestrator.start(PlaceOrder, Order(), saga_id="1")
        async with orchestrator:
            await orchestrator.execute(PlaceOrder, Order(), saga_id="1")
        with pytest.raises(Shutdown):
            await orchestrator.start(PlaceOrder, Order(), saga_id="2")

    run(main())


class Mismatched(Saga[Order], late_grace=0):
    """Its second step can't be called: the first one's stored result will be damaged."""

    def __init__(self, world: World) -> None:
        self.world = world

    @step(retry=AT_ONCE, barrier=True)
    async def first(self, ctx: Context[Order]) -> str:
        return await self.world.act("first", ctx)

    @first.compensation
    async def undo(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.world.act("undo", ctx, tried)

    @pivot(first, retry=AT_ONCE)
    async def second(self, ctx: Context[Order], found: str) -> None:
        raise Reject(f"second saw {found}")


def test_the_cause_of_a_rejection_is_told_in_its_own_words(tmp_path: Path) -> None:
    """Not as a repr, and not lost."""

    async def main() -> None:
        async with opened(sqlite(tmp_path), Mismatched(World())) as orchestrator:
            outcome = await orchestrator.execute(Mismatched, Order(), saga_id="1")
            assert isinstance(outcome, Compensated)
            assert outcome.cause == "second: second saw first of 1"

    run(main())
