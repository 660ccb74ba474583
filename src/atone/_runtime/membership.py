"""This process as a worker: one id at a time, with its lease and its writer.

Owns registration, retirement, and what happens between two lives: a worker that is declared dead stays dead, so the
process comes back under a new id. Must not know a saga. Kept by the worker, which hears of each death.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from atone._runtime.aside import aside
from atone._runtime.committer import Committer
from atone._runtime.heartbeat import Heartbeat
from atone._runtime.ids import new_worker_id
from atone._runtime.limits import Limits
from atone._runtime.logs import about, told
from atone._runtime.telemetry import Telemetry
from atone.clock import Clock, StoreTime
from atone.errors import StoreError
from atone.store import Lease, Store, StoredPlan, Turn, TurnResult

log = logging.getLogger("atone.worker")


class Membership:
    """`on_death` hears the id that is no more; `spawn` runs what must happen beside."""

    def __init__(
        self,
        store: Store,
        plans: Sequence[StoredPlan],
        clock: Clock,
        limits: Limits,
        *,
        on_death: Callable[[str], None],
        spawn: Callable[[Coroutine[Any, Any, Any]], None],
        telemetry: Telemetry | None = None,
    ) -> None:
        self._store, self._plans, self._clock, self._limits = store, plans, clock, limits
        self._on_death, self._spawn, self._telemetry = on_death, spawn, telemetry
        self._registered = asyncio.Event()
        self._leaving = False
        self._heartbeat: Heartbeat | None = None
        self.committer: Committer | None = None
        self.time = StoreTime(clock)
        self.id = ""

    @property
    def is_registered(self) -> bool:
        """Whether there is a life to write in now."""
        return self.committer is not None

    async def until_registered(self) -> None:
        """Wait for the next life, or for the end of all."""
        await self._registered.wait()

    async def register(self) -> None:
        """Begin a life under a new id."""
        self.id = worker = new_worker_id()
        asked_at = self._clock.monotonic()
        lease = await aside(partial(self._store.renew, worker, self._limits.lease_seconds, register=self._plans))
        self.time.observe(lease.now, asked_at=asked_at)
        self.committer = Committer(self._store, worker, partial(self.die, worker), telemetry=self._telemetry)
        self.committer.start()
        self._heartbeat = Heartbeat(
            self._store,
            worker,
            self._clock,
            lease_seconds=self._limits.lease_seconds,
            loop_stall_seconds=self._limits.loop_stall_seconds,
            on_lease=self._leased,
            on_dead=partial(self.die, worker),
        )
        self._heartbeat.started(asked_at)
        self._registered.set()

    def leave(self) -> None:
        """Have no further life after this one; who waits for one is told."""
        self._leaving = True
        self._registered.set()

    async def retire(self) -> None:
        """End this life cleanly: write what is queued, stop renewing, give the id up for ever."""
        committer, heartbeat = self.committer, self._heartbeat
        if committer is None or heartbeat is None:
            return
        self.committer = self._heartbeat = None
        try:
            try:
                async with asyncio.timeout(self._limits.lease_seconds):
                    await committer.close()
            finally:
                await aside(heartbeat.stop)
            await aside(partial(self._store.renew, self.id, 0.0))
        except (StoreError, TimeoutError) as error:
            committer.abandon()
            known = about(error, worker=self.id)
            log.warning("worker %s could not retire (%s); its lease ends by itself", self.id, told(error), extra=known)

    def die(self, worker: str) -> None:
        """Drop everything: somebody else owns it now. Then come back under a new id.

        Several may find out, some of them late: what is said of an earlier life is no news.
        """
        committer, heartbeat = self.committer, self._heartbeat
        if committer is None or heartbeat is None or worker != self.id:
            return
        self.committer = self._heartbeat = None
        self._registered.clear()
        # Between two lives there is no id, so an answer that was meant for this one finds nobody.
        self.id = ""
        committer.abandon()
        self._on_death(worker)
        self._spawn(aside(heartbeat.stop))
        if not self._leaving:
            self._spawn(self._come_back())

    def submit(self, turn: Turn, landed: Callable[[TurnResult], None]) -> None:
        """Write a turn with the next batch; between two lives nothing is written."""
        if self.committer is not None:
            self.committer.submit(turn, landed)

    def may_call(self) -> bool:
        """Whether the lease still protects a call that begins now."""
        return self._heartbeat is not None and self._heartbeat.protects()

    async def _come_back(self) -> None:
        while not self._leaving:
            try:
                await self.register()
            except Exception as error:  # noqa: BLE001 - without a registration nothing runs, so nothing ends the trying
                log.warning("registering again: %s", told(error), extra=about(error))
                await asyncio.sleep(self._limits.poll_seconds)
            else:
                return

    def _leased(self, lease: Lease, asked_at: float, answered_at: float) -> None:
        self.time.observe(lease.now, asked_at=asked_at, heard_at=answered_at)
