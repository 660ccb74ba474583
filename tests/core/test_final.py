"""Rules 8 and 9 of the law: a final saga is never changed, and the same fact twice is one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from atone._core import facts
from atone._core.commands import Call, Finish
from atone._core.decide import decide
from atone._core.facts import Fact, Landed, Operation, Problem
from atone._core.journal import SagaEnded
from atone._core.state import SagaStatus
from tests.core.driver import ACTION, Story, given, pivot, saga_of, step

ENDS: dict[SagaStatus, Callable[[], Story]] = {
    SagaStatus.COMPLETED: lambda: given(saga_of(step("a"), step("b"))).succeeds("a", "b"),
    SagaStatus.COMPENSATED: lambda: given(saga_of(step("a"), step("b"))).succeeds("a").rejects("b").undoes("a"),
    SagaStatus.FAILED: lambda: given(saga_of(step("a"), step("b"))).succeeds("a").asked("terminate"),
}


def _all_facts() -> list[Fact]:
    found: list[Fact] = [facts.Woke(), facts.RequestUnfit("x", "no")]
    for name in ("a", "b"):
        found += [facts.ConditionTold(name, runs=True), facts.ConditionFailed(name, Problem("X", ""))]
        found += [facts.Probed(name, 1, answer, b"1") for answer in Landed]
        for operation in Operation:
            found += [
                facts.Succeeded(name, operation, 1, b"1"),
                facts.Rejected(name, operation, 1, Problem("X", "")),
                facts.CameToNothing(name, operation, 1, Problem("X", "")),
                facts.Lost(name, operation, 1),
                facts.Interrupted(name, operation, 1),
                facts.Impossible(name, operation, 1, Problem("X", "")),
            ]
    return found


@pytest.mark.parametrize("status", ENDS)
def test_a_final_saga_is_never_changed(status: SagaStatus) -> None:
    """(checked) No fact, however late or wrong, adds an entry, a call or a time to wake."""
    story = ENDS[status]()
    assert story.status() is status
    before = story.saga
    for fact in _all_facts():
        story.tells(fact, at=1000.0)
        assert story.saga == before, fact
        assert story.last.entries == ()
        assert story.last.commands == ()
        assert story.last.wake_at is None
        assert story.last.idle


@pytest.mark.parametrize("status", ENDS)
@pytest.mark.parametrize("kind", ["cancel", "terminate", "retry", "resolve", "skip", "event"])
def test_a_request_for_a_final_saga_is_never_applied(status: SagaStatus, kind: str) -> None:
    """(checked) The store answers for it; should a row slip in, the law does not move."""
    story = ENDS[status]()
    ended = len(story.all(SagaEnded))
    story.asked(kind, step="a", event="paid", landed=True, payload=b"1")
    assert story.status() is status
    assert story.last.entries == ()
    assert len(story.all(SagaEnded)) == ended


def test_a_saga_begins_once() -> None:
    """A second start is the store's to answer; told here, it is a mistake of the shell."""
    story = given(saga_of(step("a")))
    with pytest.raises(ValueError, match="begins with StartRequested, once"):
        decide(story.plan, story.saga, facts.StartRequested("main", "s-1", b"1"), 0.0)
    with pytest.raises(ValueError, match="load the saga"):
        decide(story.plan, None, facts.Woke(), 0.0)


@pytest.mark.parametrize("status", ENDS)
def test_the_end_is_told_once(status: SagaStatus) -> None:
    """Whoever waits is told when the saga ends, and not at every look at it."""
    story = ENDS[status]()
    assert story.last.commands == (Finish(),)
    assert story.wakes(at=5.0).last.commands == ()


def test_needing_attention_is_told_like_an_end() -> None:
    """`outcome()` returns there, too; a look at it changes nothing."""
    story = given(saga_of(step("a"), pivot("p"))).succeeds("a").gives_up("p")
    assert story.last.commands == (Finish(),)
    before = story.saga
    assert story.wakes(at=9999.0).saga == before


def test_a_fact_is_decided_again_after_a_conflict() -> None:
    """(checked) Another writer came first: its row is folded, the fact is kept, and both count."""
    story = given(saga_of(step("a"), step("b")))
    fact = facts.Succeeded("a", ACTION, 1, b"1")
    lost = decide(story.plan, story.saga, fact, 0.0)
    assert lost.commands == (Call("b", ACTION, 1, 10.0),)
    story.asked("cancel", wake=False).tells(fact)
    assert story.started == ["a", "undo a"]


def test_the_same_saga_and_fact_give_the_same_decision() -> None:
    """Pure: an ambiguous commit is sent again with the same entries, never with others."""
    story = given(saga_of(step("a"), step("b"))).succeeds("a")
    fact = facts.CameToNothing("b", ACTION, 1, Problem("X", ""))
    assert decide(story.plan, story.saga, fact, 3.0) == decide(story.plan, story.saga, fact, 3.0)


def test_a_late_success_does_not_reopen_a_final_saga() -> None:
    """(checked) Somebody had said that it did not land and the saga has ended: it stays as it ended."""
    story = given(saga_of(step("a", at_most_once=True))).breaks("a").asked("resolve", step="a", landed=False)
    assert story.status() is SagaStatus.COMPENSATED
    before = story.saga
    assert story.arrives_late("a").saga == before
