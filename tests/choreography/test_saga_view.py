"""The saga view: what a choreographed saga came to, what is missing, and what a person has to look at."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from atone._core.state import SagaStatus
from atone.brokers.memory import MemoryBroker
from atone.errors import UnknownSaga
from atone.saga_view import SagaView
from atone.store import Query
from atone.stores.sqlite import SqliteStore
from tests.choreography.shop import ORDERS, PARTICIPANTS, Inventory, Shop, StockReserved, eventually, on_sqlite


@asynccontextmanager
async def seen(folder: Path, *participants: Any, **options: Any) -> AsyncIterator[tuple[Shop, SagaView, SqliteStore]]:
    """Have some services of the shop open, and a view of all."""
    async with MemoryBroker(f"memory://{folder}") as broker, SqliteStore(folder / "view.db") as store:
        shop = Shop(on_sqlite(folder), broker)
        await shop.create()
        async with SagaView(ORDERS, store=store, broker=broker, **options) as view, shop.open(*participants):
            yield shop, view, store
        await shop.close()


async def until(view: SagaView, saga_id: str, status: SagaStatus) -> None:
    async def is_so() -> bool:
        try:
            return (await view.of(saga_id)).status is status
        except UnknownSaga:
            return False

    await eventually(is_so, lambda: view.of(saga_id))


@pytest.mark.parametrize(
    ("fails_at", "status", "names"),
    [
        ("", SagaStatus.COMPLETED, ["order.placed", "stock.reserved", "payment.taken", "order.shipped"]),
        ("inventory", SagaStatus.COMPENSATED, ["order.placed", "stock.missing", "order.cancelled"]),
    ],
)
def test_a_saga_is_seen_from_its_first_event_to_its_end(
    tmp_path: Path, fails_at: str, status: SagaStatus, names: list[str]
) -> None:
    """Status and timeline come of the events alone; a list shows the same."""

    async def main() -> None:
        async with seen(tmp_path, *PARTICIPANTS) as (shop, view, store):
            await shop.place("o-1", fails_at)
            await until(view, "o-1", status)
            assert [one.name for one in (await view.of("o-1")).timeline] == names

            async def listed() -> list[tuple[str, float | None]]:
                return [
                    (one.status, one.wake_at) for one in await store.views.find(Query(name="orders", saga_id="o-1"))
                ]

            async def is_listed_so() -> bool:  # the list is told after the events, by whoever folds them
                return await listed() == [(status.value, None)]

            await eventually(is_listed_so, listed)

    asyncio.run(main())


def test_what_is_missing_is_told_by_who_should_have_sent_it(tmp_path: Path) -> None:
    """With payments away a saga stands still, and the view says at whom."""

    async def main() -> None:
        async with seen(tmp_path, Inventory) as (shop, view, _), shop.sender("orders"):
            await shop.place("o-1")

            async def is_waiting() -> bool:
                found = await view._views.find(Query(saga_id="o-1"))
                return bool(found) and any(one.of == "payments.charge" for one in (await view.of("o-1")).missing)

            await eventually(is_waiting, lambda: view.of("o-1"))
            assert (await view.of("o-1")).status is SagaStatus.RUNNING

    asyncio.run(main())


def test_a_view_forgets_what_is_over_when_it_is_told_to(tmp_path: Path) -> None:
    """Only after so many days, and never a saga that goes on."""

    async def main() -> None:
        days = [0.0]

        def clock() -> float:
            return time.time() + days[0] * 86_400

        async with seen(tmp_path, *PARTICIPANTS, clock=clock) as (shop, view, _):
            await shop.place("o-1")
            await until(view, "o-1", SagaStatus.COMPLETED)
            await shop.send(StockReserved("cup", 500), "o-2", "m-1")
            await eventually(lambda: _is_heard(view, "o-2"), lambda: shop.parked("payments"))
            days[0] = 3.0
            assert [await view.purge(older_than_days=4), await view.purge(older_than_days=2)] == [0, 1]
            with pytest.raises(UnknownSaga):
                await view.of("o-1")
            assert (await view.of("o-2")).timeline
            with pytest.raises(ValueError, match="at least 1"):
                await view.purge(older_than_days=0.5)

    asyncio.run(main())


async def _is_heard(view: SagaView, saga_id: str) -> bool:
    try:
        return bool((await view.of(saga_id)).timeline)
    except UnknownSaga:
        return False
