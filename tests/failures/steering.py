"""Failures of time, of events and of what people ask for: too late, too early, never.

Each function is one failure: it makes it happen, asserts what the page claims, and quotes what was seen.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from atone import Context, Retry, Saga, SagaStatus, Tried, pivot, step, wait_for_event
from tests.failures.shop import THRICE, Order, PlaceOrder
from tests.failures.stage import Stage, failure
from tests.runtime.world import Behaviour, Landing, World, hangs, lands, raises

BY = "--by ada"


def slowly(seconds: float) -> Behaviour:
    """Have the effect after a while."""

    async def behaviour(landing: Landing) -> str:
        await asyncio.sleep(seconds)
        return landing.land()

    return behaviour


class QuickOrder(Saga[Order], name="QuickOrder", deadline=60, late_grace=5):
    """An order that nobody wants any more after a minute."""

    def __init__(self, world: World) -> None:
        self.world = world

    @step(retry=THRICE, timeout=10)
    async def reserve(self, ctx: Context[Order]) -> str:
        return await self.world.act("reserve", ctx)

    @reserve.compensation(retry=THRICE)
    async def release(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.world.act("release", ctx, tried)

    @step(retry=Retry(attempts=100, initial=5.0, maximum=5.0, jitter=0.0), timeout=10)
    async def charge(self, ctx: Context[Order]) -> str:
        return await self.world.act("charge", ctx)

    @charge.compensation(retry=THRICE)
    async def refund(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.world.act("refund", ctx, tried)

    @pivot(reserve, charge, timeout=10)
    async def ship(self, ctx: Context[Order], reservation: str, payment: str) -> str:
        return await self.world.act("ship", ctx)


@failure("A saga's deadline passes", "a saga was undone, and nothing had failed")
async def a_deadline_that_passes(at: Stage) -> None:
    at.happens("""
        The definition says `deadline=60`, and the payment service has been down for that long. Before the point of no
        return a deadline turns the saga back, whatever retries are left. It takes nothing from the time that the undo
        may need (`rollback_deadline`).
    """)
    quick = QuickOrder(at.world)
    at.world.always("charge", raises(ConnectionError("the payment service is down")))
    at.worker(quick)
    await at.start(saga=quick)
    assert await at.settled() is SagaStatus.COMPENSATED
    assert at.world.names[-2:] == ["refund", "release"]
    assert at.world.standing("order-1") == set()
    at.tell_ledger()
    at.journal("The deadline as the cause of the turn.")
    assert "deadline" in await at.atone("show order-1")
    at.person("Nothing for this saga.")


@dataclass(frozen=True)
class Paid:
    receipt: str


class PaidOrder(Saga[Order], name="PaidOrder", late_grace=5):
    """An order that waits for its payment, and asks for a person when it does not come."""

    def __init__(self, world: World) -> None:
        self.world = world

    @step(retry=THRICE, timeout=10)
    async def reserve(self, ctx: Context[Order]) -> str:
        return await self.world.act("reserve", ctx)

    @reserve.compensation(retry=THRICE)
    async def release(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.world.act("release", ctx, tried)

    paid = wait_for_event("order.paid", Paid, timeout=3600, on_timeout="attention")


@failure("An event that is waited for does not come", "a saga needs attention; it has waited in vain")
async def an_event_that_does_not_come(at: Stage) -> None:
    at.happens("""
        A step waits for an event from outside (`wait_for_event`), in the store and not in memory. Its time-out passes.
        With `on_timeout="compensate"`, the default, the saga would turn back; here the definition asks for a person.
    """)
    order = PaidOrder(at.world)
    at.worker(order)
    await at.start(saga=order)
    assert await at.settled() is SagaStatus.NEEDS_ATTENTION
    at.tell_ledger()
    at.journal("Since when it waited, and that it did in vain.")
    await at.atone("show order-1")
    at.person("""
        Find out whether the event was sent. If it comes late, the saga takes it and goes on by itself. To wait once
        more:
    """)
    await at.atone("explain order-1")
    await at.atone(f'retry order-1 paid --reason "the bank sends it again today" {BY}')
    assert await at.status() is SagaStatus.RUNNING
    async with at.client(order) as atone:
        await atone.send_event(PaidOrder, "order-1", "order.paid", Paid("r-7"), event_id="payment-7")
    assert await at.settled() is SagaStatus.COMPLETED


@failure("An event comes before its saga", "an event was sent, and there was no such saga yet")
async def an_event_without_a_saga(at: Stage) -> None:
    at.happens("""
        The payment is told before the order is placed: two systems, two roads. The event is kept under the saga's name
        and id (`send_event(keep=)`, an hour if nothing is said), and is applied when the saga is started. One whose
        saga does not come in that time is then a dead letter.
    """)
    order = PaidOrder(at.world)
    async with at.client(order) as atone:
        await atone.send_event(PaidOrder, "order-1", "order.paid", Paid("r-7"), event_id="payment-7")
        at.worker(order)
        await asyncio.sleep(60)
        await atone.start(PaidOrder, Order(), saga_id="order-1")
    assert await at.settled() is SagaStatus.COMPLETED
    at.tell_ledger()
    at.journal("The event is the saga's second entry: it was there before the first step.")
    assert "order.paid" in await at.atone("show order-1")
    at.person("Nothing. If no saga comes, look for a wrong id at the sender.")


@failure("A cancel in time", "somebody wants a running saga undone")
async def a_cancel_in_time(at: Stage) -> None:
    at.happens("""
        The customer calls while the card is being charged. A cancel is a request in the journal, with its reason; the
        worker that runs the saga answers it. The call under way ends first: its outcome decides what there is to undo.
    """)
    at.world.script("charge", slowly(5))
    at.worker()
    await at.start()
    await at.world.reached("charge")
    at.journal("Before: what a cancel would undo.")
    await at.atone("preview order-1")
    at.person("Cancel it. `--wait 0` would not wait for the answer.")
    await at.atone(f'cancel order-1 --reason "the customer called" {BY}')
    assert await at.settled() is SagaStatus.COMPENSATED
    assert at.world.standing("order-1") == set()
    at.tell_ledger()
    at.journal("After: the request, who made it, and the way back.")
    assert "the customer called" in await at.atone("show order-1")


@failure("A cancel comes too late", "a cancel was refused")
async def a_cancel_too_late(at: Stage) -> None:
    at.happens("""
        The parcel is on its way: the point of no return is passed. The cancel is answered `TooLate`, and the saga goes
        on.
    """)
    at.world.script("send_receipt", slowly(9))
    at.worker()
    await at.start()
    await at.world.reached("send_receipt")
    at.person(
        "Ask before: `preview` says whether a cancel can still do anything. What it refuses is a matter for a new saga."
    )
    await at.atone("preview order-1")
    said = await at.atone(f'cancel order-1 --reason "the customer called" {BY}', status=1)
    assert await at.settled() is SagaStatus.COMPLETED
    at.tell_ledger()
    at.journal("The request and its answer.")
    assert "too late" in (said + await at.atone("show order-1")).lower()


@failure("A cancel meets the point of no return", "a cancel has not been answered yet")
async def a_cancel_at_the_pivot(at: Stage) -> None:
    at.happens("""
        The carrier is being asked right now when the cancel comes. Nobody can say yet whether it is too late, so the
        pivot's outcome answers: if it lands, the cancel was too late; if it is refused, the saga turns back.
    """)
    at.world.script("ship", slowly(5))
    at.worker()
    await at.start()
    await at.world.reached("ship")
    at.person("Wait for the answer.")
    await at.atone("preview order-1")
    await at.atone(f'cancel order-1 --reason "the customer called" {BY} --wait 30', status=1)
    assert await at.settled() is SagaStatus.COMPLETED
    at.tell_ledger()
    at.journal("The request came during the attempt, and its answer with the outcome.")
    await at.atone("show order-1")


@failure("A start is repeated with another input", "`ConflictingStart` at a caller")
async def a_start_with_another_input(at: Stage) -> None:
    from atone.errors import ConflictingStart

    at.happens("""
        A client repeats its request. The same name, id and input is the same saga, and starts nothing new. With another
        input it is a mistake: one of the two orders would be lost without a word, so the second start is refused.
    """)
    at.worker()
    await at.start(cents=500)
    await at.start(cents=500)
    assert await at.settled() is SagaStatus.COMPLETED
    try:
        await at.start(cents=900)
    except ConflictingStart as error:
        at.quote(f"{type(error).__name__}: {error}")
    else:
        raise AssertionError("it was not refused")
    assert at.world.count("charge") == 1
    at.tell_ledger()
    at.journal("The first order, and nothing of the second.")
    await at.atone("show order-1 --payloads")
    at.person("Mend the caller: an id names one order for ever.")


@failure("A worker is stopped in the middle of a call", "an attempt was cut off by a deployment")
async def a_worker_that_is_stopped(at: Stage) -> None:
    at.happens("""
        A deployment: SIGTERM. A shutdown is no cancel: nothing is undone for it. The worker takes no new work, gives
        the calls under way `grace_seconds`, and retires its lease. What could not end is unknown, and another worker
        goes on at once, without waiting for a lease.
    """)
    at.world.script("charge", hangs, lands)
    from atone import Orchestrator
    from atone.orchestrator import Limits
    from tests.failures.stage import Shared

    async def deployed() -> None:
        limits = Limits(poll_seconds=1.0, grace_seconds=2.0, cancel_grace_seconds=1.0)
        options = {"allow_volatile": True, "limits": limits}
        async with Orchestrator(Shared(at.memory), sagas=[PlaceOrder(at.world)], **options):
            await at.world.reached("charge")

    old = at.sim.process("old", deployed)
    await at.start()
    await old.wait()
    at.worker(name="new")
    assert await at.settled() is SagaStatus.COMPLETED
    assert (at.world.count("charge"), at.world.effects["order-1", "charge"]) == (2, 1)
    at.tell_ledger()
    at.journal("The attempt that was cut off, and the next one.")
    await at.atone("show order-1")
    at.person("Nothing. Give `grace_seconds` as long as most calls take, and the supervisor a little longer than that.")
