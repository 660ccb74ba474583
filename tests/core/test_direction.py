"""Rule 3 of the law: the direction is decided once."""

from __future__ import annotations

from atone._core import facts
from atone._core.facts import Landed
from atone._core.journal import AttemptStarted, DirectionDecided
from atone._core.state import SagaStatus, StepStatus
from tests.core.driver import ACTION, COMPENSATION, PROBE, Story, event, fan, given, saga_of, step


def test_the_turn_is_one_entry_with_the_cause_and_the_list() -> None:
    """Who takes over in the middle of a rollback reads what was decided, and decides nothing."""
    story = given(saga_of(step("a"), step("b"), step("c"))).succeeds("a", "b").rejects("c")
    (turn,) = story.all(DirectionDecided)
    assert (turn.cause.trigger, turn.cause.step) == ("failure", "c")
    assert "no funds" in turn.cause.message
    assert turn.rollback == ("b", "a")


def test_the_direction_is_durable_before_the_first_undo() -> None:
    """(checked) No intent to undo stands before the decision in the journal."""
    story = given(saga_of(step("a"), step("b"))).succeeds("a").rejects("b")
    intents = (AttemptStarted, DirectionDecided)
    kinds = [getattr(entry, "operation", "turn") for entry in story.entries if isinstance(entry, intents)]
    assert kinds == [ACTION, ACTION, "turn", COMPENSATION]


def test_the_direction_is_decided_once() -> None:
    """(checked) A second failure, a cancel and a deadline change neither the cause nor the list."""
    plan = fan(step("a"), step("b"), first=step("f"), deadline_seconds=50.0)
    story = given(plan).succeeds("f").rejects("a").asked("cancel").rejects("b").wakes(at=55.0)
    (turn,) = story.all(DirectionDecided)
    assert turn.cause.step == "a"
    assert story.saga.cause == turn.cause


def test_a_saga_that_turned_back_never_goes_forward_again() -> None:
    """(checked) Whatever is told or asked of it afterwards, no action and no probe is begun."""
    plan = fan(step("a"), step("b", has_probe=True), step("w", has_when=True), event("paid"), join=step("j"))
    story = given(plan)
    story.tells(facts.ConditionTold("w", runs=True)).breaks("b").rejects("a")
    story.tells(facts.ConditionTold("w", runs=True)).probed("b", Landed.NOT_LANDED)
    story.asked("retry").asked("event", event="paid", payload=b"1").asked(
        "resolve", step="b", landed=True, payload=b"1"
    )
    story.succeeds("w").wakes(at=60.0)
    turn = next(at for at, entry in enumerate(story.entries) if type(entry) is DirectionDecided)
    forward = [
        entry for entry in story.entries[turn:] if type(entry) is AttemptStarted and entry.operation is not COMPENSATION
    ]
    assert forward == []
    assert story.is_("j") is StepStatus.PENDING


def test_a_saga_that_turned_back_is_not_completed_by_its_last_step() -> None:
    """(checked) Every step has succeeded in the end, and every one of them is undone: that was decided."""
    story = given(saga_of(step("a"), step("b"))).succeeds("a").asked("cancel").succeeds("b")
    assert story.status() is SagaStatus.COMPENSATING
    assert story.undoes("b").undoes("a").status() is SagaStatus.COMPENSATED


def test_a_reload_between_the_turn_and_the_first_undo_goes_on_backward() -> None:
    """The decision was taken on a draining worker: the next one undoes."""
    story = given(saga_of(step("a"), step("b"))).succeeds("a")
    story.may_start = False
    story.rejects("b")
    assert story.undone == []
    assert story.refolded() == story.saga
    story.may_start = True
    assert story.wakes().undone == ["a"]


def test_nothing_is_undone_while_a_sibling_is_under_way() -> None:
    """(checked) Its outcome belongs to the list, so the rollback waits for it."""
    story = given(fan(step("a"), step("b"), first=step("f"))).succeeds("f").rejects("a")
    assert story.status() is SagaStatus.COMPENSATING
    assert story.undone == []
    assert not story.last.idle
    assert story.rejects("b").undone == ["f"]


def test_a_sibling_that_succeeds_after_the_turn_joins_the_list() -> None:
    """(checked) A late success is never lost."""
    story = given(fan(step("a"), step("b"))).rejects("a")
    assert story.to_undo() == ()
    story.succeeds("b")
    assert story.to_undo() == ("b",)
    assert story.undone == ["b"]
    assert story.undoes("b").status() is SagaStatus.COMPENSATED


