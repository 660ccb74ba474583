"""From a class body to a plan's shape: everything that can be known without looking at annotations.

Owns `Outline`, what a finished saga class remembers of itself. Must not resolve a type or run user code. Called when
the class is made; `definition` is filled in later, when somebody needs the types.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from functools import cached_property
from typing import Any, TypeVar, get_args, get_origin

from atone._core.plan import (
    COMMAND,
    DEFAULT_COMPENSATION_RETRY,
    DEFAULT_PROBE_RETRY,
    DEFAULT_TIMEOUT_SECONDS,
    Plan,
    Role,
    StepPlan,
)
from atone._core.retry import Retry
from atone._define import check, check_plan
from atone._define.compiled import Definition, define
from atone._define.step import AnyStep, is_step
from atone.errors import DefinitionError


class Outline:
    """A saga class as it was written: its shape, its steps, and what is needed to resolve its types later."""

    def __init__(
        self, cls: type, input_annotation: Any, shape: Plan, steps: tuple[AnyStep, ...], names: Mapping[str, Any]
    ) -> None:
        self.cls = cls
        self.input_annotation = input_annotation
        self.shape = shape
        self.steps = steps
        self.names = names

    @property
    def compensations(self) -> dict[str, str]:
        """The name of each step's compensation, by step."""
        handlers = {step.name: step.declared.handlers.get("compensation") for step in self.steps}
        return {name: handler.name for name, handler in handlers.items() if handler is not None}

    @cached_property
    def definition(self) -> Definition:
        """The whole definition, types resolved."""
        return define(self.cls, self.input_annotation, self.shape, self.steps, self.names)


def outline_of(cls: type, root: type, said: Mapping[str, Any], names: Mapping[str, Any]) -> Outline:
    """Compile a saga class that has just been made.

    Raises:
        DefinitionError: The definition is wrong; the message says which line to add.
    """
    check.header(cls, root, said)
    input_annotation = _input_of(cls, root)
    steps = _collect(cls, root)
    plans: list[StepPlan] = []
    for step in steps:
        check.declaration(cls.__name__, step, steps[: len(plans)])
        plans.append(_step_plan(step, plans))
    shape = Plan(
        name=said["name"],
        version=said["version"],
        steps=tuple(plans),
        on_compensation_failure=said["on_compensation_failure"],
        deadline_seconds=_seconds(said["deadline"]),
        rollback_deadline_seconds=_seconds(said["rollback_deadline"]),
        late_grace_seconds=_seconds(said["late_grace"]) or 0.0,
        recoveries_max=said["recoveries_max"],
    )
    shape = _waits_placed(shape)
    check_plan.whole(cls.__name__, shape)
    for step in steps:
        step.declared.owner = cls.__name__
    return Outline(cls, input_annotation, shape, steps, names)


def _input_of(cls: type, root: type) -> Any:
    """Find `Order` in `class PlaceOrder(Saga[Order])`."""
    given = [get_args(base)[0] for base in vars(cls).get("__orig_bases__", ()) if get_origin(base) is root]
    if not given or isinstance(given[0], TypeVar):
        raise DefinitionError(
            f"{cls.__name__} does not say what its input is. Write: class {cls.__name__}(Saga[YourInput]): ..."
        )
    return given[0]


def _collect(cls: type, root: type) -> tuple[AnyStep, ...]:
    named = [(name, value) for name, value in vars(cls).items() if is_step(value)]
    check.names(cls, root, named)
    for name, step in named:
        step.name = name
    return tuple(step for _, step in named)


def _step_plan(step: AnyStep, above: list[StepPlan]) -> StepPlan:
    said, handlers = step.declared.options, step.declared.handlers
    compensation, probe = handlers.get("compensation"), handlers.get("probe")
    wait = said.get("wait")
    return StepPlan(
        name=step.name,
        role=step.declared.role or Role.COMPENSATABLE,
        does=step.declared.does,
        inputs=tuple(need.name for need in step.declared.needs),
        after=_after(step, above),
        has_when="when" in handlers,
        has_probe=probe is not None,
        has_compensation=compensation is not None,
        no_compensation=said.get("no_compensation"),
        at_most_once=said.get("at_most_once", False),
        barrier=said.get("barrier", step.declared.does is COMMAND and compensation is not None),
        on_unknown=said.get("on_unknown", "attention"),
        retry=said.get("retry") or Retry(),
        timeout_seconds=_seconds(said.get("timeout")) or DEFAULT_TIMEOUT_SECONDS,
        deadline_seconds=_seconds(said.get("deadline")),
        compensation_retry=(compensation and compensation.retry) or DEFAULT_COMPENSATION_RETRY,
        compensation_timeout_seconds=_seconds(compensation.timeout if compensation else None)
        or DEFAULT_TIMEOUT_SECONDS,
        probe_retry=(probe and probe.retry) or DEFAULT_PROBE_RETRY,
        probe_timeout_seconds=_seconds(probe.timeout if probe else None) or DEFAULT_TIMEOUT_SECONDS,
        event_name=said.get("event"),
        wait_seconds=None if wait is None else _seconds(wait),
        on_timeout=said.get("on_timeout", "backward"),
    )


def _after(step: AnyStep, above: list[StepPlan]) -> tuple[str, ...]:
    """Name the direct predecessors in the order written.

    "After everything above" is after those above that nothing above follows: the rest is over by then.
    """
    given = step.declared.options.get("after")
    if given is None:
        followed = {name for plan in above for name in plan.after}
        chosen = {plan.name for plan in above} - followed
    else:
        chosen = {one.name for one in given}
    chosen |= {need.name for need in step.declared.needs}
    return tuple(plan.name for plan in above if plan.name in chosen)


def _waits_placed(shape: Plan) -> Plan:
    """Give each wait the role of its place: behind the pivot it belongs to the way forward."""
    if shape.pivot is None:
        return shape
    beyond = shape.descendants[shape.pivot]
    steps = tuple(
        replace(step, role=Role.RETRIABLE) if not step.acts and at in beyond else step
        for at, step in enumerate(shape.steps)
    )
    return replace(shape, steps=steps)


def _seconds(value: float | timedelta | None) -> float | None:
    """Turn what `check` has accepted into seconds."""
    return value.total_seconds() if isinstance(value, timedelta) else None if value is None else float(value)
