"""The participant's outbox: messages written in the transaction of the change that they tell of, published later.

Owns one row for each message that no broker has yet, in the service's own database. A relay claims the first row of
each key by writing its name into it, never by a number that was seen last, so what commits late goes out all the same.
Must not begin, commit or roll back a transaction, except `Relaying`, which has transactions of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from atone._connections.face import Dialect, Face, face_of
from atone._participant.database import Database
from atone._participant.sql import NOW, SKIPPING, TEXTS, checked_table, joined
from atone.broker import Message, Outgoing, Relayed
from atone.stores._messages import headers_of_text

__all__ = ["Relaying", "ServiceOutbox", "SetAside", "Waiting"]

_CREATE: dict[Dialect, tuple[str, ...]] = {
    "postgresql": (
        """
CREATE TABLE IF NOT EXISTS {table} (
    ref           bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id            text    NOT NULL UNIQUE,
    topic         text    NOT NULL,
    key           text    NOT NULL,
    body          bytea   NOT NULL,
    headers       text    NOT NULL,
    at            float8  NOT NULL,
    claimed_by    text,
    claimed_until float8,
    refused       text
)""",
        "CREATE INDEX IF NOT EXISTS {index}_by_key ON {table} (key, ref) WHERE refused IS NULL",
    ),
    "sqlite": (
        """
CREATE TABLE IF NOT EXISTS {table} (
    ref           INTEGER PRIMARY KEY AUTOINCREMENT,
    id            TEXT    NOT NULL UNIQUE,
    topic         TEXT    NOT NULL,
    key           TEXT    NOT NULL,
    body          BLOB    NOT NULL,
    headers       TEXT    NOT NULL,
    at            REAL    NOT NULL,
    claimed_by    TEXT,
    claimed_until REAL,
    refused       TEXT
)""",
        "CREATE INDEX IF NOT EXISTS {index}_by_key ON {table} (key, ref) WHERE refused IS NULL",
    ),
}
_ADD = """
INSERT INTO {table} (id, topic, key, body, headers, at) VALUES (:id, :topic, :key, :body, :headers, {now})
    ON CONFLICT (id) DO NOTHING"""
_PUBLISHED = "DELETE FROM {table} WHERE ref IN (SELECT CAST(value AS bigint) FROM ({refs}) AS named)"
_REFUSED = "UPDATE {table} SET refused = :reason, claimed_by = NULL WHERE ref = :ref"
# The first of each key, if nobody has it; messages without a key stand for themselves.
_CLAIM = """
WITH heads AS MATERIALIZED (
    SELECT ref FROM {table} AS one
     WHERE refused IS NULL AND (claimed_until IS NULL OR claimed_until < {now})
       AND (key = '' OR NOT EXISTS (
            SELECT 1 FROM {table} AS sooner
             WHERE sooner.key = one.key AND sooner.ref < one.ref AND sooner.refused IS NULL))
     ORDER BY ref LIMIT :most {skip_locked})
UPDATE {table} SET claimed_by = :relay, claimed_until = {now} + CAST(:seconds AS float8)
 WHERE ref IN (SELECT ref FROM heads)
