"""The embedded broker's messages in a store's PostgreSQL schema, on a few connections of its own.

A member that takes messages holds its group's row while it does, so of one key nobody takes the second before the
first. Must not touch a store's tables. Needs the `postgres` extra. Called by the embedded broker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from functools import partial
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
from atone.brokers._embedded_walk import WOKEN_MAX, Walk, looked_at_for
from atone.brokers._embedded_watch import Watch
from atone.stores import _postgres_schema
from atone.stores._address import place_of
from atone.stores._postgres_dial import Visit, connect, dial
from atone.stores._postgres_line import Connection, Line, Lines, Session, Work
from atone.stores._postgres_place import Place

T = TypeVar("T")

_STATEMENT_SECONDS = 5.0
_QUEUE_STATEMENTS = 10
_LINES = 2

# What is ordered comes from an index, in its order and no more of it than is asked for, even if the plan was made when
# the statistics said that there is next to nothing to be sorted.
_IN_ORDER = "SELECT set_config('enable_bitmapscan', 'off', false), set_config('enable_sort', 'off', false)"

_PUBLISH = """
WITH given AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[], $4::bytea[], $5::text[])
        WITH ORDINALITY AS g (id, topic, key, body, headers, number)
), put AS (
    INSERT INTO atone.broker_messages (group_name, id, topic, key, body, headers)
    SELECT t.group_name, g.id, g.topic, g.key, g.body, g.headers
      FROM given AS g CROSS JOIN LATERAL (
           SELECT h.group_name FROM atone.broker_topics AS h WHERE h.topic = g.topic OFFSET 0) AS t
     ORDER BY g.number
    RETURNING topic
)
SELECT DISTINCT topic FROM put
"""
_BE_A_GROUP = "INSERT INTO atone.broker_groups (name) VALUES ($1) ON CONFLICT DO NOTHING"
_DECLARE = """
INSERT INTO atone.broker_topics (group_name, topic) SELECT $1, t FROM unnest($2::text[]) AS t ON CONFLICT DO NOTHING
"""
_KNOWS = "SELECT EXISTS (SELECT FROM atone.broker_topics WHERE group_name = $1)"
_LOOK = """
SELECT (SELECT r.seq FROM atone.broker_messages AS r
         WHERE r.group_name = $1 AND r.due_at = 0 ORDER BY r.seq LIMIT 1) IS NOT NULL AS is_ready,
       (SELECT w.due_at FROM atone.broker_messages AS w
         WHERE w.group_name = $1 AND w.due_at > 0 ORDER BY w.due_at LIMIT 1) - clock() AS wait_seconds
"""
# A claim waits for no disk: if a crash takes it back, its messages are given again, as they are to be.
_MY_TURN = """
SELECT set_config('synchronous_commit', 'off', true) FROM atone.broker_groups WHERE name = $1 FOR UPDATE
"""
_WAKE = """
UPDATE atone.broker_messages SET due_at = 0, holder = NULL
 WHERE seq = ANY(ARRAY(
       SELECT w.seq FROM atone.broker_messages AS w
        WHERE w.group_name = $1 AND w.due_at > 0 AND w.due_at <= (SELECT clock())
        ORDER BY w.due_at LIMIT $2))
"""
# Looked at are the oldest only, and of their keys each is looked for once among those in others' hands. In place of a
# join a value of a subquery: a plan that is made while the table is empty could go through all of them for each key.
_THEIRS = """(
           SELECT true FROM atone.broker_messages AS h
            WHERE h.group_name = $1 AND h.key = k.key AND h.holder IS NOT NULL AND h.holder <> $2 LIMIT 1)"""
_OLDEST = f"""
WITH oldest AS MATERIALIZED (
    SELECT r.seq, r.key FROM atone.broker_messages AS r
     WHERE r.group_name = $1 AND r.due_at = 0 ORDER BY r.seq LIMIT $4
), theirs AS MATERIALIZED (
    SELECT k.key FROM (SELECT DISTINCT o.key FROM oldest AS o WHERE o.key <> '') AS k
     WHERE {_THEIRS}
)
SELECT o.seq FROM oldest AS o WHERE o.key NOT IN (SELECT t.key FROM theirs AS t) ORDER BY o.seq LIMIT $3
"""  # noqa: S608 - put together of constants
# When others have the keys of all the oldest: the keys that have something ready, a few at a time.
_KEYS = f"""
WITH RECURSIVE keys AS (
    (SELECT r.key, 1 AS number FROM atone.broker_messages AS r
      WHERE r.group_name = $1 AND r.due_at = 0 AND r.key >= $3 ORDER BY r.key LIMIT 1)
     UNION ALL
    SELECT (SELECT r.key FROM atone.broker_messages AS r
             WHERE r.group_name = $1 AND r.due_at = 0 AND r.key > k.key ORDER BY r.key LIMIT 1), k.number + 1
      FROM keys AS k WHERE k.key IS NOT NULL AND k.number < $4
)
SELECT k.key, k.key <> '' AND {_THEIRS} IS NOT NULL AS is_theirs FROM keys AS k WHERE k.key IS NOT NULL
"""  # noqa: S608 - put together of constants
_OF_KEYS = """
SELECT f.seq
  FROM unnest($2::bytea[]) AS k (key) CROSS JOIN LATERAL (
       SELECT r.seq FROM atone.broker_messages AS r
        WHERE r.group_name = $1 AND r.due_at = 0 AND r.key = k.key ORDER BY r.key, r.seq LIMIT $3) AS f
 LIMIT $3
