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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple, Protocol, TypeAlias

import psycopg

from atone.stores.postgres import migrate
from atone.testing.postgres import PostgresServer, postgres_server
from tests.crash.forks import Broken, Forked, Tell, hear_all
from tests.crash.kill_lives import Judge, Life, Place, give_store, make_store
from tests.crash.kill_points import Point
from tests.shapes.catalogue import SHAPES
from tests.shapes.choreographed import DANCES, Dance
from tests.shapes.shape import Shape

VICTIM_LEASE_SECONDS = 0.25
HEIR_LEASE_SECONDS = 5.0
RUN_SECONDS_MAX = 3600
JUDGED_TOGETHER = 20
SHOWN = 20
ALL: Mapping[str, Shape | Dance] = {**SHAPES, **DANCES}


@dataclass
class Result:
    """What came of one lane. `missed`: points that the life did not come to this time."""

    kills: int = 0
    stops: int = 0
    fenced: int = 0
    missed: int = 0
    runs: int = 0
    attempts_lost: int = 0
    calls_repeated: int = 0
    known_by_key: int = 0
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


class Death(NamedTuple):
    """Where a life ends, and which generation of the code it has."""

    point: Point
    generation: int = -1

    def __str__(self) -> str:
        return f"{self.point}" if self.generation == -1 else f"{self.point} of generation {self.generation}"


class Lane:
    """A folder, and a database if there is one, in which runs of shapes are killed one after the other."""

    def __init__(self, folder: Path, url: str | None) -> None:
        self.folder, self._url = folder, url
        self._number = 0
        self._waiting: list[tuple[Shape | Dance, Place, str]] = []
        self.result = Result()
        folder.mkdir()
        self._template = folder / "empty.db"
        if url is None:
            with Forked(lambda _tell: make_store(self._template)) as made:
                made.wait()

    def place(self, shape: Shape | Dance) -> Place:
        """Make a place for one run."""
        self._number += 1
        place = Place(self.folder / str(self._number), f"{self.folder.name}-{self._number}-{shape.name}", self._url)
        place.folder.mkdir()
        if self._url is None:
            give_store(self._template, place)
        return place

    def run(self, shape: Shape | Dance, *deaths: Death) -> list[list[Point]]:
        """Have a process die at each of these points in turn and a last one see all to its end.

        Every generation before the last has a life too. Returns the points that each life came to; none of one that
        died.
        """
        place = self.place(shape)
        lives: list[Death | int] = [*deaths, -1]
        if isinstance(shape, Shape) and shape.generations > 1 and not (deaths and deaths[0].generation == 0):
            lives.insert(0, 0)
        passed = [self.live(place, shape, one) for one in lives]
        self.ran(shape, place, ", then ".join(map(str, deaths)) or "nowhere")
        return passed

    def ran(self, shape: Shape | Dance, place: Place, at: str) -> None:
        """Have a run judged with the next ones."""
        self._waiting.append((shape, place, at))

    def live(self, place: Place, shape: Shape | Dance, how: Death | int) -> list[Point]:
        """Have one process live, and return the points that it came to; none if it died."""
        # Who is not to be killed keeps its lease however busy the machine is; a dead one's is to end soon.
        if isinstance(how, Death):
            life = Life(place, shape, VICTIM_LEASE_SECONDS, how.point, how.generation)
        else:
            life = Life(place, shape, HEIR_LEASE_SECONDS, None, how)
        with Forked(life) as process:
            told = process.wait()
        if process.status == 0:
            self.result.missed += isinstance(how, Death)
            return [Point(*one) for one in told[-1]["passed"]]
        self.result.kills += 1
        self.result.points[told[-1]["at"][0]] += 1
        return []

    def judge(self, at_least: int = 1) -> None:
        """Judge the runs since the last time, if they are so many."""
        if len(self._waiting) < at_least:
            return
        waiting, self._waiting = self._waiting, []
        with Forked(Judge([(shape, place) for shape, place, _ in waiting])) as judge:
            verdicts = judge.wait()
        for (shape, place, at), verdict in zip(waiting, verdicts, strict=True):
            wrong = verdict.pop("wrong")
            self.result.add({"runs": 1, **verdict, "ends": Counter(verdict["ends"])})
            self.result.wrong += [f"{shape.name}, killed {at}: {one} (kept in {place.folder})" for one in wrong]
            if not wrong:
                shutil.rmtree(place.folder)


class Job(Protocol):
    """Something to do in a lane."""

    shape: str
    death: Death

    def do(self, lane: Lane) -> None:
        """Do it; what came of it is in the lane."""
        ...


@dataclass
class Kill:
    """A run to kill at its `number`-th point, and another where the one that went on with it dies too."""

    shape: str
    number: int
    death: Death

    def do(self, lane: Lane) -> None:
        """Kill at one point alone, and at a pair of points."""
        shape = ALL[self.shape]
        heir = lane.run(shape, self.death)[-1]
        if heir:
            lane.run(shape, self.death, Death(heir[self.number * 7 % len(heir)]))


def deaths_of(shapes: Sequence[str], folder: Path, url: str | None) -> Callable[[Tell], None]:
    """Return work that sees each shape to its end without a kill, and tells the points that its lives came to."""

    def work(tell: Tell) -> None:
        lane = Lane(folder, url)
        for name in shapes:
            lives = lane.run(ALL[name])
            first = 0 if len(lives) > 1 else -1  # the generation of the first life
            points = [(point, -1 if at else first) for at, life in enumerate(lives) for point in life]
            tell(shape=name, points=points)
        lane.judge()
        tell(wrong=lane.result.wrong)

    return work


