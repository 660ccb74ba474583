"""The journal's entries: what can stand in a row of a saga's journal.

An entry says what happened; `fold` (in `fold.py`) applies it and decides nothing. A row holds the entries of one turn
and raises the version by one. Entries are a stored format: fields may be added with a default, never renamed or
removed. Written by `decide`, read back by the runtime.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from atone._core.facts import Landed, Operation, Problem
from atone._core.state import Cause, Request, SagaStatus


class SagaStarted(NamedTuple):
    # Like the next two in every saga, hence a named tuple: a frozen dataclass sets each field by a call.
    tenant: str
    name: str
    version: int
    plan_hash: str
    saga_id: str
    input: bytes
    deadline: float | None = None
    trace: str | None = None


class AttemptStarted(NamedTuple):
    """The intent: durable before user code runs."""

    step: str
    operation: Operation
    attempt: int
    deadline: float
    at: float


class AttemptSucceeded(NamedTuple):
    step: str
    operation: Operation
    attempt: int
    result: bytes


class AttemptRejected(NamedTuple):
    # This one and the turn back are in every saga that undoes.
    step: str
    operation: Operation
    attempt: int
    problem: Problem


@dataclass(frozen=True, slots=True)
class AttemptUnknown:
    step: str
    operation: Operation
    attempt: int
    problem: Problem


@dataclass(frozen=True, slots=True)
class AttemptLost:
    step: str
    operation: Operation
    attempt: int


@dataclass(frozen=True, slots=True)
class AttemptInterrupted:
    step: str
    operation: Operation
    attempt: int


@dataclass(frozen=True, slots=True)
class AttemptImpossible:
    step: str
    operation: Operation
    attempt: int
    problem: Problem


@dataclass(frozen=True, slots=True)
class LateSuccess:
    """An attempt that was given up on has landed after all."""

    step: str
    attempt: int
    result: bytes


@dataclass(frozen=True, slots=True)
class ProbeAnswered:
    step: str
    attempt: int
    answer: Landed
    result: bytes | None = None


@dataclass(frozen=True, slots=True)
class RetryScheduled:
    step: str
    operation: Operation
    due_at: float


@dataclass(frozen=True, slots=True)
class ConditionAnswered:
    step: str
    runs: bool


@dataclass(frozen=True, slots=True)
class WaitStarted:
    step: str
    until: float


@dataclass(frozen=True, slots=True)
class WaitEnded:
    """A delay is over, or an event was taken (`request` is its id)."""

    step: str
    result: bytes
    request: str | None = None


class DirectionDecided(NamedTuple):
    """From here on the saga only undoes; the cause and the list in one entry."""

    cause: Cause
    rollback: tuple[str, ...]
    rollback_deadline: float | None = None


@dataclass(frozen=True, slots=True)
class StepGaveUp:
    """The action will not be tried again; whether it landed is in doubt or not, as the attempts left it."""

    step: str


@dataclass(frozen=True, slots=True)
class CompensationGaveUp:
    step: str
    why: str


@dataclass(frozen=True, slots=True)
class AttentionRaised:
    """This step, or the whole saga (None), can't go on without a person."""

    step: str | None
    why: str


@dataclass(frozen=True, slots=True)
class SagaParked:
    pass


@dataclass(frozen=True, slots=True)
class SagaResumed:
    pass


@dataclass(frozen=True, slots=True)
class RequestReceived:
    request: Request


@dataclass(frozen=True, slots=True)
class RequestAnswered:
    """`answer` is applied, refused, too_late or ignored."""

    id: str
    answer: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class StepReset:
    """An operator asked for another round: counters start anew, doubt stays."""

    step: str
    operation: Operation
    due_at: float


@dataclass(frozen=True, slots=True)
class StepResolved:
    """An operator vouched for what happened."""

    step: str
    operation: Operation
    landed: bool
    result: bytes | None = None


@dataclass(frozen=True, slots=True)
class StepWaived:
    """An operator skipped a step (ACTION) or its undo (COMPENSATION)."""

    step: str
    operation: Operation
    why: str


class SagaEnded(NamedTuple):
    status: SagaStatus
    why: str | None = None


Entry: TypeAlias = (
    SagaStarted
    | AttemptStarted
    | AttemptSucceeded
    | AttemptRejected
    | AttemptUnknown
    | AttemptLost
    | AttemptInterrupted
    | AttemptImpossible
    | LateSuccess
    | ProbeAnswered
    | RetryScheduled
    | ConditionAnswered
    | WaitStarted
    | WaitEnded
    | DirectionDecided
    | StepGaveUp
    | CompensationGaveUp
    | AttentionRaised
    | SagaParked
    | SagaResumed
    | RequestReceived
    | RequestAnswered
    | StepReset
    | StepResolved
    | StepWaived
    | SagaEnded
)
