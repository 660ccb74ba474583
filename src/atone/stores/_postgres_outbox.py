"""The outbox on PostgreSQL: messages are written with their turns, claimed by relays, and forgotten once published.

Owns who may be given what: of each key the oldest ones, and nothing behind what is claimed. A relay's calls wait for no
disk, for what a crash takes back of them is only published again. It must not read a body. Called by the adapter, and
by what commits turns or starts a saga in a caller's transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from atone._connections.face import Values
from atone.broker import Message, Outgoing, Relayed
from atone.store import Outstanding, SetAside, Turn
from atone.stores._messages import LOOKED_AT, headers_of_text, headers_to_text
from atone.stores._postgres_line import Session
from atone.stores._postgres_place import Place

# What a commit with messages has more than one without. A turn that the statement finds unfit is in neither table, and
# where a birth meets another one nothing of the statement stays; so a message is written with its turn or not at all.
_ALSO_POSTED = """
), posted AS (
    INSERT INTO atone.outbox (id, topic, key, body, headers, at)
    SELECT m.id, m.topic, m.key, m.body, m.headers, me.now
      FROM me, unnest($20::bytea[], $21::text[], $22::text[], $23::text[], $24::bytea[], $25::text[]) WITH ORDINALITY
               AS m (saga, id, topic, key, body, headers, place)
     WHERE EXISTS (SELECT FROM birth AS b WHERE b.key = m.saga) OR EXISTS (SELECT FROM fit AS f WHERE f.key = m.saga)
     ORDER BY m.place
)
SELECT (SELECT count(*) FROM appended) AS appended,"""
_PLAIN_END = "\n)\nSELECT (SELECT count(*) FROM appended) AS appended,"

POST = """
INSERT INTO atone.outbox (id, topic, key, body, headers, at)
VALUES (CAST(:id AS text), CAST(:topic AS text), CAST(:key AS text), CAST(:body AS bytea), CAST(:headers AS text),
        clock())
"""

_SETTLE = """
WITH quickly AS MATERIALIZED (
    SELECT set_config('synchronous_commit', 'off', true)
), gone AS (
    DELETE FROM atone.outbox AS o USING quickly WHERE o.ref = ANY ($1::bigint[] || $2::bigint[])
    RETURNING o.*
)
INSERT INTO atone.set_aside (ref, id, topic, key, body, headers, at, why, set_aside_at)
SELECT g.ref, g.id, g.topic, g.key, g.body, g.headers, g.at, r.why, clock()
  FROM gone AS g JOIN unnest($2::bigint[], $3::text[]) AS r (ref, why) ON r.ref = g.ref
    ON CONFLICT DO NOTHING
"""
# The head of a key is its oldest message, and only heads are fought for: who has the head's lock has the key, and who
# does not get it goes on to the next one. What comes behind a head is taken along in order. It may be locked by none
# but a relay that has published it already and came too late to say so, hence SKIP LOCKED there too. Heads are looked
# for among the oldest messages, so that a look costs the same however many wait.
_CLAIM = """
WITH quickly AS MATERIALIZED (
    SELECT set_config('synchronous_commit', 'off', true)
), beyond AS MATERIALIZED (
    SELECT o.ref FROM atone.outbox AS o ORDER BY o.ref OFFSET $4 LIMIT 1
), heads AS MATERIALIZED (
    SELECT o.key
      FROM atone.outbox AS o
     WHERE (o.claimed_until <= clock() OR o.claimed_by = $1) AND EXISTS (SELECT FROM quickly)
       AND o.ref < coalesce((SELECT ref FROM beyond), 9223372036854775807)
       AND NOT EXISTS (SELECT FROM atone.outbox AS e WHERE e.key = o.key AND e.ref < o.ref)
     ORDER BY o.ref LIMIT $2 FOR UPDATE OF o SKIP LOCKED
), following AS MATERIALIZED (
    SELECT f.ref
      FROM heads AS h CROSS JOIN LATERAL (
           SELECT o.ref FROM atone.outbox AS o WHERE o.key = h.key ORDER BY o.ref LIMIT $2) AS f
     ORDER BY f.ref LIMIT $2
), taken AS MATERIALIZED (
    SELECT o.ref FROM following AS f JOIN atone.outbox AS o ON o.ref = f.ref
     ORDER BY o.ref FOR UPDATE OF o SKIP LOCKED
), mine AS (
    UPDATE atone.outbox AS o SET claimed_by = $1, claimed_until = clock() + $3 FROM taken AS t WHERE o.ref = t.ref
    RETURNING o.ref, o.id, o.topic, o.key, o.body, o.headers, o.at
)
SELECT m.*, clock() AS now, false AS is_more FROM mine AS m
 UNION ALL
SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, clock(), EXISTS (SELECT FROM beyond)
 ORDER BY 1 NULLS LAST
