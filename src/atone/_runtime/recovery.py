"""Recovery, always on: what another worker left, what is due, and what somebody has asked of a saga of mine.

Owns the claims, page by page, and what is done with what they bring. One broken saga never stops a page. Must not
decide about a saga: what can't be folded is parked, the rest goes to its runner. Kept by the worker.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from atone._core.state import SagaState
from atone._runtime.bound import BoundSaga
from atone._runtime.limits import Limits
from atone._runtime.logs import about, of_saga, report, told
from atone._runtime.membership import Membership
from atone._runtime.reader import state_of
from atone._runtime.rooms import Promise, Rooms
from atone._runtime.runner import Runner, unfit_requests
from atone._runtime.telemetry import Telemetry
from atone.codec import describe
from atone.errors import AtoneError, CorruptJournal, StoreError, WorkerDead
from atone.machine import machine
from atone.store import Claimed, Hot, Loaded, Store

log = logging.getLogger("atone.worker")

PAGE = 200
AFTER_LEASE_SECONDS = 0.05
LATEST_POLL = 1.3  # times poll_seconds


class Registry(Protocol):
    """What recovery needs of the worker: the sagas it runs, and how to add one."""

    runners: dict[bytes, Runner]
    rooms: Rooms
    telemetry: Telemetry | None

    def adopt(self, bound: BoundSaga, key: bytes) -> Runner:
        """Put a new runner into the registry."""
        ...

    def release(self, runner: Runner) -> None:
        """Take a runner out of it."""
        ...


class Recovery:
    """Looks at the store twice a second, or at once after `wake`. `bound` are the definitions by identity."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        membership: Membership,
        bound: Mapping[tuple[str, int, str], BoundSaga],
        limits: Limits,
    ) -> None:
        self._store, self._registry, self._membership = store, registry, membership
        self._bound, self._limits = bound, limits
        self._wanted = asyncio.Event()
        self._next_end: float | None = None
        self._task: asyncio.Task[None] | None = None
        self.unclaimable = 0

    def start(self) -> None:
        """Begin to look."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="atone-recovery")

    def stop(self) -> None:
        """Claim nothing any more."""
        if self._task is not None:
            self._task.cancel()

    def wake(self) -> None:
        """Look at once."""
        self._wanted.set()

    async def reread(self, runner: Runner) -> None:
        """Load a saga of mine again; one that is not mine any more is dropped."""
        while not runner.gone:
            try:
                loaded = (await self._store.load([runner.key]))[0]
            except StoreError as error:
                known = of_saga(runner.bound.plan, runner.state, worker=self._membership.id)
                log.warning("reading saga %s again: %s", runner.key.hex(), told(error), extra=known)
                await asyncio.sleep(self._limits.poll_seconds)
                continue
            worker = self._membership.id
            if loaded is None or loaded.summary.owner != worker:
                runner.drop()
                self._registry.release(runner)
            elif _has_forgotten(loaded, runner):
                # What runs here was never to be, as far as anybody else knows: go on from what is there, as a stranger.
                log.error("the store has lost rows that it had acknowledged, of saga %s", loaded.summary.saga_id)
                self._membership.die(worker)
            elif self._registry.runners.get(runner.key) is runner:  # it may have been dropped meanwhile
                self._hand_over(runner, loaded, runner.reloaded)
            return

    async def _run(self) -> None:
        while True:
            more, worker = False, self._membership.id
            try:
                more = await self._claim(worker)
            except WorkerDead:
                self._membership.die(worker)
            except AtoneError as error:
                log.warning("looking for sagas to take over: %s", told(error), extra=about(error, worker=worker))
            except Exception as error:  # noqa: BLE001 - whatever it was, what others left must be found
                report(log, "looking for sagas to take over failed; trying again", error, worker=worker)
            if more:
                continue
            await self._pause(self._until_next())

    def _until_next(self) -> float:
        """Return how long to wait: a poll, or until the next lease of another worker ends, if that is sooner.

        Jitter keeps many workers from asking at the same moment.
        """
        usual = self._limits.poll_seconds * machine().uniform(0.7, LATEST_POLL)
        if self._next_end is None:
            return usual
        left = max(0.0, self._next_end - self._membership.time.now())
        return min(usual, left + AFTER_LEASE_SECONDS * machine().uniform(0.2, 1.0))

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wanted.wait()
        except TimeoutError:
            return
        finally:
            self._wanted.clear()

    async def _claim(self, worker: str) -> bool:
        """Take over one page; return whether there may be more at once."""
        if not self._membership.is_registered:
            await self._membership.until_registered()
            return True
        promise = self._registry.rooms.promise(PAGE)
        try:
            taken = await self._take_over(worker, promise)
        finally:
            self._registry.rooms.settle()
        return promise.total > 0 and taken >= promise.total

    async def _take_over(self, worker: str, promise: Promise) -> int:
        runners = self._registry.runners
        asked_at = self._membership.time.moment()
        claimed = await self._store.claim(
            worker,
            definitions=self._bound.keys(),
            known=runners.keys(),
            limit=promise.total,
            lease_seconds=self._limits.lease_seconds,
            limits=promise.by_name,
        )
        if worker != self._membership.id:
            return 0
        self._membership.time.observe(claimed.now, asked_at=asked_at)
        self._next_end = claimed.next_end
        self._report(claimed)
        if self._registry.telemetry is not None:
            self._registry.telemetry.looked(claimed, len(runners), LATEST_POLL * self._limits.poll_seconds)
        for key in claimed.newer:
            if key in self._registry.runners:
                self._registry.runners[key].refresh()
        await self._take(claimed.taken)
        return len(claimed.taken)

    def _report(self, claimed: Claimed) -> None:
        if claimed.unclaimable != self.unclaimable:
            self.unclaimable = claimed.unclaimable
            if claimed.unclaimable:
                lacking = "%d due sagas have a definition that is not registered here"
                log.warning(lacking, claimed.unclaimable, extra=about(worker=self._membership.id))
        if claimed.dead_letters:
            lost = "%d early events found no saga in time; see the dead letters"
            log.warning(lost, claimed.dead_letters, extra=about(worker=self._membership.id))

    async def _take(self, keys: Iterable[bytes]) -> None:
        keys = [key for key in keys if key not in self._registry.runners]
        if not keys:
            return
        worker = self._membership.id
        for key, loaded in zip(keys, await self._store.load(keys), strict=True):
            mine = loaded is not None and loaded.summary.owner == worker == self._membership.id
            if loaded is None or not mine or key in self._registry.runners:
                continue
            summary = loaded.summary
            bound = self._bound[(summary.name, summary.definition_version, summary.plan_hash)]
            runner = self._registry.adopt(bound, key)
            self._hand_over(runner, loaded, runner.resume)

    def _hand_over(self, runner: Runner, loaded: Loaded, to: Callable[[SagaState, Hot, Any], None]) -> None:
        """Fold what was read and give it to the runner; a saga that can't be folded is parked, its neighbours go on."""
        try:
            state = state_of(runner.bound.plan, loaded)
            unfit = unfit_requests(runner.bound, state)
        except Exception as broken:  # noqa: BLE001 - as said
            is_known = isinstance(broken, CorruptJournal)
            known = of_saga(runner.bound.plan, None, saga_id=loaded.summary.saga_id, worker=self._membership.id)
            report(log, f"saga {loaded.summary.saga_id}", broken, **known)
            why = str(broken) if is_known else f"internal: {describe(broken)}"
            runner.listen(loaded.summary.tenant, loaded.summary.saga_id, None)
            runner.park(why, max((row.version for row in loaded.rows), default=0))
            return
        to(state, Hot(loaded.summary.status, True, loaded.summary.wake_at), unfit)


def _has_forgotten(loaded: Loaded, runner: Runner) -> bool:
    """Whether the journal ends before what was acknowledged to this worker: another server's copy came too late."""
    acknowledged = 0 if runner.state is None else runner.state.version
    return max((row.version for row in loaded.rows), default=0) < acknowledged
