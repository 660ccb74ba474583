"""`python -m tests.model`: try everything that can happen to a saga between two workers, and print what came of it.

`--plan` takes one plan only, `--states` stops each search there, `--processes` is how many run at once (all cores).
Exit status 1 if a rule broke; the moves that broke it are printed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

from tests.core.plans import PLANS
from tests.model.report import run, summary
from tests.model.scenarios import LARGE
from tests.model.search import Found


def main(arguments: list[str] | None = None) -> int:
    """Search, and print what was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--states", type=int, default=10_000_000, help="stop each search there")
    parser.add_argument("--plan", choices=sorted(PLANS), action="append")
    options = parser.parse_args(arguments)
    scenarios = [one for one in LARGE if options.plan is None or one.plan in options.plan]
    began = time.monotonic()
    found: list[Found] = []
    for one in run(sorted(scenarios, key=lambda one: -one.faults), options.processes, options.states):
        found.append(one)
        print(one, flush=True)
    print(summary(found, time.monotonic() - began))
    return 1 if any(one.broken for one in found) else 0


if __name__ == "__main__":
    sys.exit(main())
