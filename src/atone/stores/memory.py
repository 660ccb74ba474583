"""The memory store: the port in its shortest correct form, for tests and for comparing other stores with.

Owns everything it keeps in plain dictionaries under one lock; nothing survives the process, so it must be asked for by
name. It must not know what entries mean. Called through the port only.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from types import TracebackType
from typing import Self

from atone.broker import Relayed
from atone.errors import StoreError, VolatileStore, WorkerDead
from atone.store import (
    FINAL_STATUSES,
    NO_LIMITS,
    Birth,
    Census,
    Claimed,
    Count,
    Delivered,
    Delivery,
    Lease,
    Loaded,
    Outstanding,
    Query,
    Row,
    SetAside,
    StoredPlan,
    Summary,
    Turn,
    TurnResult,
)
from atone.stores._memory_outbox import MemoryOutbox
from atone.stores._memory_views import MemoryViews
from atone.stores._messages import is_too_large

_Identity = tuple[str, str, str]
_Definition = tuple[str, int, str]


@dataclass(slots=True)
class _Worker:
    lease_until: float
    dead: bool = False


@dataclass(slots=True)
class _Saga:
    birth: Birth
    status: str
    owner: str | None
    wake_at: float | None
    created_at: float
    rows: list[Row] = field(default_factory=list[Row])
    requests: set[str] = field(default_factory=set[str])
    # The newest row is a request: its owner may not have seen it yet.
    asked: bool = False

    @property
    def definition(self) -> _Definition:
        return self.birth.name, self.birth.definition_version, self.birth.plan_hash


@dataclass(slots=True)
class _Early:
    delivery: Delivery
    expires_at: float


class MemoryStore:
    """Keep sagas in this process's memory.

    `clock` returns epoch seconds; a test passes its own to move time by hand. What is kept is forgotten with the object
    and not when it is closed, so that a test can open it again. A row of more than `row_bytes_max` is refused.
    """

    def __init__(
        self,
        *,
        allow_volatile: bool = False,
        clock: Callable[[], float] = time.time,
        row_bytes_max: int = 64 * 1024 * 1024,
    ) -> None:
        if not allow_volatile:
            raise VolatileStore(
                "The memory store forgets every saga when the process ends. Use sqlite:///file.db, "
                "or pass allow_volatile=True in a test."
            )
        self._clock = clock
        self._row_bytes_max = row_bytes_max
        self._lock = threading.RLock()
        self._workers: dict[str, _Worker] = {}
        self._plans: dict[_Definition, str] = {}
        self._sagas: dict[bytes, _Saga] = {}
        self._keys: dict[_Identity, bytes] = {}
        self._early: dict[tuple[_Identity, str], _Early] = {}
        self._dead_letters: list[Delivery] = []
        self._outbox = MemoryOutbox()
        self._claims = count()
        self._entered = False
        self.views = MemoryViews(self._lock, self._plans, _fits)

    async def __aenter__(self) -> Self:
        if self._entered:
            raise StoreError("The memory store is already open; give each orchestrator its own store object.")
        self._entered = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered = False

    def renew(self, worker: str | None, lease_seconds: float, *, register: Sequence[StoredPlan] | None = None) -> Lease:
        with self._lock:
            now = self._clock()
            if worker is not None:
                if register is not None:
                    self._workers.setdefault(worker, _Worker(now))
                found = self._workers.get(worker)
                if found is None or found.dead:
                    raise _dead(worker)
                found.lease_until, found.dead = now + lease_seconds, lease_seconds <= 0
            self._plans.update({(plan.name, plan.version, plan.plan_hash): plan.plan for plan in register or ()})
            return Lease(now, now if worker is None else now + lease_seconds)

    async def commit(self, worker: str | None, turns: Sequence[Turn]) -> Sequence[TurnResult]:
        with self._lock:
            now = self._clock() if worker is None else self._alive(worker)
            return [self._append(worker, turn, now) for turn in turns]

    async def start(self, turn: Turn, *, connection: object) -> TurnResult:
        raise TypeError(
            f"The memory store has no transactions that a {type(connection).__name__} could be in. "
            "Start without connection=, or use a store in a database."
        )

    async def load(self, keys: Sequence[bytes], *, after: int = 0, with_plan: bool = False) -> Sequence[Loaded | None]:
        with self._lock:
            return [self._load(key, after, with_plan) if key in self._sagas else None for key in keys]

    async def claim(
        self,
        worker: str,
        *,
        definitions: Collection[_Definition],
        known: Collection[bytes],
        limit: int,
        lease_seconds: float,
        limits: Mapping[str, int] = NO_LIMITS,
    ) -> Claimed:
        with self._lock:
            now = self._alive(worker)
            for other in self._workers.values():
                other.dead = other.dead or other.lease_until <= now
            mine = [key for key, saga in self._unfinished() if saga.owner == worker]
            taken = [key for key in mine if key not in known][:limit]
            due = [key for key, saga in self._unfinished() if self._is_due(saga, now)]
            queues = [[key for key in due if self._sagas[key].definition == one] for one in sorted(definitions)]
            allowed = self._allowed(taken, self._in_turns(queues), limits)
            for key in islice(allowed, max(0, limit - len(taken))):
                self._sagas[key].owner = worker
                taken.append(key)
            if taken:
                self._workers[worker].lease_until = max(self._workers[worker].lease_until, now + lease_seconds)
            newer = [key for key in mine if key in known and self._sagas[key].asked]
            unclaimable = len(due) - sum(map(len, queues))
            return Claimed(tuple(taken), tuple(newer), unclaimable, self._give_up_early(now), now)

    async def deliver(self, delivery: Delivery) -> Delivered:
        with self._lock:
            now = self._clock()
            identity = (delivery.tenant, delivery.name, delivery.saga_id)
            if identity not in self._keys:
                return self._keep(identity, delivery, now)
            saga = self._sagas[self._keys[identity]]
            if delivery.request_id in saga.requests:
                return Delivered.DUPLICATE
            if saga.status in FINAL_STATUSES:
                return Delivered.FINAL
            _ask(saga, delivery, now)
            return Delivered.APPENDED

    async def find(self, query: Query) -> Sequence[Summary]:
        with self._lock:
            keys = sorted(self._sagas if query.keys is None else set(query.keys) & self._sagas.keys())
            fitting = (one for one in map(self._summary, keys) if _fits(one, query))
            return list(islice(fitting, query.limit))

    async def relay(
        self, relay: str, *, published: Collection[int], refused: Mapping[int, str], limit: int, lease_seconds: float
    ) -> Relayed:
        with self._lock:
            now = self._clock()
            self._outbox.settle(published, refused, now)
            return self._outbox.claim(relay, limit, now, now + lease_seconds)

    async def outstanding(self) -> Outstanding:
        """Count what waits to be published and what was set aside."""
        with self._lock:
            return self._outbox.outstanding(self._clock())

    async def set_aside(self, *, limit: int = 100) -> Sequence[SetAside]:
        """Return what was set aside, oldest first."""
        with self._lock:
            return self._outbox.set_aside()[:limit]

    async def post_again(self, message_id: str) -> bool:
        """Have a message that was set aside wait once more; see `atone.store.Posting`."""
        with self._lock:
            return self._outbox.post_again(message_id, self._clock())

    async def drop_set_aside(self, message_id: str) -> bool:
        """Forget a message that was set aside; see `atone.store.Posting`."""
        with self._lock:
            return self._outbox.drop(message_id)

    async def census(self) -> Census:
        """Count the unfinished sagas by name and status."""
        with self._lock:
            return Census(self._clock(), _counts(saga for _, saga in self._unfinished()))

    def _alive(self, worker: str) -> float:
        now = self._clock()
        found = self._workers.get(worker)
        if found is None or found.dead or found.lease_until <= now:
            raise _dead(worker)
        return now

    def _append(self, worker: str | None, turn: Turn, now: float) -> TurnResult:
        saga = self._sagas.get(turn.key)
        if saga is not None and self._stands(saga, turn):
            return TurnResult.APPLIED
        if is_too_large(turn, self._row_bytes_max):
            return TurnResult.REFUSED
        if turn.birth is not None:
            return self._insert(worker, turn, turn.birth, now)
        if saga is None or worker is None or saga.owner != worker:
            return TurnResult.NOT_MINE
        if turn.version != len(saga.rows) + 1:
            return TurnResult.CONFLICT
        saga.rows.append(Row(turn.version, now, turn.commit_id, turn.entries))
        self._outbox.post(turn.messages, now)
        saga.asked = False
        if turn.hot is not None:
            saga.status, saga.wake_at = turn.hot.status, turn.hot.wake_at
            saga.owner = worker if turn.hot.owned else None
        return TurnResult.APPLIED

    def _stands(self, saga: _Saga, turn: Turn) -> bool:
        return any((row.version, row.commit_id) == (turn.version, turn.commit_id) for row in saga.rows)

    def _insert(self, worker: str | None, turn: Turn, birth: Birth, now: float) -> TurnResult:
        identity = (birth.tenant, birth.name, birth.saga_id)
        if identity in self._keys:
            return TurnResult.TAKEN
        if turn.key in self._sagas or turn.hot is None:
            return TurnResult.CONFLICT
        wake_at = now if worker is None and turn.hot.wake_at is None else turn.hot.wake_at
        saga = _Saga(birth, turn.hot.status, worker if turn.hot.owned else None, wake_at, now)
        saga.rows.append(Row(turn.version, now, turn.commit_id, turn.entries))
        self._keys[identity] = turn.key
        self._sagas[turn.key] = saga
        self._outbox.post(turn.messages, now)
        for early in [early for (whose, _), early in self._early.items() if whose == identity]:
            if early.expires_at > now and saga.status not in FINAL_STATUSES:
                _ask(saga, early.delivery, now)
                del self._early[identity, early.delivery.request_id]
        return TurnResult.APPLIED

    def _keep(self, identity: _Identity, delivery: Delivery, now: float) -> Delivered:
        if delivery.keep_seconds is None:
            return Delivered.UNKNOWN
        kept = self._early.get((identity, delivery.request_id))
        if kept is not None and kept.expires_at > now:
            return Delivered.DUPLICATE
        self._early[identity, delivery.request_id] = _Early(delivery, now + delivery.keep_seconds)
        return Delivered.KEPT

    def _give_up_early(self, now: float) -> int:
        expired = [place for place, early in self._early.items() if early.expires_at <= now]
        self._dead_letters += [self._early.pop(place).delivery for place in expired]
        return len(expired)

    def _unfinished(self) -> Iterator[tuple[bytes, _Saga]]:
        return ((key, saga) for key, saga in sorted(self._sagas.items()) if saga.status not in FINAL_STATUSES)

    def _is_due(self, saga: _Saga, now: float) -> bool:
        if saga.owner is None:
            return saga.wake_at is not None and saga.wake_at <= now
        return saga.owner not in self._workers or self._workers[saga.owner].dead

    def _allowed(self, taken: Sequence[bytes], keys: Iterator[bytes], limits: Mapping[str, int]) -> Iterator[bytes]:
        """Leave out what would be too many of one name, beside those that are taken anyway."""
        seen = Counter(self._sagas[key].birth.name for key in taken)
        for key in keys:
            name = self._sagas[key].birth.name
            seen[name] += 1
            if seen[name] <= limits.get(name, seen[name]):
                yield key

    def _in_turns(self, queues: Sequence[Sequence[bytes]]) -> Iterator[bytes]:
        """Yield the first of each queue, then the second of each, and so on; another queue begins each time."""
        filled = [queue for queue in queues if queue]
        first = next(self._claims) % max(len(filled), 1)
        for at in range(max(map(len, filled), default=0)):
            yield from (queue[at] for queue in filled[first:] + filled[:first] if at < len(queue))

    def _load(self, key: bytes, after: int, with_plan: bool) -> Loaded:
        saga = self._sagas[key]
        plan = self._plans.get(saga.definition) if with_plan else None
        return Loaded(self._summary(key), tuple(saga.rows[after:]), plan)

    def _summary(self, key: bytes) -> Summary:
        saga = self._sagas[key]
        return Summary(key, *saga.birth, saga.status, saga.owner, saga.wake_at, saga.created_at)


def _counts(sagas: Iterable[_Saga]) -> tuple[Count, ...]:
    made: dict[tuple[str, str], list[float]] = {}
    for saga in sagas:
        made.setdefault((saga.birth.name, saga.status), []).append(saga.created_at)
    return tuple(Count(*what, len(times), min(times)) for what, times in sorted(made.items()))


def _ask(saga: _Saga, delivery: Delivery, now: float) -> None:
    saga.rows.append(Row(len(saga.rows) + 1, now, delivery.commit_id, delivery.entries))
    saga.requests.add(delivery.request_id)
    saga.asked = True
    if saga.owner is None:
        saga.wake_at = now


def _fits(one: Summary, query: Query) -> bool:
    return (
        (query.tenant is None or one.tenant == query.tenant)
        and (query.name is None or one.name == query.name)
        and (query.saga_id is None or one.saga_id == query.saga_id)
        and (query.statuses is None or one.status in query.statuses)
        and (query.definition_version is None or one.definition_version == query.definition_version)
        and (query.other_hash_than is None or one.plan_hash != query.other_hash_than)
        and (query.after is None or one.key > query.after)
    )


def _dead(worker: str) -> WorkerDead:
    return WorkerDead(
        f"Worker {worker} has no lease any more; nothing was written. Drop its sagas and register under a new id."
    )
