"""The model check, run for a moment with every suite: a short part of what `python -m tests.model` does."""

from __future__ import annotations

import pytest

from tests.model.scenarios import Scenario
from tests.model.search import Search

SMALL = ("linear", "barrier", "pivot", "probe", "once", "event")


@pytest.mark.parametrize("plan", SMALL)
def test_nothing_that_one_fault_does_between_two_workers_breaks_the_law(plan: str) -> None:
    """Every order of events with one fault in it; and from each of them the saga can still end."""
    scenario = Scenario(plan, 1)
    found = Search(scenario.name, scenario.moves(), 100_000).run()
    assert found.broken is None, str(found)
    assert found.complete
    assert found.states > 500
