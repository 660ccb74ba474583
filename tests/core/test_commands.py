"""Command steps: what is sent with its intent, and what a reply means, be it early, late, twice, or none at all."""

from __future__ import annotations

from typing import Any

import pytest

from atone._core import facts
from atone._core.commands import Send
from atone._core.explain import explain
from atone._core.journal import AttemptLost, AttemptStarted, LateSuccess, RequestAnswered
from atone._core.plan import Plan, Role
from atone._core.replies import worth_telling
from atone._core.state import Request, SagaStatus, StepStatus
from tests.core.driver import (
    ACTION,
    COMPENSATION,
    ONCE,
    OOPS,
    PROBE,
    Story,
    command,
    delay,
    fan,
    given,
    pivot,
    saga_of,
    step,
)

TRIP = saga_of(command("book"), step("charge"))
LEG = saga_of(step("a"), command("book"))
AWAITED = "Running: book was sent to book.do, and a reply is awaited (attempt 1, 10 s left)."


def _notes(story: Story) -> list[str]:
    return [entry.note for entry in story.all(RequestAnswered)]


# Sending


def test_a_message_is_asked_for_before_anything_is_written() -> None:
    """There is no intent yet: what is to be sent is known first."""
    story = given(TRIP)
    assert [(one.step, one.operation, one.attempt) for one in story.wanted] == [("book", ACTION, 1)]
    assert story.started == []
    assert not story.last.idle


def test_a_message_goes_out_in_the_turn_of_its_intent() -> None:
    """Body and intent are one decision, and then the saga needs nobody until the deadline."""
    story = given(TRIP).builds()
    assert story.sends == [Send("book", ACTION, 1, 10.0, b'"book"')]
    assert [type(entry) for entry in story.rows[-1]] == [AttemptStarted]
    assert story.last.idle
    assert story.last.wake_at == 10.0


def test_a_message_says_what_the_saga_knew_when_it_is_sent() -> None:
    """One that was built before something else became known is asked for again."""
    story = given(TRIP)
    asked = story.wanted[0]
    story.asked("event", event="no such")
    stale = facts.MessagesBuilt(asked.version, (facts.Built("book", ACTION, b'"old"'),))
    assert story.tells(stale).sends == []
    assert story.wanted[0].version == asked.version + 2
    assert story.builds().started == ["book"]


def test_a_message_that_was_told_twice_is_sent_once() -> None:
    """The second time the saga is another one."""
    story = given(TRIP)
    told = facts.MessagesBuilt(story.wanted[0].version, (facts.Built("book", ACTION, b"1"),))
    assert story.tells(told).tells(told).started == ["book"]


def test_commands_beside_each_other_go_out_together() -> None:
    """One turn for both; the saga is looked at when the first is overdue."""
    story = given(fan(command("a"), command("b", timeout_seconds=4.0), join=step("j"))).builds()
    assert story.started == ["a", "b"]
    assert story.last.wake_at == 4.0
    assert story.replied("a").replied("b").started == ["a", "b", "j"]


def test_a_draining_worker_sends_nothing() -> None:
    """It asks for no message, and leaves one that it has to the next owner."""
    story = given(TRIP)
    told = facts.MessagesBuilt(story.wanted[0].version, (facts.Built("book", ACTION, b"1"),))
    story.may_start = False
    assert story.tells(told).started == []
    assert story.last.idle
    assert story.wanted == []


def test_a_message_that_cannot_be_built_calls_a_person() -> None:
    """Nothing was sent, so there is no doubt; another round builds it anew."""
    story = given(TRIP).fails_to_build()
    assert story.status() is SagaStatus.NEEDS_ATTENTION
    assert not story.at("book").doubt
    assert story.asked("retry", step="book").sent_and_done("book").succeeds("charge").status() is SagaStatus.COMPLETED


