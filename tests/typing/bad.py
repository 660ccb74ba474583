"""Wrong use of the definition layer: both checkers must flag each marked place, and nothing else.

A place is a statement, or a function's decorators and signature together: checkers differ in the line they name.
Wrong steps are not used again, so that no mistake causes another. Read by type checkers, never run.
"""

from __future__ import annotations

from typing import assert_never

from atone import CannotTell, Compensated, Completed, Context, Failed, Landed, NeedsAttention, NotLanded, Orchestrator
from atone import Saga, Tried, Unknown, command, delay, pivot, retriable, step, wait_for_event
from atone.outcome import Outcome
from domain import Book, Booked, CancelBook, CardDeclined, Order, Payment, Reservation, Settled, Shipment
from good import ByCommand, PlaceOrder, PlainFunctions


class Inputs(Saga[Order]):
    @step(no_compensation="sample")
    async def reserve(self, ctx: Context[Order]) -> Reservation:
        raise NotImplementedError

    @step(no_compensation="sample")
    def charge(self, ctx: Context[Order]) -> Payment:
        raise NotImplementedError

    settled = wait_for_event("payment.settled", Settled, timeout=1)
    pause = delay(1)

    @pivot(charge, reserve)
    async def swapped(self, ctx: Context[Order], r: Reservation, p: Payment) -> Shipment:  # E
        raise NotImplementedError

    @pivot(charge)
    async def one_too_many(self, ctx: Context[Order], p: Payment, r: Reservation) -> Shipment:  # E
        raise NotImplementedError

    @pivot(charge, reserve)
    async def one_too_few(self, ctx: Context[Order], p: Payment) -> Shipment:  # E
        raise NotImplementedError

    @pivot(settled)
    async def wrong_payload(self, ctx: Context[Order], p: Payment) -> Shipment:  # E
        raise NotImplementedError

    @step(pause)
    async def result_of_a_delay(self, ctx: Context[Order], p: Payment) -> Shipment:  # E
        raise NotImplementedError

    @step(reserve)
    def plain_and_wrong(self, ctx: Context[Order], r: Payment) -> Payment:  # E
        raise NotImplementedError

    @step(reserve)
    async def other_saga_input(self, ctx: Context[Payment], r: Reservation) -> Payment:  # E
        raise NotImplementedError

    @step(PlaceOrder.process_payment)
    async def step_of_another_saga(self, ctx: Context[Order], p: Payment) -> Payment:  # E
        raise NotImplementedError

    @step()
    async def no_context(self) -> Payment:  # E
        raise NotImplementedError

    @retriable(reserve, charge, settled, reserve, charge, settled)
    async def six_one_wrong(  # E
        self, ctx: Context[Order], a: Reservation, b: Payment, c: Settled, d: Reservation, e: Payment, f: Payment
    ) -> None:
        raise NotImplementedError

    @retriable(reserve, charge, settled, reserve, charge, settled, reserve)  # E
    async def seven(
        self,
        ctx: Context[Order],
        a: Reservation,
        b: Payment,
        c: Settled,
        d: Reservation,
        e: Payment,
        f: Settled,
        g: Reservation,
    ) -> None:
        raise NotImplementedError


class WrongInput(Saga[Order]):
    """`Context[Payment]` is the wrong input; with no earlier step beside it, it shows where the step is used."""

    @step(no_compensation="sample")
    async def other(self, ctx: Context[Payment]) -> Payment:
        raise NotImplementedError

    @step(no_compensation="sample")
    async def fine(self, ctx: Context[Order]) -> Reservation:
        raise NotImplementedError

    @pivot(fine, other)  # E
    async def takes_it(self, ctx: Context[Order], r: Reservation, p: Payment) -> Payment:
        raise NotImplementedError


def use_of_wrong_input(done: Completed) -> None:
    print(done[WrongInput.other])  # E


