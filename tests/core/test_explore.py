"""The search, run for a moment with every suite: a short part of what `python -m tests.core.explore` does."""

from __future__ import annotations

import pytest

from tests.core.explore import exhaust, walk
from tests.core.plans import PLANS

WALKS_EACH = 40
# Every way through these, whatever one fault does at whatever moment.
SMALL = (
    "command_bare",
    "command_once_bare",
    "barrier",
    "event",
    "once",
    "once_back",
    "once_probed",
    "irreversible",
    "probe",
    "linear",
    "pivot",
)


@pytest.mark.parametrize("name", PLANS)
def test_no_random_walk_breaks_the_law(name: str) -> None:
    """Lost replies, crashes, duplicates, late successes, cancels and people, in any order; then every saga ends."""
    for seed in range(WALKS_EACH):
        assert (found := walk(name, seed)) is None, str(found)


@pytest.mark.parametrize("name", SMALL)
def test_no_single_fault_breaks_the_law(name: str) -> None:
    """Every order of events with one fault in it."""
    seen, found = exhaust(name, 1)
    assert found is None, str(found)
    assert seen > 100


def test_no_two_faults_break_the_smallest_saga() -> None:
    """Every order of events with two faults in it."""
    _, found = exhaust("once_probed", 2)
    assert found is None, str(found)
