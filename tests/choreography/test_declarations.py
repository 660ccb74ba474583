"""Events and participants as users write them: what is right builds, what is wrong says which line to add."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple, TypedDict, cast

import msgspec
import pydantic
import pytest

from atone.choreography import Choreography, Participant, Reaction, event, reacts, times, within
from atone.definition import Retry
from atone.errors import DefinitionError
from tests.choreography.order_events import (
    Inventory,
    OrderCancelled,
    OrderPlaced,
    Orders,
    OrderShipped,
    OutOfStock,
    PaymentDeclined,
    Payments,
    PaymentTaken,
    PaymentTimedOut,
    Shipping,
    StockReleased,
    StockReserved,
    orders,
)

# What a checker would flag is to be tried all the same.
wrong: Any = reacts
wrongly: Any = event


@event("closed")
@dataclass(frozen=True)
class Closed:
    needs: str


# Events


def test_any_class_whose_values_know_their_class_can_be_an_event() -> None:
    """Dataclasses with and without slots, Structs, named tuples and models: they stay what they are."""

    @event("a.slots", version=3, failure=True)
    @dataclass(frozen=True, slots=True)
    class Slots:
        x: int

    @event("a.struct")
    class Struct(msgspec.Struct, frozen=True):
        x: int

    @event("a.tuple")
    class Tuple(NamedTuple):
        x: int

    @event("a.model")
    class Model(pydantic.BaseModel):
        x: int

    assert [Slots(1).x, Struct(1).x, Tuple(1).x, Model(x=1).x] == [1, 1, 1, 1]
    spec = Slots.__atone_event__
    assert (spec.name, spec.version, spec.failure, spec.type_name) == ("a.slots", 3, True, "Slots")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: wrongly(OrderPlaced), '@event("order.placed")'),
        (lambda: wrongly("Order Placed"), "lower-case words with dots"),
        (lambda: wrongly("order..placed"), "lower-case words with dots"),
        (lambda: wrongly("x" * 101), "at most 100 characters"),
        (lambda: wrongly("order.placed", version=0), "version=1"),
        (lambda: wrongly("order.placed", version=True), "version=1"),
        (lambda: wrongly("order.placed", failure="yes"), "failure=True"),
        (lambda: wrongly("order.placed")(TypedDict("Told", {"x": int})), "dataclass"),
        (lambda: wrongly("order.placed")(OrderPlaced), "Remove one @event"),
        (lambda: within(0, OrderPlaced, otherwise=OutOfStock), "seconds above 0"),
        (lambda: within(cast("Any", None), OrderPlaced, otherwise=OutOfStock), "seconds above 0"),
        (lambda: within(1, otherwise=OutOfStock), "Name the events"),
        (lambda: within(1, int, otherwise=OutOfStock), "int is not an event"),
        (lambda: within(1, OutOfStock, otherwise=OutOfStock), "its own replacement"),
        (lambda: times(0, otherwise=PaymentTimedOut), "times(3"),
        (lambda: times(3, otherwise=Closed), "Give its fields defaults"),
    ],
)
def test_what_is_wrong_with_an_event_is_said_where_it_stands(make: Callable[[], Any], says: str) -> None:
    """Each message names the line to write."""
    with pytest.raises(DefinitionError) as refused:
        make()
    assert says in str(refused.value)


def test_a_subclass_of_an_event_is_no_event() -> None:
    """It would be published under its parent's name, with other fields."""

    class More(OrderPlaced):
        pass

    with pytest.raises(DefinitionError, match="More is not an event"):
        reacts(More)(lambda self, ctx: None)


# Participants


def test_a_reaction_is_a_method_like_any_other_in_a_unit_test() -> None:
    """Called with a `Reaction` made by hand; undos are plain methods."""
    said = asyncio.run(Inventory().reserve(Reaction(OrderPlaced("7", ("cup",), 5), "s-1", "e-1")))
    assert said == StockReserved("r-s-1", 5)
    back = asyncio.run(Inventory().release(Reaction(PaymentDeclined("no"), "s-1", "e-2"), StockReserved("r", 1)))
    assert back == StockReleased("r")


