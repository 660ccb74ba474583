"""The demo as a newcomer runs it: orders, services, a kill in the middle, and books that balance or say where not.

Everything is real: the processes, the SIGKILL, the databases. The runs are smaller than the demo's own 200 orders.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.servers.processes import child_process, command_line, processes

ROOT = Path(__file__).parents[2]
SHIPPED_FILE = ROOT / "examples" / "orders" / "orders.jsonl"
ORDERS = 40


def command(*arguments: str | Path, module: str = "demo") -> list[str]:
    """Return the command line of one of the example's modules."""
    return [sys.executable, "-m", f"examples.orders.{module}", *map(str, arguments)]


def processes_of(folder: Path) -> list[str]:
    """Return the command lines of all running processes that name the folder."""
    return [line for line in map(command_line, processes()) if str(folder) in line]


@dataclass(frozen=True)
class Run:
    """A demo that has ended."""

    folder: Path
    status: int
    result: dict[str, Any]
    progress: str


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run the demo once: 40 orders and a bad line, and two kills."""
    place = tmp_path_factory.mktemp("demo")
    lines = SHIPPED_FILE.read_bytes().splitlines(keepends=True)[:ORDERS]
    orders, folder = place / "some.jsonl", place / "run"
    orders.write_bytes(b"".join([*lines[:6], b'{"id": "half\n', *lines[6:]]))
    arguments = ("--orders", orders, "--keep", folder, "--kill-after", "0.2", "0.5", "--inflight", "10", "--json")
    done = subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return Run(folder, done.returncode, json.loads(done.stdout), done.stderr)


def test_the_books_balance_after_two_kills(run: Run) -> None:
    """Every saga has ended, both ways occur, and nothing is off."""
    assert run.result["mistakes"] == []
    assert run.status == 0
    assert sum(run.result["sagas"].values()) == run.result["orders"] == ORDERS
    assert run.result["sagas"].keys() == {"completed", "compensated"}


def test_the_kills_came_in_the_middle(run: Run) -> None:
    """At each kill some sagas had ended and some had not; a kill after the end would show nothing."""
    ended = [kill.get("completed", 0) + kill.get("compensated", 0) for kill in run.result["kills"]]
    assert len(ended) == 2
    assert 0 < ended[0] <= ended[1] < ORDERS


def test_the_orders_met_faults_and_repeats(run: Run) -> None:
    """A run in which nothing went wrong would prove nothing."""
    assert sum(run.result["faults"].values()) > 0
    assert run.result["guard"]["repeats answered from memory"] > 0


def test_the_bad_line_was_reported_and_the_rest_went_on(run: Run) -> None:
    """The seventh line is half an order; the other forty are whole."""
    assert "40 orders in some.jsonl, 1 bad lines\n  line 7: not JSON" in run.progress


def test_no_process_is_left(run: Run) -> None:
    """The services and the orchestrator are gone when the demo is."""
    assert processes_of(run.folder) == []


@pytest.fixture
def copied_folder(run: Run, tmp_path: Path) -> Path:
    """A copy of the finished run's folder, to spoil."""
    return Path(shutil.copytree(run.folder, tmp_path / "copy"))


def audit(folder: Path) -> subprocess.CompletedProcess[str]:
    """Look into the books of a folder."""
    return subprocess.run(command(folder, module="audit"), cwd=ROOT, capture_output=True, text=True, check=False)


def test_an_untouched_folder_passes_the_audit(copied_folder: Path) -> None:
    """What the demo found, a later look finds too."""
    done = audit(copied_folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "The books balance" in done.stdout


@pytest.mark.parametrize(
    ("service", "corruption", "complaint"),
    [
        ("payments", "DELETE FROM ledger WHERE id = 1", "cents kept"),
        ("payments", "UPDATE ledger SET amount_cents = amount_cents + 1 WHERE id = 1", "cents kept"),
        ("inventory", "UPDATE stock SET on_hand = on_hand + 1 WHERE sku = 'CUP-BLUE'", "CUP-BLUE, pieces on hand"),
        ("shipping", "DELETE FROM shipments WHERE id = 1", "shipments: expected 1, found 0"),
        (
            "shipping",
            "INSERT INTO confirmations SELECT id + 999, action_key, order_id, shipment_id, customer FROM confirmations",
            "confirmations: expected 1, found 2",
        ),
    ],
    ids=["a charge is gone", "a cent too much", "a piece too much", "a shipment is gone", "told twice"],
)
def test_a_spoiled_book_is_exit_status_1(copied_folder: Path, service: str, corruption: str, complaint: str) -> None:
    """One row changed behind everybody's back is found, named, and fails the command."""
    with closing(sqlite3.connect(copied_folder / f"{service}.db")) as connection, connection:
        connection.execute(corruption)
    done = audit(copied_folder)
    assert done.returncode == 1
    assert complaint in done.stdout
    assert "The books are off in" in done.stdout


def test_a_run_that_does_not_end_in_time_is_exit_status_1(tmp_path: Path) -> None:
    """Orders without an end are counted as mistakes, and everything is tidied up as ever."""
    arguments = ("--orders", SHIPPED_FILE, "--keep", tmp_path / "run", "--limit-seconds", "0.01", "--json")
    done = subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert len(json.loads(done.stdout)["mistakes"]) >= 200
    assert processes_of(tmp_path) == []


def test_orders_that_cannot_be_read_are_exit_status_2(tmp_path: Path) -> None:
    """No file, or no order in it: said in a sentence, and nothing is started."""
    nothing = tmp_path / "nothing.jsonl"
    nothing.write_text("not an order\n")
    for orders, reason in ((tmp_path / "none.jsonl", "can't be read"), (nothing, "no order to run")):
        done = subprocess.run(command("--orders", orders), cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert reason in done.stderr
        assert "Traceback" not in done.stderr


@pytest.fixture
def running_demo(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A demo in the middle of its run, in the folder `run` of the test's own."""
    arguments = command("--keep", tmp_path / "run", "--kill-after")
    with child_process(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stderr is not None
        # Two lines of progress: the first may come before any saga has been started.
        lines = (line for line in demo.stderr if "/200" in line)
        next(lines)
        next(lines)
        assert len(processes_of(tmp_path)) == 5
        yield demo


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_demo_takes_its_processes_along(
    running_demo: subprocess.Popen[str], tmp_path: Path, number: signal.Signals
) -> None:
    """Ctrl-C or a polite kill: when the demo has ended, so has everything that it started."""
    running_demo.send_signal(number)
    _, said = running_demo.communicate()
    assert running_demo.returncode == 130
    assert "Traceback" not in said
    assert processes_of(tmp_path) == []


def test_a_killed_demo_takes_its_processes_along(running_demo: subprocess.Popen[str], tmp_path: Path) -> None:
    """SIGKILL leaves the demo no time for anything; the pipes close, and the others go by themselves."""
    running_demo.kill()
    running_demo.communicate()
    # The test's own time limit is the only clock here.
    while processes_of(tmp_path):
        os.sched_yield()
