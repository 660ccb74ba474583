"""The model check, run for a moment with every suite: a short part of what `python -m tests.model` does."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from atone._core import facts
from atone._core.decide import decide
from tests.core.plans import PLANS
from tests.model import __main__ as command
from tests.model import mutants
from tests.model.alone import search
from tests.model.book import Book, Saga
from tests.model.mutants import Planted
from tests.model.report import summary
from tests.model.scenarios import DEEP, LARGE, Scenario, chosen
from tests.model.search import STUCK, Search

SMALL = ("linear", "barrier", "pivot", "probe", "once", "event", "command", "fan_pivot")


@pytest.mark.parametrize("plan", SMALL)
def test_nothing_that_one_fault_does_between_two_workers_breaks_the_law(plan: str) -> None:
    """Every order of events with one fault in it; and from each of them the saga can still end."""
    found = search(plan, 1)
    assert found.broken is None, str(found)
    assert found.complete
    assert found.states > 500
    assert found.ends > 10


def test_without_a_fault_a_saga_completes_and_nothing_else() -> None:
    """The model itself adds no trouble: no fault, no undo."""
    searched = Search("linear", Scenario("linear", 0).moves(), 10_000)
    assert searched.run().broken is None
    assert {world.saga.state.status.value for world in searched.worlds if world.saga.is_final} == {"completed"}


def test_a_search_that_was_cut_short_says_so() -> None:
    """A figure must not look like a proof when it is none."""
    found = search("linear", 1, states=500)
    assert not found.complete
    assert "(cut short)" in str(found)


def test_a_broken_rule_is_told_with_the_moves_that_lead_to_it() -> None:
    """Whoever reads the report can follow it, move by move."""
    found = search("linear", 1, rule="keys")
    assert found.broken == "the effect of a came twice"
    assert found.way[0].startswith("hear [0] -> running")
    assert "BROKEN" in str(found)


def test_a_saga_that_can_never_end_is_found() -> None:
    """Backward from all ends: who is not reached can never end."""
    assert search("linear", 1, rule="tells_lost").broken == STUCK


def _sagas_of(plan: str) -> Iterator[Saga]:
    searched = Search(plan, Scenario(plan, 1).moves(), 3_000)
    searched.run()
    return iter({world.saga for world in searched.worlds})


@pytest.mark.parametrize("plan", ["linear", "once_probed", "deadline", "rollback_deadline", "event"])
def test_the_canonical_form_changes_no_decision(plan: str) -> None:
    """A saga, and the same saga as it looks seven seconds later, are decided alike at the same moment."""
    book = Book(PLANS[plan])
    for saga in _sagas_of(plan):
        if saga.is_final:
            continue
        late = decide(PLANS[plan], saga.state, facts.Woke(), 7.0)
        now = decide(PLANS[plan], book.later(book.saga(saga.state), 7.0).state, facts.Woke(), 0.0)
        assert [type(entry) for entry in late.entries] == [type(entry) for entry in now.entries]
        assert book.later(book.saga(late.saga), 7.0) is book.saga(now.saga)
        assert late.idle == now.idle


def test_the_command_prints_its_figures_and_ends_well(capsys: pytest.CaptureFixture[str]) -> None:
    """One line a search, one for all of them, exit status 0."""
    assert command.main(["--plan", "fan_pivot", "--processes", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("fan_pivot/1 ")
    assert re.fullmatch(
        r"[\d,]+ states, [\d,]+ transitions, [\d.]+ s \([\d.]+ s of CPU\), [\d,]+ states/s, "
        r"depth \d+, 1 plans \(0 cut short\), 0 violations",
        lines[-1],
    )


def test_the_command_ends_badly_if_a_rule_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """CI sees the exit status alone."""
    broken = search("linear", 1, rule="keys")
    monkeypatch.setattr(command, "run", lambda *_: iter([broken]))
    assert command.main(["--processes", "1"]) == 1
    assert summary([broken], 1.0).endswith("1 violations")


def test_the_command_ends_badly_if_a_mutant_survives(monkeypatch: pytest.MonkeyPatch) -> None:
    """The very same."""
    unseen = Planted("a request makes a saga due that nobody owns", "once", 1, "wakes_on_request")
    monkeypatch.setattr(mutants, "ALL", (unseen,))
    monkeypatch.setattr(command, "ALL", (unseen,))
    assert command.main(["--mutants", "--processes", "1"]) == 1


def test_every_search_has_a_name_of_its_own() -> None:
    """Two of one name would be the same work twice."""
    for scenarios in (LARGE, DEEP):
        assert len({one.name for one in scenarios}) == len(scenarios)


def test_any_plan_can_be_searched_with_any_number_of_faults() -> None:
    """Also one that is not in the lists."""
    assert chosen(["fan_when"], 3, deep=False) == [Scenario("fan_when", 3)]
    assert chosen(["once"], None, deep=False) == [Scenario("once", 2)]
    assert chosen(None, None, deep=True) == list(DEEP)