RETURNING ref, id, topic, key, body, headers, at, {now}"""
_NOW = "SELECT {now}"
_ANY = "SELECT {now}, EXISTS (SELECT 1 FROM {table} WHERE refused IS NULL)"
_WAITING = "SELECT count(*), min(at), {now} FROM {table} WHERE refused IS NULL"
_SET_ASIDE = "SELECT id, topic, refused FROM {table} WHERE refused IS NOT NULL ORDER BY ref LIMIT :most"
_TAKE_BACK = """
DELETE FROM {table} WHERE id = :id AND refused IS NOT NULL RETURNING id, topic, key, body, headers"""


class Waiting(NamedTuple):
    """What no broker has yet: how many messages, and for how long the oldest one waits."""

    messages: int
    oldest_seconds: float


class SetAside(NamedTuple):
    """A message that the broker refuses for good, and why; it stays in the table until a person decides."""

    message_id: str
    topic: str
    reason: str


class ServiceOutbox:
    """Keep messages in the service's own database until a broker has them: PostgreSQL or SQLite.

    Connections are those that `Barrier` takes. `table` is made by `create_table`, or by your migrations from
    `table_sql`. Messages with one key go out in the order in which they were added.
    """

    def __init__(self, *, table: str = "atone_outbox") -> None:
        self._table = checked_table(table)

    def table_sql(self, dialect: Dialect) -> str:
        """Return the statements that make the table and its index, for your own migrations."""
        return ";\n".join(self._statements(dialect))

    async def create_table(self, connection: object) -> None:
        """Make the table and its index, if they are not there."""
        face = face_of(connection)
        for statement in self._statements(face.dialect):
            await face.run(statement)

    async def add(self, connection: object, messages: Sequence[Message]) -> None:
        """Write messages within your transaction; they go out once you have committed, and not if you roll back.

        A message whose id is in the table already is left out.

        Raises:
            BarrierMisplaced: The connection is in no transaction. Nothing was written.
        """
        face = await joined(connection)
        for message in messages:
            headers = msgspec.json.encode(dict(message.headers)).decode()
            await face.run(self._sql(_ADD, face), {**message._asdict(), "headers": headers})

    async def relay(
        self,
        connection: object,
        relay: str,
        *,
        published: Collection[int],
        refused: Mapping[int, str],
        limit: int,
        lease_seconds: float,
    ) -> Relayed:
        """Do within your transaction what `atone.broker.Outbox` asks for."""
        face = await joined(connection)
        if published:
            await face.run(self._sql(_PUBLISHED, face), {"refs": _as_list(published)})
        for ref, reason in refused.items():
            await face.run(self._sql(_REFUSED, face), {"ref": ref, "reason": reason})
        claim = {"relay": relay, "seconds": float(lease_seconds), "most": limit}
        rows = await face.run(self._sql(_CLAIM, face), claim) if limit else []
        (now,) = (rows or await face.run(self._sql(_NOW, face)))[0][-1:]
        return Relayed(tuple(_outgoing(row) for row in sorted(rows)), now)

    async def nothing_since(self, connection: object) -> float | None:
        """Return the database's time if there is nothing to relay; None if there may be."""
        face = face_of(connection)
        ((now, some),) = await face.run(self._sql(_ANY, face))
        return None if some else float(now)

    async def waiting(self, connection: object) -> Waiting:
        """Count what no broker has yet."""
        face = face_of(connection)
        ((messages, oldest, now),) = await face.run(self._sql(_WAITING, face))
        return Waiting(messages, 0.0 if oldest is None else max(0.0, now - oldest))

    async def set_aside(self, connection: object, *, limit: int = 100) -> list[SetAside]:
        """Return what a broker refuses for good, oldest first."""
        face = face_of(connection)
        return [SetAside(*row) for row in await face.run(self._sql(_SET_ASIDE, face), {"most": limit})]

    async def post_again(self, connection: object, message_id: str) -> bool:
        """Have a message that was set aside wait once more, behind all that waits; False if there is none.

        Raises:
            BarrierMisplaced: The connection is in no transaction. Nothing was written.
        """
        face = await joined(connection)
        rows = await face.run(self._sql(_TAKE_BACK, face), {"id": message_id})
        for row in rows:
            named = dict(zip(("id", "topic", "key", "body", "headers"), row, strict=True))
            await face.run(self._sql(_ADD, face), {**named, "body": bytes(named["body"])})
        return bool(rows)

    async def drop_set_aside(self, connection: object, message_id: str) -> bool:
        """Forget a message that was set aside, for good; False if there is none. What waits is never dropped.

        Raises:
            BarrierMisplaced: The connection is in no transaction. Nothing was written.
        """
        face = await joined(connection)
        return bool(await face.run(self._sql(_TAKE_BACK, face), {"id": message_id}))

    def _statements(self, dialect: Dialect) -> list[str]:
        index = self._table.rpartition(".")[2]
        return [one.format(table=self._table, index=index) for one in _CREATE[dialect]]

    def _sql(self, statement: str, face: Face) -> str:
        dialect = face.dialect
        return statement.format(
            table=self._table, now=NOW[dialect], refs=TEXTS[dialect].format(name="refs"), skip_locked=SKIPPING[dialect]
        )


class Relaying:
    """A service's outbox as a relay wants it: each call in a transaction of its own. `database` as for `serve`."""

    def __init__(self, outbox: ServiceOutbox, database: Database) -> None:
        self._outbox, self._database = outbox, database

    async def relay(
        self, relay: str, *, published: Collection[int], refused: Mapping[int, str], limit: int, lease_seconds: float
    ) -> Relayed:
        """See `atone.broker.Outbox`."""

        async def work(connection: Any) -> Relayed:
            if not published and not refused:
                nothing = await self._outbox.nothing_since(connection)
                if nothing is not None:  # no lock is taken for a look that finds nothing
                    return Relayed((), nothing)
            return await self._outbox.relay(
                connection, relay, published=published, refused=refused, limit=limit, lease_seconds=lease_seconds
            )

        return await self._database.run(work)


def _as_list(refs: Collection[int]) -> str:
    return msgspec.json.encode(list(refs)).decode()


def _outgoing(row: tuple[Any, ...]) -> Outgoing:
    ref, message_id, topic, key, body, headers, at, _ = row
    return Outgoing(ref, Message(message_id, topic, key, bytes(body), headers_of_text(headers)), at)
