"""Starting a saga inside a caller's own SQLite transaction: only where it is safe."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from atone.errors import StoreUnavailable
from atone.store import TurnResult
from atone.testing._subject import birth_of
from tests.contract.scene import ROW_BYTES_MAX, opened


def in_transaction(path: Path) -> object:
    connection = apsw.Connection(str(path))
    connection.execute("BEGIN")
    return connection


def elsewhere(path: Path) -> object:
    return in_transaction(path.with_name("other.db"))


def in_memory(path: Path) -> object:
    return in_transaction(Path(":memory:"))


def without_a_transaction(path: Path) -> object:
    return apsw.Connection(str(path))


def of_the_standard_library(path: Path) -> object:
    return sqlite3.connect(path.with_name("other.db"))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (elsewhere, "the sagas are in"),
        (in_memory, "the sagas are in"),
        (without_a_transaction, "in no transaction.*Begin one"),
        (of_the_standard_library, "second SQLite library.*drop each other's locks.*apsw.Connection"),
        (lambda path: path, "plain apsw.Connection"),
    ],
)
def test_a_connection_that_can_not_carry_a_saga_is_refused(
    make: Callable[[Path], object], says: str, tmp_path: Path
) -> None:
    """TypeError with the reason, before anything is written."""

    async def use() -> None:
        async with opened(tmp_path / "a.db") as lab:
            connection = make(tmp_path / "a.db")
            try:
                with pytest.raises(TypeError, match=says):
                    await lab.store.start(birth_of(lab.key(), owned=False), connection=connection)
            finally:
                if isinstance(connection, apsw.Connection | sqlite3.Connection):
                    connection.close()
            assert await lab.find() == []

    asyncio.run(use())


def test_a_connection_through_another_name_of_the_file_is_fine(tmp_path: Path) -> None:
    """It is the file that counts, not how it was spelled."""
    (tmp_path / "link.db").symlink_to(tmp_path / "a.db")

    async def use() -> None:
        async with opened(tmp_path / "a.db") as lab:
            connection = apsw.Connection(str(tmp_path / "link.db"))
            with connection:
                first = birth_of(lab.key(), owned=False)
                assert await lab.store.start(first, connection=connection) is TurnResult.APPLIED
            connection.close()
            assert await lab.find() == [first.key]

    asyncio.run(use())


def test_what_the_caller_wrote_and_the_saga_are_one(tmp_path: Path) -> None:
    """A table of the caller's beside Atone's: both or neither, also when the start is turned down."""

    async def use() -> None:
        async with opened(tmp_path / "a.db") as lab:
            connection = apsw.Connection(str(tmp_path / "a.db"))
            connection.row_trace = lambda cursor, row: {"their": "own way to see rows"}
            connection.execute("BEGIN IMMEDIATE")
            first = birth_of(lab.key(), saga_id="7", owned=False)
            assert await lab.store.start(first, connection=connection) is TurnResult.APPLIED
            again = birth_of(lab.key(), saga_id="7", owned=False)
            assert await lab.store.start(again, connection=connection) is TurnResult.TAKEN
            large = birth_of(lab.key(), entries=b"x" * (ROW_BYTES_MAX + 1), owned=False)
            assert await lab.store.start(large, connection=connection) is TurnResult.REFUSED
            assert connection.execute("SELECT 1").fetchone() == {"their": "own way to see rows"}
            assert connection.in_transaction
            connection.execute("COMMIT")
            connection.close()
            assert await lab.find() == [first.key]

    asyncio.run(use())


def test_a_locked_file_is_unavailable_here_too(tmp_path: Path) -> None:
    """The caller's transaction has only read so far, and another one is writing."""

    async def use() -> None:
        async with opened(tmp_path / "a.db") as lab:
            other, connection = (apsw.Connection(str(tmp_path / "a.db")) for _ in range(2))
            other.execute("BEGIN IMMEDIATE")
            connection.execute("BEGIN")
            with pytest.raises(StoreUnavailable):
                await lab.store.start(birth_of(lab.key(), owned=False), connection=connection)
            other.execute("ROLLBACK")
            other.close()
            connection.close()

    asyncio.run(use())
