"""One event loop in a daemon thread, for code that has none: hand over a coroutine, get its result.

Owns the thread from open to close, and every call that waits for it: none waits for ever, whoever closes when. What is
still open when the interpreter ends is closed then. Must not know what it runs. Kept by `BlockingOrchestrator`.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar
from weakref import WeakSet

from atone._runtime.logs import report
from atone.errors import AtoneError, CalledInLoop, Shutdown

T = TypeVar("T")

log = logging.getLogger("atone.blocking")

_CLOSED = "The orchestrator is not open; use it inside `with BlockingOrchestrator(...)`."


class LoopThread:
    """Keeps an asynchronous context open in a thread of its own, and runs coroutines beside it."""

    def __init__(self, context: Callable[[], AbstractAsyncContextManager[Any]]) -> None:
        self._context = context
        # Re-entrant, because a forgotten iterator can be finalised by the collector while this thread holds it.
        self._lock = threading.RLock()
        self._waiting: set[Future[Any]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._leave: Callable[[], object] | None = None
        self._left = threading.Event()
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    def open(self) -> None:
        """Start the thread and enter the context there; what that raises is raised here."""
        refuse_in_loop()
        if self._thread is not None and self._thread.is_alive():
            raise AtoneError("The orchestrator is open already; use the one that is open.")
        _close_at_exit(self)
        opened: Future[None] = Future()
        self._left.clear()
        self._thread = threading.Thread(target=self._main, args=(opened,), name="atone-loop", daemon=True)
        self._thread.start()
        try:
            opened.result()
        except BaseException:
            self._ask_to_leave()  # after Ctrl-C nobody is there to close what opens now
            if opened.done():
                self._thread.join()
            raise

    def close(self) -> None:
        """Leave the context and end the thread; calls under way are told. Harmless if it is closed already."""
        refuse_in_loop()
        self._ask_to_leave()
        if self._thread is not None:
            self._thread.join()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the thread and return what it returns; of any thread but one that runs a loop.

        Raises:
            CalledInLoop: An event loop runs in this thread, which would stand still meanwhile.
            Shutdown: The context is closed, or was closed before the coroutine ended.
        """
        try:
            refuse_in_loop()
            future = self._submit(work)
        except BaseException:
            work.close()
            raise
        try:
            return future.result()
        except CancelledError:
            raise Shutdown(_CLOSED) from None
        except BaseException:
            future.cancel()  # Ctrl-C: nobody wants the answer any more
            raise
        finally:
            with self._lock:
                self._waiting.discard(future)

    def drop(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run a coroutine in the thread if it is still there, and wait for nothing."""
        try:
            future = self._submit(work)
        except Shutdown:
            work.close()
        else:
            future.add_done_callback(self._waiting.discard)

    def _submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        with self._lock:
            if self._loop is None:
                raise Shutdown(_CLOSED)
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
            self._waiting.add(future)
            return future

    def _ask_to_leave(self) -> None:
        self._left.set()
        with self._lock:
            if self._leave is not None:
                self._leave()

    def _main(self, opened: Future[None]) -> None:
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(self._stay(opened))
        except BaseException as error:  # noqa: BLE001 - it is told to who opened or closes
            if opened.done():
                self._failure = error
            else:
                opened.set_exception(error)
        finally:
            _finish(loop)
            with self._lock:
                waiting, self._waiting = self._waiting, set()
            for future in waiting:  # what the loop did not come to any more
                future.cancel()

    async def _stay(self, opened: Future[None]) -> None:
        loop, leave = asyncio.get_running_loop(), asyncio.Event()
        async with self._context():
            with self._lock:
                self._loop, self._leave = loop, lambda: loop.call_soon_threadsafe(leave.set)
            opened.set_result(None)
            try:
                if not self._left.is_set():
                    await leave.wait()
            finally:
                with self._lock:
                    self._loop = self._leave = None


def _finish(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel what still runs, and close the loop.

    `asyncio.run` would start one more thread to end the executor, which Python refuses when the interpreter ends.
    """
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.wait(left))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def refuse_in_loop() -> None:
    """Raise if this thread runs an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise CalledInLoop(
        "This call would block the event loop that runs in this thread. "
        "Use atone.Orchestrator with `async with` and `await` here."
    )


_ever_opened: WeakSet[LoopThread] = WeakSet()


def _close_at_exit(thread: LoopThread) -> None:
    if not _ever_opened:
        # `atexit` comes too late: by then no executor takes work any more, and a clean retirement needs one.
        register: Callable[..., Any] = getattr(threading, "_register_atexit", atexit.register)
        register(_close_all)
    _ever_opened.add(thread)


def _close_all() -> None:
    for thread in tuple(_ever_opened):
        try:
            thread.close()
        except Exception as error:  # noqa: BLE001 - the others are closed all the same
            report(log, "an orchestrator could not be closed at the interpreter's end", error)
