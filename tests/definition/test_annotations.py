"""Annotations are resolved and compared when the definition is built, not when the class is made.

What no type checker would let pass is refused with the line to write; what a checker lets pass, passes.
"""

from __future__ import annotations

import asyncio
import functools
import types
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, NewType, Optional, Protocol, TypedDict, TypeVar

import pytest

from atone._define.fit import fits, label
from atone.definition import (
    CannotTell,
    Context,
    Landed,
    NotLanded,
    Saga,
    Tried,
    definition_of,
    delay,
    step,
    wait_for_event,
)
from tests.definition.shop import Order, Payment, PlaceOrder, Reservation, refusal

if TYPE_CHECKING:
    from tests.definition.shop import Shipment as OnlyForCheckers

T = TypeVar("T")
OLD_OPTIONAL = Optional[int]  # noqa: UP045 - the old spelling is another object on Python 3.11 to 3.13


def with_action(function: Callable[..., Any], *needs: Any, **more: Any) -> type[Saga[Order]]:
    """Make a saga whose step `a` has this action; `more` are the names that stand above it."""
    body = more | {"a": step(*needs, no_compensation="it only reads")(function)}
    made: type[Saga[Order]] = types.new_class("Made", (Saga[Order],), {}, lambda namespace: namespace.update(body))
    return made


def with_handler(what: str, function: Callable[..., Any]) -> type[Saga[Order]]:
    """Make a saga whose step `a` returns an int and has this handler."""

    def act(self: Any, ctx: Context[Order]) -> int:
        return 1

    made = step(**({} if what == "compensation" else {"no_compensation": "it only reads"}))(act)
    getattr(made, what)(function)
    body = {"a": made}
    saga: type[Saga[Order]] = types.new_class("Made", (Saga[Order],), {}, lambda namespace: namespace.update(body))
    return saga


# When, and where names are looked up


class Forward(Saga["Later"]):
    """Stands above the types it uses."""

    @step(no_compensation="it only reads")
    async def a(self, ctx: Context[Later]) -> list[Later]:
        return [ctx.input]


class Later:
    """Defined below the saga that takes it."""


def test_types_may_be_defined_below_the_saga() -> None:
    """Nothing is resolved before somebody asks."""
    assert definition_of(Forward).input_type is Later
    assert definition_of(Forward).by_name["a"].result_type == list[Later]


def test_types_of_the_function_around_the_class_are_found() -> None:
    """Tests and scripts define everything in one function."""

    class Local:
        pass

    def inner() -> type[Saga[Any]]:
        class Innermost:
            pass

        class Nested(Saga[Local]):
            class Own:
                pass

            @step(no_compensation="it only reads")
            async def a(self, ctx: Context[Local]) -> Innermost:
                return Innermost()

            @step(a, no_compensation="it only reads")
            def b(self, ctx: Context[Local], a: Innermost) -> dict[str, Own]:
                return {}

        return Nested

    definition = definition_of(inner())
    assert definition.plan.input_type == "Local"
    assert [one.plan.result_type for one in definition.steps] == ["Innermost", "dict[str, Nested.Own]"]


def test_a_class_made_after_its_outer_function_has_returned_is_built_without_it() -> None:
    """What is gone cannot be looked up; what is there is found."""

    def outer() -> Callable[[], type[Saga[Any]]]:
        def inner() -> type[Saga[Any]]:
            class Local:
                pass

            class Made(Saga[Order]):
                @step(no_compensation="it only reads")
                def a(self, ctx: Context[Order]) -> Local:
                    return Local()

            return Made

        return inner

    assert definition_of(outer()()).plan.steps[0].result_type == "Local"


def test_names_of_a_caller_are_not_mistaken_for_those_around_the_class() -> None:
    """Only functions that the class stands in are looked at, as in Python itself."""

    def makes() -> type[Saga[Any]]:
        class Made(Saga[Order]):
            @step(no_compensation="it only reads")
            def a(self, ctx: Context[Order]) -> Payment:
                return Payment("1")

        return Made

    def calls() -> type[Saga[Any]]:
        Payment = int  # noqa: F841, N806 - what must not be taken
        return makes()

    assert definition_of(calls()).by_name["a"].result_type is Payment


def test_a_step_named_like_a_type_does_not_hide_it() -> None:
    """Annotations mean types, never steps."""

    class Same(Saga[Order]):
        Payment = delay(1)

        @step(no_compensation="it only reads")
        def a(self, ctx: Context[Order]) -> Payment:
            return Payment("1")

    assert definition_of(Same).by_name["a"].result_type is Payment


