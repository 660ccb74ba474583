"""Check many histories by hand: `python -m tests.linearizability --histories 10000`.

    --store memory|sqlite|postgres   one of them; otherwise all three in turn
    --seed 7                         other histories (they are timings too: a seed does not repeat one exactly)
    --planted                        which of the stores that lie are found out

Prints one line of figures; the exit status is 1 if a history has no explanation, which is printed then.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.linearizability.planted import PLANTED
from tests.linearizability.sessions import Figures, StoreFarm, lies_found, record_and_check

KINDS = ("memory", "sqlite", "postgres")


def main(arguments: Sequence[str]) -> int:
    """Record and check; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.linearizability", description=__doc__)
    parser.add_argument("--histories", type=int, default=300)
    parser.add_argument("--store", choices=KINDS, default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--planted", action="store_true")
    options = parser.parse_args(arguments)
    logging.disable(logging.CRITICAL)  # what the faults make Atone say
    if options.planted:
        found = {kind.__name__: asyncio.run(lies_found(kind, options.histories)) for kind in PLANTED}
        for name, (wrong, looked_at) in found.items():
            print(f"{name:30} {wrong} of {looked_at} histories have no explanation")
        return 0 if all(wrong for wrong, _ in found.values()) else 1
    began, figures = time.perf_counter(), Figures()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        kinds = KINDS if options.store is None else (options.store,)
        farm = StoreFarm(folder, stack)
        number = options.seed
        while figures.histories < options.histories and not figures.unexplained:
            number += 1
            asyncio.run(record_and_check(farm, kinds[number % len(kinds)], number, figures))
    print(f"{figures.told()}, {time.perf_counter() - began:.0f} s")
    for told in figures.unexplained:
        print(told)
    return 1 if figures.unexplained else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
