"""The values that user code receives and returns can be made by hand, read, matched, and not changed.

Also how a saga ended, and steps called as bare functions in a unit test.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from atone.definition import (
    CannotTell,
    Context,
    Landed,
    NotLanded,
    Saga,
    Succeeded,
    Tried,
    Unknown,
    delay,
    step,
)
from atone.errors import AtoneError, NoResult
from atone.outcome import Compensated, Completed, Failed, NeedsAttention, Outcome
from tests.definition.shop import Order, Payment, PlaceOrder, Reservation, Shipment


def test_a_context_needs_three_things() -> None:
    """A unit test writes no more than it means."""
    ctx = Context(saga_id="1", input=Order("7"), idempotency_key="k")
    assert (ctx.saga_id, ctx.input, ctx.idempotency_key) == ("1", Order("7"), "k")
    assert (ctx.attempt, ctx.fence, ctx.tenant, ctx.deadline) == (1, 0, "default", None)


@pytest.mark.parametrize("field", ["saga_id", "input", "attempt", "fence", "deadline", "new"])
def test_a_context_cannot_be_changed(field: str) -> None:
    """What one call is told stays as it was told."""
    ctx: Any = Context(saga_id="1", input=Order("7"), idempotency_key="k")
    with pytest.raises(AttributeError):
        setattr(ctx, field, 3)
    assert not hasattr(ctx, "__dict__")


@pytest.mark.parametrize(
    "value",
    [Tried("k", Unknown()), Succeeded(1), Unknown(), Landed(1), NotLanded(), CannotTell()],
    ids=lambda value: type(value).__name__,
)
def test_the_other_values_cannot_be_changed_either(value: Any) -> None:
    """They are compared by what they hold."""
    with pytest.raises(AttributeError):
        value.result = 3
    with pytest.raises(AttributeError):
        value.new = 3
    assert value == type(value)(*(getattr(value, name) for name in value.__struct_fields__))
    assert hash(value) == hash(type(value)(*(getattr(value, name) for name in value.__struct_fields__)))


def test_values_can_be_made_with_their_type() -> None:
    """`Tried[Payment](...)` is how a checker is told what cannot be seen."""
    assert Tried[Payment]("k", Unknown()) == Tried("k", Unknown())
    assert Landed[Payment](Payment("1")) == Landed(Payment("1"))
    assert Context[Order](saga_id="1", input=Order("7"), idempotency_key="k").input == Order("7")


def test_the_result_of_an_earlier_step_is_read_by_the_step() -> None:
    """None for a step that was skipped or is not over; a stored None is a result as well."""
    ctx = Context("1", Order("7"), "k", _results={"reserve_inventory": Reservation("9"), "send_confirmation": None})
    assert ctx.result_or_none(PlaceOrder.reserve_inventory) == Reservation("9")
    assert ctx.result_or_none(PlaceOrder.process_payment) is None
    assert ctx.result_or_none(PlaceOrder.send_confirmation) is None
    assert Context("1", Order("7"), "k").result_or_none(PlaceOrder.reserve_inventory) is None


def test_contexts_share_no_results() -> None:
    """The default is empty, and nobody can fill it."""
    results: Any = Context("1", Order("7"), "k")._results
    with pytest.raises(TypeError):
        results["reserve_inventory"] = 1


def test_tried_tells_success_from_the_unknown() -> None:
    """`None` is a legal result, so the outcome is asked, not the result."""
    assert Tried("k", Succeeded(Payment("1"))).result == Payment("1")
    nothing: Tried[None] = Tried("k", Succeeded(None))
    unknown: Tried[None] = Tried("k", Unknown())
    assert nothing.result is None
    assert unknown.result is None
    assert [_told(nothing), _told(unknown)] == ["succeeded with None", "unknown"]


def _told(tried: Tried[None]) -> str:
    match tried.outcome:
        case Succeeded(result):
            return f"succeeded with {result}"
        case Unknown():
            return "unknown"


# How a saga ended


def _said(outcome: Outcome) -> str:
    match outcome:
        case Completed() as done:
            return done[PlaceOrder.create_shipment].id
        case Compensated(cause):
            return f"compensated: {cause}"
        case NeedsAttention(name, cause):
            return f"{name}: {cause}"
        case Failed(reason):
            return f"failed: {reason}"


def test_outcomes_are_matched_like_in_the_readme() -> None:
    """Four values, and no fifth."""
    outcomes: list[Outcome] = [
        Completed({"create_shipment": Shipment("9")}),
        Compensated("declined"),
        NeedsAttention("process_payment", "unknown"),
        Failed("written off"),
    ]
    assert [_said(one) for one in outcomes] == [
        "9",
        "compensated: declined",
        "process_payment: unknown",
        "failed: written off",
    ]


def test_a_none_result_is_a_result() -> None:
    """Only a missing one is an error."""
    done = Completed({"send_confirmation": None})
    nothing: Any = done[PlaceOrder.send_confirmation]
    assert nothing is None


def test_a_result_that_is_not_there_is_said_clearly() -> None:
    """Skipped, or another saga's step; and what there is."""
    done = Completed({"reserve_inventory": Reservation("1"), "process_payment": Payment("1")})
    with pytest.raises(NoResult) as caught:
        done[PlaceOrder.create_shipment]
    assert str(caught.value) == (
        "No result of create_shipment: it was skipped, or it is a step of another saga. "
        "There are results of: reserve_inventory, process_payment."
    )
    assert isinstance(caught.value, KeyError)
    assert isinstance(caught.value, AtoneError)
    assert caught.value.code == "no_result"
    with pytest.raises(NoResult, match="There are results of: no step"):
        Completed({})[PlaceOrder.create_shipment]


