"""Connecting to PostgreSQL: how a session of Atone's is set up, and a connection for a short while.

Owns the driver, so that whoever wants a connection need not know it. Must not keep one, nor repeat anything. Called by
the PostgreSQL store and by the embedded broker.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, cast

import asyncpg

from atone.stores._address import split_address
from atone.stores._postgres_errors import translated, unreached
from atone.stores._postgres_line import Connection

_CONNECTING_SECONDS = 5.0

# Statements go by indexes whatever the statistics say, so each is planned once: a plan that was made while the tables
# were empty stays good.
_SETTINGS = {
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
    "search_path": "pg_catalog",
    "default_transaction_isolation": "read committed",
}
_SET = """
SELECT set_config(name, value, false) FROM unnest($1::text[], $2::text[]) AS s (name, value)
 UNION ALL
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'
"""


async def connect(dsn: str, *, connect_seconds: float = _CONNECTING_SECONDS, **options: Any) -> Connection:
    """Return a connection as the address says, with nothing set up in it."""
    if "application_name=" not in dsn:
        options["server_settings"] = {"application_name": "atone"}
    if "," in split_address(dsn).netloc and "target_session_attrs=" not in dsn:
        options["target_session_attrs"] = "read-write"
    # A statement that was prepared stays so: it is the same few for as long as the connection lives.
    connection = await asyncpg.connect(dsn, timeout=connect_seconds, max_cached_statement_lifetime=0, **options)
    return cast("Connection", connection)


async def dial(dsn: str, statement_seconds: float, lock_seconds: float, statement_cache_size: int) -> Connection:
    """Return a connection whose statements give up in time, and are planned and kept as Atone's are to be.

    With `statement_cache_size=0` nothing is set up: behind such a pooler the next transaction has another session.
    """
    # The server's own patience ends first: its answer says that nothing was written, silence would say nothing.
    connection = await connect(
        dsn,
        connect_seconds=statement_seconds + 1,
        command_timeout=statement_seconds + 1,
        statement_cache_size=statement_cache_size,
    )
    if not statement_cache_size:
        return connection
    milliseconds = str(int(statement_seconds * 1000))
    settings = {
        **_SETTINGS,
        "statement_timeout": milliseconds,
        "idle_in_transaction_session_timeout": milliseconds,
        "lock_timeout": str(int(lock_seconds * 1000)),
    }
    try:
        await connection.fetch(_SET, list(settings), list(settings.values()))
    except BaseException:
        connection.terminate()
        raise
    return connection


class Visit:
    """A connection for a short while, whose errors are the store's."""

    def __init__(self, dsn: str, where: str) -> None:
        self._dsn = dsn
        self._where = where
        self._connection: Connection | None = None

    async def __aenter__(self) -> Connection:
        try:
            self._connection = await connect(self._dsn)
        except Exception as error:
            better = unreached(error, self._where)
            if better is error:
                raise
        else:
            return self._connection
        raise better from better.__cause__  # out here it has no other error behind it: that might quote the address

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._connection is not None, "it was entered"
        if error is None:
            await self._connection.close(timeout=_CONNECTING_SECONDS)
            return
        self._connection.terminate()
        better = translated(error, self._where)
        if better is not error:
            raise better from error
