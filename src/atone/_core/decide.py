"""What should a saga do next? `decide` is the whole answer.

A function of the plan, the saga so far, one fact and the time. It never awaits, reads a clock, draws a random
number or logs, so every engine gets the same answer from it. Storage decides whether a decision sticks; this
package decides what it is. Here: what a fact means. `forward`, `backward` and `requests` go on from there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from atone._core import attempts, facts
from atone._core.backward import roll_back
from atone._core.commands import Decision
from atone._core.draft import Draft
from atone._core.facts import Fact
from atone._core.fold import begun
from atone._core.forward import go_forward
from atone._core.journal import (
    AttentionRaised,
    ConditionAnswered,
    RequestAnswered,
    SagaParked,
    SagaStarted,
)
from atone._core.plan import Plan
from atone._core.records import new
from atone._core.replies import await_replies, expire_commands, message_failed, messages_built
from atone._core.requests import answer_requests
from atone._core.state import SagaState, SagaStatus, StepStatus
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
    expire_commands(draft)
    if not draft.is_backward:
        go_forward(draft)
    if draft.is_backward:
        roll_back(draft)
    if not await_replies(draft) and draft.rests() and not draft.status.is_final:
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


def _all_unfit(draft: Draft, fact: facts.RequestsUnfit) -> None:
    for one in fact.unfit:
        _unfit(draft, one)


def _woke(draft: Draft, fact: facts.Woke) -> None:
    """Nothing to record: what is due shows when the saga is advanced."""


_HEAR: dict[type, Callable[[Draft, Any], None]] = {
    facts.Succeeded: attempts.succeeded,
    facts.Rejected: attempts.rejected,
    facts.CameToNothing: attempts.came_to_nothing,
    facts.Lost: attempts.lost,
    facts.Interrupted: attempts.interrupted,
    facts.Impossible: attempts.impossible,
    facts.Probed: attempts.probed,
    facts.ConditionTold: _condition_told,
    facts.ConditionFailed: _condition_failed,
    facts.MessagesBuilt: messages_built,
    facts.MessageFailed: message_failed,
    facts.RequestUnfit: _unfit,
    facts.RequestsUnfit: _all_unfit,
    facts.Woke: _woke,
}
