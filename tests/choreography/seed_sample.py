"""The seed's `OrderChoreography`, transcribed as it stands: its four handlers, and the services that they speak to.

Its handlers say what they listen to and publish; inventory and payments answer as the handlers assume. Nothing was
added that the seed does not have, and nothing left out: no shipment is ever asked for, and no payment is heard of.
"""

from __future__ import annotations

from dataclasses import dataclass

from atone.choreography import Choreography, Participant, Reaction, event, reacts


@event("order.created")
@dataclass(frozen=True)
class OrderCreated:
    order_id: str
    items: tuple[str, ...]


@event("inventory.reserve.requested")
@dataclass(frozen=True)
class ReserveRequested:
    items: tuple[str, ...]


@event("inventory.reserved")
@dataclass(frozen=True)
class InventoryReserved:
    reservation_id: str


@event("payment.charge.requested")
@dataclass(frozen=True)
class ChargeRequested:
    amount: int


@event("payment.succeeded")
@dataclass(frozen=True)
class PaymentSucceeded:
    payment_id: str


@event("payment.failed", failure=True)
@dataclass(frozen=True)
class PaymentFailed:
    reason: str


@event("inventory.release.requested")
@dataclass(frozen=True)
class ReleaseRequested: ...


@event("inventory.released")
@dataclass(frozen=True)
class InventoryReleased:
    reservation_id: str


@event("shipment.created")
@dataclass(frozen=True)
class ShipmentCreated:
    order_id: str


class OrderChoreography(Participant, name="orders"):
    @reacts(OrderCreated, emits=(ReserveRequested,))
    async def handle_order_created(self, ctx: Reaction[OrderCreated]) -> ReserveRequested:
        return ReserveRequested(ctx.event.items)

    @reacts(InventoryReserved, emits=(ChargeRequested,))
    async def handle_inventory_reserved(self, ctx: Reaction[InventoryReserved]) -> ChargeRequested:
        return ChargeRequested(amount=0)  # the seed reads an amount here that nobody has sent

    @reacts(PaymentFailed, emits=(ReleaseRequested,))
    async def handle_payment_failed(self, ctx: Reaction[PaymentFailed]) -> ReleaseRequested:
        return ReleaseRequested()

    @reacts(ShipmentCreated)
    async def handle_shipment_created(self, ctx: Reaction[ShipmentCreated]) -> None: ...


class Inventory(Participant, name="inventory"):
    @reacts(ReserveRequested, emits=(InventoryReserved,))
    async def reserve(self, ctx: Reaction[ReserveRequested]) -> InventoryReserved:
        return InventoryReserved("r-" + ctx.saga_id)

    @reserve.undo(ReleaseRequested, emits=(InventoryReleased,))
    async def release(self, ctx: Reaction[ReleaseRequested], done: InventoryReserved) -> InventoryReleased:
        return InventoryReleased(done.reservation_id)


class Payments(Participant, name="payments"):
    @reacts(ChargeRequested, emits=(PaymentSucceeded, PaymentFailed))
    async def charge(self, ctx: Reaction[ChargeRequested]) -> PaymentSucceeded | PaymentFailed:
        return PaymentSucceeded("p-" + ctx.saga_id)


sample = Choreography(
    "orders",
    OrderChoreography,
    Inventory,
    Payments,
    starts=(OrderCreated,),
    completes=(ShipmentCreated,),
    compensates=(InventoryReleased,),
    check=False,
)
