"""Searches run side by side, and the report of what they found.

Owns the processes and the last line. Each search has a process of its own; `run` yields what they found as they end.
Called by the command and by the tests.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed

from tests.model.scenarios import Scenario
from tests.model.search import Found, Search


def search(job: tuple[Scenario, int]) -> Found:
    """Run one search; called in a process of its own."""
    scenario, states_max = job
    return Search(scenario.name, scenario.moves(), states_max).run()


def run(scenarios: Iterable[Scenario], processes: int, states_max: int) -> Iterator[Found]:
    """Run searches side by side and yield what each has found, as it ends."""
    jobs = [(scenario, states_max) for scenario in scenarios]
    if processes == 1:
        yield from map(search, jobs)
        return
    # One process a search, so that what it needed is given back when it ends.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, max_tasks_per_child=1) as pool:
        for done in as_completed([pool.submit(search, job) for job in jobs]):
            yield done.result()


def summary(found: list[Found], seconds: float) -> str:
    """Return the last line of a report."""
    states, transitions = sum(one.states for one in found), sum(one.transitions for one in found)
    depth = max((one.depth for one in found), default=0)
    broken = sum(one.broken is not None for one in found)
    cut = sum(not one.complete and one.broken is None for one in found)
    rate = states / max(seconds, 1e-9)
    cpu_seconds = sum(one.cpu_seconds for one in found)
    return (
        f"{states:,} states, {transitions:,} transitions, {seconds:.1f} s ({cpu_seconds:.1f} s of CPU), "
        f"{rate:,.0f} states/s, depth {depth}, "
        f"{len(found)} plans ({cut} cut short), {broken} violations"
    )