"""
_TAKE = """
UPDATE atone.broker_messages AS m SET due_at = clock() + $3, holder = $2, attempts = m.attempts + 1
 WHERE m.seq = ANY($1::bigint[])
RETURNING m.seq, m.attempts, m.id, m.topic, m.key, m.body, m.headers
"""
# Who holds it is asked in a way that only the row can answer: nothing goes through all that is held.
_EXTEND = """
UPDATE atone.broker_messages SET due_at = clock() + $3 WHERE seq = ANY($2::bigint[]) AND holder IS NOT DISTINCT FROM $1
RETURNING seq
"""
# An end that a crash takes back is a message that comes again, which nobody has been promised not to see.
_ACK = """
WITH quickly AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
DELETE FROM atone.broker_messages AS m USING quickly WHERE m.seq = ANY($1::bigint[]) AND m.due_at IS NOT NULL
"""
_RETRY = """
UPDATE atone.broker_messages AS m
   SET due_at = CASE WHEN e.seconds > 0 THEN clock() + e.seconds ELSE 0 END, holder = NULL
  FROM unnest($1::bigint[], $2::text[], $3::float8[]) AS e (seq, holder, seconds)
 WHERE m.seq = e.seq AND m.holder IS NOT DISTINCT FROM e.holder
"""
_PARK = """
UPDATE atone.broker_messages AS m SET due_at = NULL, holder = NULL, parked_at = clock(), reason = e.reason
  FROM unnest($1::bigint[], $2::text[], $3::text[]) AS e (seq, holder, reason)
 WHERE m.seq = e.seq AND m.holder IS NOT DISTINCT FROM e.holder
"""
_GIVE_BACK = """
UPDATE atone.broker_messages SET due_at = 0, holder = NULL, attempts = attempts - $3
 WHERE holder = $1 AND seq <> ALL($2::bigint[])
"""
_PARKED = """
SELECT reason, attempts, parked_at, id, topic, key, body, headers FROM atone.broker_messages
 WHERE group_name = $1 AND parked_at IS NOT NULL ORDER BY parked_at, seq LIMIT $2
"""
_UNPARK = """
UPDATE atone.broker_messages SET due_at = 0, parked_at = NULL, reason = NULL
 WHERE group_name = $1 AND id = $2 AND parked_at IS NOT NULL RETURNING seq