def work_off(jobs: Sequence[Job], folder: Path, url: str | None) -> Callable[[Tell], None]:
    """Return the work of one lane; it tells what came of its jobs as soon as some are judged."""

    def work(tell: Tell) -> None:
        lane = Lane(folder, url)
        for job in jobs:
            try:
                job.do(lane)
                lane.judge(at_least=JUDGED_TOGETHER)
            except Broken as broken:
                lane.result.wrong.append(f"{job.shape} at {job.death}: {broken}")
            if lane.result.runs or lane.result.wrong:
                tell(**vars(lane.result))
                lane.result = Result()
        lane.judge()
        tell(**vars(lane.result))

    return work


class Run:
    """A run on one store, with as many sagas at once as there are `lanes`."""

    def __init__(self, folder: Path, lanes: int, server: PostgresServer | None) -> None:
        self._folder, self._lanes, self._server = folder, lanes, server
        folder.mkdir()
        self._urls = [None if server is None else make_database(server, f"lane{one}") for one in range(lanes)]

    def all_deaths(self, shapes: Sequence[str]) -> tuple[dict[str, list[Death]], list[str]]:
        """Return where each shape can be killed, and what is wrong without a kill already."""
        told = self._together("dry", lambda at, *place: deaths_of(shapes[at :: self._lanes], *place))
        deaths = {
            one["shape"]: [Death(Point(*point), generation) for point, generation in one["points"]]
            for one in told
            if "shape" in one
        }
        return deaths, [wrong for one in told for wrong in one.get("wrong", ())]

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
        # One that was killed has told nobody why, and what it was to do is missing.
        broken += [f"lane {at} ended with {lane.status}" for at, lane in enumerate(lanes) if lane.status != 0]
        if broken:
            raise Broken(broken[0])
        return told


def make_database(server: PostgresServer, name: str) -> str:
    """Make a database with everything in it."""
    with Forked(lambda _tell: prepare(server, name)) as made:
        made.wait()
    return server.url(name)


def prepare(server: PostgresServer, name: str) -> None:
    """Make a database for one lane, in a process of its own."""
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    asyncio.run(migrate(server.url(name)))


MakeJob: TypeAlias = Callable[[str, int, Death], Job]


def run(options: argparse.Namespace, make: MakeJob, folder: Path, server: PostgresServer | None = None) -> Result:
    """Do what is to be done at the chosen points, on one store."""
    shapes = [name for name, shape in SHAPES.items() if not shape.is_long]
    if server is None:  # choreographies have no store: their services' databases are files here
        shapes += DANCES
    shapes = [name for name in shapes if options.shape in (None, name)]
    one = Run(folder, options.processes, server)
    deaths, wrong = one.all_deaths(shapes)
    jobs = [
        make(name, number, death)
        for at, name in enumerate(shapes)
        for number, death in enumerate(deaths[name])
        if (number + at) % options.every == 0 and options.at in death.point.what
    ]
    result = one.kill(jobs)
    result.wrong += wrong
    return result


def _line(name: str, options: argparse.Namespace, result: Result, seconds: float) -> str:
    figures = {
        "test": name,
        "store": options.store,
        "every": options.every,
        "kills": result.kills,
        "stops": result.stops,
        "stale_writes_refused": result.fenced,
        "points": len(result.points),
        "runs": result.runs,
        "wrong": len(result.wrong),
        "ends": dict(result.ends),
        "attempts_lost": result.attempts_lost,
        "calls_repeated": result.calls_repeated,
        "known_by_key": result.known_by_key,
        "points_missed": result.missed,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(sum(os.times()[:4]), 1),
        "python": platform.python_version(),
    }
    return json.dumps(figures) if options.json else ", ".join(f"{key} {value}" for key, value in figures.items())


def arguments(about: str) -> argparse.ArgumentParser:
    """Return a parser with what kills and stops have in common."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--store", choices=["sqlite", "postgres", "both"], default="sqlite")
    parser.add_argument("--shape", choices=list(ALL), help="only this one")
    parser.add_argument("--at", default="", help="only points with this in their names")
    parser.add_argument("--every", type=int, default=1, help="take each N-th point only, another one in each shape")
    parser.add_argument(
        "--processes", type=int, default=4 * (os.cpu_count() or 1), help="sagas at once; they mostly wait for leases"
    )
    parser.add_argument("--keep", action="store_true", help="keep the files; they are kept anyway if anything is wrong")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    return parser


def command(name: str, options: argparse.Namespace, make: MakeJob, bites: str) -> int:
    """Do a run, print what came of it, and return the exit status; `bites` names the figure that is above 0."""
    folder = Path(tempfile.mkdtemp(prefix=f"atone-{name}-"))
    begun, total = monotonic(), Result()
    gc.freeze()  # what is here already need not be copied by each process that looks for garbage
    if options.store in ("sqlite", "both"):
        total.add(vars(run(options, make, folder / "sqlite")))
    if options.store in ("postgres", "both"):
        with postgres_server(settings={"fsync": "off", "max_connections": "200"}) as server:
            total.add(vars(run(options, make, folder / "postgres", server)))
    if not getattr(total, bites) and options.shape is None:
        total.wrong.append(f"{bites} is 0: the run has shown nothing")
    for case in total.wrong[:SHOWN]:
        print(case, file=sys.stderr)
    if not total.wrong and not options.keep:
        shutil.rmtree(folder)
    print(_line(name, options, total, monotonic() - begun))
    return 1 if total.wrong else 0


def main() -> int:
    """Do what the command line says."""
    options = arguments("Kill real processes at each of their crash points.").parse_args()
    return command("kills", options, Kill, "attempts_lost")


if __name__ == "__main__":
    sys.exit(main())
