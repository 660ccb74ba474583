"""How soon another worker has finished what a killed one had in flight: from the end of its lease, and from the kill.

In each round one worker has so many sagas whose second step hangs, and another one stands by; the first is killed with
SIGKILL. Times are the database's: when the lease ended, and when the last row of the last saga was written. Must not
guess what was repeated: what the participants saw decides. Run as `python -m benchmarks.recovery --sagas 500 --json`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import sys
import time
from collections import Counter
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import asyncpg
import msgspec

from atone.orchestrator import Limits
from atone.stores.postgres import migrate
from atone.testing.postgres import postgres_server
from benchmarks.crew import STEPS, Task, Worker, calls_in

GOAL_SECONDS = 1.0
HANGS = "pay"
_PATIENCE_SECONDS = 120.0
_EMPTY = "TRUNCATE atone.sagas, atone.journal, atone.requests"
_LEASE = """
SELECT lease_until, CAST(extract(epoch FROM clock_timestamp()) AS float8) FROM atone.workers
 WHERE id = (SELECT owner FROM atone.sagas WHERE owner IS NOT NULL LIMIT 1)
"""
_LEFT = "SELECT count(*) FROM atone.sagas WHERE status <> 'completed'"
# The victim has written two rows of each saga; the third is the first one that the heir writes.
_TIMES = "SELECT min(at) FILTER (WHERE version = 3), max(at) FILTER (WHERE version = 3), max(at) FROM atone.journal"


class Round(msgspec.Struct):
    """What one kill showed. Seconds count from the end of the lease, but for `from_kill_seconds`.

    `repeated`: sagas whose hanging step was called twice. `repeated_elsewhere`: other calls that were made twice, and
    the hanging one's third; `missing`: steps that nobody was called for.
    """

    finished_seconds: float
    first_taken_seconds: float
    last_taken_seconds: float
    from_kill_seconds: float
    repeated: int
    repeated_elsewhere: int
    missing: int


async def one_round(dsn: str, ledger: Path, sagas: int, lease_seconds: float) -> Round:
    """Kill a worker that has so many sagas in flight, while another one stands by."""
    connection: Any = await asyncpg.connect(dsn)
    await connection.execute(_EMPTY)
    task = Task(dsn, str(ledger), lease_seconds=lease_seconds)
    victim = Worker(msgspec.structs.replace(task, starts=sagas, blocks=True))
    victim.told()
    heir = Worker(task)
    try:
        heir.told()
        while sum(name == HANGS for _, name in calls_in(ledger).elements()) < sagas:  # noqa: ASYNC110 - other processes
            await asyncio.sleep(0.05)
        await asyncio.sleep(random.uniform(0, lease_seconds / 3))  # leases of all ages are hit
        victim.kill()
        lease_until, killed_at = await connection.fetchrow(_LEASE)
        await _finished(connection)
        first, last, end = await connection.fetchrow(_TIMES)
    finally:
        victim.kill()
        heir.leave()
        await connection.close()
    times = (end - lease_until, first - lease_until, last - lease_until, end - killed_at)
    return Round(*times, *_counts(calls_in(ledger), sagas))


async def _finished(connection: Any) -> None:
    until = time.monotonic() + _PATIENCE_SECONDS
    while await connection.fetchval(_LEFT):
        if time.monotonic() > until:
            raise SystemExit(f"After {_PATIENCE_SECONDS:g} s there are sagas left; something is wrong.")
        await asyncio.sleep(0.02)


def _counts(calls: Counter[tuple[str, str]], sagas: int) -> tuple[int, int, int]:
    """Return how many hanging steps were repeated, how many others, and how many were never called."""
    repeated = sum(name == HANGS and times == 2 for (_, name), times in calls.items())
    surplus = sum(times - (2 if name == HANGS else 1) for (_, name), times in calls.items() if times > 1)
    known = sum(name in STEPS for _, name in calls)
    return repeated, surplus, sagas * len(STEPS) - known


def report(rounds: list[Round], sagas: int, lease_seconds: float) -> dict[str, object]:
    """Return the figures of all rounds."""
    finished = sorted(one.finished_seconds for one in rounds)
    kills = sorted(one.from_kill_seconds for one in rounds)
    return {
        "benchmark": "recovery",
        "store": "postgres",
        "sagas": sagas,
        "rounds": len(rounds),
        "goal_seconds": GOAL_SECONDS,
        "after_lease_seconds": round(median(finished), 3),
        "after_lease_min": round(finished[0], 3),
        "after_lease_max": round(finished[-1], 3),
        "after_lease_each": [round(one.finished_seconds, 3) for one in rounds],
        "first_taken_seconds": round(median(one.first_taken_seconds for one in rounds), 3),
        "last_taken_seconds": round(median(one.last_taken_seconds for one in rounds), 3),
        "after_kill_seconds": round(median(kills), 3),
        "after_kill_min": round(kills[0], 3),
        "after_kill_max": round(kills[-1], 3),
        "in_flight_steps_repeated": [one.repeated for one in rounds],
        "other_steps_repeated": sum(one.repeated_elsewhere for one in rounds),
        "steps_missing": sum(one.missing for one in rounds),
        "lease_seconds": lease_seconds,
        "poll_seconds": Limits.poll_seconds,
        "python": platform.python_version(),
        "cpus": os.cpu_count() or 0,
        "load_average": round(os.getloadavg()[0], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure how soon a killed worker's sagas are finished by another.")
    parser.add_argument("--store", choices=["postgres"], default="postgres")
    parser.add_argument("--sagas", type=int, default=500, help="how many are in flight (default 500)")
    parser.add_argument("--rounds", type=int, default=7, help="how many kills (default 7)")
    parser.add_argument("--lease-seconds", type=float, default=10.0, help="the workers' leases (default 10)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    options = parser.parse_args()
    if not 1 <= options.sagas <= Limits.sagas_in_flight_max or options.rounds < 1:
        parser.error(f"--sagas must be from 1 to {Limits.sagas_in_flight_max}, --rounds at least 1")
    with TemporaryDirectory(prefix="atone-recovery-") as folder, postgres_server() as server:
        asyncio.run(migrate(server.url()))
        rounds = [
            asyncio.run(one_round(server.url(), Path(folder) / str(number), options.sagas, options.lease_seconds))
            for number in range(options.rounds)
        ]
    figures = report(rounds, options.sagas, options.lease_seconds)
    if options.json:
        print(json.dumps(figures))
    else:
        print("\n".join(f"{name:26} {value}" for name, value in figures.items()))
    if figures["other_steps_repeated"] or figures["steps_missing"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
