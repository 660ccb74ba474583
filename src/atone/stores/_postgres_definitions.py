"""Definitions on PostgreSQL: the numbers that stand for them in a saga's row, and the plans that workers register.

A definition need not have been registered: whoever gives birth to a saga makes its number. It must not read a plan.
Called by the adapter's commits, starts and registrations.
"""

from __future__ import annotations

from collections.abc import Sequence

from atone.store import StoredPlan
from atone.stores._postgres_line import Session
from atone.stores._postgres_place import Place

_FIND = "SELECT id FROM atone.definitions WHERE name = $1 AND version = $2 AND plan_hash = $3"
_MAKE = "INSERT INTO atone.definitions (name, version, plan_hash) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"
# Only what changes is written: most workers register what is there already.
_KEEP = """
    UPDATE atone.definitions SET plan = $4
     WHERE name = $1 AND version = $2 AND plan_hash = $3 AND plan IS DISTINCT FROM $4
"""


async def learn_number(session: Session, place: Place, definition: tuple[str, int, str]) -> int:
    """Return a definition's number, which is made if need be, and remember it with the session."""
    number = await session.value(place.sql(_FIND), *definition)
    while number is None:
        await session.value(place.sql(_MAKE), *definition)
        number = await session.value(place.sql(_FIND), *definition)
    session.definitions[definition] = number
    return int(number)


async def keep_plans(session: Session, place: Place, plans: Sequence[StoredPlan]) -> None:
    """Keep plans beside the sagas that follow them."""
    for plan in plans:
        await learn_number(session, place, plan[:3])
        await session.value(place.sql(_KEEP), *plan)
