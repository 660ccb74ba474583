"""Kill a real process at every one of its crash points, have another go on, and see whether the saga's end is true.

Owns which points there are (a life without a kill tells), the order of the kills, and the figures. Each kill is a
SIGKILL to a real process on a real store; the next one has to wait for the dead one's lease. Run as
`python -m tests.crash.kills --store both`; `--every N` takes each N-th point. The exit status is 1 if any end is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import platform
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import psycopg

from atone.stores.postgres import migrate
from atone.testing.postgres import PostgresServer, postgres_server
from tests.crash.forks import Broken, Forked, Tell, hear_all
from tests.crash.kill_cases import CASES, Case
from tests.crash.kill_lives import Life, Place, give_store, judged, make_store
from tests.crash.kill_points import Point

VICTIM_LEASE_SECONDS = 0.25
HEIR_LEASE_SECONDS = 5.0
RUN_SECONDS_MAX = 3600
SHOWN = 20


@dataclass
class Result:
    """What came of the kills of one lane. `missed`: points that the life did not come to this time."""

    kills: int = 0
    missed: int = 0
    sagas: int = 0
    attempts_lost: int = 0
    calls_repeated: int = 0
    points: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def add(self, other: dict[str, Any]) -> None:
        """Add what another one told."""
        for name, value in other.items():
            if isinstance(value, list):
                getattr(self, name).extend(value)
            elif isinstance(value, dict):
                getattr(self, name).update(value)
            else:
                setattr(self, name, getattr(self, name) + value)


class Lane:
    """A folder, and a database if there is one, in which sagas are killed one after the other."""

    def __init__(self, folder: Path, url: str | None) -> None:
        self.folder, self._url = folder, url
        self._number = 0
        self.result = Result()
        folder.mkdir()
        self._template = folder / "empty.db"
        if url is None:
            with Forked(lambda _tell: make_store(self._template)) as made:
                made.wait()

    def place(self, case: Case) -> Place:
        """Make a place for one saga."""
        self._number += 1
        place = Place(self.folder / str(self._number), f"{self.folder.name}-{self._number}-{case.name}", self._url)
        place.folder.mkdir()
        if self._url is None:
            give_store(self._template, place)
        return place

    def run(self, case: Case, *deaths: Point) -> list[list[Point]]:
        """Have a process die at each of these points in turn and a last one see the saga to its end; judge it.

        Returns the points that each life came to; none of one that died.
        """
        place = self.place(case)
        lives: list[list[Point]] = []
        for dies_at in (*deaths, None):
            # Who is not to be killed keeps its lease however busy the machine is; a dead one's is to end soon.
            seconds = HEIR_LEASE_SECONDS if dies_at is None else VICTIM_LEASE_SECONDS
            with Forked(Life(place, case, seconds, dies_at)) as life:
                told = life.wait()
            died = life.status != 0
            lives.append([] if died else [Point(*one) for one in told[-1]["passed"]])
            self.result.kills += died
            self.result.missed += dies_at is not None and not died
            if died:
                assert dies_at is not None, "nobody else kills"
                self.result.points[dies_at.what] += 1
        with Forked(judged(place)) as judge:
            (verdict,) = judge.wait()
        self._note(case, place, deaths, verdict)
        return lives

    def _note(self, case: Case, place: Place, deaths: Sequence[Point], verdict: dict[str, Any]) -> None:
        result = self.result
        result.sagas += 1
        result.ends.update(verdict["ends"])
        result.attempts_lost += verdict["attempts_lost"]
        result.calls_repeated += verdict["calls_repeated"]
        at = ", then ".join(map(str, deaths)) or "nowhere"
        result.wrong += [f"{case.name}, killed {at}: {one} (kept in {place.folder})" for one in verdict["wrong"]]
        if verdict["wrong"]:
            (place.folder / "journal.txt").write_text("\n".join(verdict["journal"]))
        else:
            shutil.rmtree(place.folder)


class Job(NamedTuple):
    """A saga to kill at its `number`-th point, and then another where the one that went on with it dies too."""

    case: Case
    number: int
    point: Point


def torment(lane: Lane, job: Job) -> None:
    """Kill at one point alone, and at a pair of points."""
    heir = lane.run(job.case, job.point)[-1]
    if heir:
        lane.run(job.case, job.point, heir[job.number * 7 % len(heir)])


def points_of(cases: Sequence[Case], folder: Path, url: str | None) -> Callable[[Tell], None]:
    """Return work that sees each saga to its end without a kill, and tells the points that it came to."""

    def work(tell: Tell) -> None:
        lane = Lane(folder, url)
        for case in cases:
            (points,) = lane.run(case)
            tell(case=case.name, points=points, wrong=lane.result.wrong)
            lane.result = Result()

    return work


def work_off(jobs: Sequence[Job], folder: Path, url: str | None) -> Callable[[Tell], None]:
    """Return the work of one lane; it tells what came of each job as soon as that is done."""

    def work(tell: Tell) -> None:
        lane = Lane(folder, url)
        for job in jobs:
            lane.result = Result()
            try:
                torment(lane, job)
            except Broken as broken:
                lane.result.wrong.append(f"{job.case.name} at {job.point}: {broken}")
            tell(**vars(lane.result))

    return work


class Run:
    """A run on one store, with as many sagas at once as there are `lanes`."""

    def __init__(self, folder: Path, lanes: int, server: PostgresServer | None) -> None:
        self._folder, self._lanes, self._server = folder, lanes, server
        folder.mkdir()
        self._urls = [None if server is None else _database(server, f"lane{one}") for one in range(lanes)]

    def all_points(self, cases: Sequence[Case]) -> tuple[dict[str, list[Point]], list[str]]:
        """Return the points of each case, and what is wrong without a kill already."""
        told = self._together("dry", lambda at, *place: points_of(cases[at :: self._lanes], *place))
        points = {one["case"]: [Point(*point) for point in one["points"]] for one in told}
        return points, [wrong for one in told for wrong in one["wrong"]]

    def kill(self, jobs: Sequence[Job]) -> Result:
        """Work all jobs off and return what came of them."""
        result = Result()
        for one in self._together("kill", lambda at, *place: work_off(jobs[at :: self._lanes], *place)):
            result.add(one)
        return result

    def _together(self, name: str, work: Callable[..., Callable[[Tell], None]]) -> list[dict[str, Any]]:
        lanes = [
            Forked(work(at, self._folder / f"{name}{at}", url), seconds_max=RUN_SECONDS_MAX)
            for at, url in enumerate(self._urls)
        ]
        try:
            hear_all(lanes, RUN_SECONDS_MAX)
        finally:
            for lane in lanes:
                lane.close()
        told = [one for lane in lanes for one in lane.told]
        broken = [one["broke"] for one in told if "broke" in one]
        if broken:
            raise Broken(broken[0])
        return told


def _database(server: PostgresServer, name: str) -> str:
    """Make a database with everything in it."""
    with Forked(lambda _tell: prepare(server, name)) as made:
        made.wait()
    return server.url(name)


def prepare(server: PostgresServer, name: str) -> None:
    """Make a database for one lane, in a process of its own."""
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    asyncio.run(migrate(server.url(name)))


def run(store: str, options: argparse.Namespace, folder: Path, server: PostgresServer | None = None) -> Result:
    """Kill at the chosen points on one store."""
    cases = [case for case in CASES if options.shape in (None, case.name)]
    one = Run(folder, options.processes, server)
    points, wrong = one.all_points(cases)
    jobs = [
        Job(case, number, point)
        for at, case in enumerate(cases)
        for number, point in enumerate(points[case.name])
        if (number + at) % options.every == 0
    ]
    result = one.kill(jobs)
    result.wrong += wrong
    return result


def _line(options: argparse.Namespace, result: Result, seconds: float) -> str:
    figures = {
        "test": "kills",
        "store": options.store,
        "every": options.every,
        "kills": result.kills,
        "points": len(result.points),
        "sagas": result.sagas,
        "wrong": len(result.wrong),
        "ends": dict(result.ends),
        "attempts_lost": result.attempts_lost,
        "calls_repeated": result.calls_repeated,
        "points_missed": result.missed,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(sum(os.times()[:4]), 1),
        "python": platform.python_version(),
    }
    return json.dumps(figures) if options.json else ", ".join(f"{name} {value}" for name, value in figures.items())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Kill real processes at each of their crash points.")
    parser.add_argument("--store", choices=["sqlite", "postgres", "both"], default="sqlite")
    parser.add_argument("--shape", choices=[case.name for case in CASES], help="only this one")
    parser.add_argument("--every", type=int, default=1, help="kill at each N-th point only, another one in each shape")
    parser.add_argument(
        "--processes", type=int, default=4 * (os.cpu_count() or 1), help="sagas at once; they mostly wait for leases"
    )
    parser.add_argument("--keep", action="store_true", help="keep the files; they are kept anyway if anything is wrong")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    return parser.parse_args()


def main() -> int:
    """Do what the command line says."""
    options = _options()
    folder = Path(tempfile.mkdtemp(prefix="atone-kills-"))
    begun, total = monotonic(), Result()
    gc.freeze()  # what is here already need not be copied by each process that looks for garbage
    if options.store in ("sqlite", "both"):
        total.add(vars(run("sqlite", options, folder / "sqlite")))
    if options.store in ("postgres", "both"):
        with postgres_server(settings={"fsync": "off", "max_connections": "200"}) as server:
            total.add(vars(run("postgres", options, folder / "postgres", server)))
    if not total.attempts_lost:
        total.wrong.append("no attempt was lost in a crash: the run has shown nothing")
    for case in total.wrong[:SHOWN]:
        print(case, file=sys.stderr)
    if not total.wrong and not options.keep:
        shutil.rmtree(folder)
    print(_line(options, total, monotonic() - begun))
    return 1 if total.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
