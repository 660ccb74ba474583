"""Rule 2 of the law: unknown is not failed."""

from __future__ import annotations

import pytest

from atone._core import facts
from atone._core.facts import Landed
from atone._core.journal import StepGaveUp
from atone._core.state import SagaStatus, StepStatus
from tests.core.driver import ACTION, ONCE, OOPS, PROBE, Story, given, pivot, retriable, saga_of, step


def test_an_unknown_outcome_is_probed_first() -> None:
    """The participant is asked before it is called again."""
    story = given(saga_of(step("a", has_probe=True))).breaks("a")
    assert story.is_("a") is StepStatus.UNKNOWN
    assert story.started == ["a", "probe a"]


def test_a_step_that_a_probe_found_landed_is_not_called_again() -> None:
    """The probe's answer is the step's result."""
    story = given(saga_of(step("a", has_probe=True), step("b"))).breaks("a").probed("a", Landed.LANDED, b'"found"')
    assert story.at("a").result == b'"found"'
    assert story.started == ["a", "probe a", "b"]


def test_without_a_probe_an_unknown_outcome_is_repeated() -> None:
    """The next attempt goes out after the back-off; its key is the same, for the key leaves the attempt out."""
    story = given(saga_of(step("a"))).breaks("a").wakes().breaks("a")
    assert story.now == 1.0
    assert story.last.wake_at == 3.0
    assert story.wakes().started == ["a", "a", "a"]


def test_an_at_most_once_step_in_doubt_waits_for_a_person() -> None:
    """Nothing recognises a repeat, so none is made."""
    story = given(saga_of(step("a", at_most_once=True), step("b"))).breaks("a")
    assert story.status() is SagaStatus.NEEDS_ATTENTION
    assert story.started == ["a"]


def test_an_at_most_once_step_in_doubt_may_turn_back_behind_a_barrier() -> None:
    """The participant refuses what comes late, so the undo need not wait."""
    once = step("b", at_most_once=True, barrier=True, on_unknown="backward")
    story = given(saga_of(step("a"), once)).succeeds("a").breaks("b")
    assert story.status() is SagaStatus.COMPENSATING
    assert story.started == ["a", "b", "undo b"]


@pytest.mark.parametrize("end", [Story.breaks, Story.loses, Story.interrupts], ids=["broke", "lost", "interrupted"])
def test_going_backward_an_unknown_step_is_compensated(end: object) -> None:
    """(checked) However the doubt came about, although the next attempt surely had no effect."""
    story = given(saga_of(step("a"), step("b"))).succeeds("a")
    end(story, "b")
    if story.at("b").open is None:
        story.wakes()
    story.rejects("b")
    assert story.to_undo() == ("b", "a")
    assert story.wakes().undone == ["b"]


def test_a_step_that_gave_up_in_doubt_is_compensated() -> None:
    """(checked) All attempts came to nothing: the step is unknown, not failed, and is undone."""
    story = given(saga_of(step("a"), step("b"))).succeeds("a").gives_up("b")
    assert len(story.all(StepGaveUp)) == 1
    assert story.is_("b") is StepStatus.UNKNOWN
    assert story.wakes().undone == ["b"]


def test_a_timed_out_first_attempt_is_compensated_although_it_was_the_only_one() -> None:
    """(checked) One attempt, one time-out: it may have landed."""
    story = given(saga_of(step("a", retry=ONCE))).times_out("a")
    assert story.to_undo() == ("a",)
    story.wakes().undoes("a")
    assert story.status() is SagaStatus.COMPENSATED


def test_a_rejection_clears_its_own_attempt_only() -> None:
    """(checked) An earlier attempt in doubt keeps the step unknown, so it is undone."""
    story = given(saga_of(step("a"), step("b"))).succeeds("a").breaks("b").wakes().rejects("b")
    assert story.is_("b") is StepStatus.UNKNOWN
    assert story.to_undo() == ("b", "a")
    assert story.wakes(at=60.0).undone == ["b"]


def test_a_step_whose_every_attempt_was_rejected_is_not_compensated() -> None:
    """A rejection says that there was surely no effect, so there is nothing to undo."""
    story = given(saga_of(step("a"), step("b"))).succeeds("a").rejects("b")
    assert story.is_("b") is StepStatus.FAILED
    assert story.to_undo() == ("a",)
    assert story.undoes("a").status() is SagaStatus.COMPENSATED
    assert story.undone == ["a"]


def test_not_landed_permits_a_repeat() -> None:
    """(checked) The probe's answer lets the action be called again, after its back-off."""
    story = given(saga_of(step("a", has_probe=True))).breaks("a").probed("a", Landed.NOT_LANDED).wakes()
    assert story.started == ["a", "probe a", "a"]


def test_not_landed_spares_no_compensation() -> None:
    """(checked) The call may still land after the probe looked: going backward, the step is undone."""
    story = given(saga_of(step("a", has_probe=True), step("b"))).breaks("a").probed("a", Landed.NOT_LANDED)
    story.asked("cancel")
    assert story.to_undo() == ("a",)
    assert story.wakes().undone == ["a"]


def test_not_landed_turns_no_pivot_back() -> None:
    """(checked) Neither by itself nor with a cancel waiting; the pivot is repeated until it is known."""
    story = given(saga_of(step("a"), pivot("p", has_probe=True))).succeeds("a").breaks("p")
    story.asked("cancel").probed("p", Landed.NOT_LANDED)
    assert not story.saga.is_backward
    assert story.wakes().started == ["a", "p", "probe p", "p"]


