"""What users write: the saga class, the steps' decorators, and the values that user code receives and returns.

Owns the public face of the definition layer; the parts lie in `_define`. Must not hold logic. Imported by the package
and by user code; the runtime takes `definition_of` from here.
"""

from __future__ import annotations

from typing import Any

from atone._core.retry import Retry
from atone._define.command import command
from atone._define.compiled import Definition, StepDefinition, UserCode
from atone._define.decorate import delay, pivot, retriable, step, wait_for_event
from atone._define.saga import Saga, outlined
from atone._define.step import Step
from atone._define.values import CannotTell, Context, Landed, NotLanded, Seconds, Succeeded, Tried, Unknown

__all__ = [
    "CannotTell",
    "Context",
    "Definition",
    "Landed",
    "NotLanded",
    "Retry",
    "Saga",
    "Seconds",
    "Step",
    "StepDefinition",
    "Succeeded",
    "Tried",
    "Unknown",
    "UserCode",
    "command",
    "definition_of",
    "delay",
    "pivot",
    "retriable",
    "step",
    "wait_for_event",
]


def definition_of(saga: Saga[Any] | type[Saga[Any]]) -> Definition:
    """Return the compiled definition of a saga class or of an object of it.

    Raises:
        DefinitionError: An annotation can't be resolved or contradicts another.
    """
    return outlined(saga if isinstance(saga, type) else type(saga)).definition
