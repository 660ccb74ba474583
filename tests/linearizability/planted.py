"""Stores that lie to their clients, one way each: what the checker of histories has to find.

Owns the lies; each is a memory store with one answer or one write changed. Used by the tests, and by
`python -m tests.linearizability --planted`.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from atone.store import FINAL_STATUSES, Delivered, Delivery, Loaded, Query, Summary, Turn, TurnResult
from atone.stores.memory import MemoryStore


class Lying(MemoryStore):
    """A memory store with a die of its own, always the same."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_volatile=True, **options)
        self.chance = Random(1)


class StaleReads(Lying):
    """A replica that lags behind: now and then a saga is shown as it was."""

    def __init__(self) -> None:
        super().__init__()
        self._before: dict[bytes, Loaded] = {}

    async def load(self, keys: Sequence[bytes], *, after: int = 0, with_plan: bool = False) -> Sequence[Loaded | None]:
        loaded = list(await super().load(keys, after=after, with_plan=with_plan))
        for at, one in enumerate(loaded):
            if one is not None and with_plan and after == 0:
                old = self._before.setdefault(one.summary.key, one)
                if self.chance.random() < 0.3:
                    loaded[at] = old
                else:
                    self._before[one.summary.key] = one
        return loaded


class EventsComeTwice(Lying):
    """The id of an event is not remembered once the saga exists."""

    async def deliver(self, delivery: Delivery) -> Delivered:
        for saga in self._sagas.values():
            saga.requests.discard(delivery.request_id)
        return await super().deliver(delivery)


class CancelsGetLost(Lying):
    """A cancel is acknowledged before it is written, and then it is not."""

    async def deliver(self, delivery: Delivery) -> Delivered:
        key = self._keys.get((delivery.tenant, delivery.name, delivery.saga_id))
        is_cancel = delivery.keep_seconds is None
        if is_cancel and key is not None and self._sagas[key].status not in FINAL_STATUSES:
            return Delivered.APPENDED
        return await super().deliver(delivery)


class StartsHappenTwice(Lying):
    """A name is no obstacle: whoever starts the saga again begins it anew."""

    def _insert(self, worker: str | None, turn: Turn, birth: Any, now: float) -> TurnResult:
        self._keys.pop((birth.tenant, birth.name, birth.saga_id), None)
        return super()._insert(worker, turn, birth, now)


class FinalSagasChange(Lying):
    """A saga that is over takes requests as any other."""

    async def deliver(self, delivery: Delivery) -> Delivered:
        key = self._keys.get((delivery.tenant, delivery.name, delivery.saga_id))
        if key is None or self._sagas[key].status not in FINAL_STATUSES:
            return await super().deliver(delivery)
        status, self._sagas[key].status = self._sagas[key].status, "running"
        answer = await super().deliver(delivery)
        self._sagas[key].status = status
        return answer


class EndsAreForgotten(Lying):
    """Now and then a saga that is over is shown one row short of its end."""

    async def load(self, keys: Sequence[bytes], *, after: int = 0, with_plan: bool = False) -> Sequence[Loaded | None]:
        loaded = list(await super().load(keys, after=after, with_plan=with_plan))
        for at, one in enumerate(loaded):
            if one is not None and with_plan and one.summary.status in FINAL_STATUSES and self.chance.random() < 0.3:
                loaded[at] = one._replace(summary=one.summary._replace(status="running"), rows=one.rows[:-1])
        return loaded


class EarlyEventsAreNotKnown(Lying):
    """An event that came before its saga is kept again each time that it comes."""

    async def deliver(self, delivery: Delivery) -> Delivered:
        for early in self._early.values():
            early.expires_at = 0.0
        return await super().deliver(delivery)


class SagasVanish(Lying):
    """Now and then a saga is not found by its name."""

    async def find(self, query: Query) -> Sequence[Summary]:
        found = await super().find(query)
        return [] if query.saga_id is not None and self.chance.random() < 0.1 else found


class CancelsAreOvertaken(Lying):
    """A cancel lands at the end of the journal, and the owner may write past it: its version is given twice."""

    def _append(self, worker: str | None, turn: Turn, now: float) -> TurnResult:
        saga = self._sagas.get(turn.key)
        if saga is not None and turn.birth is None and not self._stands(saga, turn) and saga.owner == worker:
            asked = list(saga.rows[turn.version - 1 :])
            del saga.rows[turn.version - 1 :]
            result = super()._append(worker, turn, now)
            saga.rows += [row._replace(version=len(saga.rows) + at) for at, row in enumerate(asked, start=1)]
            return result
        return super()._append(worker, turn, now)


PLANTED = tuple(Lying.__subclasses__())
