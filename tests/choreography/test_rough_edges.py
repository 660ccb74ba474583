"""What services, brokers and clocks do to participants unplanned: said aloud, and in nobody's way."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_bytes
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from atone._core.state import SagaStatus
from atone.brokers.memory import MemoryBroker
from atone.choreography import Choreography, Participant, Reaction, event, reacts, within
from atone.codec import Codec
from atone.errors import BrokerUnavailable, ConflictingStart, DefinitionError, UnknownSaga
from atone.saga_view import SagaView
from atone.serving import ServiceTables, serve, start_blocking
from atone.store import Query
from atone.stores.sqlite import SqliteStore
from tests.choreography.shop import Inventory, Payments, StockReserved, eventually, message_of
from tests.choreography.test_saga_view import seen
from tests.choreography.test_seed_flaws import shop_of, until_did
from tests.servers.postgres import Bench


@event("thing.asked")
@dataclass(frozen=True)
class Asked:
    what: str = ""


@event("thing.begun")
@dataclass(frozen=True)
class Begun:
    what: str = ""


@event("thing.confirmed")
@dataclass(frozen=True)
class Confirmed:
    pass


@event("thing.lapsed", failure=True)
@dataclass(frozen=True)
class Lapsed:
    pass


@event("thing.undone")
@dataclass(frozen=True)
class Undone:
    pass


@event("thing.finished")
@dataclass(frozen=True)
class Finished:
    pass


class Waiter(Participant, name="waiter"):
    """Begins, and waits in vain; whether it can say so depends on the saga."""

    @reacts(Asked, emits=(Begun,), expects=within(0.05, Confirmed, otherwise=Lapsed))
    async def begin(self, ctx: Reaction[Asked]) -> Begun:
        await ctx.connection.execute(text("INSERT INTO effects (saga, what) VALUES (:saga, 'begun')"), _of(ctx))
        return Begun(ctx.event.what)

    @begin.overdue
    def lapse(self, done: Begun) -> Lapsed:
        if done.what == "raises":
            raise ValueError(done.what)
        return Lapsed()

    @begin.undo(Lapsed, emits=(Undone,))
    async def take_back(self, ctx: Reaction[Lapsed], done: Begun) -> Undone:
        await ctx.connection.execute(text("INSERT INTO effects (saga, what) VALUES (:saga, 'undone')"), _of(ctx))
        return Undone()

    @reacts(Confirmed, emits=(Finished,), no_undo="the last word", writes=False)
    async def finish(self, ctx: Reaction[Confirmed]) -> Finished:
        return Finished()


class Confirmer(Participant, name="confirmer"):
    """Would confirm, if it were open."""

    @reacts(Begun, emits=(Confirmed,), no_undo="a word")
    async def confirm(self, ctx: Reaction[Begun]) -> Confirmed:
        return Confirmed()


THINGS = Choreography("things", Waiter, Confirmer, starts=(Asked,), completes=(Finished,), compensates=(Undone,))


@event("row.asked")
@dataclass(frozen=True)
class RowAsked:
    pass


@event("row.written")
@dataclass(frozen=True)
class RowWritten:
    pass


class Awaiting(Participant, name="awaiting"):
    """Commits what is not its own to commit."""

    @reacts(RowAsked, emits=(RowWritten,), no_undo="a test")
    async def write(self, ctx: Reaction[RowAsked]) -> RowWritten:
        await ctx.connection.execute(text("INSERT INTO effects (saga, what) VALUES (:saga, 'written')"), _of(ctx))
        await ctx.connection.commit()
        return RowWritten()


class Plain(Participant, name="plain"):
    """The same on a driver's own connection."""

    @reacts(RowAsked, emits=(RowWritten,), no_undo="a test")
    def write(self, ctx: Reaction[RowAsked]) -> RowWritten:
        ctx.connection.execute("INSERT INTO effects (saga, what) VALUES ('o-1', 'written')")
        ctx.connection.commit()
        return RowWritten()


