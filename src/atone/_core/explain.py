"""Why is this saga where it is, what happens next and when, and what may a person do about it?

Owns the sentences; what would happen is asked of `decide` by way of a rehearsal, so that this page has no opinion of
its own. Pure: no clock, times are counted from `now`. Called by whoever shows a saga to a person.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from atone._core import facts
from atone._core.decide import decide
from atone._core.draft import awaits_reply
from atone._core.facts import Operation
from atone._core.fold import fold
from atone._core.forward import pivot_begun
from atone._core.journal import RequestAnswered, RequestReceived
from atone._core.plan import Does, Plan, StepPlan
from atone._core.preview import Planned, Preview, Undo, ask, preview
from atone._core.state import SagaState, SagaStatus, StepState, StepStatus

__all__ = ["Explanation", "Option", "Planned", "Preview", "Undo", "explain", "preview"]


@dataclass(frozen=True, slots=True)
class Option:
    """A command that applies now: `command` is cancel, terminate, retry, resolve or skip, `does` what it would do.

    `landed` is set for resolve: what the person says of the step.
    """

    command: str
    step: str | None
    does: str
    landed: bool | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """A saga in words: one line, why it is there, what happens next by itself, and what a person may do."""

    headline: str
    why: tuple[str, ...] = ()
    next: tuple[str, ...] = ()
    may: tuple[Option, ...] = ()


def explain(plan: Plan, saga: SagaState, now: float) -> Explanation:
    """Return a saga in words, as it is at `now`, epoch seconds by the store's clock."""
    return Explanation(
        _headline(plan, saga, now), tuple(_why(plan, saga)), tuple(_next(plan, saga, now)), tuple(_may(plan, saga, now))
    )


def span(seconds: float) -> str:
    """Return a length of time as people say it."""
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{max(seconds, 0.0):.3g} s"


def _headline(plan: Plan, saga: SagaState, now: float) -> str:
    match saga.status:
        case SagaStatus.PENDING:
            return "Pending: nothing has run yet."
        case SagaStatus.COMPLETED:
            return "Completed: every step has succeeded or was skipped."
        case SagaStatus.COMPENSATED:
            return "Compensated: what it had done was undone."
        case SagaStatus.FAILED:
            return f"Failed: effects may stand, by a person's decision ({saga.ended_because})."
        case SagaStatus.NEEDS_ATTENTION:
            names = [step.name for step, state in _pairs(plan, saga) if state.attention is not None]
            return f"Needs attention: {', '.join(names) or 'the saga as a whole'}."
        case SagaStatus.COMPENSATING | SagaStatus.RUNNING:
            acts = _acts(plan, saga, now)
            more = f", and {len(acts) - 1} more" if len(acts) > 1 else ""
            return f"{saga.status.capitalize()}: {acts[0] if acts else 'it is about to go on'}{more}."


def _pairs(plan: Plan, saga: SagaState) -> list[tuple[StepPlan, StepState]]:
    return list(zip(plan.steps, saga.steps, strict=True))


# What goes on


def _acts(plan: Plan, saga: SagaState, now: float) -> list[str]:
    """Return what each step does or waits for, those under way first."""
    steps = _pairs(plan, saga)
    under_way = [_under_way(step, state, now) for step, state in steps if state.open is not None]
    if saga.is_backward:
        return under_way + list(_waits_back(plan, saga, now))
    resting = [(step, state) for step, state in steps if state.open is None and not state.is_over]
    waits = [_waits(plan, saga, step, state, now) for step, state in resting if state.attention is None]
    return under_way + [wait for wait in waits if wait is not None]


def _under_way(step: StepPlan, state: StepState, now: float) -> str:
    if state.open is None:
        raise AssertionError(f"step {step.name!r} is not under way: {state}")
    if awaits_reply(step, state):
        verb = {
            Operation.ACTION: f"{step.name} was sent to {step.topic}, and a reply is awaited",
            Operation.COMPENSATION: f"{step.name} is being undone by a command to {step.compensation_topic}",
        }[state.open.operation]
    else:
        verb = {
            Operation.ACTION: f"{step.name} is being called",
            Operation.PROBE: f"{step.name} is being asked whether it landed",
            Operation.COMPENSATION: f"{step.name} is being undone",
        }[state.open.operation]
    return f"{verb} (attempt {state.open.attempt}, {span(state.open.deadline - now)} left)"