def test_a_participant_in_a_function_finds_the_names_around_it() -> None:
    """Annotations are resolved when the whole is built; a function's own classes are seen."""

    @event("local.a")
    @dataclass(frozen=True)
    class A: ...

    @event("local.b")
    @dataclass(frozen=True)
    class B: ...

    class Local(Participant, name="local"):
        @reacts(A, emits=(B,))
        def go(self, ctx: Reaction[A]) -> B:
            return B()

    assert Choreography("local", Local, starts=(A,), completes=(B,)).findings() == ()


def reserve(self: Any, ctx: Reaction[OrderPlaced]) -> StockReserved:
    raise NotImplementedError


def made(body: dict[str, Any], name: str = "sample") -> type[Participant]:
    """Make a participant's class of a body, as `class Sample(Participant, name=...)` would."""
    space = type(Participant).__prepare__("Sample", (Participant,))
    for key, value in body.items():
        space[key] = value
    return type(Participant)("Sample", (Participant,), cast("Any", space), name=name)


def reserving(**options: Any) -> dict[str, Any]:
    return {"reserve": wrong(OrderPlaced, emits=(StockReserved,), **options)(reserve)}


def test_the_class_that_these_cases_change_is_right() -> None:
    """The test of the tests below."""
    assert list(made(reserving()).__reactions__) == ["reserve"]


def with_undo(**options: Any) -> dict[str, Any]:
    body = reserving(**options)

    def release(self: Any, ctx: Any, done: Any) -> StockReleased:
        raise NotImplementedError

    body["release"] = body["reserve"].undo(PaymentDeclined, emits=(StockReleased,))(release)
    return body


def twice_undone() -> dict[str, Any]:
    body = with_undo()
    body["again"] = body["reserve"].undo(OutOfStock, emits=(StockReleased,))(lambda self, ctx, done: None)
    return body


def shared() -> dict[str, Any]:
    body = reserving()
    made(body)
    return body


def undone_later() -> Any:
    body = reserving()
    made(body)
    return body["reserve"].undo(OutOfStock, emits=(StockReleased,))(lambda self, ctx, done: None)


def inherited() -> Any:
    class More(Inventory, name="more"):
        pass


def nameless() -> Any:
    class Nameless(Participant):
        pass


def given_twice() -> Any:
    class Twice(Participant, name="twice"):
        @reacts(OrderShipped)
        def go(self, ctx: Reaction[OrderShipped]) -> None: ...

        @reacts(OrderCancelled)
        def go(self, ctx: Reaction[OrderCancelled]) -> None: ...  # noqa: F811 - which is refused


def undo_hidden() -> Any:
    class Hidden(Participant, name="hidden"):
        @reacts(OrderPlaced, emits=(StockReserved,))
        def go(self, ctx: Reaction[OrderPlaced]) -> StockReserved: ...

        @go.undo(OutOfStock, emits=(StockReleased,))
        def back(self, ctx: Reaction[OutOfStock], done: StockReserved) -> StockReleased: ...

        def back(self) -> None: ...  # noqa: F811 - which is refused


def hides_a_base() -> Any:
    return made({"__init__": wrong(OrderShipped)(reserve)})


def yields() -> Any:
    def go(self: Any, ctx: Any) -> Any:
        yield

    return wrong(OrderShipped)(go)


