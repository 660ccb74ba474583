"""A URL becomes a store in one place, and a wrong one says what would be right."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from atone.errors import StoreError, VolatileStore
from atone.stores import open_store
from atone.stores.memory import MemoryStore
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
        ("postgres://host/db", r"atone\[postgres\]"),
        ("postgresql://host/db", r"atone\[postgres\]"),
    ],
)
def test_a_wrong_url_is_told_the_right_ones(url: str, says: str) -> None:
    """The message ends with what to write instead."""
    with pytest.raises(StoreError, match=says):
        open_store(url)
