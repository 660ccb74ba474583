"""What is wrong with a choreography as a whole: each finding in a map that has it, and gone when the line is added."""

from __future__ import annotations

from dataclasses import replace

import pytest

from atone._core import event_worlds
from atone._core.event_checks import CODES, findings
from atone._core.event_map import Bound, EventMap, EventSpec, Expectation, Handler
from atone._core.event_worlds import worlds
from tests.choreography.maps import handler, the_map, undo
from tests.choreography.order_events import orders

# A sound map: a is done, then b may fail, which undoes it; p is told of the failure and ends the saga.
DO = handler("x.do", "a", "b")
UNDO = undo("x.undo_do", "do", "no.c", "released")
GO = handler("y.go", "b", "z|no.c")
END = handler("p.end", "no.c", "undone")
SOUND = (DO, UNDO, GO, END)


def codes(event_map: EventMap) -> list[tuple[str, str]]:
    return [(one.code, one.where) for one in findings(event_map)]


def test_a_sound_map_has_no_findings() -> None:
    """Neither the small one nor the order choreography."""
    assert codes(the_map(*SOUND)) == []
    assert codes(orders.event_map) == []


PLAIN = handler("x.do", "a", "z")

# A time-out: x waits for y's payment, which others may have heard of when x has not.
LATE = Expectation(5, ("paid",), "no.late")
WAITS = replace(DO, expects=LATE)
UNDO_WAITING = undo("x.undo_do", "do", "no.late", "released")
PAY = handler("y.pay", "b", "paid")
REPAY = undo("y.repay", "pay", "no.late", "repaid")
STOP = handler("p.end", "no.late", "undone")

