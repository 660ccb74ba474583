"""The embedded broker's messages in a store's SQLite file, on a connection and a thread of its own.

All that stands in the queue is one durable transaction; a look that finds nothing takes no lock. The file is opened as
the store opens it, through apsw alone. Must not touch a store's tables. Called by the embedded broker.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from atone.broker import Message, Parked
from atone.brokers._embedded_backend import (
    Claim,
    Ending,
    How,
    headers_out,
    key_out,
    message_of,
    reason_out,
    taken_of,
)
from atone.brokers._embedded_news import is_awaited, tell
from atone.brokers._embedded_walk import WOKEN_MAX, Walk, looked_at_for
from atone.errors import StoreError
from atone.stores._sqlite_connection import Connection
from atone.stores._sqlite_errors import DATA_ERRORS
from atone.stores._sqlite_file import open_file
from atone.stores._sqlite_thread import ConnectionThread, Job

T = TypeVar("T")

BUSY_SECONDS = 3.0
_WATCH_SECONDS = 0.02

_GROUPS = "SELECT group_name FROM broker_topics WHERE topic = ?"
_PUT = "INSERT INTO broker_messages (group_name, id, topic, key, body, headers) VALUES (?, ?, ?, ?, ?, ?)"
_DECLARE = "INSERT INTO broker_topics (group_name, topic) VALUES (?, ?) ON CONFLICT DO NOTHING"
_KNOWS = "SELECT EXISTS (SELECT 1 FROM broker_topics WHERE group_name = ?)"
_LOOK = """
    SELECT EXISTS (SELECT 1 FROM broker_messages INDEXED BY broker_messages_ready WHERE group_name = ?1 AND due_at = 0),
           (SELECT due_at FROM broker_messages INDEXED BY broker_messages_waiting
             WHERE group_name = ?1 AND due_at > 0 ORDER BY due_at LIMIT 1)
"""
_DUE = """
    SELECT seq FROM broker_messages INDEXED BY broker_messages_waiting
     WHERE group_name = ? AND due_at > 0 AND due_at <= ? ORDER BY due_at LIMIT ?
"""
_WAKE = "UPDATE broker_messages SET due_at = 0, holder = NULL WHERE seq = ?"
_OLDEST = """
    SELECT seq, key FROM broker_messages INDEXED BY broker_messages_ready
     WHERE group_name = ? AND due_at = 0 ORDER BY seq LIMIT ?
"""
_IS_THEIRS = """
    SELECT EXISTS (SELECT 1 FROM broker_messages INDEXED BY broker_messages_held
                    WHERE group_name = ? AND key = ? AND holder IS NOT NULL AND holder <> ?)
"""
_FIRST_KEY = """
    SELECT key FROM broker_messages INDEXED BY broker_messages_keys
     WHERE group_name = ? AND due_at = 0 AND key >= ? ORDER BY key LIMIT 1
"""
_OF_KEY = """
    SELECT seq FROM broker_messages INDEXED BY broker_messages_keys
     WHERE group_name = ? AND due_at = 0 AND key = ? ORDER BY seq LIMIT ?
"""
_TAKE = """
    UPDATE broker_messages SET due_at = ?2, holder = ?3, attempts = attempts + 1 WHERE seq = ?1
 RETURNING seq, attempts, id, topic, key, body, headers
"""
_EXTEND = """
    UPDATE broker_messages SET due_at = ?3 WHERE seq = ?1 AND holder = ?2 AND due_at > 0 RETURNING seq
"""
_ACK = "DELETE FROM broker_messages WHERE seq = ? AND due_at IS NOT NULL"
_RETRY = "UPDATE broker_messages SET due_at = ?3, holder = NULL WHERE seq = ?1 AND holder = ?2"
_PARK = """
    UPDATE broker_messages SET due_at = NULL, holder = NULL, parked_at = ?3, reason = ?4 WHERE seq = ?1 AND holder = ?2
"""
_MINE = "SELECT seq FROM broker_messages INDEXED BY broker_messages_held WHERE holder = ? AND holder IS NOT NULL"
_GIVE_BACK = "UPDATE broker_messages SET due_at = 0, holder = NULL, attempts = attempts - ?2 WHERE seq = ?1"
_PARKED = """
    SELECT reason, attempts, parked_at, id, topic, key, body, headers FROM broker_messages
     WHERE group_name = ? AND parked_at IS NOT NULL ORDER BY parked_at, seq LIMIT ?
