"""One run of one side, Atone or the floor, in a process of its own, so that its CPU time can be told apart.

Owns nothing but this process: it reads a task as JSON from its command line, runs it on a fresh file or in the database
that it is given, and tells what it measured. Must not compare. Started by `throughput` and `compare`.
"""

from __future__ import annotations

import asyncio
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import apsw
import msgspec

from atone import Compensated, Completed, Orchestrator
from atone.orchestrator import Limits
from atone.store import Store
from atone.stores.postgres import PostgresStore
from atone.stores.sqlite import SqliteStore
from benchmarks.floor import Floor
from benchmarks.floor_postgres import FloorPostgres
from benchmarks.load import Loaded, RunOne, await_go, closed_loop, tell
from benchmarks.observers import Telemetry, observers
from benchmarks.order_saga import AN_ORDER, PlaceOrder, saga_id, the_saga
from benchmarks.peers import shop
from benchmarks.recording import Recording, WatchedStore


class Task(msgspec.Struct):
    """What to run, and where: in the database at `dsn`, or else on a file made in `directory`.

    `recording` tells the floor on SQLite what to write; `server_pid` is the first process of the database server;
    `telemetry` is what hears Atone.
    """

    side: Literal["atone", "floor"]
    workload: str
    inflight: int
    warmup_seconds: float
    seconds: float
    directory: str | None = None
    recording: Recording | None = None
    dsn: str | None = None
    server_pid: int | None = None
    telemetry: Telemetry = "none"


def run(task: Task) -> Loaded:
    """Run the task; a file is made for it and deleted afterwards, a database is left as it is."""
    if task.dsn is not None:
        return asyncio.run(_run_in_database(task, task.dsn))
    with TemporaryDirectory(prefix="atone-bench-", dir=task.directory) as folder:
        file = Path(folder) / "bench.db"
        loaded = asyncio.run(_run_on_file(task, file))
        loaded.disk_bytes = file.stat().st_size
        loaded.versions["SQLite"] = apsw.sqlite_lib_version()
        return loaded


async def _run_in_database(task: Task, dsn: str) -> Loaded:
    if task.side == "atone":
        loaded = await _run_atone(task, PostgresStore(dsn))
    else:
        floor = FloorPostgres(dsn, task.workload)
        await floor.start()
        loaded = await _measured(task, floor.run_one)
        loaded.turns, loaded.batches = floor.turns, floor.batches
        await floor.close()
        _agree(floor.calls, shop.books_of(loaded.sagas, task.workload))
    loaded.versions["asyncpg"] = version("asyncpg")
    return loaded


async def _run_on_file(task: Task, file: Path) -> Loaded:
    if task.side == "atone":
        return await _run_atone(task, SqliteStore(file))
    assert task.recording is not None, "the floor on SQLite writes a recording"
    floor = Floor(str(file), task.recording)
    floor.start()
    loaded = await _measured(task, floor.run_one)
    floor.close()
    loaded.turns, loaded.batches = floor.turns, floor.batches
    _agree({"rows": floor.turns}, {"rows": loaded.sagas * len(task.recording.turns)})  # it calls nobody
    return loaded


async def _run_atone(task: Task, inner: Store) -> Loaded:
    ends = Completed if task.workload == "order" else Compensated
    store = WatchedStore(inner)
    limits = Limits(sagas_in_flight_max=max(Limits.sagas_in_flight_max, 2 * task.inflight))
    saga = the_saga(task.workload)
    async with Orchestrator(store, sagas=[saga], limits=limits, telemetry=observers(task.telemetry)) as orchestrator:

        async def run_one(client: int, number: int) -> None:
            outcome = await orchestrator.execute(PlaceOrder, AN_ORDER, saga_id=saga_id(client, number))
            assert isinstance(outcome, ends), f"{ends.__name__} was expected, not {outcome}"

        loaded = await _measured(task, run_one)
    _agree(saga.calls, shop.books_of(loaded.sagas, task.workload))
    loaded.turns, loaded.batches = store.turns, store.batches
    loaded.versions["Atone"] = version("atone")
    return loaded


def _agree(calls: Mapping[str, int], owed: Mapping[str, int]) -> None:
    """End without a result unless every service was called once for each saga, as the peers do in `task.finish`."""
    if calls != owed:
        raise SystemExit(f"The books do not agree: {dict(calls)}, not {dict(owed)}.")


async def _measured(task: Task, run_one: RunOne) -> Loaded:
    await_go()
    return await closed_loop(
        run_one,
        inflight=task.inflight,
        warmup_seconds=task.warmup_seconds,
        seconds=task.seconds,
        servers=[] if task.server_pid is None else [task.server_pid],
    )


def main() -> None:
    loaded = run(msgspec.json.decode(sys.argv[1], type=Task))
    loaded.versions["Python"] = platform.python_version()
    tell(loaded)


if __name__ == "__main__":
    main()
