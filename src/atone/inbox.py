"""The participant's inbox: which messages a consumer has taken in, written in the transaction of what they changed.

Owns one row for each message and consumer, written first, so that of two deliveries of one message the second waits for
the first and then does nothing; what was begun says so until it is ended, so that half of a handling does not pass for
a duplicate. Also counts what failed, for that must outlive a rollback. Must not begin, commit or
roll back a transaction. Called by participants, and by any service that consumes messages in its own way.
"""

from __future__ import annotations

from typing import NamedTuple

from atone._connections.face import Dialect, face_of
from atone._participant.sql import NOW, checked_table, joined
from atone.errors import BarrierMisplaced, PayloadError

__all__ = ["Inbox", "Tries"]

_CREATE: dict[Dialect, str] = {
    "postgresql": """
CREATE TABLE IF NOT EXISTS {table} (
    consumer  text    NOT NULL,
    message   text    NOT NULL,
    is_done   integer NOT NULL,
    failures  integer NOT NULL DEFAULT 0,
    deferrals integer NOT NULL DEFAULT 0,
    at        float8  NOT NULL,
    PRIMARY KEY (consumer, message)
)""",
    "sqlite": """
CREATE TABLE IF NOT EXISTS {table} (
    consumer  TEXT    NOT NULL,
    message   TEXT    NOT NULL,
    is_done   INTEGER NOT NULL,
    failures  INTEGER NOT NULL DEFAULT 0,
    deferrals INTEGER NOT NULL DEFAULT 0,
    at        REAL    NOT NULL,
    PRIMARY KEY (consumer, message)
) WITHOUT ROWID""",
}
# A row that only counts failures is taken over; one that is done is left alone, and nothing is returned.
_TAKE = """
INSERT INTO {table} AS taken (consumer, message, is_done, at) VALUES (:consumer, :message, :is_done, {now})
    ON CONFLICT (consumer, message) DO UPDATE SET is_done = :is_done, at = {now} WHERE taken.is_done = 0
RETURNING failures + deferrals"""
_STANDS = "SELECT is_done FROM {table} WHERE consumer = :consumer AND message = :message"
_END = """
UPDATE {table} SET is_done = 1 WHERE consumer = :consumer AND message = :message AND is_done = :begun
RETURNING 1"""
_COUNT = """
INSERT INTO {table} AS taken (consumer, message, is_done, failures, deferrals, at)
VALUES (:consumer, :message, 0, :failures, :deferrals, {now})
    ON CONFLICT (consumer, message) DO UPDATE
       SET failures = taken.failures + :failures, deferrals = taken.deferrals + :deferrals, at = {now}
RETURNING failures, deferrals"""
_PURGE = """
DELETE FROM {table} WHERE (consumer, message) IN (
    SELECT consumer, message FROM {table} WHERE at < {now} - CAST(:seconds AS float8) LIMIT :most)
RETURNING 1"""

_ID_LENGTH_MAX = 400
# What `is_done` is: 0 counts failures alone, 1 is done. 2 is seen by others only if a handler has committed by itself.
_DONE, _BEGUN = 1, 2

_HALF = (
    "The handling of message {message!r} at {consumer} ended its transaction itself, and did not come to its end: some "
    "of its rows stand, and what should go with them does not. Leave commit and rollback to whoever calls the handler. "
    "Settle it by hand, then set is_done to 1 in the message's row of {table}, or delete it to have all done anew."
)
_GONE = (
    "The handling of message {message!r} at {consumer} rolled its transaction back itself, or never began here. "
    "Leave commit and rollback to whoever calls the handler, and raise to have all taken back."
)


class Tries(NamedTuple):
    """How often a message has failed at a consumer, and how often it was put off because it came too early."""

    failures: int
    deferrals: int


