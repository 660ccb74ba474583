"""Sixteen mistakes, each alone in the shop: what was written instead, and what it looks like at first sight.

Owns the list, and for each bug the helpers that find it. They are of the kind that passes every test of the happy path,
and most tests of a failure: it takes a repeat, a crash, a lost reply or a late one to see them.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from atone import CannotTell, Context, Landed, NotLanded, Reject, Retry, Saga, Tried, pivot, retriable, step
from tests.planted.app import Inventory, Order, Payment, Payments, Shop, Steps, order_saga

CRASH, ACTIONS, UNDOS, FAIL = (
    "crash_everywhere",
    "repeat_every_action",
    "repeat_every_compensation",
    "fail_each_step",
)


PLACE_ORDER = order_saga()


@dataclass(frozen=True)
class Bug:
    """A mistake: a name, what was done wrong, the saga and the shop with it, and the helpers that find it."""

    name: str
    mistake: str
    found_by: tuple[str, ...]
    saga: Callable[[Shop], Saga[Order]] = PLACE_ORDER
    shop: Callable[[], Shop] = Shop


# In the participants


class ChargesWithoutKey(Payments):
    async def charge(self, cents: int, key: str) -> Payment:
        return await super().charge(cents, f"{key} {uuid.uuid4()}")


class RefundsEachTime(Payments):
    async def refund(self, charge_key: str, cents: int, key: str) -> None:
        await asyncio.sleep(self.takes_seconds)
        if charge_key in self.charges:
            self.kept_cents -= cents
        self.refused.add(charge_key)


class ReleasesWhatWasNeverReserved(Inventory):
    async def release(self, reservation_key: str, sku: str, pieces: int) -> None:
        await asyncio.sleep(0.01)
        if reservation_key not in self.refused:
            self.refused.add(reservation_key)
            self.on_hand[sku] += pieces


class ReservesAfterRelease(Inventory):
    async def reserve(self, sku: str, pieces: int, key: str) -> str:
        self.refused.discard(key)
        return await super().reserve(sku, pieces, key)


class LooksThenReserves(Inventory):
    async def reserve(self, sku: str, pieces: int, key: str) -> str:
        if key in self.refused:
            raise Reject("this reservation was released before it was made")
        if key not in self.taken:
            on_hand = self.on_hand[sku]
            await asyncio.sleep(0.01)  # the row is read, and written after a while
            self.taken[key] = (sku, pieces)
            self.on_hand[sku] -= pieces if on_hand else 0
        return f"reservation of {pieces} {sku}"


class SlowPayments(Payments):
    takes_seconds = 40.0

    async def charge(self, cents: int, key: str) -> Payment:
        self.refused.discard(key)
        return await super().charge(cents, key)


# In the saga's code


class NewKeyEachAttempt(Steps):
    async def charge(self, ctx: Context[Order]) -> Payment:
        return await self.shop.payments.charge(ctx.input.cents, f"{ctx.idempotency_key}-{ctx.attempt}")


class SwallowsTheError(Steps):
    async def give_back(self, ctx: Context[Order], tried: Tried[None]) -> None:
        try:
            await super().give_back(ctx, tried)
        except ConnectionError:
            logging.getLogger("shop").warning("points could not be given back")


class RemembersInMemory(Steps):
    payment: Payment | None = None

    async def charge(self, ctx: Context[Order]) -> Payment:
        self.payment = await super().charge(ctx)
        return self.payment

    async def refund(self, ctx: Context[Order], tried: Tried[Payment]) -> None:
        if self.payment is not None:
            await self.shop.payments.refund(tried.idempotency_key, self.payment.cents, ctx.idempotency_key)


class TakesAnErrorForSuccess(Steps):
    async def charge(self, ctx: Context[Order]) -> Payment:
        try:
            return await super().charge(ctx)
        except ConnectionError:
            return Payment("pending", ctx.input.cents)


class RejectsWhatIsUnknown(Steps):
    async def charge(self, ctx: Context[Order]) -> Payment:
        try:
            return await super().charge(ctx)
        except ConnectionError as error:
            raise Reject("the payment service is away") from error


class SplitsTheMoney(Steps):
    """Takes a fee in points beside the money, and gives it back only if the card is declined."""

    async def charge(self, ctx: Context[Order]) -> Payment:
        await self.shop.points.redeem(50, f"fee {ctx.idempotency_key}")
        return await super().charge(ctx)


class CountsInWhen(Steps):
    async def is_gift(self, ctx: Context[Order]) -> bool:
        await self.shop.shipping.cut_ribbon()
        return ctx.input.is_gift


class ProbeThatLies(Steps):
    async def find_payment(
        self, ctx: Context[Order], tried: Tried[Payment]
    ) -> Landed[Payment] | NotLanded | CannotTell:
        found = await self.shop.payments.find(tried.idempotency_key)
        return Landed(found or Payment("surely there", ctx.input.cents))


class RefundsTheListPrice(Steps):
    async def refund(self, ctx: Context[Order], tried: Tried[Payment]) -> None:
        await self.shop.payments.refund(tried.idempotency_key, ctx.input.cents, ctx.idempotency_key)


class Impatient(Steps):
    payment_timeout = 10.0


_A_FEW = Retry(attempts=3, initial=0.1, maximum=1.0)


class ShipsBeforeItIsPaid(Saga[Order]):
    """The parcel is a step like any other, and the card may be declined when it is gone."""

    def __init__(self, shop: Shop) -> None:
        self.code = Steps(shop)

    @step(retry=_A_FEW, timeout=5, no_compensation="a parcel can't be called back")
    async def send_parcel(self, ctx: Context[Order]) -> str:
        return await self.code.send(ctx, False)

    @pivot(retry=_A_FEW, timeout=5)
    async def charge_card(self, ctx: Context[Order]) -> Payment:
        return await self.code.charge(ctx)

    @retriable(retry=_A_FEW, timeout=5)
    async def send_letter(self, ctx: Context[Order]) -> None:
        await self.code.confirm(ctx)


BUGS = (
    Bug(
        "no key",
        "payments charges without looking at the idempotency key",
        (CRASH, ACTIONS, UNDOS, FAIL),
        shop=lambda: Shop(payments=ChargesWithoutKey()),
    ),
    Bug(
        "a new key each time",
        "the key of the charge contains the attempt's number",
        (CRASH, ACTIONS, UNDOS, FAIL),
        order_saga(NewKeyEachAttempt),
    ),
    Bug(
        "an undo that counts twice",
        "payments refunds as often as it is asked",
        (CRASH, UNDOS, FAIL),
        shop=lambda: Shop(payments=RefundsEachTime()),
    ),
    Bug(
        "an undo of nothing",
        "inventory puts back pieces that were never taken",
        (FAIL,),
        shop=lambda: Shop(inventory=ReleasesWhatWasNeverReserved()),
    ),
    Bug(
        "no barrier",
        "the step says barrier=True, but inventory reserves after a release",
        (FAIL,),
        shop=lambda: Shop(inventory=ReservesAfterRelease()),
    ),
    Bug(
        "look, then write",
        "inventory looks for the key, does something else, then reserves",
        (ACTIONS,),
        shop=lambda: Shop(inventory=LooksThenReserves()),
    ),
    Bug(
        "swallowed",
        "an undo that fails is logged and counts as done",
        (FAIL,),
        order_saga(SwallowsTheError),
    ),
    Bug(
        "in memory",
        "what is to be refunded is remembered on the saga's object",
        (CRASH, FAIL),
        order_saga(RemembersInMemory),
    ),
    Bug(
        "an error is a success",
        "a lost connection is taken for a payment that is pending",
        (FAIL,),
        order_saga(TakesAnErrorForSuccess),
    ),
    Bug(
        "unknown is refused",
        "a lost connection is told as Reject, so nothing is undone",
        (FAIL,),
        order_saga(RejectsWhatIsUnknown),
    ),
    Bug(
        "half of the money",
        "one step takes from two services, and its undo gives back to one",
        (CRASH, ACTIONS, UNDOS, FAIL),
        order_saga(SplitsTheMoney),
    ),
    Bug(
        "an effect in a question",
        "`when` cuts the ribbon that the gift is wrapped with",
        (CRASH, ACTIONS, UNDOS, FAIL),
        order_saga(CountsInWhen),
    ),
    Bug(
        "a probe that lies",
        "a payment that can't be found is said to have landed",
        (CRASH, FAIL),
        order_saga(ProbeThatLies),
    ),
    Bug(
        "the wrong amount",
        "the list price is refunded, not what was charged",
        (CRASH, ACTIONS, UNDOS, FAIL),
        order_saga(RefundsTheListPrice),
    ),
    Bug(
        "impatient",
        "the step gives up after 10 s, payments takes 40",
        (CRASH, ACTIONS, UNDOS, FAIL),
        order_saga(Impatient),
        lambda: Shop(payments=SlowPayments()),
    ),
    Bug(
        "no way back",
        "the parcel leaves before the card is charged",
        (FAIL,),
        ShipsBeforeItIsPaid,
    ),
)
