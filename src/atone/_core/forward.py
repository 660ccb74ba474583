"""The way forward: which steps may begin, what an unknown outcome leads to, and the one turn backward.

Called by `decide` only. Unknown is not failed: a step in doubt is probed, repeated with the same key, or given to a
person; going backward it is undone. Past the pivot there is no way back.
"""

from __future__ import annotations

from collections.abc import Sequence

from atone._core.draft import Draft, action_end
from atone._core.facts import ACTION, PROBE
from atone._core.journal import (
    AttentionRaised,
    DirectionDecided,
    RetryScheduled,
    SagaEnded,
    StepGaveUp,
    WaitEnded,
    WaitStarted,
)
from atone._core.plan import COMMAND, COMPENSATABLE, RETRIABLE, Does, Plan, StepPlan
from atone._core.state import SKIPPED, SUCCEEDED, Cause, SagaStatus, StepState, StepStatus

_PENDING = StepStatus.PENDING
_ACTS = Does.ACTION


def go_forward(draft: Draft) -> None:
    """Begin whatever may begin; end the saga if everything is over; turn back if its deadline has passed."""
    first = _first_left(draft)
    if first == len(draft.steps):
        _complete(draft)
        return
    deadline = draft.cold.deadline
    if deadline is not None and not pivot_begun(draft.plan, draft.steps):
        if deadline <= draft.now:
            turn_back(draft, Cause("deadline", None, "the saga's deadline has passed"))
            return
        draft.wake(deadline)
    while not draft.is_backward and _one_pass(draft, first):
        first = _first_left(draft)
        if first == len(draft.steps):
            _complete(draft)
            return


def pivot_begun(plan: Plan, steps: Sequence[StepState]) -> bool:
    """Whether the pivot may have had its effect, or has had it: there is no turning back on our own account."""
    if plan.pivot is None:
        return False
    pivot = steps[plan.pivot]
    return pivot.open is not None or pivot.doubt or pivot.status is SUCCEEDED


def rollback_list(plan: Plan, steps: Sequence[StepState]) -> tuple[str, ...]:
    """Return the steps to undo, newest first: those that had their effect or may have had it.

    One that is under way for the first time joins the list when it ends, if it may have landed then.
    """
    names: list[str] = []
    for step, state in zip(reversed(plan.steps), reversed(steps), strict=True):
        if step.has_compensation and (state.doubt or state.status is SUCCEEDED):
            names.append(step.name)
    return tuple(names)


def turn_back(draft: Draft, cause: Cause) -> None:
    """Decide the direction, once: the cause and the rollback list in one entry."""
    if draft.is_backward or pivot_begun(draft.plan, draft.steps):
        raise AssertionError(f"saga {draft.saga.saga_id!r} can't turn back now: {cause}")
    # Nothing that the way forward waited for counts any more.
    draft.wake_at = None
    seconds = draft.plan.rollback_deadline_seconds
    deadline = None if seconds is None else draft.now + seconds
    draft.record(DirectionDecided(cause, rollback_list(draft.plan, draft.steps), deadline))


def settle_unknown(
    draft: Draft, name: str, *, delay: float | None = None, repeatable: bool = True, counted: bool = True
) -> None:
    """Resolve an attempt that ended without an answer: probe first, else repeat, else give up."""
    step, state = draft.at(name)
    if step.has_probe:
        draft.record(RetryScheduled(name, PROBE, probe_at(draft, step, state, delay or 0.0)))
    else:
        repeat_or_give_up(draft, name, delay=delay, repeatable=repeatable, counted=counted)


def probe_at(draft: Draft, step: StepPlan, state: StepState, delay: float) -> float:
    """Return when to ask: not before the participant wants to be called again.

    Nothing recognises a repeat of an at-most-once step, so there "it did not land" must mean "and it never will".
    """
    ask_at = draft.now + delay
    if step.at_most_once and not step.barrier:
        return max(ask_at, state.quiet_at + draft.plan.late_grace_seconds)
    return ask_at


def repeat_or_give_up(
    draft: Draft,
    name: str,
    *,
    delay: float | None = None,
    repeatable: bool = True,
    surely_absent: bool = False,
    counted: bool = True,
) -> None:
    """Schedule the next attempt with the same key, or end the attempts: backward, or to a person.

    `delay` overrides the back-off, in seconds. `surely_absent`: a probe said that nothing landed, which permits a
    repeat even at most once. `counted` is False for an attempt that ended with its process: it uses up no attempt.
    """
    step, state = draft.at(name)
    if step.at_most_once and not surely_absent:
        _leave_unknown(draft, step)
        return
    wait = draft.backoff(step.retry, max(state.action.failed, 1), name, ACTION) if delay is None else delay
    due_at = draft.now + wait
    if state.action.failed == step.retry.alert_after:
        draft.alert(name, state.action.failed)
    for_ever = step.role is RETRIABLE
    if repeatable and (for_ever or not _is_exhausted(step, state, due_at, counted)):
        draft.record(RetryScheduled(name, ACTION, due_at))
    else:
        _give_up(draft, step, state)


