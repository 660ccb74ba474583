"""All services of the shop in one process, to be killed: `python -m tests.choreography.child FOLDER BROKER`."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from pathlib import Path

from tests.choreography.shop import Shop, on_sqlite


def _end_with_parent() -> None:
    """End when the process that started this one has gone, however it went."""
    sys.stdin.read()
    os._exit(1)


async def main(folder: str, broker: str) -> None:
    shop = Shop(on_sqlite(Path(folder)), broker)
    async with shop.open():
        await asyncio.Event().wait()


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    asyncio.run(main(*sys.argv[1:]))
