"""Orchestrators on one PostgreSQL: sagas complete, are compensated, taken over, and outlive the server's restart."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest

from atone import Compensated, Completed, Orchestrator, Reject
from atone._runtime import starting
from atone.errors import UnknownSaga
from atone.stores import open_store
from tests.runtime.faulty_store import FaultyStore
from tests.runtime.world import (
    Landing,
    Order,
    PlaceOrder,
    ShipOrder,
    World,
    lands,
    lands_and_hangs,
    opened,
    raises,
    run,
)
from tests.servers.postgres import Bench, Place


def orchestrator(place: Place, world: World, **options: Any) -> Orchestrator:
    return opened(place.store(real_clock=True, statement_seconds=1.0), PlaceOrder(world), ShipOrder(world), **options)


def statuses(place: Place) -> dict[str, int]:
    return dict(place.sql("SELECT status, count(*) FROM sagas GROUP BY 1"))


async def lands_late(at: Landing) -> Any:
    await asyncio.sleep(0.02)
    return at.land()


def test_sagas_complete_and_are_compensated(postgres_bench: Bench) -> None:
    """The same definitions, the same outcomes, with a worker's rights and a URL."""
    place = postgres_bench.place()

    async def main() -> None:
        world = World()
        url = f"{postgres_bench.worker_url}?schema={place.schema}"
        async with opened(open_store(url), PlaceOrder(world), ShipOrder(world)) as one:
            assert isinstance(await one.execute(PlaceOrder, Order("1"), saga_id="1"), Completed)
            world.script("ship", raises(Reject("no truck")))
            assert isinstance(await one.execute(PlaceOrder, Order("2"), saga_id="2"), Compensated)
            assert isinstance(await one.execute(ShipOrder, Order("3"), saga_id="3"), Completed)
            assert world.standing("1") == {"reserve", "charge", "ship"}
            assert world.standing("2") == set()
            cancelled = asyncio.Event()
            world.script("charge", lambda at: _after(cancelled, at))
            handle = await one.start(PlaceOrder, Order("4"), saga_id="4")
            await world.reached("charge", 3)
            await handle.cancel(reason="changed my mind")
            cancelled.set()
            assert isinstance(await handle.outcome(timeout=20), Compensated)
            assert world.standing("4") == set()
        assert statuses(place) == {"completed": 2, "compensated": 2}
        assert place.sql("SELECT dead FROM workers") == [(True,)]

    run(main())


async def _after(gate: asyncio.Event, at: Landing) -> Any:
    await gate.wait()
    return at.land()


def test_what_a_crashed_orchestrator_leaves_is_finished_by_another(postgres_bench: Bench) -> None:
    """Its lease ends, its sagas are taken over where they stood; no effect is there twice, and none is missing."""
    place = postgres_bench.place()

    async def main() -> None:
        world = World()
        count = 30
        world.always("charge", lands_and_hangs)
        store = FaultyStore(place.store(real_clock=True, statement_seconds=1.0))
        usual = {"lease_seconds": 0.5, "grace_seconds": 0.0, "cancel_grace_seconds": 0.01}
        async with opened(store, PlaceOrder(world), ShipOrder(world), **usual) as gone:
            for number in range(count):
                await gone.start(PlaceOrder, Order(str(number)), saga_id=str(number))
            await world.reached("charge", count)
            store.unplug()
        assert statuses(place) == {"running": count}
        world.always("charge", lands)
        async with orchestrator(place, world) as heir:
            outcomes = [await heir.outcome(PlaceOrder, str(number), timeout=30) for number in range(count)]
        assert all(isinstance(outcome, Completed) for outcome in outcomes)
        assert set(world.effects.values()) == {1}
        assert len(world.effects) == 3 * count
        assert statuses(place) == {"completed": count}

    run(main())


def test_whoever_stands_by_looks_again_when_a_lease_ends(postgres_bench: Bench) -> None:
    """The end of a lease is known beforehand: nobody has to poll for it, here there would be no poll for an hour."""
    place = postgres_bench.place()

    async def main() -> None:
        world = World()
        world.always("charge", lands_and_hangs)
        store = FaultyStore(place.store(real_clock=True, statement_seconds=1.0))
        usual = {"lease_seconds": 1.0, "grace_seconds": 0.0, "cancel_grace_seconds": 0.01}
        async with opened(store, PlaceOrder(world), ShipOrder(world), **usual) as gone:
            await gone.start(PlaceOrder, Order("1"), saga_id="1")
            await world.reached("charge")
            async with orchestrator(place, world, poll_seconds=3600.0) as heir:
                world.always("charge", lands)
                store.unplug()
                await world.reached("ship")
                assert isinstance(await heir.outcome(PlaceOrder, "1", timeout=30), Completed)

    run(main())


def test_two_orchestrators_share_the_work_and_neither_does_the_others(postgres_bench: Bench) -> None:
    """Sagas are started here and there; each step of each is called once."""
    place = postgres_bench.place()

    async def main() -> None:
        world = World()
        async with orchestrator(place, world) as one, orchestrator(place, world) as other:
            names = [str(number) for number in range(60)]
            outcomes = await asyncio.gather(
                *(
                    (one, other)[at % 2].execute(PlaceOrder, Order(name), saga_id=name, timeout=30)
                    for at, name in enumerate(names)
                )
            )
            assert all(isinstance(outcome, Completed) for outcome in outcomes)
            seen = [await (other, one)[at % 2].outcome(PlaceOrder, name, timeout=30) for at, name in enumerate(names)]
            assert [type(outcome) for outcome in seen] == [Completed] * len(names)
        assert len(world.calls) == 3 * len(names)
        assert set(world.effects.values()) == {1}

    run(main())


