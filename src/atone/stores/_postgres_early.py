"""Events on PostgreSQL that came before their saga: kept, taken along at its birth, or given up as dead letters.

An event and the birth of its saga may pass each other unseen, each in a transaction that can't see the other's. So the
event looks again afterwards, and every claim looks once more: an event whose saga exists never waits for long. It must
not look into entries. Called by the adapter's commits, deliveries, starts and claims.
"""

from __future__ import annotations

from collections.abc import Sequence

from atone.errors import StoreUnavailable
from atone.store import Delivery
from atone.stores._postgres_errors import is_conflict
from atone.stores._postgres_line import Session
from atone.stores._postgres_place import Place

_LOOKS_MAX = 20
_GIVEN_UP_MAX = 1000

# An event that has run out, and that no claim has given up yet, is as good as gone: it may come anew.
_KEEP = """
INSERT INTO atone.early_events (tenant, name, saga_id, request_id, commit_id, entries, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, clock() + $7)
    ON CONFLICT (tenant, name, saga_id, request_id)
    DO UPDATE SET commit_id = excluded.commit_id, entries = excluded.entries, expires_at = excluded.expires_at
        WHERE early_events.expires_at <= clock()
RETURNING id
"""

# Each event becomes the next row of its journal; one that meets another writer there stays for the next look.
TAKE_EARLY = """
WITH found AS MATERIALIZED (
    SELECT e.id, s.key, e.request_id, e.commit_id, e.entries, clock() AS now,
           EXISTS (SELECT FROM atone.requests AS r WHERE r.saga = s.key AND r.id = e.request_id) AS is_old
      FROM atone.sagas AS s
      JOIN atone.early_events AS e ON e.tenant = s.tenant AND e.name = s.name AND e.saga_id = s.saga_id
     WHERE s.key = ANY ($1::bytea[]) AND e.expires_at > s.created_at
       AND s.status NOT IN ('completed', 'compensated', 'failed')
), fresh AS MATERIALIZED (
    SELECT f.*, row_number() OVER (PARTITION BY f.key ORDER BY f.id)
                + (SELECT max(j.version) FROM atone.journal AS j WHERE j.saga = f.key) AS version
      FROM found AS f WHERE NOT f.is_old
), appended AS (
    INSERT INTO atone.journal (saga, version, at, commit_id, entries)
    SELECT key, version, now, commit_id, entries FROM fresh ORDER BY key, version
        ON CONFLICT DO NOTHING
    RETURNING saga, version
), landed AS MATERIALIZED (
    SELECT f.* FROM fresh AS f JOIN appended AS a ON a.saga = f.key AND a.version = f.version
), noted AS (
    INSERT INTO atone.requests (saga, id) SELECT key, request_id FROM landed
), asked AS (
    UPDATE atone.sagas AS s
       SET asked = true, wake_at = CASE WHEN s.owner IS NULL THEN l.now ELSE s.wake_at END
      FROM (SELECT key, min(now) AS now FROM landed GROUP BY key) AS l
     WHERE s.key = l.key
), taken AS (
    DELETE FROM atone.early_events
     WHERE id IN (SELECT id FROM landed UNION ALL SELECT id FROM found WHERE is_old)
)
SELECT count(*) FROM fresh WHERE id NOT IN (SELECT id FROM landed)
"""

_GIVE_UP = """
WITH gone AS (
    DELETE FROM atone.early_events
     WHERE id IN (SELECT id FROM atone.early_events WHERE expires_at <= clock()
                   ORDER BY expires_at, id LIMIT $1 FOR UPDATE SKIP LOCKED)
    RETURNING tenant, name, saga_id, request_id, entries
), kept AS (
    INSERT INTO atone.dead_letters (tenant, name, saga_id, request_id, entries, given_up_at)
    SELECT tenant, name, saga_id, request_id, entries, clock() FROM gone
)
SELECT count(*) FROM gone
"""


async def keep_early(session: Session, place: Place, delivery: Delivery) -> bool:
    """Keep an event for a saga that does not exist yet; False if it was kept already."""
    found = await session.value(
        place.sql(_KEEP), *delivery[:4], delivery.commit_id, delivery.entries, delivery.keep_seconds
    )
    return found is not None


async def take_early_events(session: Session, place: Place, keys: Sequence[bytes]) -> None:
    """Append the events that wait for these sagas to their journals, in the order in which they came."""
    for _ in range(_LOOKS_MAX):
        try:
            if not await session.value(place.sql(TAKE_EARLY), keys):
                return
        except Exception as error:
            if not is_conflict(error):  # the same request has come another way, just now
                raise
    raise StoreUnavailable("A saga was too busy to take its early events; it will have them later. Try again.")


async def give_up_early(session: Session, place: Place) -> int:
    """Turn events that have waited too long into dead letters, and return how many."""
    return int(await session.value(place.sql(_GIVE_UP), _GIVEN_UP_MAX))
