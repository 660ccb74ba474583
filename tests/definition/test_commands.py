"""Command steps as they are written: where their messages go, what the plan says of them, and what is refused."""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from atone._core.plan import Does, Role
from atone.choreography import event
from atone.definition import Context, Saga, Tried, command, definition_of, delay, pivot, retriable
from tests.definition.shop import Order, Payment, Reservation, refusal


@dataclass(frozen=True)
class ReserveSeat:
    order: str


@dataclass(frozen=True)
class ReleaseHTTPSeat:
    order: str


@event("seats.pay", version=3)
@dataclass(frozen=True)
class Pay:
    order: str


@dataclass(frozen=True)
class Refused:
    reason: str


class Fly(Saga[Order]):
    """Each kind of command once."""

    @command(reply=Reservation, rejects=Refused, timeout=60)
    def seat(self, ctx: Context[Order]) -> ReserveSeat:
        return ReserveSeat(ctx.input.id)

    @seat.compensation(timeout=90)
    def release(self, ctx: Context[Order], tried: Tried[Reservation]) -> ReleaseHTTPSeat:
        return ReleaseHTTPSeat(ctx.input.id)

    @command(seat, reply=list[str], to="meals.order", no_compensation="a meal binds nobody")
    def meal(self, ctx: Context[Order], seat: Reservation) -> dict[str, str]:
        return {"seat": seat.id}

    @pivot.command(seat, reply=Payment)
    def pay(self, ctx: Context[Order], seat: Reservation) -> Pay:
        return Pay(seat.id)

    @retriable.command(pay, reply=type(None), to="mail.send")
    def thank(self, ctx: Context[Order], paid: Payment) -> str:
        return paid.id


def test_a_plan_says_where_commands_go_and_what_they_return() -> None:
    """The class's name in words, `to=`, or the name that the message was declared with."""
    said = [
        (one.name, one.topic, one.compensation_topic, one.message_type, one.result_type) for one in Fly.plan().steps
    ]
    assert said == [
        ("seat", "reserve.seat", "release.http.seat", "ReserveSeat", "Reservation"),
        ("meal", "meals.order", None, "dict[str, str]", "list[str]"),
        ("pay", "seats.pay", None, "Pay", "Payment"),
        ("thank", "mail.send", None, "str", "None"),
    ]
    assert {one.does for one in Fly.plan().steps} == {Does.COMMAND}
    assert [one.role for one in Fly.plan().steps] == [Role.COMPENSATABLE] * 2 + [Role.PIVOT, Role.RETRIABLE]
    assert [one.barrier for one in Fly.plan().steps] == [True, False, False, False]
    assert [one.rejects_type for one in Fly.plan().steps] == ["Refused", None, None, None]
    assert Fly.plan().steps[0].compensation_timeout_seconds == 90


def test_a_message_carries_the_name_and_version_of_its_declaration() -> None:
    """A plain class its own name, and a builtin that of its topic."""
    messages = [one.messages["action"] for one in definition_of(Fly).steps]
    assert [(one.name, one.version) for one in messages] == [
        ("ReserveSeat", 1),
        ("meals.order", 1),
        ("seats.pay", 3),
        ("mail.send", 1),
    ]


def test_a_command_is_drawn_with_its_topic() -> None:
    """Whoever looks at the picture sees who is asked."""
    assert "sends ReserveSeat to reserve.seat" in Fly.mermaid()


def test_a_builder_is_a_plain_function_for_unit_tests() -> None:
    """It needs nothing but a context."""
    ctx = Context(saga_id="1", input=Order("7"), idempotency_key="k")
    assert Fly().seat(ctx) == ReserveSeat("7")


def builds(self: Any, ctx: Context[Order]) -> ReserveSeat:
    return ReserveSeat(ctx.input.id)


def undoes(self: Any, ctx: Context[Order], tried: Tried[Reservation]) -> ReserveSeat:
    return ReserveSeat(ctx.input.id)


def nothing(self: Any, ctx: Context[Order], tried: Tried[Reservation]) -> None: ...


async def calls(self: Any, ctx: Context[Order]) -> ReserveSeat:
    return ReserveSeat(ctx.input.id)


async def undoes_async(self: Any, ctx: Context[Order], tried: Tried[Reservation]) -> ReserveSeat:
    return ReserveSeat(ctx.input.id)


def says_nothing(self: Any, ctx: Context[Order]): ...


def builds_text(self: Any, ctx: Context[Order]) -> str:
    return ""


def a_saga(function: Callable[..., Any] = builds, undo: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Make a saga of one command and resolve its types."""
    usual: dict[str, Any] = {"reply": Reservation} | ({} if undo else {"no_compensation": "a test"})
    one: Any = command(**usual | options)(function)
    if undo is not None:
        one.compensation(undo)
    body = {"one": one} | {what.__name__: what for what in (undo,) if what is not None}
    built: Any = types.new_class("One", (Saga[Order],), {}, lambda namespace: namespace.update(body))
    return built.plan()


@pytest.mark.parametrize(
    ("define", "says"),
    [
        (lambda: a_saga(reply=None), "One.one: reply=None is not the type of a reply. Write @command(reply=Booked)"),
        (lambda: a_saga(reply="Booked"), "reply='Booked' is not the type"),
        (lambda: a_saga(rejects=(Refused,)), "is not the type of a refusal. Write rejects=BookingRefused"),
        (lambda: a_saga(to="Seats"), "to='Seats' is no topic. Write to=\"inventory.reserve\""),
        (lambda: a_saga(to="x" * 201), "is no topic"),
        (lambda: a_saga(deadline=3), "@command has no option 'deadline'. It takes: rejects"),
        (lambda: a_saga(calls), "calls: it builds a message and calls nobody. Write def, not async def."),
        (lambda: a_saga(undo=undoes_async), "undoes_async: it builds a message and calls nobody."),
        (lambda: a_saga(undo=nothing), "nothing: it does not say which message it builds. Write -> ReserveSeat"),
        (lambda: a_saga(says_nothing), "says_nothing: it does not say what it returns"),
        (lambda: a_saga(builds_text), "it returns str, which names no topic. Return a class of your own, or say"),
        (
            lambda: a_saga(no_compensation=None),
            "that undoes it, or write @command(no_compensation=",
        ),
        (lambda: a_saga(barrier=True), "barrier=True speaks of a compensation, and there is none"),
        (lambda: a_saga(at_most_once=True, on_unknown="backward"), 'on_unknown="backward" would undo a call'),
        (lambda: a_saga(undo=undoes, barrier=False, at_most_once=True, on_unknown="backward"), "that may still arrive"),
        (lambda: command(builds), "@command stands without brackets above a function"),
        (lambda: delay(1).compensation, "A delay calls nothing, so there is nothing to undo"),
        (
            lambda: pivot.command(reply=Payment)(builds).compensation,
            "is a pivot.command, which is never undone. Make it a @command if it can be undone",
        ),
    ],
)
def test_a_command_that_makes_no_sense_is_refused(define: Callable[[], object], says: str) -> None:
    """When the class is made, or its types are looked at; with the line to write."""
    assert says in refusal(define)


def test_an_undo_at_most_once_needs_no_word_about_the_barrier() -> None:
    """It is the default of a command that can be undone."""
    assert a_saga(undo=undoes, at_most_once=True, on_unknown="backward").steps[0].barrier
