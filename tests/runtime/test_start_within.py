"""A start within the caller's own transaction: all of it or nothing."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import pytest

from atone import Completed
from atone.errors import ConflictingStart, PayloadError, UnknownSaga
from atone.stores.memory import MemoryStore
from tests.runtime.world import Order, PlaceOrder, World, opened, run, sqlite


@contextmanager
def callers(path: Path) -> Iterator[apsw.Connection]:
    """Open the caller's own connection to the store's file, within a transaction."""
    connection = apsw.Connection(str(path / "sagas.db"))
    connection.set_busy_timeout(5000)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
    finally:
        connection.close()


def test_a_saga_begins_when_its_transaction_is_committed(tmp_path: Path) -> None:
    """Until then nobody sees it, nothing of it runs, and waiting for it is an error."""

    async def main() -> None:
        world = World()
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            with callers(tmp_path) as connection:
                handle = await orchestrator.start(PlaceOrder, Order(), saga_id="1", connection=connection)
                assert await orchestrator.list() == []
                with pytest.raises(UnknownSaga, match="ommit"):
                    await handle.outcome()
                with pytest.raises(UnknownSaga):
                    await orchestrator.get(PlaceOrder, "1")
                await asyncio.sleep(0.1)
                assert world.calls == []
                connection.execute("COMMIT")
            assert isinstance(await handle.outcome(timeout=20), Completed)
        assert world.names == ["reserve", "charge", "ship"]

    run(main())


@pytest.mark.parametrize("how", ["ROLLBACK", "close"])
def test_a_saga_whose_transaction_is_rolled_back_never_was(tmp_path: Path, how: str) -> None:
    """Its id is free again."""

    async def main() -> None:
        world = World()
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            with callers(tmp_path) as connection:
                handle = await orchestrator.start(PlaceOrder, Order(), saga_id="1", connection=connection)
                if how == "ROLLBACK":
                    connection.execute("ROLLBACK")
            with pytest.raises(UnknownSaga, match="ommit"):
                await handle.outcome()
            await asyncio.sleep(0.1)
            assert world.calls == []
            assert await orchestrator.list() == []
            assert isinstance(await orchestrator.execute(PlaceOrder, Order(total=7), saga_id="1"), Completed)

    run(main())


def test_the_callers_own_rows_and_the_saga_stand_or_fall_together(tmp_path: Path) -> None:
    """A later statement of the same transaction fails, and so the saga was never started."""

    async def main() -> None:
        async with opened(sqlite(tmp_path), PlaceOrder(World())) as orchestrator:
            with callers(tmp_path) as connection:
                await orchestrator.start(PlaceOrder, Order(), saga_id="1", connection=connection)
                with pytest.raises(apsw.Error):
                    connection.execute("INSERT INTO no_such_table VALUES (1)")
                connection.execute("ROLLBACK")
            assert await orchestrator.list() == []

    run(main())


def test_a_start_within_a_transaction_is_idempotent_too(tmp_path: Path) -> None:
    """The same input gives the same saga, another one is refused; the transaction stays usable."""

    async def main() -> None:
        world = World()
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            first = await orchestrator.start(PlaceOrder, Order(), saga_id="1")
            await first.outcome(timeout=20)
            with callers(tmp_path) as connection:
                again = await orchestrator.start(PlaceOrder, Order(), saga_id="1", connection=connection)
                assert again.key == first.key
                assert isinstance(await again.outcome(timeout=20), Completed)
                with pytest.raises(ConflictingStart):
                    await orchestrator.start(PlaceOrder, Order(total=7), saga_id="1", connection=connection)
                with pytest.raises(PayloadError):
                    await orchestrator.start(PlaceOrder, 7, saga_id="2", connection=connection)
                fine = await orchestrator.start(PlaceOrder, Order(), saga_id="2", connection=connection)
                with pytest.raises(ConflictingStart, match="not committed"):
                    await orchestrator.start(PlaceOrder, Order(), saga_id="2", connection=connection)
                connection.execute("COMMIT")
            assert isinstance(await fine.outcome(timeout=20), Completed)
        assert len(world.calls) == 6

    run(main())


def test_an_early_event_reaches_a_saga_that_was_started_so(tmp_path: Path) -> None:
    """It joins the saga with the caller's commit."""

    async def main() -> None:
        from tests.runtime.test_waits import Paid, PaidOrder

        async with opened(sqlite(tmp_path), PaidOrder(World())) as orchestrator:
            await orchestrator.send_event(PaidOrder, "1", "paid", Paid(3))
            with callers(tmp_path) as connection:
                handle = await orchestrator.start(PaidOrder, Order(), saga_id="1", connection=connection)
                connection.execute("COMMIT")
            done = await handle.outcome(timeout=20)
            assert isinstance(done, Completed)
            assert done[PaidOrder.paid] == Paid(3)

    run(main())


def test_a_connection_that_can_not_be_joined_is_refused_with_the_reason(tmp_path: Path) -> None:
    """The second SQLite library, another file, no transaction, no connection at all; nothing is left behind."""

    async def main() -> None:
        async with opened(sqlite(tmp_path), PlaceOrder(World())) as orchestrator:
            other = sqlite3.connect(tmp_path / "other.db")
            elsewhere = apsw.Connection(str(tmp_path / "elsewhere.db"))
            elsewhere.execute("BEGIN IMMEDIATE")
            idle = apsw.Connection(str(tmp_path / "sagas.db"))
            for connection, reason in [
                (other, "second SQLite library"),
                (elsewhere, "one transaction can't"),
                (idle, "in no transaction"),
                ("sagas.db", "apsw.Connection"),
            ]:
                with pytest.raises(TypeError, match=reason):
                    await orchestrator.start(PlaceOrder, Order(), saga_id="1", connection=connection)
            for opened_here in (other, elsewhere, idle):
                opened_here.close()
            assert await orchestrator.list() == []
        async with opened(MemoryStore(allow_volatile=True), PlaceOrder(World())) as orchestrator:
            with pytest.raises(TypeError, match="no transactions"):
                await orchestrator.start(PlaceOrder, Order(), saga_id="1", connection=object())

    run(main())


def test_a_caller_that_holds_the_file_for_long_stops_nothing_for_good(tmp_path: Path) -> None:
    """Others wait for the file, longer than one try; then everything goes on, nothing twice."""

    async def main() -> None:
        world = World()
        store = sqlite(tmp_path)
        store._busy_seconds = 0.05
        async with opened(store, PlaceOrder(world)) as orchestrator:
            with callers(tmp_path) as connection:
                within = await orchestrator.start(PlaceOrder, Order(), saga_id="within", connection=connection)
                beside = asyncio.ensure_future(orchestrator.execute(PlaceOrder, Order(), saga_id="beside", timeout=20))
                await asyncio.sleep(0.3)
                connection.execute("COMMIT")
            assert isinstance(await within.outcome(timeout=20), Completed)
            assert isinstance(await beside, Completed)
        assert set(world.effects.values()) == {1}

    run(main())
