"""What is wrong with a saga is said when its class is made, with the line to add.

One test for each rule. Each message names the saga, the place in it, and what to write.
"""

from __future__ import annotations

import inspect
import types
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import pytest

from atone._define.check import KEYWORDS
from atone.definition import (
    Context,
    Saga,
    Tried,
    delay,
    pivot,
    retriable,
    step,
    wait_for_event,
)
from atone.errors import AtoneError, DefinitionError
from tests.definition.shop import CardDeclined, Order, Payment, PlaceOrder, Reservation, Shipment, refusal

T = TypeVar("T")


def reads(self: Any, ctx: Context[Order]) -> int:
    return 1


def ships(self: Any, ctx: Context[Order]) -> Shipment:
    return Shipment("1")


def make(name: str, body: dict[str, Any], /, **keywords: Any) -> type:
    """Make a saga class from a dict, as a class statement would."""

    made: type = types.new_class(name, (Saga[Order],), keywords, lambda namespace: namespace.update(body))
    return made


def a_step(function: Callable[..., Any] = reads, **options: Any) -> Any:
    return step(**({"no_compensation": "it only reads"} | options))(function)


def test_a_definition_error_is_an_atone_error_and_a_type_error() -> None:
    """Either root catches it, and its code is stable."""
    assert issubclass(DefinitionError, AtoneError)
    assert issubclass(DefinitionError, TypeError)
    assert DefinitionError.code == "definition"


# The way back


def test_a_step_without_compensation_and_without_a_reason_is_refused() -> None:
    """Forgetting the undo is the mistake that sagas exist to prevent."""

    def define() -> object:
        class Bare(Saga[Order]):
            @step()
            async def reserve(self, ctx: Context[Order]) -> Reservation:
                return Reservation("1")

        return Bare

    message = refusal(define)
    assert message.startswith("Bare.reserve: it has no compensation.")
    assert "Add @reserve.compensation above a method" in message
    assert '@step(no_compensation="why nothing has to be undone")' in message


@pytest.mark.parametrize("reason", ["", "  ", True, 3])
def test_no_compensation_needs_a_reason_in_words(reason: Any) -> None:
    """A reason that says nothing is none."""
    assert 'Write no_compensation="why".' in refusal(lambda: make("X", {"a": a_step(no_compensation=reason)}))


def test_a_step_with_a_compensation_that_says_it_needs_none_is_refused() -> None:
    """Of two statements that contradict each other one is a mistake."""

    def define() -> object:
        class Both(Saga[Order]):
            @step(no_compensation="nothing to undo")
            def a(self, ctx: Context[Order]) -> int:
                return 1

            @a.compensation
            def undo(self, ctx: Context[Order], tried: Tried[int]) -> None: ...

        return Both

    assert "Remove no_compensation='nothing to undo', or remove @a.compensation." in refusal(define)


@pytest.mark.parametrize(("word", "made"), [("pivot", pivot), ("retriable", retriable)])
def test_a_compensation_on_a_pivot_or_retriable_is_refused(word: str, made: Any) -> None:
    """What is never undone has no undo; the author meant a plain step."""
    done = made()(ships)
    message = refusal(lambda: done.compensation)
    assert f"'ships' is a {word}, which is never undone." in message
    assert "Make it a @step if it can be undone, or remove @ships.compensation." in message


@pytest.mark.parametrize("what", ["compensation", "probe"])
def test_a_compensation_or_probe_of_a_wait_is_refused(what: str) -> None:
    """A wait calls nothing, so there is nothing to undo and nothing to ask."""
    for wait in (delay(1), wait_for_event("x", int, timeout=1)):
        message = refusal(lambda wait=wait: getattr(wait, what))
        assert f"Remove its .{what}, or put it on the step that has the effect." in message


def test_a_step_has_no_other_attributes() -> None:
    """Only the two words that users look for are answered with a reason."""
    with pytest.raises(AttributeError, match="compensate"):
        _ = a_step().compensate
    assert not hasattr(delay(1), "undo")


