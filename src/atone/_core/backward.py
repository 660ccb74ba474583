"""The way back: which steps are undone when, and what an undo that fails leads to.

Called by `decide` only, once the direction is decided. Nothing here ever starts an action. A saga in which an undo gave
up is never called compensated: it waits for a person.
"""

from __future__ import annotations

from atone._core.draft import Draft
from atone._core.facts import Operation
from atone._core.journal import CompensationGaveUp, RetryScheduled, SagaEnded
from atone._core.plan import Plan, StepPlan
from atone._core.state import SagaState, SagaStatus, StepState, StepStatus


def roll_back(draft: Draft) -> None:
    """Undo what is next in reverse order; end the saga when the list is done."""
    if any(_is_forward_call(state) for state in draft.saga.steps):
        # A sibling is still under way. Its outcome joins the list, and order binds the rest, so nothing is undone yet.
        return
    halted = is_halted(draft.plan, draft.saga)
    for name in draft.saga.rollback:
        step, state = draft.at(name)
        if is_settled(state) or state.open is not None or halted:
            continue
        if all(_lets_pass(draft, after) for after in draft.plan.descendants[draft.plan.index[name]]):
            _undo_when_due(draft, step, state)
    if all(is_settled(draft.at(name)[1]) for name in draft.saga.rollback):
        _end(draft)


def is_settled(state: StepState) -> bool:
    """Whether nothing more is done about undoing this step, unless an operator asks."""
    return (
        state.status in (StepStatus.COMPENSATED, StepStatus.COMPENSATION_FAILED)
        or state.waived is not None
        or (state.status is StepStatus.FAILED and not state.doubt)
    )


def is_halted(plan: Plan, saga: SagaState) -> bool:
    """Whether an undo that gave up stops the rest, by the definition's policy."""
    failed = any(state.status is StepStatus.COMPENSATION_FAILED and state.waived is None for state in saga.steps)
    return failed and plan.on_compensation_failure == "halt"


def not_before(plan: Plan, step: StepPlan, state: StepState) -> float:
    """Return the time before which a step must not be undone: while an unknown attempt may still land.

    With the participant's barrier a late action is refused there, so there is nothing to wait for.
    """
    if step.barrier or not state.doubt or state.result is not None:
        return 0.0
    return state.quiet_at + plan.late_grace_seconds


def retry_compensation(draft: Draft, name: str, delay: float | None, *, counted: bool = True) -> None:
    """Schedule the undo's next attempt, or give it up; `delay` overrides its back-off, in seconds.

    `counted` is False for an attempt that ended with its process: it uses up neither attempts nor the deadline.
    """
    step, state = draft.at(name)
    if state.status is StepStatus.COMPENSATION_FAILED:
        # Given up while it ran, because the action landed meanwhile: a person decides.
        return
    if not counted:
        draft.record(RetryScheduled(name, Operation.COMPENSATION, draft.now))
        return
    failed = state.compensation.failed
    wait = draft.backoff(step.compensation_retry, failed, name, Operation.COMPENSATION) if delay is None else delay
    due_at = draft.now + wait
    if failed == step.compensation_retry.alert_after:
        draft.alert(name, failed)
    end = draft.saga.rollback_deadline
    if failed >= step.compensation_retry.attempts:
        draft.record(CompensationGaveUp(name, f"its compensation failed {failed} times: {state.problem}"))
    elif end is not None and due_at > end:
        draft.record(
            CompensationGaveUp(name, f"the rollback's deadline leaves no time for another try: {state.problem}")
        )
    else:
        draft.record(RetryScheduled(name, Operation.COMPENSATION, due_at))


def _is_forward_call(state: StepState) -> bool:
    return state.open is not None and state.open.operation is not Operation.COMPENSATION


def _lets_pass(draft: Draft, at: int) -> bool:
    """Whether a later step stands in the way of undoing an earlier one."""
    return draft.plan.steps[at].name not in draft.saga.rollback or is_settled(draft.saga.steps[at])


def _undo_when_due(draft: Draft, step: StepPlan, state: StepState) -> None:
    due_at = max(state.due_at or 0.0, not_before(draft.plan, step, state))
    if due_at <= draft.now:
        draft.start(step, state, Operation.COMPENSATION)
    else:
        draft.wake(due_at)


def _end(draft: Draft) -> None:
    states = draft.saga.steps
    if any(state.attention is not None for state in states):
        return
    waived = [state.waived for state in states if state.waived is not None]
    if waived:
        draft.record(SagaEnded(SagaStatus.FAILED, waived[0]))
    else:
        draft.record(SagaEnded(SagaStatus.COMPENSATED))
