"""Requests from outside on SQLite: the next journal row of a saga, or an event that waits for a saga to begin.

Owns the deduplication by request id. It must not know what is asked for. Called by the adapter, in the writer thread.
"""

from __future__ import annotations

from typing import Any

from atone.store import FINAL_STATUSES, Delivered, Delivery
from atone.stores._sqlite_connection import Connection
from atone.stores._sqlite_turn import append_request

_FIND = """
    SELECT key, status,
           (SELECT max(version) FROM journal WHERE saga = key),
           EXISTS (SELECT 1 FROM requests WHERE saga = key AND id = ?)
      FROM sagas WHERE tenant = ? AND name = ? AND saga_id = ?
"""
# An event that has run out, and that no claim has given up yet, is as good as gone: it may come anew.
_KEEP = """
    INSERT INTO early_events (tenant, name, saga_id, request_id, commit_id, entries, expires_at)
    VALUES (:tenant, :name, :saga_id, :request_id, :commit_id, :entries, :expires_at)
    ON CONFLICT (tenant, name, saga_id, request_id)
    DO UPDATE SET commit_id = :commit_id, entries = :entries, expires_at = :expires_at WHERE expires_at <= :now
"""


def deliver(connection: Connection, now: float, delivery: Delivery) -> Delivered:
    """Append the request, or keep an event for a saga that does not exist yet."""
    identity = (delivery.tenant, delivery.name, delivery.saga_id)
    found: Any = connection.execute(_FIND, (delivery.request_id, *identity)).fetchone()
    if found is None:
        return _keep(connection, delivery, now)
    key, status, newest, duplicate = found
    if duplicate:
        return Delivered.DUPLICATE
    if status in FINAL_STATUSES:
        return Delivered.FINAL
    append_request(connection, (key, newest + 1, now, delivery.commit_id, delivery.entries), delivery.request_id)
    return Delivered.APPENDED


def _keep(connection: Connection, delivery: Delivery, now: float) -> Delivered:
    if delivery.keep_seconds is None:
        return Delivered.UNKNOWN
    before = connection.total_changes()
    connection.execute(
        _KEEP,
        {
            "tenant": delivery.tenant,
            "name": delivery.name,
            "saga_id": delivery.saga_id,
            "request_id": delivery.request_id,
            "commit_id": delivery.commit_id,
            "entries": delivery.entries,
            "expires_at": now + delivery.keep_seconds,
            "now": now,
        },
    )
    return Delivered.DUPLICATE if connection.total_changes() == before else Delivered.KEPT
