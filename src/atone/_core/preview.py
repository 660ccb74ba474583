"""What would a rollback do now? The answer is what `decide` does after a cancel, if everything then ends well.

Owns the rehearsal: a copy of the saga is cancelled and told nothing but successes. Pure like the rest, and changes
nothing. Called by `explain` and by whoever shows a saga to a person, who must not repeat its opinion elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from atone._core import facts
from atone._core.commands import AskMessage, Decision
from atone._core.decide import decide
from atone._core.facts import Landed, Operation
from atone._core.fold import fold
from atone._core.forward import pivot_begun
from atone._core.journal import AttemptStarted, RequestReceived
from atone._core.plan import Plan, StepPlan
from atone._core.state import Request, SagaState, SagaStatus, StepState, StepStatus


class Undo(StrEnum):
    """What a rollback does about one step. NEEDS_PERSON: its undo gave up, or waits for one that did."""

    UNDO = "undo"
    UNDO_UNKNOWN = "undo, outcome unknown"
    WAIT = "wait until the running attempt ends"
    NOTHING = "nothing to undo"
    NEEDS_PERSON = "waits for a person"


@dataclass(frozen=True, slots=True)
class Planned:
    """One step of a rollback. `why` says more; `in_seconds` is the earliest time of its undo, counted from now."""

    step: str
    what: Undo
    why: str = ""
    in_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Preview:
    """What a rollback would do now.

    `why_not` is set if there is no way back. `steps` begins with what would be undone, in order (a running attempt is
    taken to succeed), and ends with what needs nothing. `stands` names what has no compensation and may have landed.
    """

    why_not: str | None
    steps: tuple[Planned, ...] = ()
    stands: tuple[tuple[str, str], ...] = ()

    @property
    def is_possible(self) -> bool:
        """Whether a rollback can begin now, or has begun."""
        return self.why_not is None

    @property
    def order(self) -> tuple[str, ...]:
        """The steps that would be undone, in order."""
        acts = (Undo.UNDO, Undo.UNDO_UNKNOWN, Undo.WAIT)
        return tuple(planned.step for planned in self.steps if planned.what in acts)


def preview(plan: Plan, saga: SagaState, now: float) -> Preview:
    """Return what a rollback would do at `now`, epoch seconds by the store's clock."""
    why_not = _no_way_back(plan, saga)
    if why_not is not None:
        return Preview(why_not)
    begins = _rehearse(plan, saga, now)
    pairs = list(zip(plan.steps, saga.steps, strict=True))
    acts = [_act(*pairs[plan.index[name]], seconds) for name, seconds in begins.items()]
    rest = [_rest(plan, saga, step, state) for step, state in reversed(pairs) if step.name not in begins]
    stands = tuple((step.name, _no_compensation(step)) for step, state in pairs if _may_stand(step, state))
    return Preview(None, (*acts, *rest), stands)


def _no_way_back(plan: Plan, saga: SagaState) -> str | None:
    if saga.status.is_final:
        return f"the saga is over: {saga.status}"
    if any(request.kind == "terminate" for request in saga.requests):
        return "it is about to be terminated"
    if saga.is_backward or plan.pivot is None or not pivot_begun(plan, saga.steps):
        return None
    name, state = plan.steps[plan.pivot].name, saga.steps[plan.pivot]
    if state.status is StepStatus.SUCCEEDED:
        return f"the point of no return, {name}, has passed"
    if state.open is not None and not state.doubt:
        return f"the point of no return, {name}, is under way; a cancel now is answered by its outcome"
    return f"the point of no return, {name}, may have landed; a cancel now is answered once that is known"


