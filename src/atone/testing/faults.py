"""A store that fails as stores do: calls that never arrive, answers that get lost, writes that land late, outages.

Owns what goes wrong between a process and its store; what is right is the inner store's to say. A call that was sent is
the network's: it is carried out even if its sender is cancelled, frozen or killed meanwhile. Each call is a crash point
before it is sent and after it is answered. Called by simulations and by `verify`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from contextvars import copy_context
from enum import StrEnum
from random import Random
from types import TracebackType
from typing import Any, Self, TypeVar

from atone.broker import Relayed
from atone.errors import StoreUnavailable
from atone.store import (
    NO_LIMITS,
    Claimed,
    Delivered,
    Delivery,
    Lease,
    Loaded,
    Query,
    Store,
    StoredPlan,
    Summary,
    Turn,
    TurnResult,
)
from atone.testing._process import PROCESS
from atone.testing.simulate import point
from atone.testing.through import Through

__all__ = ["Fate", "Faults", "FaultyStore"]

T = TypeVar("T")


class Fate(StrEnum):
    """What becomes of one call.

    PASSES: nothing special. UNSENT: it never arrives, and the caller can't know. UNHEARD: it is carried out, and its
    answer is lost. LATE: the caller is told that the store did not answer, and it is carried out some time after that.
    SLOW: it takes its time to arrive. SLOW_ANSWER: the answer takes its time.
    """

    PASSES = "passes"
    UNSENT = "is lost"
    UNHEARD = "is carried out and its answer is lost"
    LATE = "is given up, and carried out later"
    SLOW = "is slow to arrive"
    SLOW_ANSWER = "is slow to be answered"


class Faults:
    """How often what goes wrong, as shares from 0 to 1, drawn from `chance`; several stores may share one.

    `away` takes the store away from everybody until it is set back. `slow_seconds` and `late_seconds` are the longest;
    `travel_seconds` is the longest way of every call and of every answer.
    Override `draw` to say of each call what becomes of it.
    """

    def __init__(
        self,
        chance: Random,
        *,
        unsent: float = 0.0,
        unheard: float = 0.0,
        late: float = 0.0,
        slow: float = 0.0,
        slow_seconds: float = 2.0,
        late_seconds: float = 5.0,
        travel_seconds: float = 0.0,
    ) -> None:
        self.chance = chance
        self.travel_seconds = travel_seconds
        self.slow_seconds, self.late_seconds = slow_seconds, late_seconds
        self.away = False
        self._fates = (Fate.UNSENT, Fate.UNHEARD, Fate.LATE, Fate.SLOW, Fate.SLOW_ANSWER)
        self._shares: tuple[float, ...] = (unsent, unheard, late, slow / 2, slow / 2)

    def draw(self, method: str) -> Fate:
        """Return what becomes of a call of this method of the port."""
        drawn = self.chance.random()
        for fate, share in zip(self._fates, self._shares, strict=True):
            if drawn < share:
                return fate
            drawn -= share
        return Fate.PASSES

    def stop(self) -> None:
        """Let nothing go wrong from now on; what is on its way still lands late."""
        self.away = False
        self._shares = (0.0,) * len(self._fates)

    def seconds(self, most: float) -> float:
        """Return how long one thing takes, of at most so long."""
        return most * self.chance.random() ** 2


class FaultyStore(Through):
    """The port around `inner`, which is open already: one for each process, all around the same store."""

    def __init__(self, inner: Store, faults: Faults) -> None:
        super().__init__(inner)
        self.faults = faults

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def renew(self, worker: str | None, lease_seconds: float, *, register: Sequence[StoredPlan] | None = None) -> Lease:
        """See `Store`."""
        point("store.renew is called")
        fate = self._fate("renew")
        if fate is Fate.UNSENT:
            raise _no_answer("renew")
        if fate is Fate.LATE:
            late = self.faults.seconds(self.faults.late_seconds)
            context = copy_context()
            context.run(PROCESS.set, None)
            asyncio.get_running_loop().call_later(
                late, _swallowed, lambda: self.inner.renew(worker, lease_seconds, register=register), context=context
            )
            raise _no_answer("renew")
        lease = self.inner.renew(worker, lease_seconds, register=register)
        point("store.renew has answered")
        if fate is Fate.UNHEARD:
            raise _no_answer("renew")
        return lease

    async def commit(self, worker: str | None, turns: Sequence[Turn]) -> Sequence[TurnResult]:
        """See `Store`."""
        return await self._call("commit", lambda: self.inner.commit(worker, turns))

    async def start(self, turn: Turn, *, connection: object) -> TurnResult:
        """See `Store`."""
        return await self._call("start", lambda: self.inner.start(turn, connection=connection))

    async def load(self, keys: Sequence[bytes], *, after: int = 0, with_plan: bool = False) -> Sequence[Loaded | None]:
        """See `Store`."""
        return await self._call("load", lambda: self.inner.load(keys, after=after, with_plan=with_plan))

    async def claim(
        self,
        worker: str,
        *,
        definitions: Collection[tuple[str, int, str]],
        known: Collection[bytes],
        limit: int,
        lease_seconds: float,
        limits: Mapping[str, int] = NO_LIMITS,
    ) -> Claimed:
        """See `Store`."""
        sent: dict[str, Any] = {"definitions": definitions, "known": tuple(known), "limit": limit, "limits": limits}
        return await self._call("claim", lambda: self.inner.claim(worker, lease_seconds=lease_seconds, **sent))

    async def deliver(self, delivery: Delivery) -> Delivered:
        """See `Store`."""
        return await self._call("deliver", lambda: self.inner.deliver(delivery))

    async def find(self, query: Query) -> Sequence[Summary]:
        """See `Store`."""
        return await self._call("find", lambda: self.inner.find(query))

    async def relay(
        self, relay: str, *, published: Collection[int], refused: Mapping[int, str], limit: int, lease_seconds: float
    ) -> Relayed:
        """See `Store`."""
        sent: dict[str, Any] = {"published": published, "refused": refused, "limit": limit}
        return await self._call("relay", lambda: self.inner.relay(relay, lease_seconds=lease_seconds, **sent))

    async def _call(self, method: str, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        point(f"store.{method} is called")
        fate = self._fate(method)
        if fate is Fate.UNSENT:
            await asyncio.sleep(self.faults.seconds(0.1))
            raise _no_answer(method)
        carried_out = self._send(fate, call)
        if fate is Fate.LATE:
            await asyncio.sleep(self.faults.seconds(0.1))
            raise _no_answer(method)
        answer = await asyncio.shield(carried_out)
        if self.faults.travel_seconds > 0:
            await asyncio.sleep(self.faults.seconds(self.faults.travel_seconds))
        if fate is Fate.SLOW_ANSWER:
            await asyncio.sleep(self.faults.seconds(self.faults.slow_seconds))
        point(f"store.{method} has answered")
        if fate is Fate.UNHEARD:
            raise _no_answer(method)
        return answer

    def _fate(self, method: str) -> Fate:
        fate = Fate.UNSENT if self.faults.away else self.faults.draw(method)
        if fate is not Fate.PASSES:
            point(f"store.{method} {fate}")
        return fate

    def _send(self, fate: Fate, call: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Future[T]:
        """Have the call carried out by nobody's process; what it does there can't be taken back."""
        late = self.faults.seconds(self.faults.travel_seconds) if self.faults.travel_seconds > 0 else 0.0
        if fate is Fate.SLOW:
            late = self.faults.seconds(self.faults.slow_seconds)
        elif fate is Fate.LATE:
            late = self.faults.seconds(self.faults.late_seconds)
        context = copy_context()
        context.run(PROCESS.set, None)
        task = asyncio.get_running_loop().create_task(_carried_out(late, call), context=context)
        task.add_done_callback(_heard, context=context)
        return task


async def _carried_out(late_seconds: float, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
    if late_seconds > 0:
        await asyncio.sleep(late_seconds)
    return await call()


def _heard(task: asyncio.Task[Any]) -> None:
    """Whoever has sent it may be gone; then nobody is told that it was refused."""
    if not task.cancelled():
        task.exception()


def _swallowed(call: Callable[[], object]) -> None:
    try:
        call()
    except Exception:  # noqa: BLE001, S110 - nobody is there to be told
        pass


def _no_answer(method: str) -> StoreUnavailable:
    return StoreUnavailable(f"The store did not answer to {method}; nobody knows what became of it. Send it again.")
