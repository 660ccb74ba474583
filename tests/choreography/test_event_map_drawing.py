"""An event map draws itself: events between the participants, the way back dashed, names escaped.

The text below was parsed by Mermaid's own parser when it was written down, and so were the drawings of both samples.
"""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from atone._choreography.draw import draw
from atone._core.event_map import Bound, EventMap, Expectation
from tests.choreography.maps import handler, the_map, undo
from tests.choreography.order_events import orders
from tests.choreography.seed_sample import sample

EVERYTHING = the_map(
    handler("shop.do", "a", "b|no.c", expects=Expectation(2.5, ("z", "no.d"), "no.late")),
    undo("shop.back", "do", "no.d no.late", "freed"),
    handler("till.pay", "b", "paid|no.d", at_most=Bound(3, "no.d")),
    handler("van.go", "paid", "z", pivot=True, after=("b",)),
    handler("shop.end", "no.c no.d no.late", "undone"),
)

DRAWN = """\
flowchart LR
    e0(["a<br/>starts"])
    e1(["z<br/>completes"]):::finish
    e2(["no.d"]):::failure
    e3(["b"])
    e4(["no.c"]):::failure
    e5(["no.late"]):::failure
    e6(["freed"])
    e7(["paid"])
    e8(["undone<br/>compensates"]):::finish
    subgraph p0["shop"]
        h0["do"]
        h1["back<br/>undoes do"]:::undo
        h4["end"]
    end
    subgraph p1["till"]
        h2["pay<br/>at most 3 times"]
    end
    subgraph p2["van"]
        h3{{"go<br/>pivot"}}:::pivot
    end
    e0 --> h0
    h0 --> e3
    h0 --> e4
    h0 -.->|"2.5 s without z or no.d"| e5
    e2 -.-> h1
    e5 -.-> h1
    h1 -.-> e6
    h0 -.- h1
    e3 --> h2
    h2 --> e7
    h2 --> e2
    h2 -.->|"after that"| e2
    e7 --> h3
    e3 -->|"before"| h3
    h3 --> e1
    e4 --> h4
    e2 --> h4
    e5 --> h4
    h4 --> e8
    classDef pivot stroke-width:4px
    classDef failure stroke-width:2px,stroke-dasharray:2 2
    classDef finish stroke-width:4px
    classDef undo stroke-dasharray:6 4"""


def test_a_map_with_everything_is_drawn() -> None:
    """Starts, ends, failures, undos, a pivot, a join, a time-out and a bound."""
    assert draw(EVERYTHING) == DRAWN


def test_a_choreography_draws_itself() -> None:
    """What a user calls is that picture, and a stored map gives the same."""
    assert orders.mermaid() == draw(EventMap.from_json(orders.event_map.to_json()))


@pytest.mark.parametrize("event_map", [EVERYTHING, orders.event_map, sample.event_map])
def test_everything_is_drawn_once_and_every_edge_has_two_ends(event_map: EventMap) -> None:
    """Each event and handler is a node, each listening and publishing an edge between nodes that are there."""
    lines = draw(event_map).splitlines()
    nodes = [found[1] for line in lines if (found := re.match(r"\s+([eh]\d+)[\[({]", line))]
    edges = [re.findall(r"\b[eh]\d+\b", re.sub(r'"[^"]*"', "", line)) for line in lines if " -" in line]
    assert len(nodes) == len(set(nodes)) == len(event_map.events) + len(event_map.handlers)
    assert all(len(ends) == 2 and set(ends) <= set(nodes) for ends in edges)
    listened = sum(len(one.listens) + len(one.after) for one in event_map.handlers)
    published = sum(len(one.emits) + bool(one.expects) + bool(one.at_most) for one in event_map.handlers)
    assert len(edges) == listened + published + len(event_map.undos)


def test_names_can_t_break_out_of_their_labels() -> None:
    """A map that was stored by somebody else may have any names; and a version above 1 is shown."""
    event_map = the_map(handler("x.do", "a", 'z"]<b>'), completes='z"]<b>')
    event_map = replace(event_map, events=tuple(replace(one, version=2) for one in event_map.events))
    drawn = draw(event_map)
    assert 'e1(["z#34;#93;#60;b#62; v2<br/>completes"]):::finish' in drawn
    assert 'e0(["a v2<br/>starts"])' in drawn
