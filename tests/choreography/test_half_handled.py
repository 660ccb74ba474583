"""Handlers that commit by themselves and then fail: half of a delivery never passes for a whole one."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import aiosqlite
import asyncpg
import psycopg
import pytest

from atone._messaging import headers
from atone.broker import Message
from atone.brokers.memory import MemoryBroker
from atone.choreography import Choreography, Participant, Reaction, reacts
from atone.errors import Reject
from atone.serving import serve
from tests.choreography.shop import eventually, message_of
from tests.choreography.test_rough_edges import RowAsked, RowWritten
from tests.servers.postgres import Bench

WRITE = "INSERT INTO effects (saga, what) VALUES ('o-1', 'written')"
KINDS = ("sqlite3", "aiosqlite", "psycopg", "asyncpg")
_PLACE = "half_handled"


async def _commit(connection: Any) -> None:
    if isinstance(connection, asyncpg.Connection):
        await connection.execute("COMMIT")
        return
    await connection.commit()


async def _begin(connection: Any) -> None:
    if isinstance(connection, asyncpg.Connection):
        await connection.execute("BEGIN")


class Half(Participant, name="half"):
    """Commits half of its work, and then does what the test says."""

    def __init__(self, then: str) -> None:
        self.then = then

    @reacts(RowAsked, emits=(RowWritten,), no_undo="a test")
    async def write(self, ctx: Reaction[RowAsked]) -> RowWritten:
        await ctx.connection.execute(WRITE)
        await _commit(ctx.connection)
        if self.then == "goes on":
            await _begin(ctx.connection)
            await ctx.connection.execute(WRITE)
            return RowWritten()
        raise Reject("no") if self.then == "refuses" else RuntimeError(self.then)


class PlainHalf(Participant, name="half"):
    """The same on a synchronous connection."""

    def __init__(self, then: str) -> None:
        self.then = then

    @reacts(RowAsked, emits=(RowWritten,), no_undo="a test")
    def write(self, ctx: Reaction[RowAsked]) -> RowWritten:
        ctx.connection.execute(WRITE)
        ctx.connection.commit()
        if self.then == "goes on":
            ctx.connection.execute(WRITE)
            return RowWritten()
        raise Reject("no") if self.then == "refuses" else RuntimeError(self.then)


@pytest.mark.parametrize("then", ["raises", "goes on"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_was_committed_before_the_end_is_no_duplicate_when_it_comes_again(
    tmp_path: Path, kind: str, then: str, request: pytest.FixtureRequest
) -> None:
    """Its row and the inbox's stand and its event does not: it is set aside, again each time that it is let loose."""

    async def story(broker: MemoryBroker) -> None:
        await broker.publish([message_of(RowAsked(), "o-1", "m-1", saga="rows")])
        for _ in range(2):
            assert "ended its transaction itself" in await _parked(broker, "rows.half")
            (parked,) = await broker.parked("rows.half")
            assert await broker.unpark("rows.half", parked.message.id)

    _play(tmp_path, kind, then, request, story)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("then", "told"),
    [("raises", "ended its transaction itself"), ("refuses", "ended the transaction that it was given")],
)
def test_a_command_whose_handler_has_committed_is_answered_with_no_refusal(
    tmp_path: Path, kind: str, then: str, told: str, request: pytest.FixtureRequest
) -> None:
    """A refusal says that nothing was done, and silence would leave the orchestrator without a word."""

    async def story(broker: MemoryBroker) -> None:
        await broker.declare("answers", ["answers"])
        carried = {headers.KIND: headers.COMMAND, headers.NAME: "row.asked", headers.IDEMPOTENCY_KEY: "k-1"}
        carried |= {
            headers.SAGA_ID: "o-1",
            headers.REPLY_TO: "answers",
            headers.VERSION: "1",
            headers.TENANT: "default",
        }
        carried |= {headers.SAGA: "s", headers.STEP: "one", headers.OPERATION: headers.ACTION, headers.ATTEMPT: "1"}
        await broker.publish([Message("c-1", "half.write", "o-1", b"{}", carried)])
        assert told in await _parked(broker, "half.commands")

    _play(tmp_path, kind, then, request, story)


async def _parked(broker: MemoryBroker, group: str) -> str:
    async def is_parked() -> bool:
        return bool(await broker.parked(group))

    await eventually(is_parked, lambda: broker.parked(group))
    return (await broker.parked(group))[0].reason


def _play(
    folder: Path,
    kind: str,
    then: str,
    request: pytest.FixtureRequest,
    story: Callable[[MemoryBroker], Awaitable[None]],
) -> None:
    participant = Half(then) if kind in {"aiosqlite", "asyncpg"} else PlainHalf(then)
    rows = Choreography("rows", type(participant), starts=(RowAsked,), completes=(RowWritten,))
    is_file = "sqlite" in kind
    place = _file(folder) if is_file else _schema(request.getfixturevalue("postgres_bench"))

    async def main() -> None:
        async with (
            MemoryBroker(f"memory://{folder}") as broker,
            serve(rows, participant, database=_DATABASES[kind](place), broker=broker),
        ):
            await story(broker)

    asyncio.run(main())


def _file(folder: Path) -> str:
    file = str(folder / "rows.db")
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE effects (saga text, what text)")
    return file


def _schema(bench: Bench) -> str:
    bench.script(f"DROP SCHEMA IF EXISTS {_PLACE} CASCADE; CREATE SCHEMA {_PLACE}")
    bench.script(f"CREATE TABLE {_PLACE}.effects (saga text, what text)")
    return bench.server.url()


def _of_sqlite3(file: str) -> Any:
    @contextmanager
    def begin() -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(file)) as connection, connection:
            yield connection

    return begin


def _of_aiosqlite(file: str) -> Any:
    @asynccontextmanager
    async def begin() -> AsyncIterator[aiosqlite.Connection]:
        async with aiosqlite.connect(file) as connection:
            try:
                yield connection
            except BaseException:
                await connection.rollback()
                raise
            await connection.commit()

    return begin


def _of_psycopg(url: str) -> Any:
    return lambda: psycopg.connect(url, options=f"-c search_path={_PLACE}")


def _of_asyncpg(url: str) -> Any:
    @asynccontextmanager
    async def begin() -> AsyncIterator[Any]:
        connection = await asyncpg.connect(url, server_settings={"search_path": _PLACE})
        try:
            async with connection.transaction():
                yield connection
        finally:
            await connection.close()

    return begin


_DATABASES: dict[str, Callable[[str], Any]] = {
    "sqlite3": _of_sqlite3,
    "aiosqlite": _of_aiosqlite,
    "psycopg": _of_psycopg,
    "asyncpg": _of_asyncpg,
}