class Handlers(Saga[Order]):
    @step()
    async def reserve(self, ctx: Context[Order]) -> Reservation:
        raise NotImplementedError

    @reserve.compensation
    async def undoes_another(self, ctx: Context[Order], tried: Tried[Payment]) -> None:  # E
        raise NotImplementedError

    @reserve.compensation(timeout=1)
    def undoes_another_plain(self, ctx: Context[Order], tried: Tried[Payment]) -> None:  # E
        raise NotImplementedError

    @reserve.compensation
    async def trusts_the_result(self, ctx: Context[Order], tried: Tried[Reservation]) -> None:
        print(tried.result.id)  # E

    @reserve.compensation
    def reports_by_returning(self, ctx: Context[Order], tried: Tried[Reservation]) -> bool:  # E
        raise NotImplementedError

    @reserve.compensation
    async def takes_no_tried(self, ctx: Context[Order]) -> None:  # E
        raise NotImplementedError

    @reserve.compensation(attempts=3)  # E
    async def unknown_option(self, ctx: Context[Order], tried: Tried[Reservation]) -> None:
        raise NotImplementedError

    @reserve.probe
    async def finds_another(self, ctx: Context[Order], tried: Tried[Reservation]) -> Landed[Payment] | NotLanded:  # E
        raise NotImplementedError

    @reserve.probe(timeout=1)
    def says_yes_or_no(self, ctx: Context[Order], tried: Tried[Reservation]) -> bool:  # E
        raise NotImplementedError

    @reserve.probe
    async def probes_another(self, ctx: Context[Order], tried: Tried[Payment]) -> CannotTell:  # E
        raise NotImplementedError

    @reserve.when
    def no_answer(self, ctx: Context[Order]) -> str:  # E
        raise NotImplementedError

    @reserve.when
    async def asks_too_much(self, ctx: Context[Order], r: Reservation) -> bool:  # E
        raise NotImplementedError

    @pivot()
    async def ship(self, ctx: Context[Order]) -> Shipment:
        raise NotImplementedError

    @ship.compensation  # E
    async def undoes_the_pivot(self, ctx: Context[Order], tried: Tried[Shipment]) -> None:
        raise NotImplementedError

    @retriable(ship)
    def confirm(self, ctx: Context[Order], shipment: Shipment) -> None:
        raise NotImplementedError

    @confirm.compensation  # E
    def undoes_a_retriable(self, ctx: Context[Order], tried: Tried[None]) -> None:
        raise NotImplementedError

    pause = delay(1)

    @pause.probe  # E
    def probes_a_delay(self, ctx: Context[Order], tried: Tried[None]) -> CannotTell:
        raise NotImplementedError


class Options(Saga[Order]):
    @step(no_compensation="sample", timeot=3)  # E
    async def misspelt(self, ctx: Context[Order]) -> Payment:
        raise NotImplementedError

    @step(no_compensation="sample", timeout="3")  # E
    async def time_as_text(self, ctx: Context[Order]) -> Payment:
        raise NotImplementedError

    @step(no_compensation="sample", retry=3)  # E
    async def retry_as_number(self, ctx: Context[Order]) -> Payment:
        raise NotImplementedError

    @step(no_compensation="sample", rejects=CardDeclined)  # E
    async def not_a_tuple(self, ctx: Context[Order]) -> Payment:
        raise NotImplementedError

    @step(no_compensation="sample", on_unknown="forward")  # E
    async def unknown_way(self, ctx: Context[Order]) -> Payment:
        raise NotImplementedError

    @step(no_compensation=True)  # E
    async def no_reason(self, ctx: Context[Order]) -> Payment:
        raise NotImplementedError

    @step  # E
    async def no_brackets(self, ctx: Context[Order]) -> Payment:
        raise NotImplementedError

    @step(no_compensation="sample")
    async def first(self, ctx: Context[Order]) -> Payment:
        raise NotImplementedError

    @step(no_compensation="sample", after=first)  # E
    async def after_without_brackets(self, ctx: Context[Order]) -> Payment:
        raise NotImplementedError

    @pivot(no_compensation="it is the pivot")  # E
    async def pivot_never_undone(self, ctx: Context[Order]) -> Payment:
        raise NotImplementedError

    @retriable(first, deadline=3)  # E
    async def retriable_gives_up(self, ctx: Context[Order], p: Payment) -> Payment:
        raise NotImplementedError

    too_long = delay("a day")  # E
    for_ever = wait_for_event("x", Settled)  # E
    forward = wait_for_event("x", Settled, timeout=1, on_timeout="forward")  # E
    no_type = wait_for_event("x", "Settled", timeout=1)  # E


