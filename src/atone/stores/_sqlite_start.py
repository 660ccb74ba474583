"""Starting a saga inside a transaction of the caller's own, on SQLite.

Owns the checks that make this safe: the same library, the same file, an open transaction. Nothing runs before the
caller commits. Called by the adapter's `start`, in the caller's thread, on the caller's connection.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import apsw

from atone.store import Turn, TurnResult
from atone.stores._sqlite_connection import Connection
from atone.stores._sqlite_errors import translated
from atone.stores._sqlite_turn import write_turn


def start(turn: Turn, connection: object, path: str, now: float) -> TurnResult:
    """Insert a saga that nobody owns, due at once unless it says when, as part of the caller's transaction."""
    usable = _usable(connection, path)
    if turn.hot is not None and turn.hot.wake_at is None:
        turn = turn._replace(hot=turn.hot._replace(wake_at=now))
    # Their own ways to see rows and statements are not for Atone's.
    traces = usable.row_trace, usable.exec_trace
    usable.row_trace = usable.exec_trace = None
    try:
        return write_turn(usable, None, turn, now)
    except apsw.Error as error:
        raise translated(error, path) from error
    finally:
        usable.row_trace, usable.exec_trace = traces


def _usable(connection: object, path: str) -> Connection:
    kind = type(connection)
    if kind.__module__ == "sqlite3":
        raise TypeError(
            "A sqlite3.Connection can't be used here: it is a second SQLite library in this process, and two of them "
            "drop each other's locks, so that a committed row can vanish. Open the file with apsw.Connection instead."
        )
    if isinstance(connection, apsw.Connection) and _is_closed(connection):
        raise TypeError("The connection is closed, so it is in no transaction. Open one and begin a transaction first.")
    if not isinstance(connection, apsw.Connection) or connection.is_async:
        raise TypeError(f"connection= takes a plain apsw.Connection here, not {kind.__module__}.{kind.__qualname__}.")
    if not _same_file(connection.filename, path):
        raise TypeError(
            f"The connection is to {connection.filename or 'no file'}, the sagas are in {path}: one transaction can't "
            "cover both. Open a connection to the store's file."
        )
    if not connection.in_transaction:
        raise TypeError("The connection is in no transaction, so there is nothing to join. Begin one first.")
    return cast("Connection", connection)


def _is_closed(connection: apsw.Connection) -> bool:
    try:
        _ = connection.in_transaction
    except apsw.ConnectionClosedError:
        return True
    return False


def _same_file(mine: str, path: str) -> bool:
    return bool(mine) and Path(mine).samefile(path)
