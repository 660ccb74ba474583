"""Rule 5 of the law: before the pivot backward, after it forward only, and an unknown pivot is never guessed."""

from __future__ import annotations

import pytest

from atone._core.commands import Alert
from atone._core.facts import Landed
from atone._core.journal import RetryScheduled
from atone._core.retry import Retry
from atone._core.state import SagaStatus, StepStatus
from tests.core.driver import RETRY, Story, event, fan, given, pivot, retriable, saga_of, step

PLAN = saga_of(step("a"), pivot("p"), retriable("r"))


def test_a_rejected_pivot_turns_the_saga_back() -> None:
    """It surely had no effect, so the way back is open."""
    story = given(PLAN).succeeds("a").rejects("p").undoes("a")
    assert story.status() is SagaStatus.COMPENSATED


def test_after_the_pivot_a_step_is_repeated_for_ever() -> None:
    """It must finally succeed: neither rejections nor breaks turn the saga back or end its attempts."""
    story = given(PLAN).succeeds("a", "p")
    for turn in range(60):
        story = (story.breaks if turn % 2 else story.rejects)("r").wakes()
    assert story.status() is SagaStatus.RUNNING
    assert story.undone == []
    assert story.succeeds("r").status() is SagaStatus.COMPLETED


def test_the_back_off_after_the_pivot_is_capped() -> None:
    """For ever, but never further apart than the policy's maximum."""
    quick = Retry(attempts=1, initial=1.0, factor=2.0, maximum=8.0, jitter=0.0)
    story = given(saga_of(pivot("p"), retriable("r", retry=quick))).succeeds("p")
    waits: list[float] = []
    for _ in range(6):
        story.breaks("r")
        waits.append(story.all(RetryScheduled)[-1].due_at - story.now)
        story.wakes()
    assert waits == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


def test_a_step_that_keeps_failing_after_the_pivot_is_reported_once() -> None:
    """At its alert threshold; the saga goes on."""
    noisy = Retry(attempts=1, initial=1.0, factor=1.0, jitter=0.0, alert_after=3)
    story = given(saga_of(pivot("p"), retriable("r", retry=noisy))).succeeds("p")
    alerts: list[int] = []
    for _ in range(5):
        story.breaks("r")
        alerts += [command.failures for command in story.last.commands if isinstance(command, Alert)]
        story.wakes()
    assert alerts == [3]


def test_a_rejected_at_most_once_step_after_the_pivot_is_repeated() -> None:
    """A rejection surely had no effect, so calling again is no second time."""
    story = given(saga_of(pivot("p"), retriable("r", at_most_once=True))).succeeds("p").rejects("r").wakes()
    assert story.started == ["p", "r", "r"]


def test_an_unknown_pivot_is_probed_first() -> None:
    """Landed: the saga goes on."""
    story = given(saga_of(step("a"), pivot("p", has_probe=True), retriable("r"))).succeeds("a").breaks("p")
    assert story.started[-1] == "probe p"
    assert story.probed("p", Landed.LANDED, b"1").started[-1] == "r"


def test_an_unknown_pivot_without_a_probe_is_repeated() -> None:
    """With the same key."""
    assert given(PLAN).succeeds("a").breaks("p").wakes().started == ["a", "p", "p"]


def test_an_unknown_pivot_is_never_guessed() -> None:
    """(checked) When its attempts are used up it waits for a person, neither forward nor backward."""
    story = given(PLAN).succeeds("a").gives_up("p")
    assert story.status() is SagaStatus.NEEDS_ATTENTION
    assert not story.saga.is_backward
    assert story.started == ["a", "p", "p", "p"]


def test_a_pivot_in_doubt_that_is_rejected_is_not_turned_back() -> None:
    """(checked) The rejection clears its own attempt only; the earlier one may have landed."""
    story = given(PLAN).succeeds("a").breaks("p").wakes().rejects("p")
    assert not story.saga.is_backward
    assert story.wakes().started == ["a", "p", "p", "p"]


def test_a_pivot_in_doubt_that_is_rejected_is_probed() -> None:
    """(checked) The order of resolution is the same as after any unknown outcome."""
    story = given(saga_of(step("a"), pivot("p", has_probe=True))).succeeds("a")
    story.breaks("p").probed("p", Landed.CANNOT_TELL).wakes().rejects("p")
    assert not story.saga.is_backward
    assert story.started[-1] == "probe p"


def test_an_at_most_once_pivot_in_doubt_waits_for_a_person() -> None:
    """Whatever its `on_unknown` says: a pivot is not turned back on a guess."""
    once = pivot("p", at_most_once=True, on_unknown="backward", barrier=True)
    story = given(saga_of(step("a"), once)).succeeds("a").breaks("p")
    assert story.status() is SagaStatus.NEEDS_ATTENTION
    assert not story.saga.is_backward


def test_a_lost_pivot_is_repeated_and_not_turned_back() -> None:
    """A crash says nothing about its effect."""
    story = given(PLAN).succeeds("a").loses("p")
    assert story.started == ["a", "p", "p"]


