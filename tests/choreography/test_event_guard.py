"""What a participant does with an event: nothing twice, nothing late, nothing that can't be right, and all undone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atone._core.event_guard import (
    Decision,
    Defer,
    Ignore,
    Incoming,
    Known,
    Phase,
    Ran,
    Refuse,
    Run,
    Undo,
    Undoing,
    Why,
    did_something,
    expected,
    judge,
    phase_of,
)
from atone._core.event_map import Bound, EventMap, EventSpec, Expectation, Handler
from tests.choreography.maps import handler, the_map
from tests.choreography.network import Choose, Network
from tests.choreography.order_events import orders

ORDERS = orders.event_map
PLACED, RESERVED, OUT, TAKEN = (
    ("1", "order.placed"),
    ("2", "stock.reserved"),
    ("o", "stock.out"),
    ("3", "payment.taken"),
)
DECLINED, SHIPPED, CANCELLED = ("d", "payment.declined"), ("4", "order.shipped"), ("5", "order.cancelled")
REFUSED, OVERDUE = ("r", "shipment.refused"), ("6", "payment.overdue")


def knows(*heard: tuple[str, str], ran: tuple[Ran, ...] = (), published: tuple[str, ...] = ()) -> Known:
    return Known(heard, ran, frozenset(published))


def asked(participant: str, known: Known, event: tuple[str, str], event_map: EventMap = ORDERS) -> Decision:
    return judge(event_map, participant, known, Incoming(*event))


# The way forward


def test_an_event_runs_the_reactions_that_listen_to_it() -> None:
    """The first event that a participant hears of a saga is enough; nothing has to come before it."""
    assert asked("inventory", knows(), PLACED) == Run(("reserve",))
    assert asked("payments", knows(), RESERVED) == Run(("charge",))


def test_an_event_that_nothing_here_listens_to_is_only_remembered() -> None:
    """Inventory waits for the payment, and reacts to it in no way."""
    assert asked("inventory", knows(PLACED, ran=(Ran("reserve", "1"),)), TAKEN) == Run(())


@pytest.mark.parametrize("participant", ["inventory", "payments", "shipping", "orders"])
def test_c3_a_message_taken_in_before_is_a_duplicate(participant: str) -> None:
    """The seed released stock twice when an event came twice; the same message leads to nothing again."""
    for event in (PLACED, DECLINED, CANCELLED, SHIPPED):
        assert asked(participant, knows(event), event) == Ignore(Why.DUPLICATE)


def test_another_start_of_the_same_saga_is_a_duplicate() -> None:
    """A start that was published anew, under a new id, reserves nothing a second time."""
    assert asked("inventory", knows(PLACED, ran=(Ran("reserve", "1"),)), ("9", "order.placed")) == Ignore(Why.DUPLICATE)


def test_two_events_of_one_name_both_run() -> None:
    """What is published once for each item is reacted to once for each: only the message's id tells a duplicate."""
    known = knows(RESERVED, ran=(Ran("charge", "2"),))
    assert asked("payments", known, ("9", "stock.reserved")) == Run(("charge",))


# Late


@pytest.mark.parametrize("turned", [DECLINED, OVERDUE, ("8", "stock.released"), ("8", "payment.refunded")])
def test_c4_what_belongs_to_the_way_forward_is_late_once_the_saga_turned_back(turned: tuple[str, str]) -> None:
    """The seed's late shipment overwrote "cancelled"; here nothing goes forward that knows of the way back."""
    assert asked("orders", knows(turned), SHIPPED) == Ignore(Why.LATE)
    assert asked("shipping", knows(turned), TAKEN) == Ignore(Why.LATE)
    assert asked("inventory", knows(turned), PLACED) == Ignore(Why.LATE)


def test_c4_a_late_shipment_leaves_a_cancelled_order_cancelled() -> None:
    """When the order is cancelled for good, the late event is one for a saga that is over."""
    assert asked("orders", knows(DECLINED, CANCELLED), SHIPPED) == Ignore(Why.ENDED)


def test_what_i_published_myself_counts_before_i_hear_it() -> None:
    """Payments declined; its own event is still on its way back to it, and the next forward event is late already."""
    known = knows(RESERVED, ran=(Ran("charge", "2", did=False),), published=("payment.declined",))
    assert asked("payments", known, ("9", "stock.reserved")) == Ignore(Why.LATE)


