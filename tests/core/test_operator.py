"""What a person may do to a saga: retry, resolve and skip, each a request that is answered in the journal."""

from __future__ import annotations

from typing import Any

import pytest

from atone._core import facts
from atone._core.facts import Landed
from atone._core.journal import StepReset
from atone._core.state import SagaStatus, StepStatus
from tests.core.driver import (
    ACTION,
    COMPENSATION,
    OOPS,
    PROBE,
    Story,
    delay,
    event,
    fan,
    given,
    pivot,
    retriable,
    saga_of,
    step,
)


def _pivot_in_doubt(**options: object) -> Story:
    return given(saga_of(step("a"), pivot("p", **options), retriable("r"))).succeeds("a").gives_up("p")


def _undo_gave_up() -> Story:
    return given(saga_of(step("a"), step("b"))).succeeds("a").rejects("b").gives_up("a")


def test_a_retry_gives_a_step_another_round() -> None:
    """The counters start anew; the numbers of its attempts go on, for no number is ever used twice."""
    story = _pivot_in_doubt().asked("retry", id="x", step="p")
    assert story.answers() == {"x": "applied"}
    assert story.status() is SagaStatus.RUNNING
    assert story.open("p").attempt == 4
    assert story.at("p").action.failed == 0
    assert story.at("p").doubt


def test_a_retry_without_a_step_means_all_that_wait() -> None:
    """Whatever needs attention, and whatever waits for its back-off."""
    story = given(fan(step("a", at_most_once=True), step("b"))).breaks("b").breaks("a")
    assert story.status() is SagaStatus.NEEDS_ATTENTION
    story.asked("retry")
    assert story.started == ["a", "b", "a", "b"]


def test_a_retry_now_skips_the_back_off() -> None:
    """Nobody has to wait for the timer."""
    story = given(saga_of(step("a"))).breaks("a", retry_after=3600.0).asked("retry", step="a")
    assert story.started == ["a", "a"]
    assert story.now == 0.0


def test_a_retry_asks_the_participant_before_it_calls_again() -> None:
    """The order of resolution holds for people too: a step in doubt is probed first."""
    story = given(saga_of(step("a", has_probe=True))).breaks("a")
    story.tells(facts.Impossible("a", PROBE, 1, OOPS)).asked("retry", step="a")
    assert story.started == ["a", "probe a", "probe a"]


def test_a_person_may_vouch_that_an_action_did_not_land_and_have_it_called() -> None:
    """A retry with "did not land" asks no probe; the doubt stays all the same."""
    story = given(saga_of(step("a", has_probe=True, at_most_once=True))).times_out("a").wakes()
    story.probed("a", Landed.CANNOT_TELL).asked("retry", step="a", landed=False)
    assert story.started == ["a", "probe a", "a"]
    assert story.at("a").doubt


def test_a_retry_of_a_compensation_gives_it_another_round() -> None:
    """And the saga is compensated if it ends well."""
    story = _undo_gave_up().asked("retry", step="a")
    assert story.all(StepReset)[-1].operation is COMPENSATION
    assert story.undoes("a").status() is SagaStatus.COMPENSATED


def test_a_retry_is_refused_where_nothing_waits() -> None:
    """Under way, over, not begun, unknown, or on the way back and not to be undone."""
    story = given(saga_of(step("a"), step("b"), step("c"))).succeeds("a")
    for name in ("a", "b", "c", "nobody"):
        story.asked("retry", id=name, step=name)
    story.rejects("b").asked("retry", id="back", step="b")
    assert set(story.answers().values()) == {"refused"}


def test_a_retry_takes_up_a_saga_that_was_parked_as_a_whole() -> None:
    """Its row was damaged, or its definition missing: once mended, it goes on."""
    story = given(saga_of(step("a"), step("b"))).succeeds("a")
    story.parks("its row can't be read").asked("retry", id="x")
    assert story.answers() == {"x": "applied"}
    assert story.saga.broken is None
    assert story.succeeds("b").status() is SagaStatus.COMPLETED


def test_a_step_resolved_as_landed_goes_on_with_the_result_given() -> None:
    """The person vouches for what the action returned."""
    story = _pivot_in_doubt().asked("resolve", step="p", landed=True, payload=b'"R"')
    assert story.at("p").result == b'"R"'
    assert story.started[-1] == "r"


