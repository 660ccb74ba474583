"""The shop in a process that is killed with SIGKILL in the midst of its work, again and again: the books balance."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from contextlib import AbstractContextManager
from pathlib import Path

from tests.choreography.shop import LEFT, Shop, eventually, on_sqlite
from tests.servers.processes import child_process

ORDERS_PLACED = 12
KILLS = 2


def test_services_that_are_killed_lose_no_order_and_do_nothing_twice(tmp_path: Path) -> None:
    """Each kill comes when some more has been done; in the end each order has left what its way leaves."""
    orders = {f"o-{at}": list(LEFT)[at % len(LEFT)] for at in range(ORDERS_PLACED)}
    everything = sum(len(effects) for fails_at in orders.values() for effects in LEFT[fails_at].values())
    broker = f"sqlite:///{tmp_path}/broker.db?patience_seconds=1"

    async def main() -> None:
        shop = Shop(on_sqlite(tmp_path), broker)
        await shop.create()
        for saga_id, fails_at in orders.items():
            await shop.place(saga_id, fails_at)

        async def done() -> int:
            counted = [await shop.rows(name, "SELECT count(*) FROM effects") for name in shop.engines]
            return sum(int(count) for ((count,),) in counted)

        async def until_done(many: int) -> None:
            async def is_so() -> bool:
                return await done() >= many

            await eventually(is_so, done, 60)

        for kill in range(KILLS):
            with _services(tmp_path, broker):  # which kills them when so much is done
                await until_done((kill + 1) * everything // (KILLS + 2))
        with _services(tmp_path, broker):
            await until_done(everything)
            for saga_id, fails_at in orders.items():
                await shop.until(saga_id, fails_at)
        for saga_id, fails_at in orders.items():
            assert await shop.effects(saga_id) == LEFT[fails_at]
        stock = Counter(what for (what,) in await shop.rows("inventory", "SELECT what FROM effects"))
        sent = Counter(what for (what,) in await shop.rows("shipping", "SELECT what FROM effects"))
        assert stock["reserved"] - stock["released cup"] == sent["sent"] == ORDERS_PLACED // len(LEFT)
        await shop.close()

    asyncio.run(main())


def _services(folder: Path, broker: str) -> AbstractContextManager[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "tests.choreography.child", str(folder), broker]
    return child_process(command, stdin=subprocess.PIPE, cwd=Path(__file__).parents[2])
