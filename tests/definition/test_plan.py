"""A saga class compiles to a plan: hashable data that says everything `decide` needs, and nothing else.

Each option of the definition layer arrives in the plan, for async and plain functions alike.
"""

from __future__ import annotations

import math
import re
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from atone._core.plan import DEFAULT_COMPENSATION_RETRY, DEFAULT_PROBE_RETRY, Does, Plan, Role, StepPlan
from atone.definition import (
    Context,
    Retry,
    Saga,
    Tried,
    definition_of,
    delay,
    pivot,
    retriable,
    step,
    wait_for_event,
)
from tests.definition.shop import CardDeclined, Order, Payment, PlaceOrder, Reservation, Shipment


async def later(self: Any, ctx: Context[Order]) -> int:
    return 1


def at_once(self: Any, ctx: Context[Order]) -> int:
    return 1


def undo(self: Any, ctx: Context[Order], tried: Tried[int]) -> None: ...


async def ask(self: Any, ctx: Context[Order]) -> bool:
    return True


def plan_of(body: dict[str, Any], **keywords: Any) -> Plan:
    """Compile a saga class `Made` with these steps."""
    made: type[Saga[Order]] = types.new_class("Made", (Saga[Order],), keywords, lambda names: names.update(body))
    return made.plan()


def a(function: Callable[..., Any] = at_once, *needs: Any, **options: Any) -> Any:
    return step(*needs, **({"no_compensation": "it only reads"} | options))(function)


def only(body: dict[str, Any]) -> StepPlan:
    (found,) = plan_of(body).steps
    return found


def test_the_readme_saga_compiles_to_this_plan() -> None:
    """The whole plan of the saga that everybody reads first."""
    assert PlaceOrder.plan() == Plan(
        name="PlaceOrder",
        version=1,
        input_type="Order",
        steps=(
            StepPlan(
                "reserve_inventory",
                has_compensation=True,
                retry=Retry(attempts=5),
                timeout_seconds=10.0,
                result_type="Reservation",
            ),
            StepPlan(
                "process_payment",
                after=("reserve_inventory",),
                has_probe=True,
                has_compensation=True,
                timeout_seconds=30.0,
                compensation_retry=Retry(attempts=7),
                compensation_timeout_seconds=60.0,
                probe_timeout_seconds=2.0,
                result_type="Payment",
            ),
            StepPlan(
                "create_shipment",
                role=Role.PIVOT,
                inputs=("reserve_inventory", "process_payment"),
                after=("reserve_inventory", "process_payment"),
                result_type="Shipment",
            ),
            StepPlan(
                "send_confirmation",
                role=Role.RETRIABLE,
                inputs=("create_shipment",),
                after=("create_shipment",),
                result_type="None",
            ),
        ),
    )


def test_a_plan_is_hashable_frozen_and_made_once() -> None:
    """It is a key, and the same object each time."""
    plan = PlaceOrder.plan()
    assert {plan: 1}[Plan.from_json(plan.to_json())] == 1
    assert PlaceOrder.plan() is plan
    assert definition_of(PlaceOrder) is definition_of(PlaceOrder())
    with pytest.raises(FrozenInstanceError):
        plan.version = 2


def test_class_keywords_arrive_in_the_plan() -> None:
    """Seconds and timedeltas mean the same."""
    plan = plan_of(
        {"one": a()},
        name="Named",
        version=3,
        deadline=timedelta(hours=1),
        rollback_deadline=600,
        on_compensation_failure="halt",
        late_grace=timedelta(seconds=2),
        recoveries_max=9,
    )
    assert (plan.name, plan.version, plan.on_compensation_failure, plan.recoveries_max) == ("Named", 3, "halt", 9)
    assert (plan.deadline_seconds, plan.rollback_deadline_seconds, plan.late_grace_seconds) == (3600.0, 600.0, 2.0)


