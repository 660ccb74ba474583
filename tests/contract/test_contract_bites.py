"""The contract can fail: for each of its checks there is a broken store that it turns down.

The broken stores are the memory store, and for a caller's transactions the SQLite store, each with one rule taken out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast
from uuid import uuid4

import apsw
import pytest

from atone.stores.memory import MemoryStore
from atone.stores.sqlite import SqliteStore
from atone.testing.contracts import STORE_CHECKS, ContractBroken, Joined, Subject
from tests.contract.broken_stores import BROKEN, BROKEN_IN_SQL, VersionsAreSkipped

ROW_BYTES_MAX = 1000


def turned_down_by(make_subject: Callable[[], Subject], names: Collection[str] = ()) -> set[str]:
    """Return the names of the checks that do not let a store pass."""
    found: set[str] = set()
    for check in STORE_CHECKS:
        if names and check.name not in names:
            continue
        try:
            asyncio.run(check(make_subject))
        except (Exception, asyncio.CancelledError):
            found.add(check.name)
    return found


def subject_of(kind: Callable[..., MemoryStore]) -> Callable[[], Subject]:
    def make() -> Subject:
        now = [1_750_000_000.0]
        store = kind(allow_volatile=True, clock=lambda: now[0], row_bytes_max=ROW_BYTES_MAX)
        return Subject(store, lambda seconds: now.__setitem__(0, now[0] + seconds), ROW_BYTES_MAX)

    return make


def sql_subject_of(kind: type[SqliteStore], folder: Path) -> Callable[[], Subject]:
    def make() -> Subject:
        now = [1_750_000_000.0]
        path = folder / f"{uuid4().hex}.db"
        store = kind(path, clock=lambda: now[0], row_bytes_max=ROW_BYTES_MAX)

        @contextmanager
        def join() -> Iterator[Joined]:
            connection = apsw.Connection(str(path))
            connection.execute("BEGIN")
            yield Joined(
                connection, lambda: connection.execute("COMMIT").get, lambda: connection.execute("ROLLBACK").get
            )
            connection.close()

        return Subject(store, lambda seconds: now.__setitem__(0, now[0] + seconds), ROW_BYTES_MAX, join)

    return make


JOINED = {check.name for check in STORE_CHECKS if check.name.startswith("a_start_inside")}


@pytest.fixture(scope="module")
def complaints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The checks that each broken store fails."""
    found = {kind.__name__: turned_down_by(subject_of(kind)) for kind in BROKEN}
    folder = tmp_path_factory.mktemp("broken")
    found |= {kind.__name__: turned_down_by(sql_subject_of(kind, folder), JOINED) for kind in BROKEN_IN_SQL}
    return found


@pytest.mark.parametrize("kind", [*BROKEN, *BROKEN_IN_SQL], ids=lambda kind: cast("type", kind).__name__)
def test_a_store_without_this_rule_is_turned_down(kind: type, complaints: dict[str, set[str]]) -> None:
    """A store that breaks one rule of the port fails the contract."""
    assert complaints[kind.__name__]


@pytest.mark.parametrize("name", [check.name for check in STORE_CHECKS])
def test_this_check_can_fail(name: str, complaints: dict[str, set[str]]) -> None:
    """Each check turns down at least one broken store."""
    assert any(name in found for found in complaints.values())


def test_an_unbroken_store_is_not_turned_down() -> None:
    """The scaffold itself is sound: without a fault nothing is complained about."""
    assert turned_down_by(subject_of(MemoryStore)) == set()


def test_a_complaint_says_what_is_wrong() -> None:
    """Whoever writes an adapter reads what was found and what was expected."""
    check = next(check for check in STORE_CHECKS if check.name == "a_version_is_never_skipped")
    with pytest.raises(ContractBroken, match=r"result of a turn that skips one: .*applied.* instead of .*conflict"):
        asyncio.run(check(subject_of(VersionsAreSkipped)))