# The way back


def test_a_failure_undoes_what_was_done_here() -> None:
    """The undo is handed the run, so that it can be handed what that run returned."""
    ran = Ran("reserve", "1")
    assert asked("inventory", knows(PLACED, ran=(ran,)), DECLINED) == Undo((Undoing("release", ran),))


def test_where_nothing_was_done_nothing_is_undone_and_the_original_is_late() -> None:
    """A failure that overtakes the order finds nothing to release; the order that comes after it reserves nothing."""
    assert asked("inventory", knows(), DECLINED) == Run(())
    assert asked("inventory", knows(DECLINED), PLACED) == Ignore(Why.LATE)


@pytest.mark.parametrize("ran", [Ran("reserve", "1", did=False), Ran("reserve", "1", undone=True)])
def test_a_run_without_effect_or_undone_before_is_not_undone(ran: Ran) -> None:
    """A reservation that failed left nothing, and one that was released is released once."""
    assert asked("inventory", knows(PLACED, ran=(ran,)), DECLINED) == Run(())


def test_undos_run_newest_first_and_reactions_after_them() -> None:
    """Several runs are undone in the opposite order; a reaction to the same event comes after the undos."""
    both = replace(
        ORDERS,
        handlers=(*ORDERS.handlers, Handler("inventory", "tell", ("payment.declined",), ("order.cancelled",))),
    )
    first, second = Ran("reserve", "1"), Ran("reserve", "7")
    assert asked("inventory", knows(PLACED, ran=(first, second)), DECLINED, both) == Undo(
        (Undoing("release", second), Undoing("release", first)), ("tell",)
    )


def test_a_saga_is_cancelled_once_however_many_failures_there_are() -> None:
    """A second failure finds the way back begun: what reacts to failures doesn't react again."""
    known = knows(DECLINED, ran=(Ran("cancel", "d"),), published=("order.cancelled",))
    assert asked("orders", known, OVERDUE) == Run(())


def test_undos_still_run_when_the_end_was_heard_first() -> None:
    """ "order.cancelled" may overtake the failure that caused it; the stock is released all the same."""
    ran = Ran("reserve", "1")
    assert asked("inventory", knows(PLACED, CANCELLED, ran=(ran,)), DECLINED) == Undo((Undoing("release", ran),))
    repeated = asked("inventory", knows(PLACED, DECLINED, CANCELLED, ran=(ran,)), ("9", "payment.declined"))
    assert repeated == Undo((Undoing("release", ran),))


# Over


def test_an_event_for_a_saga_that_is_over_is_ignored() -> None:
    """Repeated under a new id, after completion and after compensation."""
    over = knows(TAKEN, SHIPPED, ran=(Ran("ship", "3"),))
    assert asked("shipping", over, ("9", "payment.taken")) == Ignore(Why.ENDED)
    assert asked("orders", knows(DECLINED, CANCELLED, ran=(Ran("cancel", "d"),)), ("9", "payment.declined")) == Ignore(
        Why.ENDED
    )


def test_what_is_heard_for_the_first_time_after_completion_was_only_slow() -> None:
    """Completion may overtake an event of another branch, which is still to be reacted to."""
    assert asked("payments", knows(SHIPPED), RESERVED) == Run(("charge",))


def test_a_failure_after_completion_is_refused() -> None:
    """Somebody did what can't be: it is parked, not undone and not forgotten."""
    told = asked("inventory", knows(PLACED, SHIPPED, ran=(Ran("reserve", "1"),)), DECLINED)
    assert isinstance(told, Refuse)
    assert told.why is Why.AFTER_COMPLETION


def test_a_failure_past_the_point_of_no_return_is_refused() -> None:
    """The parcel has left; a person has to look."""
    told = asked("shipping", knows(TAKEN, ran=(Ran("ship", "3"),)), OVERDUE)
    assert isinstance(told, Refuse)
    assert told.why is Why.PAST_PIVOT
    assert asked("shipping", knows(TAKEN, ran=(Ran("ship", "3", did=False),)), OVERDUE) == Run(())


# Unreadable


def test_an_unknown_event_is_refused() -> None:
    """Nobody declared it, so nobody knows what it means."""
    told = asked("orders", knows(), ("1", "order.exploded"))
    assert isinstance(told, Refuse)
    assert told.why is Why.UNKNOWN_EVENT
    assert "order.exploded" in told.reason


