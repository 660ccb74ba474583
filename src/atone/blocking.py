"""The orchestrator for synchronous code: scripts, Django views, a shell. Each call waits and returns plain values.

Owns no logic: one event loop in a daemon thread runs an `Orchestrator`, and each method here is one call of it. Safe
to use from any thread that runs no event loop of its own. Asynchronous code uses `Orchestrator` directly.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, cast

from atone._core.state import SagaStatus
from atone._runtime.limits import Limits
from atone._runtime.loop_thread import LoopThread
from atone._runtime.requests import Answer, Receipt
from atone._runtime.steering import NOT_GIVEN
from atone._runtime.views import Progress, SagaInfo
from atone.broker import Broker
from atone.clock import Clock
from atone.codec import Codec
from atone.definition import Saga, Seconds
from atone.orchestrator import Handle, Orchestrator
from atone.outcome import Outcome
from atone.store import Delivered, Store
from atone.telemetry import Observer

if TYPE_CHECKING:
    from atone._core.explain import Explanation
    from atone._core.preview import Preview

I = TypeVar("I")  # noqa: E741 - the saga's input, named as in `Saga[I]`


class BlockingOrchestrator:
    """Runs sagas in a thread of this process; use it as a context manager, for as long as the process works.

    Arguments, errors and meanings are those of `Orchestrator`. What is still open when the interpreter ends is closed
    then: calls under way finish or are handed back, no saga is cancelled.
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
        self._atone = Orchestrator(
            store,
            sagas=sagas,
            tenant=tenant,
            codec=codec,
            limits=limits,
            runs=runs,
            allow_volatile=allow_volatile,
            clock=clock,
            telemetry=telemetry,
            broker=broker,
            events=events,
            topic_prefix=topic_prefix,
        )
        self._thread = LoopThread(lambda: self._atone)

    def __enter__(self) -> Self:
        """Open the store and begin to recover; errors as `Orchestrator.__aenter__`."""
        self._thread.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Hand back what is under way and close the store."""
        self._thread.close()

    # -- start and wait ------------------------------------------------------------------------------------------

    def start(
        self,
        saga: type[Saga[I]],
        value: I,
        /,
        *,
        saga_id: str,
        connection: object | None = None,
        trace: Mapping[str, str] | None = None,
    ) -> BlockingHandle[I]:
        """Start a saga, or find the one that was started with the same id and input; see `Orchestrator.start`."""
        started = self._thread.run(self._atone.start(saga, value, saga_id=saga_id, connection=connection, trace=trace))
        return BlockingHandle(self._thread, started)

    def execute(
        self,
        saga: type[Saga[I]],
        value: I,
        /,
        *,
        saga_id: str,
        timeout: Seconds | None = None,
        trace: Mapping[str, str] | None = None,
    ) -> Outcome:
        """Start a saga and wait for its outcome."""
        return self._thread.run(self._atone.execute(saga, value, saga_id=saga_id, timeout=timeout, trace=trace))

    def get(self, saga: type[Saga[I]], saga_id: str, /) -> BlockingHandle[I]:
        """Return the handle of a saga that exists; see `Orchestrator.get`."""
        return BlockingHandle(self._thread, self._thread.run(self._atone.get(saga, saga_id)))

    def outcome(self, saga: type[Saga[Any]], saga_id: str, /, *, timeout: Seconds | None = None) -> Outcome:
        """Wait until the saga is final or needs attention; see `Handle.outcome`."""
        return self._thread.run(self._atone.outcome(saga, saga_id, timeout=timeout))

    def list(
        self,
        saga: type[Saga[Any]] | None = None,
        *,
        status: SagaStatus | Sequence[SagaStatus] | None = None,
        limit: int = 100,
        after: SagaInfo | None = None,
    ) -> list[SagaInfo]:
        """Return sagas, oldest first, at most `limit`; continue with `after=` the last one seen."""
        return self._thread.run(self._atone.list(saga, status=status, limit=limit, after=after))

    # -- steer ---------------------------------------------------------------------------------------------------

    def cancel(self, saga: type[Saga[Any]], saga_id: str, /, *, reason: str, by: str = "api") -> BlockingReceipt:
        """Ask for the saga to be undone; see `Orchestrator.cancel`."""
        return self._asked(self._thread.run(self._atone.cancel(saga, saga_id, reason=reason, by=by)))

    def terminate(self, saga: type[Saga[Any]], saga_id: str, /, *, reason: str, by: str = "api") -> BlockingReceipt:
        """End the saga as FAILED without undoing anything; see `Orchestrator.terminate`."""
        return self._asked(self._thread.run(self._atone.terminate(saga, saga_id, reason=reason, by=by)))

    def retry(
        self, saga: type[Saga[Any]], saga_id: str, step: str | None = None, /, *, reason: str, by: str = "api"
    ) -> BlockingReceipt:
        """Give a step (or all that need it) another round of attempts at once; see `Orchestrator.retry`."""
        return self._asked(self._thread.run(self._atone.retry(saga, saga_id, step, reason=reason, by=by)))

    def skip(
        self, saga: type[Saga[Any]], saga_id: str, step: str, /, *, reason: str, by: str = "api"
    ) -> BlockingReceipt:
        """Skip a step that needs attention, or its undo; see `Orchestrator.skip`."""
        return self._asked(self._thread.run(self._atone.skip(saga, saga_id, step, reason=reason, by=by)))

    def resolve(
        self,
        saga: type[Saga[Any]],
        saga_id: str,
        step: str,
        /,
        *,
        landed: bool,
        result: object = NOT_GIVEN,
        reason: str,
        by: str = "api",
    ) -> BlockingReceipt:
        """Vouch for what an unknown step did; see `Orchestrator.resolve`."""
        resolved = self._atone.resolve(saga, saga_id, step, landed=landed, result=result, reason=reason, by=by)
        return self._asked(self._thread.run(resolved))

    def send_event(
        self,
        saga: type[Saga[Any]],
        saga_id: str,
        name: str,
        payload: object = None,
        /,
        *,
        event_id: str | None = None,
        keep: Seconds = 3600.0,
    ) -> BlockingReceipt:
        """Deliver an event to a saga that waits for it, or will; see `Orchestrator.send_event`."""
        sent = self._atone.send_event(saga, saga_id, name, payload, event_id=event_id, keep=keep)
        return self._asked(self._thread.run(sent))

    # -- look ----------------------------------------------------------------------------------------------------

    def watch(self, saga: type[Saga[Any]], saga_id: str, /) -> Iterator[Progress]:
        """Yield the saga's progress now and after every change, until it is final or needs attention."""
        return _iterate(self._thread, self._atone.watch(saga, saga_id))

    def explain(self, saga: type[Saga[Any]], saga_id: str, /) -> Explanation:
        """Say why the saga is where it is, what happens next, and what an operator may do."""
        return self._thread.run(self._atone.explain(saga, saga_id))

    def preview(self, saga: type[Saga[Any]], saga_id: str, /) -> Preview:
        """Say what a cancel would undo now, in which order, or why it can't."""
        return self._thread.run(self._atone.preview(saga, saga_id))

    def _asked(self, receipt: Receipt) -> BlockingReceipt:
        return BlockingReceipt(self._thread, receipt)