def overdue_twice() -> Any:
    body = reserving(expects=within(5, OutOfStock, otherwise=Closed))
    body["reserve"].overdue(lambda self, done: Closed("x"))
    body["reserve"].overdue(lambda self, done: Closed("x"))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: wrong(reserve), "@reacts(OrderPlaced)"),
        (lambda: wrong()(reserve), "names no event"),
        (lambda: wrong("order.placed")(reserve), "is not an event"),
        (lambda: wrong(OrderPlaced, OrderPlaced)(reserve), "names OrderPlaced twice"),
        (lambda: wrong(OrderPlaced, emits=StockReserved)(reserve), "emits=(StockReserved,)"),
        (lambda: wrong(OrderPlaced, after=[StockReserved])(reserve), "after=(StockReserved,)"),
        (lambda: wrong(OrderPlaced, emit=())(reserve), "has no option 'emit'"),
        (lambda: wrong(OrderPlaced)(5), "plain `def` or `async def`"),
        (yields, "yields"),
        (lambda: reserving(retry=3), "retry=Retry(attempts=5)"),
        (lambda: reserving(timeout=-1), "seconds above 0"),
        (lambda: reserving(expects=30), "expects=within(30"),
        (lambda: reserving(at_most=3), "at_most=times(3"),
        (lambda: made(reserving(pivot=1)), "pivot=True"),
        (lambda: made(reserving(out_of_order="start")), 'out_of_order="reject"'),
        (lambda: made(reserving(out_of_order="reject")), "Add after="),
        (lambda: made(reserving(after=(OrderPlaced,))), "Remove it from after"),
        (lambda: made(reserving(no_undo=" ")), 'no_undo="why"'),
        (lambda: made(reserving(expects=within(5, OutOfStock, otherwise=Closed))), "add @reserve.overdue"),
        (lambda: made(with_undo(pivot=True)), "remove @reserve.undo"),
        (lambda: made(with_undo(no_undo="why")), "Remove no_undo"),
        (lambda: made(twice_undone()), "already has 'release' as its undo"),
        (lambda: made(shared()), "belongs to Sample"),
        (undone_later, "is finished"),
        (lambda: reserving()["reserve"].undo(reserve), "stands without events"),
        (lambda: reserving()["reserve"].undo(OutOfStock, pivot=True)(reserve), "has no option 'pivot'"),
        (lambda: reserving()["reserve"].overdue(reserve), "Add expects="),
        (overdue_twice, "already has a method for what is overdue"),
        (inherited, "would inherit the reactions of Inventory"),
        (nameless, 'name="nameless"'),
        (lambda: made({}, name="In Ventory"), "lower-case words"),
        (given_twice, "go is given twice"),
        (undo_hidden, "back is given twice"),
        (hides_a_base, "would hide object.__init__"),
    ],
)
def test_what_is_wrong_with_a_participant_is_said_when_its_class_is_made(make: Callable[[], Any], says: str) -> None:
    """Each message names the place and the line to write."""
    with pytest.raises(DefinitionError) as refused:
        make()
    assert says in str(refused.value)


def test_an_unknown_class_keyword_is_named() -> None:
    """With those that there are."""
    with pytest.raises(DefinitionError, match="no class keyword 'version'"):

        class Wrong(Participant, name="wrong", version=2):
            pass


def test_an_attribute_can_t_hide_a_reaction() -> None:
    """`self.reserve = ...` in a constructor would make the class something else than was checked."""
    with pytest.raises(DefinitionError, match="would hide it"):
        Inventory().reserve = cast("Any", None)


# Annotations


def whole(**functions: Any) -> Choreography:
    """Build a choreography of one participant with one reaction to OrderPlaced, and see what its annotations say."""
    return Choreography("sample", made(functions), starts=(OrderPlaced,), completes=(StockReserved,), check=False)


def annotated(emits: tuple[type, ...], **hints: Any) -> Any:
    def go(self: Any, ctx: Any) -> Any: ...

    go.__annotations__ = hints
    return wrong(OrderPlaced, emits=emits)(go)


def undo_annotated(**hints: Any) -> dict[str, Any]:
    go = annotated((StockReserved, OutOfStock), ctx=Reaction[OrderPlaced], **{"return": StockReserved | OutOfStock})

    def back(self: Any, ctx: Any, done: Any) -> Any: ...

    back.__annotations__ = hints
    return {"go": go, "back": go.undo(PaymentDeclined, emits=(StockReleased,))(back)}