@pytest.mark.parametrize("what", ["compensation", "probe", "when"])
def test_a_second_handler_of_one_kind_is_refused(what: str) -> None:
    """Two compensations of one step would leave open which runs."""

    def first(self: Any, ctx: Any, tried: Any = None) -> None: ...

    one = step()(reads)
    getattr(one, what)(first)
    assert f"'reads' already has 'first' as its {what}. Remove one @reads.{what}." in refusal(
        lambda: getattr(one, what)(first)
    )


def test_a_handler_after_the_class_is_finished_is_refused() -> None:
    """A definition does not change behind the back of those who compiled it."""

    def late(self: Any, ctx: Any) -> bool:
        return True

    message = refusal(lambda: PlaceOrder.reserve_inventory.when(late))
    assert message == "The class PlaceOrder is finished. Move @reserve_inventory.when into its class body."


# Names


def test_a_step_given_twice_is_refused() -> None:
    """In a plain class body the second would silently replace the first."""

    def define() -> object:
        class Twice(Saga[Order]):
            @step(no_compensation="it only reads")
            def a(self, ctx: Context[Order]) -> int:
                return 1

            @step(no_compensation="it only reads")
            def a(self, ctx: Context[Order]) -> int:  # noqa: F811 - which is refused
                return 2

        return Twice

    assert refusal(define) == "Twice.a is given twice, and the second would hide the first. Rename one of them."


def test_a_compensation_that_hides_its_step_is_refused() -> None:
    """The step would be gone, and with it its action."""

    def define() -> object:
        class Hidden(Saga[Order]):
            @step()
            def a(self, ctx: Context[Order]) -> int:
                return 1

            @a.compensation
            def a(self, ctx: Context[Order], tried: Tried[int]) -> None: ...

        return Hidden

    assert refusal(define).startswith("Hidden.a is given twice")


@pytest.mark.parametrize("what", ["compensation", "probe", "when"])
def test_a_plain_method_that_hides_a_handler_is_refused(what: str) -> None:
    """The step keeps the first function, readers see the second."""

    def undo(self: Any, ctx: Any, tried: Any = None) -> None: ...

    one = step()(reads)
    getattr(one, what)(undo)

    def define() -> object:
        class Hidden(Saga[Order]):
            a = one
            locals()["undo"] = undo
            locals()["undo"] = 3

        return Hidden

    assert refusal(define).startswith("Hidden.undo is given twice")


def test_a_handler_that_hides_a_plain_method_is_refused() -> None:
    """Whatever called the first would now call the compensation."""

    def define() -> object:
        class Hidden(Saga[Order]):
            def undo(self) -> None: ...

            @step()
            def a(self, ctx: Context[Order]) -> int:
                return 1

            @a.compensation
            def undo(self, ctx: Context[Order], tried: Tried[int]) -> None: ...  # noqa: F811 - which is refused

        return Hidden

    assert refusal(define).startswith("Hidden.undo is given twice")


def test_what_belongs_to_no_step_may_be_given_twice() -> None:
    """Python's own ways with a class body stay open: properties, overloads, conditional definitions."""

    class Fine(Saga[Order]):
        limit = 1
        limit = 2  # noqa: PIE794 - which is refused

        @property
        def size(self) -> int:
            return 1

        @size.setter
        def size(self, value: int) -> None: ...

        a = a_step()

    assert Fine.limit == 2


def test_one_step_under_two_names_is_refused() -> None:
    """A result has one name."""
    one = a_step()
    assert refusal(lambda: make("X", {"a": one, "b": one})) == "X.b is the step a again. Remove one of the two names."


def test_a_step_of_a_finished_class_is_refused() -> None:
    """A step belongs to one saga."""
    message = refusal(lambda: make("X", {"a": PlaceOrder.reserve_inventory}))
    assert message == "X.a belongs to PlaceOrder. Write a step of its own for X."


@pytest.mark.parametrize("name", ["not a name", "9lives", "", "a-b", "x" * 101])
def test_a_step_name_that_is_no_identifier_or_too_long_is_refused(name: str) -> None:
    """Names stand in keys, journals and pictures."""
    message = refusal(lambda: make("X", {name: a_step()}))
    assert "is not a name of letters, digits and underscores, at most 100 of them" in message