def test_class_keywords_have_defaults() -> None:
    """A saga without any keyword is named like its class."""
    plan = plan_of({"one": a()})
    assert (plan.name, plan.version, plan.on_compensation_failure, plan.recoveries_max) == ("Made", 1, "continue", 5)
    assert (plan.deadline_seconds, plan.rollback_deadline_seconds, plan.late_grace_seconds) == (None, None, 5.0)


@pytest.mark.parametrize("function", [later, at_once])
def test_the_options_of_a_step_arrive_in_the_plan(function: Callable[..., Any]) -> None:
    """For async and plain functions alike."""
    one = step(
        retry=Retry(attempts=4, initial=0.1),
        timeout=timedelta(minutes=1),
        deadline=timedelta(minutes=5),
        at_most_once=True,
        barrier=True,
        on_unknown="backward",
    )(function)
    one.compensation(undo)
    found = only({"one": one})
    assert (found.retry, found.timeout_seconds, found.deadline_seconds) == (Retry(attempts=4, initial=0.1), 60.0, 300.0)
    assert (found.at_most_once, found.barrier, found.on_unknown) == (True, True, "backward")
    assert (found.role, found.does, found.result_type) == (Role.COMPENSATABLE, Does.ACTION, "int")


@pytest.mark.parametrize("function", [later, at_once])
def test_the_options_of_a_step_have_defaults(function: Callable[..., Any]) -> None:
    """What is not said is said nowhere else."""
    found = only({"one": a(function)})
    assert found == StepPlan("one", no_compensation="it only reads", result_type="int")


def test_none_means_the_default() -> None:
    """So that a policy can be passed through."""
    one = step(retry=None, timeout=None, deadline=None, after=None, no_compensation=None)(at_once)
    one.compensation(retry=None, timeout=None)(undo)
    assert only({"one": one}) == StepPlan("one", has_compensation=True, result_type="int")


def test_compensation_and_probe_have_policies_of_their_own() -> None:
    """Bare they have defaults, in brackets what is written there."""

    def probe(self: Any, ctx: Any, tried: Any) -> Any: ...

    bare, given = step()(at_once), step()(at_once)
    assert bare.compensation(undo) is undo
    assert bare.probe(probe) is probe
    assert given.compensation(retry=Retry(attempts=2), timeout=timedelta(seconds=3))(undo) is undo
    assert given.probe(retry=Retry(attempts=4), timeout=5)(probe) is probe
    one, two = plan_of({"one": bare, "two": given}).steps
    assert (one.has_compensation, one.has_probe) == (two.has_compensation, two.has_probe) == (True, True)
    assert (one.compensation_retry, one.compensation_timeout_seconds) == (DEFAULT_COMPENSATION_RETRY, 30.0)
    assert (one.probe_retry, one.probe_timeout_seconds) == (DEFAULT_PROBE_RETRY, 30.0)
    assert (two.compensation_retry, two.compensation_timeout_seconds) == (Retry(attempts=2), 3.0)
    assert (two.probe_retry, two.probe_timeout_seconds) == (Retry(attempts=4), 5.0)


def test_a_condition_makes_a_step_skippable() -> None:
    """Also of a wait."""
    one, pause = a(), delay(1)
    assert one.when(ask) is ask
    pause.when(ask)
    assert [found.has_when for found in plan_of({"one": one, "pause": pause, "two": a()}).steps] == [True, True, False]


def test_a_pivot_and_a_retriable_take_the_options_that_make_sense() -> None:
    """A retriable has no deadline, and neither has a compensation."""
    ship = pivot(retry=Retry(attempts=2), timeout=3, deadline=4, rejects=(CardDeclined,), at_most_once=True)(later)
    mail = retriable(retry=Retry(maximum=9), timeout=5, rejects=(CardDeclined,), at_most_once=True)(at_once)
    one, two = plan_of({"ship": ship, "mail": mail}).steps
    assert (one.role, one.retry, one.timeout_seconds) == (Role.PIVOT, Retry(attempts=2), 3.0)
    assert (one.deadline_seconds, one.at_most_once) == (4.0, True)
    assert (two.role, two.retry, two.timeout_seconds) == (Role.RETRIABLE, Retry(maximum=9), 5.0)
    assert (two.deadline_seconds, two.at_most_once) == (None, True)


