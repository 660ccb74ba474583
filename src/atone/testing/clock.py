"""A clock that moves only when it is told to: by a simulation, or by a test.

Owns the one number that both readings are made of: seconds since an arbitrary start, and the time of day. Must not
wait for anything. `MemoryStore(clock=clock.time)` and `Orchestrator(clock=clock)` take it.
"""

from __future__ import annotations

FIRST_MONOTONIC = 1_000.0
FIRST_EPOCH = 1_767_225_600.0  # 2026-01-01, 00:00 UTC


class VirtualClock:
    """Time that stands still until somebody moves it. `epoch` is the time of day at which it begins."""

    def __init__(self, *, epoch: float = FIRST_EPOCH) -> None:
        self._now = FIRST_MONOTONIC
        self._difference = epoch - FIRST_MONOTONIC

    def monotonic(self) -> float:
        """Return seconds that never go back, from an arbitrary start."""
        return self._now

    def time(self) -> float:
        """Return the time of day, epoch seconds."""
        return self._now + self._difference

    def advance(self, seconds: float) -> None:
        """Let time pass; timers of a simulation that are due then run as soon as it has the turn.

        Raises:
            ValueError: `seconds` is below zero; time does not go back.
        """
        if seconds < 0:
            raise ValueError("Time does not go back; advance by 0 seconds or more.")
        self._now += seconds

    def move_to(self, monotonic: float) -> None:
        """Let time pass until this moment; nothing happens if it is over."""
        self._now = max(self._now, monotonic)
