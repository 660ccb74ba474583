"""What Atone writes for one saga, recorded from a real run: the rows that the floor has to write as well.

Owns the store wrapper that counts and keeps turns, and the form in which a recording is handed to another process. Must
not change what passes through. Used by `throughput` on both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from atone import Orchestrator
from atone.store import Hot, Lease, Store, StoredPlan, Turn, TurnResult
from atone.stores.sqlite import SqliteStore
from atone.testing.through import Through
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


class WatchedStore(Through):
    """A store that counts the turns and batches of another one, and keeps the turns if asked to."""

    def __init__(self, inner: Store, *, keep: bool = False) -> None:
        super().__init__(inner)
        self._keep = keep
        self.batches = 0
        self.turns = 0
        self.worker = ""
        self.plans: Sequence[StoredPlan] = ()
        self.kept: list[Turn] = []

    def renew(self, worker: str | None, lease_seconds: float, *, register: Sequence[StoredPlan] | None = None) -> Lease:
        """Keep who it is, and pass it on."""
        if worker is not None and register is not None:
            self.worker, self.plans = worker, register
        return super().renew(worker, lease_seconds, register=register)

    async def commit(self, worker: str | None, turns: Sequence[Turn]) -> Sequence[TurnResult]:
        """Count the turns, and pass them on."""
        self.batches += 1
        self.turns += len(turns)
        if self._keep:
            self.kept += turns
        return await self.inner.commit(worker, turns)


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
