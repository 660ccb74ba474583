"""The fold: a saga's state is what its journal's entries make of it, one after the other.

Applies entries and decides nothing. `decide` builds each new state by folding the entries that it is about to write,
so that a reload gives the same state. Also called by the runtime for a journal that it has read.
"""

# ruff: noqa: RUF005 - joining tuples is faster than unpacking them into a new one.

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from atone._core.facts import ACTION, COMPENSATION, PROBE, Landed, Operation, Problem
from atone._core.journal import (
    AttemptImpossible,
    AttemptInterrupted,
    AttemptLost,
    AttemptRejected,
    AttemptStarted,
    AttemptSucceeded,
    AttemptUnknown,
    AttentionRaised,
    CompensationGaveUp,
    ConditionAnswered,
    DirectionDecided,
    Entry,
    LateSuccess,
    ProbeAnswered,
    RequestAnswered,
    RequestReceived,
    RetryScheduled,
    SagaEnded,
    SagaParked,
    SagaResumed,
    SagaStarted,
    StepGaveUp,
    StepReset,
    StepResolved,
    StepWaived,
    WaitEnded,
    WaitStarted,
)
from atone._core.plan import Plan
from atone._core.records import new
from atone._core.state import FRESH_STEP, SKIPPED, SUCCEEDED, Open, SagaState, SagaStatus, StepState, StepStatus, Tries

# A member is looked up by the enum's own code at every use.
_PENDING = SagaStatus.PENDING
_RUNNING = SagaStatus.RUNNING
_UNKNOWN = StepStatus.UNKNOWN
_FAILED = StepStatus.FAILED
_COMPENSATED = StepStatus.COMPENSATED
_GAVE_UP = StepStatus.COMPENSATION_FAILED


class Unfoldable(ValueError):
    """An entry does not fit the saga it is to be applied to: the journal was damaged or edited."""


def fold(plan: Plan, saga: SagaState | None, entries: Iterable[Entry]) -> SagaState:
    """Return the saga after one more journal row.

    Raises:
        Unfoldable: An entry names a step that the plan lacks, or the journal does not begin with a start.
    """
    row = iter(entries)
    version = 1 if saga is None else saga.version + 1
    folding = Folding(plan, begun(plan, next(row, None)) if saga is None else saga, version)
    for entry in row:
        folding.apply(entry)
    after = folding.saga
    # A worker that gives a saga up writes a row without an entry.
    return after if after.version == version else after._replace(version=version)


def begun(plan: Plan, entry: Entry | None) -> SagaState:
    """Return the saga after its first entry; its row gives it version 1."""
    if entry is None:
        raise Unfoldable("The journal's first row holds no entry.")
    if type(entry) is not SagaStarted:
        raise Unfoldable("A journal begins with SagaStarted, once.")
    return SagaState(
        status=_PENDING,
        steps=(FRESH_STEP,) * len(plan.steps),
        version=1,
        rollback=(),
        tenant=entry.tenant,
        name=entry.name,
        saga_id=entry.saga_id,
        input=entry.input,
        deadline=entry.deadline,
        trace=entry.trace,
    )


class Folding:
    """A saga while entries are applied to it.

    What most entries change lies open here, so that a saga is copied once a turn and not once an entry. The other
    fields are in `cold`, where only they count; `saga` puts both together.
    """

    __slots__ = ("_whole", "cold", "is_backward", "plan", "rollback", "status", "steps", "version")

    def __init__(self, plan: Plan, saga: SagaState, version: int) -> None:
        self.plan = plan
        self.version = version
        self.cold = saga
        self.status = saga.status
        self.steps = [*saga.steps]
        self.rollback = saga.rollback
        self.is_backward = saga.cause is not None
        self._whole: SagaState | None = saga

    @property
    def saga(self) -> SagaState:
        """The saga after the entries so far, of the version that their row gives it."""
        if self._whole is None:
            self._whole = self.cold.moved(self.status, tuple(self.steps), self.version, self.rollback)
        return self._whole

    def apply(self, entry: Entry) -> None:
        """Let an entry change the saga."""
        self._whole = None
        kind = type(entry)
        on_step = _ON_STEP.get(kind)
        try:
            if on_step is None:
                _ON_SAGA[kind](self, entry)
                return
            # Every type in _ON_STEP has a step; the look-up above is what told.
            at = self.plan.index[entry.step]  # type: ignore[union-attr, index]
            was = self.steps[at]
            step = on_step(was, entry, self.is_backward)
            if self.is_backward:
                self.rollback = _joined(self, at, was, entry)
            elif step.result is not None and kind in _ENDS:
                step = _as_known(step)
            if self.status is _PENDING and kind in _RUNS:
                self.status = _RUNNING
            self.steps[at] = step
        except KeyError as missing:
            raise Unfoldable(f"{kind.__name__} names {missing}, which the plan does not have.") from missing


