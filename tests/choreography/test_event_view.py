"""A choreographed saga as its events tell it: status, what is missing, what a person should look at; in any order."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atone._core.event_map import Bound, Expectation
from atone._core.event_view import Missing, Parked, Seen, View, view
from atone._core.state import SagaStatus
from tests.choreography.maps import handler, the_map
from tests.choreography.network import Network
from tests.choreography.order_events import orders

ORDERS = orders.event_map
PLACED = Seen("1", "order.placed", 100.0)
RESERVED = Seen("2", "stock.reserved", 101.0, "inventory", "1")
TAKEN = Seen("3", "payment.taken", 102.0, "payments", "2")
SHIPPED = Seen("4", "order.shipped", 103.0, "shipping", "3")
DECLINED = Seen("5", "payment.declined", 102.0, "payments", "2")
CANCELLED = Seen("6", "order.cancelled", 103.0, "orders", "5")
RELEASED = Seen("7", "stock.released", 104.0, "inventory", "5")
OUT = Seen("8", "stock.out", 101.0, "inventory", "1")


def told(*seen: Seen, parked: tuple[Parked, ...] = (), now: float = 105.0) -> View:
    return view(ORDERS, seen, parked, now=now)


def awaited(found: View) -> list[tuple[str, tuple[str, ...]]]:
    return [(one.of, one.events) for one in found.missing]


# Status


@pytest.mark.parametrize(
    ("seen", "status"),
    [
        ((), SagaStatus.PENDING),
        ((PLACED,), SagaStatus.RUNNING),
        ((PLACED, RESERVED, TAKEN), SagaStatus.RUNNING),
        ((PLACED, RESERVED, TAKEN, SHIPPED), SagaStatus.COMPLETED),
        ((SHIPPED,), SagaStatus.COMPLETED),
        ((PLACED, RESERVED, DECLINED), SagaStatus.COMPENSATING),
        ((PLACED, OUT), SagaStatus.COMPENSATING),
        ((PLACED, RESERVED, DECLINED, RELEASED), SagaStatus.COMPENSATING),
        ((PLACED, RESERVED, DECLINED, CANCELLED, RELEASED), SagaStatus.COMPENSATED),
        ((PLACED, OUT, Seen("9", "order.cancelled", 102.0, "orders", "8")), SagaStatus.COMPENSATED),
    ],
)
def test_a_status_follows_what_was_seen(seen: tuple[Seen, ...], status: SagaStatus) -> None:
    """In the words of every saga, orchestrated or not."""
    assert told(*seen).status is status


def test_a_saga_is_not_compensated_before_every_undo_was_seen() -> None:
    """The order is cancelled and the stock is still held: it says so, and what is missing."""
    found = told(PLACED, RESERVED, DECLINED, CANCELLED)
    assert found.status is SagaStatus.COMPENSATING
    assert awaited(found) == [("inventory.release", ("stock.released",))]
    assert found.ended_at is None


def test_what_was_never_done_is_not_awaited_to_be_undone() -> None:
    """Nothing was reserved, so nothing has to be released."""
    found = told(PLACED, OUT, Seen("9", "order.cancelled", 102.0, "orders", "8"))
    assert (found.status, found.missing) == (SagaStatus.COMPENSATED, ())


def test_start_and_end_are_told() -> None:
    """By the events' own times."""
    found = told(PLACED, RESERVED, TAKEN, SHIPPED)
    assert (found.started_at, found.ended_at) == (100.0, 103.0)
    assert told().started_at is None


# What is missing


def test_what_is_missing_says_who_should_publish_who_waits_and_since_when() -> None:
    """Stock was reserved: payments should say what became of the charge, and shipping waits for it for 30 seconds."""
    found = told(PLACED, RESERVED)
    waits = ("orders.cancel", "inventory.release", "shipping.prepare", "shipping.ship")
    assert found.missing == (
        Missing(("payment.taken", "payment.declined"), "payments.charge", waits, 101.0),
        Missing(("payment.taken", "payment.declined"), "shipping.prepare", ("shipping.prepare",), 101.0, 131.0),
    )


def test_what_came_is_not_missing() -> None:
    """An order that is shipped lacks nothing."""
    assert awaited(told(PLACED, RESERVED, TAKEN, SHIPPED)) == []


