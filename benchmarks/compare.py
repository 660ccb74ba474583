"""Atone, the floor and the peers, one after the other in each round, on one machine in one sitting.

Each contender runs in a fresh process on a new database or a new server; the order turns from round to round, and
ratios are taken within a round. A peer that can't be set up is reported as such. Must not know how a peer works. Run as
`python -m benchmarks.compare --rounds 5 --seconds 8 --json`; `--only atone,floor,dbos` for some of them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

from benchmarks.database import Databases, databases
from benchmarks.order_saga import WORKLOADS
from benchmarks.peers import servers
from benchmarks.peers.catalogue import CONTENDERS, PEER_BY_NAME, Peer
from benchmarks.peers.environments import NotSetUp, python_of, restate_server
from benchmarks.peers.task import PeerTask
from benchmarks.runs import ROOT, Run, RunFailed, run, spread, work_of
from benchmarks.side import Task
from benchmarks.throughput import Sides, levels, sides

Figures: TypeAlias = dict[str, Any]


class Contest:
    """Runs any contender once, on what is made for it."""

    def __init__(self, server: Databases, both: Sides, seconds: float, warmup_seconds: float) -> None:
        self._server = server
        self._both = both
        self._seconds = seconds
        self._warmup_seconds = warmup_seconds

    def run(self, name: str, workload: str, inflight: int) -> Run:
        """Run one contender.

        Raises:
            NotSetUp: It can't be set up here.
            RunFailed: It did not come to a result.
        """
        if name in ("atone", "floor"):
            side: Any = name
            return self._both.run(Task(side, workload, inflight, self._warmup_seconds, self._seconds))
        peer = PEER_BY_NAME[name]
        python = python_of(peer)
        environment = self._environment(python)
        with self._place(peer, python, environment) as (served, database):
            warmup = max(self._warmup_seconds, peer.warmup_seconds)
            task = PeerTask(workload, inflight, warmup, self._seconds, served.places, served.servers, served.helpers)
            command = [str(python), "-m", f"benchmarks.peers.apps.{peer.app}", task.to_json()]
            place = None if database is None else (self._server, database)
            shown = run(command, environment=environment, place=place)
            shown.loaded.versions |= served.versions
            return shown

    @contextmanager
    def _place(
        self, peer: Peer, python: Path, environment: dict[str, str]
    ) -> Generator[tuple[servers.Served, str | None], None, None]:
        match peer.stands_on:
            case "postgres":
                with self._server.one() as name:
                    yield servers.Served({"dsn": self._server.url(name)}, [self._server.server_pid]), name
            case "restate":
                workers = (os.cpu_count() or 1) if peer.worker_per_core else 1
                with servers.restate(restate_server(), python, workers, environment) as served:
                    yield served, None
            case "temporal":
                with servers.temporal(python, environment) as served:
                    yield served, None

    def _environment(self, python: Path) -> dict[str, str]:
        """Return the variables for a peer: this repository's modules, its own programs, and those of PostgreSQL."""
        path = [str(python.parent), str(self._server.programs), os.environ.get("PATH", "")]
        kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONHOME", "VIRTUAL_ENV")}
        return kept | {"PYTHONPATH": str(ROOT), "PATH": os.pathsep.join(path)}


Round: TypeAlias = dict[str, Run]


