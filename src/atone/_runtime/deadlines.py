"""When calls under way are given up: one timer of the event loop for all of them, at the earliest end.

Owns the ends of a worker's calls and what is called at each. A timer for each call would be the dearest part of it:
nearly all end long before their time. Must not know what a call is. Kept by the worker; `calls` sets ends and lifts
them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from typing import Any, TypeVar

log = logging.getLogger("atone.worker")

_LIFTED_MAX = 256

EndT = TypeVar("EndT", bound="End")


class End:
    """What ends at some moment, unless that is lifted before: `passed` is called with it then. Made to be inherited."""

    __slots__ = ("passed",)

    def __init__(self) -> None:
        self.passed: Callable[[Any], None] | None = None


class Deadlines:
    """Ends in the order of their times. A lifted one stays in the heap until its time, or until half of all are."""

    __slots__ = ("_heap", "_lifted", "_loop", "_number", "_timer", "_timer_at")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._heap: list[tuple[float, int, End]] = []
        self._number = count()  # equal times stand in the order in which they came
        self._lifted = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf

    def __len__(self) -> int:
        """Return how many ends stand here, lifted ones with them."""
        return len(self._heap)

    def after(self, seconds: float, end: EndT, passed: Callable[[EndT], None]) -> None:
        """Have `passed` called with `end` after so many seconds; an end stands here once at a time."""
        at, end.passed = self._loop.time() + seconds, passed
        entry: tuple[float, int, End] = at, next(self._number), end
        heappush(self._heap, entry)
        if at < self._timer_at:
            self._set_timer(at)

    def lift(self, end: End) -> None:
        """Have nothing called at this end any more; a second time, or after it has passed, nothing happens."""
        if end.passed is None:
            return
        end.passed = None
        self._lifted += 1
        if self._lifted > _LIFTED_MAX and 2 * self._lifted > len(self._heap):
            self._heap = [one for one in self._heap if one[2].passed is not None]
            heapify(self._heap)
            self._lifted = 0

    def close(self) -> None:
        """Forget all ends."""
        self._heap.clear()
        self._lifted = 0
        self._set_timer(inf)

    def _set_timer(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = None if at == inf else self._loop.call_at(at, self._look)

    def _look(self) -> None:
        """Call what is due, then wait for the next end that was not lifted."""
        self._timer, self._timer_at = None, inf
        now = self._loop.time()
        while self._heap:
            at, _, end = self._heap[0]
            if end.passed is not None and at > now:
                break
            heappop(self._heap)
            if end.passed is None:
                self._lifted -= 1
                continue
            passed, end.passed = end.passed, None
            try:
                passed(end)
            except Exception:
                log.exception("what was to happen at a deadline failed")  # the others have theirs all the same
        if self._heap:
            self._set_timer(self._heap[0][0])
