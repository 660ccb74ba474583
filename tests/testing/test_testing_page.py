"""docs/testing.md and the README's lines on testing are true: pytest runs their code, tables are compared."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.planted.bugs import BUGS
from tests.test_readme import README, ROOT, python_of
from tests.testing.test_pytest_plugin import LOADED

pytest_plugins = ["pytester"]

PAGE = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
HELPERS = ("crash_everywhere", "repeat_every_action", "repeat_every_compensation", "fail_each_step")


def test_the_page_s_code_runs(pytester: pytest.Pytester) -> None:
    """Its blocks are one module of tests, and all of them pass: three plain ones, and twenty schedules of one."""
    pytester.makepyfile("\n\n".join(python_of(PAGE)))
    result = pytester.runpytest_inprocess(*LOADED, "-p", "no:cacheprovider", "-p", "no:logging")
    result.assert_outcomes(passed=23)


def test_the_readme_s_lines_on_testing_run(pytester: pytest.Pytester) -> None:
    """The saga at the top of the README is verified as it is printed further down."""
    blocks = python_of(README)
    (verifying,) = [block for block in blocks if "verify(" in block]
    pytester.makepyfile(f"{blocks[0]}\n\n{verifying}")
    result = pytester.runpytest_inprocess(*LOADED, "-p", "no:cacheprovider", "-p", "no:logging")
    result.assert_outcomes(passed=1)


def test_the_table_of_planted_bugs_is_what_the_helpers_find() -> None:
    """A row for each bug, a mark for each helper that finds it; test_planted compares these with the runs."""
    rows = re.findall(r"^\| ([^|]+) \|(.*)\|$", PAGE.partition("## The helpers")[2], re.MULTILINE)
    shown = {mistake: tuple(cell.strip() == "found" for cell in cells.split("|")) for mistake, cells in rows}
    wanted = {bug.mistake: tuple(helper in bug.found_by for helper in HELPERS) for bug in BUGS}
    assert {mistake: marks for mistake, marks in shown.items() if mistake in wanted} == wanted


def test_links_lead_to_files() -> None:
    """What the page points to exists."""
    links = re.findall(r"\]\(([^)#:]+)\)", PAGE)
    assert links
    assert not [to for to in links if not Path(ROOT, "docs", to).exists()]
