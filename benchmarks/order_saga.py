"""The saga that the benchmarks run: three trivial steps, so that what is measured is Atone and not the participants.

Owns the definition and its ids, which all have one length, so that every saga's rows have the same sizes. Its services
count their calls, as those of the peers do in `peers.shop`. Must not measure. Used by `side`, `recording` and
`anatomy`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from atone import Context, Reject, Saga, Tried, pivot, step

WORKLOADS = ("order", "compensate")
STEPS = 3


@dataclass(frozen=True)
class Order:
    customer: str
    item: str
    quantity: int
    cents: int


@dataclass(frozen=True)
class Reservation:
    id: str
    item: str
    quantity: int


@dataclass(frozen=True)
class Payment:
    id: str
    cents: int


@dataclass(frozen=True)
class Shipment:
    id: str
    reservation: str
    payment: str


AN_ORDER = Order(customer="customer-000017", item="a-red-bicycle", quantity=2, cents=129_900)


class PlaceOrder(Saga[Order], version=1):
    """Reserve, pay, ship; with `declined` the shipment is rejected and both others are undone."""

    def __init__(self, *, declined: bool) -> None:
        self.declined = declined
        self.calls: Counter[str] = Counter()

    @step()
    async def reserve_inventory(self, ctx: Context[Order]) -> Reservation:
        self.calls["reserve"] += 1
        return Reservation(f"reservation-{ctx.saga_id}", ctx.input.item, ctx.input.quantity)

    @reserve_inventory.compensation
    async def release_inventory(self, ctx: Context[Order], tried: Tried[Reservation]) -> None:
        self.calls["release"] += 1

    @step()
    async def process_payment(self, ctx: Context[Order]) -> Payment:
        self.calls["pay"] += 1
        return Payment(f"payment-{ctx.saga_id}", ctx.input.cents)

    @process_payment.compensation
    async def refund_payment(self, ctx: Context[Order], tried: Tried[Payment]) -> None:
        self.calls["refund"] += 1

    @pivot(reserve_inventory, process_payment)
    async def create_shipment(self, ctx: Context[Order], reservation: Reservation, payment: Payment) -> Shipment:
        self.calls["ship"] += 1
        if self.declined:
            raise Reject("no carrier goes there")
        return Shipment(f"shipment-{ctx.saga_id}", reservation.id, payment.id)


def the_saga(workload: str) -> PlaceOrder:
    """Return the saga object of a workload."""
    return PlaceOrder(declined=workload == "compensate")


def saga_id(client: int, number: int) -> str:
    """Return an id that no other client or round of this process uses, always 18 characters."""
    return f"order-{client:04d}-{number:07d}"
