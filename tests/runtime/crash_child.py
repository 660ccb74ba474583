"""A process that is there to be killed: it runs one order saga and says where it stands.

Owns no test. Prints a line when the step that it was told about is called, and then waits for its end in that call.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from tests.runtime.world import Landing, Order, PlaceOrder, World, opened, raises, sqlite


async def main(folder: Path, at: str, rejected: str) -> None:
    """Run until `at` is called; its effect lands, its answer never comes. `rejected` names a step that is refused."""
    world = World(folder / "effects")

    async def lands_and_tells(landing: Landing) -> Any:
        landing.land()
        print(f"reached {landing.step}", flush=True)
        await asyncio.Event().wait()

    world.always(at, lands_and_tells)
    if rejected:
        from atone import Reject

        world.always(rejected, raises(Reject("refused")))
    async with opened(sqlite(folder), PlaceOrder(world), lease_seconds=1.0) as orchestrator:
        await orchestrator.execute(PlaceOrder, Order(), saga_id="1")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else ""))
