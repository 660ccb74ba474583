"""How many sagas a second, beside the floor: the same rows written without an engine, in the same sitting.

Each round runs both sides in fresh processes on fresh files and alternates which goes first; the ratio is taken within
a round, so that a busy moment of the machine hits both. Must not run a saga itself, `side` does. Run as
`python -m benchmarks.throughput --store sqlite --inflight 1,100,1000 --json`; `--profile` tells where the time goes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from statistics import median
from typing import TypeAlias

import apsw
import msgspec

from benchmarks.load import Loaded
from benchmarks.order_saga import WORKLOADS
from benchmarks.recording import Recording, record
from benchmarks.side import Task

Round: TypeAlias = tuple[Loaded, Loaded]
Figures: TypeAlias = dict[str, str | int | float]


def measure(task: Task, recording: Recording, rounds: int) -> Iterator[Round]:
    """Yield what Atone and the floor showed in each round."""
    atone, floor = (msgspec.structs.replace(task, side="atone"), msgspec.structs.replace(task, side="floor"))
    floor.recording = recording
    for number in range(rounds):
        if number % 2 == 0:
            yield _run(atone), _run(floor)
        else:
            of_floor = _run(floor)
            yield _run(atone), of_floor


def _run(task: Task) -> Loaded:
    command = [sys.executable, "-m", "benchmarks.side", msgspec.json.encode(task).decode()]
    done = subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    return msgspec.json.decode(done.stdout, type=Loaded)


def report(task: Task, recording: Recording, rounds: list[Round]) -> Figures:
    """Return the figures of one level: medians over the rounds, with their spread."""
    atone, floor = [one for one, _ in rounds], [other for _, other in rounds]
    ratios = [one.sagas_per_second / other.sagas_per_second for one, other in rounds]
    rates = [one.sagas_per_second for one in atone]
    floor_rates = [one.sagas_per_second for one in floor]
    return {
        "benchmark": "throughput",
        "store": "sqlite",
        "workload": task.workload,
        "inflight": task.inflight,
        "sagas_per_second": round(median(rates), 1),
        "sagas_per_second_min": round(min(rates), 1),
        "sagas_per_second_max": round(max(rates), 1),
        "floor_per_second": round(median(floor_rates), 1),
        "floor_per_second_min": round(min(floor_rates), 1),
        "floor_per_second_max": round(max(floor_rates), 1),
        "ratio": round(median(ratios), 3),
        "ratio_min": round(min(ratios), 3),
        "ratio_max": round(max(ratios), 3),
        "p50_ms": round(median(one.p50_ms for one in atone), 2),
        "p99_ms": round(median(one.p99_ms for one in atone), 2),
        "floor_p50_ms": round(median(one.p50_ms for one in floor), 2),
        "floor_p99_ms": round(median(one.p99_ms for one in floor), 2),
        # Over the whole run, warm-up and end included, so nothing under way blurs it.
        "commits_per_saga": round(median(one.turns / one.sagas for one in atone), 3),
        "floor_commits_per_saga": round(median(one.turns / one.sagas for one in floor), 3),
        "batches_per_saga": round(median(one.batches / one.sagas for one in atone), 4),
        "floor_batches_per_saga": round(median(one.batches / one.sagas for one in floor), 4),
        "journal_bytes_per_saga": sum(len(turn.entries) for turn in recording.turns),
        "disk_bytes_per_saga": round(median(one.disk_bytes / one.sagas for one in atone)),
        "floor_disk_bytes_per_saga": round(median(one.disk_bytes / one.sagas for one in floor)),
        "client_cpu_us_per_saga": round(median(one.cpu_us_per_saga for one in atone), 1),
        "floor_cpu_us_per_saga": round(median(one.cpu_us_per_saga for one in floor), 1),
        "rounds": len(rounds),
        "seconds": task.seconds,
        "warmup_seconds": task.warmup_seconds,
        "python": platform.python_version(),
        "sqlite": apsw.sqlite_lib_version(),
        "cpus": os.cpu_count() or 0,
        "load_average": round(os.getloadavg()[0], 2),
    }


def _levels(text: str) -> list[int]:
    levels = [int(level) for level in text.split(",")]
    if any(not 1 <= level <= 9999 for level in levels):
        raise argparse.ArgumentTypeError("each level must be 1 to 9999 sagas in flight")
    return levels


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Measure sagas a second, beside the same rows written without an engine."
    )
    parser.add_argument("--store", choices=["sqlite"], default="sqlite")
    parser.add_argument("--inflight", type=_levels, default=[1, 100, 1000], help="levels, such as 1,100,1000")
    parser.add_argument("--workload", choices=WORKLOADS, default="order", help="compensate: the third step rejects")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of runs at each level (default 5)")
    parser.add_argument("--seconds", type=float, default=4.0, help="measured in each run (default 4)")
    parser.add_argument("--warmup", type=float, default=1.0, help="seconds before, not measured (default 1)")
    parser.add_argument("--directory", help="where the database files are made; name a disk, not a RAM disk")
    parser.add_argument("--profile", action="store_true", help="show instead where the CPU time of a saga goes")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    options = parser.parse_args()
    if options.rounds < 1 or options.seconds <= 0 or options.warmup < 0:
        parser.error("--rounds must be at least 1, --seconds above 0, --warmup 0 or more")
    return options


def main() -> None:
    options = _options()
    if options.profile:
        from benchmarks import anatomy

        for inflight in options.inflight:
            anatomy.show(options.workload, inflight, options.seconds, as_json=options.json)
        return
    recording = asyncio.run(record(options.workload))
    for inflight in options.inflight:
        task = Task("atone", options.workload, inflight, options.warmup, options.seconds, options.directory)
        figures = report(task, recording, list(measure(task, recording, options.rounds)))
        if options.json:
            print(json.dumps(figures), flush=True)
        else:
            print("\n".join(f"{name:26} {value}" for name, value in figures.items()), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
