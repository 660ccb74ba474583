"""A throw-away PostgreSQL for measurements: a new database for each run, and what the server counted for it.

Owns the server's settings, which are the stock ones with everything durable, and the counters that are read around a
run. Must not measure time. Used by `throughput` and `compare`, in the process that starts the runs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg

from atone.testing.postgres import PostgresServer, postgres_server

# Beside the stock settings, where fsync, synchronous_commit and full_page_writes are on.
SETTINGS = {"shared_preload_libraries": "pg_stat_statements", "max_connections": "300"}
DURABLE = ("fsync", "synchronous_commit", "full_page_writes")

_COUNTERS = """
SELECT pg_current_wal_lsn() - '0/0' AS wal, pg_database_size(d.datname) AS disk,
       pg_stat_get_db_xact_commit(d.oid) + pg_stat_get_db_xact_rollback(d.oid) AS transactions,
       (SELECT wal_fpi FROM pg_stat_wal) AS pages,
       (SELECT coalesce(sum(calls), 0) FROM pg_stat_statements AS s WHERE s.dbid = d.oid) AS statements
  FROM pg_database AS d WHERE d.datname = $1
"""
_GUESTS = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND backend_type = 'client backend'"


class Counters(NamedTuple):
    """What the server has counted: bytes of WAL, whole pages in it, and of one database the rest."""

    wal_bytes: int
    wal_pages: int
    transactions: int
    statements: int
    disk_bytes: int

    def since(self, before: Counters) -> Counters:
        """Return what has come since."""
        return Counters(*[now - then for now, then in zip(self, before, strict=True)])


class Databases:
    """One server and the databases on it."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._names = (f"bench_{number}" for number in count(1))
        self.version = str(self._ask("SHOW server_version")).split()[0]
        self._ask("CREATE EXTENSION pg_stat_statements")
        for name in DURABLE:
            if self._ask("SELECT current_setting($1)", name) != "on":
                raise AssertionError(f"{name} is off; figures of such a server are of no use")

    @property
    def server_pid(self) -> int:
        """The number of the server's first process; the others are below it."""
        return self._server.pid

    @property
    def programs(self) -> Path:
        """The folder with PostgreSQL's programs, of the server's version."""
        return self._server.bin_dir

    @contextmanager
    def one(self) -> Generator[str, None, None]:
        """Make an empty database, give its name, and remove it. What was written before is flushed first."""
        name = next(self._names)
        self._ask(f"CREATE DATABASE {name}")
        try:
            self._ask("CHECKPOINT")
            yield name
        finally:
            self._ask(f"DROP DATABASE {name} WITH (FORCE)")

    def url(self, name: str) -> str:
        """Return where a client finds a database."""
        return self._server.url(name)

    def counters(self, name: str) -> Counters:
        """Return what was counted by now; a session's own counts may come a second late."""
        row = asyncio.run(self._row(_COUNTERS, name))
        return Counters(*[int(row[key]) for key in ("wal", "pages", "transactions", "statements", "disk")])

    def settled(self, name: str) -> Counters:
        """Return what was counted for all sessions of a database, which have ended or are about to."""
        until = time.monotonic() + 10
        while self._ask(_GUESTS, name) and time.monotonic() < until:
            time.sleep(0.02)
        return self.counters(name)

    def _ask(self, statement: str, *values: str) -> Any:
        row = asyncio.run(self._row(statement, *values))
        return None if row is None else row[0]

    async def _row(self, statement: str, *values: str) -> Any:
        connection = await asyncpg.connect(self._server.url())
        try:
            return await connection.fetchrow(statement, *values)
        finally:
            await connection.close()


@contextmanager
def databases() -> Generator[Databases, None, None]:
    """Start a server for measurements; it goes with this process."""
    with postgres_server(settings=SETTINGS) as server:
        yield Databases(server)