BROKEN: dict[str, tuple[EventMap, str, list[tuple[str, str]]]] = {
    "an event that nobody listens to": (
        the_map(handler("x.do", "a", "z+extra")),
        "@reacts(extra)",
        [("nobody_listens", "extra")],
    ),
    "a start that nobody listens to": (
        the_map(PLAIN, starts="a q"),
        "q begins sagas",
        [("nobody_listens", "q"), ("never_completes", "q")],
    ),
    "a time-out that nobody listens to": (
        the_map(handler("x.do", "a", "b", expects=Expectation(5, ("z",), "late")), handler("y.go", "b", "z")),
        "publishes late",
        [("nobody_listens", "late"), ("never_completes", "b")],
    ),
    "an event that nobody publishes": (
        the_map(PLAIN, handler("y.hear", "ghost")),
        "emits=(ghost,)",
        [("nobody_emits", "ghost")],
    ),
    "an end that nobody publishes": (
        the_map(PLAIN, completes="z other"),
        "other ends sagas",
        [("nobody_emits", "other")],
    ),
    "something expected that nobody publishes": (
        the_map(handler("x.do", "a", "z", expects=Expectation(5, ("ghost",), "undone"))),
        "x.do waits for ghost",
        [("nobody_emits", "ghost"), ("expects_nothing", "x.do")],
    ),
    "no undo": (the_map(DO, GO, END), "@do.undo(no.c)", [("no_undo", "x.do")]),
    "an undo that does not hear of a failure": (
        the_map(*SOUND, handler("v.veto", "b", "no.veto"), handler("p.stop", "no.veto", "undone")),
        "Add: no.veto to @do.undo",
        [("failure_misses_undo", "x.do"), ("no_undo", "y.go"), ("ends_twice", "z")],
    ),
    "a compensating end without a failure": (
        the_map(handler("x.do", "a", "b"), handler("y.go", "b", "z|undone")),
        "undone",
        [("no_undo", "x.do"), ("no_undo", "y.go")],
    ),
    "a failure after the point of no return": (
        the_map(replace(DO, pivot=True), GO, END),
        "point of no return",
        [("failure_after_pivot", "x.do")],
    ),
    "a failure beside the point of no return": (
        the_map(
            handler("s.ship", "a", "z", pivot=True),
            handler("y.pay", "a", "paid|no.pay"),
            handler("y.ok", "paid"),
            handler("p.end", "no.pay", "undone"),
        ),
        "after=(...,)",
        [("failure_after_pivot", "s.ship")],
    ),
    "a time-out that meets the point of no return": (
        the_map(WAITS, UNDO_WAITING, PAY, REPAY, STOP, handler("s.ship", "paid", "z", pivot=True)),
        "Move expects= from x.do to a reaction of s, for what ship runs on: its own row has",
        [("timeout_meets_pivot", "s.ship")],
    ),
    "a time-out that meets an end": (
        the_map(
            WAITS,
            UNDO_WAITING,
            PAY,
            REPAY,
            STOP,
            handler("s.ship", "paid", "z"),
            undo("s.recall", "ship", "no.late", "r"),
        ),
        "s.ship completes the saga, and no.late may come all the same",
        [("timeout_meets_pivot", "s.ship")],
    ),
    "a way that stops": (
        the_map(handler("x.do", "a", "b|"), handler("y.go", "b", "z"), compensates=""),
        "after a nothing leads to one of completes",
        [("never_completes", "a")],
    ),
    "completed and failed": (
        the_map(
            handler("x.do", "a", "z", no_undo="sample"), handler("y.go", "a", "ok|no.c"), handler("y.ok", "ok"), END
        ),
        "completed and fail",
        [("ends_twice", "z")],
    ),
    "a cycle": (
        the_map(handler("x.do", "a d", "b"), handler("y.go", "b", "z|d")),
        "at_most=times(3",
        [("unbounded_cycle", "x.do")],
    ),
    "a silent undo": (
        the_map(DO, handler("x.undo_do", "no.c", "", undo_of="do"), GO, END),
        "publish nothing",
        [("silent_undo", "x.undo_do")],
    ),
    "an undo that fails": (
        the_map(DO, undo("x.undo_do", "do", "no.c", "no.back"), GO, END, handler("p.stop", "no.back", "undone")),
        "Raise instead",
        [("undo_fails", "x.undo_do")],
    ),
    "an undo on the way forward": (
        the_map(DO, undo("x.undo_do", "do", "b no.c", "released"), GO, END),
        "failure=True",
        [("undo_on_the_way_forward", "x.undo_do")],
    ),
    "an event for both ways": (
        the_map(
            *SOUND[:3],
            handler("p.end", "no.c", "undone+told"),
            handler("p.tell", "a", "told"),
            handler("p.hear", "told"),
        ),
        "way back by p.end",
        [("both_ways", "told"), ("no_undo", "p.tell"), ("no_undo", "p.hear")],
    ),
    "an undo that waits": (
        the_map(*SOUND[:3], handler("x.end", "no.c", "undone", after=("released",))),
        "Let end listen to released instead",
        [("undo_waits", "x.undo_do")],
    ),
    "a reaction that never runs": (
        the_map(
            handler("x.do", "a", "b|c"),
            handler("y.b", "b", "z"),
            handler("y.c", "c", "z"),
            handler("q.both", "b", after=("c",)),
        ),
        "q.both never runs",
        [("never_runs", "q.both")],
    ),
    "an expectation that can't be met": (
        the_map(
            handler("x.do", "a", "b|c"),
            handler("y.b", "b", "z"),
            handler("y.c", "c", "z+d"),
            handler("q.d", "d"),
            handler("w.w", "b", expects=Expectation(5, ("d",), "late")),
            handler("q.late", "late"),
        ),
        "would always be overdue",
        [("expects_nothing", "w.w")],
    ),
    "no start": (the_map(PLAIN, starts=""), "starts=", [("no_start", "sample"), ("nobody_emits", "a")]),
    "no end": (the_map(PLAIN, completes=""), "completes=", [("no_end", "sample"), ("nobody_listens", "z")]),
    "no compensating end": (
        the_map(handler("x.do", "a", "z|no.c"), handler("p.end", "no.c"), compensates=""),
        "compensates=",
        [("no_compensating_end", "sample")],
    ),
    "a failure called an end": (
        the_map(handler("x.do", "a", "no.z", no_undo="sample"), handler("p.end", "no.z", "undone"), completes="no.z"),
        "no.z is a failure",
        [("failure_as_end", "no.z"), ("ends_twice", "undone")],
    ),
}


@pytest.mark.parametrize("wrong", BROKEN)
def test_what_is_wrong_is_found(wrong: str) -> None:
    """These findings and no other; the message names the line to add."""
    event_map, line, expected = BROKEN[wrong]

    assert codes(event_map) == expected
    assert any(line in one.message for one in findings(event_map))


def test_a_way_back_that_stops_is_found() -> None:
    """One failure is heard by somebody who does nothing about it."""
    deaf = the_map(
        DO,
        replace(UNDO, listens=("no.c", "no.d")),
        handler("y.go", "b", "z|no.c|no.d"),
        END,
        handler("q.hears", "no.d"),
    )
    assert codes(deaf) == [("never_compensates", "released")]
    assert codes(replace(deaf, handlers=(*deaf.handlers[:-1], handler("q.hears", "no.d", "undone")))) == []


def test_two_of_one_name_are_found() -> None:
    """Two events, two participants."""
    sound = the_map(*SOUND)
    events = (*sound.events, EventSpec("a", version=2))
    assert codes(replace(sound, events=events)) == [("duplicate_event", "a")]
    assert codes(replace(sound, participants=("x", "y", "p", "x"))) == [("duplicate_participant", "x")]


