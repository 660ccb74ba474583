"""Rule 1 of the law: intent before act."""

from __future__ import annotations

from atone._core import facts
from atone._core.commands import Call
from atone._core.journal import AttemptStarted, AttemptSucceeded, SagaEnded, SagaStarted
from atone._core.retry import Retry
from atone._core.state import SagaStatus, StepStatus
from tests.core.driver import ACTION, COMPENSATION, RETRY, given, saga_of, step


def test_the_start_carries_the_intent_for_the_first_step() -> None:
    """One commit starts the saga and says what is about to run."""
    story = given(saga_of(step("a"), step("b")))
    assert [type(entry) for entry in story.rows[0]] == [SagaStarted, AttemptStarted]
    assert story.calls == [Call("a", ACTION, 1, 10.0)]


def test_the_intent_for_the_next_step_stands_in_the_row_of_the_outcome_before_it() -> None:
    """The outcome of step n and the intent for step n+1 are one commit."""
    story = given(saga_of(step("a"), step("b"))).succeeds("a")
    assert [type(entry) for entry in story.rows[1]] == [AttemptSucceeded, AttemptStarted]
    assert story.calls == [Call("b", ACTION, 1, 10.0)]


def test_a_straight_saga_of_n_steps_costs_n_plus_one_commits() -> None:
    """Fused intents: five steps, six rows, the last of which ends the saga."""
    names = ("a", "b", "c", "d", "e")
    story = given(saga_of(*map(step, names))).succeeds(*names)
    assert len(story.rows) == len(names) + 1
    assert type(story.rows[-1][-1]) is SagaEnded
    assert story.status() is SagaStatus.COMPLETED


def test_nothing_is_called_without_an_intent_in_the_same_decision() -> None:
    """(checked) What is about to run is durable before user code runs: forward, probing and backward."""
    story = given(saga_of(step("a"), step("b", has_probe=True))).succeeds("a").breaks("b")
    story.asked("cancel").breaks("b").wakes().undoes("b").undoes("a")
    intents = [(entry.step, entry.operation, entry.attempt) for entry in story.all(AttemptStarted)]
    called = [
        (command.step, command.operation, command.attempt)
        for decision in story.decisions
        for command in decision.commands
        if isinstance(command, Call)
    ]
    assert called == intents
    assert len(called) == 5


def test_the_intent_of_an_undo_comes_before_the_undo() -> None:
    """(checked) Going backward, too, the row with the intent is what asks for the call."""
    story = given(saga_of(step("a"), step("b"))).succeeds("a").rejects("b")
    assert story.all(AttemptStarted)[-1] in story.rows[-1]
    assert story.calls == [Call("a", COMPENSATION, 1, 10.0)]


def test_no_intent_is_committed_while_an_attempt_must_wait_for_its_back_off() -> None:
    """An intent means "may be under way"; during back-off nothing is."""
    story = given(saga_of(step("a"))).breaks("a")
    assert story.started == ["a"]
    assert story.last.wake_at == 1.0
    assert story.last.idle
    assert story.wakes().started == ["a", "a"]


def test_a_look_before_the_back_off_is_over_begins_nothing() -> None:
    """Waking early is harmless; the time of the next attempt stays."""
    story = given(saga_of(step("a"))).breaks("a").wakes(at=0.5)
    assert story.started == ["a"]
    assert story.last.entries == ()
    assert story.last.wake_at == 1.0


def test_a_draining_worker_records_outcomes_and_begins_nothing() -> None:
    """No slot can be held any more, so the next intent is left to the next owner, at once."""
    story = given(saga_of(step("a"), step("b")))
    story.may_start = False
    story.succeeds("a")
    assert story.is_("a") is StepStatus.SUCCEEDED
    assert story.started == ["a"]
    assert story.last.idle
    assert story.last.wake_at == story.now
    story.may_start = True
    assert story.wakes().started == ["a", "b"]


def test_a_saga_that_was_inserted_without_intent_is_pending_until_somebody_takes_it() -> None:
    """`start` inside the caller's own transaction: nothing may run before that commits."""
    story = given(saga_of(step("a")), may_start=False)
    assert [type(entry) for entry in story.entries] == [SagaStarted]
    assert story.status() is SagaStatus.PENDING
    assert story.last.wake_at == 0.0
    story.may_start = True
    story.wakes()
    assert story.started == ["a"]
    assert story.status() is SagaStatus.RUNNING


def test_an_attempt_that_ended_with_its_process_uses_up_no_attempt() -> None:
    """Crashes count against `recoveries_max`, never against `Retry.attempts`."""
    story = given(saga_of(step("a"), recoveries_max=5)).loses("a").loses("a").loses("a")
    for _ in range(RETRY.attempts - 1):
        story.breaks("a").wakes()
    assert story.status() is SagaStatus.RUNNING
    assert story.breaks("a").status() is SagaStatus.COMPENSATING


def test_a_step_whose_processes_keep_dying_needs_attention() -> None:
    """More crashes than `recoveries_max`: the step may be what kills them."""
    story = given(saga_of(step("a"), recoveries_max=2)).loses("a").loses("a")
    assert story.status() is SagaStatus.RUNNING
    story.loses("a")
    assert story.status() is SagaStatus.NEEDS_ATTENTION
    assert "process died 3 times" in str(story.at("a").attention)


def test_crashes_before_a_restart_still_count_after_it() -> None:
    """The count is in the journal: a reload starts no new count."""
    story = given(saga_of(step("a"), recoveries_max=1)).loses("a")
    assert story.refolded() == story.saga
    assert story.refolded().steps[0].action.lost == 1
    assert story.loses("a").status() is SagaStatus.NEEDS_ATTENTION


def test_a_fact_of_an_attempt_that_is_not_under_way_is_a_duplicate() -> None:
    """Told twice, every outcome changes the saga once."""
    story = given(saga_of(step("a"), step("b"))).breaks("a").wakes().succeeds("a")
    before = story.saga
    story.tells(facts.Succeeded("a", ACTION, 2, b'"a"'))
    story.tells(facts.Lost("a", ACTION, 2))
    story.tells(facts.Interrupted("a", ACTION, 2))
    story.tells(facts.CameToNothing("a", ACTION, 2, facts.Problem("X", "")))
    story.tells(facts.Rejected("a", ACTION, 1, facts.Problem("X", "")))
    story.tells(facts.Impossible("a", ACTION, 1, facts.Problem("X", "")))
    assert story.saga == before


def test_a_crash_does_not_exhaust_a_policy_that_was_tightened_meanwhile() -> None:
    """Two failures of five, then a deploy that allows two: the next crash is still no failure."""
    story = given(saga_of(step("a", retry=Retry(attempts=5, jitter=0.0)))).breaks("a").wakes().breaks("a").wakes()
    story.plan = saga_of(step("a", retry=Retry(attempts=2, jitter=0.0)))
    assert story.loses("a").started == ["a", "a", "a", "a"]
    assert story.breaks("a").status() is SagaStatus.COMPENSATING


def test_an_outcome_of_an_earlier_attempt_does_not_end_the_present_one() -> None:
    """The first attempt's rejection comes while the second one runs: it says nothing of the second."""
    story = given(saga_of(step("a"))).breaks("a").wakes()
    story.tells(facts.Rejected("a", ACTION, 1, facts.Problem("X", "")))
    assert story.open("a").attempt == 2
    assert not story.saga.is_backward
