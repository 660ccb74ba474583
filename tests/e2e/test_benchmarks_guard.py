"""What a benchmark starts goes with it, however it ends: nothing runs on, and no folder stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.guarded import cpu_seconds, guarded
from benchmarks.load import Loaded, told
from benchmarks.runs import RunFailed, run
from tests.servers.processes import below, child_process, command_line, is_running, left

ROOT = Path(__file__).parents[2]
# A comparison starts a database server first, which takes its time on a busy machine.
PATIENCE_SECONDS = 200.0
# A server that starts another process, and neither listens when it is asked to stop.
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open(sys.argv[1], "w").write(f"{child.pid}")
time.sleep(600)
"""
# A benchmark with such a server, in a folder of its own.
BENCHMARK = """
import sys, time
from pathlib import Path
from benchmarks.guarded import guarded
folder = Path(sys.argv[1])
with guarded([sys.executable, folder.with_name("server.py"), folder / "child"], folder=folder):
    time.sleep(600)
"""


def _until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < until, "it did not come to be"
        time.sleep(0.02)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_server_and_its_children_go_with_the_benchmark(tmp_path: Path, how: signal.Signals) -> None:
    """Also if the benchmark is interrupted or killed, and the server does not listen."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "server.py").write_text(STUBBORN, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", BENCHMARK, folder]
    with child_process(command, env=environment, stderr=subprocess.DEVNULL) as benchmark:
        _until(lambda: (folder / "child").is_file() and (folder / "child").read_text(encoding="utf-8") != "")
        child = int((folder / "child").read_text(encoding="utf-8"))
        assert is_running(child)
        benchmark.send_signal(how)
        benchmark.wait(PATIENCE_SECONDS)
        _until(lambda: not is_running(child) and not folder.exists())


def test_a_comparison_that_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    """Ctrl-C in the middle of a run ends the run, the database server, and what lies in the temporary folder."""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    tmp_path.chmod(0o755)
    command = [sys.executable, "-m", "benchmarks.compare", "--only", "atone,floor", "--inflight", "5", "--json"]
    command += ["--rounds", "1", "--seconds", "60"]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with child_process(command, cwd=ROOT, env=environment, **silent) as comparison:
        _until(lambda: any("benchmarks.side" in command_line(number) for number in below(comparison.pid)))
        family = below(comparison.pid)
        comparison.send_signal(signal.SIGINT)
        comparison.wait(PATIENCE_SECONDS)
        _until(lambda: left(family) == [])
        _until(lambda: list(tmp_path.glob("atone-*")) == [])


def test_cpu_time_is_that_of_the_whole_tree() -> None:
    """A server works in processes that it starts; those that have ended count as well."""
    busy = "import time\nwhile time.process_time() < 0.3: pass"
    parent = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {busy!r}])\nprint('done', flush=True)"
    parent += "\ninput()"
    with guarded([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"
        assert cpu_seconds([process.pid]) >= 0.28


def test_a_result_is_found_among_other_lines() -> None:
    """A library may print what it likes; only the line that tells a result is one."""
    loaded = Loaded(finished=2, sagas=3, seconds=0.5, cpu_seconds=0.1, p50_ms=1.0, p99_ms=2.0, versions={"a": "1"})
    words = (
        "from dataclasses import *; from benchmarks import load; load.await_go(); print('hello'); "
        f"load.tell(load.{loaded!r}); print('bye')"
    )
    assert run([sys.executable, "-c", words]).loaded == loaded
    assert told("RESULTS are out") is None


def test_a_run_without_a_result_says_its_last_words() -> None:
    """A peer that fails is reported with its own words, and no figure is made up for it."""
    words = "import sys; print('chatter'); sys.exit('no such table')"
    with pytest.raises(RunFailed, match="no such table"):
        run([sys.executable, "-c", words])
