"""A shop whose services react to each other's events, each with a database of its own: what the tests here run.

Owns the choreography, the services' rows, and the books that have to balance. The order tells a service what to
do. Every effect is a row, so what was done twice or not at all can be counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from atone._messaging.events import Event, to_message
from atone.broker import Message
from atone.choreography import Choreography, Participant, Reaction, event, reacts
from atone.definition import Retry
from atone.serving import Service, ServiceTables, serve

OFTEN = Retry(attempts=6, initial=0.01, factor=1.5, maximum=0.05)


@event("order.placed")
@dataclass(frozen=True)
class OrderPlaced:
    item: str
    cents: int
    fails_at: str = ""


@event("stock.reserved")
@dataclass(frozen=True)
class StockReserved:
    item: str
    cents: int
    fails_at: str = ""


@event("stock.missing", failure=True)
@dataclass(frozen=True)
class OutOfStock:
    item: str


@event("stock.released")
@dataclass(frozen=True)
class StockReleased:
    item: str


@event("payment.taken")
@dataclass(frozen=True)
class PaymentTaken:
    cents: int
    fails_at: str = ""


@event("payment.declined", failure=True)
@dataclass(frozen=True)
class PaymentDeclined:
    why: str


@event("payment.refunded")
@dataclass(frozen=True)
class PaymentRefunded:
    cents: int


@event("shipment.failed", failure=True)
@dataclass(frozen=True)
class ShipmentFailed:
    why: str


@event("order.shipped")
@dataclass(frozen=True)
class OrderShipped:
    label: str


@event("order.cancelled")
@dataclass(frozen=True)
class OrderCancelled:
    why: str


async def note(ctx: Reaction[Any], what: str) -> None:
    """Write an effect, once for each call of a handler."""
    row = {"saga": ctx.saga_id, "what": what}
    await ctx.connection.execute(text("INSERT INTO effects (saga, what) VALUES (:saga, :what)"), row)


class Orders(Participant, name="orders"):
    """Keeps what became of an order."""

    @reacts(OrderShipped, no_undo="it is the last word")
    async def close(self, ctx: Reaction[OrderShipped]) -> None:
        await note(ctx, "shipped")

    @reacts(OutOfStock, StockReleased, emits=(OrderCancelled,), no_undo="it is the way back")
    async def cancel(self, ctx: Reaction[OutOfStock | StockReleased]) -> OrderCancelled:
        await note(ctx, "cancelled")
        return OrderCancelled(type(ctx.event).__name__)


class Inventory(Participant, name="inventory"):
    """Holds the stock."""

    @reacts(OrderPlaced, emits=(StockReserved, OutOfStock), retry=OFTEN)
    async def reserve(self, ctx: Reaction[OrderPlaced]) -> StockReserved | OutOfStock:
        if ctx.event.fails_at == "inventory":
            return OutOfStock(ctx.event.item)
        await note(ctx, "reserved")
        return StockReserved(ctx.event.item, ctx.event.cents, ctx.event.fails_at)

    @reserve.undo(PaymentDeclined, PaymentRefunded, emits=(StockReleased,), retry=OFTEN)
    async def release(self, ctx: Reaction[PaymentDeclined | PaymentRefunded], done: StockReserved) -> StockReleased:
        await note(ctx, f"released {done.item}")
        return StockReleased(done.item)


class Payments(Participant, name="payments"):
    """Takes the money."""

    @reacts(StockReserved, emits=(PaymentTaken, PaymentDeclined), retry=OFTEN)
    async def charge(self, ctx: Reaction[StockReserved]) -> PaymentTaken | PaymentDeclined:
        if ctx.event.fails_at == "payments":
            return PaymentDeclined("no money")
        await note(ctx, f"charged {ctx.event.cents}")
        return PaymentTaken(ctx.event.cents, ctx.event.fails_at)

    @charge.undo(ShipmentFailed, emits=(PaymentRefunded,), retry=OFTEN)
    async def refund(self, ctx: Reaction[ShipmentFailed], done: PaymentTaken) -> PaymentRefunded:
        await note(ctx, f"refunded {done.cents}")
        return PaymentRefunded(done.cents)


class Shipping(Participant, name="shipping"):
    """Sends the parcel."""

    @reacts(PaymentTaken, emits=(OrderShipped, ShipmentFailed), pivot=True, retry=OFTEN)
    async def ship(self, ctx: Reaction[PaymentTaken]) -> OrderShipped | ShipmentFailed:
        if ctx.event.fails_at == "shipping":
            return ShipmentFailed("no van")
        await note(ctx, "sent")
        return OrderShipped("label-1")


ORDERS = Choreography(
    "orders",
    Orders,
    Inventory,
    Payments,
    Shipping,
    starts=(OrderPlaced,),
    completes=(OrderShipped,),
    compensates=(OrderCancelled,),
)
PARTICIPANTS: tuple[type[Participant], ...] = (Orders, Inventory, Payments, Shipping)

# What each way through the shop leaves behind, by where it fails.
LEFT: dict[str, dict[str, list[str]]] = {
    "": {"orders": ["shipped"], "inventory": ["reserved"], "payments": ["charged 500"], "shipping": ["sent"]},
    "inventory": {"orders": ["cancelled"], "inventory": [], "payments": [], "shipping": []},
    "payments": {"orders": ["cancelled"], "inventory": ["released cup", "reserved"], "payments": [], "shipping": []},
    "shipping": {
        "orders": ["cancelled"],
        "inventory": ["released cup", "reserved"],
        "payments": ["charged 500", "refunded 500"],
        "shipping": [],
    },
}


class Shop:
    """The services' databases, and services on them that come and go."""

    def __init__(self, urls: dict[str, str], broker: Any) -> None:
        self.engines = {name: _engine(name, url) for name, url in urls.items()}
        self.broker = broker
        self.around: Callable[[AsyncEngine], Any] = lambda engine: engine

    async def create(self) -> None:
        """Make the services' own tables, and Atone's."""
        for name, engine in self.engines.items():
            async with engine.begin() as connection:
                if engine.dialect.name == "postgresql":
                    await connection.execute(text(f"DROP SCHEMA IF EXISTS {name} CASCADE"))
                    await connection.execute(text(f"CREATE SCHEMA {name}"))
                else:
                    await connection.execute(text("PRAGMA journal_mode=WAL"))
                await connection.execute(text("CREATE TABLE IF NOT EXISTS effects (saga text, what text)"))
                await ServiceTables().create(connection)

    def service(self, *participants: Participant, **options: Any) -> Service:
        """Return a service of the first participant's database."""
        name = type(participants[0]).__participant__
        options = {"database": self.around(self.engines[name]), "broker": self.broker, "poll_seconds": 0.05, **options}
        return serve(ORDERS, *participants, **options)

    def sender(self, name: str) -> Service:
        """Return a service without participants: it sends what was written in that database."""
        return serve(ORDERS, database=self.engines[name], broker=self.broker)

    @asynccontextmanager
    async def open(self, *participants: type[Participant]) -> AsyncIterator[None]:
        """Have services open, all four if none is named."""
        async with AsyncExitStack() as stack:
            for participant in participants or PARTICIPANTS:
                await stack.enter_async_context(self.service(participant()))
            yield

    async def place(self, saga_id: str, fails_at: str = "") -> None:
        """Place an order, in the transaction of the shop's own row."""
        async with self.engines["orders"].begin() as connection:
            await start_order(connection, OrderPlaced("cup", 500, fails_at), saga_id)

    async def effects(self, saga_id: str) -> dict[str, list[str]]:
        """Return what each service has done for a saga, durably."""
        return {name: await _effects(engine, saga_id) for name, engine in self.engines.items()}

    async def send(self, value: Any, saga_id: str, message_id: str, source: str = "", **headers: str) -> None:
        """Publish an event as somebody who is not one of these services."""
        await self.broker.publish([message_of(value, saga_id, message_id, source, **headers)])

    async def parked(self, name: str) -> list[tuple[str, str]]:
        """Return what a service has set aside: topics and reasons."""
        return [(one.message.topic, one.reason) for one in await self.broker.parked(f"orders.{name}")]

    async def until_parked(self, name: str) -> str:
        """Wait until a service has set a message aside, and return why."""

        async def is_so() -> bool:
            return bool(await self.parked(name))

        await eventually(is_so, lambda: self.parked(name))
        return (await self.parked(name))[0][1]

    async def until(self, saga_id: str, fails_at: str = "") -> None:
        """Wait until a saga has left what its way leaves."""
        await eventually(lambda: self._has_left(saga_id, fails_at), lambda: self.effects(saga_id))

    async def _has_left(self, saga_id: str, fails_at: str) -> bool:
        return await self.effects(saga_id) == LEFT[fails_at]

    async def rows(self, name: str, statement: str) -> list[tuple[Any, ...]]:
        """Ask a service's database something."""
        async with self.engines[name].connect() as connection:
            return [tuple(row) for row in await connection.execute(text(statement))]

    async def close(self) -> None:
        for engine in self.engines.values():
            await engine.dispose()


