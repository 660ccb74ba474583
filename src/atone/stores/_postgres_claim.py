"""Leases and take-over on PostgreSQL: renew a worker's lease, declare others dead, take what needs an owner.

Each statement has a snapshot of its own: who is taken from was dead, durably, before anybody looked for what he left.
Fair between definitions: each gives its first saga, then each its second, and chance says who begins. It must not
decide what a saga does next. Called by the adapter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from atone.store import Claimed, Lease, StoredPlan
from atone.stores._postgres_commit import dead
from atone.stores._postgres_definitions import keep_plans
from atone.stores._postgres_early import give_up_early, take_early_events
from atone.stores._postgres_line import Session
from atone.stores._postgres_place import Place

_NOW = "SELECT clock()"
_REGISTER = "INSERT INTO atone.workers (id, lease_until) VALUES ($1, clock()) ON CONFLICT DO NOTHING"
_RENEW = """
UPDATE atone.workers SET lease_until = moment.now + $2, dead = $2 <= 0
  FROM (SELECT clock() AS now) AS moment
 WHERE id = $1 AND NOT dead
RETURNING moment.now
"""
_PROLONG = "UPDATE atone.workers SET lease_until = greatest(lease_until, clock() + $2) WHERE id = $1 AND NOT dead"

# A commit of his that is under way holds his row: this waits, and looks at the row anew.
_DECLARE_DEAD = """
UPDATE atone.workers SET dead = true
 WHERE holds AND NOT dead AND lease_until <= clock()
   AND EXISTS (SELECT FROM atone.workers AS me WHERE me.id = $1 AND NOT me.dead AND me.lease_until > clock())
"""

_LOOK = """
WITH moment AS MATERIALIZED (
    SELECT clock() AS now
), left_behind AS MATERIALIZED (
    SELECT id FROM atone.workers WHERE holds AND dead
), asked_for AS MATERIALIZED (
    SELECT d.id FROM unnest($2::text[], $3::integer[], $4::text[]) AS w (name, version, plan_hash)
      JOIN atone.definitions AS d USING (name, version, plan_hash)
), waiting AS (
    SELECT d.name, d.id IN (SELECT id FROM asked_for) AS is_mine
      FROM moment CROSS JOIN atone.definitions AS d CROSS JOIN LATERAL (
               SELECT FROM left_behind AS l JOIN atone.sagas AS s ON s.owner = l.id
                WHERE s.definition = d.id AND s.status NOT IN ('completed', 'compensated', 'failed')
                UNION ALL
               SELECT FROM atone.sagas AS s
                WHERE s.owner IS NULL AND s.definition = d.id AND s.wake_at <= moment.now
                  AND s.status NOT IN ('completed', 'compensated', 'failed')
                LIMIT CASE WHEN d.id IN (SELECT id FROM asked_for) THEN 1 ELSE $5::integer END) AS waits
)
SELECT (SELECT now FROM moment) AS now,
       EXISTS (SELECT FROM atone.workers, moment
                WHERE id = $1 AND NOT dead AND lease_until > moment.now) AS alive,
       (SELECT min(lease_until) FROM atone.workers WHERE holds AND NOT dead AND id <> $1) AS next_end,
       ARRAY (SELECT id FROM left_behind) AS left_behind,
       ARRAY (SELECT key FROM atone.sagas
               WHERE owner = $1 AND status NOT IN ('completed', 'compensated', 'failed')) AS mine,
       ARRAY (SELECT key FROM atone.sagas
               WHERE owner = $1 AND asked AND status NOT IN ('completed', 'compensated', 'failed')) AS asked,
       ARRAY (SELECT DISTINCT name FROM waiting WHERE is_mine) AS due,
       (SELECT count(*) FROM (SELECT FROM waiting WHERE NOT is_mine LIMIT $5) AS waits) AS unclaimable,
       EXISTS (SELECT FROM atone.early_events, moment WHERE expires_at <= moment.now) AS run_out,
       ARRAY (SELECT DISTINCT s.key FROM atone.early_events AS e
                JOIN atone.sagas AS s ON s.tenant = e.tenant AND s.name = e.name AND s.saga_id = e.saga_id
               WHERE e.expires_at > s.created_at
                 AND s.status NOT IN ('completed', 'compensated', 'failed')) AS passed_by
