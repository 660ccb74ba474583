"""How a saga ended, as values for a `match`: truthful, and never an exception.

Owns the four outcomes. Must not know how they came about. Made by the orchestrator, matched by its callers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from atone._define.step import Step
from atone.errors import NoResult

R = TypeVar("R")


@dataclass(frozen=True)
class Completed:
    """Every step succeeded or was skipped; `done[PlaceOrder.create_shipment]` is that step's result, typed.

    `results` holds the results by step name, without the skipped steps.
    """

    results: Mapping[str, Any]

    def __getitem__(self, step: Step[Any, Any, R], /) -> R:
        """Return a step's result.

        Raises:
            NoResult: The step was skipped, or is none of this saga.
        """
        try:
            found: R = self.results[step.name]
        except KeyError:
            raise NoResult(
                f"No result of {step.name}: it was skipped, or it is a step of another saga. "
                f"There are results of: {', '.join(self.results) or 'no step'}."
            ) from None
        return found


@dataclass(frozen=True)
class Compensated:
    """Everything that was done is undone; `cause` says why the saga turned backward."""

    cause: str


@dataclass(frozen=True)
class NeedsAttention:
    """The saga waits for a person, at this step, for this cause; it is not over."""

    step: str
    cause: str


@dataclass(frozen=True)
class Failed:
    """Ended with effects standing, by an operator's decision, for this reason."""

    reason: str


Outcome: TypeAlias = Completed | Compensated | NeedsAttention | Failed