def test_an_undo_that_cannot_be_built_gives_up() -> None:
    """The saga is never called compensated; the other undos go on."""
    story = given(saga_of(step("a"), command("book"), step("c"))).succeeds("a").sent_and_done("book").rejects("c")
    story.fails_to_build().undoes("a")
    assert story.is_("book") is StepStatus.COMPENSATION_FAILED
    assert story.status() is SagaStatus.NEEDS_ATTENTION
    assert story.asked("retry", step="book").sent_and_undone("book").status() is SagaStatus.COMPENSATED


def test_what_could_not_be_built_is_old_news_when_the_saga_has_gone_on() -> None:
    """Found by search: the message is asked for again, and nobody is called for the old one."""
    story = given(TRIP)
    old = facts.MessageFailed(story.wanted[0].version, "book", ACTION, OOPS)
    story.asked("event", event="no such")
    assert story.tells(old).status() is SagaStatus.PENDING
    assert story.wanted


# Replies


def test_a_reply_ends_its_command_with_the_result() -> None:
    """And the saga goes on in the same turn."""
    story = given(TRIP).builds().replied("book", id="m1", payload=b'{"ref":1}')
    assert story.at("book").result == b'{"ref":1}'
    assert story.answers() == {"m1": "applied"}
    assert story.started == ["book", "charge"]


def test_a_rejection_turns_the_saga_back_with_its_reason() -> None:
    """The refused command itself is not undone."""
    story = given(LEG).succeeds("a").builds().replied("book", landed=False)
    assert story.saga.cause is not None
    assert (story.saga.cause.step, story.saga.cause.message) == ("book", "because")
    assert story.to_undo() == ("a",)


def test_nobody_runs_a_command_so_none_is_lost_with_a_worker() -> None:
    """Another worker takes the saga up, and the reply is awaited as before."""
    story = given(TRIP).builds().loses("book")
    assert story.all(AttemptLost) == []
    assert story.at("book").open is not None
    assert story.replied("book").is_("book") is StepStatus.SUCCEEDED


def test_a_reply_that_was_there_before_its_owner_looked_is_taken() -> None:
    """It is a row like any other: whoever folds the journal finds it behind the intent."""
    story = given(TRIP).builds().replied("book", wake=False)
    assert story.is_("book") is StepStatus.RUNNING
    assert story.loses("book").is_("book") is StepStatus.SUCCEEDED


def test_a_reply_that_is_there_at_the_deadline_counts() -> None:
    """It came in time, though nobody looked in time."""
    story = given(TRIP).builds().replied("book", wake=False).wakes(at=500.0)
    assert story.is_("book") is StepStatus.SUCCEEDED
    assert not story.at("book").doubt


def test_the_same_reply_counts_once() -> None:
    """By its id it is not even looked at; under another id it is answered, and changes nothing."""
    story = given(TRIP).builds().replied("book", id="m1").asked("reply", id="m1", step="book", landed=True)
    before = story.saga.steps
    story.replied("book", id="m2")
    assert story.saga.steps == before
    assert story.answers() == {"m1": "applied", "m2": "ignored"}


@pytest.mark.parametrize(
    ("said", "note"),
    [
        ({"step": "nowhere"}, "there is no step 'nowhere'"),
        ({"step": "charge"}, "charge awaits no such reply"),
        ({"operation": PROBE}, "book awaits no such reply"),
        ({"landed": None}, "book awaits no such reply"),
        ({"attempt": 2}, "attempt 2 of its action was never sent"),
        ({"attempt": 0}, "attempt 0 of its action was never sent"),
        ({"operation": COMPENSATION}, "attempt 1 of its compensation was never sent"),
    ],
)
def test_a_reply_that_can_mean_nothing_is_refused(said: dict[str, Any], note: str) -> None:
    """With the reason; the command is still awaited."""
    story = given(TRIP).builds()
    usual: dict[str, Any] = {"step": "book", "landed": True, "attempt": 1, "payload": b"1"}
    story.asked("reply", **usual | said)
    assert _notes(story) == [note]
    assert set(story.answers().values()) == {"refused"}
    assert story.replied("book").is_("book") is StepStatus.SUCCEEDED


