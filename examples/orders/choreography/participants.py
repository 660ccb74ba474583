"""The four services: what each does when it hears of something, and how it takes that back.

Owns who reacts to what. The effects are those of the orchestrated example: the same functions on the same tables, in
the transaction that takes the event in and holds what is published. Each service has a database of its own and knows
none of the others. Served by `process`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from typing import TypeAlias

from atone import Retry
from atone.choreography import Choreography, Participant, Reaction, reacts
from examples.orders import inventory, payments, shipping
from examples.orders.audit import saga_id_of
from examples.orders.choreography.events import (
    OrderCancelled,
    OrderConfirmed,
    OrderPlaced,
    ParcelRefused,
    ParcelSent,
    PaymentDeclined,
    PaymentRefunded,
    PaymentTaken,
    StockMissing,
    StockReleased,
    StockReserved,
)
from examples.orders.domain import Order
from examples.orders.participant import Rejected

PIECES_IN_A_PARCEL_MAX = 6

_OFTEN = Retry(attempts=30, initial=0.1, factor=2, maximum=1)

_WayBack: TypeAlias = PaymentDeclined | PaymentRefunded

ORDERS_SCHEMA = """
CREATE TABLE IF NOT EXISTS orders (
    id TEXT PRIMARY KEY,
    status TEXT NOT NULL CHECK (status IN ('pending', 'approved', 'rejected')),
    reason TEXT NOT NULL DEFAULT ''
);
"""


class Orders(Participant, name="orders"):
    """Keeps what became of each order; until then it is pending, so that nobody takes it for done."""

    @reacts(OrderConfirmed, no_undo="it is the last word", retry=_OFTEN)
    def approve(self, ctx: Reaction[OrderConfirmed]) -> None:
        _set_status(ctx.connection, ctx.saga_id, "approved", "")

    @reacts(StockMissing, StockReleased, emits=(OrderCancelled,), no_undo="it is the last word", retry=_OFTEN)
    def reject(self, ctx: Reaction[StockMissing | StockReleased]) -> OrderCancelled:
        _set_status(ctx.connection, ctx.saga_id, "rejected", ctx.event.reason)
        return OrderCancelled(ctx.event.reason)


class Inventory(Participant, name="inventory"):
    """Sets pieces aside, and puts them back."""

    @reacts(OrderPlaced, emits=(StockReserved, StockMissing), retry=_OFTEN)
    def reserve(self, ctx: Reaction[OrderPlaced]) -> StockReserved | StockMissing:
        order, key = ctx.event.order, ctx.idempotency_key
        form = inventory.ReserveForm(order.id, tuple(inventory.Pieces(line.sku, line.quantity) for line in order.lines))
        try:
            with _all_or_nothing(ctx.connection):
                return StockReserved(order, inventory.reserve(ctx.connection, key, form), key)
        except Rejected as rejected:
            return StockMissing(rejected.reason)

    @reserve.undo(PaymentDeclined, PaymentRefunded, emits=(StockReleased,), retry=_OFTEN)
    def release(self, ctx: Reaction[_WayBack], done: StockReserved) -> StockReleased:
        inventory.release(ctx.connection, done.key)
        return StockReleased(ctx.event.reason)


class Payments(Participant, name="payments"):
    """Captures money, and gives it back."""

    @reacts(StockReserved, emits=(PaymentTaken, PaymentDeclined), retry=_OFTEN)
    def charge(self, ctx: Reaction[StockReserved]) -> PaymentTaken | PaymentDeclined:
        order, key = ctx.event.order, ctx.idempotency_key
        form = payments.ChargeForm(order.id, order.card, order.total_cents)
        try:
            with _all_or_nothing(ctx.connection):
                payment = payments.charge(ctx.connection, key, form)
        except Rejected as rejected:
            return PaymentDeclined(rejected.reason)
        return PaymentTaken(order, ctx.event.reservation, payment, key)

    @charge.undo(ParcelRefused, emits=(PaymentRefunded,), retry=_OFTEN)
    def refund(self, ctx: Reaction[ParcelRefused], done: PaymentTaken) -> PaymentRefunded:
        payments.refund(ctx.connection, done.key)
        return PaymentRefunded(ctx.event.reason)


class Shipping(Participant, name="shipping"):
    """Sends parcels, and tells customers so."""

    @reacts(PaymentTaken, emits=(ParcelSent, ParcelRefused), pivot=True, retry=_OFTEN)
    def send(self, ctx: Reaction[PaymentTaken]) -> ParcelSent | ParcelRefused:
        order, paid = ctx.event.order, ctx.event
        if sum(line.quantity for line in order.lines) > PIECES_IN_A_PARCEL_MAX:
            return ParcelRefused(f"parcel refused: over {PIECES_IN_A_PARCEL_MAX} pieces")
        form = shipping.ShipForm(order.id, paid.reservation.reservation_id, paid.payment.payment_id)
        return ParcelSent(order.customer, shipping.ship(ctx.connection, ctx.idempotency_key, form))

    @reacts(ParcelSent, emits=(OrderConfirmed,), no_undo="the customer has read it", retry=_OFTEN)
    def confirm(self, ctx: Reaction[ParcelSent]) -> OrderConfirmed:
        sent, order_id = ctx.event, order_id_of(ctx.saga_id)
        form = shipping.ConfirmForm(order_id, sent.shipment.shipment_id, sent.customer)
        shipping.confirm(ctx.connection, ctx.idempotency_key, form)
        return OrderConfirmed(sent.shipment)


ORDERS = Choreography(
    "orders",
    Orders,
    Inventory,
    Payments,
    Shipping,
    starts=(OrderPlaced,),
    completes=(OrderConfirmed,),
    compensates=(OrderCancelled,),
    deadline=600,
)

SCHEMAS = {
    "orders": ORDERS_SCHEMA,
    "inventory": inventory.SCHEMA,
    "payments": payments.SCHEMA,
    "shipping": shipping.SCHEMA,
}
PARTICIPANTS: dict[str, type[Participant]] = {
    "orders": Orders,
    "inventory": Inventory,
    "payments": Payments,
    "shipping": Shipping,
}


def place(connection: sqlite3.Connection, order: Order) -> bool:
    """Write an order down as pending, in the transaction that will publish it; False if it is there already."""
    cursor = connection.execute(
        "INSERT INTO orders (id, status) VALUES (?, 'pending') ON CONFLICT DO NOTHING", (order.id,)
    )
    return cursor.rowcount == 1


def order_id_of(saga_id: str) -> str:
    """Return the order of a saga."""
    return saga_id.removeprefix(saga_id_of(""))


def _set_status(connection: sqlite3.Connection, saga_id: str, status: str, reason: str) -> None:
    connection.execute(
        "UPDATE orders SET status = ?, reason = ? WHERE id = ? AND status = 'pending'",
        (status, reason, order_id_of(saga_id)),
    )


@contextmanager
def _all_or_nothing(connection: sqlite3.Connection) -> Generator[None, None, None]:
    """Take back what was written inside, if it raises: half of what was rejected must not stay."""
    connection.execute("SAVEPOINT effect")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK TO effect")
        connection.execute("RELEASE effect")
        raise
    connection.execute("RELEASE effect")
