"""The shop as it should be: four services that keep their books, and the saga that places an order with them.

Owns nothing wrong; `bugs` takes one thing at a time and spoils it. Each service works as if on a database of its own:
whatever stands between two awaits is one transaction.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from atone import CannotTell, Context, Landed, NotLanded, Reject, Retry, Saga, Tried, pivot, retriable, step
from atone.testing import remote


@dataclass(frozen=True)
class Order:
    id: str = "7"
    sku: str = "cup"
    pieces: int = 2
    cents: int = 4200
    points: int = 300
    is_gift: bool = True


ORDER = Order()


class Inventory:
    """Shelves, and what was taken off them under which key."""

    def __init__(self) -> None:
        self.on_hand: Counter[str] = Counter({"cup": 10})
        self.taken: dict[str, tuple[str, int]] = {}
        self.refused: set[str] = set()

    async def reserve(self, sku: str, pieces: int, key: str) -> str:
        await asyncio.sleep(0.01)
        if key in self.refused:
            raise Reject("this reservation was released before it was made")
        if key not in self.taken:
            self.taken[key] = (sku, pieces)
            self.on_hand[sku] -= pieces
        return f"reservation of {pieces} {sku}"

    async def release(self, reservation_key: str, sku: str, pieces: int) -> None:
        await asyncio.sleep(0.01)
        if reservation_key not in self.refused:
            self.refused.add(reservation_key)
            if reservation_key in self.taken:
                self.on_hand[sku] += pieces


@dataclass(frozen=True)
class Payment:
    id: str
    cents: int


class Payments:
    """Money captured and given back; a customer of a while gets a tenth off."""

    takes_seconds = 0.01

    def __init__(self) -> None:
        self.kept_cents = 0
        self.charges: dict[str, Payment] = {}
        self.refunds: set[str] = set()
        self.refused: set[str] = set()

    async def charge(self, cents: int, key: str) -> Payment:
        await asyncio.sleep(self.takes_seconds)
        if key in self.refused:
            raise Reject("this charge was refunded before it was made")
        if key not in self.charges:
            self.charges[key] = Payment(f"payment {len(self.charges) + 1}", cents * 9 // 10)
            self.kept_cents += self.charges[key].cents
        return self.charges[key]

    async def refund(self, charge_key: str, cents: int, key: str) -> None:
        await asyncio.sleep(self.takes_seconds)
        if key not in self.refunds:
            self.refunds.add(key)
            if charge_key in self.charges and charge_key not in self.refused:
                self.kept_cents -= cents
            self.refused.add(charge_key)

    async def find(self, charge_key: str) -> Payment | None:
        await asyncio.sleep(0.01)
        return self.charges.get(charge_key)


class Points:
    """What customers have collected."""

    def __init__(self) -> None:
        self.balance = 1000
        self.redeemed: dict[str, int] = {}
        self.returned: set[str] = set()

    async def redeem(self, points: int, key: str) -> None:
        await asyncio.sleep(0.01)
        if key in self.returned:
            raise Reject("these points were given back before")
        if key not in self.redeemed:
            self.redeemed[key] = points
            self.balance -= points

    async def give_back(self, redeem_key: str) -> None:
        await asyncio.sleep(0.01)
        if redeem_key not in self.returned:
            self.returned.add(redeem_key)
            self.balance += self.redeemed.get(redeem_key, 0)


class Shipping:
    """Parcels and letters; nothing of it comes back."""

    def __init__(self) -> None:
        self.parcels: dict[str, bool] = {}
        self.letters: set[str] = set()
        self.ribbon_metres = 100

    async def send(self, is_wrapped: bool, key: str) -> str:
        await asyncio.sleep(0.01)
        if key not in self.parcels:
            self.parcels[key] = is_wrapped
        return f"parcel {key[-4:]}"

    async def wrap(self, key: str) -> bool:
        await asyncio.sleep(0.01)
        return True

    async def confirm(self, key: str) -> None:
        await asyncio.sleep(0.01)
        self.letters.add(key)

    async def cut_ribbon(self) -> None:
        self.ribbon_metres -= 1


@dataclass
class Shop:
    """All of them, at the other end of a network."""

    inventory: Inventory = field(default_factory=Inventory)
    payments: Payments = field(default_factory=Payments)
    points: Points = field(default_factory=Points)
    shipping: Shipping = field(default_factory=Shipping)

    def __post_init__(self) -> None:
        self.inventory, self.payments = remote(self.inventory), remote(self.payments)
        self.points, self.shipping = remote(self.points), remote(self.shipping)

    def books(self) -> dict[str, Any]:
        """What counts in the end."""
        return {
            "cups": self.inventory.on_hand["cup"],
            "cents": self.payments.kept_cents,
            "points": self.points.balance,
            "parcels": len(self.shipping.parcels),
            "letters": len(self.shipping.letters),
            "ribbon": self.shipping.ribbon_metres,
        }


class Steps:
    """The code of the steps; a bug replaces one method of it."""

    payment_timeout = 10.0
    ships_first = False

    def __init__(self, shop: Shop) -> None:
        self.shop = shop

    async def reserve(self, ctx: Context[Order]) -> str:
        return await self.shop.inventory.reserve(ctx.input.sku, ctx.input.pieces, ctx.idempotency_key)

    async def release(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.shop.inventory.release(tried.idempotency_key, ctx.input.sku, ctx.input.pieces)

    async def redeem(self, ctx: Context[Order]) -> None:
        await self.shop.points.redeem(ctx.input.points, ctx.idempotency_key)

    async def give_back(self, ctx: Context[Order], tried: Tried[None]) -> None:
        await self.shop.points.give_back(tried.idempotency_key)

    async def charge(self, ctx: Context[Order]) -> Payment:
        return await self.shop.payments.charge(ctx.input.cents, ctx.idempotency_key)

    async def refund(self, ctx: Context[Order], tried: Tried[Payment]) -> None:
        payment = tried.result or await self.shop.payments.find(tried.idempotency_key)
        cents = 0 if payment is None else payment.cents
        await self.shop.payments.refund(tried.idempotency_key, cents, ctx.idempotency_key)

    async def find_payment(
        self, ctx: Context[Order], tried: Tried[Payment]
    ) -> Landed[Payment] | NotLanded | CannotTell:
        found = await self.shop.payments.find(tried.idempotency_key)
        return NotLanded() if found is None else Landed(found)

    async def is_gift(self, ctx: Context[Order]) -> bool:
        return ctx.input.is_gift

    async def wrap(self, ctx: Context[Order]) -> bool:
        return await self.shop.shipping.wrap(ctx.idempotency_key)

    async def send(self, ctx: Context[Order], is_wrapped: bool) -> str:
        return await self.shop.shipping.send(is_wrapped, ctx.idempotency_key)

    async def confirm(self, ctx: Context[Order]) -> None:
        await self.shop.shipping.confirm(ctx.idempotency_key)


_A_FEW = Retry(attempts=3, initial=0.1, maximum=1.0)


def order_saga(steps: type[Steps] = Steps) -> Callable[[Shop], Saga[Order]]:  # noqa: C901 - ten methods of a class
    """Return the saga whose steps run that code."""

    class PlaceOrder(Saga[Order]):
        def __init__(self, shop: Shop) -> None:
            self.code = steps(shop)

        @step(retry=_A_FEW, timeout=5, barrier=True)
        async def reserve_stock(self, ctx: Context[Order]) -> str:
            return await self.code.reserve(ctx)

        @reserve_stock.compensation(retry=_A_FEW)
        async def release_stock(self, ctx: Context[Order], tried: Tried[str]) -> None:
            await self.code.release(ctx, tried)

        @step(retry=_A_FEW, timeout=5, barrier=True)
        async def redeem_points(self, ctx: Context[Order]) -> None:
            await self.code.redeem(ctx)

        @redeem_points.compensation(retry=_A_FEW)
        async def give_points_back(self, ctx: Context[Order], tried: Tried[None]) -> None:
            await self.code.give_back(ctx, tried)

        @step(retry=_A_FEW, timeout=steps.payment_timeout)
        async def charge_card(self, ctx: Context[Order]) -> Payment:
            return await self.code.charge(ctx)

        @charge_card.compensation(retry=_A_FEW)
        async def refund_card(self, ctx: Context[Order], tried: Tried[Payment]) -> None:
            await self.code.refund(ctx, tried)

        @charge_card.probe
        async def find_payment(
            self, ctx: Context[Order], tried: Tried[Payment]
        ) -> Landed[Payment] | NotLanded | CannotTell:
            return await self.code.find_payment(ctx, tried)

        @step(retry=_A_FEW, timeout=5, no_compensation="a wrapped cup is as good as one that is not")
        async def wrap_gift(self, ctx: Context[Order]) -> bool:
            return await self.code.wrap(ctx)

        @wrap_gift.when
        async def is_gift(self, ctx: Context[Order]) -> bool:
            return await self.code.is_gift(ctx)

        @pivot(retry=_A_FEW, timeout=5)
        async def send_parcel(self, ctx: Context[Order]) -> str:
            return await self.code.send(ctx, bool(ctx.result_or_none(PlaceOrder.wrap_gift)))

        @retriable(retry=_A_FEW, timeout=5)
        async def send_letter(self, ctx: Context[Order]) -> None:
            await self.code.confirm(ctx)

    return PlaceOrder
