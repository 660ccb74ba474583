"""What is asked from outside: cancel, terminate, events, replies, and an operator's retry, resolve and skip.

Each request is a journal entry, answered by the saga's owner in another: applied, refused with the reason, too late,
or ignored. Called by `decide` only. A cancel that meets a pivot under way stays unanswered until the pivot is known.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from atone._core.draft import Draft
from atone._core.facts import Operation
from atone._core.forward import pivot_begun, probe_at, turn_back
from atone._core.journal import RequestAnswered, SagaEnded, SagaResumed, StepReset, StepResolved, StepWaived
from atone._core.plan import Role, StepPlan
from atone._core.replies import answer_reply
from atone._core.state import Cause, Request, SagaStatus, StepState, StepStatus

Answer: TypeAlias = tuple[str, str]
MAIL_MAX = 100


def answer_requests(draft: Draft) -> None:
    """Answer every request that can be answered now; one answer may make another possible."""
    moved = True
    while moved:
        moved = False
        for request in draft.cold.requests:
            moved |= _answer(draft, request)
            if draft.status.is_final:
                return


def _answer(draft: Draft, request: Request) -> bool:
    answer = _KINDS.get(request.kind, _unknown_kind)(draft, request)
    if answer is None:
        return False
    draft.record(RequestAnswered(request.id, *answer))
    if draft.status.is_final:
        for other in draft.cold.requests:
            draft.record(RequestAnswered(other.id, "too_late", "the saga has ended"))
    return True


def _unknown_kind(draft: Draft, request: Request) -> Answer:
    return "refused", f"request kind {request.kind!r} is not known to this version; upgrade the worker"


def _cancel(draft: Draft, request: Request) -> Answer | None:
    plan, steps = draft.plan, draft.steps
    if draft.is_backward:
        return "applied", "it is already being undone"
    if plan.pivot is not None and steps[plan.pivot].status is StepStatus.SUCCEEDED:
        return "too_late", "the point of no return has passed"
    if pivot_begun(plan, steps):
        return None
    turn_back(draft, Cause("cancel", None, request.reason, request.by))
    return "applied", ""


def _terminate(draft: Draft, request: Request) -> Answer:
    draft.record(SagaEnded(SagaStatus.FAILED, f"terminated by {request.by}: {request.reason}"))
    return "applied", "ended without undo; effects stand"


def _event(draft: Draft, request: Request) -> Answer:
    waits = [at for at, step in enumerate(draft.plan.steps) if step.event_name == request.event]
    if not waits:
        return "refused", f"no step waits for event {request.event!r}"
    taken = sum(1 for letter in draft.cold.mail if letter.event == request.event)
    still = [at for at in waits if not draft.steps[at].is_over]
    if draft.is_backward or len(still) <= taken:
        return "ignored", "no step waits for it any more"
    if len(draft.cold.mail) >= MAIL_MAX:
        return "refused", f"{MAIL_MAX} events wait already"
    for at in still:
        # A wait that had timed out begins again, for its event has come after all.
        if draft.steps[at].attention is not None:
            draft.record(StepReset(draft.plan.steps[at].name, Operation.ACTION, draft.now))
            _resume(draft)
    return "applied", ""


def _resume(draft: Draft) -> None:
    if draft.status is SagaStatus.NEEDS_ATTENTION:
        draft.record(SagaResumed())


def _retry(draft: Draft, request: Request) -> Answer:
    if draft.cold.broken is not None and request.step is None:
        _resume(draft)
        return "applied", ""
    names = [request.step] if request.step is not None else _troubled(draft)
    if any(name not in draft.plan.index for name in names):
        return "refused", f"there is no step {request.step!r}"
    ready = [name for name in names if _may_retry(draft, *draft.at(name))]
    if not ready:
        return "refused", "nothing there waits for a retry or needs attention"
    for name in ready:
        step, state = draft.at(name)
        is_vouched = request.step is not None and request.landed is False
        draft.record(StepReset(name, *_next_try(draft, step, state, is_vouched)))
    _resume(draft)
    return "applied", ""


def _next_try(draft: Draft, step: StepPlan, state: StepState, is_vouched: bool) -> tuple[Operation, float]:
    """Return what another round begins with; a step in doubt is asked first, unless a person says it did not land."""
    if draft.is_backward:
        return Operation.COMPENSATION, draft.now
    asks_first = state.due is Operation.PROBE or (state.due is None and step.has_probe and state.doubt)
    if asks_first and not is_vouched:
        return Operation.PROBE, probe_at(draft, step, state, 0.0)
    return Operation.ACTION, draft.now


def _troubled(draft: Draft) -> list[str]:
    pairs = zip(draft.plan.steps, draft.steps, strict=True)
    return [step.name for step, state in pairs if state.attention is not None or state.due is not None]


def _may_retry(draft: Draft, step: StepPlan, state: StepState) -> bool:
    if state.open is not None or state.waived is not None:
        return False
    if draft.is_backward and step.name not in draft.rollback:
        return False
    return state.attention is not None or state.due is not None


def _resolve(draft: Draft, request: Request) -> Answer:
    if request.step not in draft.plan.index or request.landed is None:
        return "refused", f"there is no step {request.step!r}, or nothing was said of it"
    step, state = draft.at(request.step)
    if state.open is not None:
        return "refused", "an attempt is under way; wait for it to end"
    if draft.is_backward and state.undo_begun:
        return _resolve_undo(draft, step, state, request.landed)
    if not step.acts or state.action.started == 0:
        return "refused", "it was never called, so there is nothing to vouch for; use retry or skip"
    is_known = state.status is StepStatus.SUCCEEDED or state.result is not None
    is_passed = state.is_over and not draft.is_backward
    if is_known or is_passed or (not state.doubt and state.attention is None):
        return "refused", "its outcome is not in doubt"
    if request.landed and request.payload is None:
        return "refused", "give the result that the action returned"
    if not request.landed and step.role is Role.RETRIABLE:
        return "refused", "a step after the pivot must land; use retry or skip"
    draft.record(StepResolved(step.name, Operation.ACTION, request.landed, request.payload if request.landed else None))
    if not request.landed and not draft.is_backward:
        turn_back(draft, Cause("operator", step.name, f"did not land: {request.reason}", request.by))
    _resume(draft)
    return "applied", ""


def _resolve_undo(draft: Draft, step: StepPlan, state: StepState, landed: bool) -> Answer:
    if state.status is StepStatus.COMPENSATED or state.waived is not None:
        return "refused", "its compensation is settled"
    if not landed:
        return "refused", "a compensation that did not land is retried or skipped; use retry or skip"
    draft.record(StepResolved(step.name, Operation.COMPENSATION, True))
    _resume(draft)
    return "applied", ""


def _skip(draft: Draft, request: Request) -> Answer:
    if request.step not in draft.plan.index:
        return "refused", f"there is no step {request.step!r}"
    step, state = draft.at(request.step)
    if state.open is not None:
        return "refused", "an attempt is under way; wait for it to end"
    refusal = _no_skip_back(draft, step, state) if draft.is_backward else _no_skip_forward(draft, step, state)
    if refusal is not None:
        return "refused", refusal
    operation = Operation.COMPENSATION if draft.is_backward else Operation.ACTION
    draft.record(StepWaived(step.name, operation, f"skipped by {request.by}: {request.reason}"))
    _resume(draft)
    return "applied", ""


def _no_skip_back(draft: Draft, step: StepPlan, state: StepState) -> str | None:
    if step.name not in draft.rollback and state.attention is None:
        return "it is not to be undone"
    if state.status is StepStatus.COMPENSATED or state.waived is not None:
        return "its compensation is settled"
    return None


def _no_skip_forward(draft: Draft, step: StepPlan, state: StepState) -> str | None:
    if state.attention is None and state.due is None and state.due_at is None:
        return "it neither needs attention nor waits"
    if step.role is Role.PIVOT:
        return "the point of no return can't be skipped; resolve it as landed or not landed"
    if any(step.name in later.inputs for later in draft.plan.steps):
        return "a later step takes its result; resolve it with a result instead"
    return None


_KINDS: dict[str, Callable[[Draft, Request], Answer | None]] = {
    "cancel": _cancel,
    "terminate": _terminate,
    "event": _event,
    "reply": answer_reply,
    "retry": _retry,
    "resolve": _resolve,
    "skip": _skip,
}