@pytest.mark.parametrize("answer", ["cannot tell", "broken", "rejected"])
def test_a_probe_that_can_not_tell_leads_to_a_repeat(answer: str) -> None:
    """A probe that fails for good says as little as one that says so."""
    story = given(saga_of(step("a", has_probe=True))).breaks("a")
    if answer == "cannot tell":
        story.probed("a", Landed.CANNOT_TELL)
    elif answer == "broken":
        story.breaks("a").wakes().breaks("a")
        assert story.started == ["a", "probe a", "probe a"]
    else:
        story.rejects("a").wakes().rejects("a")
    assert story.wakes().started[-1] == "a"


def test_a_probe_that_ended_with_its_process_is_asked_again() -> None:
    """A lost probe leaves nothing in doubt that was not before, and uses up nothing."""
    story = given(saga_of(step("a", has_probe=True))).breaks("a").loses("a")
    assert story.started == ["a", "probe a", "probe a"]
    assert story.at("a").probe.failed == 0
    assert story.interrupts("a").started == ["a", "probe a", "probe a", "probe a"]


def test_a_step_that_can_not_be_repeated_usefully_gives_up_at_once() -> None:
    """A result that can't be encoded won't be encodable the next time: undo, for it did land."""
    story = given(saga_of(step("a"), step("b"))).succeeds("a").breaks("b", repeatable=False)
    assert story.status() is SagaStatus.COMPENSATING
    assert story.to_undo() == ("b", "a")


def test_the_participants_word_overrides_the_back_off() -> None:
    """`RetryAfter` says when; with a probe, the probe waits as long."""
    assert given(saga_of(step("a"))).breaks("a", retry_after=30.0).last.wake_at == 30.0
    story = given(saga_of(step("a", has_probe=True))).breaks("a", retry_after=30.0)
    assert story.started == ["a"]
    assert story.last.wake_at == 30.0


def test_a_late_success_settles_the_step() -> None:
    """The first attempt was given up on and has landed after all: it is not called again."""
    story = given(saga_of(step("a"), step("b"))).breaks("a").arrives_late("a")
    assert story.is_("a") is StepStatus.SUCCEEDED
    assert story.started == ["a", "b"]


@pytest.mark.parametrize("end", [Story.breaks, Story.rejects, Story.loses, Story.interrupts])
def test_a_late_success_counts_however_the_next_attempt_ends(end: object) -> None:
    """The result is known, so the repeat that was already under way asks for nothing more."""
    story = given(saga_of(step("a"), pivot("p"), retriable("r"))).succeeds("a").breaks("p").wakes()
    story.arrives_late("p")
    assert story.open("p").attempt == 2
    end(story, "p")
    assert story.is_("p") is StepStatus.SUCCEEDED
    assert story.started == ["a", "p", "p", "r"]


@pytest.mark.parametrize("answer", [Landed.NOT_LANDED, Landed.CANNOT_TELL])
def test_a_late_success_outweighs_a_probe_that_had_looked_before(answer: Landed) -> None:
    """The probe was asked before the call landed: its answer must not lead to a second effect."""
    story = given(saga_of(step("a", has_probe=True, at_most_once=True), step("b"))).times_out("a").wakes()
    assert story.started == ["a", "probe a"]
    story.arrives_late("a").probed("a", answer)
    assert story.started == ["a", "probe a", "b"]


def test_an_at_most_once_step_is_probed_only_when_nothing_can_arrive_any_more() -> None:
    """Its repeat would not be recognised, so "not landed" must mean "and never will"."""
    story = given(saga_of(step("a", has_probe=True, at_most_once=True), late_grace_seconds=5.0)).breaks("a")
    assert story.started == ["a"]
    assert story.last.wake_at == 15.0
    story.wakes().probed("a", Landed.NOT_LANDED).wakes()
    assert story.started == ["a", "probe a", "a"]


def test_a_barrier_lets_an_at_most_once_step_be_probed_at_once() -> None:
    """Behind a barrier a second call is a duplicate, not a second effect."""
    story = given(saga_of(step("a", has_probe=True, at_most_once=True, barrier=True))).breaks("a")
    assert story.started == ["a", "probe a"]


def test_an_at_most_once_step_whose_probe_can_not_tell_waits_for_a_person() -> None:
    """Only a probe that says "not landed" permits the repeat."""
    story = given(saga_of(step("a", has_probe=True, at_most_once=True))).times_out("a").wakes()
    assert story.probed("a", Landed.CANNOT_TELL).status() is SagaStatus.NEEDS_ATTENTION


def test_a_call_that_could_not_be_made_leaves_no_doubt() -> None:
    """Its input could not be decoded: a person is needed, and nothing has to be undone."""
    story = given(saga_of(step("a"), step("b"))).succeeds("a")
    story.tells(facts.Impossible("b", ACTION, 1, OOPS))
    assert story.status() is SagaStatus.NEEDS_ATTENTION
    assert story.is_("b") is StepStatus.PENDING
    assert not story.at("b").doubt
    assert story.asked("cancel").saga.rollback == ("a",)


def test_a_probe_that_can_not_be_called_needs_attention() -> None:
    """The step stays unknown."""
    story = given(saga_of(step("a", has_probe=True))).breaks("a")
    story.tells(facts.Impossible("a", PROBE, 1, OOPS))
    assert story.status() is SagaStatus.NEEDS_ATTENTION
    assert story.is_("a") is StepStatus.UNKNOWN
