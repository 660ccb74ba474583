"""The outbox on SQLite: messages are written with their turns, claimed by relays, and forgotten once published.

Owns who may be given what: of each key the oldest ones, and nothing behind what is claimed. It must not read a body.
Called by the adapter: what writes in the writer thread, what looks in the reader thread.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from atone.broker import Message, Outgoing, Relayed
from atone.store import Outstanding, SetAside, Turn
from atone.stores._messages import LOOKED_AT, headers_of_text, headers_to_text
from atone.stores._sqlite_connection import Connection

POST = "INSERT INTO outbox (id, topic, key, body, headers, at) VALUES (?, ?, ?, ?, ?, ?)"

_FORGET = "DELETE FROM outbox WHERE ref = ?"
_SET_ASIDE = """
    INSERT INTO set_aside (ref, id, topic, key, body, headers, at, why, set_aside_at)
    SELECT ref, id, topic, key, body, headers, at, ?2, ?3 FROM outbox WHERE ref = ?1
"""
# The head of a key is the oldest message of it; while that one is claimed, the whole key is. Heads are looked for among
# the oldest messages, so that a look costs the same however many wait.
_HEADS = """
    SELECT ref, key FROM outbox AS o
     WHERE (claimed_until <= ?1 OR claimed_by = ?3)
       AND ref < coalesce((SELECT ref FROM outbox ORDER BY ref LIMIT 1 OFFSET ?4), 9223372036854775807)
       AND NOT EXISTS (SELECT 1 FROM outbox AS e WHERE e.key = o.key AND e.ref < o.ref)
     ORDER BY ref LIMIT ?2
"""
# When all of the oldest are in somebody's hands: each key's head is looked at, however long the queues behind them are.
_HEADS_OF_ALL_KEYS = """
    WITH RECURSIVE keys AS (
        SELECT min(key) AS key FROM outbox
         UNION ALL
        SELECT (SELECT min(o.key) FROM outbox AS o WHERE o.key > keys.key) FROM keys WHERE keys.key IS NOT NULL
    ), first AS (
        SELECT (SELECT min(ref) FROM outbox AS o WHERE o.key = keys.key) AS ref FROM keys WHERE keys.key IS NOT NULL
    )
    SELECT o.ref, o.key FROM first CROSS JOIN outbox AS o ON o.ref = first.ref
     WHERE o.claimed_until <= ?1 OR o.claimed_by = ?3
     ORDER BY o.ref LIMIT ?2
"""
_IS_MORE = "SELECT EXISTS (SELECT 1 FROM outbox ORDER BY ref LIMIT 1 OFFSET ?)"
_OF_KEY = "SELECT ref FROM outbox WHERE key = ? ORDER BY ref LIMIT ?"
_READ = "SELECT ref, id, topic, key, body, headers, at FROM outbox WHERE ref = ?"
_CLAIM = "UPDATE outbox SET claimed_by = ?, claimed_until = ? WHERE ref = ?"
_IS_ANY = "SELECT EXISTS (SELECT 1 FROM outbox)"
_COUNT = "SELECT count(*), min(at), (SELECT count(*) FROM set_aside) FROM outbox"
_ASIDE = "SELECT id, topic, key, body, headers, why, set_aside_at FROM set_aside ORDER BY ref LIMIT ?"
_POST_AGAIN = """
    INSERT INTO outbox (id, topic, key, body, headers, at)
    SELECT id, topic, key, body, headers, ?2 FROM set_aside WHERE id = ?1 ORDER BY ref
"""
_DROP = "DELETE FROM set_aside WHERE id = ? RETURNING ref"


class Wish(NamedTuple):
    """What a relay tells and asks for."""

    relay: str
    published: Collection[int]
    refused: Mapping[int, str]
    limit: int
    lease_seconds: float


def posted_rows(turn: Turn, now: float) -> list[tuple[Any, ...]]:
    """Return the values of a turn's messages, for `POST`."""
    return [
        (one.id, one.topic, one.key, one.body, headers_to_text(one.headers), now) for one in turn.messages
    ]  # fmt: skip


def relay(connection: Connection, now: float, wish: Wish) -> Relayed:
    """Forget and set aside what a relay tells of, and hand out what nobody has in hand."""
    connection.executemany(_SET_ASIDE, [(ref, why, now) for ref, why in wish.refused.items()])
    connection.executemany(_FORGET, [(ref,) for ref in (*wish.published, *wish.refused)])
    refs = _claimable(connection, now, wish)
    until = now + wish.lease_seconds
    connection.executemany(_CLAIM, [(wish.relay, until, ref) for ref in refs])
    rows = [connection.execute(_READ, (ref,)).fetchone() for ref in refs]
    return Relayed(tuple(Outgoing(ref, _message(some), at) for ref, *some, at in rows), now)


def _claimable(connection: Connection, now: float, wish: Wish) -> list[int]:
    """Return what may be handed out: heads that are nobody's, and what comes behind them, in order."""
    looked_at = LOOKED_AT * wish.limit
    heads = connection.execute(_HEADS, (now, wish.limit, wish.relay, looked_at)).fetchall()
    if not heads and wish.limit > 0 and connection.execute(_IS_MORE, (looked_at,)).get:
        heads = connection.execute(_HEADS_OF_ALL_KEYS, (now, wish.limit, wish.relay)).fetchall()
    found = [ref for _, key in heads for (ref,) in connection.execute(_OF_KEY, (key, wish.limit))]
    return sorted(found)[: wish.limit]


def is_empty(connection: Connection) -> bool:
    """Tell whether nothing waits."""
    return not connection.execute(_IS_ANY).get


def count(connection: Connection, now: float) -> Outstanding:
    """Count what waits and what was set aside."""
    waiting, oldest_at, refused = connection.execute(_COUNT).fetchone() or (0, None, 0)
    return Outstanding(waiting, oldest_at, refused, now)


def set_aside(connection: Connection, limit: int) -> Sequence[SetAside]:
    """Read what was set aside."""
    rows = connection.execute(_ASIDE, (limit,)).fetchall()
    return [SetAside(_message(some), why, at) for *some, why, at in rows]


def post_again(connection: Connection, now: float, message_id: str) -> bool:
    """Have a message that was set aside wait once more, under a number of its own."""
    connection.execute(_POST_AGAIN, (message_id, now)).fetchall()
    return drop(connection, message_id)


def drop(connection: Connection, message_id: str) -> bool:
    """Forget a message that was set aside."""
    return bool(connection.execute(_DROP, (message_id,)).fetchall())


def _message(row: Sequence[Any]) -> Message:
    message_id, topic, key, body, headers = row
    return Message(message_id, topic, key, body, headers_of_text(headers))