def test_another_version_is_refused() -> None:
    """Even one that was heard before: the fields may mean something else."""
    told = judge(ORDERS, "inventory", knows(PLACED), Incoming("1", "order.placed", 2))
    assert isinstance(told, Refuse)
    assert told.why is Why.WRONG_VERSION
    assert "version 2" in told.reason
    assert "version 1" in told.reason


# Too early


def joined(policy: str) -> EventMap:
    """Shipping needs the payment, and the stock before it."""
    ship = replace(ORDERS.by_path["shipping.ship"], after=("stock.reserved",), out_of_order=policy)
    return replace(ORDERS, handlers=tuple(ship if one.path == ship.path else one for one in ORDERS.handlers))


def test_too_early_is_kept_until_what_is_missing_was_heard() -> None:
    """The payment comes before the stock: not yet; then it runs."""
    assert asked("shipping", knows(), TAKEN, joined("defer")) == Defer(("stock.reserved",))
    assert asked("shipping", knows(RESERVED), TAKEN, joined("defer")) == Run(("ship",))


def test_too_early_is_refused_where_the_reaction_says_so() -> None:
    """The reason names what is missing."""
    told = asked("shipping", knows(), TAKEN, joined("reject"))
    assert isinstance(told, Refuse)
    assert told.why is Why.OUT_OF_ORDER
    assert "stock.reserved" in told.reason


def test_what_was_kept_is_late_when_the_saga_turned_back_meanwhile() -> None:
    """A deferred event is judged anew, by what is known then."""
    assert asked("shipping", knows(DECLINED), TAKEN, joined("defer")) == Ignore(Why.LATE)


# Bounds and time-outs


def bounded() -> EventMap:
    charge = replace(ORDERS.by_path["payments.charge"], at_most=Bound(2, "payment.declined"))
    return replace(ORDERS, handlers=tuple(charge if one.path == charge.path else one for one in ORDERS.handlers))


def test_a_bound_is_reached_once_and_then_nothing_runs() -> None:
    """Twice it runs; the third time it gives up; after that the event is only remembered."""
    again = ("9", "stock.reserved")
    runs = [Ran("charge", str(at)) for at in range(3)]
    decisions = [asked("payments", knows(RESERVED, ran=tuple(runs[:count])), again, bounded()) for count in range(4)]
    assert decisions == [Run(("charge",)), Run(("charge",)), Run((), ("charge",)), Run(())]


def test_a_run_expects_what_it_said_until_that_is_heard() -> None:
    """Shipping waits for the payment once it is prepared, and no longer once it heard of one."""
    ran = Ran("prepare", "2")
    (one,) = expected(ORDERS, "shipping", knows(RESERVED, ran=(ran,)))
    assert (one.ran, one.otherwise, one.seconds) == (ran, "payment.overdue", 30)
    assert one.any_of == ("payment.taken", "payment.declined")
    assert expected(ORDERS, "shipping", knows(RESERVED, TAKEN, ran=(ran,))) == ()


@pytest.mark.parametrize(
    "known",
    [
        knows(RESERVED, ran=(Ran("prepare", "2", did=False),)),
        knows(RESERVED, ran=(Ran("prepare", "2", overdue=True),)),
        knows(RESERVED, REFUSED, ran=(Ran("prepare", "2"),)),
        knows(RESERVED, SHIPPED, ran=(Ran("prepare", "2"),)),
        knows(RESERVED, ran=(Ran("gone since", "2"),)),
    ],
)
def test_nothing_is_expected_of_a_run_that_failed_or_of_a_saga_that_turned(known: Known) -> None:
    """No time-out of its own for what failed, what was told before, and what is over or on its way back."""
    assert expected(ORDERS, "shipping", known) == ()


def test_what_was_heard_before_the_wait_began_is_not_missed() -> None:
    """Who has shipped on a payment must not tell later that it never came, in whatever order the two were heard."""
    known = knows(TAKEN, RESERVED, ran=(Ran("ship", "3"), Ran("prepare", "2")))
    assert expected(ORDERS, "shipping", known) == ()


