"""Real processes that are killed at their crash points: sagas end true, and a broken store is found out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> dict[str, Any]:
    """Do a short run and return its figures."""
    command = [sys.executable, "-m", "tests.crash.kills", "--json", "--processes", "4", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.stdout, done.stderr
    return {"status": done.returncode, **json.loads(done.stdout)}


def test_a_saga_ends_true_wherever_its_process_is_killed() -> None:
    """Some points of one saga; the whole list is a command of its own."""
    figures = run("--shape", "refused", "--every", "12")
    assert figures["status"] == figures["wrong"] == 0
    assert figures["attempts_lost"] > 0
    assert figures["ends"] == {"compensated": figures["runs"]}
