"""What a waiting saga costs: bytes of memory and of disk for each, and how soon a thousand of them end when asked to.

Starts sagas that hold something and then wait up to an hour for an event, looks at this process before and after, and
sends some of them their event. Must not keep anything about a saga itself while it measures memory. Run as
`python -m benchmarks.waiting --store sqlite --sagas 100000 --json`, or with `--store postgres`.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import apsw

from atone import Completed, Context, Orchestrator, Saga, Tried, step, wait_for_event
from atone._runtime.worker import Worker
from atone.orchestrator import Limits
from atone.store import Store
from atone.stores.sqlite import SqliteStore
from benchmarks.load import percentile

GOAL_BYTES = 1024
WARM_UP = 2_000  # sagas that wait as well before memory is first looked at: caches and thread stacks are there then
STARTERS = 200
SENDERS = 100


@dataclass(frozen=True)
class Offer:
    customer: str
    cents: int


class AwaitApproval(Saga[Offer], version=1):
    """Hold an offer, wait for its approval, confirm it."""

    @step()
    async def hold(self, ctx: Context[Offer]) -> str:
        return f"held-{ctx.saga_id}"

    @hold.compensation
    async def let_go(self, ctx: Context[Offer], tried: Tried[str]) -> None:
        pass

    approved = wait_for_event("approved", str, timeout=3600)

    @step(hold, approved)
    async def confirm(self, ctx: Context[Offer], held: str, by: str) -> str:
        return f"{held} approved by {by}"

    @confirm.compensation
    async def withdraw(self, ctx: Context[Offer], tried: Tried[str]) -> None:
        pass


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _collected_bytes() -> int:
    gc.collect()
    return _resident_bytes()


async def _start(orchestrator: Orchestrator, ids: Sequence[str] | range, prefix: str) -> None:
    """Start a saga for each id, and return when all of them wait."""
    left = iter(ids)

    async def starter() -> None:
        for one in left:
            await orchestrator.start(AwaitApproval, Offer("customer-000017", 129_900), saga_id=f"{prefix}-{one:07d}")

    await asyncio.gather(*[starter() for _ in range(STARTERS)])
    while _worker(orchestrator).runners:  # noqa: ASYNC110 - nobody announces this, and it is not measured
        await asyncio.sleep(0.01)


def _worker(orchestrator: Orchestrator) -> Worker:
    worker = orchestrator._open_worker()  # pyright: ignore[reportPrivateUsage]
    assert isinstance(worker, Worker), "it runs what it starts"
    return worker


async def _wake(orchestrator: Orchestrator, ids: range) -> tuple[float, float, list[float]]:
    """Send the event to each; return seconds until all were sent, until all had ended, and each one's own."""
    begun = perf_counter()
    left = iter(ids)
    sent: list[float] = []
    took: list[float] = []

    async def sender() -> None:
        for one in left:
            await orchestrator.send_event(AwaitApproval, f"wait-{one:07d}", "approved", "the boss")
            sent.append(perf_counter() - begun)

    async def waiter(one: int) -> None:
        outcome = await orchestrator.outcome(AwaitApproval, f"wait-{one:07d}", timeout=300)
        assert isinstance(outcome, Completed), f"saga {one}: {outcome}"
        took.append(perf_counter() - begun)

    await asyncio.gather(*[sender() for _ in range(SENDERS)], *[waiter(one) for one in ids])
    return max(sent), max(took), sorted(took)


def _disk_bytes(file: Path) -> int:
    """Return the size of the database, what still lies in its log included."""
    connection: Any = apsw.Connection(str(file))
    size = int(connection.pragma("page_count")) * int(connection.pragma("page_size"))
    connection.close()
    return size