def test_a_saga_that_is_started_within_a_transaction_begins_after_its_commit(postgres_bench: Bench) -> None:
    """Nothing runs before; nothing ever runs after a roll-back."""
    place = postgres_bench.place()

    async def main() -> None:
        world = World()
        async with orchestrator(place, world) as one:
            async with await psycopg.AsyncConnection.connect(postgres_bench.worker_url) as connection:
                dropped = await one.start(PlaceOrder, Order("1"), saga_id="1", connection=connection)
                await connection.rollback()
                handle = await one.start(PlaceOrder, Order("2"), saga_id="2", connection=connection)
                with pytest.raises(UnknownSaga, match="not committed"):
                    await handle.outcome(timeout=1)
                assert world.calls == []
                await connection.commit()
            again = await one.start(PlaceOrder, Order("2"), saga_id="2")
            assert isinstance(await again.outcome(timeout=20), Completed)
            with pytest.raises(UnknownSaga):
                await dropped.outcome(timeout=1)
            assert {call.saga_id for call in world.calls} == {"2"}

    run(main())


@pytest.mark.parametrize("commits", [True, False])
@pytest.mark.parametrize("verb", ["start", "execute"])
@pytest.mark.parametrize("statements_kept", [100, 0])
def test_a_second_start_of_what_an_open_transaction_starts_holds_up_nobody(
    postgres_bench: Bench, monkeypatch: pytest.MonkeyPatch, statements_kept: int, verb: str, commits: bool
) -> None:
    """It asks ever more rarely, behind a pooler too; others complete, and in the end there is one saga."""
    place, pauses = postgres_bench.place(), list[float]()

    async def main() -> None:
        world, many = World(), asyncio.Event()

        async def pause(result: object, seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) >= 8:
                many.set()
            await asyncio.sleep(0.01)

        monkeypatch.setattr(starting, "_pause", pause)
        store = place.store(real_clock=True, statement_seconds=1.0, statement_cache_size=statements_kept)
        async with (
            opened(store, PlaceOrder(world), ShipOrder(world)) as one,
            await psycopg.AsyncConnection.connect(postgres_bench.worker_url) as connection,
        ):
            await one.start(PlaceOrder, Order("X"), saga_id="X", connection=connection)
            second = asyncio.ensure_future(getattr(one, verb)(PlaceOrder, Order("X"), saga_id="X"))
            await many.wait()
            others = await asyncio.gather(*(one.execute(PlaceOrder, Order(str(n)), saga_id=str(n)) for n in range(30)))
            assert [type(outcome) for outcome in others] == [Completed] * 30
            assert not second.done()
            await (connection.commit() if commits else connection.rollback())
            await second
            assert isinstance(await one.outcome(PlaceOrder, "X", timeout=20), Completed)
        assert len([call for call in world.calls if call.saga_id == "X"]) == 3
        assert place.sql("SELECT count(*) FROM sagas") == [(31,)]
        assert pauses == sorted(pauses)
        assert pauses[-1] == 1.0

    run(main())


def test_a_restart_of_the_server_stops_no_saga(postgres_bench: Bench) -> None:
    """Killed in the middle of the work: what was acknowledged is there, and every saga comes to its end."""
    place = postgres_bench.place()

    async def main() -> None:
        world = World()
        for name in ("reserve", "charge", "ship"):
            world.always(name, lands_late)
        async with orchestrator(place, world, sagas_in_flight_max=50) as one:
            names = [str(number) for number in range(150)]
            calls = [one.execute(PlaceOrder, Order(name), saga_id=name, timeout=50) for name in names]
            running = [asyncio.ensure_future(call) for call in calls]
            for how in ("kill", "immediate", "fast"):
                await world.reached("charge", world.count("charge") + 10)
                await asyncio.to_thread(postgres_bench.server.restart, how)
            outcomes = await asyncio.gather(*running)
        postgres_bench.reconnect()
        assert all(isinstance(outcome, Completed) for outcome in outcomes)
        assert set(world.effects.values()) == {1}
        assert len(world.effects) == 3 * len(names)
        assert statuses(place) == {"completed": len(names)}

    run(main())


def test_a_worker_goes_on_from_what_is_there_when_the_store_has_forgotten_a_row(postgres_bench: Bench) -> None:
    """A standby that was promoted too late knows less than the worker: it takes its saga over anew, under a new id."""
    place = postgres_bench.place()

    async def main() -> None:
        world = World()
        gate = asyncio.Event()
        world.script("charge", lambda at: _after(gate, at))
        async with orchestrator(place, world, lease_seconds=0.5) as one:
            handle = await one.start(PlaceOrder, Order("1"), saga_id="1")
            await world.reached("charge", 1)
            place.sql("DELETE FROM journal WHERE version = 2")
            gate.set()
            assert isinstance(await handle.outcome(timeout=20), Completed)
        assert set(world.effects.values()) == {1}
        assert world.count("reserve") == 2
        assert place.sql("SELECT count(*) FROM workers") == [(2,)]

    run(main())
