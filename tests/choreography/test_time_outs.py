"""What should follow in time and does not: the event declared for that, once, whoever was down meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sqlalchemy import text

from atone._participant.bound import Bound
from atone._participant.database import Database
from atone._participant.taking import Taking
from atone._participant.timer import Timer
from atone.brokers.memory import MemoryBroker
from atone.choreography import Choreography, Participant, Reaction, event, reacts, within
from atone.serving import Service, ServiceTables, serve, start
from tests.choreography.shop import Shop, eventually, message_of

SOON = 0.3


@event("table.asked")
@dataclass(frozen=True)
class Asked:
    guests: int


@event("table.held")
@dataclass(frozen=True)
class Held:
    table: int


@event("table.confirmed")
@dataclass(frozen=True)
class Confirmed:
    by: str


@event("table.seated")
@dataclass(frozen=True)
class Seated:
    table: int


@event("table.lapsed", failure=True)
@dataclass(frozen=True)
class Lapsed:
    table: int


@event("table.given-back")
@dataclass(frozen=True)
class GivenBack:
    table: int


class Tables(Participant, name="tables"):
    """Holds a table for a guest who has to confirm."""

    @reacts(Asked, emits=(Held,), expects=within(SOON, Confirmed, otherwise=Lapsed))
    async def hold(self, ctx: Reaction[Asked]) -> Held:
        await note(ctx, "held")
        return Held(7)

    @hold.overdue
    def lapse(self, done: Held) -> Lapsed:
        return Lapsed(done.table)

    @hold.undo(Lapsed, emits=(GivenBack,))
    async def give_back(self, ctx: Reaction[Lapsed], done: Held) -> GivenBack:
        await note(ctx, f"given back {ctx.event.table}")
        return GivenBack(done.table)

    @reacts(Confirmed, emits=(Seated,), writes=False)
    async def seat(self, ctx: Reaction[Confirmed]) -> Seated:
        return Seated(7)


class Guests(Participant, name="guests"):
    """Confirms, if it is open at all."""

    @reacts(Held, emits=(Confirmed,), no_undo="a word")
    async def confirm(self, ctx: Reaction[Held]) -> Confirmed:
        await note(ctx, "confirmed")
        return Confirmed("ada")


DINNER = Choreography("dinner", Tables, Guests, starts=(Asked,), completes=(Seated,), compensates=(GivenBack,))


async def note(ctx: Reaction[Any], what: str) -> None:
    row = {"saga": ctx.saga_id, "what": what}
    await ctx.connection.execute(text("INSERT INTO effects (saga, what) VALUES (:saga, :what)"), row)


class House:
    """The databases of both, and services on them."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop

    def service(self, participant: Participant) -> Service:
        engine = self.shop.engines[type(participant).__participant__]
        return serve(DINNER, participant, database=engine, broker=self.shop.broker, poll_seconds=0.02)

    async def ask(self, saga_id: str) -> None:
        async with self.shop.engines["tables"].begin() as connection:
            await start(DINNER, connection, Asked(2), saga_id=saga_id)

    async def until_did(self, name: str, *effects: str, saga_id: str = "d-1") -> None:
        async def is_so() -> bool:
            return (await self.shop.effects(saga_id))[name] == sorted(effects)

        await eventually(is_so, lambda: self.shop.effects(saga_id))


@asynccontextmanager
async def house(folder: Path) -> AsyncIterator[House]:
    urls = {name: f"sqlite+aiosqlite:///{folder}/{name}.db" for name in ("tables", "guests")}
    async with MemoryBroker(f"memory://{folder}") as broker:
        shop = Shop(urls, broker)
        await shop.create()
        await broker.declare("dinner.guests", ["table.held", "table.lapsed", "table.seated", "table.given-back"])
        yield House(shop)
        await shop.close()


def test_what_does_not_come_in_time_is_answered_and_undone(tmp_path: Path) -> None:
    """The event is made of what the reaction returned, and the reaction undoes itself on it."""

    async def main() -> None:
        async with house(tmp_path) as here, here.service(Tables()):
            await here.ask("d-1")
            await here.until_did("tables", "held", "given back 7")

    asyncio.run(main())