@pytest.mark.parametrize("name", ["not a name", "", "x" * 101, 3])
def test_a_saga_name_that_is_no_identifier_or_too_long_is_refused(name: Any) -> None:
    """The same for the saga, whose name is given in the class line."""
    assert 'Write class X(Saga[...], name="X")' in refusal(lambda: make("X", {"a": a_step()}, name=name))


@pytest.mark.parametrize("name", ["plan", "mermaid", "__init__"])
def test_a_step_that_hides_the_saga_class_own_names_is_refused(name: str) -> None:
    """`PlaceOrder.plan()` has to stay what it is."""
    assert f"X.{name} would hide " in refusal(lambda: make("X", {name: a_step()}))


def test_a_handler_that_hides_the_saga_class_own_names_is_refused() -> None:
    """A compensation called plan is the same trap."""

    def define() -> object:
        class Hides(Saga[Order]):
            @step()
            def a(self, ctx: Context[Order]) -> int:
                return 1

            @a.compensation
            def plan(self, ctx: Context[Order], tried: Tried[int]) -> None: ...

        return Hides

    assert refusal(define) == "Hides.plan would hide Saga.plan. Give it another name."


def test_a_step_that_hides_an_attribute_of_a_mixin_is_refused() -> None:
    """The mixin's author did not know that a step would take the name."""

    class Mixin:
        def reserve(self) -> None: ...

    def define() -> object:
        class Mixed(Mixin, Saga[Order]):
            reserve = a_step()

        return Mixed

    assert refusal(define) == "Mixed.reserve would hide Mixin.reserve. Give it another name."


def test_a_mixin_with_steps_is_refused() -> None:
    """A saga is read in one place."""

    class Mixin:
        reserve = a_step()

    def define() -> object:
        class Mixed(Mixin, Saga[Order]):
            other = a_step()

        return Mixed

    message = refusal(define)
    assert message.startswith("Mixed would inherit the steps of Mixin")
    assert "Write: class Mixed(Saga[...]) with steps of its own" in message


def test_a_saga_that_extends_a_saga_is_refused() -> None:
    """Inherited steps have an order that nobody wrote."""

    def define() -> object:
        class Bigger(PlaceOrder):
            pass

        return Bigger

    assert refusal(define).startswith("Bigger would inherit the steps of PlaceOrder")


def test_a_saga_may_share_code_through_an_abstract_mixin() -> None:
    """Participants and helpers come in by inheritance, only steps do not."""

    class Mixin(ABC):
        @abstractmethod
        def participant(self) -> str: ...

    class Shares(Mixin, Saga[Order]):
        def participant(self) -> str:
            return "inventory"

        a = a_step()

    assert Shares().participant() == "inventory"


def test_an_instance_attribute_that_would_hide_a_step_is_refused() -> None:
    """`self.reserve_inventory = ...` in `__init__` would make the step unreachable."""
    saga: Any = PlaceOrder()

    def assign() -> None:
        saga.reserve_inventory = "shelf 3"

    assert "Give the attribute another name." in refusal(assign)

    class Waits(Saga[Order]):
        pause = delay(1)

    waits: Any = Waits()

    def assign_wait() -> None:
        waits.pause = 3

    assert "'pause' is a step" in refusal(assign_wait)


# The class line


def test_a_saga_without_an_input_type_is_refused() -> None:
    """Without it nothing that the saga is started with can be checked."""

    def define() -> object:
        class NoInput(Saga):
            a = a_step()

        return NoInput

    assert refusal(define).endswith("Write: class NoInput(Saga[YourInput]): ...")


def test_a_saga_with_an_open_input_type_is_refused() -> None:
    """A type variable is no type."""

    def define() -> object:
        class Open(Saga[T]):
            a = a_step()

        return Open

    assert refusal(define).endswith("Write: class Open(Saga[YourInput]): ...")


def test_an_empty_saga_is_refused() -> None:
    """A saga that does nothing is a class that somebody forgot to finish."""

    def define() -> object:
        class Empty(Saga[Order]):
            pass

        return Empty

    message = refusal(define)
    assert message.startswith("Empty has no steps.")
    assert 'Add: @step(no_compensation="why")' in message


