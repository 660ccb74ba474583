"""A store that passes everything on to another one: what a test, a measurement or a fault overrides a method of.

Owns the whole port, and what a store may have beside it: a wrapper that forgot `on_hint` would turn the hints off, and
nobody would see it. Must not change an answer. Called by Atone's own tests and benchmarks, and by anyone who wraps one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from types import TracebackType
from typing import Self

from atone.broker import Relayed
from atone.store import (
    NO_LIMITS,
    Census,
    Claimed,
    Counting,
    Delivered,
    Delivery,
    Hint,
    Hinting,
    Lease,
    Loaded,
    Outstanding,
    Posting,
    Query,
    SetAside,
    Store,
    StoredPlan,
    Summary,
    Turn,
    TurnResult,
)


class Through:
    """The port, around `inner`; `on_hint`, `census` and what `Posting` has are there if `inner` has them."""

    # Set on the object and not in the class, so that whoever asks finds them only where they are.
    on_hint: Callable[[Callable[[Hint], None]], None]
    census: Callable[[], Awaitable[Census]]
    outstanding: Callable[[], Awaitable[Outstanding]]
    set_aside: Callable[..., Awaitable[Sequence[SetAside]]]
    post_again: Callable[[str], Awaitable[bool]]
    drop_set_aside: Callable[[str], Awaitable[bool]]

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        if isinstance(inner, Hinting):
            self.on_hint = inner.on_hint
        if isinstance(inner, Counting):
            self.census = inner.census
        if isinstance(inner, Posting):
            self.outstanding, self.set_aside = inner.outstanding, inner.set_aside
            self.post_again, self.drop_set_aside = inner.post_again, inner.drop_set_aside

    async def __aenter__(self) -> Self:
        await self.inner.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.inner.__aexit__(kind, error, trace)

    def renew(self, worker: str | None, lease_seconds: float, *, register: Sequence[StoredPlan] | None = None) -> Lease:
        """See `Store`."""
        return self.inner.renew(worker, lease_seconds, register=register)

    async def commit(self, worker: str | None, turns: Sequence[Turn]) -> Sequence[TurnResult]:
        """See `Store`."""
        return await self.inner.commit(worker, turns)

    async def start(self, turn: Turn, *, connection: object) -> TurnResult:
        """See `Store`."""
        return await self.inner.start(turn, connection=connection)

    async def load(self, keys: Sequence[bytes], *, after: int = 0, with_plan: bool = False) -> Sequence[Loaded | None]:
        """See `Store`."""
        return await self.inner.load(keys, after=after, with_plan=with_plan)

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
        return await self.inner.claim(
            worker, definitions=definitions, known=known, limit=limit, lease_seconds=lease_seconds, limits=limits
        )

    async def deliver(self, delivery: Delivery) -> Delivered:
        """See `Store`."""
        return await self.inner.deliver(delivery)

    async def find(self, query: Query) -> Sequence[Summary]:
        """See `Store`."""
        return await self.inner.find(query)

    async def relay(
        self, relay: str, *, published: Collection[int], refused: Mapping[int, str], limit: int, lease_seconds: float
    ) -> Relayed:
        """See `Store`."""
        return await self.inner.relay(
            relay, published=published, refused=refused, limit=limit, lease_seconds=lease_seconds
        )
