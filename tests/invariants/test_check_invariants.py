"""Each of the nine rules bites: a true story is told, changed in one place, and that very rule complains."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import msgspec
import pytest

from atone import Orchestrator
from atone._core.facts import Operation
from atone._core.journal import AttemptStarted, Entry, SagaEnded
from atone._core.state import SagaStatus
from atone._runtime.wire import decode_entries, encode_entries
from atone.brokers.memory import MemoryBroker
from atone.errors import AtoneError
from atone.orchestrator import Limits
from atone.store import Loaded, Row
from atone.stores.memory import MemoryStore
from atone.testing.invariants import (
    Called,
    Effect,
    InvariantsBroken,
    Rule,
    assert_invariants,
    check_invariants,
    read_histories,
)
from tests.shapes.catalogue import SHAPES
from tests.shapes.ledger import calls_in, effects_in
from tests.shapes.shape import Stage


class Story(NamedTuple):
    """A run as data: what the store shows, and what the services wrote down."""

    histories: tuple[Loaded, ...]
    ledger: tuple[Effect, ...]
    calls: tuple[Called, ...]
    published: tuple[Any, ...] | None = None
    at_rest: bool = True


@cache
def story(name: str) -> Story:
    """Play a shape to its end, and return what is left."""
    shape, stage, store = SHAPES[name], Stage(), MemoryStore(allow_volatile=True)
    published: list[Any] = []

    async def main() -> list[Loaded]:
        async with MemoryBroker(f"memory://{name}") as broker:
            real = broker.publish

            async def publish(messages: Any) -> Any:
                published.extend(messages)
                return await real(messages)

            broker.publish = publish  # type: ignore[method-assign]
            sagas, limits = shape.make(stage, 0), Limits(poll_seconds=0.05)
            async with Orchestrator(store, sagas=sagas, limits=limits, broker=broker, events=True) as orchestrator:
                await shape.play(orchestrator, stage)
                while (await store.outstanding()).waiting:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        async with store:
            return await read_histories(store)

    histories = asyncio.run(asyncio.wait_for(main(), 20))
    effects, calls = effects_in(stage.lines), calls_in(stage.lines)
    return Story(tuple(histories), tuple(effects), tuple(calls), tuple(published))


def judged(told: Story) -> set[Rule]:
    found = check_invariants(
        told.histories,
        told.ledger,
        calls=told.calls,
        published=told.published,
        events=told.published is not None,
        at_rest=told.at_rest,
    )
    assert all(str(one).startswith(one.rule) and one.what.endswith(".") for one in found)
    return {one.rule for one in found}


@pytest.mark.parametrize(
    "name",
    ["four_steps", "refused", "fan_out_4_refused", "operator_retries", "operator_skips", "undo_parks", "no_undo"],
)
def test_a_true_story_breaks_no_rule(name: str) -> None:
    """However it ended."""
    assert judged(story(name)) == set()


def effect(step: str, operation: str = "action", cents: int = 0) -> Effect:
    return Effect("s", step, operation, {"customer": -cents, step: cents} if cents else {})


def without(told: Story, step: str, operation: str) -> tuple[Effect, ...]:
    return tuple(one for one in told.ledger if (one.step, one.operation) != (step, operation))


def rewritten(told: Story, change: Callable[[list[Row]], list[Row]]) -> Story:
    """Change the journal of the only saga."""
    (one,) = told.histories
    return told._replace(histories=(one._replace(rows=tuple(change(list(one.rows)))),))


def shown(told: Story, **columns: Any) -> Story:
    """Change the hot row of the only saga."""
    (one,) = told.histories
    return told._replace(histories=(one._replace(summary=one.summary._replace(**columns)),))


def edited(rows: list[Row], change: Callable[[list[Entry]], list[Entry]]) -> list[Row]:
    """Change the entries of every row."""
    return [row._replace(entries=encode_entries(change(decode_entries(row.entries)))) for row in rows]


def ended_as(status: SagaStatus) -> Callable[[list[Row]], list[Row]]:
    def change(entries: list[Entry]) -> list[Entry]:
        return [SagaEnded(status) if isinstance(one, SagaEnded) else one for one in entries]

    return lambda rows: edited(rows, change)


def _undos_swapped(ledger: Sequence[Effect]) -> tuple[Effect, ...]:
    undos = [one for one in ledger if one.operation == "compensation"]
    return (*(one for one in ledger if one.operation == "action"), *reversed(undos))


def _call_again(entries: list[Entry]) -> list[Entry]:
    """Have a step called forward on the way back."""
    undoes = any(isinstance(one, AttemptStarted) and one.operation is Operation.COMPENSATION for one in entries)
    return [*entries, AttemptStarted("a", Operation.ACTION, 9, 0.0, 0.0)] if undoes else entries


def _last_words_changed(published: Sequence[Any]) -> tuple[Any, ...]:
    return (*published, published[-1]._replace(body=b"{}"))


DONE, UNDONE = story("four_steps"), story("refused")

BROKEN: dict[str, tuple[Story, Rule]] = {
    "an effect that is not balanced": (
        DONE._replace(ledger=(*DONE.ledger[:-1], DONE.ledger[-1]._replace(moves={"d": 100}))), Rule.MONEY),
    "an undo that gives back less": (
        UNDONE._replace(ledger=(*UNDONE.ledger[:-1], effect("a", "compensation", -40))), Rule.MONEY),
    "completed, and a step was not done": (DONE._replace(ledger=without(DONE, "b", "action")), Rule.ENDS),
    "completed, and a step was undone": (
        DONE._replace(ledger=(*DONE.ledger, effect("d", "compensation", -100))), Rule.ENDS),
    "compensated, and a step stands": (UNDONE._replace(ledger=without(UNDONE, "b", "compensation")), Rule.ENDS),
    "failed without a person's word": (
        shown(rewritten(DONE, ended_as(SagaStatus.FAILED)), status="failed"), Rule.ENDS),
    "a fourth state": (shown(DONE, status="lost"), Rule.ENDS),
    "effects in another order": (DONE._replace(ledger=tuple(reversed(DONE.ledger))), Rule.ORDER),
    "undos in the order of the actions": (UNDONE._replace(ledger=_undos_swapped(UNDONE.ledger)), Rule.ORDER),
    "undone and never done": (UNDONE._replace(ledger=without(UNDONE, "b", "action")), Rule.ORDER),
    "done after it was undone": (UNDONE._replace(ledger=(*UNDONE.ledger, effect("a"))), Rule.AFTER_UNDO),
    "done twice": (DONE._replace(ledger=(*DONE.ledger, DONE.ledger[-1])), Rule.ONCE),
    "undone twice": (UNDONE._replace(ledger=(*UNDONE.ledger, UNDONE.ledger[-1])), Rule.ONCE),
    "undone behind the pivot": (
        story("pivot")._replace(ledger=(*story("pivot").ledger, effect("reserve", "compensation", -100))), Rule.PIVOT),
    "a journal with a gap": (rewritten(DONE, lambda rows: [rows[0], *rows[2:]]), Rule.JOURNAL),
    "a row that was written twice": (rewritten(DONE, lambda rows: [*rows, rows[-1]]), Rule.JOURNAL),
    "one commit id for two rows": (
        rewritten(DONE, lambda rows: [one._replace(commit_id=rows[0].commit_id) for one in rows]), Rule.JOURNAL),
    "a row that can't be read": (
        rewritten(DONE, lambda rows: [*rows[:-1], rows[-1]._replace(entries=b"{")]), Rule.JOURNAL),
    "a hot row that says something else": (shown(DONE, status="compensated"), Rule.JOURNAL),
    "an owner of what is over": (shown(DONE, owner="somebody"), Rule.JOURNAL),
    "a call forward on the way back": (
        rewritten(UNDONE, lambda rows: edited(rows, _call_again)), Rule.JOURNAL),
    "a call without an intent": (DONE._replace(calls=(*DONE.calls, Called("s", "a", "action", 7))), Rule.JOURNAL),
    "two calls for one intent": (DONE._replace(calls=(*DONE.calls, DONE.calls[0])), Rule.JOURNAL),
    "an effect without an intent": (
        DONE._replace(ledger=(*DONE.ledger, effect("d", "compensation")), calls=()), Rule.JOURNAL),
    "effects of no saga": (DONE._replace(ledger=(*DONE.ledger, Effect("x", "a", "action"))), Rule.JOURNAL),
    "an event that was never published": (DONE._replace(published=(DONE.published or ())[:-1]), Rule.MESSAGES),
    "events in another order": (DONE._replace(published=tuple(reversed(DONE.published or ()))), Rule.MESSAGES),
    "an id with other words": (DONE._replace(published=_last_words_changed(DONE.published or ())), Rule.MESSAGES),
    "a saga that nobody moves": (
        shown(rewritten(DONE, lambda rows: rows[:-1]), status="running")._replace(published=None), Rule.LIVENESS),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_a_story_with_one_untrue_thing_breaks_its_rule(what: str) -> None:
    """Other rules may complain too, for one lie seldom comes alone."""
    told, rule = BROKEN[what]
    assert rule in judged(told)


def test_every_rule_is_broken_by_a_story() -> None:
    """A rule that nothing breaks is none."""
    assert {rule for _, rule in BROKEN.values()} == set(Rule)


def test_a_saga_on_its_way_is_no_violation_while_faults_last() -> None:
    """`at_rest=False` judges what there is so far."""
    running = shown(rewritten(DONE, lambda rows: rows[:-1]), status="running")
    assert judged(running._replace(published=None, at_rest=False)) == set()


def test_the_error_has_a_line_for_each_violation() -> None:
    """It is Atone's own error and a failed assertion, and names the saga."""
    told, _ = BROKEN["done twice"]
    with pytest.raises(InvariantsBroken, match=r"I5 once:.* 's' the action of d took effect 2 times") as caught:
        assert_invariants(told.histories, told.ledger)
    assert isinstance(caught.value, AtoneError)
    assert isinstance(caught.value, AssertionError)
    assert len(caught.value.violations) == str(caught.value).count("\n") - 1