def _waits(plan: Plan, saga: SagaState, step: StepPlan, state: StepState, now: float) -> str | None:
    if state.due is not None and state.due_at is not None:
        again = "sent again" if step.does is Does.COMMAND else "called again"
        what = "asked whether it landed" if state.due is Operation.PROBE else again
        return f"{step.name} is {what} in {span(state.due_at - now)}"
    if state.due_at is not None and step.does is Does.DELAY:
        return f"{step.name} ends in {span(state.due_at - now)}"
    if state.due_at is not None:
        return f"{step.name} waits for event {step.event_name!r}, {span(state.due_at - now)} left"
    if _is_blocked(plan, saga, step):
        return None
    if step.has_when and state.condition is None:
        return f"{step.name} asks its `when`"
    return f"{step.name} is about to begin"


def _waits_back(plan: Plan, saga: SagaState, now: float) -> Iterator[str]:
    for planned in preview(plan, saga, now).steps:
        state = saga.steps[plan.index[planned.step]]
        if state.open is not None:
            continue
        if state.due is Operation.COMPENSATION and state.due_at is not None:
            yield f"{planned.step} is undone again in {span(state.due_at - now)}"
        elif planned.what is Undo.UNDO_UNKNOWN and planned.in_seconds > 0:
            yield f"{planned.step} may still land, so it is undone in {span(planned.in_seconds)} at the earliest"


def _is_blocked(plan: Plan, saga: SagaState, step: StepPlan) -> bool:
    return any(not saga.steps[before].is_over for before in plan.predecessors[plan.index[step.name]])


# Why


def _why(plan: Plan, saga: SagaState) -> Iterator[str]:
    if saga.cause is not None:
        by = f" by {saga.cause.by}" if saga.cause.by else ""
        where = f" at {saga.cause.step}" if saga.cause.step else ""
        yield f"It turned back ({saga.cause.trigger}{where}{by}): {saga.cause.message}."
    if saga.broken is not None:
        yield f"It was parked as a whole: {saga.broken}."
    for step, state in _pairs(plan, saga):
        yield from _why_step(saga, step, state)
    for request in saga.requests:
        yield f"A {request.kind} by {request.by} has not been answered yet: {request.reason}."


def _why_step(saga: SagaState, step: StepPlan, state: StepState) -> Iterator[str]:
    if state.attention is not None:
        yield f"{step.name} needs a person: {state.attention}."
    if saga.status in (SagaStatus.COMPLETED, SagaStatus.COMPENSATED):
        return
    in_doubt = state.doubt and state.result is None and state.status is not StepStatus.COMPENSATED
    if in_doubt:
        yield f"{step.name} may have landed: an attempt ended without an answer."
    if state.problem is not None and not state.is_over and state.status is not StepStatus.COMPENSATED:
        yield f"{step.name} last met {state.problem}."
    if state.waived is not None:
        yield f"The undo of {step.name} was {state.waived}."


# What next


def _next(plan: Plan, saga: SagaState, now: float) -> Iterator[str]:
    if saga.status.is_final:
        return
    if saga.status is SagaStatus.NEEDS_ATTENTION:
        yield "Nothing happens until a person decides, or until what was missing comes late after all."
        return
    for act in _acts(plan, saga, now):
        yield f"{act}."
    yield from (_next_back(plan, saga, now) if saga.is_backward else _next_forward(plan, saga, now))


def _next_forward(plan: Plan, saga: SagaState, now: float) -> Iterator[str]:
    later = [step.name for step, _ in _pairs(plan, saga) if _is_blocked(plan, saga, step)]
    if later:
        yield f"After that: {', '.join(later)}."
    for step, state in _pairs(plan, saga):
        if step.does is Does.EVENT and state.due_at is not None:
            calls_person = step.on_timeout != "backward" or pivot_begun(plan, saga.steps)
            then = "a person is called" if calls_person else "the saga turns back"
            yield f"If event {step.event_name!r} does not come in {span(state.due_at - now)}, {then}."
    for step, state in _pairs(plan, saga):
        if state.open is not None and awaits_reply(step, state):
            yield f"If nobody replies for {step.name} in {span(state.open.deadline - now)}, {_unanswered(step)}."
    if saga.deadline is not None and not pivot_begun(plan, saga.steps):
        is_late = "is not over"
        if plan.pivot is not None:
            is_late = f"has not begun its point of no return, {plan.steps[plan.pivot].name},"
        yield f"If it {is_late} in {span(saga.deadline - now)}, its deadline turns it back."
    if plan.pivot is not None and pivot_begun(plan, saga.steps):
        yield _past_pivot(plan.steps[plan.pivot].name, saga.steps[plan.pivot])


