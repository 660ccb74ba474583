"""The commit transaction on SQLite: a group of commits in one `BEGIN IMMEDIATE`, each turn judged by itself.

Owns the checks of owner, version and identity, and what early events become at a saga's birth. It must not look into
entries. Called by the adapter's writer thread; `start` calls it within the transaction of somebody else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import apsw

from atone.errors import WorkerDead
from atone.store import Birth, Turn, TurnResult
from atone.stores._sqlite_errors import DATA_ERRORS
from atone.stores._sqlite_thread import Commit

_ALIVE = "SELECT 1 FROM workers WHERE id = ? AND dead = 0 AND lease_until > ?"
_LOOK = """
    SELECT (SELECT commit_id FROM journal WHERE saga = ?1 AND version = ?2),
           (SELECT max(version) FROM journal WHERE saga = ?1),
           owner, asked
      FROM (SELECT 1) LEFT JOIN sagas ON key = ?1
"""
_APPEND = "INSERT INTO journal (saga, version, at, commit_id, entries) VALUES (?, ?, ?, ?, ?)"
_SHOW = "UPDATE sagas SET status = ?, owner = ?, wake_at = ?, asked = 0 WHERE key = ?"
_SEEN = "UPDATE sagas SET asked = 0 WHERE key = ?"
_BEAR = """
    INSERT INTO sagas (key, tenant, name, saga_id, definition, status, owner, wake_at, created_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (tenant, name, saga_id) DO NOTHING
"""
_DEFINE = "INSERT INTO definitions (name, version, plan_hash) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
_DEFINITION = "SELECT id FROM definitions WHERE name = ? AND version = ? AND plan_hash = ?"
_WAITING = """
    DELETE FROM early_events WHERE tenant = ? AND name = ? AND saga_id = ? AND expires_at > ?
    RETURNING id, request_id, commit_id, entries
"""
_NOTE_REQUEST = "INSERT INTO requests (saga, id) VALUES (?, ?)"
_ASK = "UPDATE sagas SET asked = 1, wake_at = CASE WHEN owner IS NULL THEN ? ELSE wake_at END WHERE key = ?"


@contextmanager
def writing(connection: apsw.Connection) -> Iterator[None]:
    """Hold the file's write lock for one transaction, and leave no half of it behind."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk has rolled back already
            connection.execute("ROLLBACK")
        raise


def is_alive(connection: apsw.Connection, worker: str, now: float) -> bool:
    """Tell whether the worker may write: registered, not dead, lease not over."""
    return connection.execute(_ALIVE, (worker, now)).fetchone() is not None


def dead(worker: str) -> WorkerDead:
    """Return what a worker without a lease is told."""
    return WorkerDead(
        f"Worker {worker} has no lease any more; nothing was written. Drop its sagas and register under a new id."
    )


def write_group(connection: apsw.Connection, group: Sequence[Commit], clock: Callable[[], float]) -> None:
    """Write all commits of a group in one durable transaction, and give each its results or its error."""
    with writing(connection):
        now = clock()  # read under the lock: nobody can declare this worker dead between the check and the write
        alive = {worker: is_alive(connection, worker, now) for worker in {job.worker for job in group}}
        for job in group:
            if alive[job.worker]:
                job.results = [write_turn(connection, job.worker, turn, now) for turn in job.turns]
            else:
                job.error = dead(job.worker)


def write_turn(connection: apsw.Connection, worker: str | None, turn: Turn, now: float) -> TurnResult:
    """Write one turn in a savepoint of its own; without a worker, a new saga is born unowned."""
    connection.execute("SAVEPOINT turn")
    try:
        result = _judge(connection, worker, turn, now)
    except DATA_ERRORS:
        result = TurnResult.REFUSED
    if result is not TurnResult.APPLIED:
        connection.execute("ROLLBACK TO turn")
    connection.execute("RELEASE turn")
    return result


def _judge(connection: apsw.Connection, worker: str | None, turn: Turn, now: float) -> TurnResult:
    stands, newest, owner, asked = connection.execute(_LOOK, (turn.key, turn.version)).get
    if stands == turn.commit_id:
        return TurnResult.APPLIED
    if turn.birth is not None:
        return _bear(connection, worker, turn, turn.birth, now)
    if owner is None or owner != worker:
        return TurnResult.NOT_MINE
    if turn.version != newest + 1:
        return TurnResult.CONFLICT
    connection.execute(_APPEND, (turn.key, turn.version, now, turn.commit_id, turn.entries))
    if turn.hot is not None:
        shown = (turn.hot.status, worker if turn.hot.owned else None, turn.hot.wake_at, turn.key)
        connection.execute(_SHOW, shown)
    elif asked:
        connection.execute(_SEEN, (turn.key,))
    return TurnResult.APPLIED


def _bear(connection: apsw.Connection, worker: str | None, turn: Turn, birth: Birth, now: float) -> TurnResult:
    if turn.hot is None:
        return TurnResult.REFUSED
    definition = _definition(connection, (birth.name, birth.definition_version, birth.plan_hash))
    owner = worker if turn.hot.owned else None
    identity = (birth.tenant, birth.name, birth.saga_id)
    row = (turn.key, *identity, definition, turn.hot.status, owner, turn.hot.wake_at, now)
    before = connection.total_changes()
    connection.execute(_BEAR, row)
    if connection.total_changes() == before:
        return TurnResult.TAKEN
    connection.execute(_APPEND, (turn.key, turn.version, now, turn.commit_id, turn.entries))
    for early in sorted(connection.execute(_WAITING, (*identity, now)).fetchall()):
        _, request_id, commit_id, entries = early
        turn = Turn(turn.key, turn.version + 1, commit_id, entries)
        append_request(connection, turn, request_id, now)
    return TurnResult.APPLIED


def append_request(connection: apsw.Connection, row: Turn, request_id: str, now: float) -> None:
    """Write a request as a journal row and make its saga due; the caller has checked that it is new and comes next."""
    connection.execute(_APPEND, (row.key, row.version, now, row.commit_id, row.entries))
    connection.execute(_NOTE_REQUEST, (row.key, request_id))
    connection.execute(_ASK, (now, row.key))


def _definition(connection: apsw.Connection, wanted: tuple[str, int, str]) -> int:
    found = connection.execute(_DEFINITION, wanted).fetchone()
    if found is None:
        connection.execute(_DEFINE, wanted)
        found = connection.execute(_DEFINITION, wanted).fetchone()
    assert found is not None, "what was inserted is there"
    return int(found[0])
