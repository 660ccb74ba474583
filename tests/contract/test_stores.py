"""Every store passes the same contract; the sentences of it are in `atone.testing.contracts`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import pytest

from atone.stores.memory import MemoryStore
from atone.stores.sqlite import SqliteStore
from atone.testing.contracts import STORE_CHECKS, Check, Joined, Subject
from tests.servers.postgres import SERVERS, TESTED, WORKER, Bench

ROW_BYTES_MAX = 100_000


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_750_000_000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


def memory_subject(folder: Path) -> Subject:
    clock = Clock()
    return Subject(
        MemoryStore(allow_volatile=True, clock=clock, row_bytes_max=ROW_BYTES_MAX), clock.advance, ROW_BYTES_MAX
    )


def sqlite_subject(folder: Path) -> Subject:
    clock = Clock()
    folder.mkdir(exist_ok=True)
    path = folder / "atone.db"

    @contextmanager
    def join() -> Iterator[Joined]:
        connection = apsw.Connection(str(path))
        connection.execute("BEGIN")
        yield Joined(connection, lambda: connection.execute("COMMIT").get, lambda: connection.execute("ROLLBACK").get)
        connection.close()

    store = SqliteStore(path, clock=clock, row_bytes_max=ROW_BYTES_MAX)
    return Subject(store, clock.advance, ROW_BYTES_MAX, join)


@pytest.mark.parametrize("make", [memory_subject, sqlite_subject], ids=["memory", "sqlite"])
@pytest.mark.parametrize("check", STORE_CHECKS, ids=repr)
def test_store(check: Check, make: Callable[[Path], Subject], tmp_path: Path) -> None:
    """One sentence of the contract holds for one store."""
    asyncio.run(check(lambda: make(tmp_path)))


@pytest.mark.parametrize("name", TESTED)
@pytest.mark.parametrize("check", STORE_CHECKS, ids=repr)
def test_store_on_postgres(check: Check, name: str, postgres_bench_of: Callable[[str], Bench]) -> None:
    """One sentence of the contract holds for PostgreSQL, with a worker's rights and no more."""
    asyncio.run(check(postgres_bench_of(name).shared_place().subject))


@pytest.mark.parametrize("check", STORE_CHECKS, ids=repr)
def test_store_on_a_postgres_without_notify(check: Check, postgres_bench: Bench) -> None:
    """Nothing rests on a notification: the whole contract holds without any."""
    asyncio.run(check(partial(postgres_bench.shared_place().subject, notify=False)))


@pytest.mark.parametrize("check", STORE_CHECKS, ids=repr)
def test_store_on_a_postgres_where_transactions_conflict(check: Check, postgres_bench: Bench) -> None:
    """Who is told by the database to do it again does it again, and nobody notices."""
    asyncio.run(check(postgres_bench.stormy_place().subject))


def test_a_postgresql_is_here() -> None:
    """The tests above are not silently none at all."""
    assert SERVERS
    assert next(iter(SERVERS)) == "postgres-18"


@pytest.mark.parametrize("name", TESTED)
def test_the_contract_runs_as_a_worker_and_no_more(name: str, postgres_bench_of: Callable[[str], Bench]) -> None:
    """Its login has the worker's role alone, owns nothing, and the tables belong to the owner's role."""
    place = postgres_bench_of(name).shared_place()
    roles = """
        SELECT r.rolname FROM pg_auth_members AS m JOIN pg_roles AS r ON r.oid = m.roleid
         WHERE m.member = %s::regrole
    """
    assert place.sql(roles, WORKER) == [("atone_worker",)]
    rights = "SELECT rolsuper, rolcreatedb, rolcreaterole, rolbypassrls FROM pg_roles WHERE rolname = %s"
    assert place.sql(rights, WORKER) == [(False,) * 4]
    assert place.sql("SELECT count(*) FROM pg_class WHERE relowner = %s::regrole", WORKER) == [(0,)]
    owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = %s AND tablename <> 'clock'"
    assert place.sql(owners, place.schema) == [("atone_owner",)]
    store: Any = place.subject().store
    assert f"//{WORKER}:" in store._dsn
