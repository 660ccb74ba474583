"""The usual turn, written out in one piece, is what the rules say: held together turn by turn, on every walk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest

from atone._core import facts
from atone._core.commands import Decision
from atone._core.decide import by_the_rules, decide, start_by_the_rules
from atone._core.facts import Fact
from atone._core.plan import Plan
from atone._core.state import SagaState, SagaStatus
from atone._core.usual import usual_start, usual_turn
from tests.core import driver, world
from tests.core.driver import ACTION, delay, fan, given, saga_of, step
from tests.core.explore import exhaust, walk
from tests.core.plans import PLANS
from tests.core.stories import STORIES

WALKS_EACH = 40
PLAIN = [name for name, plan in PLANS.items() if plan.is_plain and plan.deadline_seconds is None]


class Both:
    """Decides twice, by `decide` and by the rules alone; `usual` counts the turns that needed no rules."""

    def __init__(self) -> None:
        self.usual = 0

    def __call__(
        self, plan: Plan, saga: SagaState | None, fact: Fact, now: float, *, may_start: bool = True
    ) -> Decision:
        decision = decide(plan, saga, fact, now, may_start=may_start)
        ruled = _ruled(plan, saga, fact, now, may_start)
        # As text, for two named tuples of different types are equal if their fields are.
        assert repr(decision) == repr(ruled), f"{fact} at {now:g} with {saga}"
        self.usual += may_start and _usual(plan, saga, fact, now) is not None
        return decision


def _ruled(plan: Plan, saga: SagaState | None, fact: Fact, now: float, may_start: bool) -> Decision:
    if saga is None:
        assert type(fact) is facts.StartRequested
        return start_by_the_rules(plan, fact, now, may_start)
    return by_the_rules(plan, saga, fact, now, may_start)


def _usual(plan: Plan, saga: SagaState | None, fact: Fact, now: float) -> Decision | None:
    if type(fact) is facts.StartRequested:
        return usual_start(plan, fact, now)
    return usual_turn(plan, saga, fact, now) if type(fact) is facts.Succeeded and saga is not None else None


def _held_together(what: Callable[[], Any]) -> int:
    """Run it with both ways of deciding; return how many turns were usual ones."""
    both = Both()
    with patch.object(world, "decide", both), patch.object(driver, "decide", both):
        what()
    return both.usual


def _walk(name: str) -> None:
    for seed in range(WALKS_EACH):
        assert (found := walk(name, seed)) is None, str(found)


def _exhaust(name: str) -> None:
    _, found = exhaust(name, 1)
    assert found is None, str(found)


def test_on_every_random_walk_the_usual_turn_is_what_the_rules_say() -> None:
    """Entry by entry, field by field, command by command; and most plans of these walks have usual turns."""
    usual = {name: _held_together(lambda name=name: _walk(name)) for name in PLANS}
    assert [name for name, times in usual.items() if times > WALKS_EACH] == PLAIN
    assert len(PLAIN) > 8


def test_on_every_way_through_a_small_saga_the_usual_turn_is_what_the_rules_say() -> None:
    """Whatever one fault does at whatever moment."""
    for name in ("linear", "pivot", "once_probed", "deadline"):
        assert (_held_together(lambda name=name: _exhaust(name)) > 50) is (name in PLAIN)


@pytest.mark.parametrize("name", STORIES)
def test_in_every_story_the_usual_turn_is_what_the_rules_say(name: str) -> None:
    """Those that the golden histories were recorded from."""
    _held_together(STORIES[name])


def test_the_usual_start_keeps_all_that_it_is_told() -> None:
    """Each field with a value of its own, so that none can be lost or take another's place."""
    told = facts.StartRequested(*(f"the {name}" for name in facts.StartRequested._fields))
    plan = saga_of(step("a"), step("b"))
    assert repr(usual_start(plan, told, 1.0)) == repr(start_by_the_rules(plan, told, 1.0, True))


@pytest.mark.parametrize(
    "plan",
    [
        fan(step("a"), step("b")),
        saga_of(step("a", has_when=True)),
        saga_of(delay("a", 1.0)),
        saga_of(step("a", deadline_seconds=9.0)),
        replace(saga_of(step("a"), step("b")), deadline_seconds=9.0),
    ],
    ids=["branches", "condition", "delay", "step deadline", "saga deadline"],
)
def test_what_is_not_plain_is_left_to_the_rules(plan: Plan) -> None:
    """There more has to be considered than which step is next."""
    assert usual_start(plan, facts.StartRequested("main", "s-1", b"1"), 0.0) is None


def test_what_did_not_go_as_usual_is_left_to_the_rules() -> None:
    """A duplicate, a late success, a request that waits, a saga that undoes or needs somebody."""
    story = given(saga_of(step("a"), step("b")))
    good = facts.Succeeded("a", ACTION, 1, b"1")
    assert usual_turn(story.plan, story.saga, good, 0.0) is not None
    assert usual_turn(story.plan, story.saga, good._replace(attempt=2), 0.0) is None
    assert usual_turn(story.plan, story.saga._replace(deadline=9.0), good, 0.0) is None
    for status in set(SagaStatus) - {SagaStatus.RUNNING}:
        assert usual_turn(story.plan, story.saga._replace(status=status), good, 0.0) is None
    story.asked("cancel", wake=False)
    assert usual_turn(story.plan, story.saga, good, 0.0) is None
    assert usual_turn(story.plan, given(story.plan).succeeds("a").saga, good, 0.0) is None
