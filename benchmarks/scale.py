"""What grows with the store and with the fleet, on PostgreSQL: a million finished sagas, many workers, many that wait.

Runs its parts on a throw-away server with stock settings and full durability, and prints a JSON object for each figure.
Must not measure what it compares at different times: rounds alternate between a store with a history and an empty one.
Run as `python -m benchmarks.scale --json`; `--sagas 2000` for a first look.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, TypeAlias

import asyncpg

from atone import Completed, Orchestrator
from atone.stores.postgres import PostgresStore, migrate
from atone.testing.postgres import PostgresServer, postgres_server
from benchmarks import history, latency
from benchmarks.crew import STEPS, CountedOrder, Ledger, Task, Worker, calls_in, measured
from benchmarks.load import Loaded
from benchmarks.order_saga import AN_ORDER, saga_id, the_saga
from benchmarks.recording import record

Figures: TypeAlias = dict[str, Any]

GOAL_RATIO = 0.9
PARTS = ("history", "workers", "waiting")
WORKERS = (1, 2, 4)
_EMPTY = "TRUNCATE atone.sagas, atone.journal, atone.requests"


async def with_history(server: PostgresServer, options: argparse.Namespace) -> AsyncIterator[Figures]:
    """Compare a store that fills with finished sagas with one that stays empty."""
    empty, full = await _database(server, "empty_store"), await _database(server, "full_store")
    recording = await record("order")
    have = 0
    for want in sorted({0, options.sagas // 10, options.sagas}):
        begun = perf_counter()
        await history.fill(full, recording, have, want)
        filled, have = perf_counter() - begun, want
        if want:
            async with Orchestrator(PostgresStore(full), sagas=[the_saga("order")]) as orchestrator:
                proved = await history.prove(orchestrator, want)
            size = await _value(full, "SELECT pg_database_size(current_database())")
            yield {"part": "history", "finished_sagas": want, "read_through_the_api": proved,
                   "fill_seconds": round(filled, 1), "database_bytes": size}  # fmt: skip
        await _value(empty, _EMPTY)
        for figures in await latency.compare(empty, full, recording, options.calls):
            yield {"part": "latency", "finished_sagas": want, **figures}
    yield {"part": "throughput", "finished_sagas": have, **await _throughput(empty, full, options)}


async def _throughput(empty: str, full: str, options: argparse.Namespace) -> Figures:
    rounds: list[tuple[Loaded, Loaded]] = []
    wal: tuple[list[float], list[float]] = [], []
    for number in range(options.rounds):
        await _value(empty, _EMPTY)
        found: dict[int, Loaded] = {}
        for at in (0, 1) if number % 2 else (1, 0):
            task = Task((empty, full)[at], inflight=options.inflight, seconds=options.seconds)
            task.first_client = 1000 * (number % 4)
            before = await _value(full, "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
            found[at] = await asyncio.to_thread(measured, task)
            after = await _value(full, "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
            wal[at].append(float(after - before) / found[at].sagas)
        rounds.append((found[0], found[1]))
    ratios = sorted(full.sagas_per_second / empty.sagas_per_second for empty, full in rounds)
    return {
        "inflight": options.inflight,
        "rounds": len(rounds),
        "sagas_per_second": round(median(full.sagas_per_second for _, full in rounds), 1),
        "empty_sagas_per_second": round(median(empty.sagas_per_second for empty, _ in rounds), 1),
        "ratio": round(median(ratios), 3),
        "ratio_min": round(ratios[0], 3),
        "ratio_max": round(ratios[-1], 3),
        "goal_ratio": GOAL_RATIO,
        "p50_ms": round(median(full.p50_ms for _, full in rounds), 2),
        "empty_p50_ms": round(median(empty.p50_ms for empty, _ in rounds), 2),
        "wal_bytes_per_saga": round(median(wal[1])),
        "empty_wal_bytes_per_saga": round(median(wal[0])),
    }


async def with_workers(server: PostgresServer, options: argparse.Namespace) -> AsyncIterator[Figures]:
    """Let 1, 2 and 4 processes share sagas that belong to nobody; count what came of them."""
    for workers in WORKERS:
        dsn = await _database(server, f"fleet{workers}")
        with TemporaryDirectory(prefix="atone-scale-") as folder:
            yield {"part": "workers", "workers": workers, **await _shared(dsn, workers, options.shared, Path(folder))}


async def _shared(dsn: str, workers: int, sagas: int, folder: Path) -> Figures:
    ledgers = [folder / str(number) for number in range(workers)]
    async with _left_to_others(dsn, sagas, folder / "unused") as commit:
        crew = [Worker(Task(dsn, str(ledger))) for ledger in ledgers]
        for one in crew:
            one.told()
        begun = perf_counter()
        await commit()
    while await _value(dsn, "SELECT count(*) FROM atone.sagas WHERE status <> 'completed'"):  # noqa: ASYNC110 - a table
        await asyncio.sleep(0.05)
    seconds = perf_counter() - begun
    for one in crew:
        one.leave()
    calls = [calls_in(ledger) for ledger in ledgers]
    seen = sum(calls, Counter[tuple[str, str]]())
    return {
        "started": sagas,
        "completed": await _value(dsn, "SELECT count(*) FROM atone.sagas WHERE status = 'completed'"),
        "journals_wrong": await _wrong_journals(dsn, sagas, folder / "unused"),
        "steps_called": len(seen),
        "steps_called_twice": sum(times > 1 for times in seen.values()),
        "steps_missing": sagas * len(STEPS) - len(seen),
        "steps_by_worker": [one.total() for one in calls],
        "seconds_to_finish": round(seconds, 2),
        "sagas_per_second": round(sagas / seconds, 1),
    }


@asynccontextmanager
async def _left_to_others(dsn: str, sagas: int, ledger: Path) -> AsyncGenerator[Callable[[], Awaitable[None]], None]:
    """Start sagas that nobody sees before `commit`, which is given; who started them is gone by then."""
    connection: Any = await asyncpg.connect(dsn)
    transaction = connection.transaction()
    await transaction.start()
    async with Orchestrator(PostgresStore(dsn), sagas=[CountedOrder(Ledger(str(ledger)))]) as orchestrator:
        for number in range(sagas):
            await orchestrator.start(CountedOrder, AN_ORDER, saga_id=saga_id(0, number), connection=connection)
    yield transaction.commit
    await connection.close()


async def _wrong_journals(dsn: str, sagas: int, ledger: Path) -> int:
    """Read every saga through the API; return how many do not tell of their own three steps."""
    wrong = 0
    async with Orchestrator(PostgresStore(dsn), sagas=[CountedOrder(Ledger(str(ledger)))]) as orchestrator:
        for number in range(sagas):
            name = saga_id(0, number)
            match await orchestrator.outcome(CountedOrder, name, timeout=0):
                case Completed() as done:
                    results = (done[CountedOrder.reserve], done[CountedOrder.pay], done[CountedOrder.ship])
                    wrong += results != (f"reservation-{name}", f"payment-{name}", f"shipment-{name}")
                case _:
                    wrong += 1
    return wrong


async def _waiting(options: argparse.Namespace) -> Figures:
    """Run the benchmark of sagas that wait, in a process of its own: it looks at its memory."""
    command = ["-m", "benchmarks.waiting", "--store", "postgres", "--sagas", str(options.waiting), "--json"]
    wake = ["--wake", str(min(1_000, options.waiting))]
    process = await asyncio.create_subprocess_exec(sys.executable, *command, *wake, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    if process.returncode:
        raise SystemExit(f"benchmarks.waiting has ended with status {process.returncode}.")
    return {"part": "waiting", **json.loads(said)}


async def _database(server: PostgresServer, name: str) -> str:
    """Make a database with Atone's tables, and return where it is."""
    await _value(server.url(), f"CREATE DATABASE {name}")
    dsn = server.url(name)
    await migrate(dsn)
    async with Orchestrator(PostgresStore(dsn), sagas=[the_saga("order")]):
        pass  # the definition is known from now on
    return dsn


