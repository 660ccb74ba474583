"""Semantic locks as rows: which saga holds which resource of a service, and who waits for whom.

Owns the two tables and the search for a cycle among those that wait. A lock is a row like any other, so it outlives the
transaction that took it and goes with its saga, never with time. Must not begin or end a transaction. Called by
`atone.isolation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from atone._connections.face import Dialect, Face
from atone._participant.sql import FOR_UPDATE, NOW, checked_table

_TYPES: dict[Dialect, dict[str, str]] = {
    "postgresql": {"text": "text", "float": "float8", "end": ""},
    "sqlite": {"text": "TEXT", "float": "REAL", "end": " WITHOUT ROWID"},
}
_CREATE = (
    """
CREATE TABLE IF NOT EXISTS {table} (
    resource {text} NOT NULL PRIMARY KEY,
    saga     {text} NOT NULL,
    at       {float} NOT NULL
){end}""",
    "CREATE INDEX IF NOT EXISTS {index}_by_saga ON {table} (saga)",
    """
CREATE TABLE IF NOT EXISTS {table}_waits (
    saga     {text} NOT NULL PRIMARY KEY,
    resource {text} NOT NULL
){end}""",
)
_TAKE = """
INSERT INTO {table} (resource, saga, at) VALUES (:resource, :saga, {now})
    ON CONFLICT (resource) DO NOTHING
RETURNING 1"""
_HOLDER = "SELECT saga FROM {table} WHERE resource = :resource {for_update}"
_WAIT = """
INSERT INTO {table}_waits (saga, resource) VALUES (:saga, :resource)
    ON CONFLICT (saga) DO UPDATE SET resource = :resource"""
_WAITS_NOT = "DELETE FROM {table}_waits WHERE saga = :saga"
_RELEASE = "DELETE FROM {table} WHERE saga = :saga RETURNING resource"
_NEXT = """
SELECT held.saga, waits.resource, (SELECT min(at) FROM {table} AS first WHERE first.saga = held.saga)
  FROM {table} AS held LEFT JOIN {table}_waits AS waits ON waits.saga = held.saga
 WHERE held.resource = :resource"""
_SINCE = "SELECT min(at) FROM {table} WHERE saga = :saga"
_HELD = "SELECT resource, saga, {now} - at FROM {table} ORDER BY at, resource LIMIT :most"

_TURNS_MAX = 10  # of a lock that is given and taken while we look
_CYCLE_MAX = 100


class Held(NamedTuple):
    """A lock: of what, whose, and for how long."""

    resource: str
    saga: str
    seconds: float


class Refusal(NamedTuple):
    """A resource that somebody else holds."""

    resource: str
    holder: str


class LockTable:
    """Read and write locks, on connections that are in a transaction of the caller's."""

    def __init__(self, table: str) -> None:
        self._table = checked_table(table)

    def statements(self, dialect: Dialect) -> list[str]:
        """Return the statements that make the tables."""
        index = self._table.rpartition(".")[2]
        return [one.format(table=self._table, index=index, **_TYPES[dialect]) for one in _CREATE]

    async def take(self, face: Face, saga: str, resources: Sequence[str]) -> Refusal | None:
        """Take the locks in this order; return the first that somebody else holds."""
        for resource in resources:
            holder = await self._take(face, saga, resource)
            if holder != saga:
                return Refusal(resource, holder)
        await self._run(face, _WAITS_NOT, saga=saga)
        return None

    async def _take(self, face: Face, saga: str, resource: str) -> str:
        for _ in range(_TURNS_MAX):
            if await self._run(face, _TAKE, resource=resource, saga=saga):
                return saga
            rows = await self._run(face, _HOLDER, resource=resource)
            if rows:
                return str(rows[0][0])
        return "?"

    async def wait(self, face: Face, saga: str, resource: str) -> list[str]:
        """Write down that the saga waits for this; return the cycle that it is to break, or nothing.

        Of a cycle, the saga that holds its first lock for the shortest time breaks it: that is one of them, whoever
        looks, and it has the least to undo.
        """
        await self._run(face, _WAIT, saga=saga, resource=resource)
        ((since,),) = await self._run(face, _SINCE, saga=saga)
        cycle = [] if since is None else await self._cycle(face, (since, saga), resource)
        return [name for _, name in cycle] if cycle and max(cycle) == (since, saga) else []

    async def _cycle(self, face: Face, mine: tuple[float, str], resource: str) -> list[tuple[float, str]]:
        """Follow who waits for whom, from the holder of a resource on; return the way if it leads back to me."""
        way, wanted = [mine], resource
        while len(way) < _CYCLE_MAX:
            rows = await self._run(face, _NEXT, resource=wanted)
            if not rows or rows[0][0] in {name for _, name in way[1:]}:
                return []
            holder, wanted, since = rows[0]
            if holder == mine[1]:
                return way
            if wanted is None:
                return []
            way.append((since, holder))
        return []

    async def release(self, face: Face, saga: str) -> list[str]:
        """Give back all that the saga holds, and forget what it waits for."""
        await self._run(face, _WAITS_NOT, saga=saga)
        return sorted(resource for (resource,) in await self._run(face, _RELEASE, saga=saga))

    async def held(self, face: Face, most: int) -> list[Held]:
        """Return the locks that are held, the oldest first."""
        return [Held(*row) for row in await self._run(face, _HELD, most=most)]

    async def _run(self, face: Face, statement: str, **values: Any) -> list[Any]:
        dialect = face.dialect
        text = statement.format(table=self._table, now=NOW[dialect], for_update=FOR_UPDATE[dialect])
        return await face.run(text, values)
