"""What no participant should be given, and what it does about it: set aside with the reason, and nothing written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from sqlalchemy import text

from atone._core.state import SagaStatus
from atone.brokers.memory import MemoryBroker, server_of
from atone.choreography import Choreography, Participant, Reaction, event, reacts
from atone.definition import Retry
from atone.errors import BarrierMisplaced, BrokerUnavailable, DefinitionError, Reject, RetryAfter
from atone.serving import ServiceTables, serve, start
from tests.choreography.shop import (
    ORDERS,
    Inventory,
    OrderPlaced,
    Orders,
    OrderShipped,
    Payments,
    Shipping,
    Shop,
    StockReserved,
    eventually,
    message_of,
    on_sqlite,
)
from tests.choreography.test_saga_view import seen, until
from tests.choreography.test_seed_flaws import shop_of, until_did, until_settled


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda one: one._replace(body=b"\xff{"), "can't be read"),
        (lambda one: one._replace(body=b'{"item":7,"cents":1}'), "Expected `str`, got `int`"),
        (lambda one: _with(one, "version", "2"), "came with version 2, and this process reads version 1"),
        (lambda one: _with(one, "version", "zwei"), "is no version"),
        (lambda one: _with(one, "name", "stock.gone"), "orders has no event 'stock.gone'"),
        (lambda one: _with(one, "saga-id", ""), "names no saga"),
        (lambda one: one._replace(body=b"[" * 10_000 + b"]" * 10_000), "can't be read"),
    ],
    ids=["undecodable", "wrong-type", "wrong-version", "no-version", "unknown-event", "no-saga", "too-deep"],
)
def test_what_can_t_be_read_is_set_aside_with_the_reason(
    tmp_path: Path, change: Callable[[Any], Any], reason: str
) -> None:
    """The next event of the same saga is not held up by it."""

    async def main() -> None:
        async with shop_of(tmp_path, Payments) as shop:
            await shop.broker.publish([change(message_of(StockReserved("cup", 500), "o-1", "m-1"))])
            assert reason in await shop.until_parked("payments")
            assert (await shop.effects("o-1"))["payments"] == []
            await shop.send(StockReserved("cup", 500), "o-1", "m-2")
            await until_did(shop, "payments", "o-1", "charged 500")

    asyncio.run(main())


def test_an_event_of_another_choreography_is_none_of_ours(tmp_path: Path) -> None:
    """Two choreographies may share events and a broker; each takes its own."""

    async def main() -> None:
        async with shop_of(tmp_path, Payments) as shop:
            await shop.send(StockReserved("cup", 500), "o-1", "m-1", saga="returns")
            await until_settled(shop, "orders.payments")
            assert await shop.parked("payments") == []
            assert (await shop.effects("o-1"))["payments"] == []

    asyncio.run(main())


def test_an_event_for_a_finished_saga_has_no_effect(tmp_path: Path) -> None:
    """A start that is told again under another id, after the end: nothing is reserved anew."""

    async def main() -> None:
        async with shop_of(tmp_path) as shop:
            await shop.place("o-1")
            await shop.until("o-1")
            await shop.send(OrderPlaced("cup", 500), "o-1", "another-id")
            await until_settled(shop, "orders.inventory")
            await shop.until("o-1")

    asyncio.run(main())


def test_a_handler_that_raises_is_repeated_then_set_aside_and_the_view_says_so(tmp_path: Path) -> None:
    """Its rows are taken back each time; unparked and mended, it goes on as if nothing had been."""
    calls: list[int] = []

    class Broken(Exception):
        pass

    async def main() -> None:
        async with seen(tmp_path, Inventory, Orders, Shipping) as (shop, view, _):
            payments = Payments()
            async with shop.service(payments):
                real = _replaced(payments, "charge", lambda: Broken("no such account"), calls)
                await shop.place("o-1")
                reason = await shop.until_parked("payments")
                assert reason == "payments.charge failed 6 times: Broken: no such account"
                assert (len(calls), (await shop.effects("o-1"))["payments"]) == (6, [])
                await until(view, "o-1", SagaStatus.NEEDS_ATTENTION)
                assert reason in (await view.of("o-1")).attention[0]
                real()
                ((parked),) = await shop.broker.parked("orders.payments")
                assert await shop.broker.unpark("orders.payments", parked.message.id)
                await shop.until("o-1")
                await until(view, "o-1", SagaStatus.COMPLETED)

    asyncio.run(main())


@pytest.mark.parametrize(("error", "calls"), [(Reject("no"), 1), (RetryAfter(0.01), 6)], ids=["reject", "retry-after"])
def test_a_handler_says_whether_a_repeat_can_help(tmp_path: Path, error: Exception, calls: int) -> None:
    """What is rejected is set aside at once; what asks for time gets it, within its attempts."""
    made: list[int] = []

    async def main() -> None:
        async with MemoryBroker(f"memory://{tmp_path}") as broker:
            shop = Shop(on_sqlite(tmp_path), broker)
            await shop.create()
            payments = Payments()
            async with shop.service(payments):
                _replaced(payments, "charge", lambda: error, made)
                await shop.send(StockReserved("cup", 500), "o-1", "m-1")
                await shop.until_parked("payments")
            await shop.close()

    asyncio.run(main())
    assert len(made) == calls


def test_a_broker_that_is_down_at_the_start_is_said_at_once_and_loses_nothing(tmp_path: Path) -> None:
    """The service does not come up half; what was started meanwhile is sent once the broker is back."""

    async def main() -> None:
        url = f"memory://{tmp_path}"
        server_of(str(tmp_path)).kill()
        shop = Shop(on_sqlite(tmp_path), url)
        await shop.create()
        await shop.place("o-1")
        with pytest.raises(BrokerUnavailable):
            await shop.service(Orders()).__aenter__()
        server_of(str(tmp_path)).start()
        async with shop.open():
            await shop.until("o-1")
        await shop.close()

    asyncio.run(main())


def test_a_broker_that_goes_away_for_a_while_loses_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Events wait in the outboxes; services go on when it is back."""

    async def said() -> str:
        return caplog.text

    async def is_missed() -> bool:
        return "the relay's broker fails" in caplog.text

    async def main() -> None:
        async with shop_of(tmp_path) as shop:
            server_of(str(tmp_path)).kill()
            await shop.place("o-1")
            await eventually(is_missed, said)
            server_of(str(tmp_path)).start()
            await shop.until("o-1")

    asyncio.run(main())