async def start_order(connection: AsyncConnection, placed: OrderPlaced, saga_id: str) -> None:
    from atone.serving import start

    await start(ORDERS, connection, placed, saga_id=saga_id)


async def _effects(engine: AsyncEngine, saga_id: str) -> list[str]:
    async with engine.connect() as connection:
        rows = await connection.execute(
            text("SELECT what FROM effects WHERE saga = :saga ORDER BY what"), {"saga": saga_id}
        )
        return [what for (what,) in rows]


async def eventually(
    condition: Callable[[], Awaitable[bool]], tell: Callable[[], Awaitable[Any]], seconds: float = 20.0
) -> None:
    """Wait until something is so; other services are at it, and no event tells."""
    try:
        async with asyncio.timeout(seconds):
            while not await condition():  # noqa: ASYNC110 - as said
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"it has not come to that: {await tell()}") from None


def message_of(value: Any, saga_id: str, message_id: str, source: str = "", **headers: str) -> Message:
    """Return an event as a message, with other headers where they are given."""
    spec = value.__atone_event__
    event_ = Event(message_id, spec.name, spec.version, "orders", saga_id, msgspec.json.encode(value), source=source)
    message = to_message(event_)
    return message._replace(headers={**message.headers, **{f"atone-{name}": said for name, said in headers.items()}})


def _engine(name: str, url: str) -> AsyncEngine:
    if url.startswith("postgresql"):
        return create_async_engine(url, connect_args={"server_settings": {"search_path": name}})
    return create_async_engine(url, poolclass=NullPool)


def on_postgres(url: str) -> dict[str, str]:
    """Return the URL of a schema for each service, which its engine picks."""
    return {one.__participant__: url.replace("postgresql:", "postgresql+asyncpg:") for one in PARTICIPANTS}


def on_sqlite(folder: Path) -> dict[str, str]:
    """Return the URLs of a database for each service."""
    return {one.__participant__: f"sqlite+aiosqlite:///{folder}/{one.__participant__}.db" for one in PARTICIPANTS}
