"""Turns and the committer: what is durable when, how many commits that costs, and commits whose outcome is unknown."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apsw
import pytest

from atone import Compensated, Completed, Context, NeedsAttention, Reject, Saga, step
from atone._core.journal import AttemptStarted, SagaEnded
from atone._runtime import runner
from atone._runtime.wire import decode_entries
from atone.errors import PayloadError
from atone.store import Turn, TurnResult
from atone.stores.sqlite import SqliteStore
from tests.runtime.faulty_store import FaultyStore, answer_held, held, lost_after, lost_before, passes
from tests.runtime.world import (
    AT_ONCE,
    Landing,
    Order,
    PlaceOrder,
    ShipOrder,
    World,
    lands_and_raises,
    opened,
    raises,
    returns,
    run,
    sqlite,
    until,
)


@pytest.mark.parametrize("kind", [PlaceOrder, ShipOrder])
def test_a_straight_saga_of_n_steps_costs_n_plus_one_commits(tmp_path: Path, kind: Any) -> None:
    """The intent of a step is committed with the outcome of the one before."""

    async def main() -> None:
        store = FaultyStore(sqlite(tmp_path))
        async with opened(store, kind(World())) as orchestrator:
            assert isinstance(await orchestrator.execute(kind, Order(), saga_id="1"), Completed)
        assert len(store.turns) == len(kind.plan().steps) + 1
        assert [turn.version for turn in store.turns] == [1, 2, 3, 4]

    run(main())


def test_sagas_that_decide_at_once_share_one_commit(tmp_path: Path) -> None:
    """Whatever waits while a batch is being written leaves together as the next one."""

    async def main() -> None:
        store, gate, reached = FaultyStore(sqlite(tmp_path)), asyncio.Event(), asyncio.Event()
        async with opened(store, PlaceOrder(World())) as orchestrator:
            store.script("commit", held(gate, reached))
            first = asyncio.ensure_future(orchestrator.execute(PlaceOrder, Order(), saga_id="first"))
            await reached.wait()
            rest = [
                asyncio.ensure_future(orchestrator.execute(PlaceOrder, Order(), saga_id=str(number)))
                for number in range(50)
            ]
            await until(lambda: orchestrator._worker.membership.committer.waiting == 50)
            gate.set()
            outcomes = await asyncio.gather(first, *rest)
            assert all(isinstance(outcome, Completed) for outcome in outcomes)
        assert [len(batch) for batch in store.batches[:2]] == [1, 50]

    run(main())


def test_an_intent_is_durable_before_user_code_runs(tmp_path: Path) -> None:
    """Every call, of actions and compensations, first or repeated, finds its own intent in the store."""

    async def main() -> None:
        store, world = FaultyStore(sqlite(tmp_path)), World()
        durable: set[tuple[str, str, int]] = set()
        called: list[tuple[str, str, int]] = []

        def note(turns: Sequence[Turn]) -> None:
            entries = [entry for turn in turns for entry in decode_entries(turn.entries)]
            intents = [entry for entry in entries if isinstance(entry, AttemptStarted)]
            durable.update((entry.step, entry.operation.value, entry.attempt) for entry in intents)

        def checks(operation: str, then: Any) -> Any:
            async def behaviour(at: Landing) -> Any:
                name = {"release": "reserve", "refund": "charge"}.get(at.step, at.step)
                called.append((name, operation, at.ctx.attempt))
                assert called[-1] in durable
                return await then(at)

            return behaviour

        store.on_commit = note
        lands = returns("done")
        world.always("reserve", checks("action", lands))
        world.script("charge", checks("action", raises(OSError("no answer"))))
        world.always("charge", checks("action", lands))
        world.always("ship", checks("action", raises(Reject("no van"))))
        world.script("refund", checks("compensation", raises(OSError("no answer"))))
        world.always("refund", checks("compensation", lands))
        world.always("release", checks("compensation", lands))
        async with opened(store, PlaceOrder(world)) as orchestrator:
            assert isinstance(await orchestrator.execute(PlaceOrder, Order(), saga_id="1"), Compensated)
        assert len(called) == 7
        assert set(called) == durable

    run(main())


def test_an_outcome_is_durable_before_anybody_hears_it(tmp_path: Path) -> None:
    """A caller that acts on "completed" can't be contradicted by a crash."""

    async def main() -> None:
        store, gate, reached = FaultyStore(sqlite(tmp_path)), asyncio.Event(), asyncio.Event()
        async with opened(store, PlaceOrder(World())) as orchestrator:
            store.script("commit", passes, passes, passes, held(gate, reached))
            caller = asyncio.ensure_future(orchestrator.execute(PlaceOrder, Order(), saga_id="1"))
            await reached.wait()
            done, _ = await asyncio.wait([caller], timeout=0.1)
            assert not done
            gate.set()
            assert isinstance(await caller, Completed)
        last = decode_entries(store.turns[-1].entries)
        assert any(isinstance(entry, SagaEnded) for entry in last)

    run(main())