class Commands(Saga[Order]):
    @command(no_compensation="sample")  # E
    def no_reply(self, ctx: Context[Order]) -> Book:
        raise NotImplementedError

    @command(reply="Booked", no_compensation="sample")  # E
    def reply_as_text(self, ctx: Context[Order]) -> Book:
        raise NotImplementedError

    @command(reply=Booked, rejects=(CardDeclined,), no_compensation="sample")  # E
    def rejects_exceptions(self, ctx: Context[Order]) -> Book:
        raise NotImplementedError

    @command(reply=Booked, to=Book, no_compensation="sample")  # E
    def topic_as_type(self, ctx: Context[Order]) -> Book:
        raise NotImplementedError

    @command(reply=Booked, deadline=3, no_compensation="sample")  # E
    def deadline_of_a_command(self, ctx: Context[Order]) -> Book:
        raise NotImplementedError

    @command(reply=Booked)
    def book(self, ctx: Context[Order]) -> Book:
        raise NotImplementedError

    @book.compensation
    def undoes_the_message(self, ctx: Context[Order], tried: Tried[Book]) -> CancelBook:  # E
        raise NotImplementedError

    @book.compensation(to="x")
    def undoes_nothing(self, ctx: Context[Order]) -> CancelBook:  # E
        raise NotImplementedError

    @book.probe
    async def finds_the_message(self, ctx: Context[Order], tried: Tried[Booked]) -> Landed[Book]:  # E
        raise NotImplementedError

    @command(book, reply=Booked)
    def takes_the_message(self, ctx: Context[Order], b: Book) -> Book:  # E
        raise NotImplementedError

    @pivot.command(book, reply=Payment, no_compensation="it is the pivot")  # E
    def pivot_with_a_reason(self, ctx: Context[Order], b: Booked) -> Book:
        raise NotImplementedError

    @pivot.command(book, reply=Payment)
    def pay(self, ctx: Context[Order], b: Booked) -> Book:
        raise NotImplementedError

    @pay.compensation  # E
    def undoes_the_pivot(self, ctx: Context[Order], tried: Tried[Payment]) -> CancelBook:
        raise NotImplementedError

    @retriable.command(pay, reply=type(None))
    def takes_the_wrong_reply(self, ctx: Context[Order], b: Booked) -> Book:  # E
        raise NotImplementedError

    @retriable.command(pay, reply=type(None), barrier=True)  # E
    def retriable_with_a_barrier(self, ctx: Context[Order], p: Payment) -> Book:
        raise NotImplementedError


def use_of_commands(done: Completed, saga: ByCommand, ctx: Context[Order]) -> None:
    print(done[ByCommand.book].id)  # E
    print(saga.book(ctx).ref)  # E
    saga.cancel_book(ctx, Tried[Book]("k", Unknown()))  # E


class NoInput(Saga):  # E
    only = delay(1)


class VersionAsText(Saga[Order], version="1"):  # E
    only = delay(1)


class UnknownPolicy(Saga[Order], on_compensation_failure="stop"):  # E
    only = delay(1)


class UnknownKeyword(Saga[Order], retries=3):  # E
    only = delay(1)


async def calls(saga: PlaceOrder, plain: PlainFunctions, ctx: Context[Order], other: Context[Payment]) -> None:
    await saga.reserve_inventory()  # E
    await saga.reserve_inventory(other)  # E
    await saga.create_shipment(ctx, Payment("1"), Settled(1))  # E
    await plain.a(ctx)  # E
    await saga.release_inventory(ctx, Tried[Payment]("k", Unknown()))  # E
    print(plain.a(ctx).amount)  # E
    print(ctx.result_or_none(PlaceOrder.process_payment).id)  # E
    ctx.attempt = 2  # E
    saga.reserve_inventory = 3  # E
    Context(saga_id="1", input=ctx.input)  # E


async def go(orchestrator: Orchestrator, order: Order, payment: Payment) -> None:
    await orchestrator.start(PlaceOrder, payment, saga_id="1")  # E
    await orchestrator.start(PlaceOrder, order)  # E
    await orchestrator.start("PlaceOrder", order, saga_id="1")  # E


def outcomes(outcome: Outcome) -> str:
    match outcome:
        case Completed() as done:
            print(done[PlaceOrder.create_shipment].amount)  # E
            print(done["create_shipment"])  # E
            return done[PlaceOrder.create_shipment].id
        case Compensated(cause):
            return cause
        case NeedsAttention():
            return outcome.reason  # E
        case _:
            assert_never(outcome)  # E


def wrong_way_out(failed: Failed) -> str:
    return failed.cause  # E