"""
# When all of the oldest are in somebody's hands: each key's head is looked at, however long the queues behind them are.
_AMONG_OLDEST = """      FROM atone.outbox AS o
     WHERE (o.claimed_until"""
_AMONG_KEYS = """      FROM (
            SELECT (SELECT f.ref FROM atone.outbox AS f WHERE f.key = k.key ORDER BY f.ref LIMIT 1) AS ref
              FROM keys AS k WHERE k.key IS NOT NULL) AS first
      JOIN atone.outbox AS o ON o.ref = first.ref
     WHERE (o.claimed_until"""
_KEYS = """WITH RECURSIVE keys AS (
    (SELECT o.key FROM atone.outbox AS o ORDER BY o.key LIMIT 1)
     UNION ALL
    SELECT (SELECT o.key FROM atone.outbox AS o WHERE o.key > k.key ORDER BY o.key LIMIT 1)
      FROM keys AS k WHERE k.key IS NOT NULL
), quickly"""
_CLAIM_ANY = (
    _CLAIM.replace("WITH quickly", _KEYS)
    .replace(_AMONG_OLDEST, _AMONG_KEYS)
    .replace("       AND o.ref < coalesce((SELECT ref FROM beyond), 9223372036854775807)\n", "")
)
_COUNT = """
SELECT count(*), min(at), (SELECT count(*) FROM atone.set_aside), clock() FROM atone.outbox
"""
_ASIDE = "SELECT id, topic, key, body, headers, why, set_aside_at FROM atone.set_aside ORDER BY ref LIMIT $1"
# One statement: whoever deletes the row is the one who posts it, however many people ask at once.
_POST_AGAIN = """
WITH back AS (
    DELETE FROM atone.set_aside AS s WHERE s.id = $1 RETURNING s.*
), posted AS (
    INSERT INTO atone.outbox (id, topic, key, body, headers, at)
    SELECT b.id, b.topic, b.key, b.body, b.headers, clock() FROM back AS b ORDER BY b.ref RETURNING ref
)
SELECT count(*) FROM posted
"""
_DROP = """
WITH gone AS (DELETE FROM atone.set_aside AS s WHERE s.id = $1 RETURNING s.ref) SELECT count(*) FROM gone
"""


class Wish(NamedTuple):
    """What a relay tells and asks for."""

    relay: str
    published: Collection[int]
    refused: Mapping[int, str]
    limit: int
    lease_seconds: float


def with_messages(statement: str) -> str:
    """Return the statement of a commit that also posts messages, given as six columns more."""
    return _posting(statement, _ALSO_POSTED)


@cache
def _posting(statement: str, posts: str) -> str:
    assert statement.count(_PLAIN_END) == 1, "it ends otherwise than it did"
    return statement.replace(_PLAIN_END, posts)


def columns_of_messages(turns: Sequence[Turn]) -> Sequence[Sequence[Any]]:
    """Return the columns of all messages, in their order for each turn; of turns with at least one."""
    rows = [(turn.key, *_row(message)) for turn in turns for message in turn.messages]
    return tuple(zip(*rows, strict=True))


def values_of(message: Message) -> Values:
    """Return the values of one message, for `POST`."""
    return dict(zip(("id", "topic", "key", "body", "headers"), _row(message), strict=True))


async def relay(session: Session, place: Place, wish: Wish) -> Relayed:
    """Forget and set aside what a relay tells of, and hand out what nobody has in hand."""
    if wish.published or wish.refused:
        refs, reasons = list(wish.refused), list(wish.refused.values())
        await session.rows(place.sql(_SETTLE), list(wish.published), refs, reasons)
    asked = (wish.relay, wish.limit, wish.lease_seconds, LOOKED_AT * wish.limit)
    *rows, (*_, now, is_more) = await session.rows(place.sql(_CLAIM), *asked)
    if is_more and not rows and wish.limit > 0:
        *rows, (*_, now, _) = await session.rows(place.sql(_CLAIM_ANY), *asked)
    return Relayed(tuple(Outgoing(ref, _message(some), at) for ref, *some, at, _, _ in rows), now)


async def count(session: Session, place: Place) -> Outstanding:
    """Count what waits and what was set aside."""
    return Outstanding(*await session.row(place.sql(_COUNT)))


async def set_aside(session: Session, place: Place, limit: int) -> Sequence[SetAside]:
    """Read what was set aside."""
    rows = await session.rows(place.sql(_ASIDE), limit)
    return [SetAside(_message(some), why, at) for *some, why, at in rows]


async def post_again(session: Session, place: Place, message_id: str) -> bool:
    """Have a message that was set aside wait once more, under a number of its own."""
    return await _found(session, place.sql(_POST_AGAIN), message_id)


async def drop(session: Session, place: Place, message_id: str) -> bool:
    """Forget a message that was set aside."""
    return await _found(session, place.sql(_DROP), message_id)


async def _found(session: Session, statement: str, message_id: str) -> bool:
    if "\x00" in message_id:  # PostgreSQL's text can't hold it, so no message has it
        return False
    (found,) = await session.row(statement, message_id)
    return bool(found)


def _row(message: Message) -> tuple[Any, ...]:
    return (message.id, message.topic, message.key, message.body, headers_to_text(message.headers))


def _message(row: Sequence[Any]) -> Message:
    message_id, topic, key, body, headers = row
    return Message(message_id, topic, key, body, headers_of_text(headers))