class Level:
    """The rounds at one number in flight of one workload."""

    def __init__(self, contest: Contest, workload: str, inflight: int, missing: dict[str, str]) -> None:
        self._contest = contest
        self._workload = workload
        self._inflight = inflight
        self.missing = dict(missing)
        self.rounds: list[Round] = []

    def run(self, names: Sequence[str], rounds: int) -> None:
        """Run all of them in each round, beginning with another one each time."""
        for number in range(rounds):
            shown: Round = {}
            at = number % len(names)
            for name in (*names[at:], *names[:at]):
                if name in self.missing:
                    continue
                what = f"round {number + 1} of {rounds}, {self._workload}, {self._inflight} in flight, {name}"
                try:
                    shown[name] = self._run(name)
                    print(f"{what}: {shown[name].loaded.sagas_per_second:.1f} a second", file=sys.stderr, flush=True)
                except (NotSetUp, RunFailed) as error:
                    self.missing[name] = str(error)
                    print(f"{what}: {error}", file=sys.stderr, flush=True)
            self.rounds.append(shown)

    def _run(self, name: str) -> Run:
        try:
            return self._contest.run(name, self._workload, self._inflight)
        except RunFailed as error:
            print(f"{name}: {error}; once more", file=sys.stderr, flush=True)
            return self._contest.run(name, self._workload, self._inflight)

    def figures(self, name: str) -> Figures:
        """Return what a contender showed: medians over the rounds, with their spread."""
        head = {"benchmark": "compare", "contender": name, "workload": self._workload, "inflight": self._inflight}
        if name in self.missing:
            return head | {"not_measured": self.missing[name]}
        runs = [shown[name] for shown in self.rounds]
        figures: Figures = head | spread("sagas_per_second", [one.loaded.sagas_per_second for one in runs], 1)
        figures |= self._against(name, "atone", "atone_times") | self._against(name, "floor", "floor_times")
        cpu = [one.loaded.cpu_us_per_saga + one.loaded.server_cpu_us_per_saga for one in runs]
        sagas = sum(one.loaded.finished for one in runs)
        return (
            figures
            | work_of(runs)
            | {"cpu_us_per_saga": round(median(cpu), 1), "sagas": sagas, "versions": runs[0].loaded.versions}
        )

    def _against(self, name: str, other: str, what: str) -> dict[str, float]:
        """Return how many times the rate of this contender another one had, round by round."""
        pairs = [(shown[other], shown[name]) for shown in self.rounds if other in shown]
        if not pairs or name == other:
            return {}
        return spread(what, [one.loaded.sagas_per_second / this.loaded.sagas_per_second for one, this in pairs], 3)


def compare(options: argparse.Namespace) -> Generator[Figures, None, None]:
    """Set all of them up, then yield the figures of each at each level."""
    missing: dict[str, str] = {}
    for name in options.only:
        try:
            _prepare(name)
        except NotSetUp as error:
            missing[name] = str(error)
            print(f"{name}: {error}", file=sys.stderr, flush=True)
    with databases() as server:
        about = {
            "rounds": options.rounds,
            "seconds": options.seconds,
            "warmup_seconds": options.warmup,
            "postgresql": server.version,
            "cpus": os.cpu_count() or 0,
            "system": f"{platform.system()} {platform.machine()}",
        }
        for workload in options.workload:
            with sides("sqlite", workload) as recorded:
                both = Sides("postgres", server, recorded.recording)
            for inflight in options.inflight:
                level = Level(Contest(server, both, options.seconds, options.warmup), workload, inflight, missing)
                level.run(options.only, options.rounds)
                for name in options.only:
                    yield level.figures(name) | about | {"load_average": round(os.getloadavg()[0], 2)}


def _prepare(name: str) -> None:
    if name in PEER_BY_NAME:
        peer = PEER_BY_NAME[name]
        python_of(peer)
        if peer.stands_on == "restate":
            restate_server()


def _names(text: str) -> list[str]:
    names = text.split(",")
    unknown = sorted(set(names) - set(CONTENDERS))
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: there are {', '.join(CONTENDERS)}")
    return names


def _workloads(text: str) -> list[str]:
    names = text.split(",")
    if set(names) - set(WORKLOADS):
        raise argparse.ArgumentTypeError(f"there are {', '.join(WORKLOADS)}")
    return names


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure Atone, the floor and the peers beside each other.")
    parser.add_argument("--only", type=_names, default=list(CONTENDERS), help=f"some of {','.join(CONTENDERS)}")
    parser.add_argument("--inflight", type=levels, default=[1, 100], help="levels, such as 1,100")
    parser.add_argument("--workload", type=_workloads, default=["order"], help="order, compensate, or order,compensate")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each at each level (default 5)")
    parser.add_argument("--seconds", type=float, default=8.0, help="measured in each run (default 8)")
    parser.add_argument("--warmup", type=float, default=1.5, help="seconds before; some peers take more (default 1.5)")
    parser.add_argument("--prepare", action="store_true", help="only set the peers up")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    options = parser.parse_args()
    if options.rounds < 1 or options.seconds <= 0 or options.warmup < 0:
        parser.error("--rounds must be at least 1, --seconds above 0, --warmup 0 or more")
    return options


def main() -> None:
    options = _options()
    if options.prepare:
        for name in options.only:
            _prepare(name)
        return
    for figures in compare(options):
        if options.json:
            print(json.dumps(figures), flush=True)
        else:
            print("\n".join(f"{name:32} {value}" for name, value in figures.items()), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
