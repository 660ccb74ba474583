"""Real processes that are killed at their crash points: sagas end true, and a broken store is found out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
# In an interpreter of its own: one that has threads can't fork lanes.
DYING_LANE = """
import os, signal, sys
from pathlib import Path
from tests.crash.kills import Run
dies = lambda tell: os.kill(os.getpid(), signal.SIGKILL)
Run(Path(sys.argv[1]), 1, None)._together("dry", lambda at, folder, url: dies)
"""


def run(*arguments: str, test: str = "kills") -> dict[str, Any]:
    """Do a run and return its figures."""
    command = [sys.executable, "-m", f"tests.crash.{test}", "--json", "--processes", "6", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=900)
    assert done.stdout, done.stderr
    return {"status": done.returncode, "complaints": done.stderr, **json.loads(done.stdout)}


@pytest.mark.parametrize(("store", "every"), [("sqlite", "50"), ("postgres", "60")])
def test_every_shape_ends_true_wherever_its_process_is_killed(store: str, every: str) -> None:
    """Each n-th point of every shape, others in each; all of them is a command of its own."""
    figures = run("--store", store, "--every", every)
    assert (figures["complaints"], figures["status"], figures["wrong"]) == ("", 0, 0)
    assert figures["attempts_lost"] > 0
    assert figures["kills"] > 20


def test_what_a_stopped_process_writes_when_it_wakes_is_refused() -> None:
    """Stopped past its lease at each n-th point of every shape."""
    figures = run("--every", "60", test="zombies")
    assert (figures["complaints"], figures["status"], figures["wrong"]) == ("", 0, 0)
    assert figures["stale_writes_refused"] > 0


def test_a_store_that_takes_stale_writes_is_found_out() -> None:
    """The same, with a store whose fences are down."""
    figures = run("--shape", "refused", "--at", "before commit", "--unfenced", test="zombies")
    assert figures["status"] == 1
    assert figures["wrong"] > 0


def test_a_lane_that_dies_without_a_word_is_no_success(tmp_path: Path) -> None:
    """What it was to do is missing, and nobody else says so."""
    command = [sys.executable, "-c", DYING_LANE, str(tmp_path / "run")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    assert "lane 0 ended with -9" in done.stderr