"""
_UNPARK = """
    UPDATE broker_messages SET due_at = 0, parked_at = NULL, reason = NULL
     WHERE group_name = ? AND id = ? AND parked_at IS NOT NULL RETURNING seq
"""


class _Do(Job[T]):
    """Something to do; what `changes` is done in a transaction."""

    __slots__ = ("changes", "run")

    def __init__(self, run: Callable[[Connection], T], *, changes: bool = True) -> None:
        super().__init__()
        self.run = run
        self.changes = changes


class SqliteMessages:
    """Messages in a file; see `Backend`."""

    def __init__(self, path: str) -> None:
        self.place = str(Path(path).absolute())
        self._walk = Walk()
        self._watching: asyncio.Task[None] | None = None
        self._thread = ConnectionThread(path, lambda: open_file(path, BUSY_SECONDS), _work)

    async def open(self) -> None:
        await self._thread.open()
        self._watching = asyncio.create_task(self._watch(), name="atone-broker-hints")

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        await self._thread.close()

    async def publish(self, messages: Sequence[Message]) -> Sequence[bool]:
        return await self._change(lambda connection: _publish(connection, messages))

    async def declare(self, group: str, topics: Collection[str]) -> None:
        rows = [(group, topic) for topic in sorted(topics)]
        await self._change(lambda connection: _run_many(connection, _DECLARE, rows))

    async def knows(self, group: str) -> bool:
        return await self._look(lambda connection: bool(connection.execute(_KNOWS, (group,)).get))

    async def claim(self, group: str, holder: str, limit: int, patience_seconds: float) -> Claim:
        is_ready, due_at = await self._look(lambda connection: connection.execute(_LOOK, (group,)).fetchone())
        wait_seconds = None if due_at is None else max(0.0, due_at - time.time())
        if not is_ready and (wait_seconds is None or wait_seconds > 0):
            return Claim((), wait_seconds)
        return await self._change(lambda connection: self._claim(connection, group, holder, limit, patience_seconds))

    def _claim(self, connection: Connection, group: str, holder: str, limit: int, patience_seconds: float) -> Claim:
        now = time.time()
        due = connection.execute(_DUE, (group, now, WOKEN_MAX)).fetchall()
        _run_many(connection, _WAKE, due)
        seqs = sorted(_claimable(connection, self._walk, group, holder, limit))
        until = now + patience_seconds
        taken = [taken_of(connection.execute(_TAKE, (seq, until, holder)).fetchall()[0]) for seq in seqs]
        return Claim(taken, None if taken else self._walk.pause(group))

    async def extend(self, holder: str, seqs: Sequence[int], patience_seconds: float) -> Collection[int]:
        def run(connection: Connection) -> set[int]:
            until = time.time() + patience_seconds
            return {row[0] for seq in seqs for row in connection.execute(_EXTEND, (seq, holder, until))}

        return await self._change(run)

    async def end(self, endings: Sequence[Ending]) -> None:
        await self._change(lambda connection: _end(connection, endings))

    async def give_back(self, holder: str, *, keep: Collection[int], seen: bool) -> None:
        kept, less = frozenset(keep), 0 if seen else 1

        def run(connection: Connection) -> None:
            mine = [seq for (seq,) in connection.execute(_MINE, (holder,)).fetchall()]
            _run_many(connection, _GIVE_BACK, [(seq, less) for seq in mine if seq not in kept])

        await self._change(run)

    async def parked(self, group: str, limit: int) -> Sequence[Parked]:
        rows = await self._look(lambda connection: connection.execute(_PARKED, (group, limit)).fetchall())
        return [Parked(message_of(*row[3:8]), row[0], row[1], row[2]) for row in rows]

    async def unpark(self, group: str, message_id: str) -> bool:
        return await self._change(lambda connection: bool(connection.execute(_UNPARK, (group, message_id)).fetchall()))

    async def _watch(self) -> None:
        """Wake who waits when somebody else has written to the file; without this they would look a little later."""
        seen: object = None
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            if not is_awaited(self.place):
                continue
            try:
                found = await self._look(lambda connection: connection.pragma("data_version"))
            except StoreError:
                continue
            if found != seen:
                seen = found
                tell(self.place)

    async def _change(self, run: Callable[[Connection], T]) -> T:
        return await self._thread.do(_Do(run))

    async def _look(self, run: Callable[[Connection], T]) -> T:
        return await self._thread.do(_Do(run, changes=False))


def _work(connection: Connection, group: Sequence[Job[Any]]) -> None:
    """Do a group in one durable transaction; one that changes nothing takes no lock for it."""
    if connection.in_transaction:  # even a roll-back can fail, when the disk does
        connection.execute("ROLLBACK")
    jobs: list[_Do[Any]] = [job for job in group if isinstance(job, _Do)]
    if not any(job.changes for job in jobs):
        for job in jobs:
            job.result = job.run(connection)
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for job in jobs:
            _do_alone(connection, job)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk has rolled back already
            connection.execute("ROLLBACK")
        raise


def _do_alone(connection: Connection, job: _Do[Any]) -> None:
    """Do a job so that a value which can't be stored is its own error, and leaves nothing."""
    connection.execute("SAVEPOINT job")
    try:
        job.result = job.run(connection)
    except DATA_ERRORS as error:
        connection.execute("ROLLBACK TO job")
        job.error = error
    connection.execute("RELEASE job")