def test_more_than_a_hundred_steps_are_refused() -> None:
    """Bounds stand on everything; a hundred pass."""

    def body(count: int) -> dict[str, Any]:
        return {f"s{number}": a_step() for number in range(count)}

    assert len(make("Long", body(100)).plan().steps) == 100
    assert "Longer has 101 steps, and 100 is the most. Split it" in refusal(lambda: make("Longer", body(101)))


@pytest.mark.parametrize("version", [0, -1, 1.0, "1", True, None])
def test_a_version_that_is_no_whole_number_from_one_is_refused(version: Any) -> None:
    """Versions are compared and stored."""
    assert refusal(lambda: make("X", {"a": a_step()}, version=version)).endswith("Write version=1.")


@pytest.mark.parametrize("most", [0, -1, 2.5, True])
def test_recoveries_max_that_is_no_whole_number_from_one_is_refused(most: Any) -> None:
    """Zero would strand a saga at the first crash."""
    assert refusal(lambda: make("X", {"a": a_step()}, recoveries_max=most)).endswith("Write recoveries_max=5.")


BAD_TIMES: list[Any] = [0, -1, float("nan"), float("inf"), "10", True, timedelta(0), timedelta(seconds=-1)]


@pytest.mark.parametrize("value", BAD_TIMES, ids=repr)
@pytest.mark.parametrize("option", ["deadline", "rollback_deadline", "late_grace"])
def test_a_class_time_that_is_not_above_zero_is_refused(option: str, value: Any) -> None:
    """Only `late_grace` may be nothing at all."""
    if option == "late_grace" and value in (0, timedelta(0)):
        assert make("X", {"a": a_step()}, late_grace=value).plan().late_grace_seconds == 0
        return
    message = refusal(lambda: make("X", {"a": a_step()}, **{option: value}))
    assert message == f"X: {option}={value!r} is not a time. Write seconds above 0, or a timedelta."


def test_no_late_grace_is_said_with_zero() -> None:
    """None would leave open whether there is any."""
    assert "late_grace=None says nothing" in refusal(lambda: make("X", {"a": a_step()}, late_grace=None))


def test_an_unknown_compensation_policy_is_refused() -> None:
    """There are two."""
    message = refusal(lambda: make("X", {"a": a_step()}, on_compensation_failure="stop"))
    assert "Write on_compensation_failure='continue' or on_compensation_failure='halt'." in message


def test_an_unknown_class_keyword_is_refused_with_those_there_are() -> None:
    """A misspelt deadline must not pass for none."""
    message = refusal(lambda: make("X", {"a": a_step()}, deadlin=3))
    assert message == f"X: there is no class keyword 'deadlin'. A saga takes: {', '.join(KEYWORDS)}."


def test_the_class_keywords_are_those_of_the_signature() -> None:
    """The list in the message is the truth."""
    taken = [p for p in inspect.signature(Saga.__init_subclass__).parameters.values() if p.kind is p.KEYWORD_ONLY]
    assert tuple(parameter.name for parameter in taken) == KEYWORDS


# Inputs and order


def test_an_input_of_another_saga_is_refused() -> None:
    """Its result would never be there."""

    def define() -> object:
        class Other(Saga[Order]):
            a = a_step()

            @step(PlaceOrder.process_payment, no_compensation="it only reads")
            def b(self, ctx: Context[Order], payment: Payment) -> int:
                return 1

        return Other

    message = refusal(define)
    assert message == "Other.b: its input process_payment belongs to PlaceOrder. Take one of the steps above: a."


def test_an_input_that_is_written_below_is_refused() -> None:
    """Results flow down the page."""
    late = a_step()
    early = step(late, no_compensation="it only reads")(reads)
    message = refusal(lambda: make("X", {"early": early, "late": late}))
    assert message.startswith("X.early: its input late is not written above it.")
    assert message.endswith("Take one of the steps above: there is none, so move it down.")


def test_an_input_that_is_in_no_class_is_refused() -> None:
    """A step that was made beside the class is none of its steps."""
    stray = a_step()
    user = step(stray, no_compensation="it only reads")(reads)
    assert "is not written above it" in refusal(lambda: make("X", {"a": a_step(), "user": user}))


