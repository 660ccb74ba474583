"""One run of one side, Atone or the floor, in a process of its own, so that its CPU time can be told apart.

Owns nothing but this process: it reads a task as JSON from its command line, runs it on a fresh file and prints what it
measured as JSON. Must not compare. Started by `throughput`.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import msgspec

from atone import Compensated, Completed, Orchestrator
from atone.orchestrator import Limits
from atone.stores.sqlite import SqliteStore
from benchmarks.floor import Floor
from benchmarks.load import Loaded, RunOne, closed_loop
from benchmarks.order_saga import AN_ORDER, PlaceOrder, saga_id, the_saga
from benchmarks.recording import Recording, WatchedStore


class Task(msgspec.Struct):
    """What to run. `directory` is where the database file is made; `recording` tells the floor what to write."""

    side: Literal["atone", "floor"]
    workload: str
    inflight: int
    warmup_seconds: float
    seconds: float
    directory: str | None = None
    recording: Recording | None = None


def run(task: Task) -> Loaded:
    """Run the task on a file that is made for it and deleted afterwards."""
    with TemporaryDirectory(prefix="atone-bench-", dir=task.directory) as folder:
        file = Path(folder) / "bench.db"
        loaded = asyncio.run(_run_atone(task, file) if task.side == "atone" else _run_floor(task, file))
        loaded.disk_bytes = file.stat().st_size
        return loaded


async def _run_atone(task: Task, file: Path) -> Loaded:
    ends = Completed if task.workload == "order" else Compensated
    store = WatchedStore(SqliteStore(file))
    limits = Limits(sagas_in_flight_max=max(Limits.sagas_in_flight_max, 2 * task.inflight))
    async with Orchestrator(store, sagas=[the_saga(task.workload)], limits=limits) as orchestrator:

        async def run_one(client: int, number: int) -> None:
            outcome = await orchestrator.execute(PlaceOrder, AN_ORDER, saga_id=saga_id(client, number))
            assert isinstance(outcome, ends), f"{ends.__name__} was expected, not {outcome}"

        loaded = await _measured(task, run_one)
    loaded.turns, loaded.batches = store.turns, store.batches
    return loaded


async def _run_floor(task: Task, file: Path) -> Loaded:
    assert task.recording is not None
    floor = Floor(str(file), task.recording)
    floor.start()
    loaded = await _measured(task, floor.run_one)
    floor.close()
    loaded.turns, loaded.batches = floor.turns, floor.batches
    return loaded


async def _measured(task: Task, run_one: RunOne) -> Loaded:
    return await closed_loop(run_one, inflight=task.inflight, warmup_seconds=task.warmup_seconds, seconds=task.seconds)


def main() -> None:
    task = msgspec.json.decode(sys.argv[1], type=Task)
    print(msgspec.json.encode(run(task)).decode())


if __name__ == "__main__":
    main()
