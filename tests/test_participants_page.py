"""The page for participants is true: its code runs, and its tables name what there is."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from atone.barrier import Undo
from atone.integrations.fastapi import PROBLEMS
from atone.isolation import Changed
from tests.test_readme import imported, python_of

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "participants.md").read_text(encoding="utf-8")


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return its blocks as one module."""
    monkeypatch.chdir(tmp_path)
    return imported(tmp_path, "participants_blocks", "\n\n".join(python_of(PAGE)))


@pytest.mark.parametrize(
    ("order", "cents", "says", "ledger"),
    [
        ("1", 4200, "paid and shipped", [4200]),
        ("2", 100_001, "undone: process_payment: over the card's limit", []),
        ("lost", 4200, "undone: ship: no parcel to send", [4200, -4200]),
    ],
)
def test_a_saga_and_a_service_of_the_page_work_together(
    page: Any, order: str, cents: int, says: str, ledger: list[int]
) -> None:
    """Paid, refused, and refunded, over HTTP."""
    page.create_tables()
    transport = httpx.ASGITransport(page.app)

    said = asyncio.run(page.place(page.Charge(order, cents), transport=transport, base_url="http://payments"))

    assert said == says
    with closing(sqlite3.connect("payments.db")) as connection:
        assert [row for (row,) in connection.execute("SELECT cents FROM ledger")] == ledger


def test_a_function_of_the_page_is_called_once(page: Any) -> None:
    """The claim's block."""
    assert asyncio.run(page.pay_rent(page.Bank())) == [True, Undo.UNDONE]


def test_each_exception_that_is_a_problem_is_told() -> None:
    """In the table of statuses."""
    names = {kind.__name__ for kind in PROBLEMS if isinstance(kind, type)} - {"MessageError"}
    assert [name for name in names if f"`{name}`" not in PAGE] == []


def test_the_locks_of_the_page_keep_sagas_apart(page: Any) -> None:
    """Held until the saga ends, reread, and a pair that commutes."""
    with page.database() as connection:
        connection.execute("CREATE TABLE accounts (id TEXT PRIMARY KEY, cents INTEGER, version INTEGER)")
        connection.execute("INSERT INTO accounts VALUES ('ann', 100, 1), ('bob', 0, 1), ('cem', 0, 1)")
        page.locks.create_table(connection)
    page.move("one", "ann", "bob", 30)
    with pytest.raises(page.Locked, match="held by saga 'one'"):
        page.move("two", "bob", "cem", 30)
    assert page.ended("one") == ["ann", "bob"]
    page.move("two", "bob", "cem", 30)
    with pytest.raises(Changed):
        page.close("bob", 1)
    page.close("bob", 3)
    with page.database() as connection:
        assert connection.execute("SELECT id, cents FROM accounts").fetchall() == [("ann", 70), ("cem", 30)]
    page.test_deposits_commute()
