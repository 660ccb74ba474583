"""What the tests of the SQLite store share: a clock, an opened store with a worker, a writer that can be held.

Owns the ways to reach behind the port that tests need: the writer's connection and its queue. Used by the tests
beside it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

from atone.stores._sqlite_group import Change
from atone.stores.sqlite import SqliteStore
from atone.testing._subject import Lab, Subject

ROW_BYTES_MAX = 100_000


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: float = 1_750_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@asynccontextmanager
async def opened(path: Path, *, clock: Clock | None = None, busy_seconds: float = 3.0) -> AsyncIterator[Lab]:
    """Open a store and give the lab around it."""
    time = clock or Clock()
    store = SqliteStore(path, clock=time, busy_seconds=busy_seconds, row_bytes_max=ROW_BYTES_MAX)
    async with store:
        yield Lab(Subject(store, time.advance, ROW_BYTES_MAX))


async def on_writer(lab: Lab, run: Any) -> Any:
    """Run a function of the connection in the writer's thread, outside of what it does otherwise."""
    store = lab.store
    assert isinstance(store, SqliteStore)
    found: list[Any] = []
    work = store._writer._work

    def instead(connection: Any, group: Any) -> None:
        store._writer._work = work
        found.append(run(connection))
        for job in group:
            job.result = None

    store._writer._work = instead
    await store._writer.do(Change(lambda connection, now: None))
    return found[0]


class Held:
    """Holds the writer's thread, so that what is called meanwhile stands in the queue side by side."""

    def __init__(self, lab: Lab) -> None:
        assert isinstance(lab.store, SqliteStore)
        self._store = lab.store
        self._go = threading.Event()
        self._held = threading.Event()

    async def __aenter__(self) -> Self:
        self._job = asyncio.ensure_future(self._store._writer.do(Change(self._wait)))
        await asyncio.to_thread(self._held.wait)
        return self

    def _wait(self, connection: Any, now: float) -> None:
        self._held.set()
        self._go.wait(timeout=30)

    async def until(self, jobs: int) -> None:
        """Wait until so many jobs stand in the queue, from whatever thread or loop they come."""
        while self._store._writer._queue.qsize() < jobs:  # noqa: ASYNC110 - a queue of another thread has no event
            await asyncio.sleep(0)

    async def __aexit__(self, *error: object) -> None:
        await asyncio.sleep(0)  # tasks that were made a moment ago take their places in the queue
        self._go.set()
        await self._job
