"""How many choreographed orders a second, and how long messages wait in an outbox, for each broker.

Four services react to each other: an order is four events and four transactions besides the one that places it, each
durable. Every service is a process with an SQLite file of its own; broker and processes are new in each round, and each
round begins with another broker. Must not serve anything itself, `choreographed` does. Run as
`python -m benchmarks.choreography --broker embedded,nats --inflight 100 --json`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from platform import python_version
from statistics import median, quantiles
from tempfile import TemporaryDirectory

import msgspec

from benchmarks.choreographed import READY, SERVICES, Task, Told
from benchmarks.guarded import guarded
from benchmarks.runs import ROOT, RunFailed, spread
from benchmarks.throughput import Figures, levels
from examples.orders.audit import Folder
from examples.orders.choreography.brokers import BROKERS, NoBroker, broker_url


def measure(kind: str, inflight: int, seconds: float, warmup_seconds: float, directory: str | None) -> list[Told]:
    """Return what each service told in one run, the orders' service last.

    Raises:
        RunFailed: A service came to no result.
        NoBroker: The broker's server is not here.
    """
    with ExitStack() as stack:
        folder = Folder(Path(stack.enter_context(TemporaryDirectory(dir=directory))))
        url = stack.enter_context(broker_url(kind, folder))
        running = [
            _start(stack, Task(service, str(folder.database(service)), url, at, warmup_seconds, seconds))
            for service, at in zip(SERVICES, (0, 0, 0, inflight), strict=True)
        ]
        for process in running:
            _say(process, "go")
        _expect(running[-1], "measured")
        for process in running:
            _say(process, "end")
        return [msgspec.json.decode(_line(process), type=Told) for process in running]


def _start(stack: ExitStack, task: Task) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.choreographed", msgspec.json.encode(task).decode()]
    here = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    process = stack.enter_context(
        guarded(command, cwd=ROOT, environment=here, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    )
    _expect(process, READY)
    return process


def _say(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdin is not None, "it is a pipe"
    process.stdin.write(f"{word}\n")
    process.stdin.flush()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None, "it is a pipe"
    line = process.stdout.readline()
    if not line:
        raise RunFailed("a service ended before it was told to; its last words stand above")
    return line.strip()


def _expect(process: subprocess.Popen[str], word: str) -> None:
    said = _line(process)
    if said != word:
        raise RunFailed(f"a service said {said[:200]!r} instead of {word!r}")


def report(kind: str, inflight: int, seconds: float, rounds: Sequence[list[Told]]) -> Figures:
    """Return the figures of one broker at one level: medians over the rounds, with their spread."""
    orders = [told[-1] for told in rounds]
    lags = [[lag for told in one for lag in told.lags_ms] for one in rounds]
    cpu = [sum(told.cpu_seconds for told in one) for one in rounds]
    return {
        "benchmark": "choreography",
        "broker": kind,
        "inflight": inflight,
        **spread("orders_per_second", [told.orders_per_second for told in orders], 1),
        **spread("p50_ms", [median(told.took_ms) for told in orders], 1),
        **spread("p99_ms", [_p99(told.took_ms) for told in orders], 1),
        **spread("outbox_lag_p50_ms", [median(one) for one in lags], 1),
        **spread("outbox_lag_p99_ms", [_p99(one) for one in lags], 1),
        "services_cpu_seconds": round(median(cpu), 1),
        "rounds": len(rounds),
        "seconds": seconds,
        "python": python_version(),
        "cpus": os.cpu_count() or 0,
        "load_average": round(os.getloadavg()[0], 2),
    }


def _p99(values: Sequence[float]) -> float:
    return quantiles(values, n=100)[98] if len(values) > 1 else values[0]


def _kinds(text: str) -> list[str]:
    kinds = text.split(",")
    if unknown := sorted(set(kinds) - set(BROKERS)):
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: there are {', '.join(BROKERS)}")
    return kinds


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure choreographed orders over each broker.")
    parser.add_argument("--broker", type=_kinds, default=list(BROKERS), help=f"some of {','.join(BROKERS)}")
    parser.add_argument("--inflight", type=levels, default=[1, 100], help="orders under way, such as 1,100")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each broker at each level (default 5)")
    parser.add_argument("--seconds", type=float, default=8.0, help="measured in each run (default 8)")
    parser.add_argument("--warmup", type=float, default=2.0, help="seconds before, not measured (default 2)")
    parser.add_argument("--directory", help="where the files are made; name a disk, not a RAM disk")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    options = parser.parse_args()
    if options.rounds < 1 or options.seconds <= 0 or options.warmup < 0:
        parser.error("--rounds must be at least 1, --seconds above 0, --warmup 0 or more")
    return options


def main() -> None:
    options = _options()
    kinds: list[str] = options.broker
    for inflight in options.inflight:
        rounds: dict[str, list[list[Told]]] = {kind: [] for kind in kinds}
        for number in range(options.rounds):
            at = number % len(kinds)
            for kind in (*kinds[at:], *kinds[:at]):
                try:
                    told = measure(kind, inflight, options.seconds, options.warmup, options.directory)
                except NoBroker as missing:
                    raise SystemExit(f"{kind}: {missing}") from missing
                rounds[kind].append(told)
        for kind in kinds:
            figures = report(kind, inflight, options.seconds, rounds[kind])
            if options.json:
                print(json.dumps(figures), flush=True)
            else:
                print("\n".join(f"{name:32} {value}" for name, value in figures.items()), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