@pytest.mark.parametrize("fault", [lost_before, lost_after], ids=["never arrived", "answer lost"])
@pytest.mark.parametrize("at", range(4))
def test_a_commit_of_unknown_outcome_is_settled_by_sending_it_again(tmp_path: Path, at: int, fault: Any) -> None:
    """No call is repeated and no outcome lost, wherever the connection breaks."""

    async def main() -> None:
        store, world = FaultyStore(sqlite(tmp_path)), World()
        store.script("commit", *[passes] * at, fault, fault)
        async with opened(store, PlaceOrder(world)) as orchestrator:
            assert isinstance(await orchestrator.execute(PlaceOrder, Order(), saga_id="1"), Completed)
        assert world.names == ["reserve", "charge", "ship"]
        assert [turn.version for turn in store.turns] == [1, 2, 3, 4]

    run(main())


@pytest.mark.parametrize("seed", range(5))
def test_any_mixture_of_lost_commits_changes_nothing(tmp_path: Path, seed: int) -> None:
    """Twenty sagas end as they would without a fault, each call made exactly as often."""

    async def main() -> None:
        store, world, dice = FaultyStore(sqlite(tmp_path)), World(), random.Random(seed)

        async def perhaps(call: Any) -> Any:
            return await dice.choice([passes, passes, lost_before, lost_after])(call)

        async def refuses_some(at: Landing) -> Any:
            if int(at.ctx.saga_id) % 3 == 0:
                raise Reject("no van")
            return at.land()

        world.always("ship", refuses_some)
        store.always("commit", perhaps)
        async with opened(store, PlaceOrder(world)) as orchestrator:
            sagas = [orchestrator.execute(PlaceOrder, Order(), saga_id=str(number)) for number in range(20)]
            outcomes = await asyncio.gather(*sagas)
            store.always("commit", None)
        for number, outcome in enumerate(outcomes):
            assert type(outcome) is (Compensated if number % 3 == 0 else Completed)
            undone = ["refund", "release"] if number % 3 == 0 else []
            calls = [call.step for call in world.calls if call.saga_id == str(number)]
            assert calls == ["reserve", "charge", "ship", *undone]
        rows = [(turn.key, turn.version) for turn in store.turns]
        assert len(rows) == len(set(rows))

    run(main())


def test_a_start_whose_answer_was_lost_with_its_worker_starts_one_saga(tmp_path: Path) -> None:
    """The first life wrote it and died before it knew; the caller gets a handle of that very saga."""

    async def main() -> None:
        store, world = FaultyStore(sqlite(tmp_path)), World()
        gate, reached = asyncio.Event(), asyncio.Event()
        async with opened(store, PlaceOrder(world), lease_seconds=0.3) as orchestrator:
            store.script("commit", answer_held(gate, reached))
            start = asyncio.ensure_future(orchestrator.execute(PlaceOrder, Order(), saga_id="1", timeout=20))
            await reached.wait()
            store.inner.renew(orchestrator._worker.membership.id, 0.0)
            assert isinstance(await start, Completed)
            assert len(await orchestrator.list()) == 1
            gate.set()
        assert set(world.effects.values()) == {1}

    run(main())


def test_a_conflict_keeps_the_fact_and_decides_again(tmp_path: Path) -> None:
    """A cancel gets in between a call's success and its commit: the success is not lost, and it is undone."""

    async def main() -> None:
        store, world = FaultyStore(sqlite(tmp_path)), World()
        gate, reached = asyncio.Event(), asyncio.Event()
        seen: list[Any] = []

        async def looks(at: Landing) -> Any:
            seen.append(at.tried)
            return at.land()

        world.script("refund", looks)
        store.script("commit", passes, passes, held(gate, reached))
        async with opened(store, PlaceOrder(world)) as orchestrator:
            handle = await orchestrator.start(PlaceOrder, Order(), saga_id="1")
            await reached.wait()
            receipt = await handle.cancel(reason="changed my mind")
            gate.set()
            assert isinstance(await handle.outcome(timeout=20), Compensated)
            assert (await receipt.answer()).applied
        assert TurnResult.CONFLICT in store.results
        assert world.names == ["reserve", "charge", "refund", "release"]
        assert [tried.result for tried in seen] == ["charge of 1"]

    run(main())