def test_a_reply_that_does_not_fit_its_type_is_refused() -> None:
    """The shell has looked at it; it ends nothing."""
    story = given(TRIP).builds().replied("book", id="bad", wake=False).tells(facts.RequestUnfit("bad", "no Booked"))
    assert story.answers() == {"bad": "refused"}
    assert story.is_("book") is StepStatus.RUNNING


def test_replies_that_do_not_fit_are_refused_together() -> None:
    """Found by a test of the runtime: when the first had been refused, the second was taken."""
    story = given(TRIP).builds()
    for name in ("bad", "worse"):
        story.replied("book", id=name, wake=False)
    unfit = tuple(facts.RequestUnfit(name, "no Booked") for name in ("bad", "worse"))
    story.tells(facts.RequestsUnfit(unfit))
    assert story.answers() == {"bad": "refused", "worse": "refused"}


# Nobody replies


def test_a_command_that_nobody_answers_is_sent_again() -> None:
    """At its deadline its outcome is unknown; the next message is asked for after the back-off."""
    story = given(TRIP).builds().wakes()
    assert story.is_("book") is StepStatus.UNKNOWN
    assert story.wakes().builds().sends[0].attempt == 2


def test_a_command_is_not_overdue_before_its_deadline() -> None:
    """A look in between changes nothing."""
    story = given(TRIP).builds().wakes(at=9.0)
    assert story.is_("book") is StepStatus.RUNNING
    assert story.last.wake_at == 10.0


def test_a_silent_participant_is_asked_if_it_can_be() -> None:
    """A probe is an ordinary call, and is lost with its process like any other."""
    story = given(saga_of(command("book", has_probe=True))).builds().wakes()
    assert story.started == ["book", "probe book"]
    assert story.loses("book").started == ["book", "probe book", "probe book"]


def test_a_command_at_most_once_is_not_sent_again() -> None:
    """A person decides; a late reply does so too."""
    story = given(saga_of(command("book", at_most_once=True), step("charge"))).builds().wakes()
    assert story.status() is SagaStatus.NEEDS_ATTENTION
    assert story.replied("book").started == ["book", "charge"]


def test_a_command_that_nobody_ever_answers_is_undone_at_once_behind_a_barrier() -> None:
    """The participant refuses the original if it comes after its undo."""
    story = given(saga_of(command("book", retry=ONCE))).builds().wakes()
    assert story.status() is SagaStatus.COMPENSATING
    assert story.wanted[0].operation is COMPENSATION
    assert story.sent_and_undone("book").status() is SagaStatus.COMPENSATED


def test_without_a_barrier_an_unanswered_command_is_left_to_land_first() -> None:
    """The undo waits for the deadline and the grace."""
    story = given(saga_of(command("book", retry=ONCE, barrier=False))).builds().wakes()
    assert story.wanted == []
    assert story.last.wake_at == 15.0


def test_a_saga_that_turns_back_waits_for_the_commands_under_way() -> None:
    """What they come to joins the list; the deadline is still looked at."""
    story = given(fan(command("a"), step("b"), join=step("j"))).builds().rejects("b")
    assert story.status() is SagaStatus.COMPENSATING
    assert story.last.wake_at == 10.0
    assert story.replied("a").to_undo() == ("a",)


def test_a_cancel_beside_other_waits_does_not_hide_the_commands_deadline() -> None:
    """Found by search: the turn back forgot what the way forward had waited for, the reply among it."""
    story = given(fan(command("a"), delay("d", 3.0), join=step("j"))).builds().asked("cancel")
    assert story.last.wake_at == 10.0


def test_a_saga_is_not_parked_while_a_reply_is_awaited() -> None:
    """A branch needs a person; the other one's reply is still to come, and is looked for at its deadline."""
    story = given(fan(command("a"), step("b", at_most_once=True), join=step("j"))).builds().breaks("b")
    assert story.status() is SagaStatus.RUNNING
    assert story.replied("a").status() is SagaStatus.NEEDS_ATTENTION


# Late replies


def test_a_late_reply_settles_the_doubt() -> None:
    """It came between two attempts: the next one is not sent."""
    story = given(TRIP).builds().wakes().replied("book", 1)
    assert type(story.rows[-1][0]) is LateSuccess
    assert story.started == ["book", "charge"]


