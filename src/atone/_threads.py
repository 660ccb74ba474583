"""Threads that nobody waits for at the interpreter's end: for plain functions, and for the lease.

The standard library's pools are joined when the process exits, so a function that never returns would keep the process
alive; what is killed here with its process is, to the saga, a crash like any other. Must not know what it runs. Given
out by `machine`; a participant's database has its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_Work = Callable[[], None]


class DaemonThreads(Executor):
    """An executor of at most `most` daemon threads, each started when it is first needed."""

    def __init__(self, most: int, name: str) -> None:
        self._most, self._name = most, name
        self._queue: SimpleQueue[_Work | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._started = 0
        self._idle = 0
        self._closed = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a call in a free thread; it waits for one if there is none."""
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("these threads are closed")
            self._queue.put(partial(run_into, future, partial(fn, *args, **kwargs)))
            if self._idle > 0:
                self._idle -= 1
            elif self._started < self._most:
                self._started += 1
                threading.Thread(target=self._main, name=f"{self._name}-{self._started}", daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no work any more; threads end when they are through with theirs, and nobody waits for them."""
        with self._lock:
            self._closed = True
            for _ in range(self._started):
                self._queue.put(None)

    def _main(self) -> None:
        while True:
            work = self._queue.get()
            if work is None:
                return
            work()
            del work
            with self._lock:
                self._idle += 1


def run_into(future: Future[Any], call: Callable[[], Any]) -> None:
    """Make a call, and have the future tell what came of it."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except BaseException as error:  # noqa: BLE001 - whoever waits is told, and the thread lives on
        future.set_exception(error)
    else:
        future.set_result(result)
