"""All sagas that this process runs: the registry, starts, claims, recovery, drain.

Owns one worker id and its lease at a time; a worker that is declared dead drops its sagas and comes back under a new id.
Recovery is always on: what another worker left, what is due, and what somebody has asked of a saga of mine. One broken
saga never stops a page. Must not decide about a saga. Made by `Orchestrator`.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from atone._core import facts
from atone._core.decide import decide
from atone._core.state import SagaState
from atone._runtime.bound import BoundSaga
from atone._runtime.committer import Committer
from atone._runtime.heartbeat import Heartbeat
from atone._runtime.ids import CommitIds, new_saga_key, new_worker_id
from atone._runtime.invoke import Invoker
from atone._runtime.reader import state_of
from atone._runtime.runner import Runner, unfit_requests
from atone._runtime.slots import Slots
from atone._runtime.wire import encode_entries
from atone.clock import Clock, StoreTime
from atone.codec import describe
from atone.errors import AtoneError, CorruptJournal, Shutdown, StoreError, WorkerDead
from atone.store import Birth, Claimed, Hot, Lease, Loaded, Store, StoredPlan, Turn, TurnResult

log = logging.getLogger("atone.worker")

PAGE = 200


@dataclass(frozen=True)
class Limits:
    """The bounds of one worker; times in seconds.

    `sagas_in_flight_max`: sagas owned at once; more are stored and wait their turn. `keep_seconds`: a shorter wait keeps
    its saga in memory. `grace_seconds`: how long a shutdown waits for calls under way. `threads_max`: plain functions
    that run at once. `cancel_grace_seconds`: how long a timed-out async call may take to end.
    """

    sagas_in_flight_max: int = 2000
    poll_seconds: float = 0.5
    lease_seconds: float = 10.0
    loop_stall_seconds: float = 30.0
    keep_seconds: float = 2.0
    grace_seconds: float = 10.0
    cancel_grace_seconds: float = 1.0
    threads_max: int = 32


class Worker:
    """Runs sagas. `on_settled` hears the state of each that became final or needs attention, `on_changed` of each turn."""

    def __init__(
        self,
        store: Store,
        sagas: Sequence[BoundSaga],
        clock: Clock,
        limits: Limits,
        *,
        on_settled: Callable[[bytes, SagaState], None],
        on_changed: Callable[[bytes, SagaState], None],
    ) -> None:
        self._store, self._clock, self._limits = store, clock, limits
        self._bound = {saga.identity: saga for saga in sagas}
        self._on_settled, self._on_changed = on_settled, on_changed
        self._time = StoreTime(clock)
        self._commit_ids = CommitIds()
        self._threads = ThreadPoolExecutor(limits.threads_max, thread_name_prefix="atone-step")
        self._tasks: set[asyncio.Task[Any]] = set()
        self._starting: set[asyncio.Future[TurnResult | None]] = set()
        self._recovery: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()
        self._quiet = asyncio.Event()
        self._registered = asyncio.Event()
        self._room_claimed = 0
        self._committer: Committer | None = None
        self._heartbeat: Heartbeat | None = None
        self.runners: dict[bytes, Runner] = {}
        self.id = ""
        self.invoker = Invoker(self._threads)
        self.threads = Slots(limits.threads_max)
        self.draining = False
        self.keep_seconds = limits.keep_seconds
        self.cancel_grace_seconds = limits.cancel_grace_seconds
        self.unclaimable = 0

    # -- life ----------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Register under a new id and begin to recover."""
        await self._register()
        self._recovery = asyncio.get_running_loop().create_task(self._recover(), name="atone-recovery")

    async def close(self) -> None:
        """Finish or hand back what is under way, retire the worker's id, and stop."""
        self.draining = True
        self._registered.set()
        if self._recovery is not None:
            self._recovery.cancel()
        for runner in list(self.runners.values()):
            runner.tell(facts.Woke())
        await self._until_quiet(self._limits.grace_seconds)
        for runner in list(self.runners.values()):
            runner.interrupt()
        await self._until_quiet(self._limits.cancel_grace_seconds)
        for runner in list(self.runners.values()):
            runner.drop()
        self.runners.clear()
        await self._retire()
        self._answer_starts()
        self._threads.shutdown(wait=False, cancel_futures=True)
        for task in list(self._tasks):
            task.cancel()

    async def _register(self) -> None:
        self.id = worker = new_worker_id()
        plans = [StoredPlan(*saga.identity, saga.plan.to_json()) for saga in self._bound.values()]
        asked_at = self._clock.monotonic()
        lease = await asyncio.to_thread(self._store.renew, worker, self._limits.lease_seconds, register=plans)
        self._time.observe(lease.now)
        self._committer = Committer(self._store, worker, partial(self._die, worker))
        self._committer.start()
        self._heartbeat = Heartbeat(
            self._store,
            worker,
            self._clock,
            lease_seconds=self._limits.lease_seconds,
            loop_stall_seconds=self._limits.loop_stall_seconds,
            on_lease=self._leased,
            on_dead=partial(self._die, worker),
        )
        self._heartbeat.started(asked_at)
        self._registered.set()

    async def _retire(self) -> None:
        committer, heartbeat = self._committer, self._heartbeat
        if committer is None or heartbeat is None:
            return
        self._committer = self._heartbeat = None
        try:
            try:
                async with asyncio.timeout(self._limits.lease_seconds):
                    await committer.close()
            finally:
                await asyncio.to_thread(heartbeat.stop)
            await asyncio.to_thread(self._store.renew, self.id, 0.0)
        except (StoreError, TimeoutError) as error:
            committer.abandon()
            log.warning("worker %s could not retire (%s); its lease ends by itself", self.id, error)

    def _leased(self, lease: Lease, answered_at: float) -> None:
        self._time.observe(lease.now, read_at=answered_at)

    def _die(self, worker: str) -> None:
        """Drop everything: somebody else owns it now. Then come back under a new id.

        Several may find out, some of them late: what is said of an earlier life is no news.
        """
        committer, heartbeat = self._committer, self._heartbeat
        if committer is None or heartbeat is None or worker != self.id:
            return
        self._committer = self._heartbeat = None
        self._registered.clear()
        # Between two lives there is no id, so an answer that was meant for this one finds nobody.
        self.id = ""
        committer.abandon()
        log.warning("worker %s was declared dead; %d sagas dropped", worker, len(self.runners))
        runners, self.runners = list(self.runners.values()), {}
        self.threads = Slots(self._limits.threads_max)
        for runner in runners:
            runner.drop()
        self._answer_starts()
        self.spawn(asyncio.to_thread(heartbeat.stop))
        if not self.draining:
            self.spawn(self._come_back())

    def _answer_starts(self) -> None:
        """Tell every start under way that nobody knows whether it was written: look, or send it again."""
        for answer in self._starting:
            if not answer.done():
                answer.set_result(None)
        self._starting.clear()

    async def _come_back(self) -> None:
        while not self.draining:
            try:
                await self._register()
            except Exception as error:  # noqa: BLE001 - without a registration nothing runs, so nothing ends the trying
                log.warning("registering again: %s", error)
                await asyncio.sleep(self._limits.poll_seconds)
            else:
                return

    async def _until_quiet(self, seconds: float) -> None:
        end = self._clock.monotonic() + seconds
        while self.runners and self._clock.monotonic() < end:
            self._quiet.clear()
            try:
                async with asyncio.timeout(end - self._clock.monotonic()):
                    await self._quiet.wait()
            except TimeoutError:
                return

    # -- what runners need ---------------------------------------------------------------------------------------

    def now(self) -> float:
        """Return the store's time."""
        return self._time.now()

    def next_commit_id(self) -> bytes:
        """Return a commit id never used before."""
        return self._commit_ids.next()

    def submit(self, turn: Turn, landed: Callable[[TurnResult], None]) -> None:
        """Write a turn with the next batch; a worker that is between two lives writes nothing."""
        if self._committer is not None:
            self._committer.submit(turn, landed)

    def may_call(self) -> bool:
        """Whether the lease still protects a call that begins now."""
        return self._heartbeat is not None and self._heartbeat.protects()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run a coroutine beside the sagas; its failure is logged."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a background task failed", exc_info=task.exception())

    async def reread(self, runner: Runner) -> None:
        """Load the saga again; one that is not this worker's any more is dropped."""
        while not runner.gone:
            try:
                loaded = (await self._store.load([runner.key]))[0]
            except StoreError as error:
                log.warning("reading saga %s again: %s", runner.key.hex(), error)
                await asyncio.sleep(self._limits.poll_seconds)
                continue
            if loaded is None or loaded.summary.owner != self.id:
                runner.drop()
                self.release(runner)
            elif self.runners.get(runner.key) is runner:  # it may have been dropped meanwhile
                self._hand_over(runner, loaded, runner.reloaded)
            return

    def changed(self, runner: Runner) -> None:
        """Tell who watches."""
        if runner.state is not None:
            self._on_changed(runner.key, runner.state)

    def release(self, runner: Runner) -> None:
        """Forget the saga; tell who waits for its end, if this is it."""
        runner.leave()
        was_full = len(self.runners) >= self._limits.sagas_in_flight_max
        if self.runners.get(runner.key) is runner:
            del self.runners[runner.key]
        if runner.state is not None:
            self._on_settled(runner.key, runner.state)
        if was_full:
            self._wanted.set()
        if not self.runners:
            self._quiet.set()

    # -- starts --------------------------------------------------------------------------------------------------

    async def start(
        self, bound: BoundSaga, tenant: str, saga_id: str, payload: bytes
    ) -> tuple[bytes, TurnResult | None]:
        """Start a saga here, or store it for later when this worker is full.

        Returns its key and what became of the write; None: the worker died meanwhile, so look whether it is there.

        Raises:
            Shutdown: The worker is closing. Nothing was written.
        """
        await self._registered.wait()
        if self.draining:
            raise Shutdown("The orchestrator is closing; start the saga with one that is open.")
        key = new_saga_key()
        fact = facts.StartRequested(tenant, saga_id, payload)
        answer: asyncio.Future[TurnResult | None] = asyncio.get_running_loop().create_future()
        self._starting.add(answer)

        def started(result: TurnResult) -> None:
            self._starting.discard(answer)
            if not answer.done():
                answer.set_result(result)

        if self._room() > 0:
            runner = self.runners[key] = Runner(self, bound, key)
            runner.begin(fact, started)
        else:
            turn = self.unowned_start(bound, tenant, saga_id, payload)
            key = turn.key
            self.submit(turn, started)
            if len(self.runners) < self._limits.sagas_in_flight_max:
                self._wanted.set()
        return key, await answer

    def _room(self) -> int:
        """Return how many sagas may begin here, beside those that a claim under way may bring."""
        return self._limits.sagas_in_flight_max - len(self.runners) - self._room_claimed

    def unowned_start(self, bound: BoundSaga, tenant: str, saga_id: str, payload: bytes) -> Turn:
        """Return the first turn of a saga that nobody runs yet: no intent, due at once."""
        fact = facts.StartRequested(tenant, saga_id, payload)
        decision = decide(bound.plan, None, fact, self.now(), may_start=False)
        plan = bound.plan
        hot = Hot(decision.saga.status.value, False, decision.wake_at)
        birth = Birth(fact.tenant, plan.name, fact.saga_id, plan.version, plan.plan_hash)
        return Turn(new_saga_key(), 1, self.next_commit_id(), encode_entries(decision.entries), hot, birth)

    def nudge(self, key: bytes | None = None) -> None:
        """Look at once at what somebody has just asked, instead of at the next poll."""
        runner = None if key is None else self.runners.get(key)
        if runner is not None:
            runner.refresh()
        else:
            self._wanted.set()

    # -- recovery ------------------------------------------------------------------------------------------------

    async def _recover(self) -> None:
        while True:
            more, worker = False, self.id
            try:
                more = await self._claim(worker)
            except WorkerDead:
                self._die(worker)
            except AtoneError as error:
                log.warning("looking for sagas to take over: %s", error)
            except Exception:
                log.exception("looking for sagas to take over failed; trying again")
            if more:
                continue
            # Jitter keeps many workers from asking at the same moment.
            await self._pause(self._limits.poll_seconds * random.uniform(0.7, 1.3))

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
        if self._committer is None:
            await self._registered.wait()
            return True
        room = self._room_claimed = max(0, min(PAGE, self._room()))
        try:
            taken = await self._take_over(worker, room)
        finally:
            self._room_claimed = 0
        return room > 0 and taken >= room

    async def _take_over(self, worker: str, room: int) -> int:
        claimed = await self._store.claim(
            worker,
            definitions=self._bound.keys(),
            known=self.runners.keys(),
            limit=room,
            lease_seconds=self._limits.lease_seconds,
        )
        if worker != self.id:
            return 0
        self._time.observe(claimed.now)
        self._report(claimed)
        for key in claimed.newer:
            if key in self.runners:
                self.runners[key].refresh()
        await self._take(claimed.taken)
        return len(claimed.taken)

    def _report(self, claimed: Claimed) -> None:
        if claimed.unclaimable != self.unclaimable:
            self.unclaimable = claimed.unclaimable
            if claimed.unclaimable:
                log.warning("%d due sagas have a definition that is not registered here", claimed.unclaimable)
        if claimed.dead_letters:
            log.warning("%d early events found no saga in time; see the dead letters", claimed.dead_letters)

    async def _take(self, keys: Iterable[bytes]) -> None:
        keys = [key for key in keys if key not in self.runners]
        if not keys:
            return
        worker = self.id
        for key, loaded in zip(keys, await self._store.load(keys), strict=True):
            if loaded is None or loaded.summary.owner != worker or worker != self.id or key in self.runners:
                continue
            summary = loaded.summary
            bound = self._bound[(summary.name, summary.definition_version, summary.plan_hash)]
            runner = self.runners[key] = Runner(self, bound, key)
            self._hand_over(runner, loaded, runner.resume)

    def _hand_over(self, runner: Runner, loaded: Loaded, to: Callable[[SagaState, Hot, Any], None]) -> None:
        """Fold what was read and give it to the runner; a saga that can't be folded is parked, its neighbours go on."""
        try:
            state = state_of(runner.bound.plan, loaded)
            unfit = unfit_requests(runner.bound, state)
        except Exception as broken:
            known = isinstance(broken, CorruptJournal)
            log.error("saga %s: %s", loaded.summary.saga_id, broken, exc_info=None if known else broken)
            why = str(broken) if known else f"internal: {describe(broken)}"
            runner.park(why, max((row.version for row in loaded.rows), default=0))
            return
        to(state, Hot(loaded.summary.status, True, loaded.summary.wake_at), unfit)