def _publish(connection: Connection, messages: Sequence[Message]) -> list[bool]:
    hearing: dict[str, list[str]] = {}
    rows: list[tuple[Any, ...]] = []
    for message in messages:
        if message.topic not in hearing:
            hearing[message.topic] = [row[0] for row in connection.execute(_GROUPS, (message.topic,))]
        known = key_out(message.key), message.body, headers_out(message.headers)
        rows += [(group, message.id, message.topic, *known) for group in hearing[message.topic]]
    _run_many(connection, _PUT, rows)
    return [bool(hearing[message.topic]) for message in messages]


def _claimable(connection: Connection, walk: Walk, group: str, holder: str, limit: int) -> list[int]:
    """Return what may be taken: the oldest, or what has a key that nobody else has, if others have those."""
    looked_at = looked_at_for(limit)
    is_theirs = _Theirs(connection, group, holder)
    oldest = connection.execute(_OLDEST, (group, looked_at)).fetchall()
    found = list(islice((seq for seq, key in oldest if not is_theirs[key]), limit))
    if found or not oldest:
        return found
    keys = list(islice(_keys(connection, group, walk.begin(group)), looked_at))
    walk.went(group, keys, looked_at)
    for key in keys:
        if not is_theirs[key]:
            found += [seq for (seq,) in connection.execute(_OF_KEY, (group, key, limit - len(found)))]
        if len(found) >= limit:
            break
    return found


def _keys(connection: Connection, group: str, begin: bytes) -> Iterator[bytes]:
    """Go through the keys that have something ready, without going through what they have."""
    while row := connection.execute(_FIRST_KEY, (group, begin)).fetchone():
        yield row[0]
        begin = row[0] + b"\x00"


class _Theirs(dict[bytes, bool]):
    """Whether another member has something of a key, looked up once for each."""

    def __init__(self, connection: Connection, group: str, holder: str) -> None:
        super().__init__({b"": False})
        self._connection, self._group, self._holder = connection, group, holder

    def __missing__(self, key: bytes) -> bool:
        found = self[key] = bool(self._connection.execute(_IS_THEIRS, (self._group, key, self._holder)).get)
        return found


def _end(connection: Connection, endings: Sequence[Ending]) -> None:
    now = time.time()
    acks, retries, parks = list[Any](), list[Any](), list[Any]()
    for how, seq, holder, seconds, reason in endings:
        match how:
            case How.ACK:
                acks.append((seq,))
            case How.RETRY:
                retries.append((seq, holder, now + seconds if seconds > 0 else 0.0))
            case How.PARK:
                parks.append((seq, holder, now, reason_out(reason)))
    for statement, rows in ((_ACK, acks), (_RETRY, retries), (_PARK, parks)):
        _run_many(connection, statement, rows)


def _run_many(connection: Connection, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
    if rows:
        connection.executemany(statement, rows)