def test_a_reply_to_an_earlier_attempt_ends_the_present_one() -> None:
    """All attempts carry one key, so nothing more is awaited."""
    story = given(TRIP).builds().wakes().wakes().builds().replied("book", 1)
    assert story.is_("book") is StepStatus.SUCCEEDED
    assert story.at("book").open is None
    assert story.started == ["book", "book", "charge"]


def test_a_rejection_of_an_earlier_attempt_clears_nothing() -> None:
    """The present attempt has an answer of its own to come."""
    story = given(TRIP).builds().wakes().wakes().builds().replied("book", 1, landed=False)
    assert story.at("book").open is not None
    assert _notes(story) == ["a rejection clears its own attempt only, and that one is over"]
    assert story.replied("book", 2, landed=False).to_undo() == ("book",)


def test_a_late_reply_after_the_turn_joins_the_list() -> None:
    """A person had said that it did not land, so nothing was to be undone; the participant knows better."""
    story = given(saga_of(command("book", at_most_once=True), step("charge"))).builds().wakes()
    story.asked("resolve", wake=False, step="book", landed=False).replied("book", 1)
    assert story.to_undo() == ("book",)
    assert story.sent_and_undone("book").status() is SagaStatus.COMPENSATED


def test_a_late_reply_during_its_undo_needs_nobody_behind_a_barrier() -> None:
    """The action came first, or the participant would have refused it."""
    story = given(saga_of(command("book", retry=ONCE))).builds().wakes().builds().replied("book", 1)
    assert story.at("book").result == b'"book"'
    assert story.replied("book", operation=COMPENSATION).status() is SagaStatus.COMPENSATED


def test_a_late_reply_during_its_undo_needs_a_person_without_a_barrier() -> None:
    """Nobody can say which came first."""
    story = given(saga_of(command("book", retry=ONCE, barrier=False))).builds().wakes().wakes().builds()
    story.replied("book", 1).replied("book", operation=COMPENSATION)
    assert story.status() is SagaStatus.NEEDS_ATTENTION


def test_a_late_reply_does_not_hide_an_undo_that_could_not_be_sent() -> None:
    """Found by search: the step was taken for one that had succeeded, and its undo for one that was not due."""
    story = given(saga_of(command("book", retry=ONCE))).builds().wakes().fails_to_build().replied("book", 1)
    assert story.status() is SagaStatus.NEEDS_ATTENTION
    assert story.is_("book") is StepStatus.COMPENSATION_FAILED
    assert story.asked("retry", step="book").sent_and_undone("book").status() is SagaStatus.COMPENSATED


def test_a_late_reply_to_the_pivot_calls_nobody_twice() -> None:
    """Its attempts were used up and a person was called; the reply does what the person would have."""
    plan = saga_of(command("p", role=Role.PIVOT, has_compensation=False, retry=ONCE), step("r", role=Role.RETRIABLE))
    story = given(plan).builds().wakes()
    assert story.status() is SagaStatus.NEEDS_ATTENTION
    assert story.replied("p", 1).started == ["p", "r"]


def test_a_late_reply_to_an_undo_counts() -> None:
    """Given up for this attempt, done all the same: it is not sent again."""
    story = given(saga_of(command("book"), step("c"))).sent_and_done("book").rejects("c").builds().wakes()
    assert story.replied("book", 1, operation=COMPENSATION).status() is SagaStatus.COMPENSATED


def test_a_reply_to_an_earlier_undo_ends_the_present_one() -> None:
    """As with actions: one key, one effect."""
    story = given(saga_of(command("book"), step("c"))).sent_and_done("book").rejects("c").builds().wakes().wakes()
    assert story.builds().replied("book", 1, operation=COMPENSATION).status() is SagaStatus.COMPENSATED


