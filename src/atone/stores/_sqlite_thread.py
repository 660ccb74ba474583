"""A thread that owns one SQLite connection, and the queue in front of it.

Jobs are done in the order in which they were given; all that stand in the queue are handed over as one group, and
each event loop is woken once for a group's answers. It must not know what a job does. Called by the SQLite adapter,
which has one such thread for writing and one for reading.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from atone.errors import StoreClosed
from atone.stores._sqlite_connection import Connection
from atone.stores._sqlite_errors import translated

T = TypeVar("T")

# Several groups rather than one endless transaction, so that the first of many waiters is answered soon.
_GROUP_JOBS_MAX = 1024


_Queue = SimpleQueue["Job[Any] | None"]


class Job(Generic[T]):
    """Something to do on the connection. Whoever does it sets `result`, or `error` if this job alone failed."""

    __slots__ = ("error", "reply", "result")

    result: T
    error: BaseException | None
    reply: asyncio.Future[T] | Future[T]

    def __init__(self) -> None:
        self.error = None


class ConnectionThread:
    """Do jobs on one connection, group by group.

    An error that `work` raises is the answer to every job of the group; so is one that a lost connection would give.
    """

    def __init__(
        self,
        path: str,
        connect: Callable[[], Connection],
        work: Callable[[Connection, Sequence[Job[Any]]], None],
    ) -> None:
        self._path = path
        self._connect = connect
        self._work = work
        self._queue: _Queue = SimpleQueue()
        # Nobody may close between "is it open?" and the put: a job behind the last one would never be answered.
        self._gate = threading.Lock()
        self._is_open = False
        self._process = 0
        self._ended: Future[None] = Future()
        self._thread: threading.Thread | None = None

    async def open(self) -> None:
        """Start the thread and open its connection."""
        opened: Future[None] = Future()
        self._queue = SimpleQueue()
        self._ended = Future()
        main = threading.Thread(target=self._main, args=(opened, self._queue), name="atone-sqlite", daemon=True)
        main.start()
        try:
            await asyncio.wrap_future(opened)
        except BaseException:
            self._queue.put(None)  # if it was cancelled, the thread opens all the same, and then ends
            raise
        self._process = os.getpid()
        self._thread = main
        self._is_open = True

    async def close(self) -> None:
        """Close the connection after everything that was given before; a second time it does nothing."""
        with self._gate:
            if not self._is_open:
                return
            self._is_open = False
            self._queue.put(None)
        await asyncio.shield(asyncio.wrap_future(self._ended))
        if self._thread is not None:
            # It has answered and has nothing left to do; who closes a store finds no thread of it afterwards.
            self._thread.join()

    async def do(self, job: Job[T]) -> T:
        """Give a job and wait for its result; a cancelled waiter takes nothing back."""
        reply: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        job.reply = reply
        self._put(job)
        return await reply

    def do_blocking(self, job: Job[T]) -> T:
        """Do the same without an event loop, from any thread."""
        reply: Future[T] = Future()
        job.reply = reply
        self._put(job)
        return reply.result()

    def _put(self, job: Job[Any]) -> None:
        with self._gate:
            if not self._is_open:
                raise StoreClosed(f"The store {self._path} is not open. Enter it with `async with` first.")
            if self._process != os.getpid():  # a fork has no such thread: the job would never be done
                raise StoreClosed(f"The store {self._path} was opened in another process. Open it after the fork.")
            self._queue.put(job)

    def _main(self, opened: Future[None], queue: _Queue) -> None:
        if not opened.set_running_or_notify_cancel():
            return
        try:
            connection = self._connect()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the opener is told
            opened.set_exception(translated(error, self._path))
            return
        opened.set_result(None)
        last = False
        while not last:
            group, last = _group(queue)
            if group:
                self._do(connection, group)
        try:
            connection.close()
        finally:
            self._ended.set_result(None)

    def _do(self, connection: Connection, group: Sequence[Job[Any]]) -> None:
        try:
            self._work(connection, group)
        except BaseException as error:  # noqa: BLE001 - every waiter is told, and the thread lives on
            for job in group:
                job.error = error
        _answer(group, self._path)


def _group(queue: _Queue) -> tuple[Sequence[Job[Any]], bool]:
    """Wait for a job and return all that are there, and whether the last of all was among them."""
    group: list[Job[Any]] = []
    job = queue.get()
    while job is not None:
        group.append(job)
        if queue.empty() or len(group) == _GROUP_JOBS_MAX:
            return group, False
        job = queue.get()
    return group, True


def _answer(group: Sequence[Job[Any]], path: str) -> None:
    """Wake each loop once, with all that is meant for it."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Job[Any]]] = {}
    for job in group:
        if job.error is not None:
            job.error = translated(job.error, path)
        if isinstance(job.reply, Future):
            _settle([job])
        else:
            by_loop.setdefault(job.reply.get_loop(), []).append(job)
    for loop, jobs in by_loop.items():
        try:
            loop.call_soon_threadsafe(_settle, jobs)
        except RuntimeError:  # that loop is closed: nobody waits any more
            pass


def _settle(jobs: Sequence[Job[Any]]) -> None:
    for job in jobs:
        if job.reply.done():  # its waiter was cancelled
            continue
        if job.error is None:
            job.reply.set_result(job.result)
        else:
            job.reply.set_exception(job.error)
