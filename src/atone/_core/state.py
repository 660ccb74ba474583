"""What a saga is at one moment: the fold of its journal, as immutable data.

Nothing is stored here that the journal does not say. Only `fold` (in `journal.py`) makes new states; `decide`,
`explain` and the runtime read them. Named tuples, because a state is copied at every turn and must be cheap to copy.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from atone._core.facts import Operation, Problem


class SagaStatus(StrEnum):
    """Where a saga stands. COMPLETED, COMPENSATED and FAILED are final; NEEDS_ATTENTION waits for a person."""

    PENDING = "pending"
    RUNNING = "running"
    COMPENSATING = "compensating"
    COMPLETED = "completed"
    COMPENSATED = "compensated"
    FAILED = "failed"
    NEEDS_ATTENTION = "needs_attention"

    @property
    def is_final(self) -> bool:
        """Whether the saga is over for good."""
        return self in _FINAL


# A member is looked up in its class at every use; these two are asked for a dozen times a turn.
_FINAL = (SagaStatus.COMPLETED, SagaStatus.COMPENSATED, SagaStatus.FAILED)


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


_OVER = (StepStatus.SUCCEEDED, StepStatus.SKIPPED)


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

    status: StepStatus = StepStatus.PENDING
    open: Open | None = None
    result: bytes | None = None
    doubt: bool = False
    due: Operation | None = None
    due_at: float | None = None
    action: Tries = NO_TRIES
    probe: Tries = NO_TRIES
    compensation: Tries = NO_TRIES
    quiet_at: float = 0.0
    began_at: float | None = None
    condition: bool | None = None
    attention: str | None = None
    waived: str | None = None
    problem: Problem | None = None

    @property
    def is_over(self) -> bool:
        """Whether later steps may begin, going forward."""
        return self.status in _OVER

    def acting(self, opened: Open, tries: Tries, began_at: float) -> StepState:
        """Return the step with its action under way; written out because `_replace` costs four times as much."""
        return StepState(
            StepStatus.RUNNING,
            opened,
            self.result,
            self.doubt,
            None,
            None,
            tries,
            self.probe,
            self.compensation,
            self.quiet_at,
            began_at,
            self.condition,
            self.attention,
            self.waived,
            self.problem,
        )

    def known(self, result: bytes) -> StepState:
        """Return the step with its action's result, and nothing due any more; written out like `acting`."""
        return StepState(
            StepStatus.SUCCEEDED,
            None,
            result,
            self.doubt,
            None,
            None,
            self.action,
            self.probe,
            self.compensation,
            self.quiet_at,
            self.began_at,
            self.condition,
            None,
            self.waived,
            self.problem,
        )


FRESH_STEP = StepState()


class Cause(NamedTuple):
    """Why a saga turned backward: `trigger` is failure, cancel, deadline, timeout or operator."""

    trigger: str
    step: str | None
    message: str
    by: str | None = None


class Request(NamedTuple):
    """Something asked from outside: `kind` is cancel, terminate, event, retry, resolve or skip."""

    id: str
    kind: str
    by: str
    reason: str
    step: str | None = None
    event: str | None = None
    payload: bytes | None = None
    landed: bool | None = None


class SagaState(NamedTuple):
    """A saga as its journal tells it; `version` is the number of journal rows folded.

    `rollback` is empty until the direction is decided (`cause` is set then); it names the steps to undo, newest first.
    `requests` are unanswered; `mail` holds events that no step has taken yet; `seen` all request ids.
    """

    tenant: str
    name: str
    saga_id: str
    status: SagaStatus
    steps: tuple[StepState, ...]
    input: bytes
    deadline: float | None = None
    version: int = 0
    cause: Cause | None = None
    rollback: tuple[str, ...] = ()
    rollback_deadline: float | None = None
    requests: tuple[Request, ...] = ()
    mail: tuple[Request, ...] = ()
    seen: frozenset[str] = frozenset()
    broken: str | None = None
    ended_because: str | None = None

    @property
    def is_backward(self) -> bool:
        """Whether the direction was decided: from here on the saga only undoes."""
        return self.cause is not None

    def moved(
        self, status: SagaStatus, steps: tuple[StepState, ...], rollback: tuple[str, ...], version: int
    ) -> SagaState:
        """Return a copy with what nearly every turn changes; `_replace` costs four times as much, each time."""
        return SagaState(
            self.tenant,
            self.name,
            self.saga_id,
            status,
            steps,
            self.input,
            self.deadline,
            version,
            self.cause,
            rollback,
            self.rollback_deadline,
            self.requests,
            self.mail,
            self.seen,
            self.broken,
            self.ended_because,
        )