def test_a_step_resolved_as_not_landed_turns_the_saga_back() -> None:
    """The person vouches that there is no effect, so it is not undone itself."""
    story = given(saga_of(step("a"), step("b", at_most_once=True))).succeeds("a").breaks("b")
    story.asked("resolve", step="b", landed=False)
    assert story.is_("b") is StepStatus.FAILED
    assert story.to_undo() == ("a",)
    assert story.undoes("a").status() is SagaStatus.COMPENSATED


def test_an_unknown_step_on_the_way_back_may_be_resolved() -> None:
    """Landed: undone at once with its result. Not landed: nothing to undo."""
    story = given(saga_of(step("a"), step("b"))).succeeds("a").breaks("b").asked("cancel")
    assert story.asked("resolve", step="b", landed=True, payload=b"1").undone == ["b"]
    story = given(saga_of(step("a"), step("b"))).succeeds("a").breaks("b").asked("cancel")
    assert story.asked("resolve", step="b", landed=False).undone == ["a"]


def test_a_compensation_may_be_resolved_as_landed() -> None:
    """It was undone by hand."""
    story = _undo_gave_up().asked("resolve", step="a", landed=True)
    assert story.status() is SagaStatus.COMPENSATED


def test_a_compensation_is_not_resolved_as_not_landed() -> None:
    """That it is not undone is what the saga says already: it is retried or skipped."""
    story = _undo_gave_up().asked("resolve", id="x", step="a", landed=False)
    assert story.answers() == {"x": "refused"}
    assert story.status() is SagaStatus.NEEDS_ATTENTION


def test_a_step_that_succeeded_can_not_be_denied() -> None:
    """(found by search) One of its attempts was in doubt, another one succeeded: it did land."""
    story = given(saga_of(step("a"), pivot("p"))).breaks("a").wakes().succeeds("a")
    story.asked("resolve", id="x", step="a", landed=False).asked("resolve", id="y", step="a", landed=True, payload=b"2")
    assert story.answers() == {"x": "refused", "y": "refused"}
    assert story.open("p").operation is ACTION
    story.rejects("p").asked("resolve", id="z", step="a", landed=False)
    assert story.answers()["z"] == "refused"
    assert story.to_undo() == ("a",)


def test_a_step_skipped_in_doubt_can_not_be_denied_while_the_saga_goes_on() -> None:
    """Later steps have begun on the strength of the skip."""
    story = given(saga_of(step("a", at_most_once=True), pivot("p"))).breaks("a").asked("skip", step="a")
    story.asked("resolve", id="x", step="a", landed=False)
    assert story.answers()["x"] == "refused"
    assert story.rejects("p").to_undo() == ("a",)


@pytest.mark.parametrize(
    ("story", "options"),
    [
        (lambda: given(saga_of(step("a"))), {"step": "a", "landed": False}),
        (lambda: given(saga_of(step("a"), step("b"))), {"step": "b", "landed": False}),
        (lambda: given(saga_of(step("a"))).breaks("a"), {"step": "a"}),
        (lambda: given(saga_of(step("a"))).breaks("a"), {"step": "nobody", "landed": True}),
        (lambda: given(saga_of(step("a"))).breaks("a"), {"step": "a", "landed": True}),
        (lambda: given(saga_of(delay("d", 9.0))), {"step": "d", "landed": True, "payload": b"1"}),
        (_undo_gave_up, {"step": "b", "landed": True, "payload": b"1"}),
    ],
    ids=["under way", "not begun", "nothing said", "no such step", "no result", "a delay", "rejected"],
)
def test_a_resolve_that_makes_no_sense_is_refused(story: object, options: dict[str, Any]) -> None:
    """With a reason, and without any other change."""
    told: Story = story()
    before = told.saga.steps
    told.asked("resolve", id="x", **options)
    assert told.answers() == {"x": "refused"}
    assert told.saga.steps == before


def test_a_step_after_the_pivot_can_not_be_resolved_as_not_landed() -> None:
    """There is no way back; it is retried or skipped."""
    story = given(saga_of(pivot("p"), retriable("r", at_most_once=True))).succeeds("p").breaks("r")
    story.asked("resolve", id="x", step="r", landed=False)
    assert story.answers() == {"x": "refused"}
    assert story.asked("skip", step="r").status() is SagaStatus.COMPLETED


