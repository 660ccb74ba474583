"""What should a saga do next? `decide` is the whole answer.

A function of the plan, the saga so far, one fact and the time. It never awaits, reads a clock, draws a random
number or logs, so every engine gets the same answer from it. Storage decides whether a decision sticks; this
package decides what it is. Here: what a fact means. `forward`, `backward` and `requests` go on from there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from atone._core import facts
from atone._core.backward import retry_compensation, roll_back
from atone._core.commands import Decision
from atone._core.draft import Draft
from atone._core.facts import ACTION, COMPENSATION, PROBE, Fact, Landed, Operation
from atone._core.fold import begun
from atone._core.forward import go_forward, repeat_or_give_up, settle_unknown, turn_back
from atone._core.journal import (
    AttemptImpossible,
    AttemptInterrupted,
    AttemptLost,
    AttemptRejected,
    AttemptSucceeded,
    AttemptUnknown,
    AttentionRaised,
    CompensationGaveUp,
    ConditionAnswered,
    LateSuccess,
    ProbeAnswered,
    RequestAnswered,
    RetryScheduled,
    SagaParked,
    SagaResumed,
    SagaStarted,
)
from atone._core.plan import COMPENSATABLE, PIVOT, RETRIABLE, Plan
from atone._core.records import new
from atone._core.requests import answer_requests
from atone._core.state import SUCCEEDED, Cause, SagaState, SagaStatus, StepState, StepStatus
from atone._core.usual import usual_start, usual_turn

_NEEDS_ATTENTION = SagaStatus.NEEDS_ATTENTION


def decide(plan: Plan, saga: SagaState | None, fact: Fact, now: float, *, may_start: bool = True) -> Decision:
    """Return what `fact` changes, and what is to be done once that is durable.

    `now` is epoch seconds by the store's clock. A fact about an attempt that is not under way is a duplicate or late:
    it changes nothing, or only adds what it knows. A final saga is never changed.

    Raises:
        ValueError: There is no saga and the fact is not a start, or the other way round.
    """
    if saga is None or type(fact) is facts.StartRequested:
        return _begin(plan, saga, fact, now, may_start)
    if type(fact) is facts.Succeeded and may_start and (decision := usual_turn(plan, saga, fact, now)) is not None:
        return decision
    return by_the_rules(plan, saga, fact, now, may_start)


def by_the_rules(plan: Plan, saga: SagaState, fact: Fact, now: float, may_start: bool) -> Decision:
    """Return what the rules say to a fact, be the turn a usual one or not."""
    draft = Draft(plan, saga, now, may_start)
    if not saga.status.is_final:
        _HEAR[type(fact)](draft, fact)
        advance(draft)
    return draft.decision()


def advance(draft: Draft) -> None:
    """Take the saga as far as it can go at this moment."""
    if draft.cold.requests:
        answer_requests(draft)
    if draft.status.is_final or draft.status is _NEEDS_ATTENTION:
        return
    if not draft.is_backward:
        go_forward(draft)
    if draft.is_backward:
        roll_back(draft)
    if draft.rests() and not draft.status.is_final:
        _park_if_stuck(draft)


def _park_if_stuck(draft: Draft) -> None:
    if all(step.attention is None for step in draft.steps):
        return
    # Going forward, one step that needs a person stops the rest; going back, the other undos are finished first.
    if draft.wake_at is None or not draft.is_backward:
        draft.record(SagaParked())


def _begin(plan: Plan, saga: SagaState | None, fact: Fact, now: float, may_start: bool) -> Decision:
    if saga is not None or type(fact) is not facts.StartRequested:
        raise ValueError("A saga begins with StartRequested, once; load the saga before telling another fact.")
    if may_start and (decision := usual_start(plan, fact, now)) is not None:
        return decision
    return start_by_the_rules(plan, fact, now, may_start)


def start_by_the_rules(plan: Plan, fact: facts.StartRequested, now: float, may_start: bool) -> Decision:
    """Return how the rules begin a saga."""
    deadline = None if plan.deadline_seconds is None else now + plan.deadline_seconds
    names = (fact.tenant, plan.name, plan.version, plan.plan_hash, fact.saga_id)
    started = new(SagaStarted, (*names, fact.input, deadline, fact.trace))
    draft = Draft(plan, begun(plan, started), now, may_start)
    draft.version, draft.entries = 1, (started,)
    advance(draft)
    return draft.decision()


def _is_open(state: StepState, operation: Operation, attempt: int) -> bool:
    opened = state.open
    return opened is not None and opened.operation is operation and opened.attempt == attempt


def _succeeded(draft: Draft, fact: facts.Succeeded) -> None:
    name, operation, attempt, result = fact
    state = draft.steps[draft.plan.index[name]]
    if _is_open(state, operation, attempt):
        draft.record(
            new(AttemptSucceeded, (name, operation, attempt, b"null" if operation is COMPENSATION else result))
        )
    elif operation is ACTION and _is_news(state, attempt):
        _landed_late(draft, fact)


def _is_news(state: StepState, attempt: int) -> bool:
    """Whether a late success tells something that the journal does not hold yet."""
    return 0 < attempt <= state.action.started and state.result is None


def _landed_late(draft: Draft, fact: facts.Succeeded) -> None:
    step, state = draft.at(fact.step)
    draft.record(LateSuccess(fact.step, fact.attempt, fact.result))
    if not draft.is_backward:
        _resume_if_helped(draft)
    elif step.role is not COMPENSATABLE:
        draft.record(AttentionRaised(fact.step, "it landed after all, and the saga had turned back"))
    elif state.compensation.started > 0 and state.waived is None and not step.barrier:
        # Nobody can say which came first. Behind a barrier the action did, or it would have been refused.
        draft.record(CompensationGaveUp(fact.step, "the action was seen to land after its compensation had begun"))


def _resume_if_helped(draft: Draft) -> None:
    saga = draft.saga
    is_helped = saga.broken is None and all(step.attention is None for step in saga.steps)
    if saga.status is SagaStatus.NEEDS_ATTENTION and is_helped:
        draft.record(SagaResumed())


def _needs_nothing(draft: Draft, name: str) -> bool:
    """Whether the end of a call forward asks for nothing: the saga turned back, or an earlier attempt landed late."""
    return draft.is_backward or draft.at(name)[1].status is SUCCEEDED


def _rejected(draft: Draft, fact: facts.Rejected) -> None:
    step, state = draft.at(fact.step)
    if not _is_open(state, fact.operation, fact.attempt):
        return
    draft.record(new(AttemptRejected, (fact.step, fact.operation, fact.attempt, fact.problem)))
    if fact.operation is COMPENSATION:
        draft.record(CompensationGaveUp(fact.step, f"its compensation was rejected: {fact.problem}"))
    elif _needs_nothing(draft, fact.step):
        return
    elif fact.operation is PROBE:
        _probe_failed(draft, fact.step)
    elif step.role is RETRIABLE:
        repeat_or_give_up(draft, fact.step, surely_absent=not state.doubt)
    elif step.role is PIVOT and state.doubt:
        # A rejection clears its own attempt only; an earlier one may have landed, so the pivot is not turned back.
        settle_unknown(draft, fact.step)
    else:
        turn_back(draft, Cause("failure", fact.step, fact.problem.reason))


def _came_to_nothing(draft: Draft, fact: facts.CameToNothing) -> None:
    _, state = draft.at(fact.step)
    if not _is_open(state, fact.operation, fact.attempt):
        return
    draft.record(AttemptUnknown(fact.step, fact.operation, fact.attempt, fact.problem))
    if fact.operation is COMPENSATION:
        retry_compensation(draft, fact.step, fact.retry_after)
    elif _needs_nothing(draft, fact.step):
        return
    elif fact.operation is PROBE:
        _probe_failed(draft, fact.step)
    else:
        settle_unknown(draft, fact.step, delay=fact.retry_after, repeatable=fact.repeatable)


def _probe_failed(draft: Draft, name: str) -> None:
    step, state = draft.at(name)
    if state.probe.failed < step.probe_retry.attempts:
        wait = draft.backoff(step.probe_retry, state.probe.failed, name, PROBE)
        draft.record(RetryScheduled(name, PROBE, draft.now + wait))
        return
    draft.record(ProbeAnswered(name, state.probe.started, Landed.CANNOT_TELL))
    repeat_or_give_up(draft, name)


def _lost(draft: Draft, fact: facts.Lost) -> None:
    _, state = draft.at(fact.step)
    if not _is_open(state, fact.operation, fact.attempt):
        return
    draft.record(AttemptLost(fact.step, fact.operation, fact.attempt))
    _, state = draft.at(fact.step)
    lost = {ACTION: state.action, PROBE: state.probe, COMPENSATION: state.compensation}
    times = lost[fact.operation].lost
    too_often = f"its process died {times} times" if times > draft.plan.recoveries_max else None
    _again(draft, fact.step, fact.operation, too_often)


def _interrupted(draft: Draft, fact: facts.Interrupted) -> None:
    _, state = draft.at(fact.step)
    if _is_open(state, fact.operation, fact.attempt):
        draft.record(AttemptInterrupted(fact.step, fact.operation, fact.attempt))
        _again(draft, fact.step, fact.operation, None)


def _again(draft: Draft, name: str, operation: Operation, too_often: str | None) -> None:
    """Repeat at once what ended without an answer, or call a person if that has happened too often."""
    if operation is COMPENSATION:
        if too_often:
            draft.record(CompensationGaveUp(name, too_often))
        else:
            retry_compensation(draft, name, 0.0, counted=False)
    elif _needs_nothing(draft, name):
        return
    elif too_often:
        draft.record(AttentionRaised(name, too_often))
    elif operation is PROBE:
        draft.record(RetryScheduled(name, operation, draft.now))
    else:
        settle_unknown(draft, name, delay=0.0, counted=False)


def _impossible(draft: Draft, fact: facts.Impossible) -> None:
    _, state = draft.at(fact.step)
    if not _is_open(state, fact.operation, fact.attempt):
        return
    draft.record(AttemptImpossible(fact.step, fact.operation, fact.attempt, fact.problem))
    if fact.operation is COMPENSATION:
        draft.record(CompensationGaveUp(fact.step, f"its compensation can't be called: {fact.problem}"))
    elif not _needs_nothing(draft, fact.step):
        draft.record(AttentionRaised(fact.step, f"it can't be called: {fact.problem}"))


def _probed(draft: Draft, fact: facts.Probed) -> None:
    _, state = draft.at(fact.step)
    if not _is_open(state, PROBE, fact.attempt):
        return
    draft.record(ProbeAnswered(fact.step, fact.attempt, fact.answer, fact.result))
    if not _needs_nothing(draft, fact.step):
        repeat_or_give_up(draft, fact.step, surely_absent=fact.answer is Landed.NOT_LANDED)


def _condition_told(draft: Draft, fact: facts.ConditionTold) -> None:
    _, state = draft.at(fact.step)
    if not draft.is_backward and state.status is StepStatus.PENDING and state.condition is None:
        draft.record(ConditionAnswered(fact.step, fact.runs))


def _condition_failed(draft: Draft, fact: facts.ConditionFailed) -> None:
    _, state = draft.at(fact.step)
    if not draft.is_backward and state.status is StepStatus.PENDING and state.condition is None:
        draft.record(AttentionRaised(fact.step, f"its `when` raised {fact.problem}"))


def _unfit(draft: Draft, fact: facts.RequestUnfit) -> None:
    if any(request.id == fact.id for request in draft.saga.requests):
        draft.record(RequestAnswered(fact.id, "refused", fact.why))


def _woke(draft: Draft, fact: facts.Woke) -> None:
    """Nothing to record: what is due shows when the saga is advanced."""


_HEAR: dict[type, Callable[[Draft, Any], None]] = {
    facts.Succeeded: _succeeded,
    facts.Rejected: _rejected,
    facts.CameToNothing: _came_to_nothing,
    facts.Lost: _lost,
    facts.Interrupted: _interrupted,
    facts.Impossible: _impossible,
    facts.Probed: _probed,
    facts.ConditionTold: _condition_told,
    facts.ConditionFailed: _condition_failed,
    facts.RequestUnfit: _unfit,
    facts.Woke: _woke,
}
