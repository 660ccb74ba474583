"""A store that fails as told: the port around another store, with faults by script and a record of what went through.

Owns the faults and the record; what is right is the inner store's to say. A fault is given the call that it stands
before, so it may make it, make it and lose the answer, wait, or never make it. Used by the tests of the runtime.
"""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, TypeAlias

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
from atone.testing.through import Through

Fault: TypeAlias = Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]


async def passes(call: Callable[[], Awaitable[Any]]) -> Any:
    """No fault: one call of the script that goes well."""
    return await call()


async def lost_before(call: Callable[[], Awaitable[Any]]) -> Any:
    """The call never arrives, and the caller can't know."""
    raise StoreUnavailable("the connection broke before the call")


async def lost_after(call: Callable[[], Awaitable[Any]]) -> Any:
    """The call is carried out, its answer is lost."""
    await call()
    raise StoreUnavailable("the connection broke after the call")


def held(gate: asyncio.Event, reached: asyncio.Event | None = None) -> Fault:
    """Make the call only when the gate opens; say when it stands there."""

    async def fault(call: Callable[[], Awaitable[Any]]) -> Any:
        if reached is not None:
            reached.set()
        await gate.wait()
        return await call()

    return fault


def answer_held(gate: asyncio.Event, reached: asyncio.Event | None = None) -> Fault:
    """Make the call at once, and give its answer only when the gate opens."""

    async def fault(call: Callable[[], Awaitable[Any]]) -> Any:
        answer = await call()
        if reached is not None:
            reached.set()
        await gate.wait()
        return answer

    return fault


def fails_with(error: Exception) -> Fault:
    """The call never arrives; the caller sees this error."""

    async def fault(call: Callable[[], Awaitable[Any]]) -> Any:
        raise error

    return fault


class FaultyStore(Through):
    """The port, around `inner`. Entering it again is allowed, so that a second orchestrator can use the same one."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.batches: list[list[Turn]] = []
        self.results: list[TurnResult] = []
        self.renewals: list[float] = []
        self.unplugged = False
        self.on_commit: Callable[[Sequence[Turn]], None] = lambda turns: None
        self._scripts: dict[str, deque[Fault]] = defaultdict(deque)
        self._always: dict[str, Fault] = {}
        self.failed_renewals = 0
        self._renewals_fail = threading.Event()
        self._renewal_error: Exception = StoreUnavailable("no renewal")
        self.refuses: Callable[[Turn], bool] = lambda turn: False
        # Open gates, for the threads that renew and register.
        self.renewals_pass = _opened()
        self.registrations_pass = _opened()

    # -- the script ----------------------------------------------------------------------------------------------

    def script(self, method: str, *faults: Fault) -> None:
        """Let the next calls of a method meet these faults, one each."""
        self._scripts[method].extend(faults)

    def always(self, method: str, fault: Fault | None) -> None:
        """Let every call of a method meet this fault, when its script is through; None: no more."""
        if fault is None:
            self._always.pop(method, None)
        else:
            self._always[method] = fault

    def unplug(self) -> None:
        """From now on nothing arrives and nothing is answered: to the store, this process has crashed."""
        self.unplugged = True

    def fail_renewals(self, error: Exception | None = None) -> None:
        """Let every renewal of a lease fail from now on."""
        self._renewal_error = error or self._renewal_error
        self._renewals_fail.set()

    def allow_renewals(self) -> None:
        """Let renewals through again."""
        self._renewals_fail.clear()

    @property
    def turns(self) -> list[Turn]:
        """All turns that became durable, in order."""
        return [turn for batch in self.batches for turn in batch]

    # -- the port ------------------------------------------------------------------------------------------------

    def renew(self, worker: str | None, lease_seconds: float, *, register: Sequence[StoredPlan] | None = None) -> Lease:
        if self.unplugged:
            raise StoreUnavailable("unplugged")
        gate = self.renewals_pass if register is None else self.registrations_pass
        if lease_seconds > 0 and not gate.wait(20):
            raise AssertionError("nobody opened the gate")
        if self._renewals_fail.is_set() and register is None and lease_seconds > 0:
            self.failed_renewals += 1
            raise self._renewal_error
        self.renewals.append(lease_seconds)
        return self.inner.renew(worker, lease_seconds, register=register)

    async def commit(self, worker: str | None, turns: Sequence[Turn]) -> Sequence[TurnResult]:
        async def call() -> Sequence[TurnResult]:
            fine = iter(await self.inner.commit(worker, [turn for turn in turns if not self.refuses(turn)]))
            results = [TurnResult.REFUSED if self.refuses(turn) else next(fine) for turn in turns]
            applied = [turn for turn, result in zip(turns, results, strict=True) if result is TurnResult.APPLIED]
            seen = {turn.commit_id for turn in self.turns}
            self.batches.append([turn for turn in applied if turn.commit_id not in seen])
            self.results += results
            self.on_commit(applied)
            return results

        return await self._through("commit", call)

    async def start(self, turn: Turn, *, connection: object) -> TurnResult:
        return await self._through("start", lambda: self.inner.start(turn, connection=connection))

    async def load(self, keys: Sequence[bytes], *, after: int = 0, with_plan: bool = False) -> Sequence[Loaded | None]:
        return await self._through("load", lambda: self.inner.load(keys, after=after, with_plan=with_plan))

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
        return await self._through(
            "claim",
            lambda: self.inner.claim(
                worker,
                definitions=definitions,
                known=known,
                limit=limit,
                lease_seconds=lease_seconds,
                limits=limits,
            ),
        )

    async def deliver(self, delivery: Delivery) -> Delivered:
        return await self._through("deliver", lambda: self.inner.deliver(delivery))

    async def find(self, query: Query) -> Sequence[Summary]:
        return await self._through("find", lambda: self.inner.find(query))

    async def relay(
        self, relay: str, *, published: Collection[int], refused: Mapping[int, str], limit: int, lease_seconds: float
    ) -> Relayed:
        named = {"published": published, "refused": refused, "limit": limit, "lease_seconds": lease_seconds}
        return await self._through("relay", lambda: self.inner.relay(relay, **named))

    async def _through(self, method: str, call: Callable[[], Awaitable[Any]]) -> Any:
        if self.unplugged:
            raise StoreUnavailable("unplugged")
        script = self._scripts[method]
        fault = script.popleft() if script else self._always.get(method, passes)
        return await fault(call)


def _opened() -> threading.Event:
    gate = threading.Event()
    gate.set()
    return gate
