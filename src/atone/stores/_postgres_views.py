"""Choreographed sagas on PostgreSQL: `atone.store.Views` on the store's own connections.

Owns the statements on the tables of views. A saga's row is locked while its events are appended, so that positions have
no gap. Must not know what an entry means. Called through `PostgresStore.views`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar

from atone._runtime.ids import SagaKeys
from atone.store import VIEW_OVER_STATUSES, Loaded, Marked, Observed, Query, Row, Summary
from atone.stores._postgres_definitions import learn_number
from atone.stores._postgres_line import Session
from atone.stores._postgres_place import Place

T = TypeVar("T")

_BEAR = """
INSERT INTO atone.views (key, tenant, name, saga_id, definition, status, created_at)
VALUES ($1, $2, $3, $4, $5, 'pending', $6) ON CONFLICT (tenant, name, saga_id) DO NOTHING
"""
_LOCK = "SELECT key FROM atone.views WHERE tenant = $1 AND name = $2 AND saga_id = $3 FOR UPDATE"
_APPEND = """
INSERT INTO atone.view_events (saga, position, id, at, entry)
SELECT CAST($1 AS bytea), 1 + coalesce(max(position), 0), CAST($2 AS text), CAST($3 AS float8), CAST($4 AS bytea)
  FROM atone.view_events WHERE saga = $1
    ON CONFLICT (saga, id) DO NOTHING
"""
_MARK = """
UPDATE atone.views AS v SET folded = m.folded, status = m.status, wake_at = m.wake_at
  FROM unnest($1::bytea[], $2::integer[], $3::text[], $4::float8[]) AS m (key, folded, status, wake_at)
 WHERE v.key = m.key AND v.folded <= m.folded
"""
_LOAD = """
SELECT s.*, d.plan, e.position, e.at, convert_to(e.id, 'UTF8'), e.entry
  FROM atone.view_summaries AS s
  JOIN atone.definitions AS d USING (name, version, plan_hash)
  JOIN atone.view_events AS e ON e.saga = s.key
 WHERE s.key = ANY ($1::bytea[]) ORDER BY s.key, e.position
"""
_FIND = """
SELECT * FROM atone.view_summaries
 WHERE ($1::text IS NULL OR tenant = $1) AND ($2::text IS NULL OR name = $2) AND ($3::text IS NULL OR saga_id = $3)
   AND ($4::text[] IS NULL OR status = ANY ($4)) AND ($5::bytea[] IS NULL OR key = ANY ($5))
   AND ($6::integer IS NULL OR version = $6) AND ($7::text IS NULL OR plan_hash <> $7) AND key > $8::bytea
 ORDER BY key LIMIT $9
"""
_IS_OLD = """
name = $1 AND status = ANY ($2::text[]) AND created_at < $3
   AND NOT EXISTS (SELECT 1 FROM atone.view_events AS e WHERE e.saga = v.key AND e.at >= $3)
"""
_LOCK_OLD = f"SELECT key FROM atone.views AS v WHERE {_IS_OLD} LIMIT $4 FOR UPDATE SKIP LOCKED"  # noqa: S608 - of constants
# A statement of its own, so that it sees what was appended until the rows were locked.
_FORGET = f"""
WITH old AS (SELECT key FROM atone.views AS v WHERE {_IS_OLD} AND key = ANY ($4::bytea[])),
     events AS (DELETE FROM atone.view_events WHERE saga IN (SELECT key FROM old)),
     gone AS (DELETE FROM atone.views WHERE key IN (SELECT key FROM old) RETURNING key)
SELECT count(*) FROM gone
"""  # noqa: S608 - put together of constants
_DUE = "SELECT key FROM atone.views WHERE name = $1 AND wake_at <= $2 ORDER BY wake_at LIMIT $3"

_SUMMARY = slice(len(Summary._fields))
_PLAN = len(Summary._fields)
_ROW = slice(_PLAN + 1, None)


class Do(Protocol):
    """How work is done on one of the store's connections."""

    def __call__(self, work: Callable[[Session], Awaitable[T]], /) -> Awaitable[T]: ...


class PostgresViews:
    """See `atone.store.Views`."""

    def __init__(self, do: Do, place: Place) -> None:
        self._do, self._place = do, place
        self._ids = SagaKeys()

    async def observe(self, events: Sequence[Observed]) -> Sequence[bytes]:
        async def write(session: Session) -> Sequence[bytes]:
            numbers = [
                await learn_number(session, self._place, (one.name, one.version, one.plan_hash)) for one in events
            ]
            # In one order for everybody, so that two views never wait for each other.
            order = sorted(range(len(events)), key=lambda at: (*events[at][:2], events[at].saga_id, at))
            keys: dict[int, bytes] = {}
            async with session.connection.transaction():
                for at in order:
                    keys[at] = await self._append(session, events[at], numbers[at])
            return [keys[at] for at in range(len(events))]

        return await self._do(write)

    async def mark(self, marks: Sequence[Marked]) -> None:
        marks = sorted(marks, key=lambda one: one.key)
        columns: list[list[Any]] = [[one[at] for one in marks] for at in range(len(Marked._fields))]
        await self._do(lambda session: session.value(self._place.sql(_MARK), *columns))

    async def load(self, keys: Sequence[bytes]) -> Sequence[Loaded | None]:
        records = await self._do(lambda session: session.rows(self._place.sql(_LOAD), list({*keys})))
        found: dict[bytes, Loaded] = {}
        for record in records:
            key, row = record[0], Row(*record[_ROW])
            before = found.get(key)
            rows = (row,) if before is None else (*before.rows, row)
            found[key] = Loaded(Summary(*record[_SUMMARY]), rows, record[_PLAN])
        return [found.get(key) for key in keys]

    async def find(self, query: Query) -> Sequence[Summary]:
        values: tuple[Any, ...] = (
            query.tenant,
            query.name,
            query.saga_id,
            None if query.statuses is None else sorted(query.statuses),
            None if query.keys is None else list(query.keys),
            query.definition_version,
            query.other_hash_than,
            query.after or b"",
            query.limit,
        )
        records = await self._do(lambda session: session.rows(self._place.sql(_FIND), *values))
        return [Summary(*record) for record in records]

    async def due(self, name: str, now: float, *, limit: int = 100) -> Sequence[bytes]:
        records = await self._do(lambda session: session.rows(self._place.sql(_DUE), name, now, limit))
        return [record["key"] for record in records]

    async def purge(self, name: str, before: float, *, limit: int = 1000) -> int:
        old = (name, sorted(VIEW_OVER_STATUSES), before)

        async def write(session: Session) -> int:
            async with session.connection.transaction():
                locked = await session.rows(self._place.sql(_LOCK_OLD), *old, limit)
                keys = [record["key"] for record in locked]
                count: int = await session.value(self._place.sql(_FORGET), *old, keys) if keys else 0
            return count

        return await self._do(write)

    async def _append(self, session: Session, event: Observed, number: int) -> bytes:
        identity = (event.tenant, event.name, event.saga_id)
        key: bytes | None = None
        while key is None:  # until it is there: it may be purged in between
            await session.value(self._place.sql(_BEAR), self._ids.next(), *identity, number, event.at)
            key = await session.value(self._place.sql(_LOCK), *identity)
        await session.value(self._place.sql(_APPEND), key, event.id, event.at, event.entry)
        return key