def test_a_name_that_is_only_there_for_checkers_is_refused() -> None:
    """The class is made; building it says what to import."""

    class Hidden(Saga[Order]):
        @step(no_compensation="it only reads")
        def a(self, ctx: Context[Order]) -> OnlyForCheckers:
            raise NotImplementedError

    message = refusal(lambda: definition_of(Hidden))
    assert "Hidden: an annotation of a can't be resolved (NameError: name 'OnlyForCheckers' is not defined)." in message
    assert "Import the name at run time, not only under TYPE_CHECKING, or define it above the class." in message
    assert refusal(Hidden.plan) == message


def test_an_input_that_cannot_be_resolved_is_refused() -> None:
    """The saga's own type is an annotation too."""

    class Hidden(Saga["Nowhere"]):
        pause = delay(1)

    assert "an annotation of its input can't be resolved" in refusal(lambda: definition_of(Hidden))


def test_a_handler_that_cannot_be_resolved_is_refused() -> None:
    """Compensations are read as well, before the first one is needed."""

    def undo(self: Any, ctx: Context[Order], tried: Tried[OnlyForCheckers]) -> None: ...

    assert "an annotation of undo can't be resolved" in refusal(
        lambda: definition_of(with_handler("compensation", undo))
    )


def test_a_saga_without_steps_of_its_own_has_no_definition() -> None:
    """The base class is none."""
    assert "Subclass it: class PlaceOrder(Saga[Order]): ..." in refusal(lambda: definition_of(Saga))
    assert "Subclass it" in refusal(Saga.plan)


# What a function returns


def test_a_missing_return_annotation_is_refused() -> None:
    """Without it the result could be written, but never read back as what it was."""

    def act(self: Any, ctx: Context[Order]):
        return 1

    message = refusal(lambda: definition_of(with_action(act)))
    assert message == "Made.act: it does not say what it returns. Add -> None, or the result's type."


def later_int(self: Any, ctx: Context[Order]) -> Awaitable[int]:
    return asyncio.sleep(0, 1)


def coroutine_int(self: Any, ctx: Context[Order]) -> Coroutine[Any, Any, int]:
    return asyncio.sleep(0, 1)


def future_int(self: Any, ctx: Context[Order]) -> asyncio.Future[int]:
    raise NotImplementedError


async def async_int(self: Any, ctx: Context[Order]) -> int:
    return 1


def plain_int(self: Any, ctx: Context[Order]) -> int:
    return 1


@functools.wraps(async_int)
def wrapped_int(*arguments: Any) -> Any:
    return async_int(*arguments)


@pytest.mark.parametrize(
    ("act", "is_async"),
    [
        (later_int, True),
        (coroutine_int, True),
        (future_int, True),
        (async_int, True),
        (wrapped_int, True),
        (plain_int, False),
    ],
)
def test_the_result_is_what_awaiting_gives(act: Callable[..., Any], is_async: bool) -> None:
    """An async function and one that returns an awaitable have the same result type as a plain one."""
    found = definition_of(with_action(act)).by_name["a"]
    assert found.result_type is int
    assert found.action is not None
    assert found.action.is_async is is_async
    assert found.action.function is act


def test_an_awaitable_of_no_named_type_can_be_anything() -> None:
    """The codec decides then."""

    def act(self: Any, ctx: Context[Order]) -> Awaitable:
        raise NotImplementedError

    assert definition_of(with_action(act)).by_name["a"].result_type is Any


def test_waits_have_their_result_types() -> None:
    """A delay gives nothing, an event its payload."""

    class Waits(Saga[Order]):
        pause = delay(1)
        paid = wait_for_event("paid", Payment, timeout=1)
        notes = wait_for_event("notes", list[str], timeout=1)

    assert [one.result_type for one in definition_of(Waits).steps] == [type(None), Payment, list[str]]
    assert [one.action for one in definition_of(Waits).steps] == [None, None, None]


# What a function takes


def test_an_input_of_another_type_is_refused() -> None:
    """The parameter is compared with what the earlier step returns."""

    def act(self: Any, ctx: Context[Order], first: Payment) -> int:
        return 1

    def reserve(self: Any, ctx: Context[Order]) -> Reservation:
        return Reservation("1")

    first = step(no_compensation="it only reads")(reserve)
    message = refusal(lambda: definition_of(with_action(act, first, first=first)))
    assert message.startswith("Made.act: first is Payment, but first returns Reservation. Write first: Reservation")
    assert "or give @step the steps in the order of the parameters" in message


def test_an_event_of_another_type_as_input_is_refused() -> None:
    """The same for payloads."""

    def act(self: Any, ctx: Context[Order], paid: Payment) -> int:
        return 1

    paid = wait_for_event("paid", Reservation, timeout=1)
    message = refusal(lambda: definition_of(with_action(act, paid, paid=paid)))
    assert "paid is Payment, but paid returns Reservation" in message


