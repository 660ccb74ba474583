"""Requests from outside on PostgreSQL: the next journal row of a saga, written beside whatever its owner writes.

Two writers of one saga meet at the journal's primary key: who is late looks again and takes the version after. Owns the
deduplication by request id. It must not know what is asked for. Called by the adapter.
"""

from __future__ import annotations

import time
from typing import Any

from atone.errors import StoreUnavailable
from atone.store import FINAL_STATUSES, Delivered, Delivery
from atone.stores._postgres_early import keep_early, take_early_events
from atone.stores._postgres_errors import is_conflict
from atone.stores._postgres_line import Session
from atone.stores._postgres_place import Place

# Whoever sends an event again may come between the birth of its saga and the look for what came early: then its first
# copy is still kept.
_FIND = """
SELECT s.key, s.status, EXISTS (SELECT FROM atone.requests AS r WHERE r.saga = s.key AND r.id = $4) AS is_old,
       EXISTS (SELECT FROM atone.early_events AS e
                WHERE e.tenant = s.tenant AND e.name = s.name AND e.saga_id = s.saga_id AND e.request_id = $4
                  AND e.expires_at > s.created_at) AS is_kept
  FROM atone.sagas AS s WHERE s.tenant = $1 AND s.name = $2 AND s.saga_id = $3
"""

_IS_MINE = "SELECT EXISTS (SELECT FROM atone.journal WHERE saga = $1 AND commit_id = $2)"

# Whether the saga is over is read with the version: a turn that ends it now has the version that this one wants.
# The journal first, as in a commit: who holds a saga's row and waits for its journal would stand in each other's way.
_APPEND = """
WITH appended AS (
    INSERT INTO atone.journal (saga, version, at, commit_id, entries)
    SELECT j.saga, 1 + max(j.version), clock(), CAST($3 AS bytea), CAST($4 AS bytea)
      FROM atone.journal AS j JOIN atone.sagas AS s ON s.key = j.saga
     WHERE j.saga = $1 AND s.status NOT IN ('completed', 'compensated', 'failed')
     GROUP BY j.saga
        ON CONFLICT DO NOTHING
    RETURNING saga, at
), noted AS (
    INSERT INTO atone.requests (saga, id) SELECT saga, CAST($2 AS text) FROM appended
), asked AS (
    UPDATE atone.sagas AS s
       SET asked = true, wake_at = CASE WHEN s.owner IS NULL THEN a.at ELSE s.wake_at END
      FROM appended AS a WHERE s.key = a.saga
)
SELECT count(*) FROM appended
"""


async def deliver(session: Session, place: Place, delivery: Delivery, patience_seconds: float) -> Delivered:
    """Append the request, or keep an event for a saga that does not exist yet."""
    until = time.monotonic() + patience_seconds
    while time.monotonic() < until:
        found = await session.row(place.sql(_FIND), *delivery[:4])
        answer = await _deliver(session, place, delivery, found)
        if answer is not None:
            return answer
    raise StoreUnavailable("The saga is too busy to take a request now; nothing was written. Try again.")


async def _deliver(session: Session, place: Place, delivery: Delivery, found: Any) -> Delivered | None:
    if found is None:
        return await _keep(session, place, delivery)
    if found["is_old"]:
        return Delivered.DUPLICATE
    if found["status"] in FINAL_STATUSES:
        return Delivered.FINAL
    if found["is_kept"]:
        await take_early_events(session, place, [found["key"]])
        return None  # look again: now it is there
    try:
        values = (found["key"], delivery.request_id, delivery.commit_id, delivery.entries)
        return Delivered.APPENDED if await session.value(place.sql(_APPEND), *values) else None
    except Exception as error:
        if is_conflict(error):  # the same request came twice at once; the other one has it
            return None
        raise


async def _keep(session: Session, place: Place, delivery: Delivery) -> Delivered | None:
    if delivery.keep_seconds is None:
        return Delivered.UNKNOWN
    if not await keep_early(session, place, delivery):
        return Delivered.DUPLICATE
    born = await session.row(place.sql(_FIND), *delivery[:4])
    if born is None:
        return Delivered.KEPT
    # Its saga was born meanwhile, and may not have seen it; or has taken along another copy, which made room for this.
    await take_early_events(session, place, [born["key"]])
    found = await session.row(place.sql(_FIND), *delivery[:4])
    is_another = found["is_old"] and not await session.value(place.sql(_IS_MINE), born["key"], delivery.commit_id)
    return Delivered.DUPLICATE if is_another else Delivered.KEPT
