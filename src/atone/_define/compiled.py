"""The whole definition for the runtime: the plan, and beside each step the user's code and types.

Owns `Definition`; frozen, made once per saga class. Must not call user code. Read by the runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from atone._core.plan import Plan, StepPlan
from atone._define import annotate
from atone._define.step import Step


@dataclass(frozen=True, slots=True)
class UserCode:
    """A method of the saga class, unbound: call `function(saga, ctx, ...)`.

    `is_async`: call it on the event loop and await what it returns, if that can be awaited; otherwise in a thread.
    """

    function: Callable[..., Any]
    is_async: bool


@dataclass(frozen=True, slots=True)
class StepDefinition:
    """One step: its plan, its code, and the type that its result is encoded as (an event's: its payload)."""

    plan: StepPlan
    result_type: Any
    action: UserCode | None = None
    compensation: UserCode | None = None
    probe: UserCode | None = None
    when: UserCode | None = None
    rejects: tuple[type[Exception], ...] = ()


@dataclass(frozen=True)
class Definition:
    """A saga definition as the runtime needs it; steps stand in the plan's order."""

    plan: Plan
    input_type: Any
    steps: tuple[StepDefinition, ...]

    @cached_property
    def by_name(self) -> Mapping[str, StepDefinition]:
        """The steps by name."""
        return {step.plan.name: step for step in self.steps}


def define(
    cls: type, input_annotation: Any, shape: Plan, steps: tuple[Step[Any, Any, Any], ...], names: Mapping[str, Any]
) -> Definition:
    """Resolve the annotations of a compiled saga class and put code, types and plan together.

    Raises:
        DefinitionError: An annotation can't be resolved, is missing, or contradicts another.
    """
    types = annotate.types_of(cls, input_annotation, steps, names)
    plans = tuple(replace(plan, result_type=annotate.label(types.results[plan.name])) for plan in shape.steps)
    return Definition(
        plan=replace(shape, steps=plans, input_type=annotate.label(types.input)),
        input_type=types.input,
        steps=tuple(_step(plan, step, types) for plan, step in zip(plans, steps, strict=True)),
    )


def _step(plan: StepPlan, step: Step[Any, Any, Any], types: annotate.Types) -> StepDefinition:
    functions = {what: handler.function for what, handler in step.declared.handlers.items()}
    if step.declared.action is not None:
        functions["action"] = step.declared.action
    code = {what: UserCode(function, function in types.asynchronous) for what, function in functions.items()}
    return StepDefinition(plan, types.results[plan.name], rejects=step.declared.options.get("rejects", ()), **code)