def wrong_arities() -> dict[str, Callable[..., Any]]:
    def nothing() -> int:
        return 1

    def no_context(self: Any) -> int:
        return 1

    def one_too_few(self: Any, ctx: Any) -> int:
        return 1

    def one_too_many(self: Any, ctx: Any, first: Any, more: Any) -> int:
        return 1

    def keyword_only(self: Any, ctx: Any, *, first: Any) -> int:
        return 1

    def keyword_beside(self: Any, ctx: Any, first: Any, *, more: Any) -> int:
        return 1

    return {f.__name__: f for f in (nothing, no_context, one_too_few, one_too_many, keyword_only, keyword_beside)}


@pytest.mark.parametrize("act", wrong_arities().values(), ids=wrong_arities().keys())
def test_a_wrong_number_of_parameters_is_refused(act: Callable[..., Any]) -> None:
    """The call that would be made is named, and the line to write."""
    first = step(no_compensation="it only reads")(plain_int)
    message = refusal(lambda: definition_of(with_action(act, first, first=first)))
    assert f"Made.{act.__name__}: it is called with ctx, first, but takes " in message
    assert f"Write def {act.__name__}(self, ctx, first)." in message


def test_parameters_with_defaults_and_stars_are_fine() -> None:
    """Only what would fail in the call is refused."""

    def act(
        self: Any, ctx: Context[Order], first: int, more: int = 1, *rest: Any, extra: int = 2, **others: Any
    ) -> int:
        return 1

    def stars(*anything: Any) -> int:
        return 1

    def bare(self, ctx, first) -> int:
        return 1

    for function in (act, stars, bare):
        first = step(no_compensation="it only reads")(plain_int)
        assert definition_of(with_action(function, first, first=first)).by_name["a"].result_type is int


def test_a_context_of_another_input_is_refused() -> None:
    """On the action and on every handler."""

    def act(self: Any, ctx: Context[Payment]) -> int:
        return 1

    def undo(self: Any, ctx: Context[Payment], tried: Tried[int]) -> None: ...

    def probe(self: Any, ctx: Context[Payment], tried: Tried[int]) -> CannotTell:
        return CannotTell()

    def when(self: Any, ctx: Context[Payment]) -> bool:
        return True

    sagas = [
        with_action(act),
        with_handler("compensation", undo),
        with_handler("probe", probe),
        with_handler("when", when),
    ]
    for saga, name in zip(sagas, ("act", "undo", "probe", "when"), strict=True):
        message = refusal(functools.partial(definition_of, saga))
        assert message == (
            f"Made.{name}: ctx is Context[Payment], but the saga's input is Order. Write ctx: Context[Order]."
        )


def test_a_context_that_is_none_is_refused() -> None:
    """The input is inside the context."""

    def act(self: Any, ctx: Order) -> int:
        return 1

    assert "Write ctx: Context[Order]." in refusal(lambda: definition_of(with_action(act)))


@pytest.mark.parametrize("what", ["compensation", "probe"])
def test_a_tried_of_another_result_is_refused(what: str) -> None:
    """A compensation of the wrong step would undo with the wrong data."""

    def handler(self: Any, ctx: Context[Order], tried: Tried[str]) -> None: ...

    message = refusal(lambda: definition_of(with_handler(what, handler)))
    assert message == "Made.handler: tried is Tried[str], but a returns int. Write tried: Tried[int]."


def test_a_handler_that_takes_no_tried_is_refused() -> None:
    """It would fail in the moment it is needed."""

    def undo(self: Any, ctx: Context[Order]) -> None: ...

    message = refusal(lambda: definition_of(with_handler("compensation", undo)))
    assert "it is called with ctx, tried, but takes ctx. Write def undo(self, ctx, tried)." in message


def test_a_compensation_that_returns_something_is_refused() -> None:
    """A returned False would pass for success."""

    def undo(self: Any, ctx: Context[Order], tried: Tried[int]) -> bool:
        return False

    async def undo_later(self: Any, ctx: Context[Order], tried: Tried[int]) -> bool:
        return False

    for function in (undo, undo_later):
        message = refusal(lambda function=function: definition_of(with_handler("compensation", function)))
        assert message == f"Made.{function.__name__}: it returns bool. Write -> None."


@pytest.mark.parametrize("answer", [bool, Landed[str], None, Landed[int] | None], ids=str)
def test_a_probe_that_gives_no_answer_is_refused(answer: Any) -> None:
    """Only the three answers say whether it landed, and with which result."""

    def probe(self: Any, ctx: Any, tried: Any) -> Any: ...

    probe.__annotations__["return"] = answer
    message = refusal(lambda: definition_of(with_handler("probe", probe)))
    assert message.endswith("Write -> Landed[int] | NotLanded | CannotTell.")


