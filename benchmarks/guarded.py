"""Processes that the benchmarks start: each goes when it is not wanted any more, however the one that wants it ends.

Owns the pipe between a process and its guard; the guard ends the command when the pipe closes, which it does even if
this process is killed. Also tells the CPU time of a tree of processes. Standard library only: the peers' own
environments import it. Must not know what runs.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_GUARD = Path(__file__).with_name("guard.py")
_TICKS = os.sysconf("SC_CLK_TCK")


@contextmanager
def guarded(
    command: Sequence[str | Path],
    *,
    folder: Path | None = None,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    stdin: int | IO[str] = subprocess.DEVNULL,
    stdout: int | IO[str] | None = None,
    stderr: int | IO[str] | None = None,
) -> Generator[subprocess.Popen[str], None, None]:
    """Run a command beside this process; leaving ends it, with all that it has started, and removes `folder`."""
    reading, writing = os.pipe()
    try:
        guard: list[str | Path] = [sys.executable, "-I", "-S", _GUARD, str(reading), str(folder or ""), *command]
        process = subprocess.Popen(
            guard, pass_fds=(reading,), start_new_session=True, text=True, cwd=cwd, env=environment, stdin=stdin,
            stdout=stdout, stderr=stderr,
        )  # fmt: skip
    except BaseException:
        os.close(writing)
        raise
    finally:
        os.close(reading)
    try:
        yield process
    finally:
        os.close(writing)
        for end in (process.stdin, process.stdout, process.stderr):
            if end is not None:
                end.close()
        process.wait()


def cpu_seconds(roots: Collection[int]) -> float:
    """Return the CPU time of these processes and all below them, those included that have ended and were waited for."""
    if not roots:
        return 0.0
    below: dict[int, list[int]] = {}
    spent: dict[int, float] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            number = int(folder.name)
            below.setdefault(int(fields[1]), []).append(number)
            spent[number] = sum(map(int, fields[11:15])) / _TICKS
    total, left = 0.0, list(roots)
    while left:
        number = left.pop()
        total += spent.get(number, 0.0)
        left += below.get(number, [])
    return total
