"""Waiting for a saga to be settled, and reading where it stands: what a handle needs of the store.

Owns the errors of a wait: out of time, not committed, damaged. Must not steer a saga. Shared by `Orchestrator` and all
its handles.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import asynccontextmanager, suppress

from atone._core.plan import Plan
from atone._core.state import SagaState, SagaStatus
from atone._runtime.arguments import seconds_of
from atone._runtime.bound import BoundSaga
from atone._runtime.outcomes import Outcomes, is_settled
from atone._runtime.reader import read
from atone._runtime.views import outcome_of
from atone.definition import Seconds
from atone.errors import CorruptJournal, OutcomeTimeout, Shutdown, StoreUnavailable, UnknownSaga
from atone.outcome import NeedsAttention, Outcome
from atone.store import Query, Store

_IN_NEED = frozenset({SagaStatus.NEEDS_ATTENTION.value})


class End:
    """When a wait ends, for all of its parts; None: never."""

    def __init__(self, seconds: float | None) -> None:
        self._at = None if seconds is None else asyncio.get_running_loop().time() + seconds

    def left(self) -> float | None:
        """Return how many seconds are left; they may be below zero."""
        return None if self._at is None else self._at - asyncio.get_running_loop().time()

    @asynccontextmanager
    async def reached_is(self, told: str) -> AsyncGenerator[None, None]:
        """Cut the block off at the end, and raise OutcomeTimeout with this text."""
        if self._at is None:  # most waits have no end, and need no timer's frame
            yield
            return
        scope = asyncio.timeout_at(self._at)
        try:
            async with scope:
                yield
        except TimeoutError:
            if not scope.expired():
                raise
            raise OutcomeTimeout(told) from None


class Waiting:
    """`local` tells which sagas run in this process and settle themselves."""

    def __init__(self, store: Store, local: Callable[[], Collection[bytes]], poll_seconds: float) -> None:
        self._store, self._local, self._poll_seconds = store, local, poll_seconds
        self._outcomes: Outcomes | None = None

    async def state(self, key: bytes) -> SagaState:
        """Return where a saga stands, as the store has it.

        Raises:
            Shutdown: The orchestrator is closed.
        """
        self._open()
        return (await read(self._store, key)).state

    async def settled(self, key: bytes, timeout: Seconds | None) -> SagaState:
        """Wait until the saga is final or needs attention; with no time left, look once.

        Raises:
            OutcomeTimeout: `timeout` ran out; the saga goes on.
            Shutdown: The orchestrator is closed.
        """
        outcomes, seconds = self._open(), seconds_of("timeout", timeout)
        if seconds is None:
            return await outcomes.expect(key)
        told = f"The saga was not over after {max(seconds, 0.0):.3g} s; it goes on. Ask again later."
        if seconds <= 0:
            state = await self.state(key)
            if is_settled(state):
                return state
            raise OutcomeTimeout(told)
        async with End(seconds).reached_is(told):
            return await outcomes.expect(key)

    async def outcome(self, bound: BoundSaga, plan: Plan, key: bytes, timeout: Seconds | None) -> Outcome:
        """Wait as `settled` does, and return how the saga ended; of one that can't be read, that it needs attention."""
        try:
            state = await self.settled(key, timeout)
        except CorruptJournal as damage:
            return await self.outcome_of_damaged(key, damage)
        return outcome_of(bound, plan, state)

    @property
    def outcomes(self) -> Outcomes:
        """Who waits in this process.

        Raises:
            Shutdown: The orchestrator is closed.
        """
        return self._open()

    def heard(self, key: bytes, state: SagaState) -> None:
        """Tell who waits for a saga that has just been let go, if it is settled."""
        if is_settled(state) and self._outcomes is not None:
            self._outcomes.settle(key, state)

    def hinted(self) -> None:
        """Look at once for sagas that other processes may have settled, instead of at the next poll."""
        if self._outcomes is not None:
            self._outcomes.look()

    async def refuse_uncommitted(self, key: bytes) -> None:
        """Raise UnknownSaga if the transaction that started the saga is not committed."""
        self._open()
        if not await self._store.find(Query(keys=(key,))):
            raise UnknownSaga(
                "The transaction that started this saga is not committed, and nothing runs before it is. "
                "Commit it, then wait for the outcome."
            )

    async def refuse_closed_store(self) -> None:
        """Raise StoreClosed if somebody has closed the store under this orchestrator; any other trouble may pass."""
        with suppress(StoreUnavailable):
            await self._store.find(Query(keys=()))

    async def outcome_of_damaged(self, key: bytes, damage: CorruptJournal) -> NeedsAttention:
        """Return that a saga was parked because it can't be read; raise the damage of one that needs nobody."""
        if await self._store.find(Query(keys=(key,), statuses=_IN_NEED)):
            return NeedsAttention("", str(damage))
        raise damage

    def _open(self) -> Outcomes:
        if self._outcomes is None:
            raise Shutdown("The orchestrator is not open; use it inside `async with Orchestrator(...)`.")
        return self._outcomes

    def open(self) -> None:
        """Let outcomes be waited for, in the event loop that runs now."""
        self._outcomes = Outcomes(self._store, self.state, self._local, self._poll_seconds)

    def close(self) -> None:
        """Tell everybody who waits that nobody will answer here any more; the sagas are not concerned."""
        outcomes, self._outcomes = self._outcomes, None
        if outcomes is not None:
            outcomes.close(Shutdown("The orchestrator was closed; the saga goes on. Ask again from one that is open."))