def test_steps_that_leave_nothing_can_be_named() -> None:
    """By step, or by definition and step."""
    told = DONE._replace(ledger=without(DONE, "b", "action"), calls=(), published=None)
    assert judged(told) == {Rule.ENDS}
    for name in ("b", "FourSteps.b"):
        assert check_invariants(told.histories, told.ledger, unrecorded=[name]) == []


def test_sagas_of_two_definitions_may_share_an_id() -> None:
    """The ledger names the definition then."""
    other = story("two_steps")
    ledger = [one._replace(saga="FourSteps") for one in DONE.ledger]
    ledger += [one._replace(saga="TwoSteps") for one in other.ledger]
    assert check_invariants([*DONE.histories, *other.histories], ledger) == []
    assert check_invariants([*DONE.histories, *other.histories], ledger[1:]) != []


def test_a_plan_that_was_not_loaded_is_told() -> None:
    """Without it nothing can be judged."""
    (one,) = DONE.histories
    (found,) = check_invariants([one._replace(plan=None)], [])
    assert found.rule is Rule.JOURNAL
    assert "load it with its plan" in found.what


def test_a_stored_plan_that_is_none_is_told() -> None:
    """Damage is a finding, not an accident of the check."""
    (one,) = DONE.histories
    (found,) = check_invariants([one._replace(plan=msgspec.json.encode([]).decode())], [])
    assert found.rule is Rule.JOURNAL
