"""Start sagas, wait for them, steer them, look at them: the face of Atone at run time.

Owns the typed calls that user code makes, and the handle they get back. Must not decide about a saga or write to the store
itself: the worker runs sagas, requests go through the store like anybody's. Recovery is on as long as this is open.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from atone._core.state import SagaState, SagaStatus
from atone._runtime.bound import BoundSaga, event_field, payload_context_of
from atone._runtime.outcomes import Outcomes, is_settled
from atone._runtime.reader import Found, find_one, read
from atone._runtime.requests import Receipt, ask
from atone._runtime.views import Progress, SagaInfo, info_of, outcome_of, progress_of
from atone._runtime.worker import Limits, Worker
from atone.clock import Clock, SystemClock
from atone.codec import Codec
from atone.definition import Saga, Seconds
from atone.errors import (
    ConflictingStart,
    DefinitionError,
    DefinitionMismatch,
    OutcomeTimeout,
    Shutdown,
    UnknownSaga,
)
from atone.outcome import Outcome
from atone.store import FINAL_STATUSES, Query, Store, TurnResult
from atone.stores import open_store

if TYPE_CHECKING:
    from atone._core.explain import Explanation, Preview

I = TypeVar("I")  # noqa: E741 - the saga's input, named as in `Saga[I]`

ID_LENGTH_MAX = 300


class Orchestrator:
    """Runs sagas in this process, on a store; use it as an asynchronous context manager.

    `store` is a URL such as "sqlite:///orders.db", or a store object. `sagas` are the definitions to run, as objects
    that hold the participants they call. Whatever an earlier process left unfinished in the store goes on by itself.
    Leaving the context finishes or hands back the calls under way within `limits.grace_seconds`; it cancels no saga.

    Raises:
        DefinitionError: A definition is wrong, or two have the same name and version.
    """

    def __init__(
        self,
        store: str | Store,
        *,
        sagas: Sequence[Saga[Any]],
        tenant: str = "default",
        codec: Codec | None = None,
        limits: Limits | None = None,
        allow_volatile: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self._store: Store = open_store(store, allow_volatile=allow_volatile) if isinstance(store, str) else store
        self._codec = codec or Codec()
        self._bound = _bind(sagas, self._codec)
        self._tenant = _checked("tenant", tenant)
        self._limits = limits or Limits()
        self._clock = clock or SystemClock()
        self._worker: Worker | None = None
        self._outcomes: Outcomes | None = None
        self._watchers: dict[bytes, list[asyncio.Queue[SagaState]]] = {}

    async def __aenter__(self) -> Self:
        """Open the store, register as a worker and begin to recover.

        Raises:
            DefinitionMismatch: Unfinished sagas follow another plan of the same name and version.
            StoreError: The store can't be used; the message says why.
        """
        await self._store.__aenter__()
        try:
            await self._refuse_mismatch()
            worker = Worker(
                self._store,
                list(self._bound.values()),
                self._clock,
                self._limits,
                on_settled=self._settled,
                on_changed=self._changed,
            )
            self._outcomes = Outcomes(self._store, self._state, lambda: worker.runners, self._limits.poll_seconds)
            await worker.open()
            self._worker = worker
        except BaseException:
            await self._store.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Hand back what is under way and close the store."""
        worker, self._worker = self._worker, None
        if worker is not None:
            await asyncio.shield(worker.close())
        if self._outcomes is not None:
            self._outcomes.close(Shutdown("The orchestrator was closed; the saga goes on. Ask again from one that is open."))
        await self._store.__aexit__(kind, error, trace)

    # -- start and wait ------------------------------------------------------------------------------------------

    async def start(
        self, saga: type[Saga[I]], input: I, /, *, saga_id: str, connection: object | None = None
    ) -> Handle[I]:
        """Start a saga, or find the one that was started with the same id and input.

        Returns once the start is durable. With `connection` the saga is inserted within the caller's transaction there;
        it begins after the caller has committed.

        Raises:
            PayloadError: The input is not of the declared type, or too large. Nothing was written.
            ConflictingStart: The id is taken by a saga with another input. Nothing was written.
            UnknownSaga: This orchestrator was not given the definition.
        """
        bound = self._bound_to(saga)
        saga_id = _checked("saga_id", saga_id)
        identity = (self._tenant, bound.plan.name, saga_id)
        payload = bound.input_schema.encode(input, _input_context(*identity))
        if connection is not None:
            key = await self._start_within(bound, identity, payload, connection)
            return Handle(self, bound, key, saga_id, committed=False)
        while True:
            key, result = await self._open_worker().start(bound, self._tenant, saga_id, payload)
            if result is TurnResult.APPLIED:
                return Handle(self, bound, key, saga_id)
            if result is TurnResult.REFUSED:
                raise ConflictingStart("The store refused the start; make the saga_id or the input smaller.")
            # The id is taken, or the worker died before the answer: what stands in the store decides.
            existing = await self._existing(bound, identity, payload)
            if existing is not None:
                return Handle(self, bound, existing, saga_id)

    async def execute(
        self, saga: type[Saga[I]], input: I, /, *, saga_id: str, timeout: Seconds | None = None
    ) -> Outcome:
        """Start a saga and wait for its outcome; `start` and `Handle.outcome` in one."""
        handle = await self.start(saga, input, saga_id=saga_id)
        return await handle.outcome(timeout=timeout)

    async def get(self, saga: type[Saga[I]], saga_id: str, /) -> Handle[I]:
        """Return the handle of a saga that exists.

        Raises:
            UnknownSaga: There is none with this id.
        """
        bound = self._bound_to(saga)
        found = await find_one(self._store, self._tenant, bound.plan.name, saga_id)
        if found is None:
            raise UnknownSaga(f"There is no {bound.plan.name} saga {saga_id!r}; start it, or list what there is.")
        return Handle(self, bound, found.key, saga_id)

    async def outcome(self, saga: type[Saga[Any]], saga_id: str, /, *, timeout: Seconds | None = None) -> Outcome:
        """Wait until the saga is final or needs attention; see `Handle.outcome`."""
        return await (await self.get(saga, saga_id)).outcome(timeout=timeout)

    async def list(
        self,
        saga: type[Saga[Any]] | None = None,
        *,
        status: SagaStatus | Sequence[SagaStatus] | None = None,
        limit: int = 100,
        after: SagaInfo | None = None,
    ) -> list[SagaInfo]:
        """Return sagas, oldest first, at most `limit`; continue with `after=` the last one seen."""
        wanted = [status] if isinstance(status, SagaStatus) else status
        query = Query(
            tenant=self._tenant,
            name=None if saga is None else self._bound_to(saga).plan.name,
            statuses=None if wanted is None else frozenset(one.value for one in wanted),
            after=None if after is None else after.key,
            limit=limit,
        )
        return [info_of(found) for found in await self._store.find(query)]

    # -- steer ---------------------------------------------------------------------------------------------------

    async def cancel(self, saga: type[Saga[Any]], saga_id: str, /, *, reason: str, by: str = "api") -> Receipt:
        """Ask for the saga to be undone; durable when this returns. `Receipt.answer` tells what became of it.

        Raises:
            UnknownSaga: There is none with this id.
            RequestRefused: The saga is over.
        """
        return await self._ask(saga, saga_id, "cancel", by=by, reason=reason)

    async def terminate(self, saga: type[Saga[Any]], saga_id: str, /, *, reason: str, by: str = "api") -> Receipt:
        """End the saga as FAILED without undoing anything; effects stand. Errors as `cancel`."""
        return await self._ask(saga, saga_id, "terminate", by=by, reason=reason)

    async def retry(
        self, saga: type[Saga[Any]], saga_id: str, step: str | None = None, /, *, reason: str, by: str = "api"
    ) -> Receipt:
        """Give a step (or all that need it) another round of attempts at once. Errors as `cancel`."""
        return await self._ask(saga, saga_id, "retry", by=by, reason=reason, step=step)

    async def skip(self, saga: type[Saga[Any]], saga_id: str, step: str, /, *, reason: str, by: str = "api") -> Receipt:
        """Skip a step that needs attention, or its undo: then the saga ends FAILED. Errors as `cancel`."""
        return await self._ask(saga, saga_id, "skip", by=by, reason=reason, step=step)

    async def resolve(
        self,
        saga: type[Saga[Any]],
        saga_id: str,
        step: str,
        /,
        *,
        landed: bool,
        result: object = None,
        reason: str,
        by: str = "api",
    ) -> Receipt:
        """Vouch for what an unknown step did: it landed, with this result, or it surely had no effect.

        Raises:
            PayloadError: The result is not of the step's declared type. Nothing was written.
        """
        bound = self._bound_to(saga)
        if step not in bound.steps:
            raise UnknownSaga(f"{bound.plan.name} has no step {step!r}; its steps are {', '.join(bound.steps)}.")
        context = payload_context_of(self._tenant, bound.plan.name, saga_id, step)
        payload = bound.steps[step].result.encode(result, context) if landed else None
        return await self._ask(saga, saga_id, "resolve", by=by, reason=reason, step=step, landed=landed, payload=payload)

    async def send_event(
        self,
        saga: type[Saga[Any]],
        saga_id: str,
        name: str,
        payload: object = None,
        /,
        *,
        event_id: str | None = None,
        keep: Seconds = 3600.0,
    ) -> Receipt:
        """Deliver an event to a saga that waits for it, or will; the first of a name counts, each `event_id` once.

        An event for a saga that does not exist yet is kept for `keep` seconds, then it is a dead letter.

        Raises:
            PayloadError: The payload is not of the type that the definition declares. Nothing was written.
            UnknownSaga: No step of the definition waits for such an event.
            RequestRefused: The saga is over.
        """
        bound = self._bound_to(saga)
        taker = next((step for step in bound.steps.values() if step.definition.plan.event_name == name), None)
        if taker is None:
            raise UnknownSaga(f"No step of {bound.plan.name} waits for an event {name!r}; check the name.")
        context = payload_context_of(self._tenant, bound.plan.name, saga_id, event_field(name))
        data = taker.result.encode(payload, context)
        return await self._ask(
            saga, saga_id, "event", by="event", reason=name, event=name, payload=data, request_id=event_id, keep=keep
        )

    # -- look ----------------------------------------------------------------------------------------------------

    async def watch(self, saga: type[Saga[Any]], saga_id: str, /) -> AsyncIterator[Progress]:
        """Yield the saga's progress now and after every change, until it is final or needs attention."""
        handle = await self.get(saga, saga_id)
        queue: asyncio.Queue[SagaState] = asyncio.Queue()
        self._watchers.setdefault(handle.key, []).append(queue)
        try:
            state = await self._state(handle.key)
            yield progress_of(handle.bound.plan, state)
            while not is_settled(state):
                newer = await self._newer(handle.key, queue)
                if newer.version > state.version:
                    state = newer
                    yield progress_of(handle.bound.plan, state)
        finally:
            self._watchers[handle.key].remove(queue)
            if not self._watchers[handle.key]:
                del self._watchers[handle.key]

    async def explain(self, saga: type[Saga[Any]], saga_id: str, /) -> Explanation:
        """Say why the saga is where it is, what happens next, and what an operator may do."""
        from atone._core.explain import explain

        found = await self._found(saga, saga_id)
        return explain(found.plan, found.state, self._open_worker().now())

    async def preview(self, saga: type[Saga[Any]], saga_id: str, /) -> Preview:
        """Say what a cancel would undo now, in which order, or why it can't."""
        from atone._core.explain import preview

        found = await self._found(saga, saga_id)
        return preview(found.plan, found.state, self._open_worker().now())

    # -- inside --------------------------------------------------------------------------------------------------

    def _open_worker(self) -> Worker:
        if self._worker is None:
            raise Shutdown("The orchestrator is not open; use it inside `async with Orchestrator(...)`.")
        return self._worker

    def _bound_to(self, saga: type[Saga[Any]]) -> BoundSaga:
        try:
            return self._bound[saga]
        except KeyError:
            raise UnknownSaga(
                f"{getattr(saga, '__name__', saga)!s} is not registered here; pass an object of it in `sagas=[...]`."
            ) from None

    async def _found(self, saga: type[Saga[Any]], saga_id: str) -> Found:
        return await read(self._store, (await self.get(saga, saga_id)).key)

    async def _state(self, key: bytes) -> SagaState:
        return (await read(self._store, key)).state

    async def _refuse_mismatch(self) -> None:
        unfinished = frozenset(status.value for status in SagaStatus) - FINAL_STATUSES
        for bound in self._bound.values():
            query = Query(
                name=bound.plan.name,
                definition_version=bound.plan.version,
                other_hash_than=bound.plan.plan_hash,
                statuses=unfinished,
                limit=1,
            )
            strangers = await self._store.find(query)
            if strangers:
                raise DefinitionMismatch(
                    f"{bound.plan.name} version {bound.plan.version} differs from the plan that unfinished sagas follow "
                    f"(for one: {strangers[0].saga_id!r}). Give the changed definition a new version= and register both."
                )

    async def _existing(self, bound: BoundSaga, identity: tuple[str, str, str], payload: bytes) -> bytes | None:
        found = await find_one(self._store, *identity)
        if found is None:
            return None
        state = await self._state(found.key)
        if not bound.input_schema.same(state.input, payload, _input_context(*identity)):
            raise ConflictingStart(
                f"{identity[1]} saga {identity[2]!r} was started with another input. Use a new saga_id, or the same input."
            )
        return found.key

    async def _start_within(
        self, bound: BoundSaga, identity: tuple[str, str, str], payload: bytes, connection: object
    ) -> bytes:
        worker = self._open_worker()
        turn = worker.unowned_start(bound, self._tenant, identity[2], payload)
        if await self._store.start(turn, connection=connection) is not TurnResult.APPLIED:
            existing = await self._existing(bound, identity, payload)
            if existing is None:
                raise ConflictingStart("The id was taken within a transaction that is not committed; try again after it.")
            return existing
        return turn.key

    async def _refuse_uncommitted(self, key: bytes) -> None:
        if not await self._store.find(Query(keys=(key,))):
            raise UnknownSaga(
                "The transaction that started this saga is not committed, and nothing runs before it is. "
                "Commit it, then wait for the outcome."
            )

    async def _ask(self, saga: type[Saga[Any]], saga_id: str, kind: str, **what: Any) -> Receipt:
        bound = self._bound_to(saga)
        receipt = await ask(self._store, self._tenant, bound.plan.name, saga_id, kind, **what)
        self._open_worker().nudge(receipt.key)
        return receipt

    def _settled(self, key: bytes, state: SagaState) -> None:
        if is_settled(state) and self._outcomes is not None:
            self._outcomes.settle(key, state)

    def _changed(self, key: bytes, state: SagaState) -> None:
        if self._watchers:
            for queue in self._watchers.get(key, ()):
                queue.put_nowait(state)

    async def _newer(self, key: bytes, queue: asyncio.Queue[SagaState]) -> SagaState:
        try:
            # Not `wait_for`: until Python 3.12 it can lose a cancellation that comes together with the result.
            async with asyncio.timeout(self._limits.poll_seconds):
                return await queue.get()
        except TimeoutError:
            return await self._state(key)  # it may run elsewhere

    async def _wait(self, key: bytes, timeout: Seconds | None) -> SagaState:
        assert self._outcomes is not None
        self._open_worker()
        seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        try:
            async with asyncio.timeout(seconds):
                return await self._outcomes.expect(key)
        except TimeoutError:
            raise OutcomeTimeout(f"The saga was not over after {seconds} s; it goes on. Ask again later.") from None