def test_a_bounded_cycle_is_no_finding() -> None:
    """With a bound and what follows it, every way ends."""
    again = handler("y.go", "b d", "z|d", at_most=Bound(3, "no.c"), no_undo="sample")
    assert codes(the_map(DO, UNDO, again, END)) == []


def test_what_follows_a_reached_bound_is_walked_too() -> None:
    """Giving up is a failure like any other: what was done before it needs an undo."""
    again = handler("y.go", "b d", "z|d", at_most=Bound(3, "no.c"), no_undo="sample")
    assert codes(the_map(DO, again, END)) == [("no_undo", "x.do")]


def test_what_never_comes_is_overdue() -> None:
    """In a branch where the expected event can't come, the time-out does, and ends the saga."""
    late = Expectation(5, ("d",), "no.late")
    branches = (
        handler("y.b", "b", "d", no_undo="sample"),
        handler("x.d", "d", "z"),
        handler("w.c", "c", no_undo="sample"),
    )
    do = handler("x.do", "a", "b|c", expects=late, no_undo="sample")
    assert codes(the_map(do, *branches, handler("p.end", "no.late", "undone"))) == []


def test_a_failure_is_judged_by_itself_where_a_time_out_might_come_too() -> None:
    """The time-out that would end the saga is off once it has turned back, so the failure needs an end of its own."""
    do = replace(DO, expects=Expectation(5, ("z",), "no.late"), no_undo="sample")
    go = replace(GO, participant="x", no_undo="sample")  # who has completed it tells of no time-out
    ends = (handler("p.end", "no.late", "undone"), handler("q.hears", "no.c"))
    assert codes(the_map(do, go, *ends)) == [("never_compensates", "no.c")]


def test_on_the_way_back_a_reaction_runs_once_for_all_failures() -> None:
    """As the guard has it: two failures of one saga cancel it once."""
    both = the_map(handler("x.do", "a", "no.c+no.d"), handler("p.end", "no.c no.d", "undone|told"), completes="")
    assert len(worlds(both) or ()) == 2


def test_an_end_is_reached_through_what_undos_publish() -> None:
    """Whoever ends the saga when the stock is back reacts to the undo's event; without it, it would not end."""
    back = handler("p.end", "released", "undone")
    assert codes(the_map(DO, UNDO, GO, back)) == []
    nothing_done = the_map(handler("x.do", "a", "b|no.c"), UNDO, handler("y.go", "b", "z|no.c"), back)
    assert codes(nothing_done) == [("never_compensates", "no.c")]


def test_what_a_failure_overtakes_is_never_done_and_so_never_undone() -> None:
    """An end that waits for an undo's event is not reached where the failure came before the work that it undoes."""
    do = handler("x.do", "a", "b")
    undone = undo("x.undo_do", "do", "no.c", "released")
    beside = handler("y.go", "a", "ok|no.c", no_undo="sample")
    joined = handler("s.join", "b", "z", after=("ok",))
    event_map = the_map(do, undone, beside, joined, handler("p.end", "released", "undone"))
    assert codes(event_map) == [("never_compensates", "no.c")]
    assert "x.do: too late for it" in findings(event_map)[0].message
    assert codes(the_map(do, undone, beside, joined, handler("p.end", "no.c", "undone"))) == []


def test_a_time_out_must_be_undone_by_whoever_was_only_slow() -> None:
    """The payment may come right after its time was over: it has an undo that hears of that, or it is a finding."""
    slow = (WAITS, UNDO_WAITING, handler("y.pay", "b", "paid"), handler("x.close", "paid", "z"), STOP)
    assert codes(the_map(*slow)) == [("no_undo", "y.pay")]
    assert codes(the_map(*slow, REPAY)) == []


def test_whoever_has_the_point_of_no_return_may_expect() -> None:
    """It has heard of the payment, or told that it did not, in one row of its own; so never both."""
    ship = handler("s.ship", "paid", "z", pivot=True)
    wait = handler("s.wait", "b", no_undo="sample", expects=LATE)
    plain = (replace(WAITS, expects=None), UNDO_WAITING, PAY, REPAY, STOP)
    assert codes(the_map(*plain, wait, ship)) == []
    assert codes(the_map(*plain, replace(wait, participant="q"), ship)) == [("timeout_meets_pivot", "s.ship")]


