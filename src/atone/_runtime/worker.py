"""All sagas that this process runs: the registry, starts, drain.

Owns the runners and what they need of each other: threads, the shared writer, room. `membership` keeps the worker's id
and lease, `recovery` brings what others left. Must not decide about a saga. Made by `Orchestrator`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from atone._core import facts
from atone._core.state import SagaState
from atone._runtime.bound import BoundSaga
from atone._runtime.caution import Caution
from atone._runtime.counting import keep_counting, warn_of_messages
from atone._runtime.deadlines import Deadlines
from atone._runtime.ids import CommitIds, SagaKeys
from atone._runtime.invoke import Invoker
from atone._runtime.limits import Limits
from atone._runtime.logs import about, report
from atone._runtime.membership import Membership
from atone._runtime.messaging import Messaging
from atone._runtime.outcomes import Outcomes
from atone._runtime.outgoing import Sending
from atone._runtime.recovery import Recovery
from atone._runtime.rooms import Rooms
from atone._runtime.runner import Runner
from atone._runtime.slots import Slots
from atone._runtime.starter import unowned_start
from atone._runtime.starts import Answer, Starts
from atone._runtime.telemetry import Telemetry
from atone.clock import Clock
from atone.errors import Shutdown
from atone.machine import machine
from atone.store import Store, StoredPlan, Turn, TurnResult

log = logging.getLogger("atone.worker")


class Worker:
    """Runs sagas.

    `on_settled` hears the state of each that became final or needs attention, `on_changed` of each turn.
    """

    def __init__(
        self,
        store: Store,
        sagas: Sequence[BoundSaga],
        clock: Clock,
        limits: Limits,
        *,
        on_settled: Callable[[bytes, SagaState], None],
        on_changed: Callable[[bytes, SagaState], None],
        telemetry: Telemetry | None = None,
        sending: Sending | None = None,
        messaging: Messaging | None = None,
    ) -> None:
        self.sending, self._messaging = sending, messaging
        self._clock, self._limits = clock, limits
        self._on_settled = on_settled
        self.on_changed = on_changed
        self.telemetry, self._store = telemetry, store
        self._new_key = SagaKeys().next
        self._threads = machine().threads(limits.threads_max, "atone-step")
        self._tasks: set[asyncio.Task[Any]] = set()
        self._starts = Starts(limits.starts_waiting_max)
        self._quiet = asyncio.Event()
        self.runners: dict[bytes, Runner] = {}
        self.invoker = Invoker(self._threads)
        self.threads, self.caution = Slots(limits.threads_max), Caution()
        self.rooms = Rooms(limits)
        self.deadlines = Deadlines()
        self.draining = False
        self.keep_seconds = limits.keep_seconds
        self.cancel_grace_seconds = limits.cancel_grace_seconds
        plans = [StoredPlan(*saga.identity, saga.plan.to_json()) for saga in sagas]
        self.membership = Membership(
            store, plans, clock, limits, on_death=self._dropped, spawn=self.spawn, telemetry=telemetry
        )
        bound = {saga.identity: saga for saga in sagas}
        self.recovery = Recovery(store, self, self.membership, bound, limits)
        self.submit = self.membership.submit
        self.may_call = self.membership.may_call
        self.now = self.membership.time.now
        self.next_commit_id = CommitIds().next
        self.reread = self.recovery.reread

    @property
    def id(self) -> str:
        """The id of this life."""
        return self.membership.id

    @property
    def is_registered(self) -> bool:
        """Whether there is a life to write in now."""
        return self.membership.is_registered

    async def open(self) -> None:
        """Register under a new id and begin to recover."""
        await self.membership.register()
        self.recovery.start()
        if self.telemetry is not None:
            self.spawn(keep_counting(self._store, self.telemetry))
        if self._messaging is None:
            self.spawn(warn_of_messages(self._store))

    async def close(self) -> None:
        """Finish or hand back what is under way, retire the worker's id, and stop."""
        self.draining = True
        if self.runners:  # said only now: from here on no call begins here any more
            log.info("draining; sagas under way: %d", len(self.runners))
        self.membership.leave()
        self.recovery.stop()
        for runner in list(self.runners.values()):
            runner.tell(facts.Woke())
        await self._until_quiet(self._limits.grace_seconds)
        for runner in list(self.runners.values()):
            runner.interrupt()
        await self._until_quiet(self._limits.cancel_grace_seconds)
        for runner in list(self.runners.values()):
            runner.drop()
        self.runners.clear()
        self.rooms.clear()
        await self.membership.retire()
        self._starts.answer_all()
        self._threads.shutdown()
        self.deadlines.close()
        for task in list(self._tasks):
            task.cancel()

    async def start(self, bound: BoundSaga, fact: facts.StartRequested) -> tuple[bytes, TurnResult | None]:
        """Start a saga here, or store it for later when this worker is full.

        Returns its key and what became of the write; None: the worker died meanwhile, so look whether it is there.

        Raises:
            Shutdown: The worker is closing. Nothing was written.
            Overloaded: Too many starts wait for the store. Nothing was written.
        """
        await self.membership.until_registered()
        if self.draining:
            raise Shutdown("The orchestrator is closing; start the saga with one that is open.")
        answer = self._starts.enter()
        try:
            self._begin(bound, fact, answer)
            return answer.key, await answer.future
        finally:
            answer.leave()

    def run_through(self, bound: BoundSaga, fact: facts.StartRequested, outcomes: Outcomes) -> Answer | None:
        """Start a saga whose end is awaited too: one future for both, so that nobody is woken in between.

        The answer is the state in which the saga settles, or the same as of `start` if it was not written. Who waits
        for it calls `leave` then. None: it can't be started at once.
        """
        if self.draining or not self.membership.is_registered:
            return None
        answer = self._starts.enter(outcomes)
        try:
            self._begin(bound, fact, answer)
        except BaseException:
            answer.leave()
            raise
        return answer

    def _begin(self, bound: BoundSaga, fact: facts.StartRequested, answer: Answer) -> None:
        """Write a first turn, and have the answer hear of it."""
        if not self.rooms.has(bound.plan.name):
            turn = unowned_start(bound, fact, self._new_key(), self.now(), self.next_commit_id(), self.sending)
            answer.key = turn.key
            self.submit(turn, answer.set)
            if not self.rooms.is_full(bound.plan.name):
                self.recovery.wake()
            return
        runner = self.adopt(bound, self._new_key())
        answer.key = runner.key
        try:
            runner.begin(fact, answer.set)
        except BaseException:
            self.release(runner)
            raise

    async def unowned_start(self, bound: BoundSaga, fact: facts.StartRequested) -> Turn:
        """Return the first turn of a saga that nobody runs yet: no intent, due at once."""
        return unowned_start(bound, fact, self._new_key(), self.now(), self.next_commit_id(), self.sending)

    def nudge(self, key: bytes | None = None) -> None:
        """Look at once at what somebody has just asked, instead of at the next poll."""
        runner = None if key is None else self.runners.get(key)
        if runner is not None:
            runner.refresh()
        else:
            self.recovery.wake()

    def posted(self) -> None:
        """Have what was written into the outbox published at once, instead of at the next poll."""
        if self._messaging is not None:
            self._messaging.nudge()

    def hinted(self) -> None:
        """Look at once at what another process has just written, instead of at the next poll."""
        self.recovery.wake()

    # -- the registry --------------------------------------------------------------------------------------------

    def adopt(self, bound: BoundSaga, key: bytes) -> Runner:
        """Put a new runner into the registry, before anything of it is awaited."""
        runner = self.runners[key] = Runner(self, bound, key)
        self.rooms.take(bound.plan.name)
        return runner

    def release(self, runner: Runner) -> None:
        """Forget the saga; tell who waits for its end, if this is it."""
        runner.leave()
        name = runner.bound.plan.name
        was_full = self.rooms.is_full(name)
        if self.runners.get(runner.key) is runner:
            del self.runners[runner.key]
            self.rooms.give(name)
        if runner.state is not None:
            self._on_settled(runner.key, runner.state)
        if was_full:
            self.recovery.wake()
        if not self.runners:
            self._quiet.set()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run a coroutine beside the sagas; its failure is logged."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            report(log, "a background task failed", error, worker=self.membership.id)

    def _dropped(self, worker: str) -> None:
        """This life is over, and with it every saga of it: they are somebody else's now."""
        dropped = len(self.runners)
        log.warning("worker %s was declared dead; %d sagas dropped", worker, dropped, extra=about(worker=worker))
        if self.telemetry is not None:
            self.telemetry.lease_lost(len(self.runners))
        runners, self.runners = list(self.runners.values()), {}
        self.rooms.clear()
        self.threads, self.caution = Slots(self._limits.threads_max), Caution()
        for runner in runners:
            runner.drop()
        self._starts.answer_all()
        self._quiet.set()

    async def _until_quiet(self, seconds: float) -> None:
        end = self._clock.monotonic() + seconds
        while self.runners and self._clock.monotonic() < end:
            self._quiet.clear()
            try:
                async with asyncio.timeout(end - self._clock.monotonic()):
                    await self._quiet.wait()
            except TimeoutError:
                return
