"""Each planted bug is found by the helpers that the table names, and by no run of the shop as it should be."""

from __future__ import annotations

import logging

import pytest

from tests.planted.__main__ import NOTHING, found_by
from tests.planted.bugs import BUGS, Bug


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name.replace(" ", "-"))
def test_a_planted_bug_is_found_by_these_helpers(bug: Bug) -> None:
    """The table in docs/testing.md is what the helpers say: these find it, the others do not."""
    reports = found_by(bug, findings_max=1)
    assert tuple(name for name, report in reports.items() if report.findings) == bug.found_by
    for report in reports.values():
        assert all(one.timeline and one.replay for one in report.findings)


def test_the_shop_as_it_should_be_is_found_in_order() -> None:
    """No false alarm, and every step, undo, probe and question was reached."""
    for report in found_by(NOTHING).values():
        report.raise_if_found()
        assert not [one for one in report.uncovered if "never" in one.why]


def test_there_are_at_least_ten() -> None:
    """Ten kinds of mistakes at least, each under a name of its own."""
    assert len({bug.name for bug in BUGS}) == len(BUGS) >= 10
