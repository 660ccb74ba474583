"""The journal's entries, and the fold that makes a saga's state of them.

An entry says what happened; `fold` applies it and decides nothing. A row holds the entries of one turn and raises
the version by one. `decide` builds each new state by folding the entries it is about to write, so that a reload
gives the same state. Entries are a stored format: fields may be added with a default, never renamed or removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, cast

from atone._core.facts import Landed, Operation, Problem
from atone._core.plan import Plan
from atone._core.state import FRESH_STEP, Cause, Open, Request, SagaState, SagaStatus, StepState, StepStatus, Tries


class SagaStarted(NamedTuple):
    # Like the next two in every saga, hence a named tuple: a frozen dataclass sets each field by a call.
    tenant: str
    name: str
    version: int
    plan_hash: str
    saga_id: str
    input: bytes
    deadline: float | None = None


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


@dataclass(frozen=True, slots=True)
class AttemptRejected:
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


@dataclass(frozen=True, slots=True)
class DirectionDecided:
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


@dataclass(frozen=True, slots=True)
class SagaEnded:
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


class Unfoldable(ValueError):
    """An entry does not fit the saga it is to be applied to: the journal was damaged or edited."""


def fold(plan: Plan, saga: SagaState | None, entries: Iterable[Entry]) -> SagaState:
    """Return the saga after one more journal row.

    Raises:
        Unfoldable: An entry names a step that the plan lacks, or the journal does not begin with a start.
    """
    version = 1 if saga is None else saga.version + 1
    for entry in entries:
        saga = apply(plan, saga, entry, version)
    if saga is None:
        raise Unfoldable("The journal's first row holds no entry.")
    return saga if saga.version == version else saga._replace(version=version)


def apply(plan: Plan, saga: SagaState | None, entry: Entry, version: int | None = None) -> SagaState:
    """Return the saga after one entry, of the version that the row gives it; without one, of the same."""
    if saga is None or type(entry) is SagaStarted:
        return _started(plan, saga, entry, version or 0)
    if version is None:
        version = saga.version
    try:
        by_step = _ON_STEP.get(type(entry))
        if by_step is None:
            after = _ON_SAGA[type(entry)](plan, saga, entry)
            return after if after.version == version else after._replace(version=version)
        # Every type in _ON_STEP has a step; the look-up above is what told.
        at = plan.index[cast("AttemptStarted", entry).step]
        steps = saga.steps
        step = by_step(steps[at], entry, saga.is_backward)
        if step.result is not None and type(entry) in _ENDS and not saga.is_backward:
            step = _as_known(step)
        runs_now = saga.status is SagaStatus.PENDING and type(entry) in _RUNS
        return saga.moved(
            SagaStatus.RUNNING if runs_now else saga.status,
            (*steps[:at], step, *steps[at + 1 :]),
            _joined(plan, saga, at, entry) if saga.cause is not None else saga.rollback,
            version,
        )
    except KeyError as missing:
        raise Unfoldable(f"{type(entry).__name__} names {missing}, which the plan does not have.") from missing


def _started(plan: Plan, saga: SagaState | None, entry: Entry, version: int) -> SagaState:
    if saga is not None or type(entry) is not SagaStarted:
        raise Unfoldable("A journal begins with SagaStarted, once.")
    return SagaState(
        tenant=entry.tenant,
        name=entry.name,
        saga_id=entry.saga_id,
        status=SagaStatus.PENDING,
        steps=(FRESH_STEP,) * len(plan.steps),
        input=entry.input,
        deadline=entry.deadline,
        version=version,
    )


def _joined(plan: Plan, saga: SagaState, at: int, entry: Entry) -> tuple[str, ...]:
    """Return the rollback list; a sibling that was still under way at the turn joins it when it ends."""
    name = plan.steps[at].name
    if type(entry) not in _MAY_JOIN or name in saga.rollback or not plan.steps[at].has_compensation:
        return saga.rollback
    if type(entry) in _WITHOUT_EFFECT and not saga.steps[at].doubt:
        return saga.rollback
    return tuple(sorted((name, *saga.rollback), key=plan.index.__getitem__, reverse=True))


def _on_started(step: StepState, entry: AttemptStarted, backward: bool) -> StepState:
    tries = _tries(step, entry.operation)
    opened = Open(entry.operation, entry.attempt, entry.deadline)
    counted = Tries(entry.attempt, tries.failed, tries.lost)
    if entry.operation is Operation.ACTION:
        began = entry.at if step.began_at is None else step.began_at
        return step.acting(opened, counted, began)
    if entry.operation is Operation.PROBE:
        return step._replace(open=opened, probe=counted, due=None, due_at=None)
    return step._replace(status=StepStatus.COMPENSATING, open=opened, compensation=counted, due=None, due_at=None)


def _on_succeeded(step: StepState, entry: AttemptSucceeded, backward: bool) -> StepState:
    if entry.operation is Operation.COMPENSATION:
        # What was given up while it ran stays given up: its action landed meanwhile, so somebody has to look.
        gave_up = step.status is StepStatus.COMPENSATION_FAILED
        status = step.status if gave_up else StepStatus.COMPENSATED
        return step._replace(status=status, open=None, due=None, due_at=None)
    return step.known(entry.result)


def _as_known(step: StepState) -> StepState:
    """Return a step whose result is known: nothing more is due, whatever its last attempt came to."""
    return step._replace(status=StepStatus.SUCCEEDED, due=None, due_at=None, attention=None)


def _on_rejected(step: StepState, entry: AttemptRejected, backward: bool) -> StepState:
    # A rejection clears its own attempt only: an earlier attempt in doubt keeps the step unknown.
    if entry.operation is not Operation.ACTION:
        return _failed(step, entry.operation, entry.problem)
    status = StepStatus.UNKNOWN if step.doubt else StepStatus.FAILED
    return _failed(step, entry.operation, entry.problem)._replace(status=status)


def _on_unknown(step: StepState, entry: AttemptUnknown, backward: bool) -> StepState:
    return _doubted(_failed(step, entry.operation, entry.problem), step.open, entry.operation)


def _on_lost(step: StepState, entry: AttemptLost, backward: bool) -> StepState:
    tries = _tries(step, entry.operation)
    counted = _counted(step, entry.operation, tries._replace(lost=tries.lost + 1))
    return _doubted(counted._replace(open=None), step.open, entry.operation)


def _on_interrupted(step: StepState, entry: AttemptInterrupted, backward: bool) -> StepState:
    return _doubted(step._replace(open=None), step.open, entry.operation)


def _on_impossible(step: StepState, entry: AttemptImpossible, backward: bool) -> StepState:
    # It was never called, so it adds no doubt; an action goes back to where it stood before the intent.
    status = StepStatus.UNKNOWN if step.doubt else StepStatus.PENDING
    keep = step.status if entry.operation is not Operation.ACTION else status
    return step._replace(status=keep, open=None, problem=entry.problem)


def _on_late(step: StepState, entry: LateSuccess, backward: bool) -> StepState:
    known = step._replace(result=entry.result)
    if step.open is not None or step.compensation.started > 0 or step.waived is not None:
        return known
    return _as_known(known)


def _on_probed(step: StepState, entry: ProbeAnswered, backward: bool) -> StepState:
    counted = step._replace(open=None, probe=Tries(step.probe.started))
    if entry.answer is not Landed.LANDED:
        return counted
    return _as_known(counted._replace(result=entry.result))


def _on_scheduled(step: StepState, entry: RetryScheduled, backward: bool) -> StepState:
    return step._replace(due=entry.operation, due_at=entry.due_at)


def _on_condition(step: StepState, entry: ConditionAnswered, backward: bool) -> StepState:
    status = step.status if entry.runs else StepStatus.SKIPPED
    return step._replace(condition=entry.runs, status=status)


def _on_wait(step: StepState, entry: WaitStarted, backward: bool) -> StepState:
    return step._replace(status=StepStatus.RUNNING, due_at=entry.until)


def _on_wait_ended(step: StepState, entry: WaitEnded, backward: bool) -> StepState:
    return step._replace(status=StepStatus.SUCCEEDED, result=entry.result, due_at=None, attention=None)


def _on_gave_up(step: StepState, entry: StepGaveUp, backward: bool) -> StepState:
    status = StepStatus.UNKNOWN if step.doubt else StepStatus.FAILED
    return step._replace(status=status, due=None, due_at=None)


def _on_undo_gave_up(step: StepState, entry: CompensationGaveUp, backward: bool) -> StepState:
    return step._replace(status=StepStatus.COMPENSATION_FAILED, due=None, due_at=None, attention=entry.why)


def _on_attention(step: StepState, entry: AttentionRaised, backward: bool) -> StepState:
    return step._replace(attention=entry.why, due=None, due_at=None)


def _on_reset(step: StepState, entry: StepReset, backward: bool) -> StepState:
    if entry.operation is Operation.COMPENSATION:
        undo = Tries(step.compensation.started)
        due = step._replace(status=StepStatus.COMPENSATING, compensation=undo, attention=None)
        return due._replace(due=entry.operation, due_at=entry.due_at)
    fresh = step._replace(
        action=Tries(step.action.started), probe=Tries(step.probe.started), attention=None, began_at=None
    )
    if step.action.started == 0:
        return fresh._replace(status=StepStatus.PENDING, condition=None, due=None, due_at=None)
    return fresh._replace(due=entry.operation, due_at=entry.due_at)


def _on_resolved(step: StepState, entry: StepResolved, backward: bool) -> StepState:
    clear = step._replace(attention=None, due=None, due_at=None)
    if entry.operation is Operation.COMPENSATION:
        return clear._replace(status=StepStatus.COMPENSATED)
    if not entry.landed:
        return clear._replace(status=StepStatus.FAILED, doubt=False, result=None)
    status = step.status if backward else StepStatus.SUCCEEDED
    return clear._replace(status=status, result=entry.result)


def _on_waived(step: StepState, entry: StepWaived, backward: bool) -> StepState:
    if entry.operation is Operation.COMPENSATION:
        return step._replace(waived=entry.why, attention=None, due=None, due_at=None)
    return step._replace(status=StepStatus.SKIPPED, attention=None, due=None, due_at=None)


def _tries(step: StepState, operation: Operation) -> Tries:
    if operation is Operation.ACTION:
        return step.action
    return step.probe if operation is Operation.PROBE else step.compensation


def _counted(step: StepState, operation: Operation, tries: Tries) -> StepState:
    if operation is Operation.ACTION:
        return step._replace(action=tries)
    return step._replace(probe=tries) if operation is Operation.PROBE else step._replace(compensation=tries)


def _failed(step: StepState, operation: Operation, problem: Problem) -> StepState:
    tries = _tries(step, operation)
    return _counted(step, operation, tries._replace(failed=tries.failed + 1))._replace(open=None, problem=problem)


def _doubted(step: StepState, was: Open | None, operation: Operation) -> StepState:
    """Return the step with its action in doubt; a probe or an undo that ends without an answer adds none."""
    if operation is not Operation.ACTION or was is None:
        return step
    return step._replace(status=StepStatus.UNKNOWN, doubt=True, quiet_at=max(step.quiet_at, was.deadline))


def _direction(plan: Plan, saga: SagaState, entry: DirectionDecided) -> SagaState:
    return saga._replace(
        status=SagaStatus.COMPENSATING,
        cause=entry.cause,
        rollback=entry.rollback,
        rollback_deadline=entry.rollback_deadline,
        steps=tuple(_turned(step) for step in saga.steps),
        broken=None,
    )


def _turned(step: StepState) -> StepState:
    """Return the step as the turn backward leaves it: nothing is due any more, a wait is over."""
    if step.open is not None:
        return step
    waiting = step.status is StepStatus.RUNNING
    return step._replace(due=None, due_at=None, attention=None, status=StepStatus.SKIPPED if waiting else step.status)


def _attention(plan: Plan, saga: SagaState, entry: AttentionRaised) -> SagaState:
    if entry.step is None:
        return saga._replace(broken=entry.why)
    at = plan.index[entry.step]
    return saga._replace(steps=(*saga.steps[:at], _on_attention(saga.steps[at], entry, False), *saga.steps[at + 1 :]))


def _parked(plan: Plan, saga: SagaState, entry: SagaParked) -> SagaState:
    return saga._replace(status=SagaStatus.NEEDS_ATTENTION)


def _resumed(plan: Plan, saga: SagaState, entry: SagaResumed) -> SagaState:
    status = SagaStatus.COMPENSATING if saga.is_backward else SagaStatus.RUNNING
    return saga._replace(status=status, broken=None)


def _received(plan: Plan, saga: SagaState, entry: RequestReceived) -> SagaState:
    request = entry.request
    if request.id in saga.seen:
        return saga
    return saga._replace(requests=(*saga.requests, request), seen=saga.seen | {request.id})


def _answered(plan: Plan, saga: SagaState, entry: RequestAnswered) -> SagaState:
    asked = [request for request in saga.requests if request.id == entry.id]
    left = tuple(request for request in saga.requests if request.id != entry.id)
    kept = tuple(request for request in asked if request.kind == "event" and entry.answer == "applied")
    return saga._replace(requests=left, mail=saga.mail + kept)


def _wait_ended(plan: Plan, saga: SagaState, entry: WaitEnded) -> SagaState:
    at = plan.index[entry.step]
    return saga._replace(
        status=SagaStatus.RUNNING if saga.status is SagaStatus.PENDING else saga.status,
        steps=(*saga.steps[:at], _on_wait_ended(saga.steps[at], entry, False), *saga.steps[at + 1 :]),
        mail=tuple(event for event in saga.mail if event.id != entry.request),
    )


def _ended(plan: Plan, saga: SagaState, entry: SagaEnded) -> SagaState:
    return saga._replace(status=entry.status, ended_because=entry.why)


_ON_STEP: dict[type, Callable[[StepState, Any, bool], StepState]] = {
    AttemptStarted: _on_started,
    AttemptSucceeded: _on_succeeded,
    AttemptRejected: _on_rejected,
    AttemptUnknown: _on_unknown,
    AttemptLost: _on_lost,
    AttemptInterrupted: _on_interrupted,
    AttemptImpossible: _on_impossible,
    LateSuccess: _on_late,
    ProbeAnswered: _on_probed,
    RetryScheduled: _on_scheduled,
    ConditionAnswered: _on_condition,
    WaitStarted: _on_wait,
    StepGaveUp: _on_gave_up,
    CompensationGaveUp: _on_undo_gave_up,
    StepReset: _on_reset,
    StepResolved: _on_resolved,
    StepWaived: _on_waived,
}
_ON_SAGA: dict[type, Callable[[Plan, SagaState, Any], SagaState]] = {
    DirectionDecided: _direction,
    AttentionRaised: _attention,
    WaitEnded: _wait_ended,
    SagaParked: _parked,
    SagaResumed: _resumed,
    RequestReceived: _received,
    RequestAnswered: _answered,
    SagaEnded: _ended,
}
_RUNS = frozenset({AttemptStarted, WaitStarted, ConditionAnswered})
_ENDS = frozenset({AttemptRejected, AttemptUnknown, AttemptLost, AttemptInterrupted, AttemptImpossible, ProbeAnswered})
_WITHOUT_EFFECT = frozenset({AttemptRejected, AttemptImpossible})
_MAY_JOIN = _WITHOUT_EFFECT | {AttemptSucceeded, AttemptUnknown, AttemptLost, AttemptInterrupted, LateSuccess}