@pytest.mark.parametrize("given", [3, "reserve", reads, None])
def test_an_input_that_is_no_step_is_refused(given: Any) -> None:
    """A name in quotes is the usual slip."""
    user = step(a_step(), given, no_compensation="it only reads")(reads)
    first = user.declared.needs[0]
    message = refusal(lambda: make("X", {"first": first, "user": user}))
    assert "which is not a step. Write an earlier step's name." in message


@pytest.mark.parametrize("given", [("a",), 3, "a"])
def test_an_after_that_names_no_step_is_refused(given: Any) -> None:
    """The same for the order."""
    message = refusal(lambda: make("X", {"a": a_step(), "b": a_step(after=given)}))
    assert "which is not a step. Write after=(a, b), or after=(a,) for one." in message


def test_a_single_step_in_after_needs_its_comma_only_for_type_checkers() -> None:
    """A lone step is clear enough at run time; nothing is guessed by taking it."""
    first = a_step()
    assert make("X", {"a": first, "b": a_step(after=first)}).plan().steps[1].after == ("a",)


def test_an_after_of_another_saga_is_refused() -> None:
    """It would never be over."""
    message = refusal(lambda: make("X", {"a": a_step(), "b": a_step(after=(PlaceOrder.create_shipment,))}))
    assert "its after create_shipment belongs to PlaceOrder. Take one of the steps above: a." in message


def test_more_than_six_inputs_are_refused() -> None:
    """Type checkers stop there, and so does the class."""

    def many(self: Any, ctx: Any, *results: int) -> int:
        return 1

    def body(count: int) -> dict[str, Any]:
        first = a_step()
        return {"first": first, "many": step(*[first] * count, no_compensation="x")(many)}

    assert make("X", body(6)).plan().steps[1].inputs == ("first",) * 6
    message = refusal(lambda: make("X", body(7)))
    assert "X.many: it takes 7 results, and 6 is the most." in message
    assert "read the rest with ctx.result_or_none(step)" in message


def test_a_skippable_step_as_input_is_refused() -> None:
    """Its result may not be there; the way to read it is named."""

    def define() -> object:
        class Skips(Saga[Order]):
            a = a_step()

            @a.when
            def big(self, ctx: Context[Order]) -> bool:
                return True

            @step(a, no_compensation="it only reads")
            def b(self, ctx: Context[Order], a: int) -> int:
                return 1

        return Skips

    message = refusal(define)
    assert "Skips.b: its input a may be skipped (@a.when)" in message
    assert "Read it with ctx.result_or_none(a) and write after=(a,)." in message


def test_a_condition_that_is_written_below_the_input_is_seen() -> None:
    """The class is judged as a whole."""

    def define() -> object:
        class Skips(Saga[Order]):
            a = a_step()

            @step(a, no_compensation="it only reads")
            def b(self, ctx: Context[Order], a: int) -> int:
                return 1

            @a.when
            def big(self, ctx: Context[Order]) -> bool:
                return True

        return Skips

    assert "may be skipped" in refusal(define)


# Pivot


def test_two_pivots_are_refused() -> None:
    """There is one point of no return."""
    message = refusal(lambda: make("X", {"a": pivot()(ships), "b": pivot()(ships)}))
    assert message.startswith("X has two pivots, a and b")
    assert "Make b a @retriable if it must succeed after a, or a a @step." in message


def test_a_retriable_without_a_pivot_is_refused() -> None:
    """Must-succeed makes sense only where there is no way back."""
    message = refusal(lambda: make("X", {"a": a_step(), "b": retriable()(ships)}))
    assert message.startswith("X.b: a @retriable comes after the point of no return, and there is none.")
    assert "Make the step before it a @pivot, or make b a @step." in message


def test_a_retriable_beside_the_pivot_is_refused() -> None:
    """It could have run when the saga turns back."""
    message = refusal(lambda: make("X", {"a": pivot()(ships), "b": retriable(after=())(ships)}))
    assert message.startswith("X.b: a @retriable must come after the pivot a.")
    assert "Write it below and leave out its after=, or add a to it, or make it a @step." in message


