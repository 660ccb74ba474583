"""The SQLite store: one file, one writer thread with group commit, one reader thread.

Owns the wiring of the port to statements that live in its private siblings; apsw only, since a second SQLite library in
this process would drop the first one's locks. The file is Atone's alone. Called through the port, and by `open_store`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import apsw

from atone.broker import Relayed
from atone.errors import StoreError
from atone.store import (
    NO_LIMITS,
    Census,
    Claimed,
    Delivered,
    Delivery,
    Lease,
    Loaded,
    Outstanding,
    Query,
    SetAside,
    StoredPlan,
    Summary,
    Turn,
    TurnResult,
)
from atone.stores import _sqlite_claim, _sqlite_outbox, _sqlite_read, _sqlite_requests, _sqlite_start
from atone.stores._messages import is_too_large
from atone.stores._sqlite_connection import Connection
from atone.stores._sqlite_file import open_file
from atone.stores._sqlite_group import Change, Commit, write_group
from atone.stores._sqlite_read import Look, answer_each
from atone.stores._sqlite_thread import ConnectionThread, Job
from atone.stores._sqlite_views import SqliteViews


class SqliteStore:
    """Keep sagas in an SQLite file, durably: write-ahead log, `synchronous=FULL`.

    `clock` returns epoch seconds. `busy_seconds` is how long a call waits for another process; keep it below a third
    of the lease. A row of more than `row_bytes_max` is refused.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        clock: Callable[[], float] = time.time,
        busy_seconds: float = 3.0,
        row_bytes_max: int = 64 * 1024 * 1024,
    ) -> None:
        self._path = str(path)
        if "\x00" in self._path:
            raise StoreError(f"{self._path!r} names no file: it holds a NUL. Name another file for the store.")
        self._clock = clock
        self._busy_seconds = busy_seconds
        self._row_bytes_max = row_bytes_max
        self._claims = count()
        self._entered = False
        self._writer = ConnectionThread(self._path, self._open_writer, self._write)
        self._reader = ConnectionThread(self._path, self._open_reader, answer_each)
        self.views = SqliteViews(self._writer, self._reader)

    async def __aenter__(self) -> Self:
        if self._entered:
            raise StoreError(f"The store {self._path} is already open; give each orchestrator its own store object.")
        self._entered = True
        try:
            await self._writer.open()
            await self._reader.open()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        try:
            await self._reader.close()
            await self._writer.close()
        finally:
            self._entered = False

    def renew(self, worker: str | None, lease_seconds: float, *, register: Sequence[StoredPlan] | None = None) -> Lease:
        if worker is None and not register:  # the reader waits for no writer
            now = self._reader.do_blocking(Look(lambda _: self._clock()))
            return Lease(now, now)
        return self._writer.do_blocking(
            Change(lambda connection, now: _sqlite_claim.renew(connection, now, worker, lease_seconds, register))
        )

    async def commit(self, worker: str | None, turns: Sequence[Turn]) -> Sequence[TurnResult]:
        return await self._writer.do(Commit(worker, turns))

    async def start(self, turn: Turn, *, connection: object) -> TurnResult:
        if is_too_large(turn, self._row_bytes_max):
            return TurnResult.REFUSED
        return _sqlite_start.start(turn, connection, self._path, self._clock())

    async def load(self, keys: Sequence[bytes], *, after: int = 0, with_plan: bool = False) -> Sequence[Loaded | None]:
        return await self._reader.do(Look(lambda connection: _sqlite_read.load(connection, keys, after, with_plan)))

    async def claim(
        self,
        worker: str,
        *,
        definitions: Collection[tuple[str, int, str]],
        known: Collection[bytes],
        limit: int,
        lease_seconds: float,
        limits: Mapping[str, int] = NO_LIMITS,
    ) -> Claimed:
        wish = _sqlite_claim.Wish(
            worker, frozenset(definitions), frozenset(known), limit, lease_seconds, next(self._claims), limits
        )
        return await self._writer.do(Change(lambda connection, now: _sqlite_claim.claim(connection, now, wish)))

    async def deliver(self, delivery: Delivery) -> Delivered:
        return await self._writer.do(
            Change(lambda connection, now: _sqlite_requests.deliver(connection, now, delivery))
        )

    async def find(self, query: Query) -> Sequence[Summary]:
        return await self._reader.do(Look(lambda connection: _sqlite_read.find(connection, query)))

    async def relay(
        self, relay: str, *, published: Collection[int], refused: Mapping[int, str], limit: int, lease_seconds: float
    ) -> Relayed:
        # An idle relay asks often: that needs neither the writer nor the file's lock.
        if not published and not refused and await self._reader.do(Look(_sqlite_outbox.is_empty)):
            return Relayed((), self._clock())
        wish = _sqlite_outbox.Wish(relay, published, refused, limit, lease_seconds)
        return await self._writer.do(Change(lambda connection, now: _sqlite_outbox.relay(connection, now, wish)))

    async def outstanding(self) -> Outstanding:
        """Count what waits to be published and what was set aside."""
        return await self._reader.do(Look(lambda connection: _sqlite_outbox.count(connection, self._clock())))

    async def set_aside(self, *, limit: int = 100) -> Sequence[SetAside]:
        """Return what was set aside, oldest first."""
        return await self._reader.do(Look(lambda connection: _sqlite_outbox.set_aside(connection, limit)))

    async def post_again(self, message_id: str) -> bool:
        """Have a message that was set aside wait once more; see `atone.store.Posting`."""
        return await self._writer.do(
            Change(lambda connection, now: _sqlite_outbox.post_again(connection, now, message_id))
        )

    async def drop_set_aside(self, message_id: str) -> bool:
        """Forget a message that was set aside; see `atone.store.Posting`."""
        return await self._writer.do(Change(lambda connection, _: _sqlite_outbox.drop(connection, message_id)))

    async def census(self) -> Census:
        """Count the unfinished sagas by name and status."""
        counts = await self._reader.do(Look(_sqlite_read.count))
        return Census(self._clock(), counts)

    def _open_writer(self) -> Connection:
        connection = open_file(self._path, self._busy_seconds)
        connection.limit(apsw.SQLITE_LIMIT_LENGTH, self._row_bytes_max)
        return connection

    def _open_reader(self) -> Connection:
        connection = open_file(self._path, self._busy_seconds)
        connection.pragma("query_only", True)
        return connection

    def _write(self, connection: Connection, group: Sequence[Job[Any]]) -> None:
        write_group(connection, group, self._clock)
