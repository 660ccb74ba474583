"""Run schedules: `python -m tests.simulation --schedules 20000`, `--replay SEED`, `--soak --minutes 60`.

Exit status 1 if any schedule broke an invariant. See docs/simulation.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path

from tests.simulation.campaign import Tally, campaign, report
from tests.simulation.schedule import run

KEPT = Path(__file__).parents[2] / "docs" / "simulation.jsonl"
PROGRESS_SECONDS = 10.0
SOAK_MINUTES = 60.0


def main() -> int:
    """Read the command line and do as it says."""
    asked = _asked()
    if asked.replay is not None:
        return _replay(asked.replay)
    first = int.from_bytes(os.urandom(5), "big") if asked.fresh else asked.seed
    minutes = asked.minutes
    if asked.soak and minutes is None and asked.schedules is None:
        minutes = SOAK_MINUTES
    schedules = asked.schedules if asked.schedules is not None or minutes is not None else 20_000
    tally = campaign(
        first,
        schedules=schedules,
        seconds=None if minutes is None else minutes * 60,
        processes=asked.processes,
        progress=_Progress() if asked.soak else lambda tally: None,
    )
    for verdict in tally.failed:
        print(report(verdict), "\n")
    print(f"simulation: seeds from {first}: {tally} on {asked.processes} processes")
    if asked.soak:
        _keep(first, tally, asked.processes)
    return 1 if tally.violations else 0


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--schedules", type=int, help="how many (20,000)")
    parser.add_argument("--seed", type=int, default=0, help="the first one's seed (0)")
    parser.add_argument("--fresh", action="store_true", help="begin at a random seed")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="how many at once (all cores)")
    parser.add_argument("--replay", type=int, metavar="SEED", help="run one schedule and print its whole timeline")
    parser.add_argument("--soak", action="store_true", help="tell how it goes, and keep the result in docs/")
    parser.add_argument("--minutes", type=float, help="for how long")
    return parser.parse_args()


def _replay(seed: int) -> int:
    verdict = run(seed, tell=True)
    print("\n".join(verdict.story))
    print(f"seed {seed}: digest {verdict.digest}, {verdict.steps} steps, {verdict.kills} processes killed")
    for one in verdict.wrong:
        print(f"  wrong: {one}")
    return 1 if verdict.wrong else 0


class _Progress:
    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, tally: Tally) -> None:
        if time.monotonic() - self._last >= PROGRESS_SECONDS:
            self._last = time.monotonic()
            print(tally, file=sys.stderr, flush=True)


def _keep(first: int, tally: Tally, processes: int) -> None:
    """Print the result as one line of JSON, and keep it where the documentation shows it."""
    line = json.dumps(
        {
            "what": "soak",
            "on": time.strftime("%Y-%m-%d", time.gmtime()),
            "python": platform.python_version(),
            "processes": processes,
            "first_seed": first,
            "schedules": tally.schedules,
            "sagas": tally.sagas,
            "processes_killed": tally.kills,
            "steps": tally.steps,
            "repeated": tally.repeated,
            "violations": tally.violations,
            "seeds_that_failed": [one.seed for one in tally.failed],
            "seconds": round(tally.seconds),
            "a_second": round(tally.schedules / max(tally.seconds, 0.001)),
        }
    )
    print(line)
    KEPT.write_text(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
