"""Choreographed sagas on SQLite: `atone.store.Views` on the store's own writer and reader threads.

Owns the statements on the tables of views. Must not know what an entry means. Called through `SqliteStore.views`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from atone._runtime.ids import SagaKeys
from atone.store import VIEW_OVER_STATUSES, Loaded, Marked, Observed, Query, Row, Summary
from atone.stores._sqlite_connection import Connection
from atone.stores._sqlite_group import Change
from atone.stores._sqlite_read import Look
from atone.stores._sqlite_thread import ConnectionThread

_KEY = "SELECT key FROM views WHERE tenant = ? AND name = ? AND saga_id = ?"
_NUMBER = "SELECT id FROM definitions WHERE name = ? AND version = ? AND plan_hash = ?"
_DEFINE = "INSERT INTO definitions (name, version, plan_hash) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
_BEAR = """
    INSERT INTO views (key, tenant, name, saga_id, definition, status, created_at) VALUES (?, ?, ?, ?, ?, 'pending', ?)
"""
_APPEND = """
    INSERT INTO view_events (saga, position, id, at, entry)
    SELECT ?1, 1 + coalesce((SELECT max(position) FROM view_events WHERE saga = ?1), 0), ?2, ?3, ?4
     WHERE true ON CONFLICT (saga, id) DO NOTHING
"""
_MARK = "UPDATE views SET folded = ?2, status = ?3, wake_at = ?4 WHERE key = ?1 AND folded <= ?2"
_SUMMARY = "SELECT * FROM view_summaries WHERE key = ?"
_EVENTS = "SELECT position, at, CAST(id AS BLOB), entry FROM view_events WHERE saga = ? ORDER BY position"
_MAP = "SELECT plan FROM definitions WHERE name = ? AND version = ? AND plan_hash = ?"
_FIND = """
    SELECT * FROM view_summaries
     WHERE (:tenant IS NULL OR tenant = :tenant) AND (:name IS NULL OR name = :name)
       AND (:saga_id IS NULL OR saga_id = :saga_id)
       AND (:statuses IS NULL OR status IN (SELECT value FROM json_each(:statuses)))
       AND (:keys IS NULL OR hex(key) IN (SELECT value FROM json_each(:keys)))
       AND (:definition_version IS NULL OR version = :definition_version)
       AND (:other_hash_than IS NULL OR plan_hash <> :other_hash_than)
       AND key > :after
     ORDER BY key LIMIT :limit
"""
_OLD = """
    SELECT key FROM views AS v
     WHERE name = ?1 AND status IN (SELECT value FROM json_each(?2)) AND created_at < ?3
       AND NOT EXISTS (SELECT 1 FROM view_events AS e WHERE e.saga = v.key AND e.at >= ?3)
     LIMIT ?4
"""
_FORGET = ("DELETE FROM view_events WHERE saga = ?", "DELETE FROM views WHERE key = ?")
_DUE = "SELECT key FROM views WHERE name = ? AND wake_at <= ? ORDER BY wake_at LIMIT ?"


class SqliteViews:
    """See `atone.store.Views`."""

    def __init__(self, writer: ConnectionThread, reader: ConnectionThread) -> None:
        self._writer, self._reader = writer, reader
        self._ids = SagaKeys()

    async def observe(self, events: Sequence[Observed]) -> Sequence[bytes]:
        def write(connection: Connection, _: float) -> Sequence[bytes]:
            return [self._append(connection, event) for event in events]

        return await self._writer.do(Change(write))

    async def mark(self, marks: Sequence[Marked]) -> None:
        def write(connection: Connection, _: float) -> None:
            for one in marks:
                connection.execute(_MARK, tuple(one))

        await self._writer.do(Change(write))

    async def load(self, keys: Sequence[bytes]) -> Sequence[Loaded | None]:
        return await self._reader.do(Look(lambda connection: _load(connection, keys)))

    async def find(self, query: Query) -> Sequence[Summary]:
        return await self._reader.do(Look(lambda connection: _find(connection, query)))

    async def due(self, name: str, now: float, *, limit: int = 100) -> Sequence[bytes]:
        def look(connection: Connection) -> Sequence[bytes]:
            rows: Any = connection.execute(_DUE, (name, now, limit))
            return [key for (key,) in rows]

        return await self._reader.do(Look(look))

    async def purge(self, name: str, before: float, *, limit: int = 1000) -> int:
        def write(connection: Connection, _: float) -> int:
            values = (name, json.dumps(sorted(VIEW_OVER_STATUSES)), before, limit)
            old: list[tuple[bytes]] = connection.execute(_OLD, values).fetchall()
            for statement in _FORGET:
                connection.executemany(statement, old)
            return len(old)

        return await self._writer.do(Change(write))

    def _append(self, connection: Connection, event: Observed) -> bytes:
        identity = (event.tenant, event.name, event.saga_id)
        found: Any = connection.execute(_KEY, identity).get
        key: bytes = self._ids.next() if found is None else found
        if found is None:
            definition = (event.name, event.version, event.plan_hash)
            connection.execute(_DEFINE, definition)
            number: Any = connection.execute(_NUMBER, definition).get
            connection.execute(_BEAR, (key, *identity, number, event.at))
        connection.execute(_APPEND, (key, event.id, event.at, event.entry))
        return key


def _load(connection: Connection, keys: Sequence[bytes]) -> list[Loaded | None]:
    with connection:  # one snapshot
        return [_load_one(connection, key) for key in keys]


def _load_one(connection: Connection, key: bytes) -> Loaded | None:
    found: Any = connection.execute(_SUMMARY, (key,)).fetchone()
    if found is None:
        return None
    summary = Summary(*found)
    rows: Any = connection.execute(_EVENTS, (key,))
    events = tuple(Row(*row) for row in rows)
    plan: Any = connection.execute(_MAP, (summary.name, summary.definition_version, summary.plan_hash)).get
    return Loaded(summary, events, plan)


def _find(connection: Connection, query: Query) -> Sequence[Summary]:
    values = query._asdict()
    values["after"] = query.after or b""
    values["statuses"] = None if query.statuses is None else json.dumps(sorted(query.statuses))
    values["keys"] = None if query.keys is None else json.dumps([key.hex().upper() for key in query.keys])
    rows: Any = connection.execute(_FIND, values)
    return [Summary(*row) for row in rows]
