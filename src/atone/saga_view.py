"""The saga view at work: it hears all events of a choreography and keeps what they tell in the store.

Owns one group of the broker, the batches in which events are written, and the look at what is overdue. Must not act on
a saga: it publishes nothing and calls nobody. Any number of processes may run it; what comes twice is kept once. Run by
services, or beside an orchestrator, on the store that `atone list` and `atone show` are given.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from atone._choreography.seen import fold, kept_of, sight
from atone._choreography.whole import Choreography
from atone._core.event_view import GRACE_SECONDS, View
from atone._messaging import headers
from atone._messaging.events import from_message
from atone._participant.consumer import Aside, Consumer, Done, Ending
from atone._participant.sending import notes_topic
from atone.broker import Broker, Delivery
from atone.brokers import open_broker
from atone.errors import MessageError, OutcomeTimeout, StoreError, UnknownSaga
from atone.store import FINAL_STATUSES, Loaded, Marked, Observed, Query, Store, StoredPlan, Viewing
from atone.stores import open_store

log = logging.getLogger("atone.view")

_BATCH_MAX = 200
_LOOK_SECONDS = 5.0
_ASK_SECONDS = 0.1


class SagaView:
    """Keep what a choreography's events tell: `async with SagaView(orders, store="postgresql://...", broker="nats://...")`.

    `store` is a URL, or a store that is open and stays yours; `broker` the same. Overdue sagas are found every
    `look_seconds`, and `grace_seconds` after their time.

    Raises:
        StoreError: The store keeps no choreographed sagas.
    """

    def __init__(
        self,
        choreography: Choreography,
        *,
        store: str | Store,
        broker: str | Broker,
        in_flight: int = 200,
        look_seconds: float = _LOOK_SECONDS,
        grace_seconds: float = GRACE_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._map = choreography.event_map
        self._given_store, self._given_broker = store, broker
        self._in_flight, self._look_seconds, self._clock = in_flight, look_seconds, clock
        self._grace_seconds = grace_seconds
        self._stack = AsyncExitStack()
        self._store: Store | None = None
        self._waiting: list[tuple[Observed, asyncio.Future[None]]] = []
        self._wanted = asyncio.Event()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            store, broker = self._given_store, self._given_broker
            if isinstance(store, str):
                store = await stack.enter_async_context(open_store(store))
            if not isinstance(store, Viewing):
                raise StoreError(
                    f"{type(store).__qualname__} keeps no choreographed sagas. Take one of Atone's stores."
                )
            self._views = store.views
            self._store = store
            plan = StoredPlan(self._map.name, self._map.version, self._map.map_hash, self._map.to_json())
            await asyncio.to_thread(store.renew, None, 0.0, register=[plan])
            if isinstance(broker, str):
                broker = await stack.enter_async_context(open_broker(broker))
            for work in (self._write_all(), self._look_all()):
                stack.push_async_callback(_ended, asyncio.create_task(work))
            topics = [*self._map.by_name, notes_topic(self._map.name)]
            consumer = Consumer(broker, f"{self._map.name}.view", topics, self._take, in_flight=self._in_flight)
            await consumer.start()
            stack.push_async_callback(consumer.close, grace_seconds=5.0)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def of(self, saga_id: str, *, tenant: str = "default") -> View:
        """Return one saga as its events tell it.

        Raises:
            UnknownSaga: No event of it was heard.
        """
        seen = await self._seen(saga_id, tenant)
        if seen is None:
            raise UnknownSaga(f"No event of {self._map.name} saga {saga_id!r} was heard. See whether its services run.")
        return seen

    async def _seen(self, saga_id: str, tenant: str) -> View | None:
        found = await self._views.find(Query(tenant=tenant, name=self._map.name, saga_id=saga_id, limit=1))
        loaded = (await self._views.load([found[0].key]))[0] if found else None
        return None if loaded is None else sight(loaded, self._clock(), self._grace_seconds).view

    async def ended(self, saga_id: str, *, timeout: float | None = None, tenant: str = "default") -> View:
        """Wait until a saga is over or needs a person, and return it; `timeout` in seconds.

        Raises:
            OutcomeTimeout: It goes on. Ask again.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            seen = await self._seen(saga_id, tenant)
            if seen is not None and seen.is_settled:
                return seen
            if until is not None and time.monotonic() >= until:
                raise OutcomeTimeout(
                    f"{self._map.name} saga {saga_id!r} goes on; ask again, or look at what is missing."
                )
            await asyncio.sleep(_ASK_SECONDS)

    async def purge(self, *, older_than_days: float, limit: int = 1000) -> int:
        """Forget what is completed or compensated and was not heard of for so long; return how many, at most `limit`.

        Never one that goes on or needs a person. Keep them for longer than the broker may repeat itself: an event that
        comes after that is all that is known of its saga.

        Raises:
            ValueError: `older_than_days` is below 1.
        """
        if older_than_days < 1:
            raise ValueError("older_than_days= is at least 1: a purged saga whose events come again is a new one.")
        return await self._views.purge(self._map.name, self._clock() - older_than_days * 86_400, limit=limit)

    # -- taking in

    async def _take(self, delivery: Delivery) -> Ending:
        try:
            event = from_message(delivery.message, self._map.name)
            if event is None or event.kind not in {headers.EVENT, headers.LIFECYCLE}:
                return Done()
            entry = kept_of(event)
        except MessageError as wrong:
            return Aside(f"It tells the view nothing: {wrong}")
        observed = Observed(
            event.tenant,
            event.choreography,
            self._map.version,
            self._map.map_hash,
            event.saga_id,
            event.id,
            event.at or self._clock(),
            entry,
        )
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((observed, done))
        self._wanted.set()
        await done
        return Done()

    async def _write_all(self) -> None:
        """Write what waits, as soon as what came before it is written; nobody waits for a timer."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            while self._waiting:
                batch, self._waiting = self._waiting[:_BATCH_MAX], self._waiting[_BATCH_MAX:]
                try:
                    await self._mark(await self._views.observe([observed for observed, _ in batch]))
                except Exception as error:  # noqa: BLE001 - each delivery is told, and comes again
                    _settle([done for _, done in batch], error)
                else:
                    _settle([done for _, done in batch], None)

    async def _mark(self, keys: Sequence[bytes]) -> None:
        loaded = await self._views.load(list(dict.fromkeys(keys)))
        await self._views.mark([self._marked(one) for one in loaded if one is not None])

    def _marked(self, loaded: Loaded) -> Marked:
        """Return the hot row of a saga: folded by the map that is known here, which is the newest."""
        now = self._clock()
        found = fold(self._map, sight(loaded, now).lines, now, self._grace_seconds)
        times = [one.due_at for one in found.missing if one.due_at is not None]
        if found.started_at is not None:
            times.append(found.started_at + self._map.deadline_seconds)
        # The fold calls late what is before now - grace; the same sum here, so that no moment is between the two.
        due = [at + self._grace_seconds for at in times if at >= now - self._grace_seconds]
        is_over = found.status.value in FINAL_STATUSES
        return Marked(
            loaded.summary.key, len(loaded.rows), found.status.value, None if is_over else min(due, default=None)
        )

    # -- looking after what does not come

    async def _look_all(self) -> None:
        while True:
            await asyncio.sleep(self._look_seconds)
            try:
                await self.look()
            except Exception as error:  # noqa: BLE001 - what is due stays due
                log.warning("the view of %s can't look for what is overdue: %s", self._map.name, type(error).__name__)

    async def look(self) -> int:
        """Fold the sagas anew whose time has come, and return how many."""
        due = await self._views.due(self._map.name, self._clock())
        if due:
            await self._mark(due)
        return len(due)


def _settle(waiting: Sequence[asyncio.Future[None]], error: Exception | None) -> None:
    for done in waiting:
        if done.done():
            continue
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
