"""Many schedules on several processes: counted, some of them repeated to see that they do the same, failures reported.

Owns how seeds are dealt out and what is counted. Must not know what a schedule does. Called by `__main__` and tests.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import count, islice

from tests.simulation.schedule import Verdict, run

CHUNK = 50
REPEAT_EVERY = 100
REPORTS_MAX = 5
TAIL_LINES = 80


@dataclass
class Tally:
    """What many schedules came to."""

    schedules: int = 0
    steps: int = 0
    kills: int = 0
    sagas: int = 0
    repeated: int = 0
    violations: int = 0
    seconds: float = 0.0
    failed: list[Verdict] = field(default_factory=list[Verdict])

    def add(self, verdict: Verdict) -> None:
        """Count one more."""
        self.schedules += 1
        self.steps += verdict.steps
        self.kills += verdict.kills
        self.sagas += verdict.sagas
        if verdict.wrong:
            self.violations += 1
            self.failed = sorted([*self.failed, verdict], key=lambda one: one.seed)[:REPORTS_MAX]

    def merge(self, other: Tally) -> None:
        """Count all of another one's."""
        self.schedules += other.schedules
        self.steps += other.steps
        self.kills += other.kills
        self.sagas += other.sagas
        self.repeated += other.repeated
        self.violations += other.violations
        self.failed = sorted([*self.failed, *other.failed], key=lambda one: one.seed)[:REPORTS_MAX]

    def __str__(self) -> str:
        rate = self.schedules / self.seconds if self.seconds else 0.0
        return (
            f"{self.schedules:,} schedules, {self.sagas:,} sagas, {self.kills:,} processes killed, "
            f"{self.steps:,} steps, {self.repeated:,} repeated to the byte, {self.violations} violations; "
            f"{self.seconds:.0f} s, {rate:.0f} a second"
        )


def some(seeds: Iterable[int]) -> Tally:
    """Run these schedules here; every hundredth twice."""
    tally = Tally()
    for seed in seeds:
        verdict = run(seed)
        if seed % REPEAT_EVERY == 0 and not verdict.wrong:
            again = run(seed)
            tally.repeated += 1
            if again.digest != verdict.digest:
                verdict = verdict._replace(wrong=("it did not do the same when it was repeated",))
        tally.add(verdict)
    return tally


def campaign(
    first: int,
    *,
    schedules: int | None,
    seconds: float | None = None,
    processes: int = 1,
    progress: Callable[[Tally], None] = lambda tally: None,
) -> Tally:
    """Run schedules from a first seed on, until there were so many or the time is over."""
    began, total = time.monotonic(), Tally()
    chunks = _chunks(first, schedules)
    if processes == 1:
        for chunk in chunks:
            total.merge(some(chunk))
            total.seconds = time.monotonic() - began
            progress(total)
            if seconds is not None and total.seconds >= seconds:
                break
        return total
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        under_way: set[Future[Tally]] = {pool.submit(some, chunk) for chunk in islice(chunks, 2 * processes)}
        while under_way:
            done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            for one in done:
                total.merge(one.result())
            total.seconds = time.monotonic() - began
            progress(total)
            if seconds is None or total.seconds < seconds:
                under_way |= {pool.submit(some, chunk) for chunk in islice(chunks, len(done))}
    return total


def _chunks(first: int, schedules: int | None) -> Iterator[range]:
    end = None if schedules is None else first + schedules
    for begin in count(first, CHUNK):
        if end is not None and begin >= end:
            return
        yield range(begin, begin + CHUNK if end is None else min(begin + CHUNK, end))


def report(verdict: Verdict) -> str:
    """Return all that a person needs of a schedule that went wrong."""
    story = verdict.story
    cut = [f"... {len(story) - TAIL_LINES} lines before"] if len(story) > TAIL_LINES else []
    return "\n".join(
        [
            f"seed {verdict.seed}: {len(verdict.wrong)} wrong",
            *(f"  {one}" for one in verdict.wrong),
            *story[:1],
            *cut,
            *story[-TAIL_LINES:],
            f"again, with the whole timeline: python -m tests.simulation --replay {verdict.seed}",
        ]
    )
