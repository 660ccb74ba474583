"""Child processes of tests: they end with their block, however it ends, and looking at them does not race with an end.

Owns the two ways in which a test may go wrong by itself: a process that outlives a failed assertion (its block would
wait for it, or a later test would hear of it), and a look into /proc at one that is just going. Called by tests only.
"""

from __future__ import annotations

import subprocess
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def child_process(command: Sequence[object], **options: Any) -> Generator[subprocess.Popen[Any]]:
    """Start a process that is surely gone, and waited for, when the block ends."""
    with subprocess.Popen([str(word) for word in command], **options) as process:
        try:
            yield process
        finally:
            process.kill()


def is_running(number: int) -> bool:
    """Tell whether there is such a process, and it is more than a corpse that nobody has buried yet."""
    fields = _fields(number)
    return fields is not None and fields[0] != "Z"


def processes() -> dict[int, tuple[int, str]]:
    """Return the parent of each running process, and when it was started: a number alone may be used again."""
    found: dict[int, tuple[int, str]] = {}
    for process in Path("/proc").glob("[0-9]*"):
        fields = _fields(int(process.name))
        if fields is not None and fields[0] != "Z":
            found[int(process.name)] = (int(fields[1]), fields[19])
    return found


def below(number: int) -> dict[int, str]:
    """Return all processes that a process has started, and those that they have, with when each began."""
    alive = processes()
    family = {number}
    while more := {one for one, (parent, _) in alive.items() if parent in family} - family:
        family |= more
    return {one: alive[one][1] for one in family - {number}}


def left(family: dict[int, str]) -> list[int]:
    """Return those of a family that still run."""
    alive = processes()
    return [number for number, began in family.items() if number in alive and alive[number][1] == began]


def command_line(number: int) -> str:
    """Return how a process was called; nothing if it has ended."""
    try:
        return Path(f"/proc/{number}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _fields(number: int) -> list[str] | None:
    # A process that ends between the opening and the reading is ESRCH, not ENOENT.
    try:
        return Path(f"/proc/{number}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
