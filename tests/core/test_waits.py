"""Waits and conditions: delays, events, and a step's `when` (rule 12 of the law)."""

from __future__ import annotations

from atone._core import facts
from atone._core.commands import AskCondition
from atone._core.facts import Problem
from atone._core.journal import ConditionAnswered, RequestAnswered, WaitEnded, WaitStarted
from atone._core.requests import MAIL_MAX
from atone._core.state import SagaStatus, StepStatus
from tests.core.driver import OOPS, Story, delay, event, fan, given, pivot, saga_of, step


def test_a_delay_ends_at_its_time_by_the_clock_of_the_store() -> None:
    """It holds nothing meanwhile: the saga is idle until then."""
    story = given(saga_of(delay("d", 60.0), step("a")))
    assert [type(entry) for entry in story.rows[0]][1:] == [WaitStarted]
    assert story.last.idle
    assert story.last.wake_at == 60.0
    assert story.wakes(at=59.0).started == []
    assert story.wakes(at=60.0).started == ["a"]


def test_a_delay_that_ran_out_while_nobody_looked_is_over() -> None:
    """It counts from when it began, whatever happened in between."""
    assert given(saga_of(delay("d", 60.0), step("a"))).wakes(at=5000.0).started == ["a"]


def test_delays_one_after_the_other_end_in_one_turn_if_their_time_has_come() -> None:
    """A delay of no time needs no timer."""
    story = given(saga_of(delay("d", 0.0), delay("e", 0.0), step("a")))
    assert story.started == ["a"]
    assert len(story.rows) == 1


def test_an_event_ends_its_wait_with_its_payload() -> None:
    """And the saga goes on in the same turn."""
    story = given(saga_of(event("paid"), step("a"))).asked("event", id="e", event="paid", payload=b'{"sum":1}')
    assert story.at("paid").result == b'{"sum":1}'
    assert story.answers() == {"e": "applied"}
    assert story.started == ["a"]


def test_an_event_that_comes_early_is_kept() -> None:
    """First come, kept: the wait takes it as soon as it begins."""
    story = given(saga_of(step("a"), event("paid"), step("b"))).asked("event", id="e", event="paid", payload=b"1")
    assert story.answers() == {"e": "applied"}
    assert story.succeeds("a").started == ["a", "b"]
    assert story.saga.mail == ()


def test_an_event_that_came_before_the_saga_was_taken_up_is_taken() -> None:
    """Its row stands right behind the first one."""
    story = given(saga_of(event("paid"), step("a")), may_start=False)
    story.asked("event", event="paid", payload=b"1", wake=False)
    story.may_start = True
    assert story.wakes(at=0.0).started == ["a"]


def test_an_event_that_does_not_come_turns_the_saga_back() -> None:
    """The wait's time-out, by default."""
    story = given(saga_of(step("a"), event("paid", 30.0))).succeeds("a").wakes()
    assert story.saga.cause is not None
    assert story.saga.cause.trigger == "timeout"
    assert story.undone == ["a"]


def test_an_event_that_does_not_come_may_call_a_person_instead() -> None:
    """`on_timeout="attention"`: nothing is undone."""
    story = given(saga_of(step("a"), event("paid", 30.0, on_timeout="attention"))).succeeds("a").wakes()
    assert story.status() is SagaStatus.NEEDS_ATTENTION
    assert story.undone == []


def test_an_event_in_the_same_turn_as_its_time_out_counts() -> None:
    """It was durable before anybody decided that it had not come."""
    story = given(saga_of(event("paid", 30.0), step("a"))).asked("event", event="paid", payload=b"1", wake=False)
    assert story.wakes(at=31.0).started == ["a"]


def test_an_event_that_comes_after_its_time_out_takes_the_saga_up_again() -> None:
    """What a person was needed for has happened."""
    story = given(saga_of(event("paid", 30.0, on_timeout="attention"), step("a"))).wakes()
    assert story.status() is SagaStatus.NEEDS_ATTENTION
    story.asked("event", event="paid", payload=b"1")
    assert story.status() is SagaStatus.RUNNING
    assert story.started == ["a"]


def test_an_event_that_comes_after_the_turn_is_ignored() -> None:
    """A late event never turns a saga forward again."""
    story = given(saga_of(step("a"), event("paid", 30.0))).succeeds("a").wakes().asked("event", id="e", event="paid")
    assert story.answers() == {"e": "ignored"}
    assert story.undone == ["a"]


def test_an_event_for_a_step_that_was_never_reached_is_ignored_after_the_turn() -> None:
    """The saga will never come to wait for it."""
    story = given(saga_of(step("a"), step("b"), event("paid"))).succeeds("a").rejects("b")
    assert story.asked("event", id="e", event="paid").answers() == {"e": "ignored"}
    assert story.saga.mail == ()


def test_the_same_event_twice_is_one() -> None:
    """The same id is heard once; a second event of that name finds nobody waiting."""
    story = given(saga_of(event("paid"), step("a"))).asked("event", id="e", event="paid", payload=b"1")
    story.asked("event", id="e", event="paid", payload=b"2").asked("event", id="f", event="paid", payload=b"3")
    assert story.at("paid").result == b"1"
    assert [(entry.id, entry.answer) for entry in story.all(RequestAnswered)] == [("e", "applied"), ("f", "ignored")]


def test_two_waits_for_one_event_take_two_events() -> None:
    """Each ends with its own, in the order they came."""
    plan = saga_of(event("first", event_name="paid"), event("second", event_name="paid"))
    story = (
        given(plan)
        .asked("event", id="e", event="paid", payload=b"1")
        .asked("event", id="f", event="paid", payload=b"2")
    )
    assert (story.at("first").result, story.at("second").result) == (b"1", b"2")
    assert story.status() is SagaStatus.COMPLETED


