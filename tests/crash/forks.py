"""Real processes in a few milliseconds each: forked from one that has imported everything and runs nothing.

Owns the fork, the pipe on which a process tells its parent in JSON lines, its status, and the certainty that none
outlives its parent. The parent must have no threads, no event loop and no open database, for a fork copies half of such
things. Used by `kills` and `zombies`, each a command with a process of its own.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Self, TypeAlias

LIFE_SECONDS_MAX = 120
_PR_SET_PDEATHSIG = 1

Tell: TypeAlias = Callable[..., None]


class Broken(Exception):
    """A process ended in a way that nobody asked for: there is nothing to judge."""


class Forked:
    """One process that runs `work(tell)`, and what it has told; `tell(**what)` survives a SIGKILL right after it."""

    def __init__(self, work: Callable[[Tell], None], *, seconds_max: int = LIFE_SECONDS_MAX) -> None:
        if threading.active_count() > 1:
            raise RuntimeError("A process with threads can't be forked into one that works. Fork before they begin.")
        sys.stdout.flush()
        sys.stderr.flush()
        self._reads, writes = os.pipe()
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._reads)
            _live(work, writes, parent, seconds_max)
        os.close(writes)
        self.told: list[dict[str, Any]] = []
        self.status: int | None = None
        self._rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        """Return what becomes readable when it tells something or ends."""
        return self._reads

    def until(self, is_so: Callable[[], bool], seconds: float = LIFE_SECONDS_MAX) -> None:
        """Hear it until something is so, or it has ended.

        Raises:
            Broken: Neither came in time; it is killed.
        """
        if not self.comes_to(is_so, seconds):
            self.close()
            raise Broken(f"process {self.pid} neither went on nor ended; it had told {self.told[-3:]}")

    def comes_to(self, is_so: Callable[[], bool], seconds: float) -> bool:
        """Hear it for so long; whether something was so, or it has ended."""
        end = monotonic() + seconds
        while not is_so() and self.status is None:
            if not self.hear(end - monotonic()):
                return False
        return True

    def wait(self, seconds: float = LIFE_SECONDS_MAX) -> list[dict[str, Any]]:
        """Hear it until it ends, and return all that it has told.

        Raises:
            Broken: It did not end in time, or it ended otherwise than by itself and in peace, or by a SIGKILL.
        """
        self.until(lambda: False, seconds)
        if self.status not in (0, -signal.SIGKILL):
            raise Broken(f"process {self.pid} ended with {self.status}: {self.told[-1:]}")
        return self.told

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        if self.status is None:
            os.kill(self.pid, number)

    def close(self) -> None:
        """Make sure that it is gone."""
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            self._reap()

    def hear(self, seconds: float) -> bool:
        """Take in what comes next: lines, or the end; False if nothing came in time."""
        if not select.select([self._reads], [], [], max(0.0, seconds))[0]:
            return False
        got = os.read(self._reads, 1 << 16)
        if not got:
            self._reap()
            return True
        *lines, self._rest = (self._rest + got).split(b"\n")
        self.told += [json.loads(line) for line in lines]
        return True

    def _reap(self) -> None:
        self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self._reads)


def hear_all(forks: Sequence[Forked], seconds: float) -> None:
    """Hear all of them until they end.

    Raises:
        Broken: They did not in time.
    """
    end = monotonic() + seconds
    while living := [one for one in forks if one.status is None]:
        ready = select.select(living, [], [], max(0.0, end - monotonic()))[0]
        if not ready:
            raise Broken(f"{len(living)} processes have not ended in {seconds:.0f} s")
        for one in ready:
            one.hear(0.0)


def _live(work: Callable[[Tell], None], writes: int, parent: int, seconds_max: int) -> None:
    """Be the new process, to its end: nothing of the parent's is run after it."""
    status = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(3)
        signal.alarm(seconds_max)

        def tell(**what: Any) -> None:
            os.write(writes, (json.dumps(what) + "\n").encode())

        try:
            work(tell)
            status = 0
        except BaseException:
            tell(broke=traceback.format_exc()[-4000:])
            raise
    except BaseException:
        status = 1
    finally:
        os._exit(status)