class Inbox:
    """Take each message in once for each consumer, in the consumer's own database: PostgreSQL or SQLite.

    Connections are those that `Barrier` takes. `table` is made by `create_table`, or by your migrations from
    `table_sql`. Consumers that share a database each have a name of their own.
    """

    def __init__(self, *, table: str = "atone_inbox") -> None:
        self._table = checked_table(table)

    def table_sql(self, dialect: Dialect) -> str:
        """Return the statement that makes the table, for your own migrations."""
        return self._sql(_CREATE, dialect)

    async def create_table(self, connection: object) -> None:
        """Make the table, if it is not there."""
        face = face_of(connection)
        await face.run(self.table_sql(face.dialect))

    async def take(self, connection: object, consumer: str, message_id: str) -> bool:
        """Write down that the consumer takes this message in; False if it has done so before.

        Call it first, within your transaction; it counts when you commit. A second delivery at the same time waits
        for this transaction. After False, acknowledge the message and do nothing else.

        Raises:
            BarrierMisplaced: The connection is in no transaction. Nothing was written.
        """
        face = await joined(connection)
        values: dict[str, object] = {**_named(consumer, message_id), "is_done": _DONE}
        return bool(await face.run(self._sql(_TAKE, face.dialect), values))

    async def begin(self, connection: object, consumer: str, message_id: str) -> int | None:
        """Do as `take`, and return how often it had failed or come too early; None for a second delivery.

        Call `end` last, in the same transaction. If somebody commits in between, no later delivery passes for a second
        one, as it would after `take`.

        Raises:
            BarrierMisplaced: The connection is in no transaction; or a handling was committed that never ended.
        """
        face = await joined(connection)
        names = _named(consumer, message_id)
        rows = await face.run(self._sql(_TAKE, face.dialect), {**names, "is_done": _BEGUN})
        if rows:
            return int(rows[0][0])
        if (_BEGUN,) in await face.run(self._sql(_STANDS, face.dialect), names):
            raise BarrierMisplaced(_HALF.format(table=self._table, **names))
        return None

    async def end(self, connection: object, consumer: str, message_id: str) -> None:
        """Write down that what was begun is done; it counts when you commit.

        Raises:
            BarrierMisplaced: The connection is in no transaction, or what was begun is not there: it was rolled back.
        """
        face = await joined(connection)
        names = _named(consumer, message_id)
        if not await face.run(self._sql(_END, face.dialect), {**names, "begun": _BEGUN}):
            raise BarrierMisplaced(_GONE.format(**names))

    async def count(self, connection: object, consumer: str, message_id: str, *, deferred: bool = False) -> Tries:
        """Count one more failure, or one more time that it came too early; in a transaction after the rollback."""
        face = await joined(connection)
        counts = {"failures": int(not deferred), "deferrals": int(deferred)}
        (found,) = await face.run(self._sql(_COUNT, face.dialect), {**_named(consumer, message_id), **counts})
        return Tries(*found)

    async def purge(self, connection: object, *, older_than_days: float, limit: int = 10_000) -> int:
        """Delete at most `limit` older rows and return how many; keep them longer than a broker may repeat itself."""
        if older_than_days < 1:
            raise ValueError("older_than_days= is at least 1: what is purged is taken in again if it comes again.")
        face = face_of(connection)
        values = {"seconds": older_than_days * 86_400.0, "most": limit}
        return len(await face.run(self._sql(_PURGE, face.dialect), values))

    def _sql(self, statement: str | dict[Dialect, str], dialect: Dialect) -> str:
        text = statement if isinstance(statement, str) else statement[dialect]
        return text.format(table=self._table, now=NOW[dialect])


def _named(consumer: str, message_id: str) -> dict[str, str]:
    for given in (consumer, message_id):
        if not 1 <= len(given) <= _ID_LENGTH_MAX or "\0" in given:
            raise PayloadError(f"Consumers and messages have names of 1 to {_ID_LENGTH_MAX} characters without NUL.")
    return {"consumer": consumer, "message": message_id}
