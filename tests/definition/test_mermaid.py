"""A definition draws itself: the way forward, the dashed way back, pivot and retriables marked, names escaped.

The texts below were parsed by Mermaid's own parser when they were written down.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from atone._core.plan import Does, Plan, Role, StepPlan
from atone._define.draw import draw
from atone.definition import Context, Saga, Tried, delay, pivot, step, wait_for_event
from tests.definition.shop import Order, PlaceOrder

STRAIGHT = """\
flowchart TD
    begin(("start"))
    s0["reserve_inventory"]
    s1["process_payment"]
    s2{{"create_shipment<br/>pivot"}}:::pivot
    s3(["send_confirmation<br/>retriable"]):::retriable
    finish(("completed"))
    begin --> s0
    s0 --> s1
    s1 --> s2
    s2 --> s3
    s3 --> finish
    subgraph back["the way back"]
        direction BT
        c0["release_inventory"]:::compensation
        c1["refund_payment"]:::compensation
    end
    undone(("compensated"))
    s0 -.- c0
    s1 -.- c1
    c1 -.-> c0
    c0 -.-> undone
    classDef pivot stroke-width:4px
    classDef retriable stroke-width:2px
    classDef wait stroke-dasharray:2 2
    classDef compensation stroke-dasharray:6 4
"""

PARALLEL = """\
flowchart TD
    begin(("start"))
    s0["a"]
    s1["b<br/>not compensated: it is only a #34;look#34;"]
    s2["c<br/>at most once<br/>may be skipped"]
    s3["d"]
    s4[/"pause<br/>waits 1.5 s"/]:::wait
    s5[/"paid<br/>waits for payment.settled, 60 s, then backward"/]:::wait
    s6{{"ship<br/>pivot"}}:::pivot
    s7[/"told<br/>waits for told, 60 s, then attention"/]:::wait
    finish(("completed"))
    begin --> s0
    begin --> s2
    s0 --> s1
    s1 --> s3
    s2 --> s3
    s3 --> s4
    s4 --> s5
    s5 --> s6
    s6 --> s7
    s7 --> finish
    subgraph back["the way back"]
        direction BT
        c0["undo_a"]:::compensation
        c2["undo_c"]:::compensation
        c3["undo_d"]:::compensation
    end
    undone(("compensated"))
    s0 -.- c0
    s2 -.- c2
    s3 -.- c3
    c3 -.-> c2
    c3 -.-> c0
    c0 -.-> undone
    c2 -.-> undone
    classDef pivot stroke-width:4px
    classDef retriable stroke-width:2px
    classDef wait stroke-dasharray:2 2
    classDef compensation stroke-dasharray:6 4
"""


class Parallel(Saga[Order]):
    """Two branches, waits, a condition, and a step that needs no compensation."""

    @step()
    async def a(self, ctx: Context[Order]) -> int:
        return 1

    @a.compensation
    def undo_a(self, ctx: Context[Order], tried: Tried[int]) -> None: ...

    @step(no_compensation='it is only a "look"')
    def b(self, ctx: Context[Order]) -> int:
        return 1

    @step(after=(), at_most_once=True)
    def c(self, ctx: Context[Order]) -> int:
        return 1

    @c.compensation
    async def undo_c(self, ctx: Context[Order], tried: Tried[int]) -> None: ...

    @c.when
    def big(self, ctx: Context[Order]) -> bool:
        return True

    @step(a)
    def d(self, ctx: Context[Order], a: int) -> int:
        return 1

    @d.compensation
    async def undo_d(self, ctx: Context[Order], tried: Tried[int]) -> None: ...

    pause = delay(1.5)
    paid = wait_for_event("payment.settled", int, timeout=60)

    @pivot(a, d)
    async def ship(self, ctx: Context[Order], a: int, d: int) -> int:
        return 1

    told = wait_for_event("told", int, timeout=60, on_timeout="attention")


@pytest.mark.parametrize(("saga", "text"), [(PlaceOrder, STRAIGHT), (Parallel, PARALLEL)])
def test_a_definition_draws_itself(saga: type[Saga[Order]], text: str) -> None:
    """The whole picture, word for word."""
    assert saga.mermaid() == text.rstrip("\n")


def test_a_saga_whose_types_cannot_be_resolved_can_be_drawn() -> None:
    """A picture needs no types."""

    class Unresolved(Saga["Nowhere"]):
        pause = delay(1)

    assert "pause<br/>waits 1 s" in Unresolved.mermaid()


def test_a_saga_without_compensations_has_no_way_back() -> None:
    """An empty lane would say that there is something in it."""
    text = draw(Plan("X", 1, (StepPlan("a", no_compensation="it only reads"),)), {})
    assert "the way back" not in text
    assert "-.->" not in text


def test_a_stored_plan_is_drawn_without_its_class() -> None:
    """The names of compensations are no part of a plan; the step's name stands in."""
    text = draw(Plan.from_json(PlaceOrder.plan().to_json()), {})
    assert 'c0["undo reserve_inventory"]:::compensation' in text