def test_a_sibling_that_ends_in_doubt_after_the_turn_joins_the_list() -> None:
    """(checked) Broken, lost or interrupted: it may have landed."""
    for end in (Story.breaks, Story.loses, Story.interrupts):
        story = given(fan(step("a"), step("b"))).rejects("a")
        end(story, "b")
        assert story.to_undo() == ("b",), end
        assert story.wakes().undone == ["b"]


def test_a_sibling_that_is_rejected_after_the_turn_does_not_join_the_list() -> None:
    """It surely had no effect."""
    story = given(fan(step("a"), step("b"))).rejects("a").rejects("b")
    assert story.to_undo() == ()
    assert story.status() is SagaStatus.COMPENSATED


def test_a_sibling_in_doubt_that_is_rejected_after_the_turn_is_on_the_list() -> None:
    """(checked) The rejection clears its own attempt only, after the turn too."""
    story = given(fan(step("a"), step("b"))).breaks("b").wakes().rejects("a")
    assert story.to_undo() == ("b",)
    story.rejects("b")
    assert story.is_("b") is StepStatus.UNKNOWN
    assert story.wakes(at=60.0).undone == ["b"]


def test_a_step_whose_probe_was_under_way_at_the_turn_is_on_the_list() -> None:
    """(checked) Whatever the probe says then, the step was in doubt when the saga turned back."""
    for answer in Landed:
        story = given(saga_of(step("a", has_probe=True), step("b"))).breaks("a").asked("cancel")
        assert story.undone == []
        story.probed("a", answer, b'"a"' if answer is Landed.LANDED else None)
        assert story.to_undo() == ("a",)
        assert story.wakes(at=60.0).undone == ["a"]


def test_the_list_names_late_joiners_in_their_place() -> None:
    """The list reads newest first, whenever a step came onto it."""
    story = given(fan(step("a"), step("b"), step("c"), first=step("f"))).succeeds("f", "a", "c").asked("cancel")
    assert story.to_undo() == ("c", "a", "f")
    assert story.succeeds("b").saga.rollback == ("c", "b", "a", "f")


def test_a_step_that_lands_after_a_person_had_denied_it_is_undone() -> None:
    """A late success is never lost, not even against somebody's word."""
    story = given(saga_of(step("a"), step("b", at_most_once=True))).succeeds("a").breaks("b")
    story.asked("resolve", step="b", landed=False)
    assert story.started == ["a", "b", "undo a"]
    story.arrives_late("b").undoes("a")
    assert story.started == ["a", "b", "undo a", "undo b"]
    assert story.undoes("b").status() is SagaStatus.COMPENSATED


def test_an_action_seen_to_land_after_its_undo_needs_attention() -> None:
    """With a key alone nobody can say which came first, so nobody calls it compensated."""
    story = given(saga_of(step("a"), step("b"))).succeeds("a").breaks("b").asked("cancel").wakes().undoes("b")
    story.arrives_late("b").undoes("a")
    assert story.status() is SagaStatus.NEEDS_ATTENTION
    assert story.is_("b") is StepStatus.COMPENSATION_FAILED


def test_an_action_seen_to_land_during_its_undo_needs_attention() -> None:
    """The undo may have found nothing; that it ends well settles nothing."""
    for end in (Story.undoes, Story.breaks, Story.loses):
        story = given(saga_of(step("a"), step("b"))).succeeds("a").breaks("b").asked("cancel").wakes()
        assert story.open("b").operation is COMPENSATION
        end(story.arrives_late("b"), "b")
        story.undoes("a")
        assert story.status() is SagaStatus.NEEDS_ATTENTION, end
        assert story.is_("b") is StepStatus.COMPENSATION_FAILED


def test_behind_a_barrier_a_success_told_late_was_undone() -> None:
    """The participant refuses an action after its compensation, so the action came first."""
    story = given(saga_of(step("a", barrier=True))).breaks("a").asked("cancel")
    story.arrives_late("a")
    assert story.undoes("a").status() is SagaStatus.COMPENSATED


def test_a_turn_leaves_waits_and_repeats_behind() -> None:
    """What was due on the way forward is not due any more."""
    story = given(fan(step("a"), event("paid", 20.0), step("b"))).breaks("a").succeeds("b").asked("cancel")
    assert story.is_("paid") is StepStatus.SKIPPED
    assert all(state.due in (None, COMPENSATION) for state in story.saga.steps)
    assert story.undoes("b").last.wake_at == 15.0
    assert {entry.operation for entry in story.all(AttemptStarted)} == {ACTION, COMPENSATION}
    assert PROBE not in {entry.operation for entry in story.all(AttemptStarted)}