def test_waits_compile_to_delays_and_events() -> None:
    """They call nothing, so they have nothing to undo."""
    pause, paid = plan_of(
        {
            "pause": delay(timedelta(days=1)),
            "paid": wait_for_event("payment.settled", Payment, timeout=60, on_timeout="attention"),
        }
    ).steps
    assert pause == StepPlan("pause", does=Does.DELAY, wait_seconds=86400.0)
    assert paid == StepPlan(
        "paid",
        does=Does.EVENT,
        after=("pause",),
        wait_seconds=60.0,
        event_name="payment.settled",
        on_timeout="attention",
        result_type="Payment",
    )


def test_a_wait_takes_the_side_of_the_pivot_it_stands_on() -> None:
    """Before it the saga can still turn back, after it only forward."""
    plan = plan_of({"before": delay(1), "ship": pivot()(later), "behind": delay(1), "mail": retriable()(later)})
    assert [one.role for one in plan.steps] == [Role.COMPENSATABLE, Role.PIVOT, Role.RETRIABLE, Role.RETRIABLE]


def test_steps_run_in_the_order_written() -> None:
    """Without `after` each waits for everything above, said with as few edges as it takes."""
    plan = plan_of({"one": a(), "two": a(), "three": a()})
    assert [found.after for found in plan.steps] == [(), ("one",), ("two",)]


def test_after_nothing_means_from_the_start() -> None:
    """Two branches, and a step that waits for both."""
    plan = plan_of({"one": a(), "two": a(), "other": a(after=()), "both": a()})
    assert [found.after for found in plan.steps] == [(), ("one",), (), ("two", "other")]


def test_after_some_steps_means_after_these_and_the_inputs() -> None:
    """In the order written, each once, from any collection."""
    one, two, three = a(), a(), a()

    def takes(self: Any, ctx: Any, first: int) -> int:
        return first

    last = step(one, after=(step for step in (three, one)), no_compensation="it only reads")(takes)
    plan = plan_of({"one": one, "two": two, "three": three, "last": last})
    assert plan.steps[3].after == ("one", "three")
    assert plan.steps[3].inputs == ("one",)


def test_inputs_are_predecessors_without_being_said() -> None:
    """`after=()` with an input is after the input."""
    one = a()

    def takes(self: Any, ctx: Any, first: int) -> int:
        return first

    plan = plan_of({"one": one, "two": a(), "last": step(one, after=(), no_compensation="x")(takes)})
    assert plan.steps[2].after == ("one",)


def test_inputs_keep_the_order_of_the_parameters() -> None:
    """Not that of the page."""

    def takes(self: Any, ctx: Any, later: str, first: int) -> int:
        return first

    def text(self: Any, ctx: Any) -> str:
        return ""

    one, two = a(), a(text)
    plan = plan_of({"one": one, "two": two, "last": step(two, one, no_compensation="x")(takes)})
    assert plan.steps[2].inputs == ("two", "one")
    assert plan.steps[2].after == ("one", "two")


def test_a_wait_takes_after_as_well() -> None:
    """A delay beside the work."""
    one = a()
    plan = plan_of({"one": one, "two": a(), "pause": delay(1, after=(one,)), "last": a()})
    assert [found.after for found in plan.steps] == [(), ("one",), ("one",), ("two", "pause")]


def test_two_versions_stand_side_by_side() -> None:
    """One name, two classes."""
    plans = [plan_of({"one": a()}, name="PlaceOrder", version=version) for version in (1, 2)]
    assert [plan.name for plan in plans] == ["PlaceOrder"] * 2
    assert plans[0].plan_hash != plans[1].plan_hash


