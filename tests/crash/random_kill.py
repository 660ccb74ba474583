"""Kill orchestrators at random moments, start them again, many times; then let everything end and read the verdict.

Owns the moments of the kills, drawn from `--seed`; what a process has reached by then is the machine's affair. Must not
look into a saga: `verdict` does. Run as `python -m tests.crash.random_kill --store sqlite --kills 200 --json`, or with
`--store postgres`, where several processes work at once; the exit status is 1 if anything is wrong.
"""

from __future__ import annotations

import asyncio
import json
import platform
import random
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from tests.crash.child import Files, Life
from tests.crash.fleet import Run, arguments, command, on_postgres
from tests.crash.processes import Broken, Process
from tests.crash.verdict import Verdict, judge, read

SHOWN = 20


@dataclass(frozen=True)
class Plan:
    """How to torment. `drain_seconds` bounds how long everything may take to end at last."""

    kills: int
    seed: int = 1
    feeders: int = 16
    drain_seconds: float = 120.0


def torment(files: Files, plan: Plan) -> bool:
    """Kill and start again, then let everything end; return whether it did in time."""
    rng = random.Random(plan.seed)
    for number in range(plan.kills):
        # With little patience a worker lets go of a saga between two attempts, and must find it again.
        keep_seconds = rng.choice((2.0, 0.03))
        life = Life(str(files.folder), f"life{number:04d}", plan.seed, plan.feeders, keep_seconds=keep_seconds)
        with Process(files, life) as process:
            # Most kills hit sagas at work; some hit a process that has barely begun to open its store.
            if rng.random() < 0.85:
                process.wait_until_ready()
                sleep(rng.uniform(0.005, 0.4))
            else:
                sleep(rng.uniform(0.0, 0.6))
            process.kill()
    with Process(files, Life(str(files.folder), "last", plan.seed, drain=True)) as last:
        return last.ends_within(plan.drain_seconds)


def torment_fleet(run: Run, kills: int, workers: int = 3, feeders: int = 8) -> dict[str, Any]:
    """Kill one of several processes on one PostgreSQL at a time, and put another in its place."""
    rng = random.Random(run.seed)
    with on_postgres(run) as (server, files), run.fleet(files, feeders) as fleet:
        fleet.start_all(workers)
        for _ in range(kills):
            victim = rng.choice(fleet.processes)
            # Most kills hit sagas at work; some hit a process that has barely begun to open its store.
            if rng.random() < 0.85:
                victim.wait_until_ready()
            sleep(rng.uniform(0.0, 0.4))
            fleet.replace(victim)
        run.done |= {"store": "postgres", "kills": kills, "workers": workers}
        run.judged(files, server.url(), drained=fleet.drain(), bites="attempts_lost")
        return run.line(server)


def report(verdict: Verdict, plan: Plan, seconds: float, refusals: int) -> dict[str, Any]:
    """Return the verdict as the last line."""
    return {
        "test": "random_kill",
        "store": "sqlite",
        "kills": plan.kills,
        "sagas": verdict.ends.total(),
        "stranded": len(verdict.stranded),
        "untrue": len(verdict.untrue),
        "twice": len(verdict.twice),
        "acknowledged": verdict.acknowledged,
        "acknowledged_lost": len(verdict.acknowledged_lost),
        "seconds": round(seconds, 1),
        "ends": dict(verdict.ends),
        "attempts_lost": verdict.attempts_lost,
        "calls_repeated": verdict.calls_repeated,
        "late_actions_refused": refusals,
        "seed": plan.seed,
        "python": platform.python_version(),
    }


def _show(verdict: Verdict) -> None:
    for kind in ("stranded", "untrue", "twice"):
        cases: list[str] = getattr(verdict, kind)
        for case in cases[:SHOWN]:
            print(f"{kind}: {case}", file=sys.stderr)
        if len(cases) > SHOWN:
            print(f"{kind}: and {len(cases) - SHOWN} more", file=sys.stderr)


def main() -> int:
    parser = arguments("Kill orchestrators at random, and see whether every saga ends true.")
    parser.add_argument("--store", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--kills", type=int, default=200)
    options = parser.parse_args()
    if options.store == "postgres":
        return command(
            "random_kill", options, lambda run: torment_fleet(run, options.kills, options.workers, options.feeders)
        )
    plan = Plan(options.kills, options.seed, options.feeders)
    files = Files(Path(tempfile.mkdtemp(prefix="atone-kill-")))
    begun = monotonic()
    try:
        torment(files, plan)
        found = asyncio.run(read(files))
    except Broken as broken:
        print(f"{broken}\nEverything is kept in {files.folder}", file=sys.stderr)
        return 2
    verdict = judge(found)
    _show(verdict)
    holds = verdict.holds and verdict.attempts_lost > 0
    if verdict.holds and not holds:
        print("attempts_lost is 0: the run has shown nothing", file=sys.stderr)
    if options.keep or not holds:
        print(f"The databases are kept in {files.folder}", file=sys.stderr)
    else:
        shutil.rmtree(files.folder)
    figures = report(verdict, plan, monotonic() - begun, found.refusals)
    print(json.dumps(figures) if options.json else "\n".join(f"{name:22} {value}" for name, value in figures.items()))
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