def test_a_message_that_is_too_large_is_set_aside_in_the_outbox_and_holds_up_nobody(tmp_path: Path) -> None:
    """The broker refuses it for good; it stays with the reason, and other sagas go on."""

    async def main() -> None:
        async with MemoryBroker(f"memory://{tmp_path}", message_bytes_max=2_000) as broker:
            shop = Shop(on_sqlite(tmp_path), broker)
            await shop.create()
            async with shop.open():
                async with shop.engines["orders"].begin() as connection:
                    await start(ORDERS, connection, OrderPlaced("x" * 3_000, 500), saga_id="huge")
                await shop.place("o-1")
                await shop.until("o-1")
            rows = await shop.rows("orders", "SELECT refused FROM atone_outbox")
            assert len(rows) == 1
            assert "it takes 2000" in rows[0][0]
            await shop.close()

    asyncio.run(main())


@event("thing.asked")
@dataclass(frozen=True)
class Asked:
    what: str


@event("thing.done")
@dataclass(frozen=True)
class ThingDone:
    pass


@event("thing.undeclared")
@dataclass(frozen=True)
class Undeclared:
    pass


class Doer(Participant, name="doer"):
    """Does what is wrong in the way that it is asked for."""

    def __init__(self, elsewhere: str) -> None:
        self.elsewhere = elsewhere

    @reacts(Asked, emits=(ThingDone,), no_undo="it is a test", retry=Retry(attempts=2, initial=0.0), timeout=0.5)
    async def do(self, ctx: Reaction[Asked]) -> ThingDone:
        if ctx.event.what == "elsewhere":
            async with aiosqlite.connect(self.elsewhere) as other:
                await other.execute("CREATE TABLE IF NOT EXISTS effects (what text)")
                await other.commit()
            return ThingDone()
        await ctx.connection.execute(text("INSERT INTO effects (saga, what) VALUES ('x', 'done')"))
        if ctx.event.what == "slow":
            await asyncio.sleep(3600)
        wrong: Any = Undeclared()
        return wrong if ctx.event.what == "undeclared" else ThingDone()