# What the runtime takes


def test_the_definition_has_the_code_of_each_step() -> None:
    """Unbound functions, called with the saga object first."""
    definition = definition_of(PlaceOrder)
    assert definition.plan == PlaceOrder.plan()
    assert definition.input_type is Order
    assert [one.plan for one in definition.steps] == list(definition.plan.steps)
    pay = definition.by_name["process_payment"]
    assert pay.rejects == (CardDeclined,)
    assert pay.result_type is Payment
    codes = [code and code.function.__name__ for code in (pay.action, pay.compensation, pay.probe, pay.when)]
    assert codes == ["process_payment", "refund_payment", "find_payment", None]
    assert pay.action is not None
    assert pay.action.function(PlaceOrder(), Context("1", Order("7"), "k")) == Payment("7")


def test_each_step_knows_its_name() -> None:
    """A step is called like its attribute."""
    assert PlaceOrder.create_shipment.name == "create_shipment"
    assert repr(PlaceOrder.create_shipment) == "<step create_shipment>"
    assert plan_of({"renamed": a(at_once)}).steps[0].name == "renamed"


# JSON and the hash


def test_a_plan_survives_json() -> None:
    """What is stored is what was compiled."""
    rich = plan_of(
        {
            "one": a(retry=Retry(attempts=9, jitter=0.25), deadline=99.5),
            "pause": delay(0.5, after=()),
            "paid": wait_for_event("x", int, timeout=1),
            "ship": pivot()(later),
            "mail": retriable()(at_once),
        },
        rollback_deadline=5.5,
    )
    for plan in (PlaceOrder.plan(), rich):
        again = Plan.from_json(plan.to_json())
        assert again == plan
        assert (hash(again), again.plan_hash) == (hash(plan), plan.plan_hash)


def test_a_count_that_is_no_whole_number_can_be_read_again() -> None:
    """Nothing refuses it where no types are checked, and it works: what was stored must not strand its sagas."""
    for_ever: Any = math.inf
    plan = plan_of({"one": a(retry=Retry(attempts=for_ever))})
    assert Plan.from_json(plan.to_json()) == plan


def saga(
    *,
    name: str = "Made",
    version: int = 1,
    steps: Callable[[dict[str, Any]], dict[str, Any]] = lambda body: body,
    takes: Any = Order,
    one: dict[str, Any] | None = None,
    compensation: dict[str, Any] | None = None,
    **keywords: Any,
) -> str:
    """Return the hash of a saga, changed in one place."""
    first = step(**(one or {}))(at_once)
    if compensation is not None:
        first.compensation(**compensation)(undo)
    body = {"one": first, "two": a(), "pause": delay(1), "paid": wait_for_event("x", int, timeout=1)}
    made: Any = types.new_class(
        name, (Saga[takes],), {"version": version} | keywords, lambda ns: ns.update(steps(body))
    )
    plan: Plan = made.__outline__.shape
    return plan.plan_hash


USUAL: dict[str, Any] = {"compensation": {}}


