"""What the typing samples speak of: a shop's values and its participants.

Imported by the good and the bad samples; read by type checkers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Order:
    id: str
    items: tuple[str, ...]
    total: int


@dataclass(frozen=True)
class Reservation:
    id: str


@dataclass(frozen=True)
class Payment:
    id: str


@dataclass(frozen=True)
class Shipment:
    id: str


@dataclass(frozen=True)
class Settled:
    amount: int


@dataclass(frozen=True)
class Book:
    ref: str


@dataclass(frozen=True)
class CancelBook:
    ref: str


@dataclass(frozen=True)
class Booked:
    ref: str


@dataclass(frozen=True)
class BookingRefused:
    reason: str


class CardDeclined(Exception): ...


class Inventory(Protocol):
    async def reserve(self, items: tuple[str, ...], *, key: str) -> Reservation: ...
    async def release(self, *, reservation_key: str, key: str) -> None: ...


class Payments(Protocol):
    async def charge(self, amount: int, *, key: str) -> Payment: ...
    async def refund(self, *, payment_key: str, key: str) -> None: ...
    async def find(self, *, key: str) -> Payment | None: ...


class Shipping(Protocol):
    async def create(self, order_id: str, reservation: str, *, key: str) -> Shipment: ...
