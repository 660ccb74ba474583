"""What must hold in every world that a saga can get into, whatever went wrong: the promise, as checks.

Owns the judgement of one step of the model; each check names the rule that it stands for. Must not call `decide`.
Called by `explore.py`, for random walks and for exhaustive search alike.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

from atone._core.commands import AskCondition, AskMessage, Call, Decision, Send
from atone._core.facts import Operation
from atone._core.fold import fold
from atone._core.journal import AttemptStarted
from atone._core.plan import Does, Plan, Role, StepPlan
from atone._core.state import SagaState, SagaStatus, StepState, StepStatus
from atone.testing._law import wrong_in
from tests.core.world import PROBE, Model, Participant, Taken, World


class Broken(AssertionError):
    """A rule does not hold."""


def check(model: Model, before: World | None, taken: Taken) -> None:
    """Judge one choice and what it led to."""
    plan, world = model.plan, taken.world
    for saga, decision in taken.decisions:
        judge_decision(plan, saga, decision)
    if before is not None and before.saga.status.is_final:
        rule(world.saga is before.saga or world.saga == before.saga, "a final saga was changed")
    judge_effects(plan, world.saga, world.participants, world.forced)
    if world.saga.status.is_final:
        judge_end(plan, world.saga, world.participants, world.forced | world.misjudged)


def rule(holds: bool, what: str) -> None:
    """Raise if a rule does not hold."""
    if not holds:
        raise Broken(what)


def judge_decision(plan: Plan, saga: SagaState | None, decision: Decision) -> None:
    """Judge one decision by itself: what it writes and what it asks for."""
    if decision.entries:
        rule(fold(plan, saga, decision.entries) == decision.saga, "memory and journal disagree")
    else:
        rule(decision.saga == saga, "a change without an entry")
    folded = saga
    for entry in decision.entries:
        if folded is not None:
            for wrong in wrong_in(plan, folded, entry):
                raise Broken(wrong)
        folded = fold(plan, folded, (entry,))
    _commands(plan, decision)
    for step, state in zip(plan.steps, decision.saga.steps, strict=True):
        _bounds(plan, step, state)


def _commands(plan: Plan, decision: Decision) -> None:
    intents = {
        (entry.step, entry.operation, entry.attempt) for entry in decision.entries if type(entry) is AttemptStarted
    }
    calls = {(one.step, one.operation, one.attempt) for one in decision.commands if isinstance(one, Call | Send)}
    saga = decision.saga
    rule(calls == intents, "calls and intents differ")
    for one in decision.commands:
        if isinstance(one, Call | Send):
            rule(is_sent(plan, one.step, one.operation) is isinstance(one, Send), f"{one} goes the wrong way")
    opened = [(step.name, state.open) for step, state in zip(plan.steps, saga.steps, strict=True) if state.open]
    open_attempts = [opening for _, opening in opened]
    under_way = [opening for name, opening in opened if not is_sent(plan, name, opening.operation)]
    asks = any(isinstance(one, AskCondition | AskMessage) for one in decision.commands)
    if saga.status.is_final:
        rule(not saga.requests, "it ended without an answer to a request")
        return
    if saga.status is SagaStatus.NEEDS_ATTENTION:
        rule(not open_attempts, "parked while a call ran")
        rule(any(state.attention for state in saga.steps) or saga.broken is not None, "parked for nothing")
        return
    rule(decision.idle == (not under_way and not asks), "idle is not what it says")
    for _, opening in opened:
        late = decision.wake_at is None or decision.wake_at > opening.deadline
        rule(opening in under_way or asks or not late, "nobody looks when a reply is overdue")
    rule(not decision.idle or decision.wake_at is not None, "it waits for nothing")


def is_sent(plan: Plan, step: str, operation: Operation) -> bool:
    """Whether this operation is a message, for which no process waits."""
    return plan.steps[plan.index[step]].does is Does.COMMAND and operation is not PROBE


def _bounds(plan: Plan, step: StepPlan, state: StepState) -> None:
    if step.role is not Role.RETRIABLE:
        rule(state.action.failed <= step.retry.attempts, f"{step.name} was tried too often")
    rule(state.compensation.failed <= step.compensation_retry.attempts, f"{step.name} was undone too often")
    rule(state.probe.failed <= step.probe_retry.attempts, f"{step.name} was probed too often")
    for tries in (state.action, state.compensation, state.probe):
        rule(tries.lost <= plan.recoveries_max + 1, f"{step.name} killed too many processes")


def judge_effects(plan: Plan, saga: SagaState, participants: Sequence[Participant], forced: Container[str]) -> None:
    """Judge what the participants have done so far; `forced` are steps that a person had called again."""
    for step, participant in zip(plan.steps, participants, strict=True):
        rule(participant.landed <= 1 or step.name in forced, f"the effect of {step.name} came twice")
    if plan.pivot is not None and participants[plan.pivot].standing:
        vouched = saga.cause is not None and saga.cause.trigger == "operator"
        rule(not saga.is_backward or vouched, "turned back although the point of no return had landed")


def judge_end(plan: Plan, saga: SagaState, participants: Sequence[Participant], exempt: Container[str]) -> None:
    """Judge whether a final saga tells the truth; `exempt` are steps that a person has spoken for."""
    status = saga.status
    for step, state, there in zip(plan.steps, saga.steps, participants, strict=True):
        if step.acts and step.name not in exempt:
            if status is SagaStatus.COMPLETED:
                _completed(step, state, there)
            elif status is SagaStatus.COMPENSATED:
                _compensated(step, there)
    if status is SagaStatus.FAILED:
        ended = saga.ended_because or ""
        rule("terminated by" in ended or "skipped by" in ended, "failed without a person's word")


def _completed(step: StepPlan, state: StepState, there: Participant) -> None:
    if state.status is StepStatus.SUCCEEDED:
        rule(there.standing == 1, f"completed, but {step.name} has {there.standing} effects")
    else:
        rule(state.status is StepStatus.SKIPPED, f"completed, but {step.name} is {state.status}")
        rule(there.landed == 0 or state.action.started > 0, f"completed, but {step.name} landed without a call")


def _compensated(step: StepPlan, there: Participant) -> None:
    if step.has_compensation or step.role is Role.PIVOT:
        rule(there.standing == 0, f"compensated, but {step.name} stands")
    if step.role is not Role.COMPENSATABLE:
        rule(there.landed == 0, f"compensated, but {step.name} landed")
