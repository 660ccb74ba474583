"""Writes `docs/failures/`, one page a failure, each from a run of it: `python -m tests.failures --write`.

Without an argument it prints the names; with names, their pages. Must not decide what a page says.
"""

from __future__ import annotations

import sys

from tests.failures.pages import write
from tests.failures.stage import FAILURES, page_of


def main(arguments: list[str]) -> None:
    if arguments == ["--write"]:
        write()
        print(f"{len(FAILURES)} failures are told in docs/failures/")
    for name in arguments if arguments != ["--write"] else []:
        print(page_of(FAILURES[name]))
    if not arguments:
        print("\n".join(FAILURES))


if __name__ == "__main__":
    main(sys.argv[1:])
