"""A thread that owns one SQLite connection, and the queue in front of it.

Calls run in the order in which they were made; commits that stand in the queue side by side are handed over as one
group. Answers go back to each event loop in one piece per group. It must not know what a call does. Called by the
SQLite adapter, which has one such thread for writing and one for reading.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import apsw

from atone.errors import StoreError
from atone.store import Turn, TurnResult
from atone.stores._sqlite_errors import translated

T = TypeVar("T")

# Several groups rather than one endless transaction, so that the first of many waiters is answered soon.
_GROUP_TURNS_MAX = 4096

_Answer = tuple[Any, Any, BaseException | None]


@dataclass(slots=True)
class Commit:
    """One call of `commit`; `results` is filled in by the writer, or `error` is."""

    worker: str
    turns: Sequence[Turn]
    results: Sequence[TurnResult] = ()
    error: BaseException | None = None
    reply: asyncio.Future[Sequence[TurnResult]] | None = None


@dataclass(slots=True)
class _Call(Generic[T]):
    run: Callable[[apsw.Connection], T]
    reply: asyncio.Future[T] | Future[T]
    last: bool = False


class ConnectionThread:
    """Run calls on one connection, which is opened by the first of them and closed by the last."""

    def __init__(
        self,
        path: str,
        connect: Callable[[], apsw.Connection],
        write: Callable[[apsw.Connection, Sequence[Commit]], None] | None = None,
    ) -> None:
        self._path = path
        self._connect = connect
        self._write = write
        self._queue: SimpleQueue[Commit | _Call[Any]] = SimpleQueue()
        self._closing = threading.Lock()
        self._closed = True
        self._thread: threading.Thread | None = None

    async def open(self) -> None:
        """Start the thread and open its connection."""
        opened: Future[None] = Future()
        self._closed = False
        self._thread = threading.Thread(target=self._main, args=(opened,), name="atone-sqlite", daemon=True)
        self._thread.start()
        try:
            await asyncio.wrap_future(opened)
        except BaseException:
            self._closed = True
            raise

    async def close(self) -> None:
        """Close the connection after everything that was called before."""
        if not self._closed:
            with self._closing:
                self._closed = True
                done: Future[None] = Future()
                self._queue.put(_Call(lambda connection: connection.close(), done, last=True))
            await asyncio.wrap_future(done)

    async def commit(self, worker: str, turns: Sequence[Turn]) -> Sequence[TurnResult]:
        """Hand over a commit; it may share its transaction with its neighbours in the queue."""
        reply: asyncio.Future[Sequence[TurnResult]] = asyncio.get_running_loop().create_future()
        self._put(Commit(worker, turns, reply=reply))
        return await reply

    async def call(self, run: Callable[[apsw.Connection], T]) -> T:
        """Run a function on the connection, in its turn."""
        reply: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._put(_Call(run, reply))
        return await reply

    def call_blocking(self, run: Callable[[apsw.Connection], T]) -> T:
        """Do the same without an event loop, from any thread."""
        reply: Future[T] = Future()
        self._put(_Call(run, reply))
        return reply.result()

    def _put(self, job: Commit | _Call[Any]) -> None:
        with self._closing:
            if self._closed:
                raise StoreError(f"The store {self._path} is closed. Enter it with `async with` first.")
            self._queue.put(job)

    def _main(self, opened: Future[None]) -> None:
        try:
            connection = self._connect()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the opener is told
            opened.set_exception(self._translated(error))
            return
        opened.set_result(None)
        waiting: deque[Commit | _Call[Any]] = deque()
        while True:
            if not waiting:
                waiting.append(self._queue.get())
            while not self._queue.empty():
                waiting.append(self._queue.get())
            job = waiting.popleft()
            if isinstance(job, Commit):
                self._commit(connection, _group(job, waiting))
            else:
                self._call(connection, job)
                if job.last:
                    return

    def _commit(self, connection: apsw.Connection, group: Sequence[Commit]) -> None:
        assert self._write is not None, "this thread only reads"
        error: BaseException | None = None
        try:
            self._write(connection, group)
        except BaseException as raised:  # noqa: BLE001 - every waiter is told, and the thread lives on
            error = self._translated(raised)
        _answer([(job.reply, job.results, error or job.error) for job in group])

    def _call(self, connection: apsw.Connection, job: _Call[Any]) -> None:
        result, error = None, None
        try:
            result = job.run(connection)
        except BaseException as raised:  # noqa: BLE001 - the caller is told, and the thread lives on
            error = self._translated(raised)
        if isinstance(job.reply, asyncio.Future):
            _answer([(job.reply, result, error)])
        elif error is None:
            job.reply.set_result(result)
        else:
            job.reply.set_exception(error)

    def _translated(self, error: BaseException) -> BaseException:
        if not isinstance(error, apsw.Error):
            return error
        better = translated(error, self._path)
        better.__cause__ = error if better is not error else None
        return better


def _group(first: Commit, waiting: deque[Commit | _Call[Any]]) -> Sequence[Commit]:
    group, turns = [first], len(first.turns)
    while waiting and isinstance(waiting[0], Commit) and turns < _GROUP_TURNS_MAX:
        group.append(waiting[0])
        turns += len(waiting.popleft().turns)
    return group


def _answer(answers: Sequence[_Answer]) -> None:
    """Wake each loop once, with all that is meant for it."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Answer]] = {}
    for answer in answers:
        by_loop.setdefault(answer[0].get_loop(), []).append(answer)
    for loop, its in by_loop.items():
        try:
            loop.call_soon_threadsafe(_settle, its)
        except RuntimeError:  # that loop is closed: nobody waits any more
            pass


def _settle(answers: Sequence[_Answer]) -> None:
    for reply, result, error in answers:
        if reply.done():  # its waiter was cancelled
            continue
        if error is None:
            reply.set_result(result)
        else:
            reply.set_exception(error)
