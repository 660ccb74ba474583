"""A PostgreSQL for the tests: one server for all of them, the three roles, and stores whose clock stands still.

Every test gets a schema of its own, or empty tables in a shared one. Stores connect as a worker, who may not do more
than a worker needs; the tests' own connections are a superuser's. The server goes with the process that runs the tests.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import psycopg

from atone.stores.postgres import PostgresStore, migrate, roles_sql
from atone.testing.contracts import Joined, Subject
from atone.testing.postgres import PostgresServer, find_postgres, major_version, postgres_server
from tests.servers.older import OLDEST

T = TypeVar("T")

SERVERS: dict[str, Path] = {}
for _folder in find_postgres():
    SERVERS.setdefault(f"postgres-{major_version(_folder)}", _folder)

# What the contract runs on. The newest is a wheel, which the lock brings; the oldest may have to be installed.
TESTED = tuple(dict.fromkeys([*SERVERS, f"postgres-{OLDEST}"]))

WORKER = "wanda"
ROW_BYTES_MAX = 100_000

# Some of the statements that Atone writes with are told that they conflict with another one, as a busy or a distributed
# database does. Callers' own connections are spared: what they do about it is theirs to decide.
_STORM = """
CREATE FUNCTION storm() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('application_name') = 'atone' AND random() < 0.07 THEN
        RAISE EXCEPTION 'an injected conflict' USING ERRCODE = CASE WHEN random() < 0.5 THEN '40001' ELSE '40P01' END;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER storm AFTER INSERT OR UPDATE ON workers EXECUTE FUNCTION storm();
CREATE TRIGGER storm AFTER INSERT OR UPDATE ON sagas EXECUTE FUNCTION storm();
CREATE TRIGGER storm AFTER INSERT ON journal EXECUTE FUNCTION storm();
CREATE TRIGGER storm AFTER INSERT ON requests EXECUTE FUNCTION storm();
CREATE TRIGGER storm AFTER INSERT OR UPDATE OR DELETE ON early_events EXECUTE FUNCTION storm();
CREATE TRIGGER storm AFTER INSERT ON dead_letters EXECUTE FUNCTION storm();
CREATE TRIGGER storm AFTER INSERT OR UPDATE OR DELETE ON outbox EXECUTE FUNCTION storm();
CREATE TRIGGER storm AFTER INSERT ON set_aside EXECUTE FUNCTION storm();
"""
_EMPTY = """
TRUNCATE workers, definitions, sagas, journal, requests, early_events, dead_letters, outbox, set_aside RESTART IDENTITY
"""


def run_aside(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine to its end in a thread of its own, where an event loop may be running in this one."""
    results: list[T] = []
    errors: list[BaseException] = []

    def main() -> None:
        try:
            results.append(asyncio.run(work()))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=main)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so in another process, which can't tell us."""
    while not condition():  # noqa: ASYNC110 - there is no event of it here
        await asyncio.sleep(0.01)


class Place:
    """A schema with Atone's tables, and a clock beside them."""

    def __init__(self, bench: Bench, schema: str) -> None:
        self.bench = bench
        self.schema = schema
        run_aside(lambda: migrate(bench.server.url(), schema=schema))
        self.sql("CREATE TABLE clock (now float8 NOT NULL)")
        self.sql("INSERT INTO clock VALUES (1750000000)")
        self.sql("GRANT SELECT ON clock TO PUBLIC")

    def sql(self, text: str, *values: object) -> list[Any]:
        """Run a statement as the superuser, in this schema."""
        self.bench.admin.execute(f'SET search_path TO "{self.schema}"')
        cursor = self.bench.admin.execute(text, values or None)
        return cursor.fetchall() if cursor.description else []

    def empty(self) -> None:
        """Take out everything that a store has put in."""
        self.sql(_EMPTY)

    def storm(self) -> None:
        """Let many of the stores' statements fail for a conflict that is not there."""
        self.sql(_STORM)

    def advance(self, seconds: float) -> None:
        """Move the stores' clock."""
        self.sql("UPDATE clock SET now = now + %s", seconds)

    def store(self, dsn: str | None = None, *, real_clock: bool = False, **options: Any) -> PostgresStore:
        """Return a store that connects as a worker."""
        if not real_clock:
            options["clock_sql"] = f'(SELECT now FROM "{self.schema}".clock)'
        options = {"row_bytes_max": ROW_BYTES_MAX, "migrate": False, **options}
        return PostgresStore(dsn or self.bench.worker_url, schema=self.schema, **options)

    def subject(self, **options: Any) -> Subject:
        """Return what the contract wants to know, of a store with these options."""
        return Subject(self.store(**options), self.advance, ROW_BYTES_MAX, self.join)

    @contextmanager
    def join(self) -> Iterator[Joined]:
        """Begin a transaction of a caller's own."""
        connection = psycopg.connect(self.bench.worker_url)
        try:
            yield Joined(connection, connection.commit, connection.rollback)
        finally:
            connection.close()


class Bench:
    """A server with the roles, a worker's login, and the superuser's connection."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self.admin = psycopg.connect(server.url(), autocommit=True)
        self.admin.execute(roles_sql())
        self.admin.execute(f"CREATE ROLE {WORKER} LOGIN PASSWORD '{WORKER}' IN ROLE atone_worker")
        self.worker_url = server.url(user=WORKER, password=WORKER)
        self._numbers = count(1)
        self._shared: Place | None = None
        self._stormy: Place | None = None

    def place(self) -> Place:
        """Return a new schema."""
        return Place(self, f"Test_{next(self._numbers)}")

    def shared_place(self) -> Place:
        """Return the schema that many tests use in turn, emptied."""
        if self._shared is None:
            self._shared = self.place()
        self._shared.empty()
        return self._shared

    def stormy_place(self) -> Place:
        """Return another shared schema, where many statements fail for a conflict that is not there."""
        if self._stormy is None:
            self._stormy = self.place()
            self._stormy.storm()
        self._stormy.empty()
        return self._stormy

    def script(self, text: str) -> None:
        """Run a script as the superuser, as psql would: it may have transactions of its own."""
        with psycopg.connect(self.server.url(), autocommit=True) as connection:
            connection.execute(text)

    def reconnect(self) -> None:
        """Make the superuser's connection anew, after the server was restarted."""
        self.admin.close()
        self.admin = psycopg.connect(self.server.url(), autocommit=True)

    def close(self) -> None:
        """Give the connection back."""
        self.admin.close()


@contextmanager
def bench(bin_dir: Path) -> Generator[Bench, None, None]:
    """Start a server that forgets what it has written when the power goes, which no test lets it."""
    with postgres_server(bin_dir, settings={"fsync": "off"}) as server:
        opened = Bench(server)
        try:
            yield opened
        finally:
            opened.close()
