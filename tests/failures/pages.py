"""The pages of all failures, and the table of them in `docs/failures.md`: what is written, and what is there.

Owns the order of the failures and the files. Called by `python -m tests.failures` and by the test beside it.
"""

from __future__ import annotations

from pathlib import Path

from tests.failures import crashes, locks, messages, outcomes, steering, storage
from tests.failures.stage import FAILURES, page_of

TOLD = (crashes, outcomes, steering, storage, messages, locks)
DOCS = Path(__file__).parents[2] / "docs"
PAGES = DOCS / "failures"
INDEX = DOCS / "failures.md"
_BEGIN, _END = "<!-- made by python -m tests.failures --write -->\n", "<!-- until here -->\n"


def index() -> str:
    """Return what is seen first of each failure, and where it leads."""
    rows = [f"| {one.symptom} | [{one.title}](failures/{one.file}) |" for one in FAILURES.values()]
    return "\n".join(["| you see | what it is |", "|---|---|", *rows]) + "\n"


def indexed(text: str) -> str:
    """Return the index's page with the table as it should be."""
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    assert _BEGIN in text, f"{INDEX} has lost the place of its table"
    return f"{before}{_BEGIN}\n{index()}\n{_END}{after}"


def write() -> None:
    """Write every page and the table, and take away pages of failures that are told no more."""
    PAGES.mkdir(exist_ok=True)
    for stray in {one.name for one in PAGES.glob("*.md")} - {one.file for one in FAILURES.values()}:
        (PAGES / stray).unlink()
    for one in FAILURES.values():
        (PAGES / one.file).write_text(page_of(one), encoding="utf-8")
    INDEX.write_text(indexed(INDEX.read_text(encoding="utf-8")), encoding="utf-8")
