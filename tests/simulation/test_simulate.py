"""The kernel: processes that live and die in virtual time, the same way each time."""

from __future__ import annotations

import asyncio
import time
from typing import Self

import pytest

from atone import Orchestrator
from atone.orchestrator import Limits
from atone.stores.memory import MemoryStore
from atone.testing.simulate import Killed, Process, Simulation, Stuck, TooLong, point
from atone.testing.through import Through
from tests.runtime.world import Order, ShipOrder, World


class _Shared(Through):
    """Opened by nobody, so that several orchestrators can have it."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


def test_hours_pass_in_no_time() -> None:
    """A sleep costs nothing but a jump of the clock."""
    sim = Simulation()

    async def main() -> float:
        before = asyncio.get_running_loop().time()
        await asyncio.sleep(3600)
        return asyncio.get_running_loop().time() - before

    began = time.monotonic()
    assert sim.run(main) == 3600
    assert time.monotonic() - began < 60


def test_nothing_that_can_happen_is_told() -> None:
    """Waiting for what nobody will ever say is no hang."""

    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Stuck):
        Simulation().run(main)


@pytest.mark.parametrize("bounds", [{"steps_max": 100}, {"seconds_max": 5.0}])
def test_what_never_ends_is_cut_off(bounds: dict[str, float]) -> None:
    """Both the steps and the virtual time are bounded."""

    async def main() -> None:
        while True:  # noqa: ASYNC110 - it is to be cut off
            await asyncio.sleep(0.1)

    with pytest.raises(TooLong):
        Simulation(**bounds).run(main)  # type: ignore[arg-type]


async def _three_steps(done: list[str]) -> str:
    try:
        for step in ("a", "b", "c"):
            point(f"before {step}")
            done.append(step)
            await asyncio.sleep(1)
    finally:
        point("cleaning up")
        done.append("finally")
    return "through"


def test_a_process_that_is_killed_at_a_point_does_nothing_after_it() -> None:
    """At each of its points in turn: what it did before stands, no `finally` of it acts."""

    def run(at: int | None) -> tuple[list[str], bool, int]:
        done: list[str] = []
        sim = Simulation(seed=None)

        async def main() -> Process:
            process = sim.process("p", lambda: _three_steps(done))
            if at is not None:
                process.crash_at(at)
                with pytest.raises(Killed):
                    await process.wait()
            else:
                assert await process.wait() == "through"
            await asyncio.sleep(10)
            return process

        process = sim.run(main)
        return done, process.alive, process.points

    whole, alive, points = run(None)
    assert whole == ["a", "b", "c", "finally"]
    assert not alive
    cut = [run(at)[0] for at in range(1, points + 1)]
    assert cut[0] == []
    assert all("finally" not in done for done in cut[:-1])
    assert {len(done) for done in cut} >= {0, 1, 2, 3}


def test_a_process_that_is_frozen_goes_on_where_it_was() -> None:
    """Time passes for the others; what became due meanwhile comes when it is thawed."""
    sim = Simulation(seed=3)
    ticks: list[float] = []

    async def ticking() -> None:
        while True:
            await asyncio.sleep(1)
            ticks.append(round(sim.clock.monotonic()) % 1000)

    async def main() -> None:
        process = sim.process("p", ticking)
        await asyncio.sleep(2.5)
        process.freeze()
        await asyncio.sleep(10)
        process.thaw()
        await asyncio.sleep(2)
        process.kill()

    sim.run(main)
    assert ticks[:3] == [1, 2, 12]
    assert len(ticks) == 4


def _saga_in_two_workers(seed: int | None) -> tuple[str, str, int]:
    sim = Simulation(seed)
    store = MemoryStore(allow_volatile=True, clock=sim.clock.time)
    world = World()

    async def worker() -> None:
        async with Orchestrator(_Shared(store), sagas=[ShipOrder(world)], limits=Limits(lease_seconds=5)):
            await asyncio.Event().wait()

    async def client() -> str:
        async with Orchestrator(_Shared(store), sagas=[ShipOrder(world)], runs=False) as atone:
            handle = await atone.start(ShipOrder, Order("1"), saga_id="1")
            return type(await handle.outcome()).__name__

    async def main() -> str:
        sim.process("one", worker).crash_at(18)
        sim.process("two", worker)
        return str(await sim.process("client", client).wait())

    return sim.run(main), sim.digest(), sim.steps


def test_the_runtime_runs_in_it_and_a_seed_repeats_it_to_the_byte() -> None:
    """Two workers, one of which is killed, and a client: completed, and the same digest for the same seed only."""
    found = [_saga_in_two_workers(seed) for seed in (None, 1, 2, 3)]
    assert {outcome for outcome, _, _ in found} == {"Completed"}
    assert [_saga_in_two_workers(seed) for seed in (None, 1, 2, 3)] == found
    assert len({digest for _, digest, _ in found}) == 4
