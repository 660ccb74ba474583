"""What real kills have found, each as the smallest run that shows it without one."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.runtime.faulty_store import FaultyStore, held
from tests.runtime.world import Order, PlaceOrder, World, opened, run, sqlite, until, waits


def test_a_saga_that_is_over_is_given_up_in_the_very_row_that_says_so(tmp_path: Path) -> None:
    """`cancel_race`, killed twice: facts that still waited kept a final saga's owner, who died before it let go."""

    async def main() -> None:
        world, shipped, reads, reading = World(), asyncio.Event(), asyncio.Event(), asyncio.Event()
        world.always("ship", waits(shipped))
        store = FaultyStore(sqlite(tmp_path))
        async with opened(store, PlaceOrder(world)) as orchestrator:
            handle = await orchestrator.start(PlaceOrder, Order(), saga_id="1")
            await world.reached("ship")
            assert orchestrator._worker is not None
            store.script("load", held(reads, reading))
            orchestrator._worker.nudge(handle.key)  # it reads the saga again, which has it look once more in the end
            await reading.wait()
            shipped.set()
            runner = orchestrator._worker.runners[handle.key]
            await until(lambda: len(runner._facts) == 1)
            reads.set()
            await handle.outcome(timeout=20)
        last = store.turns[-1]
        assert b'"saga_ended"' in last.entries
        assert last.hot is not None
        assert not last.hot.owned

    run(main())