def test_a_cancel_during_the_pivot_waits_for_its_outcome() -> None:
    """It is neither applied nor refused while nobody knows."""
    story = given(PLAN).succeeds("a").asked("cancel", id="c")
    assert story.answers() == {}
    assert story.breaks("p").answers() == {}
    assert not story.saga.is_backward


def test_a_cancel_during_a_pivot_that_is_rejected_turns_back() -> None:
    """Rejected = backward."""
    story = given(PLAN).succeeds("a").asked("cancel", id="c").rejects("p")
    assert story.answers() == {"c": "applied"}
    assert story.undone == ["a"]


def test_a_cancel_during_a_pivot_that_lands_is_too_late() -> None:
    """Landed = `TooLate`; the saga completes."""
    story = given(PLAN).succeeds("a").asked("cancel", id="c").succeeds("p")
    assert story.answers() == {"c": "too_late"}
    assert story.succeeds("r").status() is SagaStatus.COMPLETED


@pytest.mark.parametrize("end", [Story.breaks, Story.loses, Story.interrupts])
def test_a_cancel_meeting_a_pivot_in_doubt_turns_nothing_back(end: object) -> None:
    """(checked) A person has to say what became of it, or the participant."""
    story = given(PLAN).succeeds("a")
    end(story, "p")
    story.asked("cancel", id="c")
    assert story.answers() == {}
    assert story.undone == []
    assert not story.saga.is_backward


def test_a_cancel_is_answered_by_the_person_who_says_that_the_pivot_did_not_land() -> None:
    """The vouched outcome decides: backward."""
    story = given(PLAN).succeeds("a").gives_up("p").asked("cancel", id="c")
    assert story.status() is SagaStatus.NEEDS_ATTENTION
    story.asked("resolve", id="r", step="p", landed=False)
    assert story.answers() == {"c": "applied", "r": "applied"}
    assert story.undone == ["a"]


def test_a_cancel_is_too_late_once_a_person_says_that_the_pivot_landed() -> None:
    """The vouched outcome decides: forward."""
    story = given(PLAN).succeeds("a").gives_up("p").asked("cancel", id="c")
    story.asked("resolve", id="r", step="p", landed=True, payload=b"1")
    assert story.answers() == {"c": "too_late", "r": "applied"}
    assert story.started[-1] == "r"


def test_a_deadline_that_passes_during_the_pivot_turns_nothing_back() -> None:
    """(checked) The deadline counts before the pivot only."""
    plan = saga_of(step("a"), pivot("p"), retriable("r"), deadline_seconds=5.0)
    story = given(plan).succeeds("a").wakes(at=6.0)
    assert not story.saga.is_backward
    assert story.succeeds("p").wakes(at=99.0).is_("r") is StepStatus.RUNNING


def test_an_event_that_does_not_come_after_the_pivot_turns_nothing_back() -> None:
    """Forward only: a person is needed, whatever the step's `on_timeout` says."""
    story = given(saga_of(step("a"), pivot("p"), event("paid", 5.0))).succeeds("a", "p").wakes()
    assert story.status() is SagaStatus.NEEDS_ATTENTION
    assert not story.saga.is_backward


def test_a_step_after_the_pivot_whose_processes_keep_dying_needs_attention() -> None:
    """ "For ever" does not mean killing workers for ever."""
    story = given(saga_of(pivot("p"), retriable("r"), recoveries_max=1)).succeeds("p").loses("r").loses("r")
    assert story.status() is SagaStatus.NEEDS_ATTENTION


def test_a_step_after_the_pivot_that_can_not_end_better_needs_attention() -> None:
    """Its result can't be stored: repeating it for ever would not help."""
    story = given(saga_of(pivot("p"), retriable("r"))).succeeds("p").breaks("r", repeatable=False)
    assert story.status() is SagaStatus.NEEDS_ATTENTION
    assert not story.saga.is_backward


def test_a_pivot_that_lands_after_a_person_had_denied_it_needs_attention() -> None:
    """The saga is being undone on somebody's word; it must not end as if nothing had happened."""
    story = given(PLAN).succeeds("a").gives_up("p").asked("resolve", step="p", landed=False)
    assert story.undone == ["a"]
    story.arrives_late("p").undoes("a")
    assert story.status() is SagaStatus.NEEDS_ATTENTION
    assert "landed after all" in str(story.at("p").attention)
    assert story.asked("retry", id="x").answers()["x"] == "refused"
    story.asked("skip", step="p")
    assert story.status() is SagaStatus.FAILED


def test_the_pivot_waits_for_every_step_before_it() -> None:
    """One branch in doubt holds it back."""
    story = given(fan(step("a"), step("b"), join=pivot("p"))).succeeds("a").breaks("b")
    assert "p" not in story.started
    assert story.wakes().succeeds("b").started[-1] == "p"


def test_the_attempts_of_a_pivot_are_bounded() -> None:
    """Only exhaustion waits for a person, and it does come."""
    story = given(PLAN).succeeds("a").gives_up("p")
    assert story.at("p").action.failed == RETRY.attempts
