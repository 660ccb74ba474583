"""`verify` on a small shop: what it runs through, what it finds when something is taken away, and its replay."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from functools import cache

import pytest

from atone import Context, Saga, Tried, pivot, retriable, step
from atone.testing import (
    FakeParticipant,
    Report,
    SagaBroken,
    crash_everywhere,
    fail_each_step,
    repeat_every_action,
    repeat_every_compensation,
    verify,
)


@dataclass(frozen=True)
class Order:
    sku: str
    cents: int


ORDER = Order("cup", 4200)


class Shop:
    def __init__(self, **payments: bool) -> None:
        self.inventory = FakeParticipant("inventory")
        self.payments = FakeParticipant("payments", **payments)
        self.shipping = FakeParticipant("shipping")

    def books(self) -> object:
        return self.inventory.ledger, self.payments.ledger, self.shipping.ledger


class PlaceOrder(Saga[Order]):
    def __init__(self, shop: Shop) -> None:
        self.shop = shop

    @step(barrier=True)
    async def reserve(self, ctx: Context[Order]) -> str:
        return await self.shop.inventory.act(ctx.input.sku, key=ctx.idempotency_key, result="r-1")

    @reserve.compensation
    async def release(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.shop.inventory.undo(ctx.input.sku, of=tried.idempotency_key, key=ctx.idempotency_key)

    @step()
    def charge(self, ctx: Context[Order]) -> str:
        return self.shop.payments.act_blocking("card", ctx.input.cents, key=ctx.idempotency_key, result="p-1")

    @charge.compensation
    def refund(self, ctx: Context[Order], tried: Tried[str]) -> None:
        self.shop.payments.undo_blocking("card", of=tried.idempotency_key, key=ctx.idempotency_key)

    @pivot(reserve, charge)
    async def ship(self, ctx: Context[Order], reservation: str, payment: str) -> str:
        return await self.shop.shipping.act("parcel", key=ctx.idempotency_key, result=f"{reservation} {payment}")

    @retriable(ship)
    async def confirm(self, ctx: Context[Order], shipment: str) -> None:
        await self.shop.shipping.act("mail", key=ctx.idempotency_key)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "atone")


@cache
def _verified() -> Report:
    return verify(PlaceOrder, ORDER, participants=Shop, ledger=Shop.books, runs_max=300)


def test_a_saga_that_keeps_its_promise_is_found_to() -> None:
    """Hundreds of runs, plain steps and async ones, and nothing found: no false alarm."""
    report = _verified().raise_if_found()

    assert report
    assert report.runs > 250
    ends = {(row.step, row.fault): dict(row.ends) for row in report.rows}
    assert ends["charge", "rejected"] == {"compensated": 1}
    assert ends["charge", "reply lost"] == {"completed": 1}
    assert ends["charge", "compensation fails, every time (undone)"] == {"attention, then compensated": 1}
    assert ends["ship", "times out after its effect, every time"] == {"attention, then completed": 1}
    assert ends["confirm", "fails, 5 times"] == {"completed": 1}


def test_what_is_left_out_is_said() -> None:
    """A step without a barrier, and the runs beyond the bound, stand in the report."""
    left_out = {(one.step, one.what) for one in _verified().uncovered}
    assert ("charge", "lands-after-the-end") in left_out
    assert ("reserve", "lands-after-the-end") not in left_out
    assert ("(saga)", "killed at each point beside another fault") in left_out


def test_a_participant_that_ignores_keys_is_found_and_the_finding_replays() -> None:
    """A card is charged twice; the very run is repeated by its name."""

    def careless() -> Shop:
        return Shop(honours_keys=False)

    report = repeat_every_action(PlaceOrder, ORDER, participants=careless, ledger=Shop.books)

    with pytest.raises(SagaBroken, match="it is completed, but the ledger says") as broken:
        report.raise_if_found()
    assert "replay: only='charge:twice'" in str(broken.value)
    again = verify(PlaceOrder, ORDER, participants=careless, ledger=Shop.books, only="charge:twice")
    assert again.findings == report.findings[:1]
    assert any("charge, action 1 is called again" in line for line in again.findings[0].timeline)


def test_each_helper_does_its_part() -> None:
    """Crashes at every point, repeats of actions, repeats of compensations, failures: each without a finding here."""
    for helper in (crash_everywhere, repeat_every_action, repeat_every_compensation, fail_each_step):
        report = helper(PlaceOrder, ORDER, participants=Shop, ledger=Shop.books).raise_if_found()
        assert report.runs > 10
        assert report.helper == helper.__name__


def test_a_saga_can_be_verified_within_a_running_loop() -> None:
    """An async test calls it as a plain one does."""

    async def main() -> Report:
        return crash_everywhere(PlaceOrder, ORDER, participants=Shop, ledger=Shop.books)

    assert asyncio.run(main())
