"""What the end of an attempt leads to: it succeeded, was rejected, came to nothing, or went with its process.

Each function hears one kind of fact. One about an attempt that is not under way is a duplicate or late: it changes
nothing, or only adds what it knows. Called by `decide`, and for the replies to commands by `replies`.
"""

from __future__ import annotations

from atone._core import facts
from atone._core.backward import retry_compensation
from atone._core.draft import Draft, awaits_reply
from atone._core.facts import ACTION, COMPENSATION, PROBE, Landed, Operation
from atone._core.forward import repeat_or_give_up, settle_unknown, turn_back
from atone._core.journal import (
    AttemptImpossible,
    AttemptInterrupted,
    AttemptLost,
    AttemptRejected,
    AttemptSucceeded,
    AttemptUnknown,
    AttentionRaised,
    CompensationGaveUp,
    LateSuccess,
    ProbeAnswered,
    RetryScheduled,
    SagaResumed,
)
from atone._core.plan import COMPENSATABLE, PIVOT, RETRIABLE, Plan
from atone._core.records import new
from atone._core.state import SUCCEEDED, Cause, SagaState, SagaStatus, StepState, Tries


def _is_open(state: StepState, operation: Operation, attempt: int) -> bool:
    opened = state.open
    return opened is not None and opened.operation is operation and opened.attempt == attempt


def succeeded(draft: Draft, fact: facts.Succeeded) -> None:
    """Record a success: of the attempt under way, or of an earlier one that nobody had seen to land."""
    name, operation, attempt, result = fact
    state = draft.steps[draft.plan.index[name]]
    if _is_open(state, operation, attempt):
        draft.record(
            new(AttemptSucceeded, (name, operation, attempt, b"null" if operation is COMPENSATION else result))
        )
    elif operation is ACTION and is_news(state, attempt):
        landed_late(draft, fact)


def is_news(state: StepState, attempt: int) -> bool:
    """Whether a late success tells something that the journal does not hold yet."""
    return 0 < attempt <= state.action.started and state.result is None


def landed_late(draft: Draft, fact: facts.Succeeded) -> None:
    """Record that an attempt has landed after all: forward it settles the doubt, backward it joins the list."""
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


def rejected(draft: Draft, fact: facts.Rejected) -> None:
    """Record a rejection: it turns the saga back, unless something else may have landed."""
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


def came_to_nothing(draft: Draft, fact: facts.CameToNothing) -> None:
    """Record that an attempt ended without an answer, and resolve the doubt."""
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


def lost(draft: Draft, fact: facts.Lost) -> None:
    """Record that an attempt's process is gone. A command is run by none, so it can't be lost."""
    step, state = draft.at(fact.step)
    if not _is_open(state, fact.operation, fact.attempt) or awaits_reply(step, state):
        return
    draft.record(AttemptLost(fact.step, fact.operation, fact.attempt))
    _, state = draft.at(fact.step)
    times = _tries_of(state, fact.operation).lost
    too_often = f"its process died {times} times" if times > draft.plan.recoveries_max else None
    _again(draft, fact.step, fact.operation, too_often)


def chances_left(plan: Plan, saga: SagaState) -> int | None:
    """Return how often the attempts under way may still be lost before a person is called; None: none ever was."""
    left: int | None = None
    for state in saga.steps:
        if state.open is not None:
            times = _tries_of(state, state.open.operation).lost
            if times > 0 and (left is None or plan.recoveries_max - times < left):
                left = plan.recoveries_max - times
    return left


def may_be_lost_again(saga: SagaState) -> bool:
    """Whether an attempt was lost, or is about to be told as lost: `chances_left` may be a number."""
    return any(one.open is not None or one.action.lost or one.compensation.lost or one.probe.lost for one in saga.steps)


def _tries_of(state: StepState, operation: Operation) -> Tries:
    return {ACTION: state.action, PROBE: state.probe, COMPENSATION: state.compensation}[operation]


def interrupted(draft: Draft, fact: facts.Interrupted) -> None:
    """Record that a worker has stopped an attempt in order to shut down."""
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


def impossible(draft: Draft, fact: facts.Impossible) -> None:
    """Record that an attempt could not be made: a person has to see to it."""
    _, state = draft.at(fact.step)
    if not _is_open(state, fact.operation, fact.attempt):
        return
    draft.record(AttemptImpossible(fact.step, fact.operation, fact.attempt, fact.problem))
    if fact.operation is COMPENSATION:
        draft.record(CompensationGaveUp(fact.step, f"its compensation can't be called: {fact.problem}"))
    elif not _needs_nothing(draft, fact.step):
        draft.record(AttentionRaised(fact.step, f"it can't be called: {fact.problem}"))


def probed(draft: Draft, fact: facts.Probed) -> None:
    """Record what a probe has found out."""
    _, state = draft.at(fact.step)
    if not _is_open(state, PROBE, fact.attempt):
        return
    draft.record(ProbeAnswered(fact.step, fact.attempt, fact.answer, fact.result))
    if not _needs_nothing(draft, fact.step):
        repeat_or_give_up(draft, fact.step, surely_absent=fact.answer is Landed.NOT_LANDED)
