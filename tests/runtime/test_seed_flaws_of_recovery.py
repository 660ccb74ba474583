"""The seed's flaws about crashes and recovery, one test each; see `test_seed_flaws.py`.

A crash is a child killed with SIGKILL, or a store that stops answering; then a second orchestrator opens the same file.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import apsw

from atone import Compensated, Completed, Reject, Saga, SagaStatus
from atone.orchestrator import Orchestrator
from tests.runtime.faulty_store import FaultyStore, fails_with, lost_before
from tests.runtime.world import (
    Landing,
    Order,
    PlaceOrder,
    World,
    crashing,
    hangs,
    opened,
    raises,
    run,
    sqlite,
)
from tests.servers.processes import child_process

ROOT = Path(__file__).parent.parent.parent


def killed_at(folder: Path, at: str, rejected: str = "") -> World:
    """Run a child until `at` is called there, kill it with SIGKILL, and return the world that it leaves."""
    command = [sys.executable, "-m", "tests.runtime.crash_child", str(folder), at, rejected]
    path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    environment = {**os.environ, "PYTHONPATH": path}
    with child_process(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == f"reached {at}\n".encode()
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    return World(folder / "effects")


async def recovered(orchestrator: Orchestrator, saga: type[Saga[Any]] = PlaceOrder, saga_id: str = "1") -> Any:
    """Return how the saga that another process left ends here."""
    return await orchestrator.outcome(saga, saga_id, timeout=20)


def test_p02_a_crash_in_the_middle_forgets_no_step(tmp_path: Path) -> None:
    """Refutes `await self.repo.save(saga)` only before the first and after the last step."""
    world = killed_at(tmp_path, "ship")
    assert world.standing() == {"reserve", "charge", "ship"}

    async def main() -> None:
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            assert isinstance(await recovered(orchestrator), Completed)
        assert world.names == ["ship"], "only the step in doubt is called again"
        assert set(world.effects.values()) == {1}

    run(main())


def test_p03_recovery_resumes_and_does_not_roll_back(tmp_path: Path) -> None:
    """Refutes `await self.orchestrator.resume(saga)`, a method that does not exist, whose error compensated."""
    world = killed_at(tmp_path, "reserve")

    async def main() -> None:
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            assert isinstance(await recovered(orchestrator), Completed)
        assert world.names == ["reserve", "charge", "ship"]

    run(main())


def test_p14_a_step_that_landed_before_the_crash_is_undone_too(tmp_path: Path) -> None:
    """Refutes `_compensate(saga, saga.current_step)`, which begins one step before the one that had its effect."""
    world = killed_at(tmp_path, "charge")

    async def main() -> None:
        # The participant refuses now, and yet the first attempt may have landed: it has.
        world.script("charge", raises(Reject("account closed")))
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            assert isinstance(await recovered(orchestrator), Compensated)
        assert world.names == ["charge", "refund", "release"]
        assert world.standing() == set()

    run(main())


def test_p15_a_last_commit_that_fails_leaves_the_saga_successful(tmp_path: Path) -> None:
    """Refutes the last `await self.repo.save(saga)`: if it raised, recovery compensated a finished order."""

    async def main() -> None:
        world = World()
        store = FaultyStore(sqlite(tmp_path))

        async def ships(at: Landing) -> Any:
            store.script("commit", lost_before, lost_before)
            return at.land()

        world.script("ship", ships)
        async with opened(store, PlaceOrder(world)) as orchestrator:
            assert isinstance(await orchestrator.execute(PlaceOrder, Order(), saga_id="1"), Completed)
        assert world.names == ["reserve", "charge", "ship"]

    run(main())


def test_p15_a_crash_before_the_last_commit_leaves_the_saga_successful(tmp_path: Path) -> None:
    """Refutes the same line: the second process completes, and undoes nothing."""

    async def main() -> None:
        world = World()
        async with crashing(tmp_path, PlaceOrder(world)) as (orchestrator, store):

            async def ships(at: Landing) -> Any:
                store.unplug()
                return at.land()

            world.script("ship", ships)
            await orchestrator.start(PlaceOrder, Order(), saga_id="1")
            await world.reached("ship")
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            assert isinstance(await recovered(orchestrator), Completed)
        assert world.names == ["reserve", "charge", "ship", "ship"]
        assert set(world.effects.values()) == {1}

    run(main())


def test_p16_the_direction_is_durable_before_the_first_undo(tmp_path: Path) -> None:
    """Refutes `saga.status = SagaStatus.COMPENSATING` in memory only: after a crash the saga went forward again."""
    world = killed_at(tmp_path, "release", "ship")
    assert world.standing() == set()

    async def main() -> None:
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            assert isinstance(await recovered(orchestrator), Compensated)
        assert world.names == ["release"], "the refund was recorded, and nothing goes forward"

    run(main())


def test_p17_what_is_stored_is_data_and_keeps_the_error(tmp_path: Path) -> None:
    """Refutes `action: Callable` inside the saga's state, and `step.error`, which no field held."""

    async def main() -> None:
        world = World()
        world.script("charge", raises(OSError("the bank is down")), raises(Reject("card declined")))
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            outcome = await orchestrator.execute(PlaceOrder, Order(), saga_id="1")
            assert isinstance(outcome, Compensated)
            assert "card declined" in outcome.cause
        with apsw.Connection(str(tmp_path / "sagas.db")) as file:
            rows = [json.loads(row[0]) for row in file.execute("SELECT entries FROM journal ORDER BY version")]
            plan = json.loads(file.execute("SELECT plan FROM definitions").get)
        told = json.dumps(rows)
        assert "OSError" in told
        assert "the bank is down" in told
        assert [one["name"] for one in plan["steps"]] == ["reserve", "charge", "ship"]

    run(main())