"""


class PostgresMessages:
    """Messages in a schema; see `Backend`."""

    def __init__(self, dsn: str, schema: str, statement_cache_size: int, *, notify: bool) -> None:
        self._dsn, self._where, self._place = dsn, place_of(dsn), Place(schema)
        self.place = f"{self._where} {schema}"
        self._dial = partial(_dial, dsn, statement_cache_size)
        # A pooler that gives each transaction another connection lets nobody listen.
        self._notifies = notify and statement_cache_size > 0
        self._walk = Walk()
        self._watch: Watch | None = None
        self._under_way: set[asyncio.Task[Any]] = set()
        self._publishing = Line(self._dial, self._where)
        self._ending = Line(self._dial, self._where)
        self._lines = Lines(self._dial, self._where, _LINES, _QUEUE_STATEMENTS * _STATEMENT_SECONDS)

    async def open(self) -> None:
        async with Visit(self._dsn, self._where) as connection:
            await _postgres_schema.migrate(connection, self._place, self._where)
            await _postgres_schema.check(connection, self._place, self._where)
        self._publishing = Line(self._dial, self._where)
        self._ending = Line(self._dial, self._where)
        self._lines = Lines(self._dial, self._where, _LINES, _QUEUE_STATEMENTS * _STATEMENT_SECONDS)
        if self._notifies:
            dial_once = partial(connect, self._dsn, command_timeout=_STATEMENT_SECONDS)
            self._watch = Watch(dial_once, self._place.schema, self.place)

    async def close(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            await watch.close()
        if self._under_way:
            await asyncio.wait(self._under_way)
        await self._publishing.close()
        await self._ending.close()
        await self._lines.close()

    async def publish(self, messages: Sequence[Message]) -> Sequence[bool]:
        columns = (
            [message.id for message in messages],
            [message.topic for message in messages],
            [key_out(message.key) for message in messages],
            [message.body for message in messages],
            [headers_out(message.headers) for message in messages],
        )
        rows = await self._sure(self._publishing, lambda session: session.rows(self._place.sql(_PUBLISH), *columns))
        heard = {row[0] for row in rows}
        if heard and self._watch is not None:
            self._watch.published()
        return [message.topic in heard for message in messages]

    async def declare(self, group: str, topics: Collection[str]) -> None:
        async def work(session: Session) -> None:
            async with session.connection.transaction():
                await session.value(self._place.sql(_BE_A_GROUP), group)
                await session.value(self._place.sql(_DECLARE), group, sorted(topics))

        await self._sure(self._lines, work)

    async def knows(self, group: str) -> bool:
        return bool(await self._value(_KNOWS, group))

    async def claim(self, group: str, holder: str, limit: int, patience_seconds: float) -> Claim:
        async def work(session: Session) -> Claim:
            is_ready, wait_seconds = await session.row(self._place.sql(_LOOK), group)
            is_due = wait_seconds is not None and wait_seconds <= 0
            if not is_ready and not is_due:
                return Claim((), wait_seconds)
            async with session.connection.transaction():
                await session.value(self._place.sql(_MY_TURN), group)
                if is_due:
                    await session.value(self._place.sql(_WAKE), group, WOKEN_MAX)
                seqs = await self._claimable(session, group, holder, limit)
                rows = await session.rows(self._place.sql(_TAKE), seqs, holder, patience_seconds) if seqs else []
            taken = sorted(map(taken_of, rows), key=lambda one: one.seq)
            return Claim(taken, None if taken else self._walk.pause(group))

        return await self._sure(self._lines, work)

    async def _claimable(self, session: Session, group: str, holder: str, limit: int) -> list[int]:
        """Return what may be taken: the oldest, or what has a key that nobody else has, if others have those."""
        looked_at = looked_at_for(limit)
        rows = await session.rows(self._place.sql(_OLDEST), group, holder, limit, looked_at)
        if rows:
            return [row[0] for row in rows]
        begin = self._walk.begin(group)
        keys = await session.rows(self._place.sql(_KEYS), group, holder, begin, looked_at)
        self._walk.went(group, [key for key, _ in keys], looked_at)
        free = [key for key, is_theirs in keys if not is_theirs]
        return [row[0] for row in await session.rows(self._place.sql(_OF_KEYS), group, free, limit)] if free else []

    async def extend(self, holder: str, seqs: Sequence[int], patience_seconds: float) -> Collection[int]:
        return {row[0] for row in await self._rows(_EXTEND, holder, list(seqs), patience_seconds)}

    async def end(self, endings: Sequence[Ending]) -> None:
        acks = sorted(one.seq for one in endings if one.how is How.ACK)
        retries = [one for one in endings if one.how is How.RETRY]
        parks = [one for one in endings if one.how is How.PARK]
        statements: list[tuple[str, tuple[Any, ...]]] = []
        if acks:
            statements.append((_ACK, (acks,)))
        if retries:
            statements.append((_RETRY, (*_names(retries), [one.seconds for one in retries])))
        if parks:
            statements.append((_PARK, (*_names(parks), [reason_out(one.reason) for one in parks])))
        for statement, values in statements:
            await self._sure(self._ending, partial(self._run, statement, values))

    async def give_back(self, holder: str, *, keep: Collection[int], seen: bool) -> None:
        await self._rows(_GIVE_BACK, holder, list(keep), 0 if seen else 1)

    async def parked(self, group: str, limit: int) -> Sequence[Parked]:
        rows = await self._rows(_PARKED, group, limit)
        return [Parked(message_of(*row[3:8]), row[0], row[1], row[2]) for row in rows]

    async def unpark(self, group: str, message_id: str) -> bool:
        return bool(await self._rows(_UNPARK, group, message_id))

    async def _sure(self, lines: Line | Lines, work: Work[T]) -> T:
        """Do work to its end, whoever stops waiting for it: to cut it short would cost the connection."""
        task = asyncio.create_task(lines.do(work), name="atone-broker-work")
        self._under_way.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # heard by whoever still waits, and by nobody otherwise

    async def _run(self, statement: str, values: Sequence[Any], session: Session) -> list[Any]:
        return await session.rows(self._place.sql(statement), *values)

    async def _rows(self, statement: str, *values: Any) -> list[Any]:
        return await self._sure(self._lines, partial(self._run, statement, values))

    async def _value(self, statement: str, *values: Any) -> Any:
        return await self._sure(self._lines, lambda session: session.value(self._place.sql(statement), *values))


async def _dial(dsn: str, statement_cache_size: int) -> Connection:
    """Return a connection as the store's are, whose plans take what is ordered from an index."""
    connection = await dial(dsn, _STATEMENT_SECONDS, _STATEMENT_SECONDS / 2, statement_cache_size)
    if statement_cache_size:
        try:
            await connection.fetch(_IN_ORDER)
        except BaseException:
            connection.terminate()
            raise
    return connection


def _names(endings: Sequence[Ending]) -> tuple[list[int], list[str]]:
    return [one.seq for one in endings], [one.holder for one in endings]
