"""Starts without a worker, bounds of single definitions, and what happens when more is started than can be stored."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import apsw
import pytest

from atone import Completed, Context, Orchestrator, Saga, SagaStatus, step
from atone.blocking import BlockingOrchestrator
from atone.errors import ConflictingStart, DefinitionError, OutcomeTimeout, Overloaded, Shutdown, StoreUnavailable
from atone.orchestrator import Limits
from atone.stores.memory import MemoryStore
from atone.stores.sqlite import SqliteStore
from tests.runtime.faulty_store import FaultyStore, held, lost_after, lost_before
from tests.runtime.world import Order, PlaceOrder, ShipOrder, World, limits, opened, run, sqlite, until, waits

NOBODY = World()  # what a starter's definitions are given: nothing of it is called


def starting(store: Any, *sagas: Saga[Any], **other: Any) -> Orchestrator:
    """Return an orchestrator that starts sagas and runs none."""
    some = list(sagas or [PlaceOrder(NOBODY), ShipOrder(NOBODY)])
    return Orchestrator(store, sagas=some, runs=False, limits=limits(**other), allow_volatile=True)


def test_what_one_process_starts_another_runs(tmp_path: Path) -> None:
    """The starter waits for the outcome, and steers, while the other one works."""

    async def main() -> None:
        world = World()
        async with starting(sqlite(tmp_path)) as starter:
            saga = await starter.start(PlaceOrder, Order(), saga_id="1")
            assert await saga.status() is SagaStatus.PENDING
            assert (await starter.explain(PlaceOrder, "1")).headline.startswith("Pending: not")
            assert (await starter.preview(PlaceOrder, "1")).order == ()
            with pytest.raises(OutcomeTimeout):
                await saga.outcome(timeout=0.1)
            async with opened(sqlite(tmp_path), PlaceOrder(world)):
                assert isinstance(await saga.outcome(timeout=20), Completed)
            assert (await starter.list())[0].worker is None
        assert world.names == ["reserve", "charge", "ship"]

    run(main())


def test_a_starter_leaves_no_worker_behind_and_renews_nothing(tmp_path: Path) -> None:
    """Its plans are in the store, under nobody's id: a thousand processes that come and go leave no row each."""

    async def main() -> None:
        store = FaultyStore(sqlite(tmp_path))
        async with starting(store, lease_seconds=0.1) as starter:
            await starter.start(PlaceOrder, Order(), saga_id="1")
            await asyncio.sleep(0.3)  # three leases; a heartbeat would have shown itself
        assert store.renewals == [0.0]
        file = apsw.Connection(str(tmp_path / "sagas.db"))
        assert file.execute("SELECT count(*) FROM workers").fetchone() == (0,)
        assert file.execute("SELECT count(*) FROM definitions WHERE plan IS NOT NULL").fetchone() == (2,)
        file.close()

    run(main())


class Brief(Saga[Order], version=1, deadline=60):
    """It is undone when a minute has passed."""

    @step(no_compensation="nothing")
    async def only(self, ctx: Context[Order]) -> int:
        return 1


class Clocks:
    """The store's clock and this process's, both moved by hand."""

    def __init__(self, path: Path) -> None:
        self.wall, self.passed, self._path = 1_000_000.0, 0.0, path

    def monotonic(self) -> float:
        return self.passed

    def store(self) -> SqliteStore:
        return SqliteStore(self._path / "sagas.db", clock=lambda: self.wall)

    def starting(self, store: Any) -> Orchestrator:
        return Orchestrator(store, sagas=[Brief()], runs=False, limits=limits(), clock=self)

    async def outcome(self, saga_id: str) -> object:
        """Let a worker come and run the saga."""
        async with opened(self.store(), Brief()) as worker:
            return await worker.outcome(Brief, saga_id, timeout=20)


def test_a_starter_that_is_open_for_long_hears_that_the_stores_clock_has_jumped(tmp_path: Path) -> None:
    """Deadlines of its sagas begin at the store's time of the start, not of the starter's opening."""
    clocks = Clocks(tmp_path)

    async def main() -> None:
        async with clocks.starting(clocks.store()) as starter:
            clocks.wall, clocks.passed = clocks.wall + 300, clocks.passed + 10
            await starter.start(Brief, Order(), saga_id="1")
        assert isinstance(await clocks.outcome("1"), Completed)

    run(main())


