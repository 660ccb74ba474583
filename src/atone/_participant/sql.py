"""What the participant's tables have in common: the rule for their names, and what each dialect calls the time.

Owns no table. Times are epoch seconds by the database's own clock, as a float, so that no driver's time zones matter.
Used by the inbox, the outbox and the ledger.
"""

from __future__ import annotations

import re

from atone._connections.face import Dialect, Face, face_of
from atone.errors import BarrierMisplaced

TABLE_NAME = re.compile(r"[a-z_][a-z0-9_]{0,50}(\.[a-z_][a-z0-9_]{0,50})?")

NOW: dict[Dialect, str] = {
    "postgresql": "CAST(extract(epoch FROM clock_timestamp()) AS float8)",
    "sqlite": "((julianday('now') - 2440587.5) * 86400.0)",
}
# The texts of a JSON list, as rows of `value`: one way of passing many values that all drivers take.
TEXTS: dict[Dialect, str] = {
    "postgresql": "SELECT value FROM json_array_elements_text(CAST(:{name} AS json))",
    "sqlite": "SELECT value FROM json_each(:{name})",
}
FOR_UPDATE: dict[Dialect, str] = {"postgresql": "FOR UPDATE", "sqlite": ""}
SKIPPING: dict[Dialect, str] = {"postgresql": "FOR UPDATE SKIP LOCKED", "sqlite": ""}

_NOT_INSIDE = (
    "The connection is in no transaction, so this would not be written together with your rows. "
    "Begin one around the call and around your own statements."
)


def checked_table(name: str) -> str:
    """Return a table's name that may stand in a statement as it is."""
    if not TABLE_NAME.fullmatch(name):
        raise ValueError("table= is a plain lower-case name, or schema.name; give one.")
    return name


async def joined(connection: object) -> Face:
    """Return the face of a connection that is in a transaction of the caller's.

    Raises:
        BarrierMisplaced: It is in none.
    """
    face = face_of(connection)
    if not await face.joins():
        raise BarrierMisplaced(_NOT_INSIDE)
    return face