THINGS = Choreography("things", Doer, starts=(Asked,), completes=(ThingDone,))


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("elsewhere", "doer.do changed no row on the connection that it was given"),
        ("slow", "doer.do failed 2 times: TimeoutError"),
        ("undeclared", "doer.do returned a Undeclared, but declares that it emits thing.done. Nothing was written"),
    ],
)
def test_a_handler_that_breaks_its_word_is_set_aside_and_nothing_is_written(
    tmp_path: Path, what: str, reason: str
) -> None:
    """Rows on another connection are tied to nothing, an undeclared event is heard by nobody, and time is bounded."""

    async def main() -> None:
        async with MemoryBroker(f"memory://{tmp_path}") as broker:
            shop = Shop({"doer": f"sqlite+aiosqlite:///{tmp_path}/doer.db"}, broker)
            await shop.create()
            doer = Doer(str(tmp_path / "elsewhere.db"))
            async with serve(THINGS, doer, database=shop.engines["doer"], broker=broker):
                message = message_of(Asked(what), "o-1", "m-1", saga="things")
                await broker.publish([message])

                async def parked() -> bool:
                    return bool(await broker.parked("things.doer"))

                await eventually(parked, lambda: shop.rows("doer", "SELECT * FROM atone_inbox"))
                assert reason in (await broker.parked("things.doer"))[0].reason
            assert await shop.rows("doer", "SELECT what FROM effects") == []
            assert await shop.rows("doer", "SELECT topic FROM atone_outbox WHERE topic = 'thing.done'") == []
            await shop.close()

    asyncio.run(main())


def test_a_start_outside_of_a_transaction_is_refused(tmp_path: Path) -> None:
    """Nothing would tie the event to the caller's rows."""

    async def main() -> None:
        async with aiosqlite.connect(str(tmp_path / "a.db"), isolation_level=None) as connection:
            await ServiceTables().create(connection)
            with pytest.raises(BarrierMisplaced):
                await start(ORDERS, connection, OrderPlaced("cup", 1), saga_id="o-1")
            with pytest.raises(DefinitionError, match="begins no saga of orders"):
                await start(ORDERS, connection, OrderShipped("x"), saga_id="o-1")

    asyncio.run(main())


@pytest.mark.parametrize(
    ("database", "words"), [(7, "It is a int"), (lambda: 7, "What was given returns a int")], ids=["number", "function"]
)
def test_a_database_that_is_none_is_said_before_anything_begins(database: Any, words: str) -> None:
    """The sentence tells what can be given."""

    async def main() -> None:
        async with MemoryBroker("memory://none") as broker:
            with pytest.raises(DefinitionError, match=words):
                await serve(ORDERS, Orders(), database=database, broker=broker).__aenter__()

    asyncio.run(main())


def test_a_participant_of_another_choreography_is_refused() -> None:
    """It would hear nothing, for ever."""
    with pytest.raises(DefinitionError, match=r"Doer is no participant of orders\. Give objects of: Orders"):
        serve(ORDERS, Doer(""), database=lambda: None, broker="memory://x")


def _with(message: Any, name: str, value: str) -> Any:
    return message._replace(headers={**message.headers, f"atone-{name}": value})


def _replaced(
    participant: Participant, reaction: str, error: Callable[[], Exception], calls: list[int]
) -> Callable[[], None]:
    """Let a reaction raise, after it has written a row; the returned function puts it back."""
    from atone._choreography.compiled import HandlerCode

    code: HandlerCode = ORDERS.handlers[type(participant).__participant__][reaction]
    real = code.function

    async def raises(self: Any, ctx: Reaction[Any]) -> Any:
        calls.append(1)
        await ctx.connection.execute(text("INSERT INTO effects (saga, what) VALUES ('o-1', 'half')"))
        raise error()

    object.__setattr__(code, "function", raises)

    def back() -> None:
        object.__setattr__(code, "function", real)

    _BACK.append(back)
    return back


_BACK: list[Callable[[], None]] = []


@pytest.fixture(autouse=True)
def _handlers_put_back() -> Any:
    yield
    while _BACK:
        _BACK.pop()()
