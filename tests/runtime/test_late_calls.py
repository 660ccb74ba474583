"""A call whose commit took longer than the call may take is not made any more."""

from __future__ import annotations

import asyncio

from atone import Completed, Context, Retry, Saga, step
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
    """Found by the model check: begun so late, it could have its effect after its undo. It counts as timed out."""

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