HOSTILE = [
    'say "hi"',
    "a]b",
    "a}}b",
    "`code`",
    "<b>bold</b>",
    "#35;",
    "a;b",
    "end",
    "two\nlines",
    "100 % & more",
    "--> c",
]


@pytest.mark.parametrize("words", HOSTILE)
def test_words_cannot_leave_their_label(words: str) -> None:
    """Nothing that users name or explain ends a label, opens markup or draws an edge."""
    plan = Plan(
        "X",
        1,
        (
            StepPlan("a", no_compensation=words),
            StepPlan("b", does=Does.EVENT, event_name=words, wait_seconds=1.0, after=("a",)),
            StepPlan("c", has_compensation=True, after=("b",)),
        ),
    )
    plain = Plan("X", 1, tuple(_without(step) for step in plan.steps))
    text, expected = draw(plan, {"c": words}), draw(plain, {"c": "x"})
    assert re.sub(r'"[^"\n]*"', '""', text) == re.sub(r'"[^"\n]*"', '""', expected)
    labels = " ".join(re.findall(r'"([^"\n]*)"', text)).replace("<br/>", " ")
    assert not set("<>`[]{}|\\&%") & set(labels)
    assert not re.sub(r"#\d+;", "", labels).count("#")


def _without(step: StepPlan) -> StepPlan:
    changes: dict[str, Any] = {
        "no_compensation": None if step.no_compensation is None else "x",
        "event_name": None if step.event_name is None else "x",
    }
    return StepPlan(**{name: changes.get(name, getattr(step, name)) for name in StepPlan.__slots__})


def test_names_that_mermaid_keeps_for_itself_are_no_node_ids() -> None:
    """A step called `end` would end the picture, so nodes are numbered."""
    names = ("end", "subgraph", "graph", "style", "click", "default")
    plan = Plan("X", 1, tuple(StepPlan(name, no_compensation="x") for name in names))
    nodes = re.findall(r"^    (\w+)\[", draw(plan, {}), re.MULTILINE)
    assert nodes == [f"s{at}" for at in range(len(names))]


def test_the_way_back_runs_in_reverse_and_skips_what_needs_none() -> None:
    """Each compensation waits for those of the steps after it."""
    steps = (
        StepPlan("a", has_compensation=True),
        StepPlan("b", no_compensation="x", after=("a",)),
        StepPlan("c", has_compensation=True, after=("b",)),
        StepPlan("d", has_compensation=True, after=("b",)),
        StepPlan("e", role=Role.PIVOT, after=("c", "d")),
    )
    edges = re.findall(r"(\w+) -\.-> (\w+)", draw(Plan("X", 1, steps), {}))
    assert sorted(edges) == [("c0", "undone"), ("c2", "c0"), ("c3", "c0")]
