"""The benchmarks on PostgreSQL run, count what they must, and would not pass over something that was lost."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks.recovery import _counts

ROOT = Path(__file__).parents[2]


def _run(*arguments: str) -> list[dict[str, Any]]:
    """Run a benchmark as a user does and return the lines that it prints."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments, "--json"], cwd=ROOT, check=True, capture_output=True, text=True, timeout=240
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_recovery_repeats_what_was_in_flight_and_nothing_else() -> None:
    """A worker is killed, another one finishes; times count from the lease's end, so none is below zero."""
    (found,) = _run("benchmarks.recovery", "--sagas", "20", "--rounds", "2", "--lease-seconds", "1")
    assert (found["benchmark"], found["store"], found["sagas"], found["rounds"]) == ("recovery", "postgres", 20, 2)
    assert found["in_flight_steps_repeated"] == [20, 20]
    assert (found["other_steps_repeated"], found["steps_missing"]) == (0, 0)
    assert min(found["after_lease_each"]) > 0
    assert found["after_kill_max"] >= found["after_lease_max"] - 1


@pytest.mark.parametrize(
    ("change", "verdict"),
    [({}, (1, 0, 0)), ({"ship": 0}, (1, 0, 1)), ({"reserve": 2}, (1, 1, 0)), ({"pay": 3}, (0, 1, 0))],
)
def test_a_step_that_was_lost_or_repeated_is_counted(change: dict[str, int], verdict: tuple[int, int, int]) -> None:
    """The step that hung is called twice, any other once; everything else is counted against the run."""
    calls = {"reserve": 1, "pay": 2, "ship": 1} | change
    assert _counts(Counter({("order", name): times for name, times in calls.items() if times}), 1) == verdict


def test_scale_prints_each_of_its_parts() -> None:
    """Sagas that were made in bulk are read through the API, and what workers share is done once."""
    small = ("--sagas", "300", "--shared", "60", "--rounds", "1", "--seconds", "0.5", "--calls", "20")
    lines = _run("benchmarks.scale", *small)
    parts = Counter(line["part"] for line in lines)
    assert parts == {"history": 2, "latency": 27, "throughput": 1, "workers": 3, "waiting": 1}
    assert [line["read_through_the_api"] for line in lines if line["part"] == "history"] == [25, 25]
    for line in (line for line in lines if line["part"] == "workers"):
        assert (line["started"], line["completed"], line["steps_called"]) == (60, 60, 180)
        assert (line["journals_wrong"], line["steps_called_twice"], line["steps_missing"]) == (0, 0, 0)
    (waiting,) = (line for line in lines if line["part"] == "waiting")
    assert (waiting["sagas"], waiting["woken"], waiting["runners_while_waiting"]) == (30, 30, 0)