def test_a_time_out_that_can_t_be_told_holds_up_no_other_saga(tmp_path: Path) -> None:
    """The method of one saga raises each time that it is asked; the saga behind it lapses all the same."""

    async def main() -> None:
        async with waiting(tmp_path) as (broker, did):
            await broker.publish([_asked("raises", "o-1")])
            await eventually(did("o-1", "begun"), lambda: asyncio.sleep(0))
            await broker.publish([_asked("", "o-2")])
            await eventually(did("o-2", "begun", "undone"), lambda: asyncio.sleep(0))

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["sqlite3", "aiosqlite", "psycopg"])
def test_a_handler_that_commits_by_itself_is_told_so_and_not_forgotten(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    """Its row and the inbox's are there and its event is not: a repeat would pass for a duplicate, and all be quiet."""

    async def main() -> None:
        async with MemoryBroker(f"memory://{tmp_path}") as broker:
            participant: Participant = Awaiting() if kind == "aiosqlite" else Plain()
            rows = Choreography("rows", type(participant), starts=(RowAsked,), completes=(RowWritten,))
            bench = request.getfixturevalue("postgres_bench") if kind == "psycopg" else None
            async with serve(rows, participant, database=_database(kind, tmp_path, bench), broker=broker):
                await broker.publish([message_of(RowAsked(), "o-1", "m-1", saga="rows")])
                group = f"rows.{type(participant).__participant__}"

                async def is_parked() -> bool:
                    return bool(await broker.parked(group))

                await eventually(is_parked, lambda: broker.parked(group))
                assert "ended the transaction that it was given" in (await broker.parked(group))[0].reason

    asyncio.run(main())


@pytest.mark.parametrize(
    "change",
    [
        lambda one: one._replace(id="x" * 500),
        lambda one: one._replace(id="x\0y"),
        lambda one: one._replace(headers={**one.headers, "atone-version": "0000001" + "0" * 5000}),
        lambda one: one._replace(headers={**one.headers, "atone-tenant": "t" * 5000}),
        lambda one: one._replace(headers={**one.headers, "atone-name": "stock.\ud800"}),
    ],
    ids=["long-id", "id-with-nul", "endless-version", "long-tenant", "no-text"],
)
def test_what_can_t_even_be_counted_is_set_aside_at_once(tmp_path: Path, change: Callable[[Any], Any]) -> None:
    """Its failure could not be written down either, so it would come again for ever, at the view too."""

    async def main() -> None:
        async with seen(tmp_path, Payments) as (shop, view, _):
            await shop.broker.publish([change(message_of(StockReserved("cup", 500), "o-1", "m-1"))])
            await shop.until_parked("payments")

            async def is_parked() -> bool:
                return bool(await shop.broker.parked("orders.view"))

            await eventually(is_parked, lambda: shop.broker.parked("orders.view"))
            await shop.send(StockReserved("cup", 500), "o-1", "m-2")
            await until_did(shop, "payments", "o-1", "charged 500")
            assert (await view.of("o-1")).attention == ()

    asyncio.run(main())


def test_a_command_that_can_t_even_be_counted_is_set_aside_at_once(tmp_path: Path) -> None:
    """The same for a participant that an orchestrator asks."""

    async def main() -> None:
        async with shop_of(tmp_path, Inventory) as shop:
            message = message_of(StockReserved("cup", 500), "o-1", "m" * 500)
            await shop.broker.publish([message._replace(topic="inventory.reserve")])

            async def is_parked() -> bool:
                return bool(await shop.broker.parked("inventory.commands"))

            await eventually(is_parked, lambda: shop.broker.parked("inventory.commands"))

    asyncio.run(main())


def test_a_view_with_a_grace_of_its_own_lists_what_is_overdue_by_it(tmp_path: Path) -> None:
    """What the store lists is folded with the same grace by which the view wakes; nothing else happens afterwards."""

    async def main() -> None:
        now = [1000.0]
        async with MemoryBroker(f"memory://{tmp_path}") as broker, SqliteStore(tmp_path / "view.db") as store:
            options: dict[str, Any] = {"look_seconds": 3600.0, "grace_seconds": 4.0, "clock": lambda: now[0]}
            async with SagaView(THINGS, store=store, broker=broker, **options) as view:
                for at, (value, source) in enumerate([(Asked(), ""), (Begun(), "waiter")]):
                    await broker.publish([message_of(value, "o-1", f"m-{at}", source, saga="things", at="1000")])

                async def is_heard() -> bool:
                    try:
                        return len((await view.of("o-1")).timeline) == 2
                    except UnknownSaga:
                        return False

                await eventually(is_heard, lambda: view.of("o-1"))
                now[0] = 1010.0
                await view.look()  # on a busy machine its first own look comes this late, and has seen it already
                (listed,) = await store.views.find(Query(name="things"))
                assert listed.status == SagaStatus.NEEDS_ATTENTION.value

    asyncio.run(main())


def test_a_service_that_can_t_come_up_whole_takes_nothing_in(tmp_path: Path) -> None:
    """The broker goes away between two of its groups: what had begun by then is ended, not left running."""

    class Failing(MemoryBroker):
        async def declare(self, group: str, topics: Collection[str]) -> None:
            if group.endswith(".commands"):
                raise BrokerUnavailable("gone meanwhile; try again")
            await super().declare(group, topics)

    async def main() -> None:
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/waiter.db", poolclass=NullPool)
        async with Failing(f"memory://{tmp_path}") as broker:
            with pytest.raises(BrokerUnavailable):
                await serve(THINGS, Waiter(), database=engine, broker=broker).__aenter__()
            assert not [one for one in asyncio.all_tasks() if one.get_name().startswith("atone-consume")]
        await engine.dispose()

    asyncio.run(main())


class Strict(Participant, name="strict"):
    """Takes the second only after the first, and asks a person otherwise."""

    @reacts(Asked, emits=(Begun,), no_undo="a test", writes=False)
    async def hear(self, ctx: Reaction[Asked]) -> Begun:
        return Begun()

    @reacts(Begun, emits=(Confirmed,), after=(Asked,), out_of_order="reject", no_undo="a test", writes=False)
    async def confirm(self, ctx: Reaction[Begun]) -> Confirmed:
        return Confirmed()


STRICT = Choreography("strict", Strict, starts=(Asked,), completes=(Confirmed,))


def test_what_was_refused_and_is_taken_in_later_needs_nobody_s_attention_any_more(tmp_path: Path) -> None:
    """The view is told of both, so a saga that is over does not stay on the list of those to be looked at."""

    async def main() -> None:
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/strict.db", poolclass=NullPool)
        async with (
            MemoryBroker(f"memory://{tmp_path}") as broker,
            SqliteStore(tmp_path / "view.db") as store,
            SagaView(STRICT, store=store, broker=broker) as view,
            serve(STRICT, Strict(), database=engine, broker=broker),
        ):

            def is_now(status: SagaStatus) -> Callable[[], Awaitable[bool]]:
                async def look() -> bool:
                    try:
                        return (await view.of("o-1")).status is status
                    except UnknownSaga:
                        return False

                return look

            await broker.publish([message_of(Begun(), "o-1", "m-2", saga="strict")])
            await eventually(is_now(SagaStatus.NEEDS_ATTENTION), lambda: view.of("o-1"))
            await broker.publish([message_of(Asked(), "o-1", "m-1", saga="strict")])
            (parked,) = await broker.parked("strict.strict")
            assert await broker.unpark("strict.strict", parked.message.id)
            await eventually(is_now(SagaStatus.COMPLETED), lambda: view.of("o-1"))
        await engine.dispose()

    asyncio.run(main())


class _Sealed:
    """Encrypts to another text each time."""

    def encrypt(self, data: bytes, context: bytes) -> bytes:
        return token_bytes(8) + data[::-1]

    def decrypt(self, data: bytes, context: bytes) -> bytes:
        return data[8:][::-1]


def test_the_same_start_again_is_harmless_though_it_is_encrypted_anew(tmp_path: Path) -> None:
    """What is compared is what was said, and not how it was sealed."""
    tables = ServiceTables(codec=Codec(encryption=_Sealed()))
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        tables.create_blocking(connection)
        for _ in range(2):
            start_blocking(THINGS, connection, Asked("it"), saga_id="o-1", tables=tables)
        assert len(connection.execute("SELECT id FROM atone_outbox").fetchall()) == 1
        with pytest.raises(ConflictingStart):
            start_blocking(THINGS, connection, Asked("something else"), saga_id="o-1", tables=tables)


@pytest.mark.parametrize("name", ["view", "commands", "eu.stock"])
def test_no_participant_is_called_as_another_group_is(name: str) -> None:
    """Two that share a group without knowing it would each hear half: `orders.eu.stock` may be either's."""
    with pytest.raises(DefinitionError, match="a group that others have too"):

        class Named(Participant, name=name):
            pass


def _of(ctx: Reaction[Any]) -> dict[str, str]:
    return {"saga": ctx.saga_id}


def _asked(what: str, saga_id: str) -> Any:
    return message_of(Asked(what), saga_id, f"{saga_id}-asked", saga="things")


Did = Callable[..., Callable[[], Awaitable[bool]]]


@asynccontextmanager
async def waiting(folder: Path) -> AsyncIterator[tuple[MemoryBroker, Did]]:
    """Have the waiter open, and somebody who tells what it has done for a saga."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{folder}/waiter.db", poolclass=NullPool)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE effects (saga text, what text)"))

    def did(saga_id: str, *effects: str) -> Callable[[], Awaitable[bool]]:
        async def look() -> bool:
            async with engine.connect() as connection:
                found = await connection.execute(text("SELECT what FROM effects WHERE saga = :s"), {"s": saga_id})
                return sorted(what for (what,) in found) == sorted(effects)

        return look

    async with (
        MemoryBroker(f"memory://{folder}") as broker,
        serve(THINGS, Waiter(), database=engine, broker=broker, poll_seconds=0.02),
    ):
        yield broker, did
    await engine.dispose()


def _database(kind: str, folder: Path, bench: Bench | None) -> Any:
    if bench is not None:
        return _on_psycopg(bench)
    file = folder / "rows.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE effects (saga text, what text)")
    if kind == "aiosqlite":
        return create_async_engine(f"sqlite+aiosqlite:///{file}", poolclass=NullPool)

    @contextmanager
    def begin() -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(file)) as connection, connection:
            yield connection

    return begin


def _on_psycopg(bench: Bench) -> Any:
    import psycopg

    url, place = bench.server.url(), "-c search_path=rough_edges"
    bench.script("DROP SCHEMA IF EXISTS rough_edges CASCADE; CREATE SCHEMA rough_edges")
    with psycopg.connect(url, options=place) as connection:
        connection.execute("CREATE TABLE effects (saga text, what text)")
    return lambda: psycopg.connect(url, options=place)  # its context manager commits and closes
