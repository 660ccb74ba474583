"""The flaws of the seed's choreography and of its idempotent step, by their numbers: none of them at run time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from atone._core.state import SagaStatus
from atone._messaging import headers
from atone._messaging.envelope import Command, command_message
from atone._messaging.events import Event
from atone._participant.bound import Bound
from atone.brokers.memory import MemoryBroker
from atone.codec import Codec
from atone.errors import ConflictingStart
from atone.serving import start
from tests.choreography.shop import (
    ORDERS,
    Inventory,
    OrderCancelled,
    OrderPlaced,
    Orders,
    OrderShipped,
    PaymentDeclined,
    Payments,
    ShipmentFailed,
    Shop,
    StockReserved,
    eventually,
    on_postgres,
    on_sqlite,
)
from tests.choreography.test_saga_view import seen
from tests.servers.postgres import Bench


@asynccontextmanager
async def shop_of(folder: Path, *participants: Any) -> AsyncIterator[Shop]:
    """Have a shop with some of its services open, on SQLite."""
    async with MemoryBroker(f"memory://{folder}") as broker:
        shop = Shop(on_sqlite(folder), broker)
        await shop.create()
        async with shop.open(*participants):
            yield shop
        await shop.close()


async def until_did(shop: Shop, name: str, saga_id: str, *effects: str) -> None:
    async def is_so() -> bool:
        return (await shop.effects(saga_id))[name] == sorted(effects)

    await eventually(is_so, lambda: shop.effects(saga_id))


async def until_settled(shop: Shop, group: str) -> None:
    """Wait until a group has nothing left that it was given."""

    async def is_so() -> bool:
        return not shop.broker.server.groups[group].items

    await eventually(is_so, lambda: asyncio.sleep(0, shop.broker.server.groups[group].items))


def test_c1_a_field_that_was_never_sent_parks_the_event_and_does_nothing(tmp_path: Path) -> None:
    """The seed read an amount that no event carried, in the midst of a handler; here the event is judged before."""

    async def main() -> None:
        async with shop_of(tmp_path, Payments) as shop:
            whole = _message(StockReserved("cup", 500), "o-1", "m-1")
            await shop.broker.publish([whole._replace(body=b'{"item":"cup"}')])
            assert "missing required field `cents`" in await shop.until_parked("payments")
            assert (await shop.effects("o-1"))["payments"] == []

    asyncio.run(main())


def test_c2_an_undo_knows_what_was_done_though_the_failure_does_not_say_it(tmp_path: Path) -> None:
    """The seed looked for the reservation in the payment's failure; here the undo is handed its own result."""

    async def main() -> None:
        async with shop_of(tmp_path, Inventory) as shop:
            await shop.send(OrderPlaced("teapot", 500), "o-1", "m-1")
            await until_did(shop, "inventory", "o-1", "reserved")
            await shop.send(PaymentDeclined("no money"), "o-1", "m-2")
            await until_did(shop, "inventory", "o-1", "released teapot", "reserved")

    asyncio.run(main())


def test_c3_a_failure_that_is_told_three_times_releases_once(tmp_path: Path) -> None:
    """Duplicates with one id, and a second failure with another: one release, one event about it."""

    async def main() -> None:
        async with shop_of(tmp_path, Inventory) as shop:
            await shop.send(OrderPlaced("cup", 500), "o-1", "m-1")
            await until_did(shop, "inventory", "o-1", "reserved")
            for message_id in ("m-2", "m-2", "m-2", "m-3"):
                await shop.send(PaymentDeclined("no money"), "o-1", message_id)
            await until_settled(shop, "orders.inventory")
            assert (await shop.effects("o-1"))["inventory"] == ["released cup", "reserved"]
            released = await shop.rows("inventory", "SELECT count(*) FROM atone_barrier WHERE state = 'undone'")
            assert released == [(1,)]

    asyncio.run(main())


def test_c4_a_late_shipment_does_not_overwrite_a_cancelled_order(tmp_path: Path) -> None:
    """What comes after the saga turned back changes nothing, and is not lost: a person finds it."""

    async def main() -> None:
        async with shop_of(tmp_path, Orders) as shop:
            await shop.send(OrderCancelled("no money"), "o-1", "m-1")
            await until_settled(shop, "orders.orders")
            await shop.send(OrderShipped("label-1"), "o-1", "m-2")
            await until_settled(shop, "orders.orders")
            assert (await shop.effects("o-1"))["orders"] == []

    asyncio.run(main())


def test_c5_a_saga_that_stands_still_is_seen_with_who_holds_it_up(tmp_path: Path) -> None:
    """The seed's happy path ended in nothing, unseen; here the view names the event that does not come."""

    async def main() -> None:
        now = 1_000_000_000.0
        async with seen(tmp_path, Inventory, clock=lambda: now) as (shop, view, store), shop.sender("orders"):
            await shop.place("o-1")

            async def reserved() -> bool:
                found = await store.views.find(_query("o-1"))
                return bool(found) and len((await view.of("o-1")).timeline) == 2

            await eventually(reserved, lambda: asyncio.sleep(0))
            (missing,) = (await view.of("o-1")).missing
            assert (missing.of, missing.events) == ("payments.charge", ("payment.taken", "payment.declined"))
            now = 10_000_000_000.0  # the deadline of the choreography is long over
            assert await view.look() == 1
            assert [one.status for one in await store.views.find(_query("o-1"))] == [SagaStatus.NEEDS_ATTENTION.value]

    asyncio.run(main())