def test_so_does_one_that_starts_within_transactions(tmp_path: Path) -> None:
    """The first turn is made before it is inserted, with the time as it is then."""
    clocks = Clocks(tmp_path)

    async def main() -> None:
        async with clocks.starting(clocks.store()) as starter:
            clocks.wall, clocks.passed = clocks.wall + 300, clocks.passed + 10
            caller = apsw.Connection(str(tmp_path / "sagas.db"))
            caller.execute("BEGIN IMMEDIATE")  # a look at the time waits for nobody who writes
            await starter.start(Brief, Order(), saga_id="1", connection=caller)
            caller.execute("COMMIT")
            caller.close()
        assert isinstance(await clocks.outcome("1"), Completed)

    run(main())


def test_starts_share_a_look_at_the_clock_and_most_make_none(tmp_path: Path) -> None:
    """A hundred at once are one look; those that follow soon need none, and no look writes."""
    clocks = Clocks(tmp_path)

    async def main() -> None:
        store = FaultyStore(clocks.store())
        async with clocks.starting(store) as starter:
            clocks.passed += 10
            await asyncio.gather(*(starter.start(Brief, Order(), saga_id=str(n)) for n in range(100)))
            assert store.renewals == [0.0, 0.0]
            clocks.passed += 1
            await starter.start(Brief, Order(), saga_id="soon")
            assert store.renewals == [0.0, 0.0]

    run(main())


def test_a_start_waits_for_a_store_whose_clock_cannot_be_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is written when the store is back, in the time of then; one that is cut off takes no other along."""
    clocks = Clocks(tmp_path)

    async def main() -> None:
        store = FaultyStore(clocks.store())
        async with clocks.starting(store) as starter:
            clocks.passed, store.unplugged = 10, True
            starts = [asyncio.ensure_future(starter.start(Brief, Order(), saga_id=str(n))) for n in range(3)]
            await until(lambda: "reading the store's clock" in caplog.text)
            starts[0].cancel()
            clocks.wall, store.unplugged = clocks.wall + 300, False
            assert [(await start).saga_id for start in starts[1:]] == ["1", "2"]
        assert isinstance(await clocks.outcome("1"), Completed)

    run(main())


def test_a_start_that_waits_for_the_clock_ends_with_the_starter(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing was written, and it says so."""
    clocks = Clocks(tmp_path)

    async def main() -> None:
        store = FaultyStore(clocks.store())
        async with clocks.starting(store) as starter:
            clocks.passed, store.unplugged = 10, True
            start = asyncio.ensure_future(starter.start(Brief, Order(), saga_id="1"))
            await until(lambda: "reading the store's clock" in caplog.text)
        with pytest.raises(Shutdown):
            await start

    run(main())


def test_a_start_whose_answer_was_lost_is_one_start(tmp_path: Path) -> None:
    """It is sent again with the same id until the answer is definite, as a worker's is."""

    async def main() -> None:
        store = FaultyStore(sqlite(tmp_path))
        store.script("commit", lost_after, lost_before, lost_after)
        async with starting(store) as starter:
            await starter.start(PlaceOrder, Order(), saga_id="1")
            assert len(await starter.list()) == 1

    run(main())


def test_a_start_is_idempotent_without_a_worker_too(tmp_path: Path) -> None:
    """The same input finds the saga, another one is a conflict."""

    async def main() -> None:
        async with starting(sqlite(tmp_path)) as starter:
            first = await starter.start(PlaceOrder, Order(), saga_id="1")
            again = await starter.start(PlaceOrder, Order(), saga_id="1")
            assert again.key == first.key
            with pytest.raises(ConflictingStart):
                await starter.start(PlaceOrder, Order(total=7), saga_id="1")

    run(main())


def test_many_starts_share_a_commit(tmp_path: Path) -> None:
    """A thousand at once are a few batches, as on a worker."""

    async def main() -> None:
        store = FaultyStore(sqlite(tmp_path))
        async with starting(store) as starter:
            await asyncio.gather(*(starter.start(PlaceOrder, Order(), saga_id=str(n)) for n in range(1000)))
        assert len(store.turns) == 1000
        assert len(store.batches) <= 20

    run(main())


