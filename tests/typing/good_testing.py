"""Right use of `atone.testing`: both checkers must pass every line in their strictest mode."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import assert_type

from domain import Order

from atone import Context, Saga, Tried, step
from atone.testing import (
    AfterEffect,
    FakeParticipant,
    Report,
    crash_everywhere,
    crossing,
    fail_each_step,
    remote,
    repeat_every_action,
    repeat_every_compensation,
    verify,
)


class Shop:
    def __init__(self) -> None:
        self.payments = remote(FakeParticipant("payments", honours_keys=False))

    def books(self) -> dict[str, int]:
        return self.payments.ledger


class Pay(Saga[Order]):
    def __init__(self, shop: Shop) -> None:
        self.shop = shop

    @step(barrier=True)
    async def charge(self, ctx: Context[Order]) -> str:
        return await self.shop.payments.act("cents", ctx.input.total, key=ctx.idempotency_key, result="p")

    @charge.compensation
    async def refund(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.shop.payments.undo("cents", of=tried.idempotency_key, key=ctx.idempotency_key)


@asynccontextmanager
async def opened() -> AsyncGenerator[Shop, None]:
    yield Shop()


def verified(order: Order) -> None:
    assert_type(verify(Pay, order, participants=Shop, ledger=Shop.books), Report)
    assert_type(verify(Pay, order, participants=Shop, ledger=Shop.books).raise_if_found(), Report)
    verify(lambda shop: Pay(shop=shop), order, participants=Shop, ledger=lambda shop: shop.books(), schedules=5)
    crash_everywhere(Pay, order, participants=opened, ledger=Shop.books, events={"paid": 1})
    repeat_every_action(Pay, order, participants=Shop, ledger=Shop.books, runs_max=10)
    repeat_every_compensation(Pay, order, participants=Shop, ledger=Shop.books, findings_max=1)
    report = fail_each_step(Pay, order, participants=Shop, ledger=Shop.books, only="charge:fails")
    assert_type([finding.replay for finding in report.findings], list[str])


async def fakes(shop: Shop) -> None:
    shop.payments.script("cents", ConnectionError(), AfterEffect(TimeoutError()), None)
    assert_type(await shop.payments.act("cents", 1, key="k", result=7), int)

    async def request() -> int:
        return 1

    assert_type(await crossing("POST /charges", request), int)
