"""The machine port: what a process takes from the computer that it runs on: its clocks, chance, and threads.

Atone asks `machine()` when a part is made, and keeps what it got: nothing is looked up on the hot path. Here is the
real one. `atone.testing.simulate` puts another in its place, for what runs in its context and for nobody else, so that
the very same runtime is deterministic there. Must not know a saga.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import ContextVar
from typing import Protocol

from atone._threads import DaemonThreads


class Beats(Protocol):
    """Something that is done again and again, until it is stopped."""

    def start(self, first_seconds: float) -> None:
        """Begin, after so many seconds."""
        ...

    def stop(self, timeout_seconds: float) -> None:
        """Do it no more; one that is under way ends first, unless it takes longer than that."""
        ...


class Machine(Protocol):
    """The computer, as a process sees it."""

    @property
    def pid(self) -> int:
        """The number of this process."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go back, from an arbitrary start."""
        ...

    def time(self) -> float:
        """Return the time of day, epoch seconds."""
        ...

    def random_bytes(self, count: int, /) -> bytes:
        """Return bytes that nobody else draws."""
        ...

    def uniform(self, low: float, high: float, /) -> float:
        """Return a number between two, for pauses that must not fall together."""
        ...

    def aside(self, call: Callable[[], None], name: str) -> None:
        """Run a call in a daemon thread of its own; it raises nothing.

        Raises:
            RuntimeError: No thread can be started any more.
        """
        ...

    def beats(self, beat: Callable[[], float | None], name: str) -> Beats:
        """Return what makes a call again and again, off the loop.

        It returns after how many seconds it wants to be made again; None: never.
        """
        ...

    def threads(self, most: int, name: str) -> Executor:
        """Return an executor of at most so many daemon threads."""
        ...


class _ThreadBeats:
    def __init__(self, beat: Callable[[], float | None], name: str) -> None:
        self._beat = beat
        self._first_seconds = 0.0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self, first_seconds: float) -> None:
        self._first_seconds = first_seconds
        self._thread.start()

    def stop(self, timeout_seconds: float) -> None:
        self._stopped.set()
        self._thread.join(timeout=timeout_seconds)

    def _run(self) -> None:
        pause: float | None = self._first_seconds
        while pause is not None and not self._stopped.wait(pause):
            pause = self._beat()


class ThisMachine:
    """The real one. The functions themselves where that is possible: some are asked several times a turn."""

    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)
    random_bytes = staticmethod(os.urandom)
    uniform = staticmethod(random.uniform)

    @property
    def pid(self) -> int:
        """See `Machine`."""
        return os.getpid()  # not kept: a fork has its own

    def aside(self, call: Callable[[], None], name: str) -> None:
        """See `Machine`."""
        threading.Thread(target=call, name=name, daemon=True).start()

    def beats(self, beat: Callable[[], float | None], name: str) -> Beats:
        """See `Machine`."""
        return _ThreadBeats(beat, name)

    def threads(self, most: int, name: str) -> Executor:
        """See `Machine`."""
        return DaemonThreads(most, name)


THIS_MACHINE = ThisMachine()
MACHINE: ContextVar[Machine] = ContextVar("atone-machine", default=THIS_MACHINE)
machine = MACHINE.get


def new_name(count: int = 16) -> str:
    """Return a name that nobody else has, of so many random bytes."""
    return machine().random_bytes(count).hex()