def _joined(folding: Folding, at: int, was: StepState, entry: Entry) -> tuple[str, ...]:
    """Return the rollback list; a sibling that was still under way at the turn joins it when it ends."""
    rollback, plan = folding.rollback, folding.plan
    name = plan.steps[at].name
    if type(entry) not in _MAY_JOIN or name in rollback or not plan.steps[at].has_compensation:
        return rollback
    if type(entry) in _WITHOUT_EFFECT and not was.doubt:
        return rollback
    return tuple(sorted((name, *rollback), key=plan.index.__getitem__, reverse=True))


def _on_started(step: StepState, entry: AttemptStarted, backward: bool) -> StepState:
    operation = entry.operation
    opened = new(Open, entry[1:4])
    if operation is ACTION:
        began = entry.at if step.began_at is None else step.began_at
        return step.acting(opened, new(Tries, (entry.attempt,) + step.action[1:]), began)
    if operation is COMPENSATION:
        return step.undoing(opened, new(Tries, (entry.attempt,) + step.compensation[1:]))
    counted = Tries(entry.attempt, step.probe.failed, step.probe.lost)
    return step._replace(open=opened, probe=counted, due=None, due_at=None)


def _on_succeeded(step: StepState, entry: AttemptSucceeded, backward: bool) -> StepState:
    if entry.operation is COMPENSATION:
        # What was given up while it ran stays given up: its action landed meanwhile, so somebody has to look.
        gave_up = step.status is _GAVE_UP
        return step.resting(step.status if gave_up else _COMPENSATED)
    return step.known(entry.result)


def _as_known(step: StepState) -> StepState:
    """Return a step whose result is known: nothing more is due, whatever its last attempt came to."""
    return step._replace(status=SUCCEEDED, due=None, due_at=None, attention=None)


def _on_rejected(step: StepState, entry: AttemptRejected, backward: bool) -> StepState:
    # A rejection clears its own attempt only: an earlier attempt in doubt keeps the step unknown.
    if entry.operation is not ACTION:
        return _failed(step, entry.operation, entry.problem)
    status = _UNKNOWN if step.doubt else _FAILED
    tries = new(Tries, (step.action.started, step.action.failed + 1, step.action.lost))
    return step._replace(status=status, open=None, action=tries, problem=entry.problem)


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
    status = _UNKNOWN if step.doubt else StepStatus.PENDING
    keep = step.status if entry.operation is not ACTION else status
    return step._replace(status=keep, open=None, problem=entry.problem)


def _on_late(step: StepState, entry: LateSuccess, backward: bool) -> StepState:
    known = step._replace(result=entry.result)
    if step.open is not None or step.undo_begun or step.waived is not None:
        return known
    return _as_known(known)


def _on_probed(step: StepState, entry: ProbeAnswered, backward: bool) -> StepState:
    counted = step._replace(open=None, probe=Tries(step.probe.started))
    if entry.answer is not Landed.LANDED:
        return counted
    return _as_known(counted._replace(result=entry.result))


def _on_scheduled(step: StepState, entry: RetryScheduled, backward: bool) -> StepState:
    return step.scheduled(entry.operation, entry.due_at)


def _on_condition(step: StepState, entry: ConditionAnswered, backward: bool) -> StepState:
    status = step.status if entry.runs else SKIPPED
    return step._replace(condition=entry.runs, status=status)


def _on_wait(step: StepState, entry: WaitStarted, backward: bool) -> StepState:
    return step._replace(status=StepStatus.RUNNING, due_at=entry.until)


def _on_gave_up(step: StepState, entry: StepGaveUp, backward: bool) -> StepState:
    status = _UNKNOWN if step.doubt else _FAILED
    return step._replace(status=status, due=None, due_at=None)


def _on_undo_gave_up(step: StepState, entry: CompensationGaveUp, backward: bool) -> StepState:
    return step._replace(status=_GAVE_UP, due=None, due_at=None, attention=entry.why)


