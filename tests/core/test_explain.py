"""What a person is told: why a saga is where it is, what happens next, what they may do, what a rollback would do."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from atone._core import facts
from atone._core.explain import Explanation, explain, span
from tests.core.driver import (
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

ORDER = saga_of(step("reserve"), step("pay"), pivot("ship"), retriable("confirm"))


def _told(story: Story, *, later: float = 0.0) -> Explanation:
    return explain(story.plan, story.saga, story.now + later)


def _may(story: Story) -> set[str]:
    words = {True: " landed", False: " not landed", None: ""}
    return {f"{one.command} {one.step or ''}{words[one.landed]}".strip() for one in _told(story).may}


@pytest.mark.parametrize(
    ("story", "headline"),
    [
        (lambda: given(ORDER, may_start=False), "Pending: nothing has run yet."),
        (lambda: given(ORDER), "Running: reserve is being called (attempt 1, 10 s left)."),
        (
            lambda: given(saga_of(step("a", has_probe=True))).breaks("a"),
            "Running: a is being asked whether it landed (attempt 1, 10 s left).",
        ),
        (lambda: given(ORDER).breaks("reserve"), "Running: reserve is called again in 1 s."),
        (
            lambda: given(saga_of(step("a", has_probe=True))).breaks("a").breaks("a"),
            "Running: a is asked whether it landed in 1 s.",
        ),
        (lambda: given(saga_of(delay("cool", 7200.0))), "Running: cool ends in 2 h."),
        (lambda: given(saga_of(event("paid", 60.0))), "Running: paid waits for event 'paid', 60 s left."),
        (lambda: given(saga_of(step("a"), step("b", has_when=True))).succeeds("a"), "Running: b asks its `when`."),
        (
            lambda: given(fan(step("a"), step("b"))),
            "Running: a is being called (attempt 1, 10 s left), and 1 more.",
        ),
        (
            lambda: given(ORDER).succeeds("reserve").rejects("pay"),
            "Compensating: reserve is being undone (attempt 1, 10 s left).",
        ),
        (
            lambda: given(ORDER).succeeds("reserve").rejects("pay").breaks("reserve"),
            "Compensating: reserve is undone again in 1 s.",
        ),
        (
            lambda: given(ORDER).breaks("reserve").asked("cancel"),
            "Compensating: reserve may still land, so it is undone in 15 s at the earliest.",
        ),
        (
            lambda: given(fan(step("a"), step("b"))).rejects("a"),
            "Compensating: b is being called (attempt 1, 10 s left).",
        ),
        (lambda: given(ORDER).succeeds("reserve", "pay").gives_up("ship"), "Needs attention: ship."),
        (lambda: given(ORDER).parks("its row can't be read"), "Needs attention: the saga as a whole."),
        (
            lambda: given(ORDER).succeeds("reserve", "pay", "ship", "confirm"),
            "Completed: every step has succeeded or was skipped.",
        ),
        (
            lambda: given(ORDER).succeeds("reserve").rejects("pay").undoes("reserve"),
            "Compensated: what it had done was undone.",
        ),
        (
            lambda: given(ORDER).asked("terminate"),
            "Failed: effects may stand, by a person's decision (terminated by ann: because).",
        ),
    ],
)
def test_one_line_says_where_a_saga_is(story: Callable[[], Story], headline: str) -> None:
    """Each status, and each reason to wait, in the project's words."""
    assert _told(story()).headline == headline


def test_a_draining_worker_leaves_a_saga_that_is_about_to_go_on() -> None:
    """Nothing runs, nothing is due: the next owner begins."""
    story = given(ORDER)
    story.may_start = False
    assert _told(story.succeeds("reserve")).headline == "Running: pay is about to begin."
    assert _told(story.asked("cancel")).headline == "Compensating: it is about to go on."


