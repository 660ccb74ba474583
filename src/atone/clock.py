"""The clock port: the only source of time in the runtime.

Two readings: `monotonic` for durations in this process, and the store's time, which all workers share and every
deadline is written in. `StoreTime` carries the second between two looks at the store. Tests put their own clock here.
"""

from __future__ import annotations

import time
from math import inf
from typing import Protocol


class Clock(Protocol):
    """Seconds that never go back, from an arbitrary start."""

    def monotonic(self) -> float:
        """Return the seconds since some fixed moment."""
        ...


class SystemClock:
    """The machine's monotonic clock."""

    # The function itself: it is asked several times a turn, and each call around it would cost twice as much again.
    monotonic = staticmethod(time.monotonic)


class StoreTime:
    """The store's time in epoch seconds, as last read and carried on by the monotonic clock.

    A jump of this machine's wall clock does not move it; a jump of the store's own clock is taken over at the next
    look.
    """

    def __init__(self, clock: Clock) -> None:
        self._monotonic = clock.monotonic  # read several times a turn
        self._offset_seconds = -inf

    def observe(self, now: float, *, asked_at: float, heard_at: float | None = None) -> None:
        """Take over a reading of the store's clock, made between two moments of the monotonic clock (or until now).

        The present offset is moved no further than they allow: an answer that a blocked loop hears late moves nothing.
        """
        earliest = now - (self._monotonic() if heard_at is None else heard_at)
        self._offset_seconds = min(max(self._offset_seconds, earliest), now - asked_at)

    def moment(self) -> float:
        """Return the monotonic time, for `asked_at`."""
        return self._monotonic()

    def now(self) -> float:
        """Return the store's time, epoch seconds."""
        return self._monotonic() + self._offset_seconds
