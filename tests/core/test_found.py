"""What the search has found: each bug as the shortest list of facts that showed it, told to `decide` once more."""

from __future__ import annotations

from typing import cast

from atone._core import facts
from atone._core.facts import Landed, Problem
from atone._core.plan import Plan
from atone._core.state import SagaStatus
from tests.core.driver import ACTION, COMPENSATION, PROBE, Story, given, pivot, saga_of, step

OOPS = Problem("ConnectionError", "no answer")


def _told(plan: Plan, *told: facts.Fact | tuple[str, dict[str, object]] | float) -> Story:
    """Tell facts; a number sets the clock, a pair asks for something."""
    story = given(plan)
    for one in told:
        if isinstance(one, float):
            story.now = one
        elif type(one) is tuple:
            story.asked(one[0], **one[1])
        else:
            story.tells(cast("facts.Fact", one))
    return story


def test_a_probe_open_at_the_cancel_left_its_step_off_the_list() -> None:
    """The saga ended compensated, and the effect of `a` stood."""
    story = _told(
        saga_of(step("a", has_probe=True), step("b")),
        facts.CameToNothing("a", ACTION, 1, OOPS),
        ("cancel", {}),
        facts.Probed("a", 1, Landed.LANDED, b'"a"'),
        facts.Succeeded("a", COMPENSATION, 1, b"null"),
    )
    assert story.undone == ["a"]


def test_a_late_success_during_a_probe_led_to_a_second_effect() -> None:
    """The probe had looked before the call landed; its `NotLanded` had an at-most-once action called again."""
    story = _told(
        saga_of(step("a", has_probe=True, at_most_once=True), step("b")),
        10.0,
        facts.CameToNothing("a", ACTION, 1, OOPS),
        15.0,
        facts.Woke(),
        facts.Succeeded("a", ACTION, 1, b'"a"'),
        facts.Probed("a", 1, Landed.NOT_LANDED),
        60.0,
        facts.Woke(),
    )
    assert story.started == ["a", "probe a", "b"]


def test_an_at_most_once_action_was_repeated_while_its_first_call_could_still_land() -> None:
    """Probed at once, `NotLanded` meant "not yet"."""
    story = _told(
        saga_of(step("a", has_probe=True, at_most_once=True)), facts.CameToNothing("a", ACTION, 1, OOPS), facts.Woke()
    )
    assert story.started == ["a"]
    assert story.last.wake_at == 15.0


def test_denying_a_step_that_had_succeeded_broke_the_decision() -> None:
    """An attempt in doubt, then a success: "did not land" turned the saga back across its pivot."""
    story = _told(
        saga_of(step("a"), pivot("p")),
        facts.CameToNothing("a", ACTION, 1, OOPS),
        1.0,
        facts.Woke(),
        facts.Succeeded("a", ACTION, 2, b'"a"'),
        ("resolve", {"step": "a", "landed": False}),
    )
    assert not story.saga.is_backward


def test_an_action_that_landed_after_it_was_denied_was_never_undone() -> None:
    """A person said "did not land", the call said otherwise while the others were undone."""
    story = _told(
        saga_of(step("a"), step("b", at_most_once=True)),
        facts.Succeeded("a", ACTION, 1, b'"a"'),
        facts.CameToNothing("b", ACTION, 1, OOPS),
        ("resolve", {"step": "b", "landed": False}),
        facts.Succeeded("b", ACTION, 1, b'"b"'),
        facts.Succeeded("a", COMPENSATION, 1, b"null"),
    )
    assert story.undone == ["a", "b"]


def test_a_pivot_that_landed_after_it_was_denied_went_unnoticed() -> None:
    """The saga ended compensated beyond its point of no return."""
    story = _told(
        saga_of(step("a"), pivot("p", at_most_once=True)),
        facts.Succeeded("a", ACTION, 1, b'"a"'),
        facts.CameToNothing("p", ACTION, 1, OOPS),
        ("resolve", {"step": "p", "landed": False}),
        facts.Succeeded("p", ACTION, 1, b'"p"'),
        facts.Succeeded("a", COMPENSATION, 1, b"null"),
    )
    assert story.status() is SagaStatus.NEEDS_ATTENTION


def test_an_undo_that_ended_well_hid_that_its_action_landed_meanwhile() -> None:
    """Told during the undo, a late success counted for nothing; told after it, it called a person."""
    story = _told(
        saga_of(step("a")),
        facts.CameToNothing("a", ACTION, 1, OOPS),
        ("cancel", {}),
        15.0,
        facts.Woke(),
        facts.Succeeded("a", ACTION, 1, b'"a"'),
        facts.Succeeded("a", COMPENSATION, 1, b"null"),
    )
    assert story.status() is SagaStatus.NEEDS_ATTENTION


def test_a_lost_probe_is_not_taken_for_a_lost_action() -> None:
    """Nothing new is in doubt when a question gets lost."""
    story = _told(
        saga_of(step("a", has_probe=True)), facts.CameToNothing("a", ACTION, 1, OOPS), facts.Lost("a", PROBE, 1)
    )
    assert (story.at("a").action.lost, story.at("a").probe.lost) == (0, 1)
