"""The benchmarks on PostgreSQL: the floor does what it says, and the counts agree with those of the database."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from benchmarks.database import DURABLE, Databases, databases
from benchmarks.floor_postgres import FloorPostgres
from benchmarks.order_saga import STEPS, WORKLOADS
from benchmarks.side import Task
from benchmarks.throughput import Sides, sides

ROOT = Path(__file__).parents[2]
EVENTS = {
    "order": ["start", "reserve", "pay", "ship", "end"],
    "compensate": ["start", "reserve", "pay", "failed", "undo-pay", "undo-reserve", "end"],
}


@pytest.fixture(scope="module")
def server() -> Iterator[Databases]:
    """A server as the benchmarks use it."""
    with databases() as there:
        yield there


async def _by_floor(dsn: str, workload: str, clients: int) -> tuple[FloorPostgres, list[Any]]:
    floor = FloorPostgres(dsn, workload)
    await floor.start()
    await asyncio.gather(*[floor.run_one(client, 0) for client in range(clients)])
    await floor.close()
    connection = await asyncpg.connect(dsn)
    rows = await connection.fetch("SELECT array_agg(kind ORDER BY seq) AS kinds FROM ev GROUP BY saga")
    await connection.close()
    return floor, [row["kinds"] for row in rows]


@pytest.mark.parametrize("workload", WORKLOADS)
def test_the_floor_writes_each_event_of_each_saga(server: Databases, workload: str) -> None:
    """Five rows a saga, or seven with two undos, in one transaction for all that are under way."""
    with server.one() as name:
        floor, sagas = asyncio.run(_by_floor(server.url(name), workload, 7))
    assert sagas == [EVENTS[workload]] * 7
    assert floor.turns == 7 * len(EVENTS[workload])
    assert floor.batches == len(EVENTS[workload])


def test_the_server_is_as_durable_as_it_comes(server: Databases) -> None:
    """What the floor and Atone are measured on loses nothing when the power goes."""

    async def settings() -> list[Any]:
        connection = await asyncpg.connect(server.url("postgres"))
        values = [await connection.fetchval("SELECT current_setting($1)", name) for name in DURABLE]
        await connection.close()
        return values

    assert asyncio.run(settings()) == ["on"] * len(DURABLE)


@pytest.mark.parametrize("side", ["atone", "floor"])
def test_both_sides_are_counted_as_the_database_counts_them(server: Databases, side: Any) -> None:
    """A batch is one transaction, beside those of the set-up and of the lease; and CPU time and WAL are seen."""
    with sides("sqlite", "order") as there:
        both = Sides("postgres", server, there.recording)
    one = both.run(Task(side, "order", 3, 0.1, 0.5))
    assert one.counted is not None
    assert one.loaded.turns == one.loaded.sagas * (STEPS + (1 if side == "atone" else 2))
    assert 0 <= one.counted.transactions - one.loaded.batches <= 100
    assert one.counted.wal_bytes > one.loaded.turns * 50
    assert one.loaded.cpu_seconds > 0
    assert one.loaded.server_cpu_seconds > 0


def test_throughput_on_postgres_prints_a_line_for_each_level() -> None:
    """What the docs quote is in it, and a saga costs the commits that it must."""
    command = [sys.executable, "-m", "benchmarks.throughput", "--store", "postgres", "--inflight", "1,20", "--json"]
    command += ["--workload", "compensate", "--rounds", "2", "--seconds", "0.3", "--warmup", "0.1"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=240)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["inflight"] for line in lines] == [1, 20]
    for line in lines:
        assert (line["store"], line["workload"], line["rounds"]) == ("postgres", "compensate", 2)
        assert (line["commits_per_saga"], line["floor_commits_per_saga"]) == (STEPS + 3, len(EVENTS["compensate"]))
        assert line["ratio_min"] <= line["ratio"] <= line["ratio_max"]
        for what in ("client_cpu_us", "wal_bytes", "transactions", "statements", "disk_bytes"):
            assert line[f"{what}_per_saga"] > 0
            assert line[f"floor_{what}_per_saga"] > 0
        assert line["postgresql"]
        assert line["asyncpg"]


def test_the_profile_on_postgres_accounts_for_a_saga() -> None:
    """Its parts are named, and every function whose time it books is still there."""
    command = [sys.executable, "-m", "benchmarks.throughput", "--store", "postgres", "--inflight", "5", "--profile"]
    command += ["--seconds", "0.3", "--json"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=240)
    found = json.loads(done.stdout)
    assert found["store"] == "postgres"
    assert found["parts_not_found"] == []
    assert found["calls_per_saga_by_part"]["decide"] == STEPS + 1
