"""The writer's transaction on SQLite: all jobs of a group in one `BEGIN IMMEDIATE`, answered when it is durable.

Turns that stand side by side are written together, with one statement for each kind of row; only if one of them
does not fit is everything rolled back, and each turn judged by itself. It must not look into entries. Called by the
adapter's writer thread.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import apsw

from atone.errors import WorkerDead
from atone.store import Turn, TurnResult
from atone.stores._sqlite_connection import Connection
from atone.stores._sqlite_errors import DATA_ERRORS
from atone.stores._sqlite_outbox import POST, posted_rows
from atone.stores._sqlite_thread import Job
from atone.stores._sqlite_turn import APPEND, BEAR, SEEN, SHOW, born_row, definition_of, take_early_events, write_turn

T = TypeVar("T")

_ALIVE = "SELECT 1 FROM workers WHERE id = ? AND dead = 0 AND lease_until > ?"
_ASKED = "SELECT key FROM sagas WHERE owner = ? AND asked = 1"
_APPEND_MINE = """
    INSERT INTO journal (saga, version, at, commit_id, entries)
    SELECT ?1, ?2, ?3, ?4, ?5 FROM sagas WHERE key = ?1 AND owner = ?6
    ON CONFLICT DO NOTHING
"""
_ANY_EARLY = "SELECT EXISTS (SELECT 1 FROM early_events)"


class Commit(Job[Sequence[TurnResult]]):
    """One call of `commit`."""

    __slots__ = ("turns", "worker")

    def __init__(self, worker: str | None, turns: Sequence[Turn]) -> None:
        super().__init__()
        self.worker = worker
        self.turns = turns


class Change(Job[T]):
    """Any other change: `run` gets the connection, in a transaction, and the time."""

    __slots__ = ("run",)

    def __init__(self, run: Callable[[Connection, float], T]) -> None:
        super().__init__()
        self.run = run


class _Misfit(Exception):
    """Not all turns could be written together."""


def write_group(connection: Connection, group: Sequence[Job[Any]], clock: Callable[[], float]) -> None:
    """Do all jobs of a group in one durable transaction, in their order, and give each its result or its error."""
    try:
        with _transaction(connection):
            _write(connection, group, clock(), _write_together)
    except (_Misfit, *DATA_ERRORS):
        with _transaction(connection):
            _write(connection, group, clock(), _write_apart)


@contextmanager
def _transaction(connection: Connection) -> Generator[None, None, None]:
    if connection.in_transaction:  # even a roll-back can fail, when the disk does
        connection.execute("ROLLBACK")
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk has rolled back already
            connection.execute("ROLLBACK")
        raise


_WriteTurns = Callable[[Connection, Sequence[Commit], float], None]


def _write(connection: Connection, group: Sequence[Job[Any]], now: float, write_turns: _WriteTurns) -> None:
    # `now` was read under the lock: nobody can declare a worker dead between the check and the write.
    commits: list[Commit] = []
    for job in group:
        job.error = None
        if isinstance(job, Commit):
            if job.worker is None or is_alive(connection, job.worker, now):
                commits.append(job)
            else:
                job.error = dead(job.worker)
            continue
        write_turns(connection, commits, now)
        commits = []
        assert isinstance(job, Change), "the writer knows two kinds of jobs"
        _change(connection, job, now)
    write_turns(connection, commits, now)


def _change(connection: Connection, job: Change[Any], now: float) -> None:
    connection.execute("SAVEPOINT change")
    try:
        job.result = job.run(connection, now)
    except Exception as error:
        if isinstance(error, apsw.Error) and not isinstance(error, DATA_ERRORS):
            raise  # the file can't be used, for nobody in the group
        connection.execute("ROLLBACK TO change")
        job.error = error
    connection.execute("RELEASE change")


def _write_apart(connection: Connection, commits: Sequence[Commit], now: float) -> None:
    for job in commits:
        job.result = [write_turn(connection, job.worker, turn, now) for turn in job.turns]


class _Rows(NamedTuple):
    """What to write, one field for each statement."""

    born: list[tuple[Any, ...]]
    first: list[tuple[Any, ...]]
    more: list[tuple[Any, ...]]
    shown: list[tuple[Any, ...]]
    seen: list[tuple[bytes]]
    posted: list[tuple[Any, ...]]


def _write_together(connection: Connection, commits: Sequence[Commit], now: float) -> None:
    """Write the turns of all commits with one statement for each kind of row.

    Raises:
        _Misfit: At least one turn did not fit. What was written has to be rolled back.
    """
    if not commits:
        return
    rows = _Rows([], [], [], [], [], [])
    definitions: dict[tuple[str, int, str], int] = {}
    for job in commits:
        asked = {key for (key,) in connection.execute(_ASKED, (job.worker,))}
        for turn in job.turns:
            _collect(connection, rows, job.worker, turn, now, asked, definitions)
        job.result = [TurnResult.APPLIED] * len(job.turns)
    keys = [row[0] for row in (*rows.first, *rows.more)]
    if len(set(keys)) != len(keys):  # one turn may depend on what another one changes
        raise _Misfit
    before = connection.total_changes()
    for statement, values in zip((BEAR, APPEND, _APPEND_MINE, SHOW, SEEN, POST), rows, strict=True):
        if values:
            connection.executemany(statement, values)
    if connection.total_changes() - before != sum(map(len, rows)):
        raise _Misfit
    if rows.born and connection.execute(_ANY_EARLY).get:
        for turn in (turn for job in commits for turn in job.turns if turn.birth is not None):
            take_early_events(connection, turn, now)


def _collect(
    connection: Connection,
    rows: _Rows,
    worker: str | None,
    turn: Turn,
    now: float,
    asked: set[Any],
    definitions: dict[tuple[str, int, str], int],
) -> None:
    key, version, commit_id, entries, hot, birth, messages = turn
    if messages:
        rows.posted.extend(posted_rows(turn, now))
    if birth is not None:
        definition = (birth.name, birth.definition_version, birth.plan_hash)
        if definition not in definitions:
            definitions[definition] = definition_of(connection, definition)
        rows.born.append(born_row(turn, definitions[definition], worker, now))
        rows.first.append((key, version, now, commit_id, entries))
        return
    rows.more.append((key, version, now, commit_id, entries, worker))
    if hot is not None:
        rows.shown.append((hot.status, worker if hot.owned else None, hot.wake_at, key))
    elif key in asked:
        rows.seen.append((key,))


def is_alive(connection: Connection, worker: str, now: float) -> bool:
    """Tell whether the worker may write: registered, not dead, lease not over."""
    return connection.execute(_ALIVE, (worker, now)).fetchone() is not None


def dead(worker: str) -> WorkerDead:
    """Return what a worker without a lease is told."""
    return WorkerDead(
        f"Worker {worker} has no lease any more; nothing was written. Drop its sagas and register under a new id."
    )