def test_a_reply_to_an_undo_that_gave_up_is_left_to_the_person() -> None:
    """It is answered with where the undo stands."""
    story = given(saga_of(command("book"), step("c"))).sent_and_done("book").rejects("c").builds().wakes().wakes()
    story.builds().wakes()
    assert story.is_("book") is StepStatus.COMPENSATION_FAILED
    story.replied("book", 2, operation=COMPENSATION)
    assert _notes(story)[-1] == "its compensation is settled: compensation failed"


def test_a_rejected_undo_gives_up() -> None:
    """The participant says that it can't be undone."""
    story = given(saga_of(command("book"), step("c"))).sent_and_done("book").rejects("c").builds()
    story.replied("book", operation=COMPENSATION, landed=False)
    assert story.status() is SagaStatus.NEEDS_ATTENTION


# After the end


@pytest.mark.parametrize(
    ("said", "worth"),
    [
        ({"landed": True}, "book has landed, and the saga was over: compensated"),
        ({"landed": False}, None),
        ({"step": "nowhere"}, "there is no step 'nowhere'"),
        ({"operation": COMPENSATION, "landed": True}, None),
    ],
)
def test_a_reply_to_a_saga_that_is_over_is_told_if_it_is_news(said: dict[str, Any], worth: str | None) -> None:
    """A success that nobody knew of is for a person; what changes nothing is not."""
    story = given(saga_of(command("book", retry=ONCE))).builds().wakes().sent_and_undone("book")
    assert story.status() is SagaStatus.COMPENSATED
    request = Request("late", "reply", "hotel", "because", "book")._replace(**said)
    assert worth_telling(story.plan, story.saga, request) == worth


def test_a_repeated_reply_to_a_saga_that_has_completed_is_no_news() -> None:
    """Its result is known; that something was undone in it would be news."""
    story = given(TRIP).sent_and_done("book").succeeds("charge")
    said = Request("again", "reply", "hotel", "because", "book", landed=True)
    assert worth_telling(story.plan, story.saga, said) is None
    undone = said._replace(operation=COMPENSATION)
    assert worth_telling(story.plan, story.saga, undone) == "book was undone, and the saga was over: completed"


# Plans and pages


def test_plans_without_commands_keep_their_hash_and_text() -> None:
    """Sagas under way before there were commands still find their definition."""
    plan = Plan("Test", 1, (step("a"),))
    assert plan.plan_hash == "476d6186955880abe5e6987aac6f54f7"
    assert "topic" not in plan.to_json()


def test_a_command_that_moves_to_another_topic_keeps_its_hash() -> None:
    """Where its participant listens may change under sagas in flight; what it returns may not."""
    plan = Plan("Test", 1, (command("a"),))
    assert Plan("Test", 1, (command("a", topic="x", compensation_topic="y"),)).plan_hash == plan.plan_hash
    assert Plan("Test", 1, (command("a", rejects_type="Gone"),)).plan_hash != plan.plan_hash
    assert Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize(
    ("story", "headline"),
    [
        (
            lambda: given(TRIP).builds(),
            AWAITED,
        ),
        (lambda: given(TRIP).builds().wakes(), "Running: book is sent again in 1 s."),
        (
            lambda: given(saga_of(command("book"), step("c"))).sent_and_done("book").rejects("c").builds(),
            "Compensating: book is being undone by a command to book.undo (attempt 1, 10 s left).",
        ),
    ],
)
def test_a_command_is_told_in_words(story: Any, headline: str) -> None:
    """Where it went and how long a reply is awaited."""
    told = story()
    assert explain(told.plan, told.saga, told.now).headline == headline


@pytest.mark.parametrize(
    ("options", "then"),
    [
        ({}, "it is sent again with the same key, as long as its retries allow"),
        ({"has_probe": True}, "it is asked whether it landed"),
        ({"at_most_once": True}, "a person is called"),
        ({"at_most_once": True, "on_unknown": "backward"}, "it is undone"),
    ],
)
def test_what_follows_silence_is_told(options: dict[str, Any], then: str) -> None:
    """Before it happens."""
    story = given(saga_of(command("book", **options), pivot("p"))).builds()
    assert f"If nobody replies for book in 10 s, {then}." in explain(story.plan, story.saga, story.now).next
