"""How a command ends: its exit statuses, and the one exception that ends it early.

Owns the statuses, which are a promise to scripts (see docs/command-line.md). Must not print. Used by every command.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any


class Exit(IntEnum):
    """What a script may rely on.

    DONE: shown, or applied. REFUSED: refused, too late, not there, damaged, or the store can't be used. USAGE: the
    command line itself is wrong. RECORDED: the request is durable and has no answer yet. INTERRUPTED: Ctrl-C.
    TERMINATED: a second SIGTERM.
    """

    DONE = 0
    REFUSED = 1
    USAGE = 2
    RECORDED = 3
    INTERRUPTED = 130
    TERMINATED = 143


class Stop(Exception):
    """End the command with this status; `code` is stable, the message ends with the next move, `more` goes along."""

    def __init__(self, status: Exit, code: str, message: str, **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.more = more
