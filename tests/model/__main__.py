"""`python -m tests.model`: try everything that can happen to a saga between two workers, and print what came of it.

`--plan` takes one plan only, `--faults` so many faults, `--states` stops each search there, `--processes` is how many
run at once (all cores); `--deep` takes larger searches. `--mutants` breaks one rule after the other and lists what the
check made of each.
Exit status 1 if a rule broke, with the moves that broke it; or if a mutant survives.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

from tests.core.plans import PLANS
from tests.model.mutants import ALL, table
from tests.model.report import run, summary
from tests.model.scenarios import chosen
from tests.model.search import Found


def main(arguments: list[str] | None = None) -> int:
    """Search, and print what was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--states", type=int, default=10_000_000, help="stop each search there")
    parser.add_argument("--plan", choices=sorted(PLANS), action="append")
    parser.add_argument("--faults", type=int, help="so many in each search, instead of those listed")
    parser.add_argument("--deep", action="store_true", help="more faults, more workers")
    parser.add_argument("--mutants", action="store_true", help="see that the check notices each rule that is broken")
    options = parser.parse_args(arguments)
    if options.mutants:
        return 1 if table(ALL, options.processes) else 0
    scenarios = chosen(options.plan, options.faults, deep=options.deep)
    began = time.monotonic()
    found: list[Found] = []
    for one in run(scenarios, options.processes, options.states):
        found.append(one)
        print(one, flush=True)
    print(summary(found, time.monotonic() - began))
    return 1 if any(one.broken for one in found) else 0


if __name__ == "__main__":
    sys.exit(main())
