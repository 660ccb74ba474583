"""The way back: which steps are undone when, and what an undo that fails leads to.

Called by `decide` only, once the direction is decided. Nothing here ever starts an action. A saga in which an undo gave
up is never called compensated: it waits for a person.
"""

from __future__ import annotations

from collections.abc import Sequence

from atone._core.draft import Draft
from atone._core.facts import COMPENSATION
from atone._core.journal import CompensationGaveUp, RetryScheduled, SagaEnded
from atone._core.plan import Plan, StepPlan
from atone._core.state import SagaStatus, StepState, StepStatus

# A member is looked up by the enum's own code at every use.
_COMPENSATED = StepStatus.COMPENSATED
_GAVE_UP = StepStatus.COMPENSATION_FAILED
_FAILED = StepStatus.FAILED


def roll_back(draft: Draft) -> None:
    """Undo what is next in reverse order; end the saga when the list is done."""
    for state in draft.steps:
        if state.open is not None and state.open.operation is not COMPENSATION:
            # A sibling is under way. Its outcome joins the list, and order binds the rest, so nothing is undone yet.
            return
    is_done = True
    halted = is_halted(draft.plan, draft.steps)
    for name in draft.rollback:
        at = draft.plan.index[name]
        state = draft.steps[at]
        if is_settled(state):
            continue
        is_done = False
        if state.open is None and not halted and _is_next(draft, at):
            _undo_when_due(draft, draft.plan.steps[at], state)
    if is_done:
        _end(draft)


def is_settled(state: StepState) -> bool:
    """Whether nothing more is done about undoing this step, unless an operator asks."""
    status = state.status
    if status is _COMPENSATED or status is _GAVE_UP or state.waived is not None:
        return True
    return status is _FAILED and not state.doubt


def is_halted(plan: Plan, steps: Sequence[StepState]) -> bool:
    """Whether an undo that gave up stops the rest, by the definition's policy."""
    if plan.on_compensation_failure != "halt":
        return False
    return any(state.status is _GAVE_UP and state.waived is None for state in steps)


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
    if state.status is _GAVE_UP:
        # Given up while it ran, because the action landed meanwhile: a person decides.
        return
    if not counted:
        draft.record(RetryScheduled(name, COMPENSATION, draft.now))
        return
    failed = state.compensation.failed
    wait = draft.backoff(step.compensation_retry, failed, name, COMPENSATION) if delay is None else delay
    due_at = draft.now + wait
    if failed == step.compensation_retry.alert_after:
        draft.alert(name, failed)
    end = draft.cold.rollback_deadline
    if failed >= step.compensation_retry.attempts:
        draft.record(CompensationGaveUp(name, f"its compensation failed {failed} times: {state.problem}"))
    elif end is not None and due_at > end:
        draft.record(
            CompensationGaveUp(name, f"the rollback's deadline leaves no time for another try: {state.problem}")
        )
    else:
        draft.record(RetryScheduled(name, COMPENSATION, due_at))


def _is_next(draft: Draft, at: int) -> bool:
    """Whether no later step stands in the way of undoing this one."""
    plan = draft.plan
    for after in plan.descendants[at]:
        if not is_settled(draft.steps[after]) and plan.steps[after].name in draft.rollback:
            return False
    return True


def _undo_when_due(draft: Draft, step: StepPlan, state: StepState) -> None:
    due_at = not_before(draft.plan, step, state)
    if state.due_at is not None and state.due_at > due_at:
        due_at = state.due_at
    if due_at <= draft.now:
        draft.start(step, state, COMPENSATION)
    else:
        draft.wake(due_at)


def _end(draft: Draft) -> None:
    states = draft.steps
    if any(state.attention is not None for state in states):
        return
    waived = [state.waived for state in states if state.waived is not None]
    if waived:
        draft.record(SagaEnded(SagaStatus.FAILED, waived[0]))
    else:
        draft.record(SagaEnded(SagaStatus.COMPENSATED))
