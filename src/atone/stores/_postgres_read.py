"""Reading on PostgreSQL: journals in one snapshot, and summaries in the order of their keys.

Each call is one statement, so that what it returns was there at one moment. It must not write. Called by the adapter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from atone.store import FINAL_STATUSES, Census, Count, Loaded, Query, Row, Summary
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

# Only what is asked for becomes a condition. Who asks for sagas by name gets one plan for all; a list is planned for
# what is in it: few sagas of a kind are found by their names, among many the next ones are near by.
_PLAN_FOR_VALUES = "SET LOCAL plan_cache_mode = force_custom_plan"
_FIND = "SELECT * FROM atone.summaries WHERE true"
_IN_ORDER = " ORDER BY key LIMIT $"
# The index by id begins with the name: few names are known, and each is looked up.
_OF_ANY_NAME = " AND name IN (SELECT name FROM atone.definitions)"
# The words of three indexes: most sagas are completed, and these questions are about the others.
_UNFINISHED = "status NOT IN ('completed', 'compensated', 'failed')"
_UNDONE = "status IN ('compensated', 'failed')"
_IN_NEED = "status = 'needs_attention'"

# The index of what is unfinished is small, whatever has been finished. Without a saga there is still a time.
_COUNT = """
SELECT moment.now, c.name, c.status, c.sagas, c.oldest_at
  FROM (SELECT clock() AS now) AS moment
  LEFT JOIN (
    SELECT name, status, count(*) AS sagas, min(created_at) AS oldest_at FROM atone.sagas
     WHERE status NOT IN ('completed', 'compensated', 'failed')
     GROUP BY name, status
  ) AS c ON true
 ORDER BY c.name, c.status
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
    text, values = _FIND, list[Any]()
    for condition, value in (*_conditions(query), (_IN_ORDER, query.limit)):
        values.append(value)
        text += condition.replace("$", f"${len(values)}")
    if query.statuses is not None and "completed" not in query.statuses:
        text = text.replace(_FIND, f"{_FIND} AND {_words_for(query.statuses)}")
    if query.saga_id is not None and query.name is None:
        text = text.replace(_FIND, _FIND + _OF_ANY_NAME)
    if query.keys is not None or query.saga_id is not None:
        return [Summary(*record) for record in await session.rows(place.sql(text), *values)]
    async with session.connection.transaction():
        await session.value(_PLAN_FOR_VALUES)
        return [Summary(*record) for record in await session.rows(place.sql(text), *values)]


def _words_for(statuses: frozenset[str]) -> str:
    if statuses == frozenset({"needs_attention"}):
        return _IN_NEED
    if statuses <= FINAL_STATUSES:
        return _UNDONE
    return f"({_UNDONE} OR {_UNFINISHED})" if statuses & FINAL_STATUSES else _UNFINISHED


def _conditions(query: Query) -> Iterator[tuple[str, Any]]:
    conditions = {
        " AND tenant = $": query.tenant,
        " AND name = $": query.name,
        " AND saga_id = $": query.saga_id,
        " AND status = ANY ($)": None if query.statuses is None else sorted(query.statuses),
        " AND key = ANY ($)": None if query.keys is None else list({*query.keys}),
        " AND version = $": query.definition_version,
        " AND plan_hash <> $": query.other_hash_than,
        " AND key > $": query.after,
    }
    return ((condition, value) for condition, value in conditions.items() if value is not None)


async def census(session: Session, place: Place) -> Census:
    """Count the unfinished sagas by name and status."""
    found = await session.rows(place.sql(_COUNT))
    counts = (Count(*record[1:]) for record in found if record["name"] is not None)
    return Census(found[0]["now"], tuple(counts))


async def _plans(session: Session, place: Place, summaries: Iterable[Summary]) -> dict[Any, str | None]:
    wanted = {_definition(summary) for summary in summaries}
    names, versions, hashes = zip(*wanted, strict=True) if wanted else ((), (), ())
    records = await session.rows(place.sql(_PLANS), names, versions, hashes)
    return {tuple(record)[:3]: record["plan"] for record in records}


def _definition(summary: Summary) -> tuple[str, int, str]:
    return summary.name, summary.definition_version, summary.plan_hash
