"""How many sagas a second, beside the floor: the least that must be written, without an engine, in the same sitting.

Each round runs both sides in fresh processes on fresh files or databases and alternates which goes first; the ratio is
taken within a round, so that a busy moment of the machine hits both. Must not run a saga itself, `side` does. Run as
`python -m benchmarks.throughput --store sqlite --inflight 1,100,1000 --json`; `--profile` tells where the time goes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from statistics import median
from typing import TypeAlias

import msgspec

from benchmarks.database import Databases, databases
from benchmarks.order_saga import WORKLOADS
from benchmarks.recording import Recording, record
from benchmarks.runs import Run, run, spread, work_of
from benchmarks.side import Task

Round: TypeAlias = tuple[Run, Run]
Figures: TypeAlias = dict[str, str | int | float]
STORES = ("sqlite", "postgres")


class Sides:
    """Runs one side or the other, on what is made for it: a file, or a database on `server`."""

    def __init__(self, store: str, server: Databases | None, recording: Recording) -> None:
        self.store = store
        self.recording = recording
        self._server = server

    @property
    def server_version(self) -> dict[str, str]:
        """The version of the database server, if there is one."""
        return {} if self._server is None else {"postgresql": self._server.version}

    def measure(self, task: Task, rounds: int) -> Iterator[Round]:
        """Yield what Atone and the floor showed in each round."""
        atone, floor = (msgspec.structs.replace(task, side="atone"), msgspec.structs.replace(task, side="floor"))
        if self._server is None:
            floor.recording = self.recording
        for number in range(rounds):
            if number % 2 == 0:
                yield self.run(atone), self.run(floor)
            else:
                of_floor = self.run(floor)
                yield self.run(atone), of_floor

    def run(self, task: Task) -> Run:
        """Run one side once."""
        if self._server is None:
            return run(_command(task))
        with self._server.one() as name:
            dsn, pid = self._server.url(name), self._server.server_pid
            there = msgspec.structs.replace(task, dsn=dsn, server_pid=pid)
            return run(_command(there), place=(self._server, name))


def _command(task: Task) -> list[str]:
    return [sys.executable, "-m", "benchmarks.side", msgspec.json.encode(task).decode()]


@contextmanager
def sides(store: str, workload: str) -> Generator[Sides, None, None]:
    """Make what both sides need: a recording of what is written for a saga, and a server if the store is on one."""
    recording = asyncio.run(record(workload))
    if store == "sqlite":
        yield Sides(store, None, recording)
        return
    with databases() as server:
        yield Sides(store, server, recording)


def report(both: Sides, task: Task, rounds: list[Round]) -> Figures:
    """Return the figures of one level: medians over the rounds, with their spread."""
    atone, floor = [one for one, _ in rounds], [other for _, other in rounds]
    rates = [(one.loaded.sagas_per_second, other.loaded.sagas_per_second) for one, other in rounds]
    return {
        "benchmark": "throughput",
        "store": both.store,
        "workload": task.workload,
        "inflight": task.inflight,
        **spread("sagas_per_second", [rate for rate, _ in rates], 1),
        **spread("floor_per_second", [rate for _, rate in rates], 1),
        **spread("ratio", [rate / of_floor for rate, of_floor in rates], 3),
        **_turns_of(atone),
        **_turns_of(floor, "floor_"),
        **work_of(atone),
        **work_of(floor, "floor_"),
        "journal_bytes_per_saga": sum(len(turn.entries) for turn in both.recording.turns),
        "rounds": len(rounds),
        "seconds": task.seconds,
        "warmup_seconds": task.warmup_seconds,
        **{name.lower(): version for name, version in atone[0].loaded.versions.items()},
        **both.server_version,
        "cpus": os.cpu_count() or 0,
        "load_average": round(os.getloadavg()[0], 2),
    }


def _turns_of(runs: list[Run], prefix: str = "") -> dict[str, float]:
    """Over the whole runs, warm-up and end included, so that nothing under way blurs it."""
    loads = [one.loaded for one in runs]
    return {
        f"{prefix}commits_per_saga": round(median(one.turns / one.sagas for one in loads), 3),
        f"{prefix}batches_per_saga": round(median(one.batches / one.sagas for one in loads), 4),
    }


def levels(text: str) -> list[int]:
    """Return the levels of `--inflight`."""
    found = [int(level) for level in text.split(",")]
    if any(not 1 <= level <= 9999 for level in found):
        raise argparse.ArgumentTypeError("each level must be 1 to 9999 sagas in flight")
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Measure sagas a second, beside the same rows written without an engine."
    )
    parser.add_argument("--store", choices=STORES, default="sqlite")
    parser.add_argument("--inflight", type=levels, default=[1, 100, 1000], help="levels, such as 1,100,1000")
    parser.add_argument("--workload", choices=WORKLOADS, default="order", help="compensate: the third step rejects")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of runs at each level (default 5)")
    parser.add_argument("--seconds", type=float, default=4.0, help="measured in each run (default 4)")
    parser.add_argument("--warmup", type=float, default=1.0, help="seconds before, not measured (default 1)")
    parser.add_argument("--directory", help="where SQLite's files are made; name a disk, not a RAM disk")
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
            anatomy.show(options.store, options.workload, inflight, options.seconds, as_json=options.json)
        return
    with sides(options.store, options.workload) as both:
        for inflight in options.inflight:
            task = Task("atone", options.workload, inflight, options.warmup, options.seconds, options.directory)
            figures = report(both, task, list(both.measure(task, options.rounds)))
            if options.json:
                print(json.dumps(figures), flush=True)
            else:
                print("\n".join(f"{name:32} {value}" for name, value in figures.items()), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