class Handle(Generic[I]):
    """One saga that was started; holds no connection and may be thrown away."""

    def __init__(
        self, orchestrator: Orchestrator, bound: BoundSaga, key: bytes, saga_id: str, *, committed: bool = True
    ) -> None:
        self._orchestrator = orchestrator
        self._committed = committed
        self.bound = bound
        self.key = key
        self.saga_id = saga_id

    def __repr__(self) -> str:
        return f"<saga {self.bound.plan.name} {self.saga_id!r}>"

    async def outcome(self, *, timeout: Seconds | None = None) -> Outcome:
        """Wait until the saga is final or needs attention, and return how it ended.

        A cancelled wait, or one that times out, does not touch the saga.

        Raises:
            OutcomeTimeout: `timeout` (seconds) ran out; the saga goes on.
            UnknownSaga: The transaction that the saga was started in is not committed, so nothing will happen in it.
        """
        if not self._committed:
            await self._orchestrator._refuse_uncommitted(self.key)  # noqa: SLF001 - one room, two classes
            self._committed = True
        state = await self._orchestrator._wait(self.key, timeout)  # noqa: SLF001 - one room, two classes
        return outcome_of(self.bound, state)

    async def cancel(self, *, reason: str, by: str = "api") -> Receipt:
        """Ask for the saga to be undone; see `Orchestrator.cancel`."""
        return await self._orchestrator.cancel(type(self.bound.saga), self.saga_id, reason=reason, by=by)

    async def send_event(self, name: str, payload: object = None, /, *, event_id: str | None = None) -> Receipt:
        """Deliver an event to this saga; see `Orchestrator.send_event`."""
        return await self._orchestrator.send_event(type(self.bound.saga), self.saga_id, name, payload, event_id=event_id)

    async def status(self) -> SagaStatus:
        """Return where the saga stands now, as the store has it."""
        return (await self._orchestrator._state(self.key)).status  # noqa: SLF001 - one room, two classes

    def watch(self) -> AsyncIterator[Progress]:
        """Yield the saga's progress; see `Orchestrator.watch`."""
        return self._orchestrator.watch(type(self.bound.saga), self.saga_id)


def _bind(sagas: Sequence[Saga[Any]], codec: Codec) -> dict[type[Saga[Any]], BoundSaga]:
    bound: dict[type[Saga[Any]], BoundSaga] = {}
    names: set[tuple[str, int]] = set()
    for saga in sagas:
        if isinstance(saga, type):
            raise DefinitionError(f"`sagas` takes objects, not classes; write {saga.__name__}(...).")
        made = BoundSaga(saga, codec)
        if (made.plan.name, made.plan.version) in names:
            raise DefinitionError(f"{made.plan.name} version {made.plan.version} is given twice; change name= or version=.")
        names.add((made.plan.name, made.plan.version))
        bound[type(saga)] = made
    return bound


def _checked(what: str, text: str) -> str:
    if type(text) is not str or not text or len(text) > ID_LENGTH_MAX or "\x00" in text:
        raise DefinitionError(f"{what} must be a text of 1 to {ID_LENGTH_MAX} characters without NUL; give another one.")
    return text


def _input_context(tenant: str, name: str, saga_id: str) -> bytes:
    return payload_context_of(tenant, name, saga_id, "input")
