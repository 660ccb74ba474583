"""One run of one contender in a process of its own: start it, look at the counters, say go, hear what it found.

Owns the order of these things, and the figures that several runs of one contender come to. Must not know what a
contender does. Used by `throughput` and `compare`.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryFile

from benchmarks.database import Counters, Databases
from benchmarks.guarded import guarded
from benchmarks.load import READY, Loaded, told

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Run:
    """What one run showed, with what the database counted for all of its sagas, if it has one."""

    loaded: Loaded
    counted: Counters | None = None


class RunFailed(Exception):
    """The process did not come to a result; the message has its last words."""


def run(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    place: tuple[Databases, str] | None = None,
) -> Run:
    """Run a command that speaks as `load` does, in the repository's folder, beside the database at `place`.

    Raises:
        RunFailed: It came to no result.
    """
    with (
        TemporaryFile("w+", encoding="utf-8", errors="replace") as words,
        guarded(
            command, cwd=ROOT, environment=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=words
        ) as process,
    ):
        assert process.stdin is not None, "it is a pipe"
        assert process.stdout is not None, "it is a pipe"
        before: Counters | None = None
        loaded: Loaded | None = None
        for line in process.stdout:
            if line.strip() == READY:
                before = None if place is None else place[0].counters(place[1])
                process.stdin.write("go\n")
                process.stdin.flush()
            loaded = told(line) or loaded
        process.wait()
        if loaded is None:
            words.seek(0)
            raise RunFailed(f"no result; its last words: {words.read().strip().rpartition(chr(10))[2][-300:]}")
    if place is None or before is None:
        return Run(loaded)
    return Run(loaded, place[0].settled(place[1]).since(before))


def spread(name: str, values: Sequence[float], digits: int) -> dict[str, float]:
    """Return the median under the name, and the lowest and highest beside it."""
    return {
        name: round(median(values), digits),
        f"{name}_min": round(min(values), digits),
        f"{name}_max": round(max(values), digits),
    }


def work_of(runs: Sequence[Run], prefix: str = "") -> dict[str, float]:
    """Return the medians of what a saga cost in time, CPU and commits, the whole run counted where it is exact."""
    loads = [one.loaded for one in runs]
    figures = {
        "p50_ms": round(median(one.p50_ms for one in loads), 2),
        "p99_ms": round(median(one.p99_ms for one in loads), 2),
        "client_cpu_us_per_saga": round(median(one.cpu_us_per_saga for one in loads), 1),
        "server_cpu_us_per_saga": round(median(one.server_cpu_us_per_saga for one in loads), 1),
    }
    if loads[0].disk_bytes:
        figures["disk_bytes_per_saga"] = round(median(one.disk_bytes / one.sagas for one in loads))
    pairs = [(one.loaded, one.counted) for one in runs if one.counted is not None]
    if pairs:
        figures |= {
            "wal_bytes_per_saga": round(median(counted.wal_bytes / one.sagas for one, counted in pairs)),
            "wal_pages_per_saga": round(median(counted.wal_pages / one.sagas for one, counted in pairs), 3),
            "transactions_per_saga": round(median(counted.transactions / one.sagas for one, counted in pairs), 3),
            "statements_per_saga": round(median(counted.statements / one.sagas for one, counted in pairs), 3),
            "disk_bytes_per_saga": round(median(counted.disk_bytes / one.sagas for one, counted in pairs)),
        }
    return {f"{prefix}{name}": value for name, value in figures.items()}