def _on_reset(step: StepState, entry: StepReset, backward: bool) -> StepState:
    if entry.operation is COMPENSATION:
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
    if entry.operation is COMPENSATION:
        return clear._replace(status=_COMPENSATED)
    if not entry.landed:
        return clear._replace(status=_FAILED, doubt=False, result=None)
    status = step.status if backward else SUCCEEDED
    return clear._replace(status=status, result=entry.result)


def _on_waived(step: StepState, entry: StepWaived, backward: bool) -> StepState:
    if entry.operation is COMPENSATION:
        return step._replace(waived=entry.why, attention=None, due=None, due_at=None)
    return step._replace(status=SKIPPED, attention=None, due=None, due_at=None)


def _tries(step: StepState, operation: Operation) -> Tries:
    if operation is ACTION:
        return step.action
    return step.probe if operation is PROBE else step.compensation


def _counted(step: StepState, operation: Operation, tries: Tries) -> StepState:
    if operation is ACTION:
        return step._replace(action=tries)
    return step._replace(probe=tries) if operation is PROBE else step._replace(compensation=tries)


def _failed(step: StepState, operation: Operation, problem: Problem) -> StepState:
    tries = _tries(step, operation)
    return _counted(step, operation, tries._replace(failed=tries.failed + 1))._replace(open=None, problem=problem)


def _doubted(step: StepState, was: Open | None, operation: Operation) -> StepState:
    """Return the step with its action in doubt; a probe or an undo that ends without an answer adds none."""
    if operation is not ACTION or was is None:
        return step
    return step._replace(status=_UNKNOWN, doubt=True, quiet_at=max(step.quiet_at, was.deadline))


def _direction(folding: Folding, entry: DirectionDecided) -> None:
    folding.status = SagaStatus.COMPENSATING
    folding.is_backward = True
    folding.rollback = entry.rollback
    folding.steps[:] = [_turned(step) for step in folding.steps]
    folding.cold = folding.cold._replace(cause=entry.cause, rollback_deadline=entry.rollback_deadline, broken=None)


def _turned(step: StepState) -> StepState:
    """Return the step as the turn backward leaves it: nothing is due any more, a wait is over."""
    if step.open is not None:
        return step
    waiting = step.status is StepStatus.RUNNING
    if not waiting and step.due is None and step.due_at is None and step.attention is None:
        return step
    return step._replace(due=None, due_at=None, attention=None, status=SKIPPED if waiting else step.status)


def _attention(folding: Folding, entry: AttentionRaised) -> None:
    if entry.step is None:
        folding.cold = folding.cold._replace(broken=entry.why)
        return
    at = folding.plan.index[entry.step]
    folding.steps[at] = folding.steps[at]._replace(attention=entry.why, due=None, due_at=None)


def _parked(folding: Folding, entry: SagaParked) -> None:
    folding.status = SagaStatus.NEEDS_ATTENTION


def _resumed(folding: Folding, entry: SagaResumed) -> None:
    folding.status = SagaStatus.COMPENSATING if folding.is_backward else _RUNNING
    folding.cold = folding.cold._replace(broken=None)


def _received(folding: Folding, entry: RequestReceived) -> None:
    request, cold = entry.request, folding.cold
    if request.id in cold.seen:
        return
    folding.cold = cold._replace(requests=(*cold.requests, request), seen=cold.seen | {request.id})


def _answered(folding: Folding, entry: RequestAnswered) -> None:
    cold = folding.cold
    asked = [request for request in cold.requests if request.id == entry.id]
    left = tuple(request for request in cold.requests if request.id != entry.id)
    kept = tuple(request for request in asked if request.kind == "event" and entry.answer == "applied")
    folding.cold = cold._replace(requests=left, mail=cold.mail + kept)


def _wait_ended(folding: Folding, entry: WaitEnded) -> None:
    at, cold = folding.plan.index[entry.step], folding.cold
    done = folding.steps[at]._replace(status=SUCCEEDED, result=entry.result, due_at=None, attention=None)
    folding.steps[at] = done
    if folding.status is _PENDING:
        folding.status = _RUNNING
    folding.cold = cold._replace(mail=tuple(event for event in cold.mail if event.id != entry.request))


def _ended(folding: Folding, entry: SagaEnded) -> None:
    folding.status = entry.status
    if entry.why is not None:
        folding.cold = folding.cold._replace(ended_because=entry.why)


def _started_again(folding: Folding, entry: SagaStarted) -> None:
    raise Unfoldable("A journal begins with SagaStarted, once.")


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
_ON_SAGA: dict[type, Callable[[Folding, Any], None]] = {
    SagaStarted: _started_again,
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
