"""Rule 6 of the law: deadlines are absolute, and none eats the time that the rollback needs."""

from __future__ import annotations

from atone._core.state import SagaStatus, StepStatus
from tests.core.driver import COMPENSATION, Story, delay, given, pivot, retriable, saga_of, step


def test_an_attempt_has_an_absolute_deadline() -> None:
    """It is fixed with the intent, by the store's clock."""
    story = given(saga_of(step("a"), step("b", timeout_seconds=7.0)), now=100.0)
    assert story.open("a").deadline == 110.0
    story.now = 104.0
    assert story.succeeds("a").open("b").deadline == 111.0


def test_a_saga_past_its_deadline_turns_back() -> None:
    """The deadline counts from the start; the saga asks to be looked at then."""
    story = given(saga_of(step("a"), delay("d", 60.0), step("b"), deadline_seconds=30.0), now=100.0).succeeds("a")
    assert story.saga.deadline == 130.0
    assert story.last.wake_at == 130.0
    story.wakes()
    assert story.saga.cause is not None
    assert story.saga.cause.trigger == "deadline"
    assert story.undone == ["a"]


def test_a_deadline_that_passed_while_nobody_ran_the_saga_counts() -> None:
    """Recomputed after downtime: the next owner turns back before it begins anything."""
    story = given(saga_of(step("a"), step("b"), deadline_seconds=5.0))
    story.may_start = False
    story.succeeds("a")
    story.may_start = True
    story.wakes(at=60.0)
    assert story.started == ["a", "undo a"]


def test_the_saga_deadline_waits_for_the_attempt_under_way() -> None:
    """Its outcome decides what is to be undone."""
    story = given(saga_of(step("a"), step("b"), deadline_seconds=5.0)).wakes(at=5.0)
    assert story.status() is SagaStatus.COMPENSATING
    assert story.undone == []
    assert story.succeeds("a").undone == ["a"]


def test_the_deadline_does_not_eat_the_time_of_the_rollback() -> None:
    """After the deadline every undo has its full time-out and all of its attempts."""
    story = given(saga_of(step("a"), delay("d", 60.0), deadline_seconds=30.0)).succeeds("a").wakes()
    assert story.open("a").deadline == 40.0
    story.times_out("a").wakes()
    assert story.open("a").operation is COMPENSATION
    assert story.undoes("a").status() is SagaStatus.COMPENSATED


def test_a_saga_that_is_done_at_its_deadline_is_completed() -> None:
    """What has all succeeded is never undone because it is late."""
    story = given(saga_of(step("a"), deadline_seconds=5.0))
    story.now = 50.0
    assert story.succeeds("a").status() is SagaStatus.COMPLETED


def test_a_saga_that_never_began_before_its_deadline_ends_without_a_call() -> None:
    """Nothing was done, so it is compensated with nothing to undo."""
    story = given(saga_of(step("a"), deadline_seconds=5.0), may_start=False)
    story.may_start = True
    assert story.wakes(at=9.0).status() is SagaStatus.COMPENSATED
    assert story.started == []


def test_the_rollback_deadline_counts_from_the_turn() -> None:
    """It has nothing to do with the saga's own."""
    plan = saga_of(step("a"), step("b"), deadline_seconds=1000.0, rollback_deadline_seconds=20.0)
    story = given(plan).succeeds("a")
    story.now = 50.0
    assert story.rejects("b").saga.rollback_deadline == 70.0


def test_a_compensation_that_can_not_be_repeated_before_the_rollback_deadline_gives_up() -> None:
    """Late is visible: the saga needs attention and is not called compensated."""
    plan = saga_of(step("a"), step("b"), rollback_deadline_seconds=10.5)
    story = given(plan).succeeds("a").rejects("b").times_out("a")
    assert story.status() is SagaStatus.NEEDS_ATTENTION
    assert "deadline" in str(story.at("a").attention)


def test_every_undo_is_tried_once_even_past_the_rollback_deadline() -> None:
    """A deadline alerts; it leaves no step without its compensation."""
    plan = saga_of(step("a"), step("b"), step("c"), rollback_deadline_seconds=5.0)
    story = given(plan).succeeds("a", "b").rejects("c").times_out("b")
    assert story.is_("b") is StepStatus.COMPENSATION_FAILED
    assert story.open("a").operation is COMPENSATION


def _step_deadline(**options: float) -> Story:
    return given(saga_of(step("a"), step("b", deadline_seconds=12.0, **options))).succeeds("a")


def test_a_step_deadline_bounds_all_attempts_together() -> None:
    """From the first one's start: a repeat that would begin later is not made."""
    story = _step_deadline().breaks("b", retry_after=12.0)
    assert story.status() is SagaStatus.COMPENSATING


def test_an_attempt_is_cut_at_the_step_deadline() -> None:
    """The second attempt has what is left, not a whole time-out."""
    story = _step_deadline().breaks("b", retry_after=5.0).wakes()
    assert story.open("b").deadline == 12.0
    assert story.times_out("b").status() is SagaStatus.COMPENSATING


def test_a_repeat_that_was_due_during_a_downtime_is_not_begun_past_the_step_deadline() -> None:
    """The next owner comes too late for it, and gives up."""
    story = _step_deadline().breaks("b").wakes(at=13.0)
    assert story.status() is SagaStatus.COMPENSATING
    assert story.started == ["a", "b"]


def test_a_pivot_past_its_step_deadline_waits_for_a_person() -> None:
    """(checked) Its outcome is unknown, and never guessed."""
    story = given(saga_of(step("a"), pivot("p", deadline_seconds=12.0))).succeeds("a").breaks("p").wakes(at=13.0)
    assert story.status() is SagaStatus.NEEDS_ATTENTION
    assert not story.saga.is_backward


def test_a_step_after_the_pivot_has_no_deadline() -> None:
    """It must finally succeed."""
    story = given(saga_of(pivot("p"), retriable("r", deadline_seconds=12.0))).succeeds("p").breaks("r").wakes(at=99.0)
    assert story.open("r").deadline == 109.0


def test_a_retry_by_a_person_begins_a_new_step_deadline() -> None:
    """Another round is another round."""
    story = given(saga_of(step("a"), pivot("p", deadline_seconds=12.0))).succeeds("a").breaks("p").wakes(at=13.0)
    story.asked("retry", step="p")
    assert story.open("p").deadline == 23.0
