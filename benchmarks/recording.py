"""What Atone writes for one saga, recorded from a real run: the rows that the floor has to write as well.

Owns the store wrapper that counts and keeps turns, and the form in which a recording is handed to another process. Must
not change what passes through. Used by `throughput` on both sides.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

import msgspec

from atone import Orchestrator
from atone.store import (
    NO_LIMITS,
    Census,
    Claimed,
    Counting,
    Delivered,
    Delivery,
    Hot,
    Lease,
    Loaded,
    Query,
    Store,
    StoredPlan,
    Summary,
    Turn,
    TurnResult,
)
from atone.stores.sqlite import SqliteStore
from benchmarks.order_saga import AN_ORDER, PlaceOrder, saga_id, the_saga


class RecordedTurn(msgspec.Struct):
    """One journal row, and the hot row's columns if this turn wrote them."""

    entries: bytes
    hot: Hot | None


class Recording(msgspec.Struct):
    """One saga's turns in order; the first one bears it. `worker` is the id of the owner, for its length."""

    tenant: str
    name: str
    worker: str
    plan: StoredPlan
    turns: list[RecordedTurn]


class WatchedStore:
    """A store that counts the turns and batches of another one, and keeps the turns if asked to."""

    def __init__(self, inner: Store, *, keep: bool = False) -> None:
        self._inner = inner
        self._keep = keep
        self.batches = 0
        self.turns = 0
        self.worker = ""
        self.plans: Sequence[StoredPlan] = ()
        self.kept: list[Turn] = []

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._inner.__aexit__(kind, error, trace)

    def renew(self, worker: str | None, lease_seconds: float, *, register: Sequence[StoredPlan] | None = None) -> Lease:
        if worker is not None and register is not None:
            self.worker, self.plans = worker, register
        return self._inner.renew(worker, lease_seconds, register=register)

    async def commit(self, worker: str | None, turns: Sequence[Turn]) -> Sequence[TurnResult]:
        self.batches += 1
        self.turns += len(turns)
        if self._keep:
            self.kept += turns
        return await self._inner.commit(worker, turns)

    async def start(self, turn: Turn, *, connection: object) -> TurnResult:
        return await self._inner.start(turn, connection=connection)

    async def load(self, keys: Sequence[bytes], *, after: int = 0, with_plan: bool = False) -> Sequence[Loaded | None]:
        return await self._inner.load(keys, after=after, with_plan=with_plan)

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
        return await self._inner.claim(
            worker, definitions=definitions, known=known, limit=limit, lease_seconds=lease_seconds, limits=limits
        )

    async def deliver(self, delivery: Delivery) -> Delivered:
        return await self._inner.deliver(delivery)

    async def find(self, query: Query) -> Sequence[Summary]:
        return await self._inner.find(query)

    async def census(self) -> Census:
        assert isinstance(self._inner, Counting), "stores that are measured can count"
        return await self._inner.census()


async def record(workload: str) -> Recording:
    """Run one saga of the workload on a file of its own and return what was written for it."""
    with TemporaryDirectory(prefix="atone-recording-") as folder:
        store = WatchedStore(SqliteStore(Path(folder) / "recording.db"), keep=True)
        async with Orchestrator(store, sagas=[the_saga(workload)]) as orchestrator:
            await orchestrator.execute(PlaceOrder, AN_ORDER, saga_id=saga_id(0, 0))
    birth = store.kept[0].birth
    if birth is None or any(turn.version != at for at, turn in enumerate(store.kept, start=1)):
        raise AssertionError(f"these are not the turns of one saga: {store.kept}")
    turns = [RecordedTurn(turn.entries, turn.hot) for turn in store.kept]
    return Recording(birth.tenant, birth.name, store.worker, store.plans[0], turns)