def test_a_retriable_before_the_pivot_is_refused() -> None:
    """The same, in the order written."""
    assert "X.a: a @retriable must come after the pivot b." in refusal(
        lambda: make("X", {"a": retriable()(ships), "b": pivot()(ships)})
    )


def test_a_compensatable_step_after_the_pivot_is_refused() -> None:
    """Its failure would ask for a way back that is closed."""
    message = refusal(lambda: make("X", {"a": pivot()(ships), "b": a_step()}))
    assert message.startswith("X.b: it can be undone, but the pivot a does not wait for it.")
    assert message.endswith("Make it a @retriable, or write it above a.")


def test_a_compensatable_step_beside_the_pivot_is_refused() -> None:
    """It might still be running, and fail, when the pivot is through."""
    message = refusal(lambda: make("X", {"a": a_step(), "b": pivot(after=())(ships)}))
    assert message.startswith("X.a: it can be undone, but the pivot b does not wait for it.")
    assert message.endswith("Name it in after= of b, or leave that after= out.")


def test_a_wait_beside_the_pivot_is_refused() -> None:
    """Whether its time-out may turn the saga back would depend on luck."""
    message = refusal(lambda: make("X", {"a": pivot()(ships), "b": delay(1, after=())}))
    assert message.startswith("X.b: it waits beside the pivot a")
    assert "add after=(a,) to it" in message


def test_a_condition_on_the_pivot_is_refused() -> None:
    """A skipped point of no return is neither before nor after."""

    def define() -> object:
        class Skips(Saga[Order]):
            @pivot()
            def ship(self, ctx: Context[Order]) -> Shipment:
                return Shipment("1")

            @ship.when
            def big(self, ctx: Context[Order]) -> bool:
                return True

        return Skips

    message = refusal(define)
    assert message.startswith("Skips.ship: the pivot can't be skipped")
    assert "Remove @ship.when, or put the choice into the action." in message


def test_an_event_after_the_pivot_that_would_turn_back_is_refused() -> None:
    """There is no way backward from there, so a person has to look."""

    def body(**options: Any) -> dict[str, Any]:
        return {"a": pivot()(ships), "b": wait_for_event("x", int, timeout=1, **options)}

    for options in ({}, {"on_timeout": "backward"}):
        message = refusal(lambda options=options: make("X", body(**options)))
        assert message.startswith("X.b: after the pivot a time-out can't turn the saga backward.")
        assert message.endswith('Add on_timeout="attention".')
    assert make("X", body(on_timeout="attention")).plan().steps[1].on_timeout == "attention"


# Options of a step


@pytest.mark.parametrize("value", BAD_TIMES, ids=repr)
@pytest.mark.parametrize("option", ["timeout", "deadline"])
def test_a_step_time_that_is_not_above_zero_is_refused(option: str, value: Any) -> None:
    """A call that may take no time is never made."""
    message = refusal(lambda: make("X", {"a": a_step(**{option: value})}))
    assert message == f"X.a: {option}={value!r} is not a time. Write seconds above 0, or a timedelta."


@pytest.mark.parametrize("value", BAD_TIMES, ids=repr)
@pytest.mark.parametrize("what", ["compensation", "probe"])
def test_a_handler_time_that_is_not_above_zero_is_refused(what: str, value: Any) -> None:
    """The same for compensations and probes."""

    def handler(self: Any, ctx: Any, tried: Any) -> Any: ...

    one = step(**({} if what == "compensation" else {"no_compensation": "x"}))(reads)
    getattr(one, what)(timeout=value)(handler)
    message = refusal(lambda: make("X", {"a": one}))
    assert message.startswith(f"X.a: @a.{what}: timeout={value!r} is not a time.")


@pytest.mark.parametrize("value", [*BAD_TIMES, None], ids=repr)
def test_a_wait_that_is_not_above_zero_or_has_no_end_is_refused(value: Any) -> None:
    """A delay of nothing and a wait for ever are mistakes."""
    assert refusal(lambda: make("X", {"a": delay(value)})).startswith("X.a: ")
    assert "timeout=" in refusal(lambda: make("X", {"a": wait_for_event("x", int, timeout=value)}))