def test_a_saga_that_somebody_else_owns_is_dropped(tmp_path: Path) -> None:
    """The turn writes nothing, no call follows here, and the neighbours go on."""

    async def main() -> None:
        store, world, gate = FaultyStore(sqlite(tmp_path)), World(), asyncio.Event()

        async def waits_for_one(at: Landing) -> Any:
            if at.ctx.saga_id == "stolen":
                await gate.wait()
            return at.land()

        world.always("charge", waits_for_one)
        async with opened(store, PlaceOrder(world)) as orchestrator:
            handle = await orchestrator.start(PlaceOrder, Order(), saga_id="stolen")
            await world.reached("charge")
            store.inner.renew("thief", 60, register=[])
            with apsw.Connection(str(tmp_path / "sagas.db")) as file:
                file.set_busy_timeout(5000)
                file.execute("UPDATE sagas SET owner = 'thief'")
            gate.set()
            await until(lambda: TurnResult.NOT_MINE in store.results)
            assert isinstance(await orchestrator.execute(PlaceOrder, Order(), saga_id="2"), Completed)
            assert handle.key not in orchestrator._worker.runners
            assert world.names.count("ship") == 1
            store.inner.renew("thief", 0)
            assert isinstance(await handle.outcome(timeout=20), Completed)

    run(main())


# -- rows that the store can't hold ----------------------------------------------------------------------------------

TOO_LARGE = "x" * 8000


def small_rows(path: Path) -> SqliteStore:
    return SqliteStore(path / "sagas.db", row_bytes_max=6000)


def test_a_result_that_the_store_can_not_hold_is_an_unknown_outcome(tmp_path: Path) -> None:
    """The effect has landed, so it is undone; a neighbour in the same batch lands."""

    async def main() -> None:
        world, gate = World(), asyncio.Event()

        async def is_large_once(at: Landing) -> Any:
            at.land()
            await gate.wait()
            return TOO_LARGE if at.ctx.saga_id == "1" else "fine"

        world.always("charge", is_large_once)
        async with opened(small_rows(tmp_path), PlaceOrder(world)) as orchestrator:
            sagas = [orchestrator.execute(PlaceOrder, Order(), saga_id=str(number)) for number in (1, 2, 3)]
            ends = asyncio.gather(*sagas)
            await world.reached("charge", 3)
            gate.set()
            first, *others = await ends
            assert isinstance(first, Compensated), first
            assert "can't hold" in first.cause
            assert all(isinstance(other, Completed) for other in others)
        assert world.standing("1") == set()
        assert [call.step for call in world.calls if call.saga_id == "1"] == ["reserve", "charge", "refund", "release"]

    run(main())


def test_a_pivots_result_that_the_store_can_not_hold_calls_a_person(tmp_path: Path) -> None:
    """It has landed, it can't be undone, and calling it again would not help."""

    async def main() -> None:
        world = World()
        world.always("ship", returns(TOO_LARGE))
        async with opened(small_rows(tmp_path), ShipOrder(world)) as orchestrator:
            outcome = await orchestrator.execute(ShipOrder, Order(), saga_id="1")
            assert isinstance(outcome, NeedsAttention), outcome
            assert outcome.step == "ship"
            assert "can't hold" in outcome.cause
            fixed = await orchestrator.resolve(ShipOrder, "1", "ship", landed=True, result="short", reason="I looked")
            assert (await fixed.answer()).applied
            assert isinstance(await orchestrator.outcome(ShipOrder, "1", timeout=20), Completed)
        assert world.names == ["reserve", "ship", "confirm"]

    run(main())


def test_an_input_that_the_store_can_not_hold_starts_nothing(tmp_path: Path) -> None:
    """The caller is told what to do, and the id is still free."""

    async def main() -> None:
        world = World()
        async with opened(small_rows(tmp_path), PlaceOrder(world)) as orchestrator:
            with pytest.raises(PayloadError, match="smaller"):
                await orchestrator.start(PlaceOrder, Order(id=TOO_LARGE), saga_id="1")
            assert await orchestrator.list() == []
            assert isinstance(await orchestrator.execute(PlaceOrder, Order(), saga_id="1"), Completed)
            assert not orchestrator._worker.runners

    run(main())


