"""Atone: sagas for Python. A business transaction across services completes, or is undone, whatever crashes in between.

These names are the promise: they keep their meaning over releases. Everything else may move.
"""

from __future__ import annotations

from atone._core.retry import Retry
from atone._core.state import SagaStatus, StepStatus
from atone.definition import (
    CannotTell,
    Context,
    Landed,
    NotLanded,
    Saga,
    Succeeded,
    Tried,
    Unknown,
    delay,
    pivot,
    retriable,
    step,
    wait_for_event,
)
from atone.errors import AtoneError, DefinitionError, Reject, RetryAfter
from atone.orchestrator import Orchestrator
from atone.outcome import Compensated, Completed, Failed, NeedsAttention

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
    "StepStatus",
    "Succeeded",
    "Tried",
    "Unknown",
    "delay",
    "pivot",
    "retriable",
    "step",
    "wait_for_event",
]
