"""What is wrong with a saga as a whole: the pivot's place, and deadlines that its steps can't keep.

Owns the rules over the graph. Must not look at functions. Called by `compile` with the finished shape.

What a deadline is compared with: for each path through the steps up to and including the pivot (all steps, if there is
none), the sum of one attempt's time-out for each action and of the wait of each delay and event; the longest such path
must fit. Repeats, back-off and queues come on top, so a deadline that passes may still be too short in practice. For
the rollback deadline it is the longest path of one attempt's time-out for each compensation.
"""

from __future__ import annotations

from collections.abc import Callable

from atone._core.plan import Does, Plan, Role, StepPlan
from atone.errors import DefinitionError

_NOTHING: tuple[float, list[str]] = (0.0, [])


def whole(saga: str, plan: Plan) -> None:
    """Judge a compiled shape."""
    _pivot(saga, plan)
    _waits(saga, plan)
    _deadlines(saga, plan)


def _pivot(saga: str, plan: Plan) -> None:
    pivots = [step.name for step in plan.steps if step.role is Role.PIVOT]
    if len(pivots) > 1:
        raise DefinitionError(
            f"{saga} has two pivots, {pivots[0]} and {pivots[1]}; there is one point of no return. "
            f"Make {pivots[1]} a @retriable if it must succeed after {pivots[0]}, or {pivots[0]} a @step."
        )
    if plan.pivot is None:
        stray = next((step.name for step in plan.steps if step.role is Role.RETRIABLE), None)
        if stray is not None:
            raise DefinitionError(
                f"{saga}.{stray}: a @retriable comes after the point of no return, and there is none. "
                f"Make the step before it a @pivot, or make {stray} a @step."
            )
        return
    beyond = plan.descendants[plan.pivot]
    for at, step in enumerate(plan.steps):
        if at != plan.pivot:
            _side(saga, plan, step, is_before=plan.pivot in plan.descendants[at], is_beyond=at in beyond)


def _side(saga: str, plan: Plan, step: StepPlan, *, is_before: bool, is_beyond: bool) -> None:
    pivot = plan.steps[plan.pivot or 0].name
    where = f"{saga}.{step.name}"
    if not step.acts:
        if not (is_before or is_beyond):
            raise DefinitionError(
                f"{where}: it waits beside the pivot {pivot}, so nobody knows which side it is on. "
                f"Write it above and leave out after= of {pivot}, or add after=({pivot},) to it."
            )
    elif step.role is Role.COMPENSATABLE and not is_before:
        line = (
            f"Make it a @retriable, or write it above {pivot}."
            if is_beyond
            else f"Name it in after= of {pivot}, or leave that after= out."
        )
        raise DefinitionError(f"{where}: it can be undone, but the pivot {pivot} does not wait for it. {line}")
    elif step.role is Role.RETRIABLE and not is_beyond:
        raise DefinitionError(
            f"{where}: a @retriable must come after the pivot {pivot}. Write it below and leave out its after=, "
            f"or add {pivot} to it, or make it a @step."
        )


def _waits(saga: str, plan: Plan) -> None:
    for step in plan.steps:
        if step.does is Does.EVENT and step.role is Role.RETRIABLE and step.on_timeout == "backward":
            raise DefinitionError(
                f"{saga}.{step.name}: after the pivot a time-out can't turn the saga backward. "
                f'Add on_timeout="attention".'
            )


def _deadlines(saga: str, plan: Plan) -> None:
    ahead = [at for at in range(len(plan.steps)) if plan.pivot is None or at not in plan.descendants[plan.pivot]]
    _fits(saga, plan, "deadline", plan.deadline_seconds, ahead, _forward_seconds)
    _fits(saga, plan, "rollback_deadline", plan.rollback_deadline_seconds, ahead, _backward_seconds)


def _fits(
    saga: str, plan: Plan, option: str, limit: float | None, among: list[int], cost: Callable[[StepPlan], float]
) -> None:
    if limit is None:
        return
    seconds, path = _longest(plan, among, cost)
    if limit < seconds:
        raise DefinitionError(
            f"{saga}: its {option} of {limit:g} s is shorter than its steps may take without any repeat: {seconds:g} s "
            f"({' + '.join(path)}). Write {option}={seconds:g} or more, or shorten their time-outs."
        )


def _longest(plan: Plan, among: list[int], cost: Callable[[StepPlan], float]) -> tuple[float, list[str]]:
    best: dict[int, tuple[float, list[str]]] = {}
    for at in among:
        step, own = plan.steps[at], cost(plan.steps[at])
        seconds, path = max((best[before] for before in plan.predecessors[at]), key=_total, default=_NOTHING)
        best[at] = (seconds + own, [*path, f"{step.name} {own:g}"] if own else path)
    return max(best.values(), key=_total)


def _total(found: tuple[float, list[str]]) -> float:
    return found[0]


def _forward_seconds(step: StepPlan) -> float:
    return step.timeout_seconds if step.wait_seconds is None else step.wait_seconds


def _backward_seconds(step: StepPlan) -> float:
    return step.compensation_timeout_seconds if step.has_compensation else 0.0