def test_what_comes_in_time_ends_the_wait(tmp_path: Path) -> None:
    """Nothing is expected any more, so nothing lapses."""

    async def main() -> None:
        async with house(tmp_path) as here, here.service(Tables()), here.service(Guests()):
            await here.ask("d-1")
            await here.until_did("guests", "confirmed")

            async def ended() -> bool:
                return await here.shop.rows("tables", "SELECT 1 FROM atone_expected") == []

            await eventually(ended, lambda: here.shop.rows("tables", "SELECT * FROM atone_expected"))
            await here.until_did("tables", "held")

    asyncio.run(main())


def test_a_time_out_outlives_the_process_that_waits(tmp_path: Path) -> None:
    """The service goes down before the time is over, and answers when it is back."""

    async def main() -> None:
        async with house(tmp_path) as here:
            async with here.service(Tables()):
                await here.ask("d-1")
                await here.until_did("tables", "held")
            assert len(await here.shop.rows("tables", "SELECT 1 FROM atone_expected")) == 1
            async with here.service(Tables()):
                await here.until_did("tables", "held", "given back 7")

    asyncio.run(main())


def test_of_several_processes_that_wait_one_answers(tmp_path: Path) -> None:
    """Whoever has the saga's row decides; the others find that nothing is expected any more."""

    async def main() -> None:
        async with house(tmp_path) as here, AsyncExitStack() as stack:
            for _ in range(3):
                await stack.enter_async_context(here.service(Tables()))
            for at in range(5):
                await here.ask(f"d-{at}")
            for at in range(5):
                await here.until_did("tables", "held", "given back 7", saga_id=f"d-{at}")
            given: list[Any] = [item.message for item in here.shop.broker.server.groups["dinner.guests"].items.values()]
            lapsed = [one.headers["atone-saga-id"] for one in given if one.topic == "table.lapsed"]
            assert sorted(set(lapsed)) == [f"d-{at}" for at in range(5)]
            assert len({one.id for one in given if one.topic == "table.lapsed"}) == 5

    asyncio.run(main())


def test_of_the_event_and_its_time_out_the_first_one_counts(tmp_path: Path) -> None:
    """The confirmation that is told after the table lapsed changes nothing; it is given back once."""

    async def main() -> None:
        async with house(tmp_path) as here, here.service(Tables()):
            await here.ask("d-1")
            await here.until_did("tables", "held", "given back 7")
            late = message_of(Confirmed("ada"), "d-1", "late", saga="dinner")
            await here.shop.broker.publish([late])

            async def settled() -> bool:
                return not here.shop.broker.server.groups["dinner.tables"].items

            await eventually(settled, lambda: here.shop.effects("d-1"))
            await here.until_did("tables", "held", "given back 7")

    asyncio.run(main())


def test_an_event_that_comes_while_its_time_out_is_being_answered_wins(tmp_path: Path) -> None:
    """What was found overdue is looked at again under the saga's lock: met meanwhile, or answered, it is nothing."""

    async def main() -> None:
        async with house(tmp_path) as here:
            tables = ServiceTables()
            database = Database(here.shop.engines["tables"])
            timer = Timer(Bound(DINNER, Tables(), tables.codec), tables, database)
            taking = Taking(Bound(DINNER, Tables(), tables.codec), tables, database)
            await taking.take(_delivered(Asked(2), "m-1"))
            while not (due := await database.run(timer._due)):  # noqa: ASYNC110 - a row tells nobody
                await asyncio.sleep(0.02)
            await taking.take(_delivered(Confirmed("ada"), "m-2"))
            assert not await database.run(lambda connection: timer._answer(due[0], connection))
            assert await here.shop.effects("d-2") == {"tables": ["held"], "guests": []}

    asyncio.run(main())


def _delivered(value: Any, message_id: str) -> Any:
    return SimpleNamespace(message=message_of(value, "d-2", message_id, saga="dinner"), attempt=1)
