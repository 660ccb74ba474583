"""The promise: which names `import atone` gives. A change here is a change for every user, so it is made on purpose."""

from __future__ import annotations

import atone

PROMISED = {
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
}


def test_the_public_names_are_the_promised_ones() -> None:
    """What `__all__` says is what was promised, at most 25 names, and each is there."""
    assert set(atone.__all__) == PROMISED
    assert len(atone.__all__) <= 25
    assert all(hasattr(atone, name) for name in atone.__all__)


def test_statuses_have_the_promised_values() -> None:
    """The values are stored and shown, so they never change."""
    saga = {status.value for status in atone.SagaStatus}
    assert saga == {"pending", "running", "compensating", "completed", "compensated", "failed", "needs_attention"}
    assert [status for status in atone.SagaStatus if status.is_final] == [
        atone.SagaStatus.COMPLETED,
        atone.SagaStatus.COMPENSATED,
        atone.SagaStatus.FAILED,
    ]