def test_an_event_that_no_step_waits_for_is_refused() -> None:
    """A misspelt name is told to whoever sent it."""
    assert given(saga_of(event("paid"))).asked("event", id="e", event="payd").answers() == {"e": "refused"}


def test_an_event_of_the_wrong_type_is_refused_and_the_wait_goes_on() -> None:
    """The shell has looked at the payload; the saga does not choke on it."""
    story = given(saga_of(event("paid"), step("a"))).asked("event", id="e", event="paid", payload=b"x", wake=False)
    story.tells(facts.RequestUnfit("e", "not a Payment"))
    assert story.answers() == {"e": "refused"}
    assert story.is_("paid") is StepStatus.RUNNING
    assert story.asked("event", id="f", event="paid", payload=b"1").started == ["a"]


def test_unread_events_are_bounded() -> None:
    """(rule 13) A saga that waits for many of one name keeps at most so many."""
    waits = [event(f"w{at}", event_name="paid") for at in range(MAIL_MAX + 1)]
    story = given(saga_of(step("a"), *waits))
    for _ in range(MAIL_MAX + 1):
        story.asked("event", event="paid", payload=b"1")
    answers = [entry.answer for entry in story.all(RequestAnswered)]
    assert answers == ["applied"] * MAIL_MAX + ["refused"]
    assert len(story.saga.mail) == MAIL_MAX


def test_a_condition_is_asked_of_the_shell() -> None:
    """`decide` sees no callables: the answer comes back as a fact."""
    story = given(saga_of(step("a", has_when=True), step("b")))
    assert story.last.commands == (AskCondition("a"),)
    assert story.started == []
    assert not story.last.idle
    assert story.tells(facts.ConditionTold("a", runs=True)).started == ["a"]


def test_a_step_whose_condition_does_not_hold_is_skipped_and_not_undone() -> None:
    """It never ran."""
    story = given(saga_of(step("a", has_when=True), step("b"))).tells(facts.ConditionTold("a", runs=False))
    assert story.is_("a") is StepStatus.SKIPPED
    assert story.started == ["b"]
    assert story.rejects("b").status() is SagaStatus.COMPENSATED
    assert story.undone == []


def test_a_condition_that_raises_needs_attention() -> None:
    """It is neither true nor false."""
    story = given(saga_of(step("a", has_when=True))).tells(facts.ConditionFailed("a", Problem("KeyError", "x")))
    assert story.status() is SagaStatus.NEEDS_ATTENTION
    assert "`when` raised KeyError: x" in str(story.at("a").attention)


def test_a_condition_that_raised_is_asked_again_on_retry() -> None:
    """The code was mended."""
    story = given(saga_of(step("a", has_when=True))).tells(facts.ConditionFailed("a", OOPS)).asked("retry", step="a")
    assert story.asks == ["a"]
    assert story.tells(facts.ConditionTold("a", runs=True)).started == ["a"]


def test_a_condition_is_asked_again_after_a_reload_and_answered_once() -> None:
    """The question is not durable; the answer is, so it is never asked twice once it is known."""
    story = given(saga_of(step("a", has_when=True), step("b"))).wakes(at=0.0)
    assert story.asks == ["a"]
    story.tells(facts.ConditionTold("a", runs=True)).tells(facts.ConditionTold("a", runs=False))
    assert len(story.all(ConditionAnswered)) == 1
    assert story.started == ["a"]
    assert story.breaks("a").wakes().asks == []


def test_a_draining_worker_asks_no_condition() -> None:
    """The next owner asks."""
    story = given(saga_of(step("a", has_when=True)), may_start=False)
    assert story.asks == []
    assert story.last.wake_at == 0.0


def test_a_condition_that_answers_after_the_turn_changes_nothing() -> None:
    """Nor does one that fails then."""
    story = given(fan(step("a", has_when=True), step("b"))).rejects("b")
    assert story.status() is SagaStatus.COMPENSATED
    story = given(fan(step("a", has_when=True), step("b"), first=step("f"))).succeeds("f").rejects("b")
    before = story.saga
    story.tells(facts.ConditionTold("a", runs=True)).tells(facts.ConditionFailed("a", OOPS))
    assert story.saga == before


def test_a_delay_may_be_conditional() -> None:
    """Skipped like any other step."""
    story = given(saga_of(delay("d", 60.0, has_when=True), step("a"))).tells(facts.ConditionTold("d", runs=False))
    assert story.started == ["a"]
    assert story.all(WaitStarted) == []


def test_a_cancel_ends_a_wait() -> None:
    """The wait was no step to be undone."""
    story = given(saga_of(step("a"), delay("d", 3600.0), pivot("p"))).succeeds("a").asked("cancel")
    assert story.is_("d") is StepStatus.SKIPPED
    assert story.undone == ["a"]
    assert story.all(WaitEnded) == []


def test_a_wait_beside_a_branch_ends_while_the_branch_runs() -> None:
    """Waits do not need the saga's other steps to stand still."""
    story = given(fan(delay("d", 5.0), step("b"), join=step("j"))).wakes()
    assert story.is_("d") is StepStatus.SUCCEEDED
    assert story.succeeds("b").started == ["b", "j"]


def test_a_wait_that_times_out_turns_back_beside_a_branch_that_runs() -> None:
    """The branch's outcome is waited for."""
    story: Story = given(fan(event("paid", 5.0), step("b"))).wakes()
    assert story.status() is SagaStatus.COMPENSATING
    assert story.succeeds("b").undone == ["b"]
