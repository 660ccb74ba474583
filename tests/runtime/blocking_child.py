"""A script that forgets to close its orchestrator: it starts sagas and simply ends. Owns no test."""

from __future__ import annotations

import sys
from pathlib import Path

from atone.blocking import BlockingOrchestrator
from tests.runtime.world import Order, PlaceOrder, World, hangs, limits, sqlite


def main(folder: Path) -> None:
    """Leave one saga that is over and one in the middle of a call."""
    world = World()
    atone = BlockingOrchestrator(sqlite(folder), sagas=[PlaceOrder(world)], limits=limits()).__enter__()
    print(atone.execute(PlaceOrder, Order(), saga_id="over", timeout=20), flush=True)
    world.always("charge", hangs)
    handle = atone.start(PlaceOrder, Order(), saga_id="under way")
    for progress in atone.watch(PlaceOrder, handle.saga_id):
        if progress.steps["charge"] == "running":
            break


if __name__ == "__main__":
    main(Path(sys.argv[1]))
