"""What user code should never do, by name: exceptions that can't be told, results that can't be kept, processes ended.

Owns the deeds, and of each what a person is to read in the reason. Must not know who does them. Called by the steps and
the handlers of `poison_lives`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from typing import Any, NoReturn


class Mute(Exception):
    """It can't be asked what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no")

    def __repr__(self) -> str:
        raise RuntimeError("no")

    def __reduce__(self) -> NoReturn:
        raise TypeError("it can't be pickled")


class Venom(BaseException):
    """No Exception."""


def _raises(make: Callable[[], BaseException]) -> Callable[[], Any]:
    def deed() -> NoReturn:
        raise make()

    return deed


def _ends_its_process() -> NoReturn:
    os._exit(7)


def _is_killed() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("nobody survives that")


def _nested() -> Any:
    found: list[Any] = []
    for _ in range(100_000):
        found = [found]
    return found


def _leaks() -> str:
    """Leave tasks behind that never end."""
    loop = asyncio.get_running_loop()
    for _ in range(1000):
        KEPT.add(loop.create_task(asyncio.Event().wait()))
    return "done"


def _never_returns() -> NoReturn:
    while True:
        time.sleep(0.001)


KEPT: set[asyncio.Task[Any]] = set()

# What each does, and what a reason for setting it aside has to say, at least.
RAISED: dict[str, tuple[Callable[[], Any], str]] = {
    "mute": (_raises(Mute), "no message: its __str__ raised"),
    "huge": (_raises(lambda: ValueError("x" * 10_000_000)), "ValueError: xxx"),
    "garbled": (_raises(lambda: ValueError("a\0b\ud800c")), "ValueError: a"),
    "system-exit": (_raises(lambda: SystemExit(3)), "SystemExit: 3"),
    "no-exception": (_raises(Venom), "Venom"),
    "generator-exit": (_raises(GeneratorExit), ""),
    "cancelled-inside": (_raises(asyncio.CancelledError), ""),
    "stop-iteration": (_raises(StopIteration), ""),
    "recursion": (_raises(RecursionError), "RecursionError"),
}
RETURNED: dict[str, tuple[Callable[[], Any], str]] = {
    "nan": (lambda: float("nan"), ""),
    "nested": (_nested, ""),
    "oversize": (lambda: "x" * 2_000_000, ""),
    "of-no-type": (object, ""),
}
DEADLY: dict[str, tuple[Callable[[], Any], str]] = {
    "exits": (_ends_its_process, "process"),
    "is-killed": (_is_killed, "process"),
}
# On the event loop, which nothing else has then; in a thread, which nobody can stop.
ENDLESS: dict[str, tuple[Callable[[], Any], str]] = {"never-returns": (_never_returns, "")}
HARMLESS: dict[str, tuple[Callable[[], Any], str]] = {"leaks": (_leaks, "")}
EVERYTHING = {**RAISED, **RETURNED, **DEADLY, **ENDLESS, **HARMLESS}
