"""Reading on PostgreSQL: journals in one snapshot, and summaries in the order of their keys.

Each call is one statement, so that what it returns was there at one moment. It must not write. Called by the adapter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from atone.store import FINAL_STATUSES, Loaded, Query, Row, Summary
from atone.stores._postgres_line import Session
from atone.stores._postgres_place import Place

_LOAD = """
SELECT s.*, j.version, j.at, j.commit_id, j.entries
  FROM unnest($1::bytea[]) AS k (key)
  JOIN atone.summaries AS s ON s.key = k.key
  LEFT JOIN atone.journal AS j ON j.saga = k.key AND j.version > $2
 ORDER BY k.key, j.version
"""
# A plan never changes, so it may be read in a snapshot of its own.
_PLANS = """
SELECT d.name, d.version, d.plan_hash, d.plan
  FROM unnest($1::text[], $2::integer[], $3::text[]) AS w (name, version, plan_hash)
  JOIN atone.definitions AS d USING (name, version, plan_hash)
"""

# The first condition says the words of an index when it is false, so that it is used: most sagas are over, and nobody
# looks for them then. Values are known when this is planned, so what is not asked for costs nothing.
_FIND = """
SELECT * FROM atone.summaries
 WHERE ($10 OR status NOT IN ('completed', 'compensated', 'failed'))
   AND ($1::text IS NULL OR tenant = $1)
   AND ($2::text IS NULL OR name = $2)
   AND ($3::text IS NULL OR saga_id = $3)
   AND ($4::text[] IS NULL OR status = ANY ($4))
   AND ($5::bytea[] IS NULL OR key = ANY ($5))
   AND ($6::integer IS NULL OR version = $6)
   AND ($7::text IS NULL OR plan_hash <> $7)
   AND ($8::bytea IS NULL OR key > $8)
 ORDER BY key LIMIT $9
"""

_SUMMARY = slice(len(Summary._fields))
_ROW = slice(len(Summary._fields), None)


async def load(
    session: Session, place: Place, keys: Sequence[bytes], after: int, with_plan: bool
) -> Sequence[Loaded | None]:
    """Read sagas and their rows, all as of one moment."""
    found: dict[bytes, tuple[Summary, list[Row]]] = {}
    for record in await session.rows(place.sql(_LOAD), list({*keys}), after):
        if record[0] not in found:
            found[record[0]] = Summary(*record[_SUMMARY]), []
        if record[_ROW][0] is not None:
            found[record[0]][1].append(Row(*record[_ROW]))
    plans = await _plans(session, place, [summary for summary, _ in found.values()]) if with_plan else {}
    loaded = {
        key: Loaded(summary, tuple(rows), plans.get(_definition(summary))) for key, (summary, rows) in found.items()
    }
    return [loaded.get(key) for key in keys]


async def find(session: Session, place: Place, query: Query) -> Sequence[Summary]:
    """Read the summaries that fit."""
    statuses, keys = query.statuses, query.keys
    any_finished = statuses is None or bool(statuses & FINAL_STATUSES)
    records = await session.rows(
        place.sql(_FIND),
        query.tenant,
        query.name,
        query.saga_id,
        None if statuses is None else sorted(statuses),
        None if keys is None else list({*keys}),
        query.definition_version,
        query.other_hash_than,
        query.after,
        query.limit,
        any_finished,
    )
    return [Summary(*record) for record in records]


async def _plans(session: Session, place: Place, summaries: Iterable[Summary]) -> dict[Any, str | None]:
    wanted = {_definition(summary) for summary in summaries}
    names, versions, hashes = zip(*wanted, strict=True) if wanted else ((), (), ())
    records = await session.rows(place.sql(_PLANS), names, versions, hashes)
    return {tuple(record)[:3]: record["plan"] for record in records}


def _definition(summary: Summary) -> tuple[str, int, str]:
    return summary.name, summary.definition_version, summary.plan_hash
