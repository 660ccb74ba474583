"""The benchmarks measure what they say: the floor's rows are Atone's, and a saga of n steps costs n + 1 commits."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import apsw
import pytest

from atone import Orchestrator
from atone.stores.sqlite import SqliteStore
from benchmarks import side
from benchmarks.floor import Floor
from benchmarks.order_saga import AN_ORDER, STEPS, WORKLOADS, PlaceOrder, saga_id, the_saga
from benchmarks.recording import Recording, WatchedStore, record

ROOT = Path(__file__).parents[2]
# What a column holds differs from saga to saga; how much room it takes must not.
SHAPES = (
    "SELECT version, length(saga), typeof(at), length(commit_id) FROM journal ORDER BY version",
    """SELECT length(key), tenant, name, length(saga_id), definition, status, owner, typeof(wake_at), asked,
              typeof(created_at) FROM sagas""",
    "SELECT name, version, plan_hash, plan FROM definitions",
)
ENTRIES = "SELECT length(entries) FROM journal ORDER BY version"
# A time is written in as many digits as it needs; a turn has a few of them.
DIGITS = 12


def _run(*arguments: str) -> list[dict[str, Any]]:
    """Run a benchmark as a user does and return the lines that it prints."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments, "--json"], cwd=ROOT, check=True, capture_output=True, text=True, timeout=240
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def _rows(file: Path, query: str) -> list[tuple[Any, ...]]:
    connection: Any = apsw.Connection(str(file))
    found = [tuple(row) for row in connection.execute(query)]
    connection.close()
    return found


async def _one_by_atone(workload: str, file: Path) -> int:
    store = WatchedStore(SqliteStore(file))
    async with Orchestrator(store, sagas=[the_saga(workload)]) as orchestrator:
        await orchestrator.execute(PlaceOrder, AN_ORDER, saga_id=saga_id(1, 2))
    return store.turns


async def _one_by_floor(recording: Recording, file: Path) -> int:
    floor = Floor(str(file), recording)
    floor.start()
    await floor.run_one(1, 2)
    floor.close()
    return floor.turns


@pytest.mark.parametrize(("workload", "commits"), [("order", STEPS + 1), ("compensate", STEPS + 1 + 2)])
def test_the_floor_writes_the_rows_that_atone_writes(tmp_path: Path, workload: str, commits: int) -> None:
    """The same rows in the same tables, as wide, in as many commits: n + 1, and one for each undo."""
    recording = asyncio.run(record(workload))
    by_atone = asyncio.run(_one_by_atone(workload, tmp_path / "atone.db"))
    by_floor = asyncio.run(_one_by_floor(recording, tmp_path / "floor.db"))
    assert by_atone == by_floor == commits
    for shape in SHAPES:
        assert _rows(tmp_path / "atone.db", shape) == _rows(tmp_path / "floor.db", shape)
    sizes = zip(_rows(tmp_path / "atone.db", ENTRIES), _rows(tmp_path / "floor.db", ENTRIES), strict=True)
    assert all(abs(atone - floor) <= DIGITS for (atone,), (floor,) in sizes)


def test_both_files_have_the_same_tables_and_indexes(tmp_path: Path) -> None:
    """An index that the floor need not keep would flatter it."""
    schema = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name"
    recording = asyncio.run(record("order"))
    asyncio.run(_one_by_atone("order", tmp_path / "atone.db"))
    asyncio.run(_one_by_floor(recording, tmp_path / "floor.db"))
    assert _rows(tmp_path / "atone.db", schema) == _rows(tmp_path / "floor.db", schema)


@pytest.mark.parametrize("workload", WORKLOADS)
def test_throughput_prints_a_line_for_each_level(workload: str) -> None:
    """What the docs quote is in it, and a saga costs the commits that it must."""
    short = ("--rounds", "2", "--seconds", "0.3", "--warmup", "0.1")
    lines = _run("benchmarks.throughput", "--store", "sqlite", "--inflight", "1,20", "--workload", workload, *short)
    assert [line["inflight"] for line in lines] == [1, 20]
    for line in lines:
        assert line["commits_per_saga"] == line["floor_commits_per_saga"] == STEPS + (1 if workload == "order" else 3)
        assert line["ratio_min"] <= line["ratio"] <= line["ratio_max"]
        assert (line["store"], line["workload"], line["rounds"]) == ("sqlite", workload, 2)
        assert min(line[f"{side}p50_ms"] for side in ("", "floor_")) > 0
        assert line["client_cpu_us_per_saga"] > 0


def test_the_profile_accounts_for_a_saga(tmp_path: Path) -> None:
    """Its parts are named, and every function whose time it books is still there."""
    (found,) = _run("benchmarks.throughput", "--inflight", "5", "--seconds", "0.3", "--profile")
    assert found["parts_not_found"] == []
    assert found["calls_per_saga_by_part"]["decide"] == STEPS + 1
    assert found["commit_wait_ms_per_turn"] > 0


def test_waiting_sagas_are_counted_and_woken() -> None:
    """None of them is in the worker's hands, and those that get their event end."""
    (found,) = _run("benchmarks.waiting", "--sagas", "300", "--wake", "50")
    assert (found["sagas"], found["woken"], found["runners_while_waiting"]) == (300, 50, 0)
    assert found["disk_bytes_per_saga"] > 0


def test_a_service_that_was_called_once_too_often_leaves_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Atone's books are compared as the peers' are: a step that ran twice ends the run."""
    monkeypatch.setattr(side, "await_go", lambda: None)
    task = side.Task("atone", "compensate", 2, 0.0, 0.2)
    assert side.run(task).finished > 0

    def with_a_call_more(workload: str) -> PlaceOrder:
        saga = the_saga(workload)
        saga.calls["pay"] += 1
        return saga

    monkeypatch.setattr(side, "the_saga", with_a_call_more)
    with pytest.raises(SystemExit, match="books do not agree"):
        side.run(task)
