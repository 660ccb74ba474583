"""What must hold between the participants, the journal and the workers, whatever happens: the promise, as checks.

Owns what `tests/core/invariants.py` can't see from one saga alone; the rest is judged there. Called by `moves.py`, at
the moment at which a rule could break.
"""

from __future__ import annotations

from collections.abc import Sequence

from atone._core.facts import ACTION, COMPENSATION, PROBE
from atone._core.plan import Plan
from atone._core.state import SagaState, StepStatus
from tests.core.invariants import judge_effects, judge_end, rule
from tests.core.world import Participant, Wire
from tests.model.world import World


class Judge:
    """The promise, for one plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._once = frozenset(step.name for step in plan.steps if step.at_most_once)
        self._descendants = {step.name: plan.descendants[at] for at, step in enumerate(plan.steps)}

    def arrived(self, before: World, world: World, wire: Wire) -> None:
        """Judge what a call has done to its participant."""
        if wire.operation is PROBE:
            return
        state = before.saga.state
        at = self.plan.index[wire.step]
        tries = state.steps[at].action if wire.operation is ACTION else state.steps[at].compensation
        rule(wire.attempt <= tries.started, f"{wire.operation} of {wire.step} was called without a durable intent")
        if world.there == before.there:
            return
        self._order(state, before.there, world.there, wire, at)
        for step, there in zip(self.plan.steps, world.there, strict=True):
            rule(not (there.undid and there.standing), f"the effect of {step.name} stands after its undo")
        self.ended(world)

    def ended(self, world: World) -> None:
        """Judge the effects so far, and the saga's own word for them if it is over."""
        forced = self._once if world.forced else frozenset[str]()
        judge_effects(self.plan, world.saga.state, world.there, forced)
        if world.saga.is_final:
            judge_end(self.plan, world.saga.state, world.there, forced)

    def _order(
        self, state: SagaState, before: Sequence[Participant], after: Sequence[Participant], wire: Wire, at: int
    ) -> None:
        if wire.operation is not COMPENSATION or after[at].standing == before[at].standing:
            return
        for later in self._descendants[wire.step]:
            step, there = self.plan.steps[later], after[later]
            if not there.standing or not step.has_compensation:
                continue
            kept = state.steps[later].status is StepStatus.COMPENSATION_FAILED or state.steps[later].waived is not None
            rule(kept, f"{wire.step} was undone while {step.name} stands")