def test_what_belongs_to_the_way_forward_is_not_missed_on_the_way_back() -> None:
    """Nobody will charge any more, and nobody waits for it."""
    found = told(PLACED, RESERVED, Seen("9", "payment.overdue", 131.0, "shipping", "2"), CANCELLED)
    assert awaited(found) == [("inventory.release", ("stock.released",))]


def test_another_s_answer_is_no_answer() -> None:
    """An event of the right name counts for whoever published it, and for what led to it."""
    other = RESERVED._replace(id="9", source="payments")
    assert ("inventory.reserve", ("stock.reserved", "stock.out")) in awaited(told(PLACED, other))
    other = RESERVED._replace(id="9", cause="somewhere else")
    assert ("inventory.reserve", ("stock.reserved", "stock.out")) in awaited(told(PLACED, other))
    foreign = RESERVED._replace(source="", cause="")
    assert "inventory.reserve" not in dict(awaited(told(PLACED, foreign, TAKEN)))


def test_nothing_is_expected_in_time_of_a_saga_that_turned_or_ended() -> None:
    """The payment is not waited for once the shipment was refused, or made."""
    refused = Seen("9", "shipment.refused", 103.0, "shipping", "3")
    assert [one.due_at for one in told(PLACED, RESERVED, refused).missing if one.due_at] == []
    assert [one.due_at for one in told(PLACED, RESERVED, SHIPPED).missing if one.due_at] == []


def test_two_failures_are_answered_by_one_cancellation() -> None:
    """What reacts to failures reacts once, so it is missed once."""
    overdue = Seen("9", "payment.overdue", 131.0, "shipping", "2")
    assert [one.of for one in told(PLACED, RESERVED, DECLINED, overdue, RELEASED).missing] == ["orders.cancel"]


def test_a_join_is_missed_when_both_its_events_were_seen() -> None:
    """Until then nobody could have run it."""
    joined = the_map(handler("s.ship", "paid", "z", after=("stocked",)), starts="paid stocked")
    paid, stocked = Seen("1", "paid", 1.0), Seen("2", "stocked", 7.0)
    assert view(joined, [paid], now=8.0).missing == ()
    (one,) = view(joined, [paid, stocked], now=8.0).missing
    assert (one.of, one.since) == ("s.ship", 7.0)


def test_each_round_of_a_cycle_is_missed_by_itself() -> None:
    """The second event has its own answer to come; giving up is an answer too."""
    cycle = the_map(
        handler("y.go", "a", "z|b", at_most=Bound(1, "q")), handler("y.again", "b", "a"), handler("q.q", "q")
    )
    seen = [Seen("1", "a", 1.0), Seen("2", "b", 2.0, "y", "1"), Seen("3", "a", 3.0, "y", "2")]
    (one,) = view(cycle, seen, now=4.0).missing
    assert (one.of, one.since) == ("y.go", 3.0)
    assert view(cycle, [*seen, Seen("4", "q", 4.0, "y", "3")], now=4.0).missing == ()


def test_each_run_has_its_own_time_and_clocks_need_not_agree() -> None:
    """One answer serves one run, even if its clock is behind; the second run still waits."""
    twice = the_map(
        handler("x.do", "a", "b", expects=Expectation(10, ("z",), "late")),
        handler("y.go", "b", "z"),
        handler("l.l", "late"),
    )
    seen = [Seen("1", "a", 1.0), Seen("2", "b", 2.0, "x", "1"), Seen("3", "z", 0.5, "y", "2")]
    assert view(replace(twice, completes=()), seen, now=4.0).missing == ()
    seen += [Seen("4", "a", 5.0), Seen("5", "b", 6.0, "x", "4")]
    due = [one.due_at for one in view(replace(twice, completes=()), seen, now=7.0).missing if one.due_at]
    assert due == [16.0]
    seen.append(Seen("6", "late", 16.0, "x", "4"))
    assert [one for one in view(replace(twice, completes=()), seen, now=17.0).missing if one.due_at] == []


# A person should look