"""

# Rows that somebody else is about to change are passed over, which spares waiting; it is the last WHERE that makes it
# right, and that my own row is locked: nobody can declare me dead while I take.
_TAKE = """
WITH me AS (
    UPDATE atone.workers SET lease_until = greatest(lease_until, clock() + $2)
     WHERE id = $1 AND NOT dead AND lease_until > clock()
    RETURNING id, clock() AS now
), found AS MATERIALIZED (
    SELECT waits.key, d.name, w.room, row_number() OVER (PARTITION BY d.id) AS turn
      FROM me CROSS JOIN unnest($3::text[], $4::integer[], $5::text[], $8::integer[])
                             AS w (name, version, plan_hash, room)
      JOIN atone.definitions AS d USING (name, version, plan_hash)
     CROSS JOIN LATERAL (
               SELECT * FROM (
                   SELECT s.key FROM atone.sagas AS s
                    WHERE s.owner = ANY ($6::text[]) AND s.definition = d.id
                      AND s.status NOT IN ('completed', 'compensated', 'failed')
                    LIMIT w.room FOR NO KEY UPDATE SKIP LOCKED) AS orphans
                UNION ALL
               SELECT * FROM (
                   SELECT s.key FROM atone.sagas AS s
                    WHERE s.owner IS NULL AND s.definition = d.id AND s.wake_at <= me.now
                      AND s.status NOT IN ('completed', 'compensated', 'failed')
                    ORDER BY s.wake_at LIMIT w.room FOR NO KEY UPDATE SKIP LOCKED) AS due
                LIMIT w.room) AS waits
), allowed AS MATERIALIZED (
    SELECT key, turn, room, row_number() OVER (PARTITION BY name ORDER BY turn, random()) AS nth FROM found
)
UPDATE atone.sagas AS s SET owner = me.id
  FROM me, (SELECT key FROM allowed WHERE nth <= room ORDER BY turn, random() LIMIT $7) AS f
 WHERE s.key = f.key AND s.status NOT IN ('completed', 'compensated', 'failed')
   AND (s.owner = ANY ($6::text[]) OR (s.owner IS NULL AND s.wake_at <= me.now))
RETURNING s.key
"""

_NAMES = "SELECT name, count(*) FROM atone.sagas WHERE key = ANY ($1::bytea[]) GROUP BY name"

# Nothing of his can come any more: that he is dead was durable before this began to look.
_FORGET_EMPTY_HANDED = """
UPDATE atone.workers AS w SET holds = false
 WHERE w.id = ANY ($1::text[]) AND w.dead AND w.holds
   AND NOT EXISTS (SELECT FROM atone.sagas AS s
                    WHERE s.owner = w.id AND s.status NOT IN ('completed', 'compensated', 'failed'))
"""

_UNCLAIMABLE_MAX = 1000


class Wish(NamedTuple):
    """What a worker asks a claim for."""

    worker: str
    definitions: Sequence[tuple[str, int, str]]
    known: frozenset[bytes]
    limit: int
    lease_seconds: float
    limits: Mapping[str, int]


async def renew(
    session: Session, place: Place, worker: str | None, lease_seconds: float, register: Sequence[StoredPlan] | None
) -> Lease:
    """Extend a lease, or make the worker's row first; with no seconds, end it for ever. Nobody's is only the time."""
    if worker is None:
        await keep_plans(session, place, register or ())
        now = await session.value(place.sql(_NOW))
        return Lease(now, now)
    if register is None:
        return await _renew(session, place, worker, lease_seconds)
    async with session.connection.transaction():
        await session.value(place.sql(_REGISTER), worker)
        lease = await _renew(session, place, worker, lease_seconds)
        await keep_plans(session, place, register)
    return lease


async def _renew(session: Session, place: Place, worker: str, lease_seconds: float) -> Lease:
    now = await session.value(place.sql(_RENEW), worker, lease_seconds)
    if now is None:
        raise dead(worker)
    return Lease(now, now + lease_seconds)


async def claim(session: Session, place: Place, wish: Wish) -> Claimed:
    """Take over what needs an owner; a claim that finds nothing writes nothing."""
    names, versions, hashes = _columns(wish.definitions)
    await session.value(place.sql(_DECLARE_DEAD), wish.worker)
    seen = await session.row(place.sql(_LOOK), wish.worker, names, versions, hashes, _UNCLAIMABLE_MAX)
    if not seen["alive"]:
        raise dead(wish.worker)
    taken = await _take(session, place, wish, seen)
    if seen["left_behind"]:
        await session.value(place.sql(_FORGET_EMPTY_HANDED), seen["left_behind"])
    if seen["passed_by"]:
        await take_early_events(session, place, seen["passed_by"])
    given_up = await give_up_early(session, place) if seen["run_out"] else 0
    newer = tuple(sorted(wish.known.intersection(seen["asked"])))
    return Claimed(taken, newer, seen["unclaimable"], given_up, seen["now"], seen["next_end"])


async def _take(session: Session, place: Place, wish: Wish, seen: Any) -> tuple[bytes, ...]:
    mine = sorted(set(seen["mine"]) - wish.known)[: wish.limit]
    room = wish.limit - len(mine)
    taken: dict[str, int] = {}
    if mine and wish.limits:  # the answer to an earlier claim was lost: they count
        taken = dict(await session.rows(place.sql(_NAMES), mine))
    rooms = [max(0, min(room, wish.limits.get(name, room) - taken.get(name, 0))) for name, _, _ in wish.definitions]
    names, versions, hashes = _columns(wish.definitions)
    if any(room > 0 and name in seen["due"] for name, room in zip(names, rooms, strict=True)):
        found = await session.rows(
            place.sql(_TAKE), wish.worker, wish.lease_seconds, names, versions, hashes, seen["left_behind"], room, rooms
        )
        return *mine, *(key for (key,) in found)
    if mine:
        await session.value(place.sql(_PROLONG), wish.worker, wish.lease_seconds)
    return tuple(mine)


def _columns(definitions: Sequence[tuple[str, int, str]]) -> Sequence[Sequence[Any]]:
    return tuple(zip(*definitions, strict=True)) or ((), (), ())
