"""A URL becomes a store in one place, and a wrong one says what would be right."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from atone.errors import StoreError, VolatileStore
from atone.stores import open_store
from atone.stores.memory import MemoryStore
from atone.stores.postgres import PostgresStore
from atone.stores.sqlite import SqliteStore


def test_three_slashes_are_relative_and_four_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """sqlite:///orders.db is in the working directory, sqlite:////tmp/orders.db is not."""
    monkeypatch.chdir(tmp_path)

    async def touch(url: str) -> None:
        async with open_store(url) as store:
            assert isinstance(store, SqliteStore)

    asyncio.run(touch("sqlite:///relative.db"))
    asyncio.run(touch(f"sqlite:///{tmp_path}/absolute name?#.db"))
    assert {path.name for path in tmp_path.iterdir()} == {"relative.db", "absolute name?#.db"}


def test_the_memory_store_has_to_be_asked_for() -> None:
    """It forgets everything, so a URL alone is not enough."""
    with pytest.raises(VolatileStore, match="allow_volatile=True"):
        open_store("memory://")
    assert isinstance(open_store("memory://", allow_volatile=True), MemoryStore)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("orders.db", "sqlite:///relative.db"),
        ("mysql://host/db", "sqlite:///relative.db"),
        ("sqlite://orders.db", "sqlite:///relative.db"),
        ("sqlite:///", "sqlite:///relative.db"),
        ("sqlite:///:memory:", "memory://"),
        ("postgresql://host/db?statement_cache_size=many", "Write 0"),
        ("postgresql://host/db?notify=perhaps", "Write notify=off"),
        ("postgresql://host/db?schema=pg_catalog", "letters, digits and _"),
    ],
)
def test_a_wrong_url_is_told_the_right_ones(url: str, says: str) -> None:
    """The message ends with what to write instead."""
    with pytest.raises(StoreError, match=says):
        open_store(url)


def test_a_postgresql_url_may_name_a_schema_and_a_pooler(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is Atone's is taken out of the URL, the rest goes to the driver as it was written."""
    made: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(PostgresStore, "__init__", lambda self, dsn, **options: made.append((dsn, options)))
    for rest in ("", "?schema=Orders&notify=off&statement_cache_size=0&sslmode=verify-full&options=-c%20geqo%3Doff"):
        open_store(f"postgres://me:p%40ss@one:5432,two:5433/db{rest}", must_exist=bool(rest))
    assert made == [
        (
            "postgres://me:p%40ss@one:5432,two:5433/db",
            {"schema": "atone", "migrate": True, "statement_cache_size": 100, "notify": True},
        ),
        (
            "postgres://me:p%40ss@one:5432,two:5433/db?sslmode=verify-full&options=-c%20geqo%3Doff",
            {"schema": "Orders", "migrate": False, "statement_cache_size": 0, "notify": False},
        ),
    ]


def test_without_the_extra_a_postgresql_url_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message is the command to run."""
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    monkeypatch.delitem(sys.modules, "atone.stores.postgres")
    with pytest.raises(StoreError, match=r'pip install "atone\[postgres\]"'):
        open_store("postgresql://host/db")