def test_an_expected_event_that_is_overdue_needs_attention() -> None:
    """30 seconds after the reservation, and half a minute of grace: then nobody told that it timed out either."""
    assert told(PLACED, RESERVED, now=161.0).status is SagaStatus.RUNNING
    found = told(PLACED, RESERVED, now=161.1)
    assert found.status is SagaStatus.NEEDS_ATTENTION
    assert found.attention == ("shipping.prepare waits for payment.taken or payment.declined in vain",)
    assert told(PLACED, RESERVED, TAKEN, now=161.1).status is SagaStatus.RUNNING


def test_a_saga_without_an_end_in_time_needs_attention() -> None:
    """The whole has a deadline, whatever is missing."""
    assert told(PLACED, now=100 + 86_400 + 31).attention == ("it has not come to an end within 86400 s",)
    assert told(PLACED, RESERVED, TAKEN, SHIPPED, now=100 + 86_400 + 31).attention == ()


def test_a_parked_message_needs_attention_even_after_the_end() -> None:
    """It lies where it was parked until a person decides, and the timeline shows it."""
    parked = Parked("3", "payment.taken", "shipping", "no van", 102.5)
    found = told(PLACED, RESERVED, TAKEN, parked=(parked, parked))
    assert found.status is SagaStatus.NEEDS_ATTENTION
    assert found.attention == ("shipping has parked payment.taken: no van",)
    assert [(one.what, one.reason) for one in found.timeline][-1] == ("parked", "no van")
    assert told(PLACED, RESERVED, TAKEN, SHIPPED, parked=(parked,)).status is SagaStatus.NEEDS_ATTENTION


def test_completed_and_turned_back_needs_attention() -> None:
    """Both were published: whichever is told would be a lie."""
    found = told(PLACED, RESERVED, TAKEN, SHIPPED, DECLINED)
    assert found.status is SagaStatus.NEEDS_ATTENTION
    assert found.attention == ("order.shipped completed it, and payment.declined turned it back; settle it by hand",)


# Timeline


def test_the_timeline_tells_what_each_event_meant() -> None:
    """In the order of their times."""
    odd = Seen("x", "order.exploded", 101.5)
    kinds = [(one.name, one.what) for one in told(CANCELLED, odd, RELEASED, DECLINED, RESERVED, PLACED).timeline]
    assert kinds == [
        ("order.placed", "starts"),
        ("stock.reserved", "forward"),
        ("order.exploded", "unknown"),
        ("payment.declined", "failure"),
        ("order.cancelled", "compensates"),
        ("stock.released", "back"),
    ]
    assert told(SHIPPED).timeline[0].what == "completes"


# In any order


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 59), max_size=80), st.randoms(use_true_random=False), st.booleans())
def test_the_view_does_not_depend_on_order_or_number(draws: list[int], random: object, time_outs: bool) -> None:
    """What a network published gives one view, however it reaches it; and a quiet network misses nothing."""
    left = iter(draws)
    network = Network(ORDERS, lambda below: next(left, 0) % below)
    network.publish("order.placed")
    network.run(with_time_outs=time_outs)
    shuffled = [*network.log, *network.log[::2]]
    random.shuffle(shuffled)

    found = view(ORDERS, network.log, network.parked, now=50.0)

    assert view(ORDERS, shuffled, [*reversed(network.parked)], now=50.0) == found
    if not network.parked:
        failed = {one.name for one in network.log} & ORDERS.failures
        assert found.status is (SagaStatus.COMPENSATED if failed else SagaStatus.COMPLETED)
        assert not failed or not [one for one in found.missing if one.of.endswith((".release", ".refund"))]
    else:
        assert found.status is SagaStatus.NEEDS_ATTENTION


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 59), max_size=80))
def test_no_part_of_the_story_is_told_as_compensated_while_stock_is_held(draws: list[int]) -> None:
    """Whatever was seen so far: compensated means that what was seen to be done was seen to be undone."""
    left = iter(draws)
    network = Network(ORDERS, lambda below: next(left, 0) % below)
    network.publish("order.placed")
    network.run()
    for end in range(len(network.log) + 1):
        names = {one.name for one in network.log[:end]}
        if view(ORDERS, network.log[:end], now=50.0).status is SagaStatus.COMPENSATED:
            assert "stock.reserved" not in names or "stock.released" in names or names.isdisjoint({"payment.declined"})
            assert "order.cancelled" in names
