"""One alarm: rings once, at the last time that it was set to.

Owns the event loop's timer behind it. It must keep nobody alive: what it calls is known to it only while it is set.
Kept by a runner, one for each saga.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Alarm:
    """Calls somebody when it is time; setting it again forgets the time before."""

    __slots__ = ("_timer",)

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None

    def set(self, delay_seconds: float, ring: Callable[[], None]) -> None:
        """Call `ring` after so long."""
        self.stop()
        self._timer = asyncio.get_running_loop().call_later(delay_seconds, self._rung, ring)

    def stop(self) -> None:
        """Do not ring."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _rung(self, ring: Callable[[], None]) -> None:
        self._timer = None
        ring()