def test_p10_of_two_deliveries_at_the_same_time_one_has_an_effect(postgres_bench: Bench) -> None:
    """Two processes of one service are given the same message at once: get-then-set would let both charge."""

    async def main() -> None:
        async with MemoryBroker("memory://p10") as broker:
            shop = Shop(on_postgres(postgres_bench.server.url()), broker)
            await shop.create()
            message = _message(StockReserved("cup", 500), "o-1", "m-1")
            async with AsyncExitStack() as stack:
                for _ in range(2):
                    await stack.enter_async_context(shop.service(Payments()))
                await broker.publish([message, message, message._replace(key=""), message._replace(key="x")])
                await until_did(shop, "payments", "o-1", "charged 500")
                await until_settled(shop, "orders.payments")
            assert (await shop.effects("o-1"))["payments"] == ["charged 500"]
            sent = await shop.rows("payments", "SELECT count(*) FROM atone_outbox WHERE topic = 'payment.taken'")
            assert sent in ([(0,)], [(1,)])
            await shop.close()

    asyncio.run(main())


def test_p11_an_undo_is_not_answered_with_the_reaction_s_result(tmp_path: Path) -> None:
    """The seed's key left the operation out, so a wrapped refund returned the charge and refunded nothing."""

    async def main() -> None:
        async with shop_of(tmp_path, Payments) as shop:
            await shop.send(StockReserved("cup", 500), "o-1", "m-1")
            await until_did(shop, "payments", "o-1", "charged 500")
            await shop.send(ShipmentFailed("no van"), "o-1", "m-2")
            await until_did(shop, "payments", "o-1", "charged 500", "refunded 500")

    asyncio.run(main())


def test_p12_other_arguments_under_one_key_are_told(tmp_path: Path) -> None:
    """A start with another event is refused, and so is a command that uses a key again: no old result is handed out."""

    async def main() -> None:
        async with shop_of(tmp_path, Payments) as shop:
            await shop.place("o-1")
            await shop.place("o-1")
            with pytest.raises(ConflictingStart, match="was started with another event"):
                async with shop.engines["orders"].begin() as connection:
                    await start(ORDERS, connection, OrderPlaced("cup", 999_999), saga_id="o-1")
            await shop.broker.publish([_charge(500, attempt=1)])
            await until_did(shop, "payments", "asked", "charged 500")
            await shop.broker.publish([_charge(999_999, attempt=2)])

            async def refused() -> bool:
                return bool(await shop.broker.parked("payments.commands"))

            await eventually(refused, lambda: shop.effects("asked"))
            ((reason),) = [one.reason for one in await shop.broker.parked("payments.commands")]
            assert "was used with other arguments; nothing was done" in reason
            assert (await shop.effects("asked"))["payments"] == ["charged 500"]

    asyncio.run(main())


def test_p13_names_that_read_alike_when_joined_have_keys_of_their_own(tmp_path: Path) -> None:
    """Two sagas whose ids and events read alike with colons or dots between never share a key; both act."""
    bound = Bound(ORDERS, Payments(), Codec())
    pairs = [("a:b", "c"), ("a", "b:c"), ("a.1-b", "c"), ("a", "b.1-c"), ("1-a", "b"), ("1", "a.1-b")]
    keys = {
        bound.key(Event("m", "stock.reserved", 1, "orders", saga, b""), "charge", cause, headers.ACTION)
        for saga, cause in pairs
    }
    assert len(keys) == len(pairs)

    async def main() -> None:
        async with shop_of(tmp_path, Payments) as shop:
            for saga_id, message_id in pairs:
                await shop.send(StockReserved("cup", 500), saga_id, message_id.ljust(1) + saga_id.replace(":", "_"))
            for saga_id in {saga for saga, _ in pairs}:
                sent = sum(saga == saga_id for saga, _ in pairs)
                await until_did(shop, "payments", saga_id, *["charged 500"] * sent)

    asyncio.run(main())


def test_none_is_a_result_and_the_handler_is_not_called_again(tmp_path: Path) -> None:
    """A reaction that publishes nothing is done all the same; the seed's store could not tell that from nothing."""

    async def main() -> None:
        async with shop_of(tmp_path, Orders) as shop:
            for _ in range(3):
                await shop.send(OrderShipped("label-1"), "o-1", "m-1")
            await until_settled(shop, "orders.orders")
            assert (await shop.effects("o-1"))["orders"] == ["shipped"]

    asyncio.run(main())


def _message(value: Any, saga_id: str, message_id: str) -> Any:
    from tests.choreography.shop import message_of

    return message_of(value, saga_id, message_id)


def _query(saga_id: str) -> Any:
    from atone.store import Query

    return Query(saga_id=saga_id)


def _charge(cents: int, attempt: int) -> Any:
    import msgspec

    said = Command(
        "default", "Buy", "asked", "charge", headers.ACTION, attempt, "the-key", "stock.reserved", 1, "atone.replies",
        "orchestrator", 0.0,
    )  # fmt: skip
    return command_message(said, "payments.charge", msgspec.json.encode(StockReserved("cup", cents)))