def test_times_are_counted_from_now() -> None:
    """The same saga, looked at later."""
    story = given(ORDER).breaks("reserve", retry_after=90.0)
    assert _told(story, later=60.0).headline == "Running: reserve is called again in 30 s."
    assert _told(story, later=600.0).headline == "Running: reserve is called again in 0 s."


def test_it_says_why_a_saga_turned_back() -> None:
    """The cause, who asked, and what is in doubt."""
    why = _told(given(ORDER).breaks("reserve").asked("cancel")).why
    assert why == (
        "It turned back (cancel by ann): because.",
        "reserve may have landed: an attempt ended without an answer.",
        "reserve last met ConnectionError: no answer.",
    )


def test_it_says_why_a_person_is_needed() -> None:
    """With what was met, and that nothing happens by itself."""
    told = _told(given(ORDER).succeeds("reserve").rejects("pay").gives_up("reserve"))
    assert "reserve needs a person: its compensation failed 2 times: ConnectionError: no answer." in told.why
    assert told.next == ("Nothing happens until a person decides, or until what was missing comes late after all.",)
    told = _told(given(ORDER).parks("its row can't be read"))
    assert told.why[0] == "It was parked as a whole: its row can't be read."


def test_it_says_which_request_has_no_answer_yet() -> None:
    """A cancel that waits for the pivot."""
    story = given(ORDER).succeeds("reserve", "pay").asked("cancel")
    assert "A cancel by ann has not been answered yet: because." in _told(story).why


def test_it_says_which_undo_was_skipped() -> None:
    """And by whom."""
    story = given(ORDER).succeeds("reserve", "pay").rejects("ship").gives_up("pay").asked("skip", step="pay")
    assert "The undo of pay was skipped by ann: because." in _told(story).why


def test_a_final_saga_has_no_next_and_nothing_applies() -> None:
    """It is over."""
    told = _told(given(ORDER).succeeds("reserve", "pay", "ship", "confirm"))
    assert (told.next, told.may) == ((), ())


def test_it_says_what_comes_next_going_forward() -> None:
    """What is under way, what comes after, and what the deadline does."""
    plan = saga_of(step("reserve"), event("paid", 60.0), pivot("ship"), deadline_seconds=600.0)
    assert _told(given(plan).succeeds("reserve")).next == (
        "paid waits for event 'paid', 60 s left.",
        "After that: ship.",
        "If event 'paid' does not come in 60 s, the saga turns back.",
        "If it has not begun its point of no return, ship, in 10 min, its deadline turns it back.",
    )
    plan = saga_of(event("paid", 60.0, on_timeout="attention"), deadline_seconds=90.0)
    assert _told(given(plan)).next[1:] == (
        "If event 'paid' does not come in 60 s, a person is called.",
        "If it is not over in 90 s, its deadline turns it back.",
    )


@pytest.mark.parametrize(
    ("story", "says"),
    [
        (lambda: given(ORDER).succeeds("reserve", "pay"), "is under way: the saga turns back only if it is rejected"),
        (lambda: given(ORDER).succeeds("reserve", "pay").breaks("ship"), "may have landed: only a person can still"),
        (lambda: given(ORDER).succeeds("reserve", "pay", "ship"), "has passed: it only goes forward"),
    ],
)
def test_it_says_that_there_is_no_way_back(story: Callable[[], Story], says: str) -> None:
    """Under way, in doubt, and passed are three different things."""
    assert f"The point of no return, ship, {says}" in _told(story()).next[-1]


def test_it_says_what_comes_next_going_backward() -> None:
    """What is left to undo, what is stuck, and when the rollback must be over."""
    plan = saga_of(step("a"), step("b"), step("c"), step("d"), rollback_deadline_seconds=60.0)
    story = given(plan).succeeds("a", "b", "c").rejects("d").gives_up("c")
    assert _told(story).next == (
        "b is being undone (attempt 1, 10 s left).",
        "Still to be undone, in this order: a.",
        "Then it needs attention, for c.",
        "No undo is tried again after its rollback's deadline, in 59 s.",
    )


