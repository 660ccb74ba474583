"""The floor: the rows that Atone writes, written without an engine, by the same library to the same tables.

One writer thread commits whatever is queued in one transaction (apsw, write-ahead log, `synchronous=FULL`); each saga
waits for each of its commits. No checks, versions, leases or recovery: it bounds what an engine can reach, and is
no rival. Must not share code with Atone's commit path; only the schema is the same. Used by `throughput`.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import time
from queue import SimpleQueue
from typing import Any, TypeAlias

import apsw

from atone.stores._sqlite_file import open_file
from benchmarks.order_saga import saga_id
from benchmarks.recording import Recording

_BEAR = """
    INSERT INTO sagas (key, tenant, name, saga_id, definition, status, owner, wake_at, created_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_APPEND = "INSERT INTO journal (saga, version, at, commit_id, entries) VALUES (?, ?, ?, ?, ?)"
_SHOW = "UPDATE sagas SET status = ?, owner = ?, wake_at = ? WHERE key = ?"
_PLAN = "INSERT INTO definitions (name, version, plan_hash, plan) VALUES (?, ?, ?, ?)"

_Columns: TypeAlias = tuple[str | int | float | bytes | None, ...]
# What one commit of one saga writes: a row of `sagas` to insert, a journal row, columns of `sagas` to update.
_Job: TypeAlias = tuple[_Columns | None, _Columns, _Columns | None]


class Floor:
    """Writes recorded sagas under new keys to the file at `path`."""

    def __init__(self, path: str, recording: Recording) -> None:
        self._path = path
        self._recording = recording
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[tuple[_Job, asyncio.Future[None]] | None] = SimpleQueue()
        self._counter = itertools.count(1)
        self._prefix = os.urandom(8)
        self._thread = threading.Thread(target=self._main, name="floor", daemon=True)
        self.turns = 0
        self.batches = 0

    def start(self) -> None:
        """Open the file and begin to write."""
        self._thread.start()

    def close(self) -> None:
        """Write what is queued and close the file."""
        self._queue.put(None)
        self._thread.join()

    async def run_one(self, client: int, number: int) -> None:
        """Write one saga, turn by turn, each durable before the next."""
        recording = self._recording
        key = (time.time_ns() // 1_000_000).to_bytes(6, "big") + os.urandom(10)
        for version, turn in enumerate(recording.turns, start=1):
            now = time.time()
            hot: _Columns | None = None
            if turn.hot is not None:
                owner = recording.worker if turn.hot.owned else None
                hot = (turn.hot.status, owner, turn.hot.wake_at)
            commit_id = self._prefix + next(self._counter).to_bytes(8, "big")
            row: _Columns = (key, version, now, commit_id, turn.entries)
            if version == 1:
                assert hot is not None
                born: _Columns = (key, recording.tenant, recording.name, saga_id(client, number), 1, *hot, now)
                await self._write((born, row, None))
            else:
                await self._write((None, row, None if hot is None else (*hot, key)))

    async def _write(self, job: _Job) -> None:
        durable: asyncio.Future[None] = self._loop.create_future()
        self._queue.put((job, durable))
        await durable

    def _main(self) -> None:
        connection = _opened(self._path)
        connection.execute(_PLAN, self._recording.plan)
        while True:
            batch = [self._queue.get()]
            while not self._queue.empty():
                batch.append(self._queue.get())
            found = [one for one in batch if one is not None]
            if found:
                self._commit(connection, [job for job, _ in found])
                self._loop.call_soon_threadsafe(_answer, [durable for _, durable in found])
            if len(found) < len(batch):
                connection.close()
                return

    def _commit(self, connection: Any, jobs: list[_Job]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(_BEAR, [born for born, _, _ in jobs if born is not None])
        connection.executemany(_APPEND, [row for _, row, _ in jobs])
        connection.executemany(_SHOW, [shown for _, _, shown in jobs if shown is not None])
        connection.execute("COMMIT")
        self.batches += 1
        self.turns += len(jobs)


def _opened(path: str) -> Any:
    """Make the tables and return a connection of the floor's own; apsw's types can't be read by every checker."""
    open_file(path, busy_seconds=3.0).close()
    connection: Any = apsw.Connection(path)
    connection.pragma("synchronous", "FULL")
    mode = connection.pragma("journal_mode")
    if mode != "wal":
        raise AssertionError(f"the floor's file is in journal mode {mode}, which is not what Atone uses")
    return connection


def _answer(waiting: list[asyncio.Future[None]]) -> None:
    for durable in waiting:
        durable.set_result(None)