@pytest.mark.parametrize("event", ["", "  ", 3, "x" * 101])
def test_an_event_without_a_usable_name_is_refused(event: Any) -> None:
    """An event is found by its name."""
    message = refusal(lambda: make("X", {"a": wait_for_event(event, int, timeout=1)}))
    assert 'Write wait_for_event("payment.settled", ...)' in message


def test_names_of_a_hundred_characters_are_fine() -> None:
    """The limit is the last that passes, for sagas, steps and events."""
    name = "x" * 100
    plan = make("X", {name: wait_for_event(name, int, timeout=1)}, name=name).plan()
    assert (plan.name, plan.steps[0].name, plan.steps[0].event_name) == (name, name, name)


def test_an_unknown_way_out_of_a_time_out_is_refused() -> None:
    """There are two."""
    bad: Any = "forward"
    message = refusal(lambda: make("X", {"a": wait_for_event("x", int, timeout=1, on_timeout=bad)}))
    assert "Write on_timeout='backward' or on_timeout='attention'." in message


def test_a_retry_that_is_no_policy_is_refused() -> None:
    """A bare number is the usual slip, on steps and on handlers."""

    def undo(self: Any, ctx: Any, tried: Any) -> None: ...

    assert refusal(lambda: make("X", {"a": a_step(retry=5)})).endswith("Write retry=Retry(attempts=5).")
    one = step()(reads)
    one.compensation(retry=5)(undo)
    assert "X.a: @a.compensation: retry=5 is not a policy." in refusal(lambda: make("X", {"a": one}))


@pytest.mark.parametrize(
    ("rejects", "line"),
    [
        (CardDeclined, "Write rejects=(CardDeclined,)."),
        ([CardDeclined], "Write rejects=(CardDeclined,)."),
        ((3,), "Write rejects=(CardDeclined,)."),
        ((KeyboardInterrupt,), "is not a tuple of exceptions"),
        ((BaseException,), "is not a tuple of exceptions"),
        ((Exception,), "Name the exceptions that say so"),
    ],
    ids=repr,
)
def test_rejects_that_are_no_tuple_of_named_exceptions_are_refused(rejects: Any, line: str) -> None:
    """`rejects` promises that nothing happened; nobody can promise that for every exception."""
    assert line in refusal(lambda: make("X", {"a": a_step(rejects=rejects)}))


def test_on_unknown_without_at_most_once_is_refused() -> None:
    """A step that is repeated never needs it."""
    message = refusal(lambda: make("X", {"a": a_step(on_unknown="attention")}))
    assert message.endswith("Add at_most_once=True, or remove on_unknown.")


def test_on_unknown_backward_without_a_barrier_is_refused() -> None:
    """Undoing what may still arrive leaves it standing."""
    message = refusal(lambda: make("X", {"a": a_step(at_most_once=True, on_unknown="backward")}))
    assert "Add barrier=True if the participant refuses an action after its compensation" in message
    assert 'or write on_unknown="attention"' in message


def test_an_unknown_way_out_of_the_unknown_is_refused() -> None:
    """There are two."""
    message = refusal(lambda: make("X", {"a": a_step(at_most_once=True, on_unknown="forward")}))
    assert "Write on_unknown='attention' or on_unknown='backward'." in message


def test_a_barrier_without_a_compensation_is_refused() -> None:
    """It is about the order of the two."""
    message = refusal(lambda: make("X", {"a": a_step(barrier=True)}))
    assert "Add @a.compensation above a method, or remove barrier." in message


@pytest.mark.parametrize("option", ["at_most_once", "barrier"])
def test_a_switch_that_is_not_true_or_false_is_refused(option: str) -> None:
    """`at_most_once="no"` would mean yes."""
    message = refusal(lambda: make("X", {"a": a_step(**{option: "no"})}))
    assert f"Write {option}=False or {option}=True." in message


@pytest.mark.parametrize(
    ("decorator", "option"),
    [(step, "timeot"), (pivot, "no_compensation"), (pivot, "barrier"), (retriable, "deadline"), (retriable, "x")],
)
def test_an_option_that_a_decorator_does_not_have_is_refused_with_those_it_has(decorator: Any, option: str) -> None:
    """A misspelt or senseless option must not pass unread."""
    message = refusal(lambda: decorator(**{option: 1}))
    assert f"has no option {option!r}. It takes: retry, timeout, rejects, after, at_most_once" in message


