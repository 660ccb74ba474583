"""Failures between services that only send each other messages: commands and replies, outboxes, choreographies.

Each function is one failure: it makes it happen, asserts what the page claims, and quotes what was seen.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from atone import Context, Orchestrator, Saga, SagaStatus, Tried, command, step
from atone.brokers.memory import MemoryBroker
from atone.orchestrator import Limits
from atone.saga_view import SagaView
from atone.stores.memory import MemoryStore
from atone.testing.simulate import Process
from tests.choreography.shop import ORDERS, OrderPlaced, OrderShipped, PaymentTaken, StockReserved, message_of
from tests.failures.shop import THRICE, Order
from tests.failures.stage import Shared, Stage, failure
from tests.runtime.desk import REPLIES, Booked, BookRoom, CancelRoom, Desk
from tests.runtime.world import World

BY = "--by ada"


class BookTrip(Saga[Order], name="BookTrip", late_grace=0):
    """A room, by command to the hotel; then a charge, by call."""

    def __init__(self, world: World) -> None:
        self.world = world

    @command(reply=Booked, timeout=30, retry=THRICE, to="hotel.book")
    def book(self, ctx: Context[Order]) -> BookRoom:
        return BookRoom(ctx.input.item, 2)

    @book.compensation(retry=THRICE, timeout=30, to="hotel.cancel")
    def cancel(self, ctx: Context[Order], tried: Tried[Booked]) -> CancelRoom:
        return CancelRoom(ctx.input.item, None if tried.result is None else tried.result.ref)

    @step(book, no_compensation="the last step", retry=THRICE)
    async def charge(self, ctx: Context[Order], booked: Booked) -> str:
        return await self.world.act("charge", ctx)


@asynccontextmanager
async def hotel(at: Stage, name: str) -> AsyncIterator[Desk]:
    """Have a hotel on a broker of this name, which answers when it is told to."""
    async with MemoryBroker(f"memory://{name}") as broker:
        await broker.declare("desk", ["hotel.book", "hotel.cancel"])
        desk = Desk(f"memory://{name}", broker)
        listening = asyncio.create_task(desk.listens())
        try:
            yield desk
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


def travels(at: Stage, broker: Any, store: Any = None, name: str = "worker") -> Process:
    """Start a worker that sends its commands over a broker."""

    async def work() -> None:
        options: dict[str, Any] = {"allow_volatile": True, "limits": Limits(poll_seconds=1.0), "broker": broker}
        async with Orchestrator(store or at.store, sagas=[BookTrip(at.world)], **options):
            await asyncio.Event().wait()

    return at.sim.process(name, work)


@failure("The broker is away", "messages wait in the outbox, and their number grows")
async def the_broker_is_away(at: Stage) -> None:
    at.happens("""
        A saga sends a command, and the broker can't be reached. The message is in the store, in the same transaction as
        the turn that sends it, so it can't be lost and can't be sent without its turn. A relay tries until the broker
        takes it. No step is undone for that, but a command's own `timeout` goes on.
    """)
    async with hotel(at, "away") as desk:
        broker = MemoryBroker(desk.address)
        travels(at, broker)
        await asyncio.sleep(2)
        desk.broker.server.kill()
        await at.start(saga=BookTrip(at.world))
        await asyncio.sleep(15)
        at.journal("The command was sent, as far as the saga is concerned. The outbox knows more:")
        await at.atone("show order-1")
        await at.atone("outbox")
        at.journal("In the worker's log:")
        at.log("the relay's broker fails")
        at.person("Bring the broker back. The relay finds it by itself.")
        desk.broker.server.start()
        await desk.answers(await desk.hears("hotel.book"), {"ref": "R1"})
        assert await at.settled() is SagaStatus.COMPLETED
        await at.atone("outbox")
        assert len(desk.heard) == 1


@failure("A broker refuses a message", "a message is set aside, with a reason")
async def a_message_that_the_broker_refuses(at: Stage) -> None:
    at.happens("""
        The message is larger than the broker takes. To try it again would hold up all that comes behind it, so it is
        set aside with the reason, and the others of its saga go on. The command is never heard; its time-out passes.
    """)
    async with hotel(at, "small") as desk:
        before = travels(at, MemoryBroker(desk.address, message_bytes_max=30))
        await at.start(saga=BookTrip(at.world), item="a room with a view of the sea")
        await asyncio.sleep(5)
        at.journal("Nothing yet; the command waits for its reply. The outbox tells:")
        await at.atone("outbox")
        told, _ = await at.quietly("outbox --json")
        (message_id,) = re.findall(r'"(c\.[^"]*)"', told)
        at.person("""
        Have the broker take more, and post the message again; or drop it, and the command's time-out decides.
    """)
        before.kill()
        travels(at, MemoryBroker(desk.address), name="after the change")
        await at.atone(f'outbox --again {message_id} --reason "the broker takes more now" {BY}')
        await desk.answers(await desk.hears("hotel.book"), {"ref": "R1"})
        assert await at.settled() is SagaStatus.COMPLETED
        await at.atone("outbox")


@failure("A message is delivered twice", "a participant got the same command or reply twice")
async def a_delivery_that_comes_twice(at: Stage) -> None:
    at.happens("""
        Brokers deliver at least once, and so do relays. The hotel's reply comes twice, in two messages. A reply is kept
        as a request of the saga, by the command's attempt: the second finds that it is answered.
    """)
    async with hotel(at, "twice") as desk:
        travels(at, MemoryBroker(desk.address))
        await at.start(saga=BookTrip(at.world))
        await desk.answers(await desk.hears("hotel.book"), {"ref": "R1"}, twice=True)
        assert await at.settled() is SagaStatus.COMPLETED
        await asyncio.sleep(5)
        assert await desk.broker.parked(REPLIES) == []
    assert at.world.count("charge") == 1
    at.tell_ledger()
    at.journal("One reply.")
    await at.atone("show order-1")
    at.person("Nothing. A participant of yours refuses what comes twice by its inbox, or by the key of the command.")


@failure("A participant answers after the undo", "a reply is set aside for a person")
async def a_reply_after_the_undo(at: Stage) -> None:
    at.happens("""
        The hotel answers no command. All attempts time out, the saga turns back, and since a room may have been booked,
        the hotel is sent a cancel as well. It answers that, and the saga is over: compensated. Then the booking's reply
        comes after all: it did book. The saga can't be changed any more, and the reply is not thrown away either.
    """)
    async with hotel(at, "late") as desk:
        travels(at, MemoryBroker(desk.address))
        await at.start(saga=BookTrip(at.world))
        first = await desk.hears("hotel.book")
        while not any(one.topic == "hotel.cancel" for one in desk.heard):  # noqa: ASYNC110 - minutes of virtual time
            await asyncio.sleep(1)
        await desk.answers(desk.heard[-1])
        assert await at.settled() is SagaStatus.COMPENSATED
        await desk.answers(first, {"ref": "R1"})
        while not (parked := await desk.broker.parked(REPLIES)):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(1)
        at.journal("Attempts without an answer, and the way back. Of the late reply, nothing: the saga was over.")
        await at.atone("show order-1")
        at.journal("It stands in the dead-letter place of the replies, with the reason:")
        at.quote("\n".join(f"{one.message.topic}: {one.reason}" for one in parked))
        at.journal("In the worker's log:")
        at.log("set aside", "parked", "reply")
        at.person("""
        Ask the hotel. If it has Atone's inbox or barrier, it has refused the booking, for its cancel came first. If
        not, the room may stand: cancel it there. Messages in that place are seen, sent again and dropped with the
        broker's own tools; see [brokers](../brokers.md).
    """)


@failure("Two stores share a broker", "replies are set aside: they are for no saga of this store")
async def two_stores_on_one_broker(at: Stage) -> None:
    at.happens("""
        Two systems, each with a store of its own, use one broker without telling each other. Both listen to replies in
        the same group, so that a reply may be taken in by the one that did not ask. It has no such saga.
    """)
    other = MemoryStore(allow_volatile=True, clock=at.sim.clock.time)
    async with hotel(at, "shared") as desk, other:
        theirs = travels(at, MemoryBroker(desk.address), store=Shared(other), name="of the other")
        await asyncio.sleep(2)
        ours = travels(at, MemoryBroker(desk.address), name="ours")
        await at.start(saga=BookTrip(at.world))
        asked = await desk.hears("hotel.book")
        ours.freeze()  # so that the other one is faster
        await desk.answers(asked, {"ref": "R1"})
        while not (parked := await desk.broker.parked(REPLIES)):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(1)
        ours.thaw()
        theirs.kill()  # it is told to listen elsewhere
        at.journal("The saga waits for a reply that somebody else has got. In the dead-letter place of the replies:")
        at.quote("\n".join(f"{one.message.topic}: {one.reason}" for one in parked))
        await at.atone("show order-1")
        while len(desk.heard) < 2:  # noqa: ASYNC110 - a time-out away
            await asyncio.sleep(1)
        await desk.answers(desk.heard[1], {"ref": "R1"})
        at.person("""
        Give each store a `topic_prefix=` of its own: `Orchestrator(..., topic_prefix="billing")`, and `--topic-prefix`
        for workers on the command line. Until then a lost reply costs a time-out: the command is sent again with its
        key, and answered again.
    """)
        assert await at.settled() is SagaStatus.COMPLETED
        await at.atone("show order-1")


@failure("A service does not react", "a choreographed saga stands still, and no service says anything")
async def an_event_that_is_missing(at: Stage) -> None:
    at.happens("""
        Nobody runs a choreographed saga: services react to each other's events. One of them is down, so an event that
        should come does not. Nobody would notice, but the view of all events knows who should have sent what.
    """)
    is_over = asyncio.Event()
    async with MemoryBroker("memory://choreography") as broker:

        async def views() -> None:
            async with SagaView(ORDERS, store=at.memory, broker=broker, look_seconds=5.0, clock=at.sim.clock.time):
                await is_over.wait()

        viewing = at.sim.process("view", views)
        await asyncio.sleep(1)
        await broker.publish([message_of(OrderPlaced("cup", 500), "order-1", "m-1")])
        await asyncio.sleep(1)
        await broker.publish([message_of(StockReserved("cup", 500), "order-1", "m-2", source="inventory")])
        await asyncio.sleep(600)
        at.journal("What has come, and what is missing, from whom and for how long.")
        await at.atone("show order-1")
        at.person("Bring the service back, here `payments`. The events wait for it at the broker.")
        await broker.publish([message_of(PaymentTaken(500), "order-1", "m-3", source="payments")])
        await broker.publish([message_of(OrderShipped("label-1"), "order-1", "m-4", source="shipping")])
        await asyncio.sleep(10)
        await at.atone("show order-1")
        is_over.set()
        await viewing.wait()
