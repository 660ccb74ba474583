"""The usual turn, in one piece: a plain saga begins, or its step has succeeded and the next one begins.

Nine turns of ten are this one, and the rules take twice as long to say the same. Owns no rule: it answers only where
they leave no choice, with what they come to there, and None everywhere else. `tests/core/test_usual.py` holds the two
together, turn by turn. Called by `decide` only.
"""

# ruff: noqa: RUF005 - joining tuples is faster than unpacking them into a new one.

from __future__ import annotations

from atone._core.commands import Call, Decision, Finish
from atone._core.facts import ACTION, StartRequested, Succeeded
from atone._core.journal import AttemptStarted, AttemptSucceeded, SagaEnded, SagaStarted
from atone._core.plan import Plan
from atone._core.records import new
from atone._core.state import FRESH_STEP, Open, SagaState, SagaStatus, StepState, Tries

_RUNNING = SagaStatus.RUNNING
_COMPLETED = SagaStatus.COMPLETED
_FIRST = Tries(1)
_DONE = SagaEnded(_COMPLETED)
_FINISH = (Finish(),)


def usual_start(plan: Plan, fact: StartRequested, now: float) -> Decision | None:
    """Return how a plain saga begins: with the intent of its first step."""
    if not plan.is_plain or plan.deadline_seconds is not None:
        return None
    tenant, saga_id, payload, trace = fact
    name = plan.name
    started = new(SagaStarted, (tenant, name, plan.version, plan.plan_hash, saga_id, payload, None, trace))
    intent, call, acting = _next(plan, 0, now)
    steps = (acting,) + (FRESH_STEP,) * (len(plan.steps) - 1)
    saga = SagaState(_RUNNING, steps, 1, (), tenant, name, saga_id, payload, trace=trace)
    return new(Decision, ((started, intent), saga, (call,), None, False))


def usual_turn(plan: Plan, saga: SagaState, fact: Succeeded, now: float) -> Decision | None:
    """Return what follows when the one action under way has succeeded, and nothing else waits to be considered."""
    if saga.status is not _RUNNING or not plan.is_plain or saga.requests or saga.deadline is not None:
        return None
    name, operation, attempt, result = fact
    at, steps = plan.index[name], saga.steps
    opened = steps[at].open
    if opened is None or operation is not ACTION or opened.operation is not ACTION or opened.attempt != attempt:
        return None
    ended = new(AttemptSucceeded, (name, operation, attempt, result))
    done = steps[:at] + (steps[at].known(result),)
    at += 1
    if at == len(steps):
        saga = saga.moved(_COMPLETED, done, saga.version + 1, ())
        return new(Decision, ((ended, _DONE), saga, _FINISH, None, True))
    if steps[at] is not FRESH_STEP:
        return None
    intent, call, acting = _next(plan, at, now)
    saga = saga.moved(_RUNNING, done + (acting,) + steps[at + 1 :], saga.version + 1, ())
    return new(Decision, ((ended, intent), saga, (call,), None, False))


def _next(plan: Plan, at: int, now: float) -> tuple[AttemptStarted, Call, StepState]:
    """Return the intent of a step that has not begun yet, its call, and the step with the call under way."""
    step = plan.steps[at]
    name, deadline = step.name, now + step.timeout_seconds
    intent = new(AttemptStarted, (name, ACTION, 1, deadline, now))
    acting = FRESH_STEP.acting(new(Open, (ACTION, 1, deadline)), _FIRST, now)
    return intent, new(Call, (name, ACTION, 1, deadline)), acting
