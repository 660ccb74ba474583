"""Choreographed sagas in memory: `atone.store.Views` in its shortest correct form.

Owns plain dictionaries under the store's lock; nothing survives the process. Must not know what an entry means. Called
through `MemoryStore.views`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from itertools import islice

from atone._runtime.ids import SagaKeys
from atone.store import VIEW_OVER_STATUSES, Loaded, Marked, Observed, Query, Row, Summary

Plans = Mapping[tuple[str, int, str], str]


class MemoryViews:
    """See `atone.store.Views`."""

    def __init__(self, lock: threading.RLock, plans: Plans, fits: Callable[[Summary, Query], bool]) -> None:
        self._lock, self._plans, self._fits = lock, plans, fits
        self._ids = SagaKeys()
        self._keys: dict[tuple[str, str, str], bytes] = {}
        self._hot: dict[bytes, tuple[Summary, int]] = {}
        self._events: dict[bytes, dict[str, Row]] = {}

    async def observe(self, events: Sequence[Observed]) -> Sequence[bytes]:
        with self._lock:
            return [self._append(event) for event in events]

    async def mark(self, marks: Sequence[Marked]) -> None:
        with self._lock:
            for key, rows, status, wake_at in marks:
                hot = self._hot.get(key)
                if hot is not None and rows >= hot[1]:
                    self._hot[key] = hot[0]._replace(status=status, wake_at=wake_at), rows

    async def load(self, keys: Sequence[bytes]) -> Sequence[Loaded | None]:
        with self._lock:
            return [self._load(key) if key in self._hot else None for key in keys]

    async def find(self, query: Query) -> Sequence[Summary]:
        with self._lock:
            keys = sorted(self._hot if query.keys is None else set(query.keys) & self._hot.keys())
            fitting = (self._hot[key][0] for key in keys if self._fits(self._hot[key][0], query))
            return list(islice(fitting, query.limit))

    async def due(self, name: str, now: float, *, limit: int = 100) -> Sequence[bytes]:
        with self._lock:
            mine = [one for one, _ in self._hot.values() if one.name == name]
            due = sorted((one.wake_at, one.key) for one in mine if one.wake_at is not None and one.wake_at <= now)
            return [key for _, key in due][:limit]

    async def purge(self, name: str, before: float, *, limit: int = 1000) -> int:
        with self._lock:
            over = [one for one, _ in self._hot.values() if one.name == name and one.status in VIEW_OVER_STATUSES]
            old = [one for one in over if all(row.at < before for row in self._events[one.key].values())][:limit]
            for one in old:
                del self._hot[one.key], self._events[one.key], self._keys[one.tenant, one.name, one.saga_id]
            return len(old)

    def _append(self, event: Observed) -> bytes:
        identity = (event.tenant, event.name, event.saga_id)
        if identity not in self._keys:
            key = self._keys[identity] = self._ids.next()
            born = Summary(key, *identity, event.version, event.plan_hash, "pending", None, None, event.at)
            self._hot[key], self._events[key] = (born, 0), {}
        key = self._keys[identity]
        events = self._events[key]
        if event.id not in events:
            events[event.id] = Row(len(events) + 1, event.at, event.id.encode(), event.entry)
        return key

    def _load(self, key: bytes) -> Loaded:
        summary = self._hot[key][0]
        plan = self._plans.get((summary.name, summary.definition_version, summary.plan_hash))
        return Loaded(summary, tuple(self._events[key].values()), plan)