def test_a_closed_starter_starts_nothing(tmp_path: Path) -> None:
    """What was given before is written; what comes after is refused."""

    async def main() -> None:
        store = FaultyStore(sqlite(tmp_path))
        gate, reached = asyncio.Event(), asyncio.Event()
        store.script("commit", held(gate, reached))
        async with starting(store) as starter:
            early = asyncio.ensure_future(starter.start(PlaceOrder, Order(), saga_id="1"))
            await reached.wait()
            asyncio.get_running_loop().call_later(0.05, gate.set)
        assert (await early).saga_id == "1"
        with pytest.raises(Shutdown):
            await starter.start(PlaceOrder, Order(), saga_id="2")

    run(main())


@pytest.mark.parametrize("runs", [False, True])
def test_a_close_waits_until_every_start_has_heard_that_it_is_durable(tmp_path: Path, runs: bool) -> None:
    """A batch of any size is told in portions, and the store is not closed between two of them."""

    async def main() -> None:
        store = FaultyStore(sqlite(tmp_path))
        gate, reached = asyncio.Event(), asyncio.Event()
        patient = limits(grace_seconds=20.0)  # a close ends as soon as all have heard; a busy machine may take longer
        async with Orchestrator(store, sagas=[PlaceOrder(World())], runs=runs, limits=patient) as one:
            store.script("commit", held(gate, reached))
            first = asyncio.ensure_future(one.start(PlaceOrder, Order(), saga_id="first"))
            await reached.wait()
            many = [
                asyncio.ensure_future(one.start(PlaceOrder, Order(), saga_id=str(number))) for number in range(1500)
            ]
            asyncio.get_running_loop().call_later(0.05, gate.set)
            await asyncio.sleep(0)  # each has begun
        ends = await asyncio.gather(first, *many, return_exceptions=True)
        assert [end for end in ends if isinstance(end, BaseException)] == []

    run(main())


def test_plain_code_may_start_for_a_fleet_too(tmp_path: Path) -> None:
    """The blocking face has the same switch."""

    async def one_that_works() -> None:
        async with opened(sqlite(tmp_path), PlaceOrder(World())) as orchestrator:
            assert isinstance(await orchestrator.outcome(PlaceOrder, "1", timeout=20), Completed)

    with BlockingOrchestrator(sqlite(tmp_path), sagas=[PlaceOrder(NOBODY)], runs=False) as starter:
        saga = starter.start(PlaceOrder, Order(), saga_id="1")
        asyncio.run(one_that_works())
        assert isinstance(saga.outcome(timeout=20), Completed)


@pytest.mark.parametrize("runs", [True, False])
def test_one_start_too_many_is_refused_and_nothing_of_it_is_written(tmp_path: Path, runs: bool) -> None:
    """A store that does not answer fills the queue, not the memory; when it answers, there is room again."""

    async def main() -> None:
        store, gate, reached = FaultyStore(sqlite(tmp_path)), asyncio.Event(), asyncio.Event()
        some, bounds = [PlaceOrder(World())], limits(starts_waiting_max=3)
        async with Orchestrator(store, sagas=some, runs=runs, limits=bounds) as one:
            store.script("commit", held(gate, reached))
            starts = [asyncio.ensure_future(one.start(PlaceOrder, Order(), saga_id=str(n))) for n in range(3)]
            await reached.wait()
            with pytest.raises(Overloaded, match="nothing was written"):
                await one.start(PlaceOrder, Order(), saga_id="too many")
            starts[2].cancel()  # who does not wait any more makes room
            await asyncio.gather(starts[2], return_exceptions=True)
            late = asyncio.ensure_future(one.start(PlaceOrder, Order(), saga_id="late"))
            gate.set()
            for start in (*starts[:2], late):
                await start
            assert "too many" not in {saga.saga_id for saga in await one.list()}
            assert (await one.start(PlaceOrder, Order(), saga_id="too many")).saga_id == "too many"

    run(main())


