"""Atone: sagas for Python. A business transaction across services completes, or is undone, whatever crashes in between.

These names are the promise: they keep their meaning over releases. Everything else may move.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atone._core.retry import Retry
from atone._core.state import SagaStatus
from atone.definition import (
    CannotTell,
    Context,
    Landed,
    NotLanded,
    Saga,
    Succeeded,
    Tried,
    Unknown,
    command,
    delay,
    pivot,
    retriable,
    step,
    wait_for_event,
)
from atone.errors import AtoneError, DefinitionError, Reject, RetryAfter
from atone.outcome import Compensated, Completed, Failed, NeedsAttention

if TYPE_CHECKING:
    from atone.orchestrator import Orchestrator

__all__ = [
    "AtoneError",
    "CannotTell",
    "Compensated",
    "Completed",
    "Context",
    "DefinitionError",
    "Failed",
    "Landed",
    "NeedsAttention",
    "NotLanded",
    "Orchestrator",
    "Reject",
    "Retry",
    "RetryAfter",
    "Saga",
    "SagaStatus",
    "Succeeded",
    "Tried",
    "Unknown",
    "command",
    "delay",
    "pivot",
    "retriable",
    "step",
    "wait_for_event",
]


def __getattr__(name: str) -> object:
    """Import the orchestrator when it is first asked for: who only defines sagas needs no event loop."""
    if name != "Orchestrator":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from atone.orchestrator import Orchestrator

    globals()[name] = Orchestrator
    return Orchestrator