@pytest.mark.parametrize(
    "outcome",
    [Completed({}), Compensated("x"), NeedsAttention("a", "x"), Failed("x")],
    ids=lambda outcome: type(outcome).__name__,
)
def test_an_outcome_cannot_be_changed(outcome: Any) -> None:
    """It is what happened."""
    for name in ("cause", "reason", "results", "step", "new"):
        with pytest.raises(AttributeError):
            setattr(outcome, name, "y")


# Unit tests of user code


def test_a_step_of_an_object_is_the_bare_function() -> None:
    """Async gives a coroutine, plain gives the result; no engine, no store."""
    saga, ctx = PlaceOrder(), Context(saga_id="1", input=Order("7"), idempotency_key="k")
    assert asyncio.run(saga.reserve_inventory(ctx)) == Reservation("7")
    assert saga.process_payment(ctx) == Payment("7")
    shipped = asyncio.run(saga.create_shipment(ctx, Reservation("a"), Payment("b")))
    assert shipped == Shipment("ab")


def test_handlers_of_an_object_are_plain_methods() -> None:
    """A compensation is tested like any method."""
    saga, ctx = PlaceOrder(), Context(saga_id="1", input=Order("7"), idempotency_key="k")
    done: Any = [
        asyncio.run(saga.release_inventory(ctx, Tried("k", Unknown()))),
        saga.refund_payment(ctx, Tried("k", Succeeded(Payment("1")))),
    ]
    assert done == [None, None]
    assert asyncio.run(saga.find_payment(ctx, Tried("k", Unknown()))) == NotLanded()


def test_a_step_sees_the_object_it_is_called_on() -> None:
    """Participants live on the object, so two objects may talk to two of them."""

    class Greets(Saga[str]):
        def __init__(self, greeting: str) -> None:
            self.greeting = greeting

        @step(no_compensation="words can't be taken back")
        def greet(self, ctx: Context[str]) -> str:
            return f"{self.greeting}, {ctx.input}"

        pause = delay(1)

    ctx = Context(saga_id="1", input="Ada", idempotency_key="k")
    assert [Greets(word).greet(ctx) for word in ("Hello", "Ahoy")] == ["Hello, Ada", "Ahoy, Ada"]
    assert Greets("Hello").pause is Greets.pause