def overdue_annotated(**hints: Any) -> dict[str, Any]:
    def go(self: Any, ctx: Any) -> StockReserved: ...

    def late(self: Any, done: Any) -> Any: ...

    late.__annotations__ = hints
    reaction = wrong(OrderPlaced, emits=(StockReserved,), expects=within(1, OrderShipped, otherwise=Closed))(go)
    return {"go": reaction, "late": reaction.overdue(late)}


def more_parameters() -> dict[str, Any]:
    def go(self: Any, ctx: Reaction[OrderPlaced], more: int) -> StockReserved: ...

    return {"go": wrong(OrderPlaced, emits=(StockReserved,))(go)}


CTX = Reaction[OrderPlaced]


@pytest.mark.parametrize(
    ("functions", "says"),
    [
        (lambda: {"go": annotated((StockReserved,), ctx=CTX)}, "does not say what it returns"),
        (lambda: {"go": annotated((), ctx=Reaction[OutOfStock], **{"return": None})}, "ctx: Reaction[OrderPlaced]"),
        (lambda: {"go": annotated((StockReserved,), **{"return": None})}, "-> StockReserved"),
        (lambda: {"go": annotated((), **{"return": StockReserved})}, "emits=(StockReserved,)"),
        (lambda: {"go": annotated((StockReserved,), **{"return": StockReserved | OutOfStock})}, "OutOfStock,)"),
        (lambda: {"go": annotated((), **{"return": int})}, "int, which is no event"),
        (lambda: {"go": annotated((), **{"return": str})}, "str, which is no event"),
        (lambda: {"go": annotated((), **{"return": "Nowhere"})}, "can't be resolved"),
        (more_parameters, "def go(self, ctx)"),
        (lambda: undo_annotated(done=PaymentTaken, **{"return": StockReleased}), "done: StockReserved"),
        (lambda: undo_annotated(done=OutOfStock, **{"return": StockReleased}), "done: StockReserved"),
        (lambda: undo_annotated(ctx=Reaction[OutOfStock], **{"return": StockReleased}), "Reaction[PaymentDeclined]"),
        (lambda: undo_annotated(**{"return": None}), "-> StockReleased"),
        (lambda: overdue_annotated(done=PaymentTaken, **{"return": Closed}), "done: StockReserved"),
        (lambda: overdue_annotated(**{"return": OutOfStock}), "-> Closed"),
    ],
)
def test_annotations_that_contradict_the_decorator_are_refused(functions: Callable[[], Any], says: str) -> None:
    """When the choreography is built; each message names the line to write."""
    with pytest.raises(DefinitionError) as refused:
        whole(**functions())
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("returned", "outcomes"),
    [
        (StockReserved | OutOfStock, [("stock.reserved",), ("stock.out",)]),
        (tuple[StockReserved, OutOfStock], [("stock.reserved", "stock.out")]),
        (tuple[StockReserved, OutOfStock] | None, [("stock.reserved", "stock.out"), ()]),
        (
            tuple[StockReserved, OutOfStock | None],
            [("stock.reserved", "stock.out"), ("stock.reserved",)],
        ),
        (
            list[StockReserved | OutOfStock],
            [("stock.reserved",), ("stock.out",), ("stock.reserved", "stock.out")],
        ),
        (
            tuple[StockReserved | OutOfStock, ...],
            [("stock.reserved",), ("stock.out",), ("stock.reserved", "stock.out")],
        ),
        (Any, [("stock.reserved",), ("stock.out",), ("stock.reserved", "stock.out")]),
    ],
)
def test_what_a_handler_says_it_returns_is_what_it_may_publish(returned: Any, outcomes: list[tuple[str, ...]]) -> None:
    """A union is a choice, a tuple goes out together, and of a list anything may come."""
    built = whole(go=annotated((StockReserved, OutOfStock), ctx=CTX, **{"return": returned}))
    assert list(built.event_map.by_path["sample.go"].outcomes) == outcomes


