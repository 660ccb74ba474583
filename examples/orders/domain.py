"""What an order is, and what each participant hands back.

Owns the words that the saga, the clients, the services and the books share, with the limits each value must keep.
Holds no behaviour and knows neither HTTP nor Atone. Money is whole cents, stock is whole pieces.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

# Names travel in URLs, headers and saga ids; a narrow alphabet keeps every one of these safe.
Name = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]
CardNumber = Annotated[str, Meta(pattern=r"\A[0-9]{12,19}\Z")]
Quantity = Annotated[int, Meta(ge=1, le=1_000_000)]
Cents = Annotated[int, Meta(ge=0, le=1_000_000_000)]
TotalCents = Annotated[int, Meta(ge=0, le=1_000_000_000_000_000)]


@dataclass(frozen=True, slots=True)
class Line:
    """So many pieces of one article, at a price each."""

    sku: Name
    quantity: Quantity
    price_cents: Cents


@dataclass(frozen=True, slots=True)
class Order:
    """What a customer asked for: one saga is started for each."""

    id: Name
    customer: Annotated[str, Meta(min_length=1, max_length=200)]
    card: CardNumber
    lines: Annotated[tuple[Line, ...], Meta(min_length=1, max_length=100)]
    total_cents: TotalCents


@dataclass(frozen=True, slots=True)
class Reservation:
    """Inventory's answer: the pieces are set aside."""

    reservation_id: str


@dataclass(frozen=True, slots=True)
class Payment:
    """Payments' answer: the money is captured."""

    payment_id: str


@dataclass(frozen=True, slots=True)
class Shipment:
    """Shipping's answer: the parcel is on its way and cannot be called back."""

    shipment_id: str