def test_whoever_expects_may_give_the_word_to_go_on() -> None:
    """The pivot is another's, and runs on what the one who expects says: that, or the time-out."""
    told = (WAITS, UNDO_WAITING, PAY, REPAY, STOP, handler("x.tell", "paid", "go", no_undo="sample"))
    assert codes(the_map(*told, handler("s.ship", "go", "z", pivot=True))) == []
    assert codes(the_map(*told, handler("s.ship", "go", "z", pivot=True, after=("paid",)))) == []
    assert codes(the_map(*told, handler("s.ship", "paid", "z", pivot=True, after=("b",)), handler("q.go", "go"))) == [
        ("timeout_meets_pivot", "s.ship")
    ]


def test_the_pivot_of_the_one_who_expects_has_to_come_after_what_it_expects() -> None:
    """It need not have heard of the payment for a pivot that runs on something else."""
    ship, close = handler("x.ship", "packed", "sent", pivot=True), handler("q.close", "sent", "z")
    packed = (WAITS, UNDO_WAITING, PAY, REPAY, STOP, handler("w.pack", "paid", "packed", no_undo="sample"))
    found = findings(the_map(*packed, ship, close))
    assert [(one.code, one.where) for one in found] == [("timeout_meets_pivot", "x.ship")]
    assert "Let ship come after it: after=(paid,)" in found[0].message
    assert codes(the_map(*packed, replace(ship, after=("paid",)), close)) == []
    assert (
        codes(the_map(*packed, replace(ship, emits=("z",), outcomes=(("z",),)))) == []
    )  # it has ended the saga itself


def test_a_time_out_that_turns_nothing_back_is_followed_by_what_it_waited_for() -> None:
    """It is a reminder: the payment may come after it, and all that follows is walked."""
    reminds = replace(WAITS, expects=Expectation(5, ("paid",), "late"))
    mild = (reminds, PAY, handler("s.ship", "paid", "z"), handler("m.remind", "late"))
    assert codes(the_map(*mild)) == [("never_completes", "b")]
    assert codes(the_map(*mild[:-1], handler("m.remind", "late", "z"))) == []
    risky = (*mild[:-1], handler("m.give_up", "late", "z|no.more"), handler("p.end", "no.more", "undone"))
    assert ("timeout_meets_pivot", "s.ship") in codes(the_map(*risky))


def test_alternatives_are_not_mixed() -> None:
    """A failure of one branch asks for no undo in the other, which it can't meet."""
    left = handler("l.go", "left", "z")
    right = (handler("r.go", "right", "r2", no_undo="sample"), handler("r.then", "r2", "z|no.c"), END)
    assert codes(the_map(handler("x.do", "a", "left|right", no_undo="sample"), left, *right)) == []
    both = the_map(handler("x.do", "a", "left+right", no_undo="sample"), left, *right)
    assert codes(both) == [("no_undo", "l.go"), ("ends_twice", "z")]


def test_too_many_ways_are_not_walked() -> None:
    """The walk is bounded, and says so instead of a half-truth."""
    branches = [handler(f"p{at}.go", "a", f"l{at}|r{at}|m{at}") for at in range(9)]
    wide = the_map(*branches, handler("e.end", "l0 m0 r0", "z"))
    assert codes(wide)[-1] == ("too_many_ways", "sample")
    assert worlds(wide) is None


def test_a_walk_that_is_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few ways may take long to find; that is the same finding."""
    monkeypatch.setattr(event_worlds, "STEPS_MAX", 5)
    assert codes(the_map(*SOUND)) == [("too_many_ways", "sample")]


def test_every_code_has_a_case_here() -> None:
    """No rule is without a map that breaks it."""
    found = {code for event_map, _, _ in BROKEN.values() for code, _ in codes(event_map)}
    elsewhere = {"never_compensates", "duplicate_event", "duplicate_participant", "too_many_ways"}
    assert found | elsewhere == set(CODES)


def test_a_map_survives_json_and_its_hash_ignores_what_may_change() -> None:
    """Stored and read again it is the same; a retry policy doesn't change its hash, an edge does."""
    event_map = replace(
        orders.event_map,
        handlers=(*orders.event_map.handlers, handler("x.y", "order.placed", at_most=Bound(2, "order.shipped"))),
    )
    again = EventMap.from_json(event_map.to_json())
    assert again == event_map
    assert hash(again) == hash(event_map)

    def changed(**values: object) -> EventMap:
        first: Handler = replace(event_map.handlers[0], **values)
        return replace(event_map, handlers=(first, *event_map.handlers[1:]))

    assert changed(timeout_seconds=1.0).map_hash == event_map.map_hash
    assert changed(after=("stock.reserved",)).map_hash != event_map.map_hash
    with pytest.raises(ValueError, match="not written by Atone"):
        EventMap.from_json('{"events": 1}')
