"""The whole definition for the runtime: the plan, and beside each step the user's code and types.

Owns `Definition`; frozen, made once per saga class. Must not call user code. Read by the runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from atone._core.plan import Plan, StepPlan
from atone._define import annotate
from atone._define.message import MessageDefinition, message_of
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
    """One step: its plan, its code, and the type that its result is encoded as (an event's: its payload).

    A command's `action` and `compensation` build its `messages`, by the operation; `rejection` is the type of a
    refusal's body, if the definition names one.
    """

    plan: StepPlan
    result_type: Any
    action: UserCode | None = None
    compensation: UserCode | None = None
    probe: UserCode | None = None
    when: UserCode | None = None
    rejects: tuple[type[Exception], ...] = ()
    messages: Mapping[str, MessageDefinition] = field(default_factory=dict[str, MessageDefinition])
    rejection: Any = None


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
    messages = {step.name: _messages(cls, step, types) for step in steps}
    labels = {step.name: _labels(step, messages[step.name]) for step in steps}
    plans = tuple(
        replace(plan, result_type=annotate.label(types.results[plan.name]), **labels[plan.name]) for plan in shape.steps
    )
    return Definition(
        plan=replace(shape, steps=plans, input_type=annotate.label(types.input)),
        input_type=types.input,
        steps=tuple(_step(plan, step, types, messages[plan.name]) for plan, step in zip(plans, steps, strict=True)),
    )


def _messages(cls: type, step: Step[Any, Any, Any], types: annotate.Types) -> Mapping[str, MessageDefinition]:
    undoing = step.declared.handlers.get("compensation")
    topics = {"action": step.declared.options.get("to"), "compensation": None if undoing is None else undoing.to}
    where = f"{cls.__name__}.{step.name}"
    return {
        operation: message_of(where, types.messages[step.name, operation], to)
        for operation, to in topics.items()
        if (step.name, operation) in types.messages
    }


def _labels(step: Step[Any, Any, Any], messages: Mapping[str, MessageDefinition]) -> dict[str, Any]:
    """Return what a plan says of a command's messages; nothing of any other step."""
    if not messages:
        return {}
    said: dict[str, Any] = {"topic": messages["action"].topic, "message_type": annotate.label(messages["action"].type)}
    if "compensation" in messages:
        said["compensation_topic"] = messages["compensation"].topic
    rejection = step.declared.options.get("rejects")
    return said if rejection is None else said | {"rejects_type": annotate.label(rejection)}


def _step(
    plan: StepPlan, step: Step[Any, Any, Any], types: annotate.Types, messages: Mapping[str, MessageDefinition]
) -> StepDefinition:
    functions = {what: handler.function for what, handler in step.declared.handlers.items()}
    if step.declared.action is not None:
        functions["action"] = step.declared.action
    code: dict[str, Any] = {
        what: UserCode(function, function in types.asynchronous) for what, function in functions.items()
    }
    result, rejects = types.results[plan.name], step.declared.options.get("rejects")
    if messages:
        return StepDefinition(plan, result, messages=messages, rejection=rejects, **code)
    return StepDefinition(plan, result, rejects=rejects or (), **code)