async def measure(store: Store, disk_bytes: Callable[[], int], sagas: int, wake: int) -> dict[str, object]:
    """Run the whole measurement on a new store; `disk_bytes` tells its size."""
    async with Orchestrator(store, sagas=[AwaitApproval()], limits=Limits()) as orchestrator:
        await _start(orchestrator, range(WARM_UP), "warm")
        before, disk_before = _collected_bytes(), await asyncio.to_thread(disk_bytes)
        cache_before = apsw.memory_used()
        begun = perf_counter()
        await _start(orchestrator, range(sagas), "wait")
        start_seconds = perf_counter() - begun
        after_raw, cache_after = _resident_bytes(), apsw.memory_used()
        after, disk_after = _collected_bytes(), await asyncio.to_thread(disk_bytes)
        runners = len(_worker(orchestrator).runners)
        # Spread over all of them, so that the pages they lie on are not warm by accident.
        sent, ended, each = await _wake(orchestrator, range(0, wake * (sagas // wake), sagas // wake))
    return {
        "rss_before_bytes": before,
        "rss_after_bytes": after,
        "memory_bytes_per_saga": round((after - before) / sagas, 1),
        "memory_bytes_per_saga_before_gc": round((after_raw - before) / sagas, 1),
        # A part of the growth above that has a bound, however many sagas there are: SQLite's page caches.
        "sqlite_cache_grown_bytes": cache_after - cache_before,
        "goal_bytes": GOAL_BYTES,
        "runners_while_waiting": runners,
        "disk_bytes_per_saga": round((disk_after - disk_before) / sagas),
        "start_seconds": round(start_seconds, 2),
        "starts_per_second": round(sagas / start_seconds, 1),
        "woken": len(each),
        "wake_seconds": round(ended, 3),
        "wake_sent_seconds": round(sent, 3),
        "wake_p50_ms": round(percentile(each, 0.50) * 1000, 1),
        "wake_p99_ms": round(percentile(each, 0.99) * 1000, 1),
    }


def _on_sqlite(options: argparse.Namespace) -> dict[str, object]:
    with TemporaryDirectory(prefix="atone-waiting-", dir=options.directory) as folder:
        file = Path(folder) / "waiting.db"
        size = partial(_disk_bytes, file)
        return asyncio.run(measure(SqliteStore(file), size, options.sagas, options.wake))


def _on_postgres(options: argparse.Namespace) -> dict[str, object]:
    """Run on a throw-away server; what that takes is of another process, and not counted."""
    import asyncpg

    from atone.stores.postgres import PostgresStore
    from atone.testing.postgres import postgres_server

    async def size(url: str) -> int:
        connection: Any = await asyncpg.connect(url)
        try:
            return int(await connection.fetchval("SELECT pg_database_size(current_database())"))
        finally:
            await connection.close()

    with postgres_server() as server:
        url = server.url()
        return asyncio.run(measure(PostgresStore(url), lambda: asyncio.run(size(url)), options.sagas, options.wake))


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what sagas cost that wait for an event.")
    parser.add_argument("--store", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--sagas", type=int, default=100_000, help="how many wait (default 100000)")
    parser.add_argument("--wake", type=int, default=1_000, help="how many of them get their event (default 1000)")
    parser.add_argument("--directory", help="where the database file is made; name a disk, not a RAM disk")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    options = parser.parse_args()
    if not 1 <= options.wake <= options.sagas:
        parser.error("--sagas must be at least --wake, and --wake at least 1")
    figures: dict[str, object] = {"benchmark": "waiting", "store": options.store, "sagas": options.sagas}
    figures |= _on_sqlite(options) if options.store == "sqlite" else _on_postgres(options)
    figures |= {
        "poll_seconds": Limits.poll_seconds,
        "sagas_in_flight_max": Limits.sagas_in_flight_max,
        "starters": STARTERS,
        "senders": SENDERS,
        "python": platform.python_version(),
        "sqlite": apsw.sqlite_lib_version(),
        "cpus": os.cpu_count() or 0,
        "load_average": round(os.getloadavg()[0], 2),
    }
    if options.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:32} {value}")


if __name__ == "__main__":
    main()
