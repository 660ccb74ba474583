"""Values and a saga that the tests of the definition layer share.

Owns no test. `refusal` runs a function that makes a wrong class and returns what the layer says about it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from atone.definition import (
    CannotTell,
    Context,
    Landed,
    NotLanded,
    Retry,
    Saga,
    Tried,
    pivot,
    retriable,
    step,
)
from atone.errors import DefinitionError


@dataclass(frozen=True)
class Order:
    id: str
    total: int = 0


@dataclass(frozen=True)
class Reservation:
    id: str


@dataclass(frozen=True)
class Payment:
    id: str


@dataclass(frozen=True)
class Shipment:
    id: str


class CardDeclined(Exception):
    """The bank said no, surely without effect."""


class PlaceOrder(Saga[Order]):
    """The saga of the README: two steps that can be undone, a pivot, and one that must follow."""

    @step(retry=Retry(attempts=5), timeout=10)
    async def reserve_inventory(self, ctx: Context[Order]) -> Reservation:
        return Reservation(ctx.input.id)

    @reserve_inventory.compensation
    async def release_inventory(self, ctx: Context[Order], tried: Tried[Reservation]) -> None: ...

    @step(timeout=30, rejects=(CardDeclined,))
    def process_payment(self, ctx: Context[Order]) -> Payment:
        return Payment(ctx.input.id)

    @process_payment.compensation(retry=Retry(attempts=7), timeout=60)
    def refund_payment(self, ctx: Context[Order], tried: Tried[Payment]) -> None: ...

    @process_payment.probe(timeout=2)
    async def find_payment(
        self, ctx: Context[Order], tried: Tried[Payment]
    ) -> Landed[Payment] | NotLanded | CannotTell:
        return NotLanded()

    @pivot(reserve_inventory, process_payment)
    async def create_shipment(self, ctx: Context[Order], reservation: Reservation, payment: Payment) -> Shipment:
        return Shipment(reservation.id + payment.id)

    @retriable(create_shipment)
    def send_confirmation(self, ctx: Context[Order], shipment: Shipment) -> None: ...


def refusal(define: Callable[[], object]) -> str:
    """Return the message with which the definition layer refuses what `define` does."""
    with pytest.raises(DefinitionError) as caught:
        define()
    return str(caught.value)