async def _value(dsn: str, statement: str) -> Any:
    connection: Any = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def _parts(options: argparse.Namespace, server: PostgresServer) -> AsyncIterator[Figures]:
    if "history" in options.parts:
        async for figures in with_history(server, options):
            yield figures
    if "workers" in options.parts:
        async for figures in with_workers(server, options):
            yield figures
    if "waiting" in options.parts:
        yield await _waiting(options)


async def run(options: argparse.Namespace) -> bool:
    """Run the parts and print their figures; return whether nothing was lost and nothing done twice."""
    is_sound = True
    with postgres_server() as server:
        version = await _value(server.url(), "SHOW server_version")
        async for figures in _parts(options, server):
            is_sound &= not any(figures.get(name) for name in ("journals_wrong", "steps_called_twice", "steps_missing"))
            about = {"postgres": version, "python": platform.python_version(), "cpus": os.cpu_count() or 0,
                     "load_average": round(os.getloadavg()[0], 2)}  # fmt: skip
            _print({"benchmark": "scale", "store": "postgres", **figures, **about}, options.json)
    return is_sound


def _print(figures: Figures, as_json: bool) -> None:
    if as_json:
        print(json.dumps(figures), flush=True)
    else:
        print("\n".join(f"{name:26} {value}" for name, value in figures.items()), end="\n\n", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure what grows with the store and with the fleet.")
    parser.add_argument("--sagas", type=int, default=1_000_000, help="finished sagas in the store (default 1000000)")
    parser.add_argument("--waiting", type=int, help="how many wait for an event (default a tenth of --sagas)")
    parser.add_argument("--shared", type=int, default=3_000, help="how many the workers share (default 3000)")
    parser.add_argument("--calls", type=int, default=100, help="how often each call is timed (default 100)")
    parser.add_argument("--rounds", type=int, default=6, help="pairs of runs for throughput (default 6)")
    parser.add_argument("--seconds", type=float, default=5.0, help="measured in each run (default 5)")
    parser.add_argument("--inflight", type=int, default=100, help="sagas in flight in each run (default 100)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure (default all)")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    options = parser.parse_args()
    if options.sagas < 1 or options.shared < 1 or options.rounds < 1 or options.calls < 1:
        parser.error("--sagas, --shared, --rounds and --calls must be at least 1")
    if options.waiting is None:
        options.waiting = max(1, options.sagas // 10)
    return options


def main() -> None:
    sys.exit(0 if asyncio.run(run(_options())) else 1)


if __name__ == "__main__":
    main()
