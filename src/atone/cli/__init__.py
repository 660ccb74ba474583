"""The command line `atone`: look at sagas and steer them with nothing but a store's URL, or run them as a worker.

Owns the way in, and what is said when the extra is missing; the rest of this room is imported only then. Only `worker`
needs user code or registers a worker: the plan is in the store. Must not decide about a saga. Called by the console
command.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

_BROUGHT_BY_THE_EXTRA = ("cyclopts", "rich")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; `argv` defaults to the process's own arguments."""
    try:
        from atone.cli.commands import run
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in _BROUGHT_BY_THE_EXTRA:
            raise
        print(f'The command line needs {missing.name}. Run: pip install "atone[cli]"', file=sys.stderr)
        return 2
    return run(sys.argv[1:] if argv is None else list(argv))
