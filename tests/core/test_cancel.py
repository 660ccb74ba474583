"""Rule 7 of the law: cancel is a durable request, a shutdown is none, and terminate ends without undo."""

from __future__ import annotations

from atone._core import facts
from atone._core.journal import DirectionDecided, RequestAnswered
from atone._core.state import SagaStatus, StepStatus
from tests.core.driver import RETRY, delay, fan, given, pivot, retriable, saga_of, step


def test_a_cancel_before_the_pivot_turns_the_saga_back() -> None:
    """With its reason and with who asked."""
    story = given(saga_of(step("a"), step("b"), pivot("p"))).succeeds("a").asked("cancel", id="c").rejects("b")
    (turn,) = story.all(DirectionDecided)
    assert (turn.cause.trigger, turn.cause.by, turn.cause.message) == ("cancel", "ann", "because")
    assert story.answers() == {"c": "applied"}
    assert story.undone == ["a"]


def test_a_cancel_after_the_pivot_is_too_late() -> None:
    """The saga goes on."""
    story = given(saga_of(step("a"), pivot("p"), retriable("r"))).succeeds("a", "p").asked("cancel", id="c")
    assert story.answers() == {"c": "too_late"}
    assert story.succeeds("r").status() is SagaStatus.COMPLETED


def test_a_pivot_is_never_started_past_a_durable_cancel() -> None:
    """(checked) The cancel's row was appended first; the owner folds it with the outcome that would start the pivot."""
    story = given(saga_of(step("a"), pivot("p"))).asked("cancel", wake=False).succeeds("a")
    assert "p" not in story.started
    assert story.undone == ["a"]


def test_no_step_is_started_past_a_durable_cancel() -> None:
    """Not only the pivot: whatever would begin, the request is looked at first."""
    for begins in ("back-off", "delay", "condition"):
        plan = saga_of(step("a"), delay("d", 1.0) if begins == "delay" else step("b", has_when=begins == "condition"))
        story = given(saga_of(*plan.steps, pivot("p"))).succeeds("a")
        if begins == "back-off":
            story.breaks("b")
        story.asked("cancel", wake=False)
        if begins == "condition":
            story.tells(facts.ConditionTold("b", runs=True))
        else:
            story.wakes(at=1.0)
        assert story.saga.is_backward, begins
        assert "p" not in story.started


def test_two_cancels_are_one() -> None:
    """The second finds the saga on its way back; the same id is heard once."""
    story = given(saga_of(step("a"), step("b"))).succeeds("a").asked("cancel", id="c").asked("cancel", id="d")
    story.asked("cancel", id="c")
    assert [(entry.id, entry.answer) for entry in story.all(RequestAnswered)] == [("c", "applied"), ("d", "applied")]
    assert len(story.all(DirectionDecided)) == 1


def test_a_shutdown_is_not_a_cancel() -> None:
    """The interrupted attempt is due again at once, elsewhere; it has used up no attempt."""
    story = given(saga_of(step("a"), step("b")))
    for _ in range(RETRY.attempts + 2):
        story.may_start = False
        story.interrupts("a")
        assert story.status() is SagaStatus.RUNNING
        assert story.last.idle
        assert story.last.wake_at == story.now
        story.may_start = True
        story.wakes()
    assert story.at("a").action.failed == 0
    assert story.succeeds("a", "b").status() is SagaStatus.COMPLETED


def test_a_cancel_meets_a_step_under_way() -> None:
    """Its outcome is waited for, and undone if it may have landed."""
    story = given(saga_of(step("a"), step("b"))).asked("cancel")
    assert story.status() is SagaStatus.COMPENSATING
    assert story.undone == []
    assert story.succeeds("a").undone == ["a"]
    assert "b" not in story.started


def test_a_cancel_before_anything_ran_ends_at_once() -> None:
    """Nothing was done."""
    story = given(saga_of(step("a")), may_start=False)
    story.may_start = True
    assert story.asked("cancel").status() is SagaStatus.COMPENSATED


def test_a_cancel_of_a_saga_that_needs_attention_turns_it_back() -> None:
    """A person has decided: what is in doubt is undone with the rest."""
    story = given(saga_of(step("a"), step("b", at_most_once=True))).succeeds("a").breaks("b").asked("cancel")
    assert story.status() is SagaStatus.COMPENSATING
    assert story.to_undo() == ("b", "a")


def test_terminate_stops_without_undo() -> None:
    """Effects stand, so it ends FAILED, with who and why."""
    story = given(saga_of(step("a"), step("b"))).succeeds("a").asked("terminate")
    assert story.status() is SagaStatus.FAILED
    assert story.saga.ended_because == "terminated by ann: because"
    assert story.undone == []


def test_terminate_ends_a_rollback_and_a_saga_in_need_of_attention() -> None:
    """Nothing is too far gone for it, the point of no return included."""
    story = given(saga_of(step("a"), step("b"))).succeeds("a").rejects("b").asked("terminate")
    assert story.status() is SagaStatus.FAILED
    story = given(saga_of(step("a"), pivot("p"))).succeeds("a").gives_up("p").asked("terminate")
    assert story.status() is SagaStatus.FAILED


def test_terminate_answers_whatever_was_still_waiting() -> None:
    """Nobody waits for an answer that never comes."""
    story = given(saga_of(step("a"), pivot("p"))).succeeds("a").asked("cancel", id="c").asked("terminate", id="t")
    assert story.answers() == {"t": "applied", "c": "too_late"}
    assert story.saga.requests == ()


def test_a_request_of_an_unknown_kind_is_refused() -> None:
    """A newer command line talks to an older worker: the saga goes on."""
    story = given(saga_of(step("a"))).asked("dance", id="x")
    assert story.answers() == {"x": "refused"}
    assert story.is_("a") is StepStatus.RUNNING


def test_requests_are_answered_in_the_order_they_came() -> None:
    """Each finds the saga as the one before has left it."""
    story = given(fan(step("a"), step("b"))).asked("cancel", id="c", wake=False).asked("terminate", id="t", wake=False)
    story.succeeds("a")
    assert [entry.id for entry in story.all(RequestAnswered)] == ["c", "t"]
    assert story.status() is SagaStatus.FAILED
