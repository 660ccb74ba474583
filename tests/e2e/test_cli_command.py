"""The console command as people run it: real processes, a worker in another one, a real terminal, a closed pipe."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.parcels import Parcel, SendParcel, Shop, working
from tests.servers.processes import child_process

ROOT = Path(__file__).parents[2]
COMMAND = Path(sys.executable).parent / "atone"
WHY = ("--reason", "they have it", "--by", "ada")


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A store's URL in a folder of its own."""
    return f"sqlite:///{tmp_path / 'sagas.db'}"


def atone(url: str, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run the console command on a store."""
    environment = {**os.environ, "ATONE_STORE": url, "COLUMNS": "80", **more.pop("env", {})}
    return subprocess.run(
        [COMMAND, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        stdin=more.pop("stdin", subprocess.DEVNULL),
        **more,
    )


def send(url: str, saga_id: str, *faults: str) -> None:
    """Run a parcel until it is settled; its worker is gone afterwards."""

    async def story() -> None:
        async with working(url, Shop(set(faults))) as orchestrator:
            await orchestrator.execute(SendParcel, Parcel("a cup"), saga_id=saga_id, timeout=20)

    asyncio.run(story())


@contextmanager
def worker(url: str, *faults: str) -> Iterator[subprocess.Popen[str]]:
    """Run a worker in a process of its own while the block lasts."""
    command = [sys.executable, "-m", "tests.runtime.parcels", url, *faults]
    with child_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.communicate()


def test_an_unknown_pivot_is_resolved_across_processes(url: str) -> None:
    """The story of the manual: look, ask why, vouch for it, and the worker in the other process goes on."""
    send(url, "order-17", "hand_over")
    (line,) = map(json.loads, atone(url, "list", "--status", "needs_attention", "--json").stdout.splitlines())
    assert line["saga_id"] == "order-17"
    with worker(url):
        landed = ("--landed", "--result", '{"number": 42}')
        done = atone(url, "resolve", "order-17", "hand_over", *landed, *WHY, "--wait", "30")
        assert (done.returncode, done.stderr) == (0, "")
        assert "resolve: applied" in done.stdout
    shown = json.loads(atone(url, "show", "order-17", "--json").stdout)
    assert shown["saga"]["status"] == "completed"
    assert [step["status"] for step in shown["steps"]] == ["succeeded"] * 4


def test_a_look_beside_a_working_process_sees_its_sagas(url: str) -> None:
    """The file is shared: a saga of the other process is listed while that process runs it, and it goes on."""
    with worker(url) as process:
        send(url, "order-1")
        assert process.poll() is None
        assert "order-1" in atone(url, "list").stdout
        assert atone(url, "show", "order-1").returncode == 0


def test_a_change_without_any_worker_ends_with_status_3(url: str) -> None:
    """Recorded, and no answer: a script can tell it from applied and from refused."""
    send(url, "order-17", "hand_over")
    done = atone(url, "cancel", "order-17", *WHY, "--wait", "0.2")
    assert done.returncode == 3
    assert "start one" in done.stdout


@pytest.mark.parametrize("arguments", [("nope",), ("list", "--nope"), ("show",), ("cancel", "order-1")])
def test_a_wrong_command_line_ends_with_status_2(url: str, arguments: Sequence[str]) -> None:
    """The words go to standard error, also as JSON."""
    done = atone(url, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("atone: ")
    assert json.loads(atone(url, *arguments, "--json").stderr)["error"] == "usage"


def test_the_module_is_the_same_command(url: str) -> None:
    """`python -m atone` and `atone` are one."""
    done = subprocess.run(
        [sys.executable, "-m", "atone", "--version"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (done.returncode, done.stdout) == (0, atone(url, "--version").stdout)


@pytest.mark.parametrize("package", ["cyclopts", "rich"])
def test_without_the_extra_the_command_says_what_to_install(package: str) -> None:
    """One line and status 2 instead of a traceback."""
    code = f"import sys; sys.modules[{package!r}] = None; from atone.cli import main; sys.exit(main(['list']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert 'pip install "atone[cli]"' in done.stderr
    assert "Traceback" not in done.stderr


def test_the_library_does_not_load_the_command_lines_packages() -> None:
    """They are an extra: importing Atone must not need them, nor take their time."""
    code = "import sys, atone, atone.cli; sys.exit(bool({'cyclopts', 'rich'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_reader_that_goes_away_is_no_disaster(url: str) -> None:
    """As with `atone list | head`: no traceback."""
    send(url, "order-1")
    reader, writer = os.pipe()
    os.close(reader)
    environment = {**os.environ, "ATONE_STORE": url}
    done = subprocess.run(
        [COMMAND, "list", "--json"], stdout=writer, stderr=subprocess.PIPE, text=True, check=False, env=environment
    )
    os.close(writer)
    assert done.returncode == 1
    assert done.stderr == ""


def test_a_terminal_that_can_not_show_a_character_gets_its_escape(url: str) -> None:
    """An id in another script must not end a look with an encoding error."""
    send(url, "Bücher-Ω")
    done = atone(url, "list", env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    assert "B\\xfccher-\\u03a9" in done.stdout


@pytest.mark.parametrize(("typed", "status"), [("y\n", 3), ("n\n", 1)])
def test_a_person_at_a_terminal_is_asked_before_a_terminate(url: str, typed: str, status: int) -> None:
    """A real terminal: the question comes, and the answer counts."""
    send(url, "order-17", "hand_over")
    ours, theirs = pty.openpty()
    os.write(ours, typed.encode())
    done = atone(url, "terminate", "order-17", *WHY, "--wait", "0", stdin=theirs)
    os.close(ours)
    os.close(theirs)
    assert done.returncode == status
    assert "without undoing anything. Go on? [y/N]" in done.stderr
