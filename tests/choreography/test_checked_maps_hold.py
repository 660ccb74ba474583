"""What the checks let pass holds in a network: whatever comes late, twice or out of order, a saga ends and balances.

The maps are drawn at random; those with findings are left out, and each of the others is run. So the checks, which look
at the whole, and the guard, which knows one participant's part of it, are held against each other.
"""

from __future__ import annotations

from random import Random

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from atone._core.event_checks import findings
from atone._core.event_map import EventMap, Expectation, Handler
from atone._core.event_view import view
from atone._core.state import SagaStatus
from tests.choreography.maps import handler, the_map, undo
from tests.choreography.network import Network


@st.composite
def maps(draw: st.DrawFn, *, waiting: bool = False) -> EventMap:
    """One to three branches of up to two steps, some of which may fail; a few hear of less than they should.

    With `waiting` some of them expect what others do, and some steps are done by the same participant.
    """
    branches = draw(st.integers(1, 3))
    steps = [(branch, step) for branch in range(branches) for step in range(draw(st.integers(1, 2)))]
    failing = draw(st.lists(st.sampled_from(steps), min_size=0 if waiting else 1, max_size=3, unique=True))
    slow = draw(st.lists(st.sampled_from([*steps, END]), min_size=1, max_size=2, unique=True)) if waiting else []
    failures = [f"no.{branch}{step}" for branch, step in failing] + [f"no.late{branch}{step}" for branch, step in slow]
    forgets = draw(st.integers(0, 3)) == 0

    def some(names: list[str]) -> list[str]:
        return [one for one in names if not forgets or draw(st.integers(0, 4))]

    def expects(at: tuple[int, int]) -> Expectation | None:
        awaited = draw(st.sampled_from([f"done{b}{s}" for b, s in steps if (b, s) != at])) if len(steps) > 1 else "z"
        return Expectation(5, (awaited,), f"no.late{at[0]}{at[1]}") if at in slow else None

    handlers: list[Handler] = []
    for branch, step in steps:
        name = f"{branch}{step}"
        who = draw(st.sampled_from([f"p{name}", "end"])) if waiting else f"p{name}"
        outcome = f"done{name}" + (f"|no.{name}" if (branch, step) in failing else "")
        on = f"done{branch}{step - 1}" if step else "a"
        handlers.append(handler(f"{who}.do{name}", on, outcome, expects=expects((branch, step))))
        others = some([one for one in failures if one not in (f"no.{name}", f"no.{branch}{step - 1}")])
        if others:
            handlers.append(undo(f"{who}.back{name}", f"do{name}", " ".join(others), f"undone{name}"))
    last = [f"done{branch}{max(step for b, step in steps if b == branch)}" for branch in range(branches)]
    sure = waiting and draw(st.booleans())
    finish = handler("end.finish", last[0], "z", after=tuple(some(last[1:])), no_undo="the end", pivot=sure)
    handlers.append(finish)
    if END in slow:
        handlers.append(handler("end.wait", "a", expects=expects(END), no_undo="it only waits"))
    undos = [name for one in handlers if one.undo_of for name in one.emits]
    hears = some(undos if draw(st.integers(0, 3)) == 0 else failures)
    if hears:
        handlers.append(handler("end.cancel", " ".join(hears), "undone"))
    event_map = the_map(*handlers)
    needless = {one.where for one in findings(event_map) if one.code == "never_runs"}
    return the_map(*(one for one in handlers if one.path not in needless))


END = (9, 9)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(maps(), st.integers(0, 2**32))
def test_a_checked_map_ends_and_balances_whatever_the_network_does(event_map: EventMap, seed: int) -> None:
    """No findings: then it completes, or every work that was done is undone and the saga ends as compensated."""
    assume(not findings(event_map))
    for more in range(8):
        network = Network(event_map, Random(seed + more).randrange)
        network.publish("a")
        network.run()
        balances(network)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(maps(waiting=True), st.integers(0, 2**32))
def test_a_checked_map_holds_though_time_outs_are_told_of_what_was_done(event_map: EventMap, seed: int) -> None:
    """At any moment whoever has not heard tells so, whatever others have heard: nothing needs a person all the same."""
    assume(not findings(event_map))
    for more in range(12):
        network = Network(event_map, Random(seed + more).randrange)
        network.publish("a")
        network.run(with_time_outs=True)
        balances(network)


def balances(network: Network) -> None:
    event_map = network.event_map
    names = {one.name for one in network.log}
    runs = [(f"{who}.{ran.reaction}", ran) for who, known in network.known.items() for ran in known.ran]
    told = sum(one.name == "undone" for one in network.log)
    assert network.parked == []
    if names & event_map.failures:
        standing = {path for path, ran in runs if ran.did and not ran.undone}
        assert standing <= {"end.cancel", "end.wait"}
        assert len({(who, ran.reaction, ran.event_id) for who, ran in network.undone}) == len(network.undone)
        assert not set(event_map.by_path["end.cancel"].listens) & event_map.failures or told == 1
        assert "z" not in names
        assert "undone" in names
        assert view(event_map, network.log, now=99.0).status is SagaStatus.COMPENSATED
    else:
        assert "z" in names
        assert view(event_map, network.log, now=99.0).status is SagaStatus.COMPLETED
