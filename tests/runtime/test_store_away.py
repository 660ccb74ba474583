"""The store is away: facts wait in memory, nothing is undone for it, and everything goes on when it is back."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import apsw
import pytest

from atone import Compensated, Completed, Reject
from atone.errors import StoreSchemaError, StoreUnavailable
from tests.runtime.faulty_store import FaultyStore, lost_after, lost_before
from tests.runtime.world import (
    Order,
    PlaceOrder,
    World,
    opened,
    raises,
    run,
    sqlite,
    until,
    waits,
)

METHODS = ("commit", "claim", "load", "find", "deliver", "start")


def goes_away(store: FaultyStore) -> None:
    """Every call is lost, renewals too."""
    for method in METHODS:
        store.always(method, lost_before)
    store.fail_renewals()


def comes_back(store: FaultyStore) -> None:
    for method in METHODS:
        store.always(method, None)
    store.allow_renewals()


def test_an_outcome_waits_for_a_store_that_is_away(tmp_path: Path) -> None:
    """Shorter than the lease: no call is repeated, none begins meanwhile, nothing is undone."""

    async def main() -> None:
        store, world, gate = FaultyStore(sqlite(tmp_path)), World(), asyncio.Event()
        world.script("charge", waits(gate))
        async with opened(store, PlaceOrder(world), lease_seconds=60) as orchestrator:
            handle = await orchestrator.start(PlaceOrder, Order(), saga_id="1")
            await world.reached("charge")
            goes_away(store)
            gate.set()
            with pytest.raises(StoreUnavailable):
                await handle.status()
            await asyncio.sleep(0.2)
            assert world.names == ["reserve", "charge"]
            comes_back(store)
            assert isinstance(await handle.outcome(timeout=20), Completed)
        assert world.names == ["reserve", "charge", "ship"]

    run(main())


def test_a_rollback_waits_for_a_store_that_is_away(tmp_path: Path) -> None:
    """The direction is not lost, and no undo begins before it is durable."""

    async def main() -> None:
        store, world, gate = FaultyStore(sqlite(tmp_path)), World(), asyncio.Event()

        async def refuses(at: object) -> None:
            await gate.wait()
            raise Reject("no van")

        world.script("ship", refuses)
        async with opened(store, PlaceOrder(world), lease_seconds=60) as orchestrator:
            handle = await orchestrator.start(PlaceOrder, Order(), saga_id="1")
            await world.reached("ship")
            goes_away(store)
            gate.set()
            await asyncio.sleep(0.2)
            assert world.names == ["reserve", "charge", "ship"]
            comes_back(store)
            assert isinstance(await handle.outcome(timeout=20), Compensated)
        assert world.names == ["reserve", "charge", "ship", "refund", "release"]

    run(main())


def test_a_store_that_is_away_for_longer_than_the_lease_loses_no_saga(tmp_path: Path) -> None:
    """Whether this worker lives on or comes back under a new id: every saga ends, no effect twice."""

    async def main() -> None:
        store, world, gate = FaultyStore(sqlite(tmp_path)), World(), asyncio.Event()
        world.always("charge", waits(gate))
        async with opened(store, PlaceOrder(world), lease_seconds=0.3) as orchestrator:
            handles = [await orchestrator.start(PlaceOrder, Order(), saga_id=str(number)) for number in range(5)]
            await world.reached("charge", 5)
            goes_away(store)
            failed = store.failed_renewals
            await until(lambda: store.failed_renewals > failed + 6)
            gate.set()
            await asyncio.sleep(0.1)
            assert "ship" not in world.names
            comes_back(store)
            assert all([isinstance(await handle.outcome(timeout=20), Completed) for handle in handles])
        assert set(world.effects.values()) == {1}

    run(main())


def test_a_start_waits_for_a_store_that_is_away(tmp_path: Path) -> None:
    """One whose caller gives up may still be written; the same start again finds that very saga."""

    async def main() -> None:
        store, world = FaultyStore(sqlite(tmp_path)), World()
        async with opened(store, PlaceOrder(world), lease_seconds=60) as orchestrator:
            store.always("commit", lost_before)
            patient = asyncio.ensure_future(orchestrator.start(PlaceOrder, Order(), saga_id="patient"))
            hasty = asyncio.ensure_future(orchestrator.start(PlaceOrder, Order(), saga_id="hasty"))
            done, _ = await asyncio.wait([patient, hasty], timeout=0.1)
            assert not done
            hasty.cancel()
            store.always("commit", None)
            first = await patient
            second = await orchestrator.start(PlaceOrder, Order(), saga_id="hasty")
            for handle in (first, second):
                assert isinstance(await handle.outcome(timeout=20), Completed)
            assert len(await orchestrator.list()) == 2
        assert set(world.effects.values()) == {1}
        assert len(world.effects) == 6

    run(main())


def test_a_request_that_can_not_be_written_says_so(tmp_path: Path) -> None:
    """Its caller may ask again, by the same id if the answer was all that was lost."""

    async def main() -> None:
        store, world, gate = FaultyStore(sqlite(tmp_path)), World(), asyncio.Event()
        world.script("charge", waits(gate))
        async with opened(store, PlaceOrder(world), lease_seconds=60) as orchestrator:
            handle = await orchestrator.start(PlaceOrder, Order(), saga_id="1")
            await world.reached("charge")
            store.script("deliver", lost_before, lost_after)
            for _ in range(2):
                with pytest.raises(StoreUnavailable):
                    await handle.cancel(reason="changed my mind")
            receipt = await handle.cancel(reason="changed my mind")
            assert (await receipt.answer(timeout=20)).applied
            gate.set()
            assert isinstance(await handle.outcome(timeout=20), Compensated)
        assert world.names == ["reserve", "charge", "refund", "release"]

    run(main())


def test_an_orchestrator_whose_store_can_not_be_opened_leaves_nothing_behind(tmp_path: Path) -> None:
    """A store of a newer schema is not touched; the error names both numbers, and no thread stays."""

    async def main() -> None:
        async with opened(sqlite(tmp_path), PlaceOrder(World())):
            pass
        with apsw.Connection(str(tmp_path / "sagas.db")) as file:
            file.pragma("user_version", 99)
        before = threading.active_count()
        with pytest.raises(StoreSchemaError, match="99"):
            async with opened(sqlite(tmp_path), PlaceOrder(World())):
                pytest.fail("it must not open")
        await until(lambda: threading.active_count() <= before)

    run(main())


def test_a_registration_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    """The store is closed again, and the next try may go well."""

    async def main() -> None:
        store, world = FaultyStore(sqlite(tmp_path)), World()
        world.script("charge", raises(Reject("no")))
        store.unplug()
        before = threading.active_count()
        with pytest.raises(StoreUnavailable):
            async with opened(store, PlaceOrder(world)):
                pytest.fail("it must not open")
        await until(lambda: threading.active_count() <= before)
        store.unplugged = False
        async with opened(store, PlaceOrder(world)) as orchestrator:
            assert isinstance(await orchestrator.execute(PlaceOrder, Order(), saga_id="1", timeout=20), Compensated)

    run(main())
