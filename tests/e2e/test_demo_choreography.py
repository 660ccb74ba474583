"""The choreographed demo as a newcomer runs it: four services, one kill for each, events twice and late, and the books.

Everything is real: the processes, the SIGKILL, the databases, the servers. The runs are smaller than the demo's own.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from examples.orders.choreography.participants import ORDERS
from tests.e2e.test_demo import ROOT, SHIPPED_FILE, Run, command, processes_of
from tests.servers.processes import child_process

PLACED = 24
KILLS = ("0.1", "0.3", "0.5", "0.7")


@contextmanager
def demo(style: str, broker: str, place: Path) -> Iterator[Run]:
    """Run the demo; each of its four processes is killed once, and none is left."""
    orders, folder = place / "some.jsonl", place / "run"
    orders.write_bytes(b"".join(SHIPPED_FILE.read_bytes().splitlines(keepends=True)[:PLACED]))
    arguments: list[str | Path] = ["--style", style, "--broker", broker, "--orders", orders, "--keep", folder]
    arguments += ["--kill-after", *KILLS, "--inflight", "6", "--json"]
    done = subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    yield Run(folder, done.returncode, json.loads(done.stdout), done.stderr)
    assert processes_of(folder) == []


@pytest.fixture(scope="module", params=["embedded", "nats"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Run it once over each broker."""
    with demo("choreography", request.param, tmp_path_factory.mktemp(request.param)) as done:
        yield done


def test_the_books_balance_and_every_saga_is_seen_to_its_end(run: Run) -> None:
    """Nothing is off, both ways occur, and nothing waits for a person."""
    assert run.result["mistakes"] == []
    assert run.status == 0, run.progress
    assert sum(run.result["sagas"].values()) == run.result["orders"] == PLACED
    assert run.result["sagas"].keys() == {"completed", "compensated"}
    assert run.result["parked"] == 0


def test_each_service_was_killed_in_the_middle_and_events_came_twice_and_late(run: Run) -> None:
    """A kill after the end would show nothing, and neither would a broker that behaves."""
    ended = [kill.get("completed", 0) + kill.get("compensated", 0) for kill in run.result["kills"]]
    assert len(ended) == len(KILLS)
    assert all(number < PLACED for number in ended)
    for service in ("inventory", "payments", "shipping", "orders"):
        assert f"killed {service} with SIGKILL" in run.progress
        assert run.progress.count(f"{service} started") == 2
    assert all(run.result["faults"][what] > 0 for what in ("given twice", "given late"))


def test_a_saga_is_shown_with_its_events(run: Run) -> None:
    """`atone list` and `atone show` tell of it like of an orchestrated one."""
    store = f"sqlite:///{run.folder / 'atone.db'}"
    said = [
        subprocess.run(
            [sys.executable, "-m", "atone", *arguments, "--store", store], capture_output=True, text=True, check=True
        )
        for arguments in (["list", "--limit", "500"], ["show", "order-1001"])
    ]
    assert said[0].stdout.count("order-") == PLACED
    assert "order.placed" in said[1].stdout


def test_the_books_of_the_folder_can_be_opened_again_and_show_what_is_spoilt(run: Run) -> None:
    """Who takes a cent out sees it: the audit is no formality."""
    audit = command(run.folder, module="audit")
    assert subprocess.run(audit, cwd=ROOT, capture_output=True, check=False).returncode == 0
    with closing(sqlite3.connect(run.folder / "payments.db")) as ledger:
        ledger.execute("UPDATE ledger SET amount_cents = amount_cents + 1 WHERE id = 1")
        ledger.commit()
    try:
        spoilt = subprocess.run(audit, cwd=ROOT, capture_output=True, text=True, check=False)
        assert (spoilt.returncode, "cents kept" in spoilt.stdout) == (1, True)
    finally:
        with closing(sqlite3.connect(run.folder / "payments.db")) as ledger:
            ledger.execute("UPDATE ledger SET amount_cents = amount_cents - 1 WHERE id = 1")
            ledger.commit()


def test_an_orchestrator_drives_the_same_services_by_commands(tmp_path: Path) -> None:
    """Not one line of theirs is different, and the same books balance; the orchestrator is killed too."""
    with demo("commands", "embedded", tmp_path) as run:
        assert run.result["mistakes"] == []
        assert run.status == 0, run.progress
        assert run.result["sagas"].keys() == {"completed", "compensated"}
        assert run.result["parked"] == 0
        assert "killed orchestrator with SIGKILL" in run.progress
        assert run.result["faults"]["given twice"] > 0


def test_the_choreography_has_no_findings() -> None:
    """Every event is heard, every failure is undone, and every way ends."""
    assert ORDERS.findings() == ()


def test_a_broker_that_is_not_there_is_told_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """The demo can't start a service without it: status 1, the reason, and no process."""
    options = ["--service", "payments", "--database", str(tmp_path / "p.db"), "--broker", "nats://127.0.0.1:1"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    line = command(*options, module="choreography.process")
    with child_process(line, cwd=ROOT, text=True, **pipes) as process:  # with its input open it is not told to stop
        assert process.stderr is not None
        said = process.stderr.read()
        process.wait()
    assert process.returncode == 1
    assert "BrokerUnavailable" in said
    assert processes_of(tmp_path) == []
