"""The events of an order: what happened, in the past tense, with all that the next service needs to know.

Owns the contract between the services, and nothing else: who listens to what is said by `participants`. An event's name
is the topic that it travels on.
"""

from __future__ import annotations

from dataclasses import dataclass

from atone.choreography import event
from examples.orders.domain import Order, Payment, Reservation, Shipment


@event("order.placed")
@dataclass(frozen=True, slots=True)
class OrderPlaced:
    """A customer wants this."""

    order: Order


@event("stock.reserved")
@dataclass(frozen=True, slots=True)
class StockReserved:
    """The pieces are set aside, under the key of the action that did it."""

    order: Order
    reservation: Reservation
    key: str


@event("stock.missing", failure=True)
@dataclass(frozen=True, slots=True)
class StockMissing:
    """There is too little of something; nothing was set aside."""

    reason: str


@event("stock.released")
@dataclass(frozen=True, slots=True)
class StockReleased:
    """The pieces are back on the shelf."""

    reason: str


@event("payment.taken")
@dataclass(frozen=True, slots=True)
class PaymentTaken:
    """The money is captured."""

    order: Order
    reservation: Reservation
    payment: Payment
    key: str


@event("payment.declined", failure=True)
@dataclass(frozen=True, slots=True)
class PaymentDeclined:
    """The card was declined; nothing was captured."""

    reason: str


@event("payment.refunded")
@dataclass(frozen=True, slots=True)
class PaymentRefunded:
    """The money went back."""

    reason: str


@event("parcel.refused", failure=True)
@dataclass(frozen=True, slots=True)
class ParcelRefused:
    """No carrier takes it; nothing was sent."""

    reason: str


@event("parcel.sent")
@dataclass(frozen=True, slots=True)
class ParcelSent:
    """It is on its way, and cannot be called back."""

    customer: str
    shipment: Shipment


@event("order.confirmed")
@dataclass(frozen=True, slots=True)
class OrderConfirmed:
    """The customer was told: the order is done."""

    shipment: Shipment


@event("order.cancelled")
@dataclass(frozen=True, slots=True)
class OrderCancelled:
    """All that was done for it is undone."""

    reason: str
