"""Kill a process at every point of every shape, then the next one at every point of its own; lose every answer once.

Owns the choice of points. What two deaths leave behind is compared: where it is the same, to the byte, so is all that
can follow, and one of them is run for both; both numbers are told. `python -m tests.crash.every_point` runs single
points and lost answers of all shapes, and pairs of those that take one process and at most four steps; `--pairs` all,
`--singles` none. The exit status is 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, fields, replace
from time import monotonic, process_time
from typing import Literal

from tests.crash.points import (
    REST_SECONDS,
    REST_WITH_BROKER_SECONDS,
    SETTLE_SECONDS,
    WHOLE,
    Faults,
    Parts,
    Ran,
    run,
)
from tests.shapes.catalogue import SHAPES
from tests.shapes.choreographed import DANCES, Dance
from tests.shapes.shape import Shape

ALL: dict[str, Shape | Dance] = {**SHAPES, **DANCES}
STEPS_OF_PAIRS = 4
SHOWN = 3
TIMELINE = 60
NO_LIMIT_SECONDS = 3600.0

Pairs = Literal["none", "short", "all"]


@dataclass(frozen=True)
class Job:
    """All runs of one shape in which one role dies. `merges=False` runs every point, and not one of each kind."""

    shape: str
    role: str
    pairs: bool
    merges: bool = True
    parts: Parts = WHOLE


@dataclass
class Tally:
    """What was run. Points and pairs count all that were covered, `distinct` the deaths that left something different.

    `lost` counts answers and calls that were lost, `slowest_rest` is the longest that faults delayed a shape's end.
    """

    shapes: int = 0
    points: int = 0
    singles: int = 0
    lost: int = 0
    pairs: int = 0
    distinct: int = 0
    runs: int = 0
    violations: int = 0
    cpu_seconds: float = 0.0
    slowest_rest: float = 0.0
    told: list[str] = field(default_factory=list[str])

    def add(self, other: Tally) -> None:
        """Take in the tally of another job."""
        for one in fields(self):
            if one.name == "slowest_rest":
                self.slowest_rest = max(self.slowest_rest, other.slowest_rest)
            elif one.name != "shapes":
                setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))


def roles_of(shape: Shape | Dance) -> Sequence[str]:
    """Return the roles of a shape whose processes die, one at a time."""
    if isinstance(shape, Dance):
        return shape.roles
    return ["worker"] if shape.serving is None else ["worker", "service"]


def is_short(shape: Shape | Dance) -> bool:
    """Whether pairs of its points are run as well, unless all are asked for."""
    return isinstance(shape, Shape) and shape.serving is None and shape.steps <= STEPS_OF_PAIRS and not shape.is_long


def jobs_of(names: Sequence[str], pairs: Pairs) -> list[Job]:
    """Return what is to be done, the longest first as far as one can tell."""
    jobs = [
        Job(name, role, pairs == "all" or (pairs == "short" and is_short(ALL[name])))
        for name in names
        for role in roles_of(ALL[name])
    ]
    return sorted(jobs, key=lambda job: (not job.pairs, job.shape not in DANCES, job.shape))


class Explorer:
    """Does one job."""

    def __init__(self, job: Job) -> None:
        self.job, self.shape = job, ALL[job.shape]
        self.tally = Tally(shapes=1)
        self._whole: float | None = None
        # Where other processes live on, what they hold is told by their past alone: no two runs can be compared.
        self._is_alone = isinstance(self.shape, Shape) and self.shape.serving is None
        self._seen: set[bytes] = set()

    def go(self) -> Tally:
        """Run everything; stop early if so much is wrong that no more would be learnt."""
        began = process_time()
        first = self._run(Faults(self.job.role), records=True)
        self._whole = first.seconds
        self.tally.points = len(first.states)
        if not first.states:
            self.tally.violations += 1
            self.tally.told.append(f"{self.job.shape}: the {self.job.role} came to no point, so nothing is shown")
        for faults, times in self._first_faults(first):
            self._after(faults, times)
            if self.tally.violations >= SHOWN:
                break
        self.tally.cpu_seconds = process_time() - began
        return self.tally

    def _first_faults(self, first: Ran) -> Iterator[tuple[Faults, int]]:
        """Yield each single fault, and how many it stands for."""
        for at, times in self._distinct(first.states):
            self.tally.singles += times
            yield Faults(self.job.role, (at,)), times
        for number in range(1, first.calls + 1):
            for faults in (Faults(self.job.role, unheard=number), Faults(self.job.role, unsent=number)):
                self.tally.lost += 1
                yield faults, 1

    def _after(self, faults: Faults, times: int) -> None:
        """Run one fault, and then each death that may follow it."""
        ran = self._run(faults, records=self.job.pairs)
        if not self.job.pairs:
            return
        self.tally.pairs += times * len(ran.states)
        if not self._is_alone:
            self._seen = set()
        for at, _ in self._distinct(ran.states):
            self._run(replace(faults, deaths=(*faults.deaths, at)))

    def _distinct(self, states: Sequence[bytes]) -> Iterator[tuple[int, int]]:
        """Yield the points at which a death leaves something new, and how many leave the same."""
        if not self.job.merges:
            yield from ((at, 1) for at in range(1, len(states) + 1))
            return
        first: dict[bytes, int] = {}
        times: dict[bytes, int] = {}
        for at, state in enumerate(states, start=1):
            first.setdefault(state, at)
            times[state] = times.get(state, 0) + 1
        for state, at in first.items():
            if state not in self._seen:
                self._seen.add(state)
                yield at, times[state]

    def _run(self, faults: Faults, *, records: bool = False) -> Ran:
        limit = NO_LIMIT_SECONDS if self._whole is None else self._limit(self._whole, faults)
        ran = run(self.shape, faults, self.job.parts, limit_seconds=limit, records=records)
        self.tally.runs += 1
        self.tally.distinct += bool(faults.deaths)
        if self._whole is not None:
            self.tally.slowest_rest = max(self.tally.slowest_rest, ran.seconds - self._whole)
        if ran.violations:
            self.tally.violations += 1
            if len(self.tally.told) < SHOWN:
                self.tally.told.append(told(self.job, faults, ran))
        return ran

    def _limit(self, whole: float, faults: Faults) -> float:
        """Return the virtual seconds within which all must be at rest: for each fault what it may keep others waiting.

        A wait that was not yet written down when the process died begins anew, hence twice the whole.
        """
        rest = REST_SECONDS if self._is_alone else REST_WITH_BROKER_SECONDS
        times = len(faults.deaths) + bool(faults.unheard or faults.unsent)
        return 2 * whole + rest * times + (0.0 if self._is_alone else SETTLE_SECONDS)


def told(job: Job, faults: Faults, ran: Ran) -> str:
    """Return what went wrong in a run, how it came to that, and how to see it again."""
    command = f"python -m tests.crash.every_point --shape {job.shape} --role {job.role}"
    command += f" --deaths {','.join(map(str, faults.deaths))}" if faults.deaths else ""
    command += f" --unheard {faults.unheard}" if faults.unheard else ""
    command += f" --unsent {faults.unsent}" if faults.unsent else ""
    lines = [f"{job.shape}: {faults}", *(f"  died at: {one}" for one in ran.died_at)]
    lines += [f"  {one}" for one in ran.violations]
    lines += [f"  again: {command}", "  timeline:", *(f"    {one}" for one in ran.trace[-TIMELINE:])]
    return "\n".join(lines)


def explore(job: Job) -> Tally:
    """Do one job, in whatever process this is."""
    logging.disable()
    return Explorer(job).go()


def proof(names: Sequence[str], pairs: Pairs, processes: int) -> Tally:
    """Do all jobs."""
    total = Tally(shapes=len(names))
    for tally in _tallies(jobs_of(names, pairs), processes):
        total.add(tally)
        print(*tally.told, sep="\n", end="\n" * bool(tally.told), file=sys.stderr, flush=True)
    return total


def _tallies(jobs: Sequence[Job], processes: int) -> Iterator[Tally]:
    """Yield what each job came to, as soon as it is done."""
    if processes == 1:
        yield from map(explore, jobs)
        return
    with ProcessPoolExecutor(processes) as pool:
        for done in as_completed([pool.submit(explore, job) for job in jobs]):
            yield done.result()


def _once(name: str, faults: Faults) -> int:
    logging.disable()
    ran = run(ALL[name], faults)
    print(told(Job(name, faults.role, pairs=False), faults, ran))
    return 1 if ran.violations else 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill at every point of every shape.")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--shape", choices=ALL, action="append", help="only these")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--pairs", action="store_true", help="pairs of points of all shapes")
    which.add_argument("--singles", action="store_true", help="no pairs")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--role", help="with --deaths, --unheard or --unsent: one run, with its timeline")
    parser.add_argument("--deaths", default="")
    parser.add_argument("--unheard", type=int, default=0)
    parser.add_argument("--unsent", type=int, default=0)
    given = parser.parse_args()
    if given.role:
        deaths = tuple(int(one) for one in given.deaths.split(",") if one)
        return _once(given.shape[0], Faults(given.role, deaths, given.unheard, given.unsent))
    pairs: Pairs = "all" if given.pairs else "none" if given.singles else "short"
    began = monotonic()
    tally = proof(given.shape or list(ALL), pairs, given.processes)
    figures = {name: value for name, value in asdict(tally).items() if name != "told"}
    figures |= {"slowest_rest": round(tally.slowest_rest, 1), "cpu_seconds": round(tally.cpu_seconds, 1)}
    figures["seconds"] = round(monotonic() - began, 1)
    print(json.dumps(figures) if given.json else "every_point: " + ", ".join(f"{n} {v}" for n, v in figures.items()))
    return 1 if tally.violations else 0


if __name__ == "__main__":
    sys.exit(main())