def without_addresses(change: dict[str, Any]) -> str:
    """Return the id of a case: the same in every process, so that several can share the tests."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(change))


@pytest.mark.parametrize(
    "change",
    [
        {"one": {"retry": Retry(attempts=9)}},
        {"one": {"timeout": 5}},
        {"one": {"deadline": 500}},
        {"one": {"rejects": (CardDeclined,)}},
        {"compensation": {"retry": Retry(attempts=2), "timeout": 7}},
        {"deadline": 5000, "rollback_deadline": 4000, "late_grace": 1, "recoveries_max": 2},
        {"on_compensation_failure": "halt"},
        {"steps": lambda body: body | {"two": a(no_compensation="another reason")}},
        {"steps": lambda body: body | {"pause": delay(2)}},
        {"steps": lambda body: body | {"paid": wait_for_event("x", int, timeout=9)}},
    ],
    ids=without_addresses,
)
def test_a_tuned_definition_keeps_its_hash(change: dict[str, Any]) -> None:
    """Policies and limits may change under sagas in flight."""
    assert saga(**(USUAL | change)) == saga(**USUAL)


def with_probe(body: dict[str, Any]) -> dict[str, Any]:
    def probe(self: Any, ctx: Any, tried: Any) -> Any: ...

    body["two"].probe(probe)
    return body


def with_condition(body: dict[str, Any]) -> dict[str, Any]:
    body["two"].when(ask)
    return body


@pytest.mark.parametrize(
    "change",
    [
        {"name": "Other"},
        {"version": 2},
        {"one": {"no_compensation": "none any more"}, "compensation": None},
        {"one": {"at_most_once": True}},
        {"one": {"barrier": True}},
        {"one": {"at_most_once": True, "barrier": True, "on_unknown": "backward"}},
        {"steps": with_probe},
        {"steps": with_condition},
        {"steps": lambda body: {"renamed" if name == "two" else name: one for name, one in body.items()}},
        {"steps": lambda body: dict(sorted(body.items()))},
        {"steps": lambda body: body | {"two": a(after=())}},
        {"steps": lambda body: body | {"more": a()}},
        {"steps": lambda body: {name: one for name, one in body.items() if name != "two"}},
        {"steps": lambda body: body | {"two": delay(1)}},
        {"steps": lambda body: body | {"paid": wait_for_event("y", int, timeout=1)}},
        {"steps": lambda body: body | {"paid": wait_for_event("x", int, timeout=1, on_timeout="attention")}},
        {"steps": lambda body: body | {"more": pivot()(later)}},
    ],
    ids=without_addresses,
)
def test_another_shape_has_another_hash(change: dict[str, Any]) -> None:
    """Names, kinds, edges and order are what a saga in flight stands on."""
    assert saga(**(USUAL | change)) != saga(**USUAL)


def test_another_type_has_another_hash() -> None:
    """Types of input and results enter the hash once they are resolved."""

    def text(self: Any, ctx: Context[Order]) -> str:
        return ""

    plans = [
        plan_of({"one": a()}),
        plan_of({"one": a(text)}),
        plan_of({"one": wait_for_event("x", int, timeout=1)}),
        plan_of({"one": wait_for_event("x", str, timeout=1)}),
    ]
    by_input = [replace(plans[0], input_type=name) for name in ("Order", "Payment")]
    assert by_input[0] == plans[0]
    assert len({plan.plan_hash for plan in [*plans, *by_input]}) == 5


def test_an_async_and_a_plain_function_have_the_same_hash() -> None:
    """How a step is run is no part of what it is."""
    assert plan_of({"one": a(later)}).plan_hash == plan_of({"one": a(at_once)}).plan_hash


def test_the_hash_is_the_same_in_every_process() -> None:
    """It is stored, and compared by other machines; this one was written down."""
    code = "from tests.definition.shop import PlaceOrder; print(PlaceOrder.plan().plan_hash)"
    told = [
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        ).stdout.strip()
        for seed in ("1", "2")
    ]
    assert told == [PlaceOrder.plan().plan_hash] * 2
    assert told[0] == "9b844f12d1b5fc1cd45e80bf564f256f"


def test_a_type_may_move_to_another_module() -> None:
    """The hash knows a type by its name."""

    @dataclass
    class Shipment2:
        id: str

    Shipment2.__qualname__ = Shipment2.__name__ = "Shipment"
    Shipment2.__module__ = "elsewhere"

    def act(result: Any) -> Any:
        def ship(self: Any, ctx: Any) -> Any: ...

        ship.__annotations__ = {"return": result}
        return a(ship)

    one, other = (plan_of({"ship": act(kind)}) for kind in (Shipment, Shipment2))
    assert one.plan_hash == other.plan_hash
    assert one.plan_hash != plan_of({"ship": act(Reservation)}).plan_hash