def _rehearse(plan: Plan, saga: SagaState, now: float) -> dict[str, float]:
    """Return the undos that would begin, in order, each with the seconds from now."""
    begins: dict[str, float] = {}
    if not saga.is_backward:
        saga = fold(plan, saga, (RequestReceived(ask(saga, "cancel")),))
    else:
        begins = {name: 0.0 for name in saga.rollback if _is_being_undone(saga.steps[plan.index[name]])}
    clock = now
    decision = decide(plan, saga, facts.Woke(), clock)
    while True:
        for entry in decision.entries:
            if type(entry) is AttemptStarted and entry.operation is Operation.COMPENSATION:
                begins.setdefault(entry.step, clock - now)
        if decision.saga.status.is_final or decision.saga.status is SagaStatus.NEEDS_ATTENTION:
            return begins
        fact, clock = _next_success(plan, decision, clock)
        decision = decide(plan, decision.saga, fact, clock)


def ask(saga: SagaState, kind: str, step: str | None = None, landed: bool | None = None) -> Request:
    """Return a request for a rehearsal, under an id that the saga has not seen."""
    unseen = max(saga.seen, default="") + "+"
    return Request(unseen, kind, "somebody", "a rehearsal", step=step, landed=landed, payload=b"null")


def _next_success(plan: Plan, decision: Decision, clock: float) -> tuple[facts.Fact, float]:
    asked = [one for one in decision.commands if type(one) is AskMessage]
    if asked:
        built = tuple(facts.Built(one.step, one.operation, b"null") for one in asked)
        return facts.MessagesBuilt(asked[0].version, built), clock
    for step, state in zip(plan.steps, decision.saga.steps, strict=True):
        if state.open is None:
            continue
        if state.open.operation is Operation.PROBE:
            return facts.Probed(step.name, state.open.attempt, Landed.CANNOT_TELL), clock
        return facts.Succeeded(step.name, state.open.operation, state.open.attempt, b"null"), clock
    return facts.Woke(), clock if decision.wake_at is None else max(clock, decision.wake_at)


def _is_being_undone(state: StepState) -> bool:
    return state.open is not None and state.open.operation is Operation.COMPENSATION


def _is_called(state: StepState) -> bool:
    return state.open is not None and state.open.operation is Operation.ACTION


def _act(step: StepPlan, state: StepState, seconds: float) -> Planned:
    if _is_being_undone(state):
        return Planned(step.name, Undo.UNDO, "it is being undone now")
    if _is_called(state):
        return Planned(step.name, Undo.WAIT, "then undo it if it may have landed", seconds)
    if state.doubt and state.result is None:
        return Planned(step.name, Undo.UNDO_UNKNOWN, "it may have landed", seconds)
    return Planned(step.name, Undo.UNDO, "", seconds)


def _rest(plan: Plan, saga: SagaState, step: StepPlan, state: StepState) -> Planned:
    if state.waived is not None:
        return Planned(step.name, Undo.NOTHING, state.waived)
    if saga.is_backward and state.attention is not None:
        return Planned(step.name, Undo.NEEDS_PERSON, state.attention)
    if _is_called(state):
        why = _no_compensation(step) if not step.has_compensation else "then undo it if it may have landed"
        return Planned(step.name, Undo.WAIT, why)
    if saga.is_backward and step.name in saga.rollback and state.status is not StepStatus.COMPENSATED:
        is_cleared = state.status is StepStatus.FAILED and not state.doubt
        if not is_cleared:
            return Planned(step.name, Undo.NEEDS_PERSON, "another undo has to be seen to first")
    return Planned(step.name, Undo.NOTHING, _why_nothing(step, state))


def _why_nothing(step: StepPlan, state: StepState) -> str:
    if state.status is StepStatus.COMPENSATED:
        return "it was undone"
    if not step.acts:
        return "a wait has no effect"
    if not step.has_compensation and _may_stand(step, state):
        return _no_compensation(step)
    if state.status is StepStatus.SKIPPED:
        return "it was skipped"
    if state.status is StepStatus.FAILED:
        return "it was rejected, surely without effect"
    return "it has not begun" if state.action.started == 0 else "it had no effect"


def _no_compensation(step: StepPlan) -> str:
    return f"it has no compensation: {step.no_compensation}" if step.no_compensation else "it has no compensation"


def _may_stand(step: StepPlan, state: StepState) -> bool:
    if step.has_compensation or not step.acts:
        return False
    return state.doubt or state.status is StepStatus.SUCCEEDED or _is_called(state)
