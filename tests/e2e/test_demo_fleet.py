"""The demo on a fleet: a PostgreSQL of its own, three real workers, a SIGKILL and a drain, and books that balance."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.servers.processes import below, child_process, left

ROOT = Path(__file__).parents[2]
SHIPPED_FILE = ROOT / "examples" / "orders" / "orders.jsonl"
ORDERS = 60


def command(*arguments: str | Path, module: str = "demo") -> list[str]:
    return [sys.executable, "-m", f"examples.orders.{module}", *map(str, arguments)]


def demo(*arguments: str | Path) -> list[str]:
    return command("--store", "postgres", *arguments)


@dataclass(frozen=True)
class Run:
    """A demo that has ended."""

    folder: Path
    status: int
    result: dict[str, Any]
    said: str


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run the demo once: sixty orders, a kill, and a drain."""
    place = tmp_path_factory.mktemp("fleet")
    orders, folder = place / "some.jsonl", place / "run"
    orders.write_bytes(b"".join(SHIPPED_FILE.read_bytes().splitlines(keepends=True)[:ORDERS]))
    arguments = ("--orders", orders, "--keep", folder, "--kill-after", "0.2", "--drain-after", "0.5", "--json")
    done = subprocess.run(
        demo(*arguments, "--inflight", "12"), cwd=ROOT, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.stdout, done.stderr
    return Run(folder, done.returncode, json.loads(done.stdout), done.stderr)


def test_the_books_balance_after_a_kill_and_a_drain(run: Run) -> None:
    """Every saga has ended, both ways occur, and nothing is off."""
    assert run.result["mistakes"] == []
    assert run.status == 0, run.said
    assert sum(run.result["sagas"].values()) == run.result["orders"] == ORDERS
    assert run.result["sagas"].keys() == {"completed", "compensated"}
    assert run.result["drained"] == 1


def test_the_kill_came_in_the_middle(run: Run) -> None:
    """Some sagas had ended, some had not, and the killed worker had some under way."""
    (kill,) = run.result["kills"]
    assert 0 < kill.get("completed", 0) + kill.get("compensated", 0) < ORDERS
    assert run.result["left_behind"][0] > 0


def test_three_workers_and_a_replacement_were_the_real_command(run: Run) -> None:
    """Each says that it was started with `atone worker`, and has a log of its own."""
    assert run.said.count("python -m atone worker examples.orders.fleet:sagas") == 4
    assert len(list(run.folder.glob("worker-*.log"))) == 4


def test_a_later_look_finds_the_same(run: Run, tmp_path: Path) -> None:
    """The server is gone; how the sagas ended is kept beside the books, and a spoiled book is still found."""
    done = subprocess.run(command(run.folder, module="audit"), cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "The books balance" in done.stdout
    (run.folder / "ends.json").write_text("{}")
    done = subprocess.run(command(run.folder, module="audit"), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1


def test_a_run_that_does_not_end_in_time_is_exit_status_1(tmp_path: Path) -> None:
    """Orders without an end are counted as mistakes, and everything is tidied up as ever."""
    arguments = ("--keep", tmp_path / "run", "--limit-seconds", "0.5", "--json")
    done = subprocess.run(demo(*arguments), cwd=ROOT, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["mistakes"]


@pytest.fixture
def running_demo(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], dict[int, str]]]:
    """A demo in the middle of its run, and every process below it."""
    arguments = demo("--keep", tmp_path / "run", "--kill-after")
    with child_process(arguments, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        next(line for line in process.stderr if "the fleet runs them" in line)
        next(line for line in process.stderr if "/200" in line)
        family = below(process.pid)
        assert len(family) > 3 + 3 + 2, "services, workers, the server and its watcher"
        yield process, family


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_demo_takes_its_processes_along(
    running_demo: tuple[subprocess.Popen[str], dict[int, str]], number: signal.Signals
) -> None:
    """However it ends, services, workers and the server end too; the test's own time limit is the only clock."""
    process, family = running_demo
    process.send_signal(number)
    _, said = process.communicate()
    assert process.returncode == (-number if number is signal.SIGKILL else 130)
    assert "Traceback" not in said
    while left(family):
        os.sched_yield()