class BlockingHandle(Generic[I]):
    """One saga that was started; see `Handle`."""

    def __init__(self, thread: LoopThread, handle: Handle[I]) -> None:
        self._thread, self._handle = thread, handle
        self.saga_id = handle.saga_id

    def __repr__(self) -> str:
        return repr(self._handle)

    def outcome(self, *, timeout: Seconds | None = None) -> Outcome:
        """Wait until the saga is final or needs attention, and return how it ended; see `Handle.outcome`."""
        return self._thread.run(self._handle.outcome(timeout=timeout))

    def cancel(self, *, reason: str, by: str = "api") -> BlockingReceipt:
        """Ask for the saga to be undone."""
        return BlockingReceipt(self._thread, self._thread.run(self._handle.cancel(reason=reason, by=by)))

    def send_event(self, name: str, payload: object = None, /, *, event_id: str | None = None) -> BlockingReceipt:
        """Deliver an event to this saga."""
        sent = self._handle.send_event(name, payload, event_id=event_id)
        return BlockingReceipt(self._thread, self._thread.run(sent))

    def status(self) -> SagaStatus:
        """Return where the saga stands now, as the store has it."""
        return self._thread.run(self._handle.status())

    def watch(self) -> Iterator[Progress]:
        """Yield the saga's progress; see `BlockingOrchestrator.watch`."""
        return _iterate(self._thread, self._handle.watch())


class BlockingReceipt:
    """A request that is durable; see `Receipt`."""

    def __init__(self, thread: LoopThread, receipt: Receipt) -> None:
        self._thread, self._receipt = thread, receipt
        self.request_id: str = receipt.request_id
        self.delivered: Delivered = receipt.delivered

    def answer(self, *, timeout: Seconds | None = 30.0) -> Answer:
        """Wait for the owner's answer; see `Receipt.answer`."""
        return self._thread.run(self._receipt.answer(timeout=timeout))


def _iterate(thread: LoopThread, progress: AsyncIterator[Progress]) -> Iterator[Progress]:
    states = cast("AsyncGenerator[Progress, None]", progress)
    try:
        while (state := thread.run(_next_of(states))) is not None:
            yield state
    finally:
        thread.drop(_end(states))


async def _next_of(states: AsyncGenerator[Progress, None]) -> Progress | None:
    return await anext(states, None)


async def _end(states: AsyncGenerator[Progress, None]) -> None:
    await states.aclose()