def _unanswered(step: StepPlan) -> str:
    if step.has_probe:
        return "it is asked whether it landed"
    if step.at_most_once:
        return "it is undone" if step.on_unknown == "backward" else "a person is called"
    return "it is sent again with the same key, as long as its retries allow"


def _past_pivot(name: str, pivot: StepState) -> str:
    if pivot.status is StepStatus.SUCCEEDED:
        return f"The point of no return, {name}, has passed: it only goes forward."
    if pivot.doubt:
        return f"The point of no return, {name}, may have landed: only a person can still turn the saga back."
    return f"The point of no return, {name}, is under way: the saga turns back only if it is rejected."


def _next_back(plan: Plan, saga: SagaState, now: float) -> Iterator[str]:
    seen = preview(plan, saga, now)
    later = [name for name in seen.order if saga.steps[plan.index[name]].open is None]
    if later:
        yield f"Still to be undone, in this order: {', '.join(later)}."
    stuck = [planned.step for planned in seen.steps if planned.what is Undo.NEEDS_PERSON]
    if stuck:
        yield f"Then it needs attention, for {', '.join(stuck)}."
    if saga.rollback_deadline is not None:
        yield f"No undo is tried again after its rollback's deadline, in {span(saga.rollback_deadline - now)}."


# What a person may do


def _may(plan: Plan, saga: SagaState, now: float) -> Iterator[Option]:
    if saga.status.is_final:
        return
    if not saga.is_backward:
        seen = preview(plan, saga, now)
        answer = _answer(plan, saga, now, "cancel")
        if answer != "too_late":
            yield Option("cancel", None, _cancelled(seen))
    if saga.broken is not None:
        yield Option("retry", None, "takes it up again where it stands")
    for step, state in _pairs(plan, saga):
        yield from _may_step(plan, saga, step, state, now)
    yield Option("terminate", None, "ends it now as failed, without undo; what it has done stands")


def _may_step(plan: Plan, saga: SagaState, step: StepPlan, state: StepState, now: float) -> Iterator[Option]:
    if _answer(plan, saga, now, "retry", step.name) == "applied":
        yield Option("retry", step.name, _retried(saga, step, state))
    for landed in (True, False):
        if _answer(plan, saga, now, "resolve", step.name, landed) == "applied":
            yield Option("resolve", step.name, _resolved(saga, step, state, landed), landed)
    if _answer(plan, saga, now, "skip", step.name) == "applied":
        yield Option("skip", step.name, _skipped(saga, step, state))


def _answer(
    plan: Plan, saga: SagaState, now: float, kind: str, step: str | None = None, landed: bool | None = None
) -> str | None:
    """Return what would be answered to a request now; None if it had to wait for its answer."""
    request = ask(saga, kind, step, landed)
    asked = fold(plan, saga, (RequestReceived(request),))
    entries = decide(plan, asked, facts.Woke(), now, may_start=False).entries
    answers = [entry.answer for entry in entries if type(entry) is RequestAnswered and entry.id == request.id]
    return answers[0] if answers else None


def _cancelled(seen: Preview) -> str:
    if seen.why_not is not None:
        return f"is kept: {seen.why_not}"
    return f"turns it back: undo {', '.join(seen.order)}" if seen.order else "turns it back; there is nothing to undo"


def _retried(saga: SagaState, step: StepPlan, state: StepState) -> str:
    if saga.is_backward:
        return "undoes it again now, with new attempts"
    if not step.acts:
        return "begins its wait anew"
    if state.action.started == 0:
        return "begins it anew"
    if step.has_probe and state.doubt and state.due is not Operation.ACTION:
        return "asks again whether it landed, with new attempts"
    if step.at_most_once and not step.barrier and state.doubt:
        return "calls it again although it may have landed, so it may have its effect twice"
    return f"{'sends' if step.does is Does.COMMAND else 'calls'} it again now, with new attempts"


def _resolved(saga: SagaState, step: StepPlan, state: StepState, landed: bool) -> str:
    if saga.is_backward and state.undo_begun:
        return "takes it as undone"
    if landed:
        then = "and undoes it" if saga.is_backward else "with the result given, and goes on"
        return f"takes it as landed, {then}"
    if saga.is_backward:
        return "takes it as not landed, so it is not undone"
    return "takes it as not landed, and turns the saga back"


def _skipped(saga: SagaState, step: StepPlan, state: StepState) -> str:
    if saga.is_backward:
        return "leaves its effect standing; the saga will end as failed, with the reason"
    is_undone_later = state.doubt and step.has_compensation
    return "passes over it and goes on" + (", and still undoes it if it turns back later" if is_undone_later else "")
