"""One page for each failure: what it claims has just happened, and what it quotes has just been said."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.failures.pages import INDEX, PAGES, indexed
from tests.failures.stage import FAILURES, Failure, Stage, page_of


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_a_page_tells_what_really_happens(failure: Failure) -> None:
    """Its story runs through, and the page that comes of it is the one in the documentation."""
    file = PAGES / failure.file
    assert file.is_file(), "Write it: python -m tests.failures --write"
    assert page_of(failure) == file.read_text(encoding="utf-8"), "Write it anew: python -m tests.failures --write"


def test_the_index_leads_to_every_page_and_there_is_no_other() -> None:
    """A failure that is told no more has no page, and each has its line in the table."""
    text = INDEX.read_text(encoding="utf-8")
    assert indexed(text) == text, "Write it anew: python -m tests.failures --write"
    linked = set(re.findall(r"\(failures/([a-z-]+\.md)\)", text))
    assert linked == {one.name for one in PAGES.glob("*.md")} == {one.file for one in FAILURES.values()}


def test_a_story_whose_claim_does_not_hold_gives_no_page() -> None:
    """A wrong claim is an assertion that fails, and so is a command that ends otherwise than the page says."""

    async def wrong(at: Stage) -> None:
        at.worker()
        await at.start()
        await at.settled()
        at.journal("It was cancelled.")
        await at.atone('cancel order-1 --reason "too late" --by ada')

    with pytest.raises(AssertionError, match="is over \\(completed\\)"):
        page_of(Failure("wrong", "Wrong", "nothing", wrong))


def test_a_page_is_the_same_each_time(tmp_path: Path) -> None:
    """Two runs of one story differ in no byte, although workers draw lots in it."""
    failure = FAILURES["a-step-that-kills-its-worker"]
    assert page_of(failure) == page_of(failure)
