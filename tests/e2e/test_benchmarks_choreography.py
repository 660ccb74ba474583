"""The benchmark of choreography measures what it says: orders cross four processes, and each outbox is timed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.choreographed import ORDERS

ROOT = Path(__file__).parents[2]


def test_it_prints_a_line_for_each_broker_and_level() -> None:
    """Orders end, messages wait for some time, and the spread holds the median."""
    command = [sys.executable, "-m", "benchmarks.choreography", "--broker", "embedded", "--inflight", "4", "--json"]
    command += ["--rounds", "1", "--seconds", "2", "--warmup", "0.5"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=240)
    (line,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert (line["broker"], line["inflight"]) == ("embedded", 4)
    for name in ("orders_per_second", "p50_ms", "p99_ms", "outbox_lag_p50_ms", "outbox_lag_p99_ms"):
        assert 0 < line[f"{name}_min"] <= line[name] <= line[f"{name}_max"]


def test_what_is_measured_can_work() -> None:
    """The choreography has no findings."""
    assert ORDERS.findings() == ()
