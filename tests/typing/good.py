"""Right use of the definition layer: both checkers must pass every line in their strictest mode.

Each thing that users write stands here once, async and plain. Read by type checkers; the tests also import it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import timedelta
from typing import assert_never, assert_type

from domain import (
    Book,
    Booked,
    BookingRefused,
    CancelBook,
    CardDeclined,
    Inventory,
    Order,
    Payment,
    Payments,
    Reservation,
    Settled,
    Shipment,
    Shipping,
)

from atone import (
    CannotTell,
    Compensated,
    Completed,
    Context,
    Failed,
    Landed,
    NeedsAttention,
    NotLanded,
    Orchestrator,
    Retry,
    Saga,
    Succeeded,
    Tried,
    Unknown,
    command,
    delay,
    pivot,
    retriable,
    step,
    wait_for_event,
)
from atone.definition import Step, definition_of


class PlaceOrder(Saga[Order], version=1):
    def __init__(self, inventory: Inventory, payments: Payments, shipping: Shipping) -> None:
        self.inventory, self.payments, self.shipping = inventory, payments, shipping

    @step(retry=Retry(attempts=5), timeout=10)
    async def reserve_inventory(self, ctx: Context[Order]) -> Reservation:
        return await self.inventory.reserve(ctx.input.items, key=ctx.idempotency_key)

    @reserve_inventory.compensation
    async def release_inventory(self, ctx: Context[Order], tried: Tried[Reservation]) -> None:
        await self.inventory.release(reservation_key=tried.idempotency_key, key=ctx.idempotency_key)

    @step(timeout=30, rejects=(CardDeclined,), after=(), deadline=timedelta(minutes=5))
    async def process_payment(self, ctx: Context[Order]) -> Payment:
        return await self.payments.charge(ctx.input.total, key=ctx.idempotency_key)

    @process_payment.compensation(retry=Retry(attempts=20), timeout=timedelta(minutes=1))
    async def refund_payment(self, ctx: Context[Order], tried: Tried[Payment]) -> None:
        match tried.outcome:
            case Succeeded(payment):
                assert_type(payment, Payment)
            case Unknown():
                pass
        await self.payments.refund(payment_key=tried.idempotency_key, key=ctx.idempotency_key)

    @process_payment.probe
    async def find_payment(
        self, ctx: Context[Order], tried: Tried[Payment]
    ) -> Landed[Payment] | NotLanded | CannotTell:
        payment = await self.payments.find(key=tried.idempotency_key)
        return Landed(payment) if payment else NotLanded()

    cool_off = delay(timedelta(days=1))
    settled = wait_for_event("payment.settled", Settled, timeout=timedelta(hours=1))

    @pivot(reserve_inventory, settled, deadline=3600)
    async def create_shipment(self, ctx: Context[Order], reservation: Reservation, settled: Settled) -> Shipment:
        return await self.shipping.create(ctx.input.id, reservation.id, key=f"{ctx.idempotency_key}-{settled.amount}")

    delivered = wait_for_event("shipment.delivered", str, timeout=86400, on_timeout="attention")

    @retriable(create_shipment, delivered, timeout=5, at_most_once=True)
    async def send_confirmation(self, ctx: Context[Order], shipment: Shipment, note: str) -> None:
        print(ctx.tenant, shipment.id, note)


class PlainFunctions(Saga[Order], name="Plain", deadline=timedelta(hours=1), on_compensation_failure="halt"):
    """Everything in plain functions, and the handlers in each form."""

    @step(at_most_once=True, barrier=True, on_unknown="backward")
    def a(self, ctx: Context[Order]) -> Reservation:
        return Reservation(ctx.saga_id)

    @a.compensation
    def undo_a(self, ctx: Context[Order], tried: Tried[Reservation]) -> None:
        print(ctx.attempt, tried.result)

    @a.probe(retry=Retry(attempts=2), timeout=1)
    def find_a(self, ctx: Context[Order], tried: Tried[Reservation]) -> Landed[Reservation] | CannotTell:
        return CannotTell() if tried.result is None else Landed(tried.result)

    @step(no_compensation="a quotation binds nobody")
    def b(self, ctx: Context[Order]) -> int | None:
        return ctx.input.total or None

    @b.when
    def big(self, ctx: Context[Order]) -> bool:
        return ctx.input.total > 100

    @step(a, no_compensation="read only")
    def c(self, ctx: Context[Order], reservation: Reservation) -> Payment:
        quoted = ctx.result_or_none(PlainFunctions.b)
        assert_type(quoted, int | None)
        return Payment(reservation.id if quoted is None else str(quoted))

    @c.when
    async def slow_question(self, ctx: Context[Order]) -> bool:
        return ctx.deadline is None

    @step(a, after=(b, c), no_compensation="read only")
    def d(self, ctx: Context[Order], reservation: Reservation) -> Awaitable[Shipment]:
        return asyncio.sleep(0, Shipment(reservation.id))

    @d.probe
    async def find_d(self, ctx: Context[Order], tried: Tried[Shipment]) -> NotLanded:
        return NotLanded()

    pause = delay(0.5, after=(a,))

    @pause.when
    def wants_pause(self, ctx: Context[Order]) -> bool:
        return ctx.fence == 0


class ByCommand(Saga[Order]):
    """Steps that send messages: undone by one, at the point of no return, and after it."""

    @step(no_compensation="a quotation binds nobody")
    def quote(self, ctx: Context[Order]) -> Reservation:
        return Reservation(ctx.saga_id)

    @command(quote, reply=Booked, rejects=BookingRefused, timeout=timedelta(hours=1), retry=Retry(attempts=5))
    def book(self, ctx: Context[Order], r: Reservation) -> Book:
        return Book(r.id)

    @book.compensation
    def cancel_book(self, ctx: Context[Order], tried: Tried[Booked]) -> CancelBook:
        return CancelBook(ctx.input.id if tried.result is None else tried.result.ref)

    @book.probe
    async def find_book(self, ctx: Context[Order], tried: Tried[Booked]) -> NotLanded:
        return NotLanded()

    @command(reply=Booked, to="hotel.book", after=(), at_most_once=True, on_unknown="backward")
    def book_hotel(self, ctx: Context[Order]) -> dict[str, str]:
        return {"ref": ctx.input.id}

    @book_hotel.compensation(retry=Retry(attempts=20), timeout=60, to="hotel.cancel")
    def cancel_hotel(self, ctx: Context[Order], tried: Tried[Booked]) -> dict[str, str]:
        return {"ref": tried.idempotency_key}

    @command(reply=list[int], no_compensation="a list binds nobody", barrier=False)
    def list_rooms(self, ctx: Context[Order]) -> Book:
        return Book(ctx.input.id)

    @list_rooms.when
    def wants_rooms(self, ctx: Context[Order]) -> bool:
        return ctx.input.total > 0

    @pivot.command(book, book_hotel, reply=Payment, timeout=60)
    def pay(self, ctx: Context[Order], b: Booked, h: Booked) -> Book:
        return Book(b.ref + h.ref)

    @retriable.command(pay, reply=type(None), retry=Retry(maximum=60))
    def thank(self, ctx: Context[Order], p: Payment) -> Book:
        return Book(p.id)

    @retriable(book, pay)
    async def note(self, ctx: Context[Order], b: Booked, p: Payment) -> None:
        print(b.ref, p.id)


def commands_build_messages(saga: ByCommand, ctx: Context[Order], done: Completed) -> None:
    assert_type(saga.book(ctx, Reservation("1")), Book)
    assert_type(saga.cancel_book(ctx, Tried("k", Unknown())), CancelBook)
    assert_type(done[ByCommand.book], Booked)
    assert_type(done[ByCommand.list_rooms], list[int])
    assert_type(done[ByCommand.pay], Payment)
    nothing: Step[ByCommand, Order, None] = ByCommand.thank
    print(nothing.name)


class Wide(Saga[int], late_grace=0, recoveries_max=3, rollback_deadline=600):
    """Results of one to six steps, by position."""

    @step(no_compensation="read only")
    async def a(self, ctx: Context[int]) -> int:
        return ctx.input

    @step(a, no_compensation="read only")
    async def b(self, ctx: Context[int], a: int) -> str:
        return str(a)

    @step(a, b, no_compensation="read only")
    def c(self, ctx: Context[int], a: int, b: str) -> bytes:
        return b.encode() * a

    @step(a, b, c, no_compensation="read only")
    async def d(self, ctx: Context[int], a: int, b: str, c: bytes) -> list[int]:
        return [a, len(b), len(c)]

    @step(a, b, c, d, no_compensation="read only")
    def e(self, ctx: Context[int], a: int, b: str, c: bytes, d: list[int]) -> dict[str, int]:
        return {b: a + len(c) + len(d)}

    @pivot(a, b, c, d, e)
    async def f(self, ctx: Context[int], a: int, b: str, c: bytes, d: list[int], e: dict[str, int]) -> float:
        return float(a + len(b) + len(c) + len(d) + len(e))

    @retriable(a, b, c, d, e, f)
    async def g(
        self, ctx: Context[int], a: int, b: str, c: bytes, d: list[int], e: dict[str, int], f: float
    ) -> tuple[int, ...]:
        return (a, len(b), len(c), len(d), len(e), int(f))

    @retriable(f, e, d, c, b, a)
    def h(self, ctx: Context[int], f: float, e: dict[str, int], d: list[int], c: bytes, b: str, a: int) -> None:
        print(a, b, c, d, e, f)

    @retriable(f)
    def wider_parameters_are_fine(self, ctx: Context[object], f: float | None) -> None:
        print(ctx.input, f)


def steps_know_their_results() -> None:
    shipment: Step[PlaceOrder, Order, Shipment] | Step[object, object, Shipment] = PlaceOrder.create_shipment
    payment: Step[PlaceOrder, Order, Payment] = PlaceOrder.process_payment
    nothing: Step[object, object, None] = PlaceOrder.cool_off
    print(shipment.name, payment.name, nothing.name, PlaceOrder.plan().plan_hash, PlaceOrder.mermaid())
    print(definition_of(PlaceOrder).plan == definition_of(PlainFunctions()).plan)


async def unit_tests_call_the_functions(saga: PlaceOrder, plain: PlainFunctions, order: Order) -> None:
    ctx = Context(saga_id="1", input=order, idempotency_key="k")
    reservation = await saga.reserve_inventory(ctx)
    assert_type(reservation, Reservation)
    await saga.release_inventory(ctx, Tried("k", Succeeded(reservation)))
    await saga.release_inventory(ctx, Tried("k", Unknown()))
    print((await saga.create_shipment(ctx, reservation, Settled(1))).id)
    assert_type(plain.a(ctx), Reservation)
    assert_type(plain.c(ctx, reservation), Payment)
    assert_type(await plain.d(ctx, reservation), Shipment)
    assert_type(plain.big(ctx), bool)
    plain.undo_a(ctx, Tried[Reservation]("k", Unknown()))


def a_coroutine_can_be_run(saga: PlaceOrder, ctx: Context[Order]) -> Reservation:
    asyncio.run(saga.refund_payment(ctx, Tried("k", Unknown())))
    return asyncio.run(saga.reserve_inventory(ctx))


async def run(saga: PlaceOrder, plain: PlainFunctions, order: Order) -> None:
    async with Orchestrator("sqlite:///orders.db", sagas=[saga, plain]) as orchestrator:
        print(await go(orchestrator, order), await orchestrator.execute(PlainFunctions, order, saga_id="2"))


async def go(orchestrator: Orchestrator, order: Order) -> str:
    saga = await orchestrator.start(PlaceOrder, order, saga_id=f"order-{order.id}")
    outcome = await saga.outcome(timeout=60)
    match outcome:
        case Completed() as done:
            assert_type(done[PlaceOrder.create_shipment], Shipment)
            assert_type(done[PlaceOrder.settled], Settled)
            assert_type(done[PlainFunctions.b], int | None)
            return done[PlaceOrder.create_shipment].id
        case Compensated(cause):
            return cause
        case NeedsAttention(name, cause):
            return name + cause
        case Failed(reason):
            return reason
        case _:
            assert_never(outcome)
