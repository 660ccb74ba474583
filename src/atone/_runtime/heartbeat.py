"""The lease, kept by a thread of its own: it survives a blocked event loop, yet notices a hung one.

Owns one worker's renewals. The thread renews as long as the loop has ticked within `loop_stall_seconds`. The lease's
end is known on the monotonic clock, counted from before the store was asked, so it is never later than the store's.
Must not touch a saga; started and stopped by the worker.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from atone._runtime.logs import about, told
from atone.clock import Clock
from atone.errors import WorkerDead
from atone.machine import machine
from atone.store import Lease, Store

log = logging.getLogger("atone.lease")


class Heartbeat:
    """Renews one worker id until stopped; calls `on_dead` on the loop if the store says that the worker is dead.

    `on_lease` hears each lease on the loop, and when it was asked for and answered by the monotonic clock.
    """

    def __init__(
        self,
        store: Store,
        worker: str,
        clock: Clock,
        *,
        lease_seconds: float,
        loop_stall_seconds: float,
        on_lease: Callable[[Lease, float, float], None],
        on_dead: Callable[[], None],
    ) -> None:
        self._store, self._worker, self._clock = store, worker, clock
        self._lease_seconds, self._stall_seconds = lease_seconds, loop_stall_seconds
        self._on_lease, self._on_dead = on_lease, on_dead
        self._loop = asyncio.get_running_loop()
        self._stopped = False
        self._beats = machine().beats(self._beat, "atone-heartbeat")
        self._tick_handle: asyncio.TimerHandle | None = None
        self._ticked = clock.monotonic()
        self.until = self._ticked

    def started(self, asked_at: float) -> None:
        """Begin, after a first lease that was asked for at `asked_at` (monotonic)."""
        self.until = asked_at + self._lease_seconds
        self._tick()
        self._beats.start(self._lease_seconds / 3)

    def protects(self) -> bool:
        """Whether the lease still runs, by this process's own clock."""
        return self._clock.monotonic() < self.until

    def stop(self) -> None:
        """Stop renewing; a renewal under way ends first."""
        self._stopped = True
        self._beats.stop(self._lease_seconds)

    def _tick(self) -> None:
        if self._stopped:
            return
        self._ticked = self._clock.monotonic()
        pause = min(max(1.0, self._lease_seconds / 10), self._stall_seconds / 4)
        self._tick_handle = self._loop.call_later(pause, self._tick)

    def _beat(self) -> float | None:
        """Renew once; return when to do it again."""
        if self._clock.monotonic() - self._ticked > self._stall_seconds:
            known = about(worker=self._worker)
            stalled = self._stall_seconds
            log.error("the event loop has not run for %.0f s; the lease is left to end", stalled, extra=known)
            return self._lease_seconds / 3
        pause = self._lease_seconds / 3 if self._renew() else min(0.5, self._lease_seconds / 10)
        return None if self._stopped else pause

    def _renew(self) -> bool:
        asked_at = self._clock.monotonic()
        try:
            lease = self._store.renew(self._worker, self._lease_seconds)
        except WorkerDead:
            self._stopped = True
            self._tell(self._on_dead)
            return True
        except Exception as error:  # noqa: BLE001 - without this thread the worker dies, whatever was wrong once
            known = about(error, worker=self._worker)
            log.warning("the lease of worker %s could not be renewed: %s", self._worker, told(error), extra=known)
            return False
        self.until = asked_at + self._lease_seconds
        answered_at = self._clock.monotonic()
        self._tell(lambda: self._on_lease(lease, asked_at, answered_at))
        return True

    def _tell(self, what: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(what)
        except RuntimeError:
            self._stopped = True  # the loop is closed: there is nobody left to renew for
