"""A wait that is cancelled ends, whenever the cancellation comes."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from atone import Context, Orchestrator, Saga, step


class Waiting(Saga[str], version=1):
    """Its steps end when told to."""

    def __init__(self) -> None:
        self.first_may_end: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.second_may_end = asyncio.Event()

    @step(no_compensation="has no effect")
    async def first(self, ctx: Context[str]) -> None:
        await self.first_may_end[ctx.saga_id].wait()

    @step(no_compensation="has no effect")
    async def second(self, ctx: Context[str]) -> None:
        await self.second_may_end.wait()


def test_a_watcher_that_is_cancelled_as_progress_arrives_ends() -> None:
    """On Python 3.11 `asyncio.wait_for` swallows a cancellation that comes together with the result it waits for."""
    saga = Waiting()

    async def ends(orchestrator: Orchestrator, turns_of_the_loop: int) -> bool:
        """Cancel a watcher so many turns of the event loop after the step that it sees next has ended."""
        handle = await orchestrator.start(Waiting, "input", saga_id=f"{turns_of_the_loop} turns")
        seen = asyncio.Event()

        async def watch() -> None:
            async for _ in handle.watch():
                seen.set()

        watcher = asyncio.create_task(watch())
        await seen.wait()
        saga.first_may_end[handle.saga_id].set()
        for _ in range(turns_of_the_loop):
            await asyncio.sleep(0)
        watcher.cancel()
        done, _ = await asyncio.wait([watcher], timeout=1)
        watcher.cancel()
        return bool(done)

    async def main() -> None:
        async with Orchestrator("memory://", sagas=[saga], allow_volatile=True) as orchestrator:
            assert [turns for turns in range(40) if not await ends(orchestrator, turns)] == []
            saga.second_may_end.set()

    asyncio.run(main())