def test_a_saga_whose_other_rows_are_refused_is_parked(tmp_path: Path) -> None:
    """There is no outcome to doubt then: it stops where it is, with the reason, and goes on after a retry."""

    async def main() -> None:
        world, store = World(), FaultyStore(sqlite(tmp_path))

        async def fails_for_one(at: Landing) -> Any:
            if at.ctx.saga_id == "1" and at.ctx.attempt == 1:
                raise OSError("no answer")
            return at.land()

        world.always("charge", fails_for_one)
        store.refuses = lambda turn: b"attempt_unknown" in turn.entries
        async with opened(store, PlaceOrder(world)) as orchestrator:
            sagas = [orchestrator.execute(PlaceOrder, Order(), saga_id=str(number)) for number in (1, 2)]
            parked, neighbour = await asyncio.gather(*sagas)
            assert isinstance(parked, NeedsAttention), parked
            assert "can't hold" in parked.cause
            assert isinstance(neighbour, Completed)
            store.refuses = lambda turn: False
            receipt = await orchestrator.retry(PlaceOrder, "1", reason="there is room again")
            assert (await receipt.answer(timeout=20)).applied
            assert isinstance(await orchestrator.outcome(PlaceOrder, "1", timeout=20), Completed)
        assert [call.step for call in world.calls if call.saga_id == "1"] == ["reserve", "charge", "charge", "ship"]

    run(main())


class Forked(Saga[Order], late_grace=0):
    """Two steps side by side."""

    def __init__(self, world: World) -> None:
        self.world = world

    @step(retry=AT_ONCE, no_compensation="a test", after=())
    async def left(self, ctx: Context[Order]) -> str:
        return await self.world.act("left", ctx)

    @step(retry=AT_ONCE, no_compensation="a test", after=())
    async def right(self, ctx: Context[Order]) -> str:
        return await self.world.act("right", ctx)


def test_a_saga_that_is_parked_interrupts_its_other_calls(tmp_path: Path) -> None:
    """Nobody would hear them; and after a retry they would run twice at once."""

    async def main() -> None:
        world, store, ended = World(), FaultyStore(sqlite(tmp_path)), asyncio.Event()

        async def notices(at: Landing) -> Any:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        async def fails_beside(at: Landing) -> Any:
            await world.reached("right")
            raise OSError("no answer")

        world.script("left", fails_beside)
        world.script("right", notices)
        store.refuses = lambda turn: b"attempt_unknown" in turn.entries
        async with opened(store, Forked(world)) as orchestrator:
            parked = await orchestrator.execute(Forked, Order(), saga_id="1", timeout=20)
            assert isinstance(parked, NeedsAttention)
            async with asyncio.timeout(5):
                await ended.wait()
            store.refuses = lambda turn: False
            await orchestrator.retry(Forked, "1", reason="there is room again")
            await until(lambda: len(world.calls) == 4)
            assert isinstance(await orchestrator.outcome(Forked, "1", timeout=20), Completed)

    run(main())


@pytest.mark.parametrize("fails_at", ["StartRequested", "Succeeded"])
def test_a_bug_in_the_law_stops_one_saga(tmp_path: Path, fails_at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed assertion parks the saga that it is about, or refuses its start; its neighbours go on."""
    decide = runner.decide

    def with_a_bug(plan: Any, saga: Any, fact: Any, now: float, **other: Any) -> Any:
        named = fact.saga_id if saga is None else saga.saga_id
        if named == "unlucky" and type(fact).__name__ == fails_at:
            raise AssertionError("this can't be")
        return decide(plan, saga, fact, now, **other)

    async def main() -> None:
        monkeypatch.setattr(runner, "decide", with_a_bug)
        async with opened(sqlite(tmp_path), PlaceOrder(World()), grace_seconds=20) as orchestrator:
            if fails_at == "StartRequested":
                with pytest.raises(AssertionError):
                    await orchestrator.start(PlaceOrder, Order(), saga_id="unlucky")
            else:
                outcome = await orchestrator.execute(PlaceOrder, Order(), saga_id="unlucky", timeout=20)
                assert isinstance(outcome, NeedsAttention)
                assert "internal: AssertionError: this can't be" in outcome.cause
            assert isinstance(await orchestrator.execute(PlaceOrder, Order(), saga_id="2", timeout=20), Completed)
            assert not orchestrator._worker.runners

    run(main())


def test_a_cause_of_any_length_fits_into_a_row(tmp_path: Path) -> None:
    """An exception's words are cut to a bounded length before they are journalled."""

    async def main() -> None:
        world = World()
        world.always("charge", lands_and_raises(OSError("x" * 100_000)))
        async with opened(small_rows(tmp_path), PlaceOrder(world)) as orchestrator:
            outcome = await orchestrator.execute(PlaceOrder, Order(), saga_id="1")
            assert isinstance(outcome, Compensated | NeedsAttention)

    run(main())
