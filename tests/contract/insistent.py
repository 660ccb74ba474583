"""A store that is asked again until its answer is definite, as the runtime does.

Owns the repeating, and what the answer must have been if the one that counted was lost: a request that stands there
under the commit id of a delivery that was never answered was written by a try of its own. It must not repeat a definite
answer. Used by the contract's runs on a PostgreSQL in trouble.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from types import TracebackType
from typing import Self, TypeVar

from atone.broker import Relayed
from atone.errors import StoreUnavailable, WorkerDead
from atone.store import (
    NO_LIMITS,
    Claimed,
    Delivered,
    Delivery,
    Lease,
    Loaded,
    Posting,
    Query,
    Store,
    StoredPlan,
    Summary,
    Turn,
    TurnResult,
)
from atone.testing.through import Through

T = TypeVar("T")
TRIES_MAX = 200


class InsistentStore(Through):
    """The port, around `inner`.

    `dead_letters` counts those in the store, past any lost answer; `stands` tells whether the row of a delivery does,
    by its commit id.
    """

    def __init__(self, inner: Store, dead_letters: Callable[[], int], stands: Callable[[bytes], bool]) -> None:
        super().__init__(inner)
        if isinstance(inner, Posting):
            self.outstanding = self._insisting(inner.outstanding)
            self.set_aside = self._insisting(inner.set_aside)
            self.post_again = self._moving(inner.post_again)
            self.drop_set_aside = self._moving(inner.drop_set_aside)
        self.repeats = 0
        self._under_way = 0
        self._dead_letters = dead_letters
        self._stands = stands
        self._answered: set[bytes] = set()

    async def _until_definite(self, call: Callable[[], Awaitable[T]]) -> tuple[T, bool]:
        """Return the answer, and whether an earlier one was lost."""
        self._under_way += 1
        try:
            return await self._repeated(call)
        finally:
            self._under_way -= 1

    def _insisting(self, look: Callable[..., Awaitable[T]]) -> Callable[..., Awaitable[T]]:
        """Return a look that is repeated; it writes nothing, so which answer was lost does not matter."""

        async def insisting(*given: object, **named: object) -> T:
            return (await self._until_definite(lambda: look(*given, **named)))[0]

        return insisting

    def _moving(self, move: Callable[[str], Awaitable[bool]]) -> Callable[[str], Awaitable[bool]]:
        """Return a move that is repeated; what was there before, and then is not, was moved by a lost try."""

        async def moving(message_id: str) -> bool:
            was_there = any(one.message.id == message_id for one in await self.set_aside())
            moved, was_lost = await self._until_definite(lambda: move(message_id))
            return moved or (was_lost and was_there)

        return moving

    async def _repeated(self, call: Callable[[], Awaitable[T]]) -> tuple[T, bool]:
        for tries in range(TRIES_MAX):
            try:
                return await call(), tries > 0
            except StoreUnavailable:
                self.repeats += 1
                await asyncio.sleep(0.002)
        raise AssertionError(f"There was no definite answer in {TRIES_MAX} tries.")

    async def __aenter__(self) -> Self:
        await self._until_definite(self.inner.__aenter__)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._under_way:  # noqa: ASYNC110 - calls under way end first, with a definite answer
            await asyncio.sleep(0.002)
        await self.inner.__aexit__(kind, error, trace)

    def renew(self, worker: str | None, lease_seconds: float, *, register: Sequence[StoredPlan] | None = None) -> Lease:
        for tries in range(TRIES_MAX):
            try:
                return self.inner.renew(worker, lease_seconds, register=register)
            except StoreUnavailable:
                self.repeats += 1
                time.sleep(0.002)
            except WorkerDead:
                if lease_seconds > 0 or tries == 0:
                    raise
                return Lease(0.0, 0.0)  # retired by the try before, whose answer was lost
        raise AssertionError(f"There was no definite answer in {TRIES_MAX} tries.")

    async def commit(self, worker: str | None, turns: Sequence[Turn]) -> Sequence[TurnResult]:
        return (await self._until_definite(lambda: self.inner.commit(worker, turns)))[0]

    async def start(self, turn: Turn, *, connection: object) -> TurnResult:
        return (await self._until_definite(lambda: self.inner.start(turn, connection=connection)))[0]

    async def load(self, keys: Sequence[bytes], *, after: int = 0, with_plan: bool = False) -> Sequence[Loaded | None]:
        return (await self._until_definite(lambda: self.inner.load(keys, after=after, with_plan=with_plan)))[0]

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
        before = self._dead_letters()
        claimed, was_lost = await self._until_definite(
            lambda: self.inner.claim(
                worker,
                definitions=definitions,
                known=known,
                limit=limit,
                lease_seconds=lease_seconds,
                limits=limits,
            )
        )
        return claimed._replace(dead_letters=self._dead_letters() - before) if was_lost else claimed

    async def deliver(self, delivery: Delivery) -> Delivered:
        answer, was_lost = await self._until_definite(lambda: self.inner.deliver(delivery))
        is_first = delivery.commit_id not in self._answered
        if was_lost and answer is Delivered.DUPLICATE and is_first and self._stands(delivery.commit_id):
            query = Query(tenant=delivery.tenant, name=delivery.name, saga_id=delivery.saga_id)
            answer = Delivered.APPENDED if await self.find(query) else Delivered.KEPT
        self._answered.add(delivery.commit_id)
        return answer

    async def find(self, query: Query) -> Sequence[Summary]:
        return (await self._until_definite(lambda: self.inner.find(query)))[0]

    async def relay(
        self, relay: str, *, published: Collection[int], refused: Mapping[int, str], limit: int, lease_seconds: float
    ) -> Relayed:
        named = {"published": published, "refused": refused, "limit": limit, "lease_seconds": lease_seconds}
        return (await self._until_definite(lambda: self.inner.relay(relay, **named)))[0]
