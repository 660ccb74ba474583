"""Command steps: what a reply means, and what becomes of a command that nobody has answered in time.

A command is an attempt that no process runs: it was sent with its intent, and ends by a reply or by its deadline.
Late, early, duplicate and senseless replies are all answered in the journal, and none is lost. Called by `decide` only;
what the end of an attempt leads to is told in `attempts`.
"""

from __future__ import annotations

from typing import TypeAlias

from atone._core import attempts, facts
from atone._core.backward import is_settled
from atone._core.draft import Draft, awaits_reply
from atone._core.facts import ACTION, COMPENSATION, PROBE, Problem
from atone._core.journal import AttemptSucceeded, AttentionRaised, CompensationGaveUp
from atone._core.plan import COMMAND, Plan
from atone._core.state import Request, SagaState, StepState, StepStatus

Answer: TypeAlias = tuple[str, str]


def expire_commands(draft: Draft) -> None:
    """Give up on each command whose deadline has passed."""
    if not draft.plan.has_commands:
        return
    for at, step in enumerate(draft.plan.steps):
        state = draft.steps[at]
        if state.open is not None and awaits_reply(step, state) and state.open.deadline <= draft.now:
            silence = Problem("TimeoutError", "no reply has come in time")
            operation, attempt, _ = state.open
            attempts.came_to_nothing(draft, facts.CameToNothing(step.name, operation, attempt, silence))


def await_replies(draft: Draft) -> bool:
    """Have the saga looked at when the next command is overdue; return whether a reply is awaited at all."""
    is_awaiting = False
    if draft.plan.has_commands:
        for step, state in zip(draft.plan.steps, draft.steps, strict=True):
            if state.open is not None and awaits_reply(step, state):
                draft.wake(state.open.deadline)
                is_awaiting = True
    return is_awaiting


def answer_reply(draft: Draft, request: Request) -> Answer:
    """Let a reply count, whichever attempt it answers; what it can't mean is refused with the reason."""
    if request.step not in draft.plan.index:
        return "refused", f"there is no step {request.step!r}"
    step, state = draft.at(request.step)
    if step.does is not COMMAND or request.operation is PROBE or request.landed is None:
        return "refused", f"{step.name} awaits no such reply"
    sent = state.action if request.operation is ACTION else state.compensation
    if not 0 < request.attempt <= sent.started:
        return "refused", f"attempt {request.attempt} of its {request.operation} was never sent"
    if not request.landed:
        return _refusal(draft, step.name, request)
    return _landed(draft, step.name, request) if request.operation is ACTION else _undone(draft, step.name, request)


def _is_awaited(state: StepState, request: Request) -> bool:
    return state.open is not None and state.open.operation is request.operation


def _refusal(draft: Draft, name: str, request: Request) -> Answer:
    _, state = draft.at(name)
    if state.open is None or not _is_awaited(state, request) or state.open.attempt != request.attempt:
        return "ignored", "a rejection clears its own attempt only, and that one is over"
    problem = Problem("Rejected", request.reason)
    attempts.rejected(draft, facts.Rejected(name, request.operation, request.attempt, problem))
    return "applied", ""


def _landed(draft: Draft, name: str, request: Request) -> Answer:
    _, state = draft.at(name)
    result = request.payload or b"null"
    if not attempts.is_news(state, request.attempt):
        return "ignored", "its result is known already"
    if _is_awaited(state, request):
        # All attempts carry one key, so whichever was answered, nothing more is to be awaited.
        draft.record(AttemptSucceeded(name, ACTION, request.attempt, result))
    else:
        attempts.landed_late(draft, facts.Succeeded(name, ACTION, request.attempt, result))
    return "applied", ""


def _undone(draft: Draft, name: str, request: Request) -> Answer:
    _, state = draft.at(name)
    if not _is_awaited(state, request) and state.due is not COMPENSATION:
        return "ignored", f"its compensation is settled: {state.status.value.replace('_', ' ')}"
    draft.record(AttemptSucceeded(name, COMPENSATION, request.attempt, b"null"))
    return "applied", ""


def worth_telling(plan: Plan, saga: SagaState, request: Request) -> str | None:
    """Return what a reply to a saga that is over says that the saga never knew; None if that changes nothing."""
    if request.step not in plan.index:
        return f"there is no step {request.step!r}"
    state = saga.steps[plan.index[request.step]]
    if not request.landed or request.id in saga.seen:
        return None
    if request.operation is ACTION:
        known = state.result is not None
        return None if known else f"{request.step} has landed, and the saga was over: {saga.status.value}"
    is_undone = state.status is StepStatus.COMPENSATED
    return None if is_undone else f"{request.step} was undone, and the saga was over: {saga.status.value}"


def messages_built(draft: Draft, fact: facts.MessagesBuilt) -> None:
    """Take the messages along, if they still say what the saga knows; otherwise they are asked for again."""
    if fact.version == draft.cold.version:
        draft.built = fact.built


def message_failed(draft: Draft, fact: facts.MessageFailed) -> None:
    """Call a person: what can't be built was not sent, and asking again would not mend it."""
    if fact.version != draft.cold.version:
        return
    _, state = draft.at(fact.step)
    if fact.operation is COMPENSATION:
        if draft.is_backward and fact.step in draft.rollback and not is_settled(state):
            draft.record(CompensationGaveUp(fact.step, f"its command can't be sent: {fact.problem}"))
    elif not draft.is_backward and not state.is_over and state.status is not StepStatus.RUNNING:
        draft.record(AttentionRaised(fact.step, f"its command can't be sent: {fact.problem}"))