@pytest.mark.parametrize("answer", [Landed[int], NotLanded, Landed[bool] | CannotTell, Landed, Any], ids=str)
def test_a_probe_may_give_fewer_answers(answer: Any) -> None:
    """One that always knows need not say that it might not."""

    def probe(self: Any, ctx: Any, tried: Any) -> Any: ...

    probe.__annotations__["return"] = answer
    code = definition_of(with_handler("probe", probe)).by_name["a"].probe
    assert code is not None
    assert code.function is probe


def test_a_condition_that_returns_no_bool_is_refused() -> None:
    """A text is true, whatever it says."""

    async def when(self: Any, ctx: Context[Order]) -> str:
        return "no"

    assert refusal(lambda: definition_of(with_handler("when", when))) == "Made.when: it returns str. Write -> bool."


def test_async_and_plain_handlers_are_told_apart() -> None:
    """Plain ones run in a thread."""
    definition = definition_of(PlaceOrder)
    reserve, pay, ship, mail = definition.steps
    assert [code.is_async for code in (reserve.action, reserve.compensation, pay.probe, ship.action) if code] == [
        True
    ] * 4
    assert [code.is_async for code in (pay.action, pay.compensation, mail.action) if code] == [False] * 3


# The comparison


class Base:
    pass


class Sub(Base):
    pass


class Speaks(Protocol):
    @abstractmethod
    def speak(self) -> str: ...


class Row(TypedDict):
    id: int


Number = NewType("Number", int)

FITS: list[tuple[Any, Any]] = [
    (int, int),
    (int, Any),
    (int, object),
    (Any, int),
    (bool, int),
    (int, float),
    (Sub, Base),
    (int, int | None),
    (int | None, int | str | None),
    (int, OLD_OPTIONAL),
    (None.__class__, OLD_OPTIONAL),
    (list[int], list[int]),
    (list[int], Sequence[int]),
    (list[int], list),
    (list, list[int]),
    (dict[str, int], Mapping[str, int]),
    (tuple[int, int], tuple[int, ...]),
    (Annotated[int, "cents"], int),
    (int, Annotated[int, "cents"]),
    (Literal["a"], str),
    (str, Literal["a"]),
    (Sub, Speaks),
    (Row, dict),
    (dict, Row),
    (Number, int),
    (int, Number),
    (T, int),
    (Tried[Sub], Tried[Base]),
]

MISFITS: list[tuple[Any, Any]] = [
    (int, str),
    (str, int),
    (float, int),
    (Base, Sub),
    (int, None.__class__),
    (None.__class__, int),
    (int | None, int),
    (int | str, int | None),
    (list[int], list[str]),
    (list[int], tuple[int, ...]),
    (list[int | None], list[int]),
    (dict[str, int], dict[str, str]),
    (Annotated[int, "cents"], str),
    (Tried[Base], Tried[Sub]),
    (Order, Payment),
]


@pytest.mark.parametrize(("given", "wanted"), FITS, ids=str)
def test_what_a_checker_lets_pass_fits(given: Any, wanted: Any) -> None:
    """The comparison never refuses what may be right."""
    assert fits(given, wanted)


@pytest.mark.parametrize(("given", "wanted"), MISFITS, ids=str)
def test_what_is_surely_wrong_does_not_fit(given: Any, wanted: Any) -> None:
    """The comparison refuses what no checker would let pass."""
    assert not fits(given, wanted)


LABELS: list[tuple[Any, str]] = [
    (int, "int"),
    (None, "None"),
    (type(None), "None"),
    (Order, "Order"),
    (OLD_OPTIONAL, "int | None"),
    (None | int, "int | None"),
    (str | int | None, "int | str | None"),
    (int | str | None, "int | str | None"),
    (list[Order], "list[Order]"),
    (tuple[int, ...], "tuple[int, ...]"),
    (dict[str, list[int | None]], "dict[str, list[int | None]]"),
    (Annotated[int, "cents"], "int"),
    (Literal["b", "a"], "Literal['a', 'b']"),
    (Callable[[int], str], "Callable[[int], str]"),
    (Number, "Number"),
    (Any, "Any"),
    (T, "T"),
    (Tried[Order], "Tried[Order]"),
]


@pytest.mark.parametrize(("hint", "name"), LABELS, ids=str)
def test_a_type_has_one_stable_name(hint: Any, name: str) -> None:
    """Labels enter the hash, so they depend on neither the spelling, nor the module, nor the Python."""
    assert label(hint) == name


def test_a_local_type_is_called_by_its_own_name() -> None:
    """Where a type was defined is no part of the plan."""

    class Local:
        class Inner:
            pass

    assert label(Local) == "Local"
    assert label(list[Local.Inner]) == "list[Local.Inner]"
