"""Opening Atone's SQLite file: whose it is, its pragmas, its numbered migrations.

Refuses a file that is somebody else's before it changes a byte of it. It must not know what the tables are for.
Called by the SQLite adapter's threads, each for its own connection.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib import resources
from random import random
from typing import cast

import apsw

from atone.errors import StoreError, StoreSchemaError
from atone.stores._sqlite_connection import Connection, connect

APPLICATION_ID = 0x41744F6E  # "AtOn", in the file's header

_POLL_SECONDS = 0.001
_CACHE_KIB = 16 * 1024
_LOG_BYTES_KEPT = 64 * 1024 * 1024  # a write-ahead log that has grown larger is cut when it starts anew


def open_file(path: str, busy_seconds: float) -> Connection:
    """Return a connection to Atone's file, which is created, or brought to the newest schema, if need be.

    Raises:
        StoreSchemaError: The file is somebody else's, or its schema is newer than this code. It was not changed.
    """
    connection = connect(path)
    try:
        connection.set_busy_handler(_patience(busy_seconds))
        newest = max(_migrations())
        found = _schema_of(connection, path)
        if found > newest:
            raise StoreSchemaError(
                f"{path} has schema {found}, this Atone knows up to {newest}. Upgrade Atone here, or name another file."
            )
        _use_wal(connection, path, busy_seconds)
        connection.pragma("synchronous", "FULL")
        connection.pragma("cache_size", -_CACHE_KIB)
        connection.pragma("journal_size_limit", _LOG_BYTES_KEPT)
        if found < newest:
            _migrate(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _patience(busy_seconds: float) -> Callable[[int], bool]:
    """Poll a locked file every millisecond: SQLite's own handler backs off, and loses against a busy neighbour."""
    until = 0.0

    def wait(tries: int) -> bool:
        nonlocal until
        now = time.monotonic()
        if tries == 0:
            until = now + busy_seconds
        if now >= until:
            return False
        time.sleep(_POLL_SECONDS * (0.5 + random()))
        return True

    return wait


def _schema_of(connection: Connection, path: str) -> int:
    """Return the number of the newest migration in the file, 0 for an empty file."""
    with connection:  # one snapshot: another process may be creating the file right now
        owner = connection.pragma("application_id")
        tables = connection.execute("SELECT count(*) FROM sqlite_schema").get
        number = cast("int", connection.pragma("user_version"))
    if owner == APPLICATION_ID:
        return number
    if owner == 0 and number == 0 and tables == 0:
        return 0
    raise StoreSchemaError(f"{path} holds another program's data. Give Atone a file of its own.")


def _use_wal(connection: Connection, path: str, busy_seconds: float) -> None:
    until = time.monotonic() + busy_seconds
    mode = None
    while mode is None:
        try:
            mode = connection.pragma("journal_mode", "WAL")
        except apsw.BusyError:  # another process is doing the same; SQLite does not ask the busy handler here
            if time.monotonic() >= until:
                raise
            time.sleep(_POLL_SECONDS)
    if mode != "wal":
        raise StoreError(
            f"{path} can't use a write-ahead log; its file system may be a network drive. Name a file on a local disk."
        )


def _migrate(connection: Connection, path: str) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        done = _schema_of(connection, path)  # another process may have been faster
        for number, text in sorted(_migrations().items()):
            if number > done:
                connection.execute(text)
                connection.pragma("user_version", number)
        connection.pragma("application_id", APPLICATION_ID)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _migrations() -> dict[int, str]:
    folder = resources.files("atone.stores").joinpath("sql", "sqlite")
    files = (file for file in folder.iterdir() if file.name.endswith(".sql"))
    return {int(file.name.partition("_")[0]): file.read_text(encoding="utf-8") for file in files}