# The whole


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Choreography("My Orders", Orders, starts=(), completes=()), "lower-case words"),
        (lambda: Choreography("orders", starts=(), completes=()), "has no participants"),
        (lambda: Choreography("orders", cast("Any", Orders()), starts=(), completes=()), "give the class"),
        (lambda: Choreography("orders", Participant, starts=(), completes=()), "give the class"),
        (lambda: Choreography("orders", Orders, starts=(), completes=(), version=0), "version=1"),
        (
            lambda: Choreography("orders", Orders, starts=cast("Any", OrderPlaced), completes=()),
            "starts=(OrderPlaced,)",
        ),
        (lambda: Choreography("orders", Orders, starts=(), completes=(), deadline=-1), "seconds above 0"),
    ],
)
def test_what_is_wrong_with_the_whole_is_said(make: Callable[[], Any], says: str) -> None:
    """Before anything is compiled."""
    with pytest.raises(DefinitionError) as refused:
        make()
    assert says in str(refused.value)


def test_a_participant_given_twice_is_found() -> None:
    """As two of one name."""
    with pytest.raises(DefinitionError) as refused:
        Choreography(
            "orders",
            *(Orders, Inventory, Payments, Shipping, Shipping),
            starts=(OrderPlaced,),
            completes=(OrderShipped,),
            compensates=(OrderCancelled,),
        )
    assert [one[:2] for one in refused.value.findings] == [("duplicate_participant", "shipping")]


def test_the_whole_is_data_and_code_beside_it() -> None:
    """What the runtime needs stands under participant and method; the map knows no function."""
    code = orders.handlers["inventory"]["release"]
    assert (code.spec.undo_of, code.is_async, code.returns) == ("reserve", True, StockReleased)
    assert orders.handlers["payments"]["charge"].is_async is False
    assert orders.event_types["order.placed"] is OrderPlaced
    assert orders.event_map.hears("shipping") == (
        "stock.out", "payment.declined", "payment.overdue", "shipment.refused", "order.cancelled", "order.shipped",
        "stock.reserved", "payment.taken",
    )  # fmt: skip
    assert orders.event_map.publishes("inventory") == ("stock.out", "stock.reserved", "stock.released")
    assert orders.event_map.publishes("shipping") == ("payment.overdue", "shipment.refused", "order.shipped")
    assert repr(orders) == "<choreography orders version 1>"


def test_options_arrive_in_the_map() -> None:
    """Each in its place."""

    def go(self: Any, ctx: Any) -> StockReserved: ...

    def late(self: Any, done: StockReserved) -> Closed: ...

    reaction = wrong(
        OrderPlaced,
        emits=(StockReserved,),
        after=(OrderShipped,),
        out_of_order="reject",
        no_undo="why",
        expects=within(timedelta(minutes=1), PaymentTaken, otherwise=Closed),
        at_most=times(2, otherwise=PaymentTimedOut),
        retry=Retry(attempts=7),
        timeout=timedelta(seconds=3),
    )(go)
    built = whole(go=reaction, late=reaction.overdue(late))
    spec = built.event_map.by_path["sample.go"]
    assert (spec.after, spec.out_of_order, spec.no_undo) == (("order.shipped",), "reject", "why")
    assert spec.expects is not None
    assert (spec.expects.seconds, spec.expects.any_of, spec.expects.otherwise) == (60, ("payment.taken",), "closed")
    assert spec.at_most is not None
    assert (spec.at_most.times, spec.at_most.otherwise) == (2, "payment.overdue")
    assert (spec.retry.attempts, spec.timeout_seconds) == (7, 3.0)
    assert built.handlers["sample"]["go"].overdue is late
