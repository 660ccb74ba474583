"""One journal row on SQLite: what a turn, a birth or a request writes, and the verdict on a turn that stands alone.

Owns the checks of owner, version and identity. It must not look into entries, and it never commits. Called within the
writer's transaction, and by `start` within somebody else's.
"""

from __future__ import annotations

from typing import Any

import apsw

from atone.store import FINAL_STATUSES, Birth, Turn, TurnResult
from atone.stores._messages import is_too_large
from atone.stores._sqlite_connection import Connection
from atone.stores._sqlite_errors import DATA_ERRORS
from atone.stores._sqlite_outbox import POST, posted_rows

APPEND = "INSERT INTO journal (saga, version, at, commit_id, entries) VALUES (?, ?, ?, ?, ?)"
BEAR = """
    INSERT INTO sagas (key, tenant, name, saga_id, definition, status, owner, wake_at, created_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (tenant, name, saga_id) DO NOTHING
"""
SHOW = "UPDATE sagas SET status = ?, owner = ?, wake_at = ?, asked = 0 WHERE key = ?"
SEEN = "UPDATE sagas SET asked = 0 WHERE key = ?"

_STANDS = "SELECT 1 FROM journal WHERE saga = ? AND version = ? AND commit_id = ?"
_NEWEST = "SELECT max(version) FROM journal WHERE saga = ?"
_OWNER = "SELECT owner, asked FROM sagas WHERE key = ?"
_NAMED = "SELECT 1 FROM sagas WHERE tenant = ? AND name = ? AND saga_id = ?"
_DEFINITION = "SELECT id FROM definitions WHERE name = ? AND version = ? AND plan_hash = ?"
_DEFINE = "INSERT INTO definitions (name, version, plan_hash) VALUES (?, ?, ?) RETURNING id"
_TAKE_EARLY = """
    DELETE FROM early_events WHERE tenant = ? AND name = ? AND saga_id = ? AND expires_at > ?
    RETURNING id, request_id, commit_id, entries
"""
_NOTE_REQUEST = "INSERT INTO requests (saga, id) VALUES (?, ?)"
_ASK = "UPDATE sagas SET asked = 1, wake_at = CASE WHEN owner IS NULL THEN ? ELSE wake_at END WHERE key = ?"


def write_turn(connection: Connection, worker: str | None, turn: Turn, now: float) -> TurnResult:
    """Write one turn if it fits; only an applied one leaves anything behind. With no worker, a saga is born unowned."""
    connection.execute("SAVEPOINT turn")
    try:
        result = _judge(connection, worker, turn, now)
    except DATA_ERRORS:
        result = TurnResult.REFUSED
    if result is not TurnResult.APPLIED:
        connection.execute("ROLLBACK TO turn")
    connection.execute("RELEASE turn")
    return result


def _judge(connection: Connection, worker: str | None, turn: Turn, now: float) -> TurnResult:
    if _one(connection, _STANDS, (turn.key, turn.version, turn.commit_id)):
        return TurnResult.APPLIED
    if is_too_large(turn, connection.limit(apsw.SQLITE_LIMIT_LENGTH)):
        return TurnResult.REFUSED
    if turn.birth is not None:
        return _bear(connection, worker, turn, turn.birth, now)
    owner, asked = _one(connection, _OWNER, (turn.key,)) or (None, 0)
    if owner is None or owner != worker:
        return TurnResult.NOT_MINE
    if turn.version != newest_version(connection, turn.key) + 1:
        return TurnResult.CONFLICT
    connection.execute(APPEND, (turn.key, turn.version, now, turn.commit_id, turn.entries))
    connection.executemany(POST, posted_rows(turn, now))
    if turn.hot is not None:
        shown = (turn.hot.status, worker if turn.hot.owned else None, turn.hot.wake_at, turn.key)
        connection.execute(SHOW, shown)
    elif asked:
        connection.execute(SEEN, (turn.key,))
    return TurnResult.APPLIED


def _bear(connection: Connection, worker: str | None, turn: Turn, birth: Birth, now: float) -> TurnResult:
    if _one(connection, _NAMED, birth[:3]):
        return TurnResult.TAKEN
    if _one(connection, _OWNER, (turn.key,)):
        return TurnResult.CONFLICT
    definition = definition_of(connection, (birth.name, birth.definition_version, birth.plan_hash))
    connection.execute(BEAR, born_row(turn, definition, worker, now))
    connection.execute(APPEND, (turn.key, turn.version, now, turn.commit_id, turn.entries))
    connection.executemany(POST, posted_rows(turn, now))
    take_early_events(connection, turn, now)
    return TurnResult.APPLIED


def born_row(turn: Turn, definition: int, worker: str | None, now: float) -> tuple[Any, ...]:
    """Return the values of a new saga's row, for `BEAR`.

    Raises:
        ValueError: The turn does not say what the saga looks like.
    """
    birth, hot = turn.birth, turn.hot
    if birth is None or hot is None:
        raise ValueError("A first turn has birth and hot.")
    owner = worker if hot.owned else None
    wake_at = now if worker is None and hot.wake_at is None else hot.wake_at
    return (
        turn.key, birth.tenant, birth.name, birth.saga_id, definition, hot.status, owner, wake_at, now
    )  # fmt: skip


def definition_of(connection: Connection, definition: tuple[str, int, str]) -> int:
    """Return the number that stands for a definition, which need not have been registered."""
    found = _one(connection, _DEFINITION, definition) or _one(connection, _DEFINE, definition)
    return int(found[0])


def take_early_events(connection: Connection, first: Turn, now: float) -> None:
    """Append the events that came before their saga, in the order in which they came; none if it is over already."""
    assert first.birth is not None, "only a birth takes events along"
    if first.hot is not None and first.hot.status in FINAL_STATUSES:
        return
    identity = first.birth[:3]
    early = sorted(connection.execute(_TAKE_EARLY, (*identity, now)).fetchall())
    for at, (_, request_id, commit_id, entries) in enumerate(early, start=first.version + 1):
        append_request(connection, (first.key, at, now, commit_id, entries), str(request_id))


def append_request(connection: Connection, row: tuple[bytes, int, float, Any, Any], request_id: str) -> None:
    """Append a request (saga, version, at, commit id, entries) and make its saga due at once."""
    key, _, at, _, _ = row
    connection.execute(APPEND, row)
    connection.execute(_NOTE_REQUEST, (key, request_id))
    connection.execute(_ASK, (at, key))


def newest_version(connection: Connection, key: bytes) -> int:
    """Return the version of a saga's last row."""
    return int(_one(connection, _NEWEST, (key,))[0])


def _one(connection: Connection, statement: str, values: tuple[Any, ...]) -> Any:
    return connection.execute(statement, values).fetchone()