def test_p18_one_broken_saga_stops_no_other(tmp_path: Path) -> None:
    """Refutes the loop of `recover_stuck_sagas`, which one bad save ended for all."""

    async def main() -> None:
        world = World()
        world.always("charge", hangs)
        async with crashing(tmp_path, PlaceOrder(world)) as (orchestrator, _):
            for number in range(5):
                await orchestrator.start(PlaceOrder, Order(), saga_id=str(number))
            await world.reached("charge", 5)
        with apsw.Connection(str(tmp_path / "sagas.db")) as file:
            file.execute("UPDATE journal SET entries = x'00' WHERE saga = (SELECT min(key) FROM sagas) AND version = 2")
        world = World()
        store = FaultyStore(sqlite(tmp_path))
        store.script("claim", fails_with(RuntimeError("a bug")), lost_before)
        async with opened(store, PlaceOrder(world)) as orchestrator:
            for number in range(1, 5):
                assert isinstance(await recovered(orchestrator, saga_id=str(number)), Completed)
            statuses = {info.saga_id: info.status for info in await orchestrator.list()}
        assert statuses["0"] is SagaStatus.NEEDS_ATTENTION
        assert set(statuses.values()) == {SagaStatus.NEEDS_ATTENTION, SagaStatus.COMPLETED}

    run(main())


def test_p19_a_saga_is_recovered_in_every_status(tmp_path: Path) -> None:
    """Refutes `find_by_status_and_age(SagaStatus.RUNNING, cutoff)`: PENDING and COMPENSATING were never found."""

    async def main() -> None:
        world = World()

        async def shows_what_it_is(at: Landing) -> Any:
            return await hangs(at) if at.ctx.saga_id == "running" else at.land()

        async def refuses_one(at: Landing) -> Any:
            if at.ctx.saga_id == "compensating":
                raise Reject("no")
            return at.land()

        world.always("reserve", shows_what_it_is)
        world.always("charge", refuses_one)
        world.always("release", hangs)
        async with crashing(tmp_path, PlaceOrder(world), sagas_in_flight_max=2) as (orchestrator, _):
            for saga_id in ("running", "compensating", "pending"):
                await orchestrator.start(PlaceOrder, Order(), saga_id=saga_id)
            await asyncio.gather(world.reached("reserve", 2), world.reached("release"))
            found = {info.saga_id: info.status.value for info in await orchestrator.list()}
            assert found == {name: name for name in ("running", "compensating", "pending")}
        world = World()
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            assert isinstance(await recovered(orchestrator, saga_id="running"), Completed)
            assert isinstance(await recovered(orchestrator, saga_id="pending"), Completed)
            assert isinstance(await recovered(orchestrator, saga_id="compensating"), Compensated)

    run(main())
