"""What telemetry costs: the same load heard by nobody, by Prometheus, and by OpenTelemetry, as ratios.

Each round runs every kind once, in fresh processes on fresh files or databases, and begins with another one; a ratio is
taken within a round, so that a busy moment of the machine hits all. Must not run a saga itself, `side` does. Run as
`python -m benchmarks.telemetry --store sqlite --inflight 1,100 --json`.
"""

from __future__ import annotations

import argparse
import json
import os
from importlib.metadata import version
from typing import TypeAlias

import msgspec

from benchmarks.observers import TELEMETRIES, Telemetry
from benchmarks.runs import Run, spread
from benchmarks.side import Task
from benchmarks.throughput import STORES, Figures, Sides, levels, sides

Round: TypeAlias = dict[Telemetry, Run]


def measure(both: Sides, task: Task, rounds: int) -> list[Round]:
    """Return what each kind showed in each round."""
    found: list[Round] = []
    for number in range(rounds):
        at = number % len(TELEMETRIES)
        order = (*TELEMETRIES[at:], *TELEMETRIES[:at])
        found.append({one: both.run(msgspec.structs.replace(task, telemetry=one)) for one in order})
    return found


def report(both: Sides, task: Task, kind: Telemetry, rounds: list[Round]) -> Figures:
    """Return the figures of one kind at one level: medians over the rounds, with their spread."""
    with_it, without = [one[kind].loaded for one in rounds], [one["none"].loaded for one in rounds]
    pairs = list(zip(with_it, without, strict=True))
    return {
        "benchmark": "telemetry",
        "store": both.store,
        "workload": task.workload,
        "inflight": task.inflight,
        "telemetry": kind,
        **spread("sagas_per_second", [one.sagas_per_second for one in with_it], 1),
        **spread("ratio", [one.sagas_per_second / other.sagas_per_second for one, other in pairs], 3),
        **spread("client_cpu_us_per_saga", [one.cpu_us_per_saga for one in with_it], 1),
        **spread("cpu_ratio", [one.cpu_us_per_saga / other.cpu_us_per_saga for one, other in pairs], 3),
        "rounds": len(rounds),
        "seconds": task.seconds,
        "warmup_seconds": task.warmup_seconds,
        "opentelemetry_sdk": version("opentelemetry-sdk"),
        "prometheus_client": version("prometheus-client"),
        **{name.lower(): number for name, number in with_it[0].versions.items()},
        **both.server_version,
        "cpus": os.cpu_count() or 0,
        "load_average": round(os.getloadavg()[0], 2),
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure what telemetry costs, beside the same load without it.")
    parser.add_argument("--store", choices=STORES, default="sqlite")
    parser.add_argument("--inflight", type=levels, default=[1, 100], help="levels, such as 1,100")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each kind at each level (default 5)")
    parser.add_argument("--seconds", type=float, default=4.0, help="measured in each run (default 4)")
    parser.add_argument("--warmup", type=float, default=1.0, help="seconds before, not measured (default 1)")
    parser.add_argument("--directory", help="where SQLite's files are made; name a disk, not a RAM disk")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    options = parser.parse_args()
    if options.rounds < 1 or options.seconds <= 0 or options.warmup < 0:
        parser.error("--rounds must be at least 1, --seconds above 0, --warmup 0 or more")
    return options


def main() -> None:
    options = _options()
    with sides(options.store, "order") as both:
        for inflight in options.inflight:
            task = Task("atone", "order", inflight, options.warmup, options.seconds, options.directory)
            rounds = measure(both, task, options.rounds)
            for kind in TELEMETRIES:
                figures = report(both, task, kind, rounds)
                if options.json:
                    print(json.dumps(figures), flush=True)
                else:
                    print("\n".join(f"{name:32} {value}" for name, value in figures.items()), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