def test_a_store_that_is_away_does_not_fill_the_memory(tmp_path: Path) -> None:
    """Starts wait until it is back; those beyond the bound are told at once."""

    async def main() -> None:
        store = FaultyStore(sqlite(tmp_path))
        async with starting(store, starts_waiting_max=10) as starter:
            store.always("commit", lost_before)
            starts = [asyncio.ensure_future(starter.start(PlaceOrder, Order(), saga_id=str(n))) for n in range(50)]
            await until(lambda: sum(start.done() for start in starts) == 40)
            store.always("commit", None)
            results = await asyncio.gather(*starts, return_exceptions=True)
            assert sum(isinstance(result, Overloaded) for result in results) == 40
            assert len(await starter.list()) == 10

    run(main())


class Small(Saga[Order], name="PlaceOrder", version=2, late_grace=0):
    """The next version of PlaceOrder."""

    def __init__(self, world: World) -> None:
        self.world = world

    @step(no_compensation="nothing", timeout=20)
    async def reserve(self, ctx: Context[Order]) -> str:
        return await self.world.act("reserve", ctx)


@pytest.mark.parametrize("by", ["class", "name"])
def test_a_definition_keeps_to_its_bound_and_leaves_the_room_to_others(tmp_path: Path, by: str) -> None:
    """Three of ten run, all versions together; the fourth is stored and begins when one has left, without a poll."""

    async def main() -> None:
        world, gate = World(), asyncio.Event()
        world.always("charge", waits(gate))
        bound: Any = {PlaceOrder: 3} if by == "class" else {"PlaceOrder": 3}
        sagas = (PlaceOrder(world), Small(world), ShipOrder(world))
        other: dict[str, Any] = {"sagas_in_flight_of": bound, "poll_seconds": 3600.0}
        async with opened(sqlite(tmp_path), *sagas, **other) as one:
            for number in range(10):
                await one.start(PlaceOrder, Order(), saga_id=str(number))
            await one.start(Small, Order(), saga_id="small")
            await world.reached("charge", 3)
            assert isinstance(await one.execute(ShipOrder, Order(), saga_id="other", timeout=20), Completed)
            assert world.count("charge") == 3
            assert "small" not in {call.saga_id for call in world.calls}
            assert sum(saga.worker is not None for saga in await one.list()) == 3
            gate.set()
            for number in range(10):
                assert isinstance(await one.outcome(PlaceOrder, str(number), timeout=20), Completed)
            assert isinstance(await one.outcome(Small, "small", timeout=20), Completed)

    run(main())


@pytest.mark.parametrize("bound", [{PlaceOrder: 0}, {PlaceOrder: True}, {PlaceOrder: 1.5}, {7: 1}, {Order: 1}])
def test_a_bound_that_can_not_be_meant_is_refused(bound: Any) -> None:
    """A whole number from one up, for a saga."""
    with pytest.raises(DefinitionError, match="sagas_in_flight_of"):
        Limits(sagas_in_flight_of=bound)


def test_a_bound_for_what_is_not_registered_is_refused() -> None:
    """A name with a slip would bound nothing, and nobody would notice."""
    store = MemoryStore(allow_volatile=True)
    with pytest.raises(DefinitionError, match="'PlaceOder', which is not registered here"):
        Orchestrator(store, sagas=[PlaceOrder(NOBODY)], limits=Limits(sagas_in_flight_of={"PlaceOder": 3}))


def test_a_saga_beyond_the_bound_is_taken_over_by_a_worker_that_has_room(tmp_path: Path) -> None:
    """The bound is one worker's: another has its own."""

    async def main() -> None:
        world, gate = World(), asyncio.Event()
        world.always("charge", waits(gate))
        bound: dict[str, Any] = {"sagas_in_flight_of": {"PlaceOrder": 1}}
        async with opened(sqlite(tmp_path), PlaceOrder(world), **bound) as one:
            for number in range(2):
                await one.start(PlaceOrder, Order(), saga_id=str(number))
            async with opened(sqlite(tmp_path), PlaceOrder(world), **bound):
                await world.reached("charge", 2)
                gate.set()
                for number in range(2):
                    assert isinstance(await one.outcome(PlaceOrder, str(number), timeout=20), Completed)

    run(main())


def test_the_store_is_asked_again_when_it_was_away_at_the_start(tmp_path: Path) -> None:
    """A starter that can't reach its store says so at once: a script or a web process must know."""

    async def main() -> None:
        store = FaultyStore(sqlite(tmp_path))
        store.unplug()
        with pytest.raises(StoreUnavailable):
            async with starting(store):
                pass

    run(main())
