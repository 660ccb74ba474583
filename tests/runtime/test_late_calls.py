"""A call whose commit took longer than the call may take is not made any more."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from atone import Compensated, Completed, Context, Retry, Saga, step
from atone.store import Turn, TurnResult
from atone.stores.memory import MemoryStore
from tests.runtime.faulty_store import FaultyStore, answer_held
from tests.runtime.world import opened, run


class Hurried(Saga[int]):
    """One step that may take a moment only, and says which of its attempts were made."""

    def __init__(self) -> None:
        self.made: list[int] = []

    @step(timeout=0.2, retry=Retry(attempts=3, initial=0.01), no_compensation="it only counts")
    async def count(self, ctx: Context[int]) -> None:
        self.made.append(ctx.attempt)


def test_no_call_begins_after_its_hard_deadline() -> None:
    """Found by the model check: begun so late, it could have its effect after its undo. It is repeated."""

    async def main() -> None:
        hurried, gate, reached = Hurried(), asyncio.Event(), asyncio.Event()
        store = FaultyStore(MemoryStore(allow_volatile=True))
        store.script("commit", answer_held(gate, reached))
        async with opened(store, hurried) as orchestrator:
            starting = asyncio.create_task(orchestrator.start(Hurried, 1, saga_id="1"))
            await reached.wait()
            await asyncio.sleep(0.25)  # the intent is durable, and its deadline passes before the worker hears of it
            gate.set()
            await starting
            assert isinstance(await orchestrator.outcome(Hurried, "1", timeout=20), Completed)
        assert hurried.made == [2]

    run(main())


class OneTry(Saga[int]):
    """One step that may fail once only, which turns the saga back."""

    def __init__(self) -> None:
        self.made: list[int] = []

    @step(timeout=0.2, retry=Retry(attempts=1), no_compensation="it only counts")
    async def count(self, ctx: Context[int]) -> None:
        self.made.append(ctx.attempt)


def test_a_store_that_stalls_uses_up_no_attempt() -> None:
    """Infrastructure errors never undo: the step was not even called."""

    async def main() -> None:
        one_try, gate, reached = OneTry(), asyncio.Event(), asyncio.Event()
        store = FaultyStore(MemoryStore(allow_volatile=True))
        store.script("commit", answer_held(gate, reached))
        async with opened(store, one_try) as orchestrator:
            starting = asyncio.create_task(orchestrator.start(OneTry, 1, saga_id="1"))
            await reached.wait()
            await asyncio.sleep(0.25)  # as above
            gate.set()
            await starting
            assert isinstance(await orchestrator.outcome(OneTry, "1", timeout=20), Completed)
        assert one_try.made == [2]

    run(main())


class Lame(MemoryStore):
    """Answers each commit later than the step may take."""

    async def commit(self, worker: str | None, turns: Sequence[Turn]) -> Sequence[TurnResult]:
        results = await super().commit(worker, turns)
        await asyncio.sleep(0.25)
        return results


def test_a_store_that_is_always_slower_than_a_step_does_not_repeat_it_for_ever() -> None:
    """Such a step can never be called, so in the end it has timed out, and somebody hears of it."""

    async def main() -> None:
        one_try = OneTry()
        async with opened(Lame(allow_volatile=True), one_try) as orchestrator:
            await orchestrator.start(OneTry, 1, saga_id="1")
            assert isinstance(await orchestrator.outcome(OneTry, "1", timeout=20), Compensated)
        assert one_try.made == []

    run(main())