@pytest.mark.parametrize(
    ("story", "may"),
    [
        (lambda: given(ORDER), {"cancel", "terminate"}),
        (
            lambda: given(ORDER).breaks("reserve"),
            {
                "cancel",
                "terminate",
                "retry reserve",
                "resolve reserve landed",
                "resolve reserve not landed",
                "skip reserve",
            },
        ),
        (lambda: given(saga_of(delay("d", 9.0))), {"cancel", "terminate", "skip d"}),
        (
            lambda: given(ORDER).succeeds("reserve", "pay").gives_up("ship"),
            {"cancel", "terminate", "retry ship", "resolve ship landed", "resolve ship not landed"},
        ),
        (
            lambda: given(ORDER).succeeds("reserve", "pay", "ship").breaks("confirm"),
            {"terminate", "retry confirm", "resolve confirm landed", "skip confirm"},
        ),
        (
            lambda: given(ORDER).succeeds("reserve").rejects("pay").gives_up("reserve"),
            {"terminate", "retry reserve", "resolve reserve landed", "skip reserve"},
        ),
        (lambda: given(ORDER).parks("its row can't be read"), {"cancel", "retry", "terminate"}),
        (
            lambda: given(saga_of(step("a", has_when=True))).tells(facts.ConditionFailed("a", OOPS)),
            {"cancel", "terminate", "retry a", "skip a"},
        ),
    ],
)
def test_it_names_the_commands_that_apply(story: Callable[[], Story], may: set[str]) -> None:
    """No more, for each would be refused, and no fewer."""
    assert _may(story()) == may


def _does(story: Story, command: str, landed: bool | None = None) -> str:
    return next(one.does for one in _told(story).may if one.command == command and one.landed is landed)


def test_it_says_what_each_command_would_do() -> None:
    """Before it is given."""
    doubt = given(saga_of(step("a"), step("b", at_most_once=True))).succeeds("a").breaks("b")
    assert _does(doubt, "cancel") == "turns it back: undo b, a"
    assert _does(doubt, "retry") == "calls it again although it may have landed, so it may have its effect twice"
    assert "with the result" in _does(doubt, "resolve", landed=True)
    assert _does(doubt, "resolve", landed=False) == "takes it as not landed, and turns the saga back"
    assert "still undoes it" in _does(doubt, "skip")
    stuck = given(ORDER).succeeds("reserve").rejects("pay").gives_up("reserve")
    assert _does(stuck, "retry") == "undoes it again now, with new attempts"
    assert _does(stuck, "resolve", landed=True) == "takes it as undone"
    assert "end as failed" in _does(stuck, "skip")
    probed = given(saga_of(step("a", has_probe=True))).breaks("a")
    probed.tells(facts.Impossible("a", PROBE, 1, OOPS))
    assert "asks again" in _does(probed, "retry")
    back = given(saga_of(step("a"), step("b"))).succeeds("a").breaks("b").asked("cancel")
    assert "not undone" in _does(back, "resolve", landed=False)
    assert "and undoes it" in _does(back, "resolve", landed=True)
    late = given(saga_of(event("paid", 5.0, on_timeout="attention"))).wakes()
    assert _does(late, "retry") == "begins its wait anew"
    raised = given(saga_of(step("a", has_when=True))).tells(facts.ConditionFailed("a", OOPS))
    assert _does(raised, "retry") == "begins it anew"
    assert _does(given(ORDER), "cancel") == "turns it back: undo reserve"
    assert "is kept" in _does(given(ORDER).succeeds("reserve", "pay"), "cancel")
    assert "nothing to undo" in _does(given(saga_of(delay("d", 9.0))), "cancel")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-3.0, "0 s"), (1.25, "1.25 s"), (119.0, "119 s"), (300.0, "5 min"), (9000.0, "2.5 h"), (2e5, "2.31 d")],
)
def test_times_read_as_people_say_them(seconds: float, said: str) -> None:
    """Nobody counts 9,000 seconds."""
    assert span(seconds) == said
