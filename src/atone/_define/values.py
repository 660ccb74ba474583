"""What user code is handed and what it hands back: plain frozen values.

Owns `Context`, `Tried` and a probe's answers. They hold no behaviour beyond reading themselves, so a unit test makes
them by hand. The runtime makes some for each call: structs cost a tenth of frozen dataclasses, and `Tried[int](...)`
works on 3.11, where a frozen dataclass with slots fails.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from msgspec import Struct

if TYPE_CHECKING:
    from atone._define.step import Step

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
I_co = TypeVar("I_co", covariant=True)

Seconds: TypeAlias = "float | timedelta"

_NO_RESULTS: Mapping[str, Any] = MappingProxyType({})
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Context(Struct, Generic[I_co], frozen=True):
    """Tell one call of user code what it works for.

    `idempotency_key` belongs to this call's operation: an action and its compensation have different ones, every repeat
    has the same. `attempt` counts from 1. `fence` grows with each intent of the saga, so a participant can refuse an
    older one. `deadline` is when this call is given up, in epoch seconds (None where a message
    or a condition is asked for). `trace_headers` is the W3C trace context to
    send along, for a client that is not instrumented; empty if the saga has none.
    """

    saga_id: str
    input: I_co
    idempotency_key: str
    attempt: int = 1
    fence: int = 0
    tenant: str = "default"
    deadline: float | None = None
    _results: Mapping[str, Any] = _NO_RESULTS
    trace_headers: Mapping[str, str] = _NO_HEADERS

    def result_or_none(self, step: Step[Any, Any, R], /) -> R | None:
        """Return the result of an earlier step, or None if it was skipped or is not over."""
        found: R | None = self._results.get(step.name)
        return found


class Succeeded(Struct, Generic[R_co], frozen=True):
    """The action returned this result."""

    result: R_co


class Unknown(Struct, frozen=True):
    """Nobody knows whether the action had its effect: undo it as if it had, and accept that there may be nothing."""


class Tried(Struct, Generic[R_co], frozen=True):
    """Tell a compensation or a probe which action it is about.

    `idempotency_key` is the action's own key, the one that the participant saw.
    """

    idempotency_key: str
    outcome: Succeeded[R_co] | Unknown

    @property
    def result(self) -> R_co | None:
        """The action's result; None if the outcome is unknown, or if the result is None."""
        return self.outcome.result if isinstance(self.outcome, Succeeded) else None


class Landed(Struct, Generic[R_co], frozen=True):
    """A probe's answer: the action had its effect, and this is its result."""

    result: R_co


class NotLanded(Struct, frozen=True):
    """A probe's answer: no effect so far; the action may be repeated with the same key."""


class CannotTell(Struct, frozen=True):
    """A probe's answer: the participant does not know either."""
