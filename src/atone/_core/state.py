"""What a saga is at one moment: the fold of its journal, as immutable data.

Nothing is stored here that the journal does not say. Only `fold` (in `fold.py`) makes new states; `decide`,
`explain` and the runtime read them. Named tuples, because a state is copied at every turn and must be cheap to copy.
"""

# ruff: noqa: RUF005 - joining tuples is faster than unpacking them into a new one.

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from atone._core.facts import ACTION, Operation, Problem
from atone._core.records import new


class SagaStatus(StrEnum):
    """Where a saga stands. COMPLETED, COMPENSATED and FAILED are final; NEEDS_ATTENTION waits for a person."""

    is_final: bool
    """Whether the saga is over for good."""

    PENDING = "pending"
    RUNNING = "running"
    COMPENSATING = "compensating"
    COMPLETED = "completed"
    COMPENSATED = "compensated"
    FAILED = "failed"
    NEEDS_ATTENTION = "needs_attention"

    def __init__(self, value: str) -> None:
        # Kept in the member, for it is asked for several times a turn.
        self.is_final = value in ("completed", "compensated", "failed")


class StepStatus(StrEnum):
    """Where a step stands. UNKNOWN: an attempt may have had its effect, and nobody has said so yet."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNKNOWN = "unknown"
    SKIPPED = "skipped"
    COMPENSATING = "compensating"
    COMPENSATED = "compensated"
    COMPENSATION_FAILED = "compensation_failed"


# A member is looked up by the enum's own code at every use, so whatever each turn passes uses these.
SUCCEEDED = StepStatus.SUCCEEDED
SKIPPED = StepStatus.SKIPPED
_RUNNING = StepStatus.RUNNING
_COMPENSATING = StepStatus.COMPENSATING


class Tries(NamedTuple):
    """How often one operation was called: in all, failed since the last reset, and ended by a crash since then."""

    started: int = 0
    failed: int = 0
    lost: int = 0


NO_TRIES = Tries()


class Open(NamedTuple):
    """An intent without an outcome: this attempt may be under way. `deadline` is its hard end, epoch seconds."""

    operation: Operation
    attempt: int
    deadline: float


class StepState(NamedTuple):
    """One step of a saga. Times are epoch seconds by the store's clock.

    `doubt`: some attempt of the action may have landed unseen. `quiet_at`: no such attempt can still be under way then.
    `due` and `due_at`: what is to be called next, and when; for a wait, when it ends.
    `condition`: what `when` answered. `attention`: why a person is needed. `waived`: why an undo was skipped.
    """

    # What most turns change stands in front, so that a copy is a few new values and one slice: see the methods.
    status: StepStatus = StepStatus.PENDING
    open: Open | None = None
    due: Operation | None = None
    due_at: float | None = None
    attention: str | None = None
    result: bytes | None = None
    action: Tries = NO_TRIES
    began_at: float | None = None
    compensation: Tries = NO_TRIES
    problem: Problem | None = None
    doubt: bool = False
    probe: Tries = NO_TRIES
    quiet_at: float = 0.0
    condition: bool | None = None
    waived: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether later steps may begin, going forward."""
        status = self.status
        return status is SUCCEEDED or status is SKIPPED

    @property
    def undo_begun(self) -> bool:
        """Whether its undo was tried, or given up without a try."""
        return self.compensation.started > 0 or self.status is StepStatus.COMPENSATION_FAILED

    # The next five are `_replace` for what nearly every saga does, at a fifth of its cost.

    def acting(self, opened: Open, tries: Tries, began_at: float) -> StepState:
        """Return the step with its action under way."""
        front = (_RUNNING, opened, None, None, self.attention, self.result, tries, began_at)
        return new(StepState, front + self[8:])

    def known(self, result: bytes) -> StepState:
        """Return the step with its action's result, and nothing due any more."""
        return new(StepState, (SUCCEEDED, None, None, None, None, result) + self[6:])

    def undoing(self, opened: Open, tries: Tries) -> StepState:
        """Return the step with its compensation under way."""
        return new(StepState, (_COMPENSATING, opened, None, None) + self[4:8] + (tries,) + self[9:])

    def resting(self, status: StepStatus) -> StepState:
        """Return the step with nothing under way and nothing due."""
        return new(StepState, (status, None, None, None) + self[4:])

    def scheduled(self, operation: Operation, at: float) -> StepState:
        """Return the step with its next call due then."""
        return new(StepState, self[:2] + (operation, at) + self[4:])


FRESH_STEP = StepState()


class Cause(NamedTuple):
    """Why a saga turned backward: `trigger` is failure, cancel, deadline, timeout or operator."""

    trigger: str
    step: str | None
    message: str
    by: str | None = None


class Request(NamedTuple):
    """Something asked from outside: `kind` is cancel, terminate, event, reply, retry, resolve or skip.

    Of a reply, `operation` and `attempt` name what it answers, and `landed` whether that succeeded or was rejected.
    """

    id: str
    kind: str
    by: str
    reason: str
    step: str | None = None
    event: str | None = None
    payload: bytes | None = None
    landed: bool | None = None
    operation: Operation = ACTION
    attempt: int = 1


class SagaState(NamedTuple):
    """A saga as its journal tells it; `version` is the number of journal rows folded.

    `rollback` is empty until the direction is decided (`cause` is set then); it names the steps to undo, newest first.
    `requests` are unanswered; `mail` holds events that no step has taken yet; `seen` all request ids.
    `trace` is the trace context of who started it, for telemetry alone: nothing is decided on it.
    """

    # What nearly every turn changes stands in front: see `moved`.
    status: SagaStatus
    steps: tuple[StepState, ...]
    version: int
    rollback: tuple[str, ...]
    tenant: str
    name: str
    saga_id: str
    input: bytes
    deadline: float | None = None
    cause: Cause | None = None
    rollback_deadline: float | None = None
    requests: tuple[Request, ...] = ()
    mail: tuple[Request, ...] = ()
    seen: frozenset[str] = frozenset()
    broken: str | None = None
    ended_because: str | None = None
    trace: str | None = None

    @property
    def is_backward(self) -> bool:
        """Whether the direction was decided: from here on the saga only undoes."""
        return self.cause is not None

    def moved(
        self, status: SagaStatus, steps: tuple[StepState, ...], version: int, rollback: tuple[str, ...]
    ) -> SagaState:
        """Return a copy with what nearly every turn changes; `_replace` costs five times as much."""
        return new(SagaState, (status, steps, version, rollback) + self[4:])
