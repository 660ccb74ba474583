"""A thread with an event loop and a connection of its own: leases are kept while the caller's loop is blocked.

Calls block their own thread only, and are done one after the other. It must not touch anything of the caller's loop.
Called by the PostgreSQL store, for `renew`.
"""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import Future
from typing import TypeVar

from atone.errors import StoreError
from atone.stores._postgres_line import Dial, Line, Work

T = TypeVar("T")


class LineThread:
    """A line that any thread may use, and that blocks nobody but who waits for it."""

    def __init__(self, dial: Dial, where: str) -> None:
        self._dial = dial
        self._where = where
        self._gate = threading.Lock()
        self._open: tuple[asyncio.AbstractEventLoop, Line, asyncio.Event] | None = None
        self._thread: threading.Thread | None = None
        self._process = 0

    async def open(self) -> None:
        """Start the thread; its connection is made when it is needed."""
        ready: Future[None] = Future()
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._main, args=(ready,), name="atone-postgres-lease", daemon=True)
        self._thread.start()
        await asyncio.wrap_future(ready)

    async def close(self) -> None:
        """End the thread after the calls under way; a second time it does nothing."""
        with self._gate:
            opened, self._open = self._open, None
        thread, self._thread = self._thread, None
        if opened is None or thread is None:
            return
        loop, _, closing = opened
        loop.call_soon_threadsafe(closing.set)
        await asyncio.to_thread(thread.join)

    def do_blocking(self, work: Work[T]) -> T:
        """Return what `work` returns; see `Line.do`."""
        with self._gate:
            if self._open is None:
                raise StoreError(f"The store {self._where} is not open. Enter it with `async with` first.")
            if self._process != os.getpid():  # a fork has no such thread: the call would never come back
                raise StoreError(f"The store {self._where} was opened in another process. Open it after the fork.")
            loop, line, _ = self._open
            reply = asyncio.run_coroutine_threadsafe(line.do(work), loop)
        return reply.result()

    def _main(self, ready: Future[None]) -> None:
        asyncio.run(self._live(ready))

    async def _live(self, ready: Future[None]) -> None:
        line, closing = Line(self._dial, self._where), asyncio.Event()
        with self._gate:
            self._open = asyncio.get_running_loop(), line, closing
        ready.set_result(None)
        await closing.wait()
        await line.close()