def test_each_run_of_a_cycle_expects_what_comes_after_it() -> None:
    """What answered the first round is no answer to the second."""
    ask = handler("x.ask", "a again", "asked", expects=Expectation(5, ("told",), "no.answer"))
    cycle = the_map(ask, handler("y.tell", "asked", "told"), handler("x.hear", "told", "again|z"))
    assert cycle.looping == {"x.ask", "y.tell", "x.hear"}
    known = knows(("1", "a"), ("2", "told"), ("3", "again"), ran=(Ran("ask", "1"), Ran("ask", "3")))
    assert [one.ran.event_id for one in expected(cycle, "x", known)] == ["3"]


def test_phases_follow_what_was_heard_and_published() -> None:
    """An end outweighs the way to it."""
    assert phase_of(ORDERS, knows(PLACED)) is Phase.FORWARD
    assert phase_of(ORDERS, knows(PLACED, DECLINED)) is Phase.BACKWARD
    assert phase_of(ORDERS, knows(SHIPPED)) is Phase.COMPLETED
    assert phase_of(ORDERS, knows(SHIPPED, DECLINED)) is Phase.BACKWARD
    assert phase_of(ORDERS, knows(DECLINED, CANCELLED)) is Phase.COMPENSATED
    assert phase_of(ORDERS, knows(published=("payment.overdue",))) is Phase.BACKWARD


def test_a_run_that_published_a_failure_did_nothing() -> None:
    """That is what a failure means."""
    assert did_something(ORDERS, ["stock.reserved"])
    assert did_something(ORDERS, [])
    assert not did_something(ORDERS, ["stock.out"])


# In any order


def chosen(numbers: list[int]) -> Choose:
    """Choose by numbers drawn beforehand; when they are used up, the first."""
    left = iter(numbers)
    return lambda below: next(left, 0) % below


def books(network: Network) -> None:
    """Everything done was undone once if the saga failed, and stands if it did not."""
    names = {one.name for one in network.log}
    runs = [(who, ran) for who, known in network.known.items() for ran in known.ran]
    assert len({(who, ran.reaction, ran.event_id) for who, ran in runs}) == len(runs), "something ran twice"
    undone = [(who, ran.reaction, ran.event_id) for who, ran in network.undone]
    assert len(set(undone)) == len(undone), "something was undone twice"
    if names & network.event_map.failures and not network.parked:
        standing = [(who, ran) for who, ran in runs if ran.did and not ran.undone]
        assert all(f"{who}.{ran.reaction}" not in network.event_map.undos for who, ran in standing)
        assert sum(one.name == "order.cancelled" for one in network.log) == 1
    if not names & network.event_map.failures:
        assert sum(one.name == "order.shipped" for one in network.log) == 1
        assert not undone


numbers = st.lists(st.integers(0, 59), max_size=120)


@settings(max_examples=300, deadline=None)
@given(numbers)
def test_in_whatever_order_events_come_the_books_balance(draws: list[int]) -> None:
    """Duplicates, reordering, every outcome: done once, undone once, cancelled once, and nothing parked."""
    network = Network(ORDERS, chosen(draws))
    network.publish("order.placed")
    network.run()
    books(network)
    assert network.parked == []


@settings(max_examples=300, deadline=None)
@given(numbers)
def test_time_outs_at_any_moment_leave_nothing_standing(draws: list[int]) -> None:
    """A time-out may race with the payment it waited for: then all is undone, and nothing needs a person."""
    network = Network(ORDERS, chosen(draws))
    network.publish("order.placed")
    network.run(with_time_outs=True)
    books(network)
    assert network.parked == []


@settings(max_examples=200, deadline=None)
@given(numbers)
def test_a_join_waits_for_both_and_runs_once(draws: list[int]) -> None:
    """Whichever comes first, shipping runs when it has heard of both, or never."""
    network = Network(joined("defer"), chosen(draws))
    network.publish("order.placed")
    network.run()
    books(network)
    for known in network.known.values():
        for ran in known.ran:
            if ran.reaction == "ship":
                heard = [name for _, name in known.heard]
                assert heard.index("stock.reserved") < [one for one, _ in known.heard].index(ran.event_id)


def test_the_sample_knows_failures_of_all_kinds() -> None:
    """The test of the tests: the map has an event for each case above."""
    assert {event.name for event in ORDERS.events} >= {name for _, name in (PLACED, OUT, REFUSED, OVERDUE)}
    assert isinstance(ORDERS.events[0], EventSpec)
