"""How long one call takes on a store with a history, beside the same call on an empty one.

Owns the calls that are timed (a start, a claim with work and without, looks and lists) and their order: each is made
on the one store, then on the other, so that a busy moment of the machine hits both. Must not fill a store. Used by
`scale`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from itertools import count
from statistics import median
from time import perf_counter, time
from typing import Any, TypeAlias
from uuid import uuid4

from atone import Orchestrator, SagaStatus
from atone.orchestrator import Limits
from atone.store import Birth, Hot, Turn, TurnResult
from atone.stores.postgres import PostgresStore
from benchmarks.load import percentile
from benchmarks.order_saga import AN_ORDER, PlaceOrder, saga_id, the_saga
from benchmarks.recording import Recording

Timed: TypeAlias = Callable[[], Awaitable[float]]

PAGE = 100
LIST_LIMIT = 20  # as many as there are on both sides when lists are timed
FIRST_CLIENT = 7000
UNFINISHED = [SagaStatus.PENDING, SagaStatus.RUNNING, SagaStatus.COMPENSATING, SagaStatus.NEEDS_ATTENTION]
_numbers = count()


class Side:
    """One store, open, with an orchestrator for what users call and a worker of its own for claims."""

    def __init__(self, orchestrator: Orchestrator, store: PostgresStore, recording: Recording) -> None:
        self._orchestrator, self._store, self._recording = orchestrator, store, recording
        self._worker = f"latency-{os.getpid()}-{uuid4().hex}"
        plan = recording.plan
        # A definition of its own, so that the orchestrator's recovery leaves alone what this claims.
        self._definition = ("Claimed", plan.version, plan.plan_hash)
        store.renew(self._worker, 3600.0, register=())

    async def start(self) -> float:
        """Start a saga; its end is waited for, and not timed."""
        name = saga_id(FIRST_CLIENT, next(_numbers))
        begun = perf_counter()
        handle = await self._orchestrator.start(PlaceOrder, AN_ORDER, saga_id=name)
        took = perf_counter() - begun
        self._last = name
        await handle.outcome(timeout=30)
        return took

    async def look(self) -> float:
        """Read the saga that was started last."""
        begun = perf_counter()
        await self._orchestrator.outcome(PlaceOrder, self._last, timeout=0)
        return perf_counter() - begun

    def listing(self, status: SagaStatus | Sequence[SagaStatus] | None) -> Timed:
        """Return a call that lists sagas of a status."""

        async def timed() -> float:
            begun = perf_counter()
            await self._orchestrator.list(status=status, limit=LIST_LIMIT)
            return perf_counter() - begun

        return timed

    async def claim_nothing(self) -> float:
        """Claim where nothing is due, as every worker does twice a second."""
        return (await self._claim(0))[0]

    async def claim_page(self) -> float:
        """Claim a page of sagas that are due, and finish them; only the claim is timed."""
        births = [self._birth() for _ in range(PAGE)]
        assert await self._store.commit(self._worker, births) == [TurnResult.APPLIED] * PAGE
        took, taken = await self._claim(PAGE)
        assert sorted(taken) == sorted(turn.key for turn in births), "another page was claimed than was due"
        over = Hot("completed", False, None)
        ends = [Turn(key, 2, os.urandom(16), b"[]", over) for key in taken]
        assert await self._store.commit(self._worker, ends) == [TurnResult.APPLIED] * PAGE
        return took

    async def _claim(self, wanted: int) -> tuple[float, tuple[bytes, ...]]:
        begun = perf_counter()
        claimed = await self._store.claim(
            self._worker, definitions=[self._definition], known=(), limit=PAGE, lease_seconds=3600.0
        )
        took = perf_counter() - begun
        assert len(claimed.taken) == wanted, f"{len(claimed.taken)} were taken instead of {wanted}"
        return took, claimed.taken

    def _birth(self) -> Turn:
        name, version, plan_hash = self._definition
        key = int(time() * 1000).to_bytes(6, "big") + os.urandom(10)
        birth = Birth(self._recording.tenant, name, key.hex(), version, plan_hash)
        return Turn(key, 1, os.urandom(16), self._recording.turns[0].entries, Hot("pending", False, 0.0), birth)

    def calls(self) -> dict[str, Timed]:
        """Return what is timed, by name."""
        return {
            "start": self.start,
            "look": self.look,
            "list": self.listing(None),
            "list_unfinished": self.listing(UNFINISHED),
            "list_in_need": self.listing(SagaStatus.NEEDS_ATTENTION),
            "list_failed": self.listing(SagaStatus.FAILED),
            "list_compensated": self.listing(SagaStatus.COMPENSATED),
            "claim_nothing": self.claim_nothing,
            "claim_page": self.claim_page,
        }


async def compare(empty: str, full: str, recording: Recording, calls: int) -> list[dict[str, Any]]:
    """Time each call on both databases in turn; return a row of figures for each."""
    # What is claimed here nobody else can run, which every other worker says.
    logging.getLogger("atone.worker").setLevel(logging.ERROR)
    async with AsyncExitStack() as stack:
        sides: list[dict[str, Timed]] = []
        for dsn in (empty, full):
            store = await stack.enter_async_context(PostgresStore(dsn))
            opened = Orchestrator(PostgresStore(dsn), sagas=[the_saga("order")], limits=Limits())
            orchestrator = await stack.enter_async_context(opened)
            sides.append(Side(orchestrator, store, recording).calls())
        return [await _compared(name, sides, calls) for name in sides[0]]


async def _compared(name: str, sides: Sequence[dict[str, Timed]], calls: int) -> dict[str, Any]:
    took: tuple[list[float], list[float]] = [], []
    for number in range(calls + 5):
        for at in (0, 1) if number % 2 else (1, 0):
            seconds = await sides[at][name]()
            if number >= 5:  # the first ones plan their statements
                took[at].append(seconds)
    empty, full = sorted(took[0]), sorted(took[1])
    return {
        "call": name,
        "calls": calls,
        # The fastest tenth is what neighbours on the machine disturb least.
        "p10_ms": round(percentile(full, 0.10) * 1000, 2),
        "empty_p10_ms": round(percentile(empty, 0.10) * 1000, 2),
        "p50_ms": round(median(full) * 1000, 2),
        "p99_ms": round(percentile(full, 0.99) * 1000, 2),
        "empty_p50_ms": round(median(empty) * 1000, 2),
        "empty_p99_ms": round(percentile(empty, 0.99) * 1000, 2),
        "ratio": round(median(full) / median(empty), 2),
        "ratio_p10": round(percentile(full, 0.10) / percentile(empty, 0.10), 2),
    }
