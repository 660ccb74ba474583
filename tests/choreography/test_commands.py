"""One class of participant in both styles: an orchestrated saga asks it by commands, a choreography by events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from atone import Compensated, Completed, Context, Orchestrator, Saga, Tried, command
from atone._messaging import headers
from atone._messaging.envelope import Command, command_message, reason_of
from atone.broker import Message
from atone.brokers.memory import MemoryBroker
from tests.choreography.shop import (
    Inventory,
    OrderPlaced,
    OutOfStock,
    PaymentDeclined,
    PaymentTaken,
    ShipmentFailed,
    Shop,
    StockReserved,
    on_sqlite,
)


@dataclass(frozen=True)
class Order:
    item: str
    cents: int
    fails_at: str = ""


class Buy(Saga[Order]):
    """Orchestrates the services that the choreography is made of."""

    @command(reply=StockReserved, rejects=OutOfStock, timeout=20, to="inventory.reserve")
    def reserve(self, ctx: Context[Order]) -> OrderPlaced:
        return OrderPlaced(ctx.input.item, ctx.input.cents, ctx.input.fails_at)

    @reserve.compensation(to="inventory.release")
    def release(self, ctx: Context[Order], tried: Tried[StockReserved]) -> PaymentDeclined:
        return PaymentDeclined("the order was given up")

    @command(reserve, reply=PaymentTaken, rejects=PaymentDeclined, timeout=20, to="payments.charge")
    def charge(self, ctx: Context[Order], reserved: StockReserved) -> StockReserved:
        return reserved

    @charge.compensation(to="payments.refund")
    def refund(self, ctx: Context[Order], tried: Tried[PaymentTaken]) -> ShipmentFailed:
        return ShipmentFailed("the order was given up")


@asynccontextmanager
async def both(folder: Path) -> AsyncIterator[tuple[Shop, Orchestrator]]:
    """Have stock and payments open, for the choreography and for an orchestrator at the same time."""
    async with MemoryBroker(f"memory://{folder}") as broker:
        shop = Shop(on_sqlite(folder), broker)
        await shop.create()
        async with (
            shop.open(),
            Orchestrator(f"sqlite:///{folder}/sagas.db", sagas=[Buy()], broker=broker) as orchestrator,
        ):
            yield shop, orchestrator
        await shop.close()


def test_one_class_of_participant_serves_both_styles(tmp_path: Path) -> None:
    """The same objects answer an orchestrator's commands and react to a choreography's events; each acts once."""

    async def main() -> None:
        async with both(tmp_path) as (shop, orchestrator):
            saga = await orchestrator.start(Buy, Order("cup", 500), saga_id="asked")
            await shop.place("danced")
            outcome = await saga.outcome(timeout=20)
            assert isinstance(outcome, Completed)
            assert outcome[Buy.charge] == PaymentTaken(500)
            await shop.until("danced")
            effects = await shop.effects("asked")
            assert (effects["inventory"], effects["payments"]) == (["reserved"], ["charged 500"])

    asyncio.run(main())


def test_a_failure_event_is_a_refusal_to_who_asked_by_a_command(tmp_path: Path) -> None:
    """What the choreography calls a failure turns the orchestrated saga back; the stock is released by a command."""

    async def main() -> None:
        async with both(tmp_path) as (shop, orchestrator):
            saga = await orchestrator.start(Buy, Order("cup", 500, fails_at="payments"), saga_id="refused")
            outcome = await saga.outcome(timeout=20)
            assert isinstance(outcome, Compensated)
            effects = await shop.effects("refused")
            assert (effects["inventory"], effects["payments"]) == (["released cup", "reserved"], [])

    asyncio.run(main())


def test_a_command_that_comes_after_its_undo_is_refused_and_does_nothing(tmp_path: Path) -> None:
    """The undo of nothing leaves a tombstone; the late original is answered with a refusal, which is surely true."""

    async def main() -> None:
        async with MemoryBroker(f"memory://{tmp_path}") as broker:
            shop = Shop(on_sqlite(tmp_path), broker)
            await shop.create()
            await broker.declare("asker", ["answers"])
            async with shop.service(Inventory()):
                answers: Any = broker.deliveries("asker")
                await broker.publish([_command("inventory.release", PaymentDeclined("no"), "undo", action_key="do")])
                undone = (await anext(answers)).message
                await broker.publish([_command("inventory.reserve", OrderPlaced("cup", 1), "do")])
                refused = (await anext(answers)).message
                await answers.aclose()
            assert (undone.headers[headers.OUTCOME], undone.body) == (headers.SUCCEEDED, b"null")
            assert refused.headers[headers.OUTCOME] == headers.REJECTED
            assert "was compensated before it came" in reason_of(refused.body)
            assert (await shop.effects("s-1"))["inventory"] == []
            await shop.close()

    asyncio.run(main())


def _command(topic: str, value: Any, key: str, action_key: str | None = None) -> Message:
    operation = headers.ACTION if action_key is None else headers.COMPENSATION
    name = value.__atone_event__.name
    said = Command(
        "default", "Buy", "s-1", "reserve", operation, 1, key, name, 1, "answers", "somebody", 0.0, action_key
    )
    return command_message(said, topic, msgspec.json.encode(value))