@pytest.mark.parametrize(("word", "decorator"), [("step", step), ("pivot", pivot), ("retriable", retriable)])
def test_a_decorator_without_brackets_is_refused(word: str, decorator: Any) -> None:
    """Otherwise the method would pass for an earlier step."""
    assert refusal(lambda: decorator(reads)) == f"@{word} stands without brackets above a function. Write @{word}()."


@pytest.mark.parametrize(
    "given",
    [partial(reads, None), staticmethod(reads), classmethod(reads), int, 3],
    ids=["partial", "staticmethod", "classmethod", "class", "number"],
)
def test_a_step_or_handler_that_is_no_method_is_refused(given: Any) -> None:
    """A step is called with the saga object, so it is a plain method."""
    assert "Write it above a plain `def` or `async def` method." in refusal(lambda: step()(given))
    assert "@reads.when was given" in refusal(lambda: a_step().when(given))


def test_a_method_that_yields_is_refused() -> None:
    """One call gives one result."""

    def many(self: Any, ctx: Any) -> Any:
        yield 1

    async def many_later(self: Any, ctx: Any) -> Any:
        yield 1

    for given in (many, many_later):
        assert refusal(lambda given=given: step()(given)).endswith("Return one value instead.")


# Deadlines


def test_a_step_deadline_shorter_than_one_call_is_refused() -> None:
    """All attempts together include the first."""
    message = refusal(lambda: make("X", {"a": a_step(timeout=10, deadline=9)}))
    assert "X.a: its deadline of 9 s is shorter than one call may take (10 s)." in message
    assert "Write timeout=9 or less, or deadline=10 or more." in message
    assert make("X", {"a": a_step(timeout=10, deadline=10)})


def test_a_step_deadline_is_compared_with_the_default_time_out_too() -> None:
    """What is not written counts as well."""
    assert "one call may take (30 s)" in refusal(lambda: make("X", {"a": a_step(deadline=29)}))


def test_a_saga_deadline_shorter_than_its_longest_path_is_refused() -> None:
    """One attempt of each action and every wait up to the pivot have to fit; parallel branches do not add up."""

    def body() -> dict[str, Any]:
        return {
            "a": a_step(timeout=10),
            "pause": delay(timedelta(minutes=1)),
            "b": a_step(timeout=5, after=()),
            "ship": pivot(timeout=20)(ships),
            "later": retriable(timeout=1000)(ships),
        }

    message = refusal(lambda: make("X", body(), deadline=89))
    assert message.startswith("X: its deadline of 89 s is shorter than its steps may take without any repeat: 90 s ")
    assert "(a 10 + pause 60 + ship 20). Write deadline=90 or more, or shorten their time-outs." in message
    assert make("X", body(), deadline=90)


def test_a_saga_deadline_without_a_pivot_counts_all_steps_and_events() -> None:
    """Without a point of no return the deadline holds to the end."""

    def body() -> dict[str, Any]:
        return {"a": a_step(timeout=10), "event": wait_for_event("x", int, timeout=50)}

    assert "60 s (a 10 + event 50)" in refusal(lambda: make("X", body(), deadline=59))
    assert make("X", body(), deadline=timedelta(minutes=1))


def test_a_rollback_deadline_shorter_than_its_compensations_is_refused() -> None:
    """One attempt of each compensation on the longest path has to fit."""

    def body() -> dict[str, Any]:
        def undone(timeout: float) -> Any:
            def undo(self: Any, ctx: Any, tried: Any) -> None: ...

            one = step()(reads)
            one.compensation(timeout=timeout)(undo)
            return one

        return {"a": undone(10), "b": a_step(), "c": undone(20), "d": pivot()(ships)}

    message = refusal(lambda: make("X", body(), rollback_deadline=29))
    assert "X: its rollback_deadline of 29 s is shorter" in message
    assert "30 s (a 10 + c 20). Write rollback_deadline=30 or more" in message
    assert make("X", body(), rollback_deadline=30)
