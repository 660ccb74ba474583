"""`python -m tests.mutation`: how many small changes of the core the tests of the core notice.

All mutants, or `--sample N --seed S` of them at random, or those of one module. Prints what survived and the score with
its interval; exit status 1 below the goal. `--list` only counts.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from math import sqrt
from pathlib import Path
from random import Random

import pytest

from tests.mutation import runner
from tests.mutation.equivalent import EQUIVALENT
from tests.mutation.operators import Mutant, mutants_of

GOAL_PERCENT = 85.0


def all_mutants(module: str | None = None) -> list[Mutant]:
    """List the mutants of the core, or of one of its modules."""
    files = [one for one in sorted(runner.FOLDER.glob("*.py")) if module in (None, one.stem)]
    return [one for file in files for one in mutants_of(file.read_text(encoding="utf-8"), file.name)]


def interval(hits: int, of: int) -> tuple[float, float]:
    """Return the 95 % interval of a share, after Wilson, in percent."""
    if not of:
        return 0.0, 100.0
    z, share = 1.96, hits / of
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z * sqrt(share * (1 - share) / of + z * z / (4 * of * of)) / (1 + z * z / of)
    return max(0.0, 100 * (middle - half)), min(100.0, 100 * (middle + half))


def summary(found: Sequence[runner.Found], whole: int, seconds: float) -> tuple[str, float]:
    """Return the figures in words, and the score: killed of those that are not equivalent."""
    verdicts = Counter(one.verdict for one in found)
    dead = verdicts[runner.KILLED] + verdicts[runner.TIMED_OUT]
    equivalent = sum(1 for one in alive(found) if one.mutant.name in EQUIVALENT)
    counted = len(found) - equivalent
    score = 100.0 * dead / counted if counted else 100.0
    which = f"all {whole}" if len(found) == whole else f"a random sample of {len(found)} of {whole}"
    text = (
        f"mutation: {which} mutants of _core: {verdicts[runner.KILLED]} killed, "
        f"{verdicts[runner.TIMED_OUT]} timed out, "
        f"{verdicts[runner.SURVIVED]} survived, {verdicts[runner.UNCOVERED]} not covered, "
        f"of these {equivalent} equivalent; score {score:.1f} %"
    )
    if len(found) < whole:
        low, high = interval(dead, counted)
        text += f" (95 % interval {low:.1f} to {high:.1f})"
    return (
        f"{text}; {100.0 * dead / len(found):.1f} % with the equivalent ones counted as alive; {seconds:.0f} s",
        score,
    )


def alive(found: Sequence[runner.Found]) -> list[runner.Found]:
    """Return those that no test has noticed."""
    return [one for one in found if one.verdict in (runner.SURVIVED, runner.UNCOVERED)]


def by_kind(found: Sequence[runner.Found]) -> str:
    """Return how many of each kind are dead."""
    kinds = Counter(one.mutant.kind for one in found)
    left = Counter(one.mutant.kind for one in alive(found))
    return "\n".join(f"  {kind:<24} {count - left[kind]:>5} of {count:>5}" for kind, count in kinds.most_common())


def _tell(count: int, found: runner.Found) -> None:
    if found.verdict in (runner.SURVIVED, runner.UNCOVERED):
        mark = "  = " if found.mutant.name in EQUIVALENT else "  ! "
        print(f"{mark}{count:>5} line {found.mutant.line} [{found.mutant.kind}] {found.mutant.name}", flush=True)


def main() -> int:
    """Choose, run, tell."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--sample", type=int, help="this many, drawn at random; default: all")
    parser.add_argument("--seed", type=int, default=1, help="of the draw (1)")
    parser.add_argument("--module", help="only of this module, such as decide")
    parser.add_argument("--only", help="only those whose name holds this text")
    parser.add_argument("--tests", nargs="+", help="what has to notice; default: the tests of the law")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--goal", type=float, default=GOAL_PERCENT, help=f"percent killed ({GOAL_PERCENT:g})")
    parser.add_argument("--list", action="store_true", help="count, run nothing")
    parser.add_argument("--json", type=Path, help="write the verdicts there too")
    parser.add_argument("--alone", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone:
        return runner.run_alone(given.alone)
    whole = [one for one in all_mutants(given.module) if given.only is None or given.only in one.name]
    if given.list:
        print(f"{len(whole)} mutants; {dict(Counter(one.file for one in whole).most_common())}")
        return 0
    chosen = whole if given.sample is None else Random(given.seed).sample(whole, min(given.sample, len(whole)))
    begun = time.monotonic()
    session = runner.Session(chosen, given.processes, _tell)
    session.start()
    tests = given.tests or runner.TESTS
    ended = pytest.main(runner.pytest_arguments(tests), plugins=[session])
    if len(session.found) != len(chosen):
        print(f"the tests without a change did not pass (pytest {ended}); see: python -m pytest {' '.join(tests)}")
        return 2
    text, score = summary(session.found, len(whole), time.monotonic() - begun)
    print(by_kind(session.found))
    print(text)
    if given.json:
        given.json.write_text(json.dumps([{**vars(one.mutant), "verdict": one.verdict} for one in session.found]))
    return 0 if score >= given.goal else 1


if __name__ == "__main__":
    sys.exit(main())
