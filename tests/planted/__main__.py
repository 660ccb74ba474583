"""Print which helper finds which planted bug: `python -m tests.planted`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

from atone.testing import (
    Report,
    crash_everywhere,
    fail_each_step,
    repeat_every_action,
    repeat_every_compensation,
    verify,
)
from tests.planted.app import ORDER, Shop, order_saga
from tests.planted.bugs import BUGS, Bug

HELPERS: tuple[Callable[..., Report], ...] = (
    crash_everywhere,
    repeat_every_action,
    repeat_every_compensation,
    fail_each_step,
)
NOTHING = Bug("none", "the shop as it should be", (), order_saga())


def found_by(bug: Bug, helpers: tuple[Callable[..., Report], ...] = HELPERS, **options: Any) -> dict[str, Report]:
    """Run helpers over a bug, and return their reports by name."""
    return {
        helper.__name__: helper(bug.saga, ORDER, participants=bug.shop, ledger=Shop.books, **options)
        for helper in helpers
    }


def main() -> int:
    """Print the table; 1 if a bug is found by nobody, or there is a false alarm."""
    logging.disable(logging.CRITICAL)
    names = [helper.__name__ for helper in HELPERS] + ["verify"]
    print(f"{'bug':24} " + " ".join(f"{name:>26}" for name in names))
    missed = 0
    for bug in (*BUGS, NOTHING):
        reports = found_by(bug) | found_by(bug, (verify,), runs_max=300)
        cells = [f"{len(one.findings)} of {one.runs}" if one.findings else "-" for one in reports.values()]
        print(f"{bug.name:24} " + " ".join(f"{cell:>26}" for cell in cells), flush=True)
        found = any(one.findings for one in reports.values())
        missed += found == (bug is NOTHING)
    print(f"{len(BUGS) - missed} of {len(BUGS)} planted bugs found" if missed < len(BUGS) else "no bug found")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