def _give_up(draft: Draft, step: StepPlan, state: StepState) -> None:
    if step.role is COMPENSATABLE:
        draft.record(StepGaveUp(step.name))
        turn_back(draft, Cause("failure", step.name, _last_words(state)))
    else:
        draft.record(AttentionRaised(step.name, f"unknown after {state.action.started} attempts: {_last_words(state)}"))


def _is_exhausted(step: StepPlan, state: StepState, due_at: float, counted: bool) -> bool:
    too_many = counted and state.action.failed >= step.retry.attempts
    end = action_end(step, state, due_at)
    return too_many or (end is not None and due_at >= end)


def _leave_unknown(draft: Draft, step: StepPlan) -> None:
    if step.on_unknown == "backward" and step.role is COMPENSATABLE:
        _, state = draft.at(step.name)
        draft.record(StepGaveUp(step.name))
        turn_back(draft, Cause("failure", step.name, _last_words(state)))
    else:
        draft.record(AttentionRaised(step.name, "it may have landed, and may be called at most once"))


def _last_words(state: StepState) -> str:
    return str(state.problem) if state.problem else "its process died"


def _complete(draft: Draft) -> None:
    if not draft.status.is_final:
        draft.record(SagaEnded(SagaStatus.COMPLETED))


def _first_left(draft: Draft) -> int:
    """Return where the first step stands that is not over; behind the last one if all are."""
    at = 0
    for state in draft.steps:
        status = state.status
        if status is not SUCCEEDED and status is not SKIPPED:
            break
        at += 1
    return at


def _one_pass(draft: Draft, first: int) -> bool:
    """Look at each step once, from the first that is not over; return whether a wait ended, so that more may begin."""
    steps, plan = draft.steps, draft.plan
    for state in steps:
        if state.attention is not None:
            # Nothing new begins while a person is needed: less to undo if they decide so.
            return False
    moved = False
    for at in range(first, len(steps)):
        state = steps[at]
        status = state.status
        if state.open is not None or status is SUCCEEDED or status is SKIPPED:
            continue
        if status is _PENDING and state.due is None:
            if not _may_begin(draft, at):
                continue
            moved |= _begin_step(draft, plan.steps[at], state)
        elif state.due is not None:
            _start_if_due(draft, plan.steps[at], state)
        else:
            moved |= _look_at_wait(draft, plan.steps[at], state)
        if draft.is_backward or steps[at].attention is not None:
            return False
        if plan.is_row:
            # What comes later waits for this one.
            break
    return moved


def _may_begin(draft: Draft, at: int) -> bool:
    steps = draft.steps
    for before in draft.plan.predecessors[at]:
        status = steps[before].status
        if status is not SUCCEEDED and status is not SKIPPED:
            return False
    return True


def _begin_step(draft: Draft, step: StepPlan, state: StepState) -> bool:
    if step.has_when and state.condition is None:
        draft.ask(step.name)
        return False
    if step.does is _ACTS or step.does is COMMAND:
        draft.start(step, state, ACTION)
        return False
    draft.record(WaitStarted(step.name, draft.now + (step.wait_seconds or 0.0)))
    return _look_at_wait(draft, *draft.at(step.name))


def _start_if_due(draft: Draft, step: StepPlan, state: StepState) -> None:
    if state.due is None or state.due_at is None:
        raise AssertionError(f"step {step.name!r} is neither due nor waiting: {state}")
    end = action_end(step, state, draft.now)
    if state.due_at > draft.now:
        draft.wake(state.due_at)
    elif state.due is ACTION and end is not None and end <= draft.now:
        _give_up(draft, step, state)
    else:
        draft.start(step, state, state.due)


def _look_at_wait(draft: Draft, step: StepPlan, state: StepState) -> bool:
    """End a delay that is over, or take an event that has come; return whether the wait ended well."""
    if state.due_at is None:
        raise AssertionError(f"step {step.name!r} waits without an end: {state}")
    letter = next((event for event in draft.cold.mail if event.event == step.event_name), None)
    if step.does is Does.EVENT and letter is not None:
        draft.record(WaitEnded(step.name, letter.payload or b"null", letter.id))
        return True
    if state.due_at > draft.now:
        draft.wake(state.due_at)
        return False
    if step.does is Does.DELAY:
        draft.record(WaitEnded(step.name, b"null"))
        return True
    message = f"event {step.event_name!r} did not come in {step.wait_seconds:g} s"
    if step.on_timeout == "backward" and not pivot_begun(draft.plan, draft.steps):
        turn_back(draft, Cause("timeout", step.name, message))
    else:
        draft.record(AttentionRaised(step.name, message))
    return False
