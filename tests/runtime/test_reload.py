"""A saga of mine is read again when somebody has appended to it; by then it may be somebody else's."""

from __future__ import annotations

import asyncio
from pathlib import Path

from atone import Completed, Context, Saga, step
from atone.errors import StoreUnavailable
from tests.runtime.faulty_store import FaultyStore, fails_with
from tests.runtime.world import AT_ONCE, Order, World, opened, run, sqlite, until, waits


class AskFirst(Saga[Order], late_grace=0):
    """The second step asks first whether it is wanted: code that is called without a row of its own before it."""

    def __init__(self, world: World, gate: asyncio.Event) -> None:
        self.world, self.gate = world, gate
        self.asked = 0

    @step(retry=AT_ONCE, timeout=20, no_compensation="a test")
    async def first(self, ctx: Context[Order]) -> str:
        return await self.world.act("first", ctx)

    @step(first, retry=AT_ONCE, timeout=20, no_compensation="a test")
    async def second(self, ctx: Context[Order], found: str) -> str:
        return await self.world.act("second", ctx)

    @second.when
    async def wanted(self, ctx: Context[Order]) -> bool:
        self.asked += 1
        await self.gate.wait()
        return True


def test_a_reload_drops_a_saga_that_another_worker_owns_by_now(tmp_path: Path) -> None:
    """The journal asks for the next `when`, but that is its new owner's to call: nothing is performed here."""

    async def main() -> None:
        mine, gate = World(), asyncio.Event()
        mine.always("first", waits(asyncio.Event()))
        here, there = AskFirst(mine, gate), AskFirst(World(), gate)
        store = FaultyStore(sqlite(tmp_path))
        async with opened(store, here) as old:
            assert old._worker is not None
            handle = await old.start(AskFirst, Order(), saga_id="1")
            await mine.reached("first")
            runner = old._worker.runners[handle.key]
            # The old owner must not hear of its death in any other way than by the reload.
            store.renewals_pass.clear()
            store.always("claim", fails_with(StoreUnavailable("it must be the reload that finds out")))
            store.inner.renew(old._worker.membership.id, 0.0)
            async with opened(sqlite(tmp_path), there) as new:
                await until(lambda: there.asked == 1)
                runner.refresh()
                await until(lambda: runner.gone or here.asked > 0)
                assert here.asked == 0
                assert handle.key not in old._worker.runners
                gate.set()
                assert isinstance(await new.outcome(AskFirst, "1", timeout=20), Completed)
            store.renewals_pass.set()
            store.always("claim", None)
        assert mine.names == ["first"]

    run(main())
