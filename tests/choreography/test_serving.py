"""A shop of four services over a broker: each way through it leaves what it should, once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from atone.brokers.memory import MemoryBroker
from tests.choreography.shop import LEFT, Orders, Shop, eventually, on_sqlite


@pytest.mark.parametrize("fails_at", list(LEFT))
def test_each_way_through_the_shop_leaves_what_it_should(tmp_path: Path, fails_at: str) -> None:
    """Whatever fails is undone by those who did something before, and by nobody else."""

    async def main() -> None:
        async with MemoryBroker(f"memory://{tmp_path}") as broker:
            shop = Shop(on_sqlite(tmp_path), broker)
            await shop.create()
            async with shop.open():
                await shop.place("o-1", fails_at)
                await shop.until("o-1", fails_at)
            await shop.close()

    asyncio.run(main())


def test_what_is_sent_before_another_service_is_up_waits_for_it(tmp_path: Path) -> None:
    """Services come up one after the other, each with time to send: whoever is up last still hears the first event."""

    async def main() -> None:
        async with MemoryBroker(f"memory://{tmp_path}") as broker:
            shop = Shop(on_sqlite(tmp_path), broker)
            await shop.create()
            await shop.place("o-1")
            async with shop.service(Orders()):

                async def is_sent() -> bool:
                    return await shop.rows("orders", "SELECT 1 FROM atone_outbox") == []

                await eventually(is_sent, lambda: shop.rows("orders", "SELECT topic FROM atone_outbox"))
            async with shop.open():
                await shop.until("o-1")
            await shop.close()

    asyncio.run(main())
