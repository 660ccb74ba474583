"""Reading on SQLite: journals in one snapshot, and summaries in the order of their keys.

Each way to find has its own fixed statement, so that each can use its index. It must not write. Called by the adapter,
in the reader thread.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from atone.store import FINAL_STATUSES, Count, Loaded, Query, Row, Summary
from atone.stores._sqlite_connection import Connection
from atone.stores._sqlite_thread import Job

T = TypeVar("T")

_SUMMARY = "SELECT * FROM summaries WHERE key = ?"
_ROWS = "SELECT version, at, commit_id, entries FROM journal WHERE saga = ? AND version > ? ORDER BY version"
_PLAN = "SELECT plan FROM definitions WHERE name = ? AND version = ? AND plan_hash = ?"

_NAMED = """
    SELECT * FROM summaries WHERE tenant = :tenant AND name = :name AND saga_id = :saga_id
"""
_UNFINISHED = """
    SELECT * FROM summaries WHERE status NOT IN ('completed', 'compensated', 'failed')
"""
_IN_NEED = """
    SELECT * FROM summaries WHERE status = 'needs_attention'
"""
_ANY = """
    SELECT * FROM summaries WHERE 1
"""
_KEY = """
    SELECT * FROM summaries WHERE key = :key
"""
_FITTING = """
    AND (:tenant IS NULL OR tenant = :tenant)
    AND (:name IS NULL OR name = :name)
    AND (:saga_id IS NULL OR saga_id = :saga_id)
    AND (:statuses IS NULL OR status IN (SELECT value FROM json_each(:statuses)))
    AND (:definition_version IS NULL OR version = :definition_version)
    AND (:other_hash_than IS NULL OR plan_hash <> :other_hash_than)
"""
_IN_ORDER = """
    AND key > :after ORDER BY key LIMIT :limit
"""
# The plus keeps SQLite from walking all keys in their order: what is unfinished is a small part of all sagas.
_SORTED = """
    AND +key > :after ORDER BY +key LIMIT :limit
"""
# The index of what is unfinished is small, whatever has been finished.
_COUNT = """
    SELECT name, status, count(*), min(created_at)
      FROM sagas INDEXED BY sagas_unfinished
     WHERE status NOT IN ('completed', 'compensated', 'failed')
     GROUP BY name, status ORDER BY name, status
"""
_BY_KEY = _KEY + _FITTING + _IN_ORDER
_BY_NAME = _NAMED + _FITTING + _IN_ORDER
_BY_NEED = _IN_NEED + _FITTING + _IN_ORDER
_BY_STATUS = _UNFINISHED + _FITTING + _SORTED
_BY_WALK = _ANY + _FITTING + _IN_ORDER


class Look(Job[T]):
    """Something to read: `run` gets the connection."""

    __slots__ = ("run",)

    def __init__(self, run: Callable[[Connection], T]) -> None:
        super().__init__()
        self.run = run


def answer_each(connection: Connection, group: Sequence[Job[Any]]) -> None:
    """Do the looks one after the other; one that fails is no reason for another to fail."""
    for job in group:
        assert isinstance(job, Look), "the reader knows one kind of jobs"
        try:
            job.result = job.run(connection)
        except Exception as error:  # noqa: BLE001 - whoever looked is told
            job.error = error


def load(connection: Connection, keys: Sequence[bytes], after: int, with_plan: bool) -> Sequence[Loaded | None]:
    """Read sagas and their rows, all as of one moment."""
    loaded: list[Loaded | None] = []
    with connection:
        for key in keys:
            loaded.append(_load(connection, key, after, with_plan))  # noqa: PERF401 - inside the snapshot
    return loaded


def _load(connection: Connection, key: bytes, after: int, with_plan: bool) -> Loaded | None:
    found = connection.execute(_SUMMARY, (key,)).fetchone()
    if found is None:
        return None
    summary = Summary(*found)
    rows = tuple(Row(*row) for row in connection.execute(_ROWS, (key, after)))
    if not with_plan:
        return Loaded(summary, rows)
    plan = connection.execute(_PLAN, (summary.name, summary.definition_version, summary.plan_hash)).get
    return Loaded(summary, rows, plan)


def find(connection: Connection, query: Query) -> Sequence[Summary]:
    """Read the summaries that fit."""
    values = query._asdict()
    del values["keys"]
    values["after"] = query.after or b""  # an empty key comes before all others
    values["statuses"] = None if query.statuses is None else json.dumps(sorted(query.statuses))
    if query.keys is None:
        return [Summary(*row) for row in connection.execute(_statement(query), values)]
    found: list[Summary] = []
    with connection:
        for key in sorted(set(query.keys)):
            found += [Summary(*row) for row in connection.execute(_BY_KEY, {**values, "key": key})]
    return found[: query.limit]


def count(connection: Connection) -> tuple[Count, ...]:
    """Count the unfinished sagas by name and status."""
    return tuple(Count(*row) for row in connection.execute(_COUNT))


def _statement(query: Query) -> str:
    if query.tenant is not None and query.name is not None and query.saga_id is not None:
        return _BY_NAME
    if query.statuses == frozenset({"needs_attention"}):
        return _BY_NEED
    if query.statuses is not None and not query.statuses & FINAL_STATUSES:
        return _BY_STATUS
    return _BY_WALK
