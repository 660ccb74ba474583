"""Starts without a worker: a process that stores sagas for the fleet to run, and runs none itself.

Owns the writes of such starts, in batches like a worker's, and the first turn of a saga that nobody runs yet. Has no
lease, claims nothing and calls no step. Made by `Orchestrator(runs=False)`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial

from atone._core import facts
from atone._core.decide import decide
from atone._runtime.aside import aside
from atone._runtime.bound import BoundSaga
from atone._runtime.committer import Committer
from atone._runtime.ids import CommitIds, SagaKeys
from atone._runtime.limits import Limits
from atone._runtime.logs import about, told
from atone._runtime.outcomes import Outcomes
from atone._runtime.outgoing import Sending, messages_of
from atone._runtime.starts import Starts
from atone._runtime.telemetry import Telemetry
from atone._runtime.wire import encode_entries
from atone.clock import Clock, StoreTime
from atone.errors import Shutdown, StoreUnavailable
from atone.store import Birth, Hot, Store, StoredPlan, Turn, TurnResult

log = logging.getLogger("atone.starter")


class Starter:
    """Stands where the worker stands, in an orchestrator that runs nothing."""

    def __init__(
        self,
        store: Store,
        sagas: Sequence[BoundSaga],
        clock: Clock,
        limits: Limits,
        telemetry: Telemetry | None = None,
        sending: Sending | None = None,
    ) -> None:
        self._sending = sending
        self._store, self._clock, self._limits = store, clock, limits
        self._plans = [StoredPlan(*saga.identity, saga.plan.to_json()) for saga in sagas]
        self._commit_ids, self._new_key = CommitIds(), SagaKeys().next
        self._telemetry = telemetry
        self._starts = Starts(limits.starts_waiting_max)
        self._time = StoreTime(clock)
        self._committer: Committer | None = None
        # As often as a worker's lease tells it the time.
        self._look_seconds = limits.lease_seconds / 3
        self._looked_at = 0.0
        self._look: asyncio.Task[None] | None = None
        self.now = self._time.now
        self.runners: dict[bytes, object] = {}

    @property
    def is_registered(self) -> bool:
        """Whether a start would be written now."""
        return self._committer is not None

    async def open(self) -> None:
        """Leave the plans in the store, for whoever looks at the sagas before a worker has registered them."""
        await self._tell_time(self._plans)
        self._committer = Committer(self._store, None, self._ended, telemetry=self._telemetry)
        self._committer.start()

    async def close(self) -> None:
        """Write what is queued, then stop; for no longer than a lease would last."""
        committer, self._committer = self._committer, None
        if committer is not None:
            try:
                async with asyncio.timeout(self._limits.lease_seconds):
                    await committer.close()
            except TimeoutError:
                committer.abandon()
        self._starts.answer_all()

    async def start(self, bound: BoundSaga, fact: facts.StartRequested) -> tuple[bytes, TurnResult | None]:
        """Store a saga for the fleet; see `Worker.start`."""
        self._open()
        answer = self._starts.enter()
        try:
            turn = await self._turn(bound, fact)
            self._open().submit(turn, answer.set)
            return turn.key, await answer.future
        finally:
            answer.leave()

    def run_through(self, bound: BoundSaga, fact: facts.StartRequested, outcomes: Outcomes) -> None:
        """Nothing is run here; see `Worker.run_through`."""

    async def unowned_start(self, bound: BoundSaga, fact: facts.StartRequested) -> Turn:
        """Return the first turn of a saga for the fleet; when it is due is the store's to say: at once.

        Its deadline is written in the store's time, so that is looked at again before, if the last look is old.

        Raises:
            StoreUnavailable: The store's clock can't be read now.
        """
        if self._clock.monotonic() - self._looked_at >= self._look_seconds:
            await self._look_again()
        turn = unowned_start(bound, fact, self._new_key(), self.now(), self._commit_ids.next(), self._sending)
        assert turn.hot is not None, "a first turn says how the saga stands"
        return turn._replace(hot=turn.hot._replace(wake_at=None))

    def _open(self) -> Committer:
        if self._committer is None:
            raise Shutdown("The orchestrator is closing; start the saga with one that is open.")
        return self._committer

    async def _turn(self, bound: BoundSaga, fact: facts.StartRequested) -> Turn:
        """Return a first turn; while the store is away, wait for it as the turn itself would."""
        while True:
            try:
                return await self.unowned_start(bound, fact)
            except StoreUnavailable:
                await asyncio.sleep(min(0.5, self._look_seconds))
            self._open()

    async def _look_again(self) -> None:
        """Have the time told; who comes while somebody asks shares the answer."""
        look = self._look
        if look is None or look.done():
            look = self._look = asyncio.get_running_loop().create_task(self._tell_time(), name="atone-clock")
            look.add_done_callback(_heard)
        await asyncio.wait({look})  # one start that is cut off must not take the others' answer along
        look.result()

    async def _tell_time(self, register: Sequence[StoredPlan] | None = None) -> None:
        asked_at = self._clock.monotonic()
        told_now = (await aside(partial(self._store.renew, None, 0.0, register=register))).now
        self._time.observe(told_now, asked_at=asked_at)
        self._looked_at = asked_at

    def nudge(self, key: bytes | None = None) -> None:
        """Nothing to look at: the saga is another process's."""

    def hinted(self) -> None:
        """Nothing to claim."""

    def _ended(self) -> None:
        """The store was closed under us: nobody will know what became of the starts under way."""
        self._committer = None
        self._starts.answer_all()


def _heard(look: asyncio.Task[None]) -> None:
    """Say once that the clock could not be read, however many starts wait for it."""
    error = None if look.cancelled() else look.exception()
    if error is not None:
        log.warning("reading the store's clock before a start: %s", told(error), extra=about(error))


def unowned_start(
    bound: BoundSaga,
    fact: facts.StartRequested,
    key: bytes,
    now: float,
    commit_id: bytes,
    sending: Sending | None = None,
) -> Turn:
    """Return the first turn of a saga that nobody runs yet: no intent, due at once."""
    decision = decide(bound.plan, None, fact, now, may_start=False)
    plan = bound.plan
    hot = Hot(decision.saga.status.value, False, decision.wake_at)
    birth = Birth(fact.tenant, plan.name, fact.saga_id, plan.version, plan.plan_hash)
    messages = () if sending is None else messages_of(sending, bound, key, None, decision, now)
    return Turn(key, 1, commit_id, encode_entries(decision.entries), hot, birth, messages)
