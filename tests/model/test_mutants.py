"""The model check bites: with a rule broken, it finds a way in which a saga is lost, done twice or falsely told."""

from __future__ import annotations

import pytest

from tests.model.alone import search
from tests.model.mutants import ALL, STATES_MAX, Judged, Planted, judge
from tests.model.rules import ATONE, Rules

AROUND = [one for one in ALL if one.rule is not None and one.quick]
CORE = [one for one in ALL if one.rule is None and one.quick]


@pytest.mark.parametrize("planted", AROUND, ids=lambda one: one.breaks)
def test_a_broken_rule_around_the_core_is_noticed(planted: Planted) -> None:
    """Of the store's promise, of a worker's order, of what participants keep to."""
    found = search(planted.plan, planted.faults, rule=planted.rule, states=STATES_MAX)
    assert found.broken is not None, planted.breaks
    assert found.way, "it says how it comes about"


@pytest.mark.parametrize("planted", CORE, ids=lambda one: one.breaks)
def test_a_broken_rule_of_the_core_is_noticed(planted: Planted) -> None:
    """A change to the source of `decide`; `python -m tests.model --mutants` runs the whole list."""
    assert judge(planted).broken is not None


@pytest.mark.parametrize("planted", [one for one in ALL if one.rule is None], ids=lambda one: one.breaks)
def test_a_mutant_of_the_core_is_in_the_shared_list(planted: Planted) -> None:
    """A name that stands for no change, or for two, would break nothing."""
    assert planted.change is not None


def test_every_rule_around_the_core_has_a_mutant() -> None:
    """A rule that nobody breaks may have become dead text in the model."""
    assert {one.rule for one in ALL if one.rule is not None} == set(Rules._fields)
    assert all(ATONE)


def test_at_least_twenty_rules_are_broken_and_none_twice() -> None:
    """The list is as long as it was promised to be."""
    assert len({one.breaks for one in ALL}) == len(ALL) >= 20


def test_the_report_names_the_rule_and_how_it_was_noticed() -> None:
    """One line a mutant: what became of it, whose rule it is, the search, how many worlds it took, and what broke."""
    planted = Planted("a key is honoured", "linear", 1, "keys")
    line = str(Judged(planted, 82, 0.1, "the effect of a came twice"))
    assert line.split()[:2] == ["killed", "participant"]
    assert "a key is honoured" in line
    assert "linear/1" in line
    assert line.endswith("<- the effect of a came twice")
    assert str(Judged(planted, 2000, 0.1, None)).startswith("SURVIVES")
