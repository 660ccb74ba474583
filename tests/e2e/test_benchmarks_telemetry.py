"""The benchmark of telemetry measures what it says: every kind runs the load, and each one hears it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from atone.telemetry import Observer
from benchmarks.observers import TELEMETRIES, observers

ROOT = Path(__file__).parents[2]


def test_each_kind_prints_its_ratio_to_none() -> None:
    """One line a kind; without telemetry the ratio is 1."""
    command = [sys.executable, "-m", "benchmarks.telemetry", "--inflight", "2", "--rounds", "1", "--json"]
    command += ["--seconds", "0.3", "--warmup", "0.1"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=240)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["telemetry"] for line in lines] == list(TELEMETRIES)
    assert lines[0]["ratio"] == lines[0]["cpu_ratio"] == 1
    assert all(line["ratio"] > 0 and line["cpu_ratio"] > 0 for line in lines)


def test_each_kind_but_none_is_an_observer() -> None:
    """What is compared with nothing is really there."""
    found = {kind: observers(kind) for kind in TELEMETRIES}
    assert found.pop("none") == []
    assert all(isinstance(one, Observer) for kind in found.values() for one in kind)
    assert all(found.values())
