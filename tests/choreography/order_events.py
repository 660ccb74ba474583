"""The order choreography of these tests: four services, a pivot, a time-out, two failures and their undos."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from atone.choreography import Choreography, Participant, Reaction, event, reacts, within


@event("order.placed")
@dataclass(frozen=True)
class OrderPlaced:
    order_id: str
    items: tuple[str, ...]
    amount: int


@event("stock.reserved")
@dataclass(frozen=True)
class StockReserved:
    reservation: str
    amount: int


@event("stock.out", failure=True)
@dataclass(frozen=True)
class OutOfStock:
    item: str


@event("stock.released")
class StockReleased(msgspec.Struct, frozen=True):
    reservation: str


@event("payment.taken")
@dataclass(frozen=True)
class PaymentTaken:
    payment: str


@event("payment.declined", failure=True)
@dataclass(frozen=True)
class PaymentDeclined:
    reason: str


@event("payment.overdue", failure=True)
@dataclass(frozen=True)
class PaymentTimedOut:
    after_seconds: int = 30


@event("payment.refunded")
@dataclass(frozen=True)
class PaymentRefunded:
    payment: str


@event("order.shipped")
@dataclass(frozen=True)
class OrderShipped:
    parcel: str


@event("shipment.refused", failure=True)
@dataclass(frozen=True)
class ShipmentRefused:
    reason: str


@event("order.cancelled")
@dataclass(frozen=True)
class OrderCancelled:
    order_id: str


class Orders(Participant, name="orders"):
    @reacts(OutOfStock, PaymentDeclined, PaymentTimedOut, ShipmentRefused, emits=(OrderCancelled,))
    async def cancel(
        self, ctx: Reaction[OutOfStock | PaymentDeclined | PaymentTimedOut | ShipmentRefused]
    ) -> OrderCancelled:
        return OrderCancelled(ctx.saga_id)

    @reacts(OrderShipped)
    def finish(self, ctx: Reaction[OrderShipped]) -> None: ...


class Inventory(Participant, name="inventory"):
    @reacts(OrderPlaced, emits=(StockReserved, OutOfStock))
    async def reserve(self, ctx: Reaction[OrderPlaced]) -> StockReserved | OutOfStock:
        return StockReserved("r-" + ctx.saga_id, ctx.event.amount)

    @reserve.undo(PaymentDeclined, PaymentTimedOut, ShipmentRefused, emits=(StockReleased,))
    async def release(
        self, ctx: Reaction[PaymentDeclined | PaymentTimedOut | ShipmentRefused], done: StockReserved
    ) -> StockReleased:
        return StockReleased(done.reservation)


class Payments(Participant, name="payments"):
    @reacts(StockReserved, emits=(PaymentTaken, PaymentDeclined))
    def charge(self, ctx: Reaction[StockReserved]) -> PaymentTaken | PaymentDeclined:
        return PaymentTaken("p-" + ctx.saga_id) if ctx.event.amount < 1000 else PaymentDeclined("too much")

    @charge.undo(ShipmentRefused, PaymentTimedOut, emits=(PaymentRefunded,))
    def refund(self, ctx: Reaction[ShipmentRefused | PaymentTimedOut], done: PaymentTaken) -> PaymentRefunded:
        return PaymentRefunded(done.payment)


class Shipping(Participant, name="shipping"):
    @reacts(
        StockReserved,
        expects=within(30, PaymentTaken, PaymentDeclined, otherwise=PaymentTimedOut),
        no_undo="it only waits",
        writes=False,
    )
    async def prepare(self, ctx: Reaction[StockReserved]) -> None: ...

    @reacts(PaymentTaken, emits=(OrderShipped, ShipmentRefused), pivot=True)
    async def ship(self, ctx: Reaction[PaymentTaken]) -> OrderShipped | ShipmentRefused:
        return OrderShipped("parcel-" + ctx.saga_id)


orders = Choreography(
    "orders",
    Orders,
    Inventory,
    Payments,
    Shipping,
    starts=(OrderPlaced,),
    completes=(OrderShipped,),
    compensates=(OrderCancelled,),
)
