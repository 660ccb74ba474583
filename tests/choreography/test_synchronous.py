"""Services whose connections are synchronous ones: plain handlers, in threads, in the same one transaction."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy

from atone.brokers.memory import MemoryBroker
from atone.choreography import Choreography, Participant, Reaction, event, reacts
from atone.serving import ServiceTables, serve, start_blocking
from tests.choreography.shop import eventually
from tests.servers.postgres import Bench


@event("note.written")
@dataclass(frozen=True)
class Written:
    text: str


@event("note.filed")
@dataclass(frozen=True)
class Filed:
    shelf: int


class Archive(Participant, name="archive"):
    """Files notes, with whatever connection it is given."""

    def __init__(self, insert: Callable[[Any, str], Any]) -> None:
        self.insert = insert

    @reacts(Written, emits=(Filed,), no_undo="paper")
    def file(self, ctx: Reaction[Written]) -> Filed:
        self.insert(ctx.connection, ctx.event.text)
        return Filed(1)


NOTES = Choreography("notes", Archive, starts=(Written,), completes=(Filed,))
Begin = Callable[[], AbstractContextManager[Any]]


@dataclass
class Kind:
    """A synchronous driver: what it is given as a database, and how a row is written with it."""

    database: Any
    begin: Begin
    insert: Callable[[Any, str], Any]


def of_sqlite3(folder: Path) -> Kind:
    @contextmanager
    def begin() -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(folder / "archive.db")) as connection, connection:
            yield connection

    return Kind(begin, begin, lambda line, said: line.execute("INSERT INTO effects VALUES (?)", (said,)))


def of_psycopg(url: str) -> Kind:
    def begin() -> psycopg.Connection[Any]:
        return psycopg.connect(url, options="-c search_path=archive")

    return Kind(begin, begin, lambda line, said: line.execute("INSERT INTO effects VALUES (%s)", (said,)))


def of_sqlalchemy(url: str) -> Kind:
    engine = sqlalchemy.create_engine(
        url.replace("postgresql:", "postgresql+psycopg:"),
        poolclass=sqlalchemy.NullPool,
        connect_args={"options": "-c search_path=archive"},
    )
    insert = sqlalchemy.text("INSERT INTO effects VALUES (:said)")
    return Kind(engine, engine.begin, lambda line, said: line.execute(insert, {"said": said}))


@pytest.fixture(params=["sqlite3", "psycopg", "sqlalchemy"])
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> Kind:
    if request.param == "sqlite3":
        return of_sqlite3(tmp_path)
    bench: Bench = request.getfixturevalue("postgres_bench")
    with psycopg.connect(bench.server.url(), autocommit=True) as connection:
        connection.execute("DROP SCHEMA IF EXISTS archive CASCADE")
        connection.execute("CREATE SCHEMA archive")
    return (of_psycopg if request.param == "psycopg" else of_sqlalchemy)(bench.server.url())


def test_a_synchronous_service_reacts_and_starts(kind: Kind, tmp_path: Path) -> None:
    """Ten sagas, each started in a plain transaction and handled by a plain function; each leaves one row."""
    tables = ServiceTables()
    with kind.begin() as connection:
        kind_run(connection, "CREATE TABLE effects (what text)")
        tables.create_blocking(connection)

    def place(number: int) -> None:
        with kind.begin() as connection:
            start_blocking(NOTES, connection, Written(f"n-{number}"), saga_id=f"s-{number}")

    def effects() -> list[str]:
        with kind.begin() as connection:
            return sorted(row[0] for row in kind_run(connection, "SELECT what FROM effects").fetchall())

    async def main() -> None:
        async with (
            MemoryBroker(f"memory://{tmp_path}") as broker,
            serve(NOTES, Archive(kind.insert), database=kind.database, broker=broker),
        ):
            for number in (*range(10), 3, 7):
                await asyncio.to_thread(place, number)

            async def done() -> bool:
                return len(await asyncio.to_thread(effects)) >= 10

            await eventually(done, lambda: asyncio.to_thread(effects))

    asyncio.run(main())
    assert effects() == [f"n-{number}" for number in range(10)]


def kind_run(connection: Any, statement: str) -> Any:
    by_sqlalchemy = type(connection).__module__.startswith("sqlalchemy")
    return connection.execute(sqlalchemy.text(statement) if by_sqlalchemy else statement)
