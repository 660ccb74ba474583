"""A saga that is over is gone: nothing of it waits for the garbage collector."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from atone import Reject
from atone._runtime.calls import Calls
from atone._runtime.runner import Runner
from tests.runtime.world import Order, PlaceOrder, World, opened, raises, run, sqlite


@pytest.mark.parametrize("refused", [False, True], ids=["completed", "compensated"])
def test_a_saga_that_is_over_leaves_no_garbage(tmp_path: Path, refused: bool) -> None:
    """With the collector switched off, runners and calls of earlier ones are not there any more."""

    async def main() -> None:
        world = World()
        if refused:
            world.script("charge", *(raises(Reject("no")) for _ in range(3)))
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            gc.collect()
            gc.disable()
            try:
                for number in range(3):
                    await orchestrator.execute(PlaceOrder, Order(), saga_id=str(number), timeout=20)
                kinds = [type(one) for one in gc.get_objects() if isinstance(one, Runner | Calls)]
                # The writer holds its last batch until the next one.
                assert max(kinds.count(Runner), kinds.count(Calls)) <= 1
            finally:
                gc.enable()

    run(main())
