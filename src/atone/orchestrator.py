"""Start sagas, wait for them, steer them, look at them: the face of Atone at run time.

Owns the typed calls that user code makes, and the handle they get back. Must not decide about a saga or write to the
store itself: the worker runs sagas, requests go through the store like anybody's. Recovery is on while this is open.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from atone._core.plan import Plan
from atone._core.state import SagaStatus, StepStatus
from atone._runtime.arguments import checked_limit, checked_name, seconds_of
from atone._runtime.bound import BoundSaga
from atone._runtime.catalogue import Catalogue
from atone._runtime.limits import Limits
from atone._runtime.looking import Looking
from atone._runtime.messaging import Listening, Messaging
from atone._runtime.outgoing import Sending, sending_of
from atone._runtime.reader import find_one
from atone._runtime.replies import Replies
from atone._runtime.requests import Receipt, ask
from atone._runtime.starter import Starter
from atone._runtime.starting import Begun, Starting
from atone._runtime.steering import Steering
from atone._runtime.telemetry import Telemetry, telemetry_of
from atone._runtime.views import Progress, SagaInfo, info_of
from atone._runtime.waiting import End, Waiting
from atone._runtime.watchers import Watchers
from atone._runtime.worker import Worker
from atone.broker import Broker
from atone.brokers import open_broker
from atone.clock import Clock
from atone.codec import Codec
from atone.definition import Saga, Seconds
from atone.errors import (
    AtoneError,
    DefinitionError,
    Shutdown,
    UnknownSaga,
)
from atone.machine import machine
from atone.outcome import Outcome
from atone.store import Hint, Hinting, Query, Store
from atone.stores import open_store
from atone.telemetry import Observer

__all__ = ["Handle", "Limits", "Orchestrator", "Receipt", "StepStatus"]

I = TypeVar("I")  # noqa: E741 - the saga's input, named as in `Saga[I]`


class Orchestrator(Looking, Steering):
    """Runs sagas in this process, on a store; use it as an asynchronous context manager.

    `store` is a URL such as "sqlite:///orders.db", or a store object. `sagas` are the definitions to run, as objects
    that hold the participants they call. Whatever an earlier process left unfinished in the store goes on by itself.
    `telemetry` hears what happens: `OpenTelemetry()`, `Prometheus()`, or a list of such; see docs/telemetry.md.
    Leaving the context finishes or hands back the calls under way within `limits.grace_seconds`; it cancels no saga.

    `broker` is a URL such as "nats://host:4222", or a broker object: what waits in the store's outbox is published
    there. With `events=True` that is what happens to each saga, on topics such as "atone.saga.completed" that begin
    with `topic_prefix`. A broker that is away stops no saga. Command steps need one; their replies are heard on the
    topic "atone.replies", which begins with the same prefix: two stores on one broker need two prefixes.

    With `runs=False` nothing is run here: sagas that are started are stored for the workers on the same store, and can
    be waited for, steered and looked at as ever. The objects in `sagas` need no participants then.

    Raises:
        DefinitionError: A definition is wrong, two have the same name and version, or a limit is for none of them.
    """

    def __init__(
        self,
        store: str | Store,
        *,
        sagas: Sequence[Saga[Any]],
        tenant: str = "default",
        codec: Codec | None = None,
        limits: Limits | None = None,
        runs: bool = True,
        allow_volatile: bool = False,
        clock: Clock | None = None,
        telemetry: Observer | Sequence[Observer] = (),
        broker: str | Broker | None = None,
        events: bool = False,
        topic_prefix: str = "atone",
    ) -> None:
        self._store: Store = open_store(store, allow_volatile=allow_volatile) if isinstance(store, str) else store
        self._codec = codec or Codec()
        self._catalogue = Catalogue(sagas, self._codec)
        self._tenant = checked_name("tenant", tenant, DefinitionError)
        self._limits = limits or Limits()
        self._catalogue.refuse_unknown(self._limits.bounds_by_name)
        self._clock = clock
        self._telemetry = telemetry_of(telemetry)
        self._runs = runs
        self._broker = open_broker(broker) if isinstance(broker, str) else broker
        has_broker = self._broker is not None
        said: dict[str, Any] = {"events": events, "prefix": topic_prefix, "runs": runs, "has_broker": has_broker}
        self._sending = sending_of(**said, commanding=self._catalogue.commanding)
        self._messaging: Messaging | None = None
        self._worker: Worker | Starter | None = None
        self._entered = False
        self._waiting = Waiting(self._store, self._local, self._limits.poll_seconds)
        self._watchers = Watchers(self._waiting.state, self._limits.poll_seconds)
        parts = (self._store, self._catalogue, self._waiting, self._tenant, self._telemetry)
        self._starting = Starting(*parts, self._open_worker)

    async def __aenter__(self) -> Self:
        """Open the store, register as a worker and begin to recover.

        Raises:
            DefinitionMismatch: Unfinished sagas follow another plan of the same name and version.
            StoreError: The store can't be used; the message says why.
            AtoneError: It is open already.
        """
        if self._entered:
            raise AtoneError("The orchestrator is open already; use the one that is open.")
        self._entered = True
        try:
            await self._store.__aenter__()
        except BaseException:
            self._entered = False
            raise
        try:
            await self._catalogue.refuse_mismatch(self._store)
            if self._broker is not None and self._runs:
                self._messaging = Messaging(self._store, self._broker, self._telemetry, self._listening())
                await self._messaging.open()
            sagas, listeners = self._catalogue.all, (self._waiting, self._watchers, self._telemetry)
            parts = (*listeners, self._sending, self._messaging)
            worker = _made(self._runs, self._store, sagas, self._clock or machine(), self._limits, *parts)
            self._waiting.open()
            await worker.open()
            _listen(self._store, worker, self._waiting)
            self._worker = worker
        except BaseException:
            await self._leave()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Hand back what is under way and close the store."""
        closing = asyncio.ensure_future(self._close())
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:
            await closing  # it has its own bounds; half a closing would leave threads and a lease behind
            raise

    async def _close(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.close()
        await self._leave()

    async def _leave(self) -> None:
        self._waiting.close()
        messaging, self._messaging = self._messaging, None
        try:
            if messaging is not None:
                await messaging.close(grace_seconds=self._limits.grace_seconds)
            await self._store.__aexit__(None, None, None)
        finally:
            self._entered = False

    # -- start and wait ------------------------------------------------------------------------------------------

    async def start(
        self,
        saga: type[Saga[I]],
        given: I,
        /,
        *,
        saga_id: str,
        connection: object | None = None,
        trace: Mapping[str, str] | None = None,
    ) -> Handle[I]:
        """Start a saga, or find the one that was started with the same id and input.

        Returns once the start is durable. With `connection` the saga is inserted within the caller's transaction there;
        it begins after the caller has committed. It has no time-out of its own: a start that was cut off may have been
        made, and is found by starting again with the same id and input. `trace` are headers with the W3C trace context
        that the saga goes on with, for a caller without OpenTelemetry; what is none is ignored.

        Raises:
            PayloadError: The input is not of the declared type or too large, or the id is no usable text.
                Nothing was written.
            ConflictingStart: The id is taken by a saga with another input. Nothing was written.
            UnknownSaga: This orchestrator was not given the definition.
            Overloaded: Too many starts wait for the store here. Nothing was written.
        """
        begun = await self._starting.start(self._starting.checked(saga, given, saga_id), trace, connection)
        return self._handle(begun, committed=connection is None)

    async def execute(
        self,
        saga: type[Saga[I]],
        given: I,
        /,
        *,
        saga_id: str,
        timeout: Seconds | None = None,
        trace: Mapping[str, str] | None = None,
    ) -> Outcome:
        """Start a saga and wait for its outcome; `start` and `Handle.outcome` in one, within one time-out.

        Raises:
            OutcomeTimeout: `timeout` (seconds) ran out; a saga that was started goes on. Errors as `start` too.
        """
        seconds = seconds_of("timeout", timeout)
        if seconds is None:
            return await self._starting.run_through(self._starting.checked(saga, given, saga_id), trace)
        end = End(seconds)
        async with end.reached_is("It is not known whether the saga was started. Try again with the same input."):
            handle = await self.start(saga, given, saga_id=saga_id, trace=trace)
        return await handle.outcome(timeout=end.left())

    async def get(self, saga: type[Saga[I]], saga_id: str, /) -> Handle[I]:
        """Return the handle of a saga that exists.

        Raises:
            UnknownSaga: There is none with this id.
            Shutdown: The orchestrator is not open.
        """
        bound, saga_id = self._bound_to(saga), checked_name("saga_id", saga_id)
        self._open_worker()
        found = await find_one(self._store, self._tenant, bound.plan.name, saga_id)
        if found is None:
            raise UnknownSaga(f"There is no {bound.plan.name} saga {saga_id!r}; start it, or list what there is.")
        return self._handle(await self._starting.found(bound, found))

    async def list(
        self,
        saga: type[Saga[Any]] | None = None,
        *,
        status: SagaStatus | Sequence[SagaStatus] | None = None,
        limit: int = 100,
        after: SagaInfo | None = None,
    ) -> list[SagaInfo]:
        """Return sagas, oldest first, at most `limit` (1000); continue with `after=` the last one seen."""
        self._open_worker()
        name = None if saga is None else self._bound_to(saga).plan.name
        query = _query(status, checked_limit(limit), after)._replace(tenant=self._tenant, name=name)
        return [info_of(found) for found in await self._store.find(query)]

    # -- inside --------------------------------------------------------------------------------------------------

    def _open_worker(self) -> Worker | Starter:
        if self._worker is None:
            raise Shutdown("The orchestrator is not open; use it inside `async with Orchestrator(...)`.")
        return self._worker

    def _listening(self) -> Sequence[Listening]:
        """Return what hears the broker: of the replies to commands, if a definition here sends any."""
        if self._sending is None or self._sending.replies is None:
            return ()
        return (Replies(self._store, self._catalogue.all, self._codec, self._sending.replies, self._came).listen,)

    def _came(self) -> None:
        if isinstance(self._worker, Worker):
            self._worker.hinted()

    def _now(self) -> float:
        return self._open_worker().now()

    def _local(self) -> Collection[bytes]:
        return () if self._worker is None else self._worker.runners

    def _bound_to(self, saga: type[Saga[Any]]) -> BoundSaga:
        return self._catalogue.of_class(saga)

    def _handle(self, begun: Begun, committed: bool = True) -> Handle[Any]:
        bound, plan, key, saga_id, is_new = begun
        return Handle(self, self._waiting, bound, plan, key, saga_id, committed=committed or not is_new)

    async def _ask(self, saga: type[Saga[Any]], saga_id: str, kind: str, **what: Any) -> Receipt:
        bound, saga_id = self._bound_to(saga), checked_name("saga_id", saga_id)
        worker = self._open_worker()
        receipt = await ask(self._store, self._tenant, bound.plan.name, saga_id, kind, **what)
        worker.nudge(receipt.key)
        return receipt


class Handle(Generic[I]):
    """One saga that was started; holds no connection and may be thrown away.

    `plan` is what the saga follows; `bound` the definition of that version, or of the one that was asked with.
    """

    def __init__(
        self,
        orchestrator: Orchestrator,
        waiting: Waiting,
        bound: BoundSaga,
        plan: Plan,
        key: bytes,
        saga_id: str,
        *,
        committed: bool = True,
    ) -> None:
        self._orchestrator = orchestrator
        self._waiting = waiting
        self._committed = committed
        self.bound = bound
        self.plan = plan
        self.key = key
        self.saga_id = saga_id

    def __repr__(self) -> str:
        return f"<saga {self.plan.name} {self.saga_id!r}>"

    async def outcome(self, *, timeout: Seconds | None = None) -> Outcome:
        """Wait until the saga is final or needs attention, and return how it ended.

        A cancelled wait, or one that times out, does not touch the saga. With no time left it looks once.

        Raises:
            OutcomeTimeout: `timeout` (seconds) ran out; the saga goes on.
            UnknownSaga: The transaction that the saga was started in is not committed, so nothing will happen in it.
        """
        if not self._committed:
            await self._waiting.refuse_uncommitted(self.key)
            self._committed = True
        return await self._waiting.outcome(self.bound, self.plan, self.key, timeout)

    async def cancel(self, *, reason: str, by: str = "api") -> Receipt:
        """Ask for the saga to be undone; see `Orchestrator.cancel`."""
        return await self._orchestrator.cancel(type(self.bound.saga), self.saga_id, reason=reason, by=by)

    async def send_event(self, name: str, payload: object = None, /, *, event_id: str | None = None) -> Receipt:
        """Deliver an event to this saga; see `Orchestrator.send_event`."""
        saga = type(self.bound.saga)
        return await self._orchestrator.send_event(saga, self.saga_id, name, payload, event_id=event_id)

    async def status(self) -> SagaStatus:
        """Return where the saga stands now, as the store has it."""
        return (await self._waiting.state(self.key)).status

    def watch(self) -> AsyncIterator[Progress]:
        """Yield the saga's progress; see `Orchestrator.watch`."""
        return self._orchestrator.watch(type(self.bound.saga), self.saga_id)


def _made(
    runs: bool,
    store: Store,
    sagas: Sequence[BoundSaga],
    clock: Clock,
    limits: Limits,
    waiting: Waiting,
    watchers: Watchers,
    telemetry: Telemetry | None,
    sending: Sending | None,
    messaging: Messaging | None,
) -> Worker | Starter:
    """Return what starts sagas: a worker, which runs them too, or one that leaves them to the fleet."""
    if not runs:
        return Starter(store, sagas, clock, limits, telemetry, sending)
    heard = {"on_settled": waiting.heard, "on_changed": watchers.changed}
    return Worker(store, sagas, clock, limits, **heard, telemetry=telemetry, sending=sending, messaging=messaging)


def _listen(store: Store, worker: Worker | Starter, waiting: Waiting) -> None:
    """Look at once when another process says that there is something, if the store can tell; polling suffices."""
    if isinstance(store, Hinting):
        told = {Hint.DUE: worker.hinted, Hint.SETTLED: waiting.hinted}
        store.on_hint(lambda hint: told[hint]())


def _query(status: SagaStatus | Sequence[SagaStatus] | None, limit: int, after: SagaInfo | None) -> Query:
    wanted = [status] if isinstance(status, SagaStatus) else status
    statuses = None if wanted is None else frozenset(one.value for one in wanted)
    return Query(statuses=statuses, after=None if after is None else after.key, limit=limit)