def test_a_skipped_step_is_passed_over_and_still_undone() -> None:
    """It stays in doubt: should the saga turn back, it is undone."""
    story = given(saga_of(step("a", at_most_once=True), step("b"))).breaks("a").asked("skip", step="a")
    assert story.is_("a") is StepStatus.SKIPPED
    assert story.started[-1] == "b"
    assert story.rejects("b").wakes().undone == ["a"]


def test_a_skipped_undo_ends_the_saga_as_failed_with_the_reason() -> None:
    """(checked) An effect stands by a person's decision: never COMPENSATED."""
    story = _undo_gave_up().asked("skip", step="a")
    assert story.status() is SagaStatus.FAILED
    assert story.saga.ended_because == "skipped by ann: because"


def test_one_skipped_undo_among_others_still_ends_as_failed() -> None:
    """(checked) All but one were undone; that is not "compensated"."""
    story = given(saga_of(step("a"), step("b"), step("c"))).succeeds("a", "b").rejects("c").gives_up("b")
    story.undoes("a").asked("skip", step="b")
    assert story.status() is SagaStatus.FAILED


def test_a_delay_may_be_skipped() -> None:
    """The wait is over, and the saga goes on."""
    story = given(saga_of(delay("d", 3600.0), step("a"))).asked("skip", step="d")
    assert story.started == ["a"]


@pytest.mark.parametrize(
    ("story", "name"),
    [
        (_pivot_in_doubt, "p"),
        (lambda: given(saga_of(step("a"))), "a"),
        (lambda: given(saga_of(step("a"), step("b"))), "b"),
        (lambda: given(saga_of(step("a"), step("b"))).succeeds("a"), "a"),
        (lambda: given(saga_of(step("a", at_most_once=True), step("b", inputs=("a",), after=("a",)))).breaks("a"), "a"),
        (lambda: given(saga_of(step("a"), step("b"), step("c"))).succeeds("a").rejects("b"), "b"),
        (lambda: given(saga_of(step("a"))), "nobody"),
    ],
    ids=["pivot", "under way", "not begun", "over", "its result is taken", "not to be undone", "no such step"],
)
def test_a_skip_that_makes_no_sense_is_refused(story: object, name: str) -> None:
    """With a reason, and without any other change."""
    told: Story = story()
    before = told.saga.steps
    told.asked("skip", id="x", step=name)
    assert told.answers() == {"x": "refused"}
    assert told.saga.steps == before


def test_a_request_told_twice_is_applied_once() -> None:
    """Requests are deduplicated by id: a retry that was delivered twice gives one more round, not two."""
    story = _pivot_in_doubt().asked("retry", id="x", step="p").gives_up("p").asked("retry", id="x", step="p")
    assert story.status() is SagaStatus.NEEDS_ATTENTION
    assert len(story.all(StepReset)) == 1


def test_resuming_one_step_leaves_the_others_in_need() -> None:
    """The saga is parked again until each of them was seen to."""
    plan = fan(step("a", at_most_once=True), step("b", at_most_once=True), join=step("j"))
    story = given(plan).breaks("a").breaks("b").asked("resolve", step="a", landed=True, payload=b"1")
    assert story.status() is SagaStatus.NEEDS_ATTENTION
    assert story.asked("resolve", step="b", landed=True, payload=b"1").started[-1] == "j"


def test_a_late_success_may_settle_what_needed_a_person() -> None:
    """The saga goes on by itself."""
    story = given(saga_of(step("a", at_most_once=True), step("b"))).breaks("a").arrives_late("a")
    assert story.status() is SagaStatus.RUNNING
    assert story.started[-1] == "b"


def test_while_a_person_is_needed_nothing_new_begins() -> None:
    """Siblings under way end; less is to be undone if the person decides so."""
    plan = fan(step("a", at_most_once=True), saga_of(step("b")).steps[0], event("paid"), first=step("f"))
    story = given(plan).succeeds("f").breaks("a")
    assert story.status() is SagaStatus.RUNNING
    story.breaks("b")
    assert story.status() is SagaStatus.NEEDS_ATTENTION
    assert story.started == ["f", "a", "b"]


def test_nothing_begins_beside_a_step_that_needs_a_person_in_the_same_look() -> None:
    """An event that did not come is found in the same turn as a repeat that is due: the repeat is not begun."""
    plan = fan(event("paid", 5.0, on_timeout="attention"), step("b"))
    story = given(plan).breaks("b", retry_after=5.0).wakes(at=5.0)
    assert story.status() is SagaStatus.NEEDS_ATTENTION
    assert story.started == ["b"]
