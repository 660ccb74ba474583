"""A hotel's desk behind a broker, for the tests of commands: it hears what is sent to it, and answers when told to.

Owns the messages, the saga that books a room by them, and a participant that does nothing by itself: a test says what
is answered, when, how often. Envelopes are written by hand where a test is about what they say.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any
from uuid import uuid4

from atone import Context, Retry, Saga, Tried, command, step
from atone._messaging import headers
from atone._messaging.envelope import reason_body, reply_message
from atone.broker import Broker, Delivery, Message, Parked
from atone.brokers.memory import MemoryBroker
from atone.orchestrator import Orchestrator
from tests.runtime.world import Order, World, limits

AT_ONCE = Retry(attempts=3, initial=0.0, jitter=0.0)
REPLIES = "atone.replies"


@dataclass(frozen=True)
class BookRoom:
    order: str
    nights: int


@dataclass(frozen=True)
class CancelRoom:
    order: str
    ref: str | None


@dataclass(frozen=True)
class Booked:
    ref: str


@dataclass(frozen=True)
class RoomsGone:
    reason: str
    free_from: str = ""


class BookTrip(Saga[Order], late_grace=0):
    """A room by command, then a charge by call: what comes after can fail, and then the room is given back."""

    def __init__(self, world: World) -> None:
        self.world = world

    @command(reply=Booked, rejects=RoomsGone, timeout=30, retry=AT_ONCE, to="hotel.book")
    def book(self, ctx: Context[Order]) -> BookRoom:
        return BookRoom(ctx.input.id, 2)

    @book.compensation(retry=AT_ONCE, timeout=30, to="hotel.cancel")
    def cancel(self, ctx: Context[Order], tried: Tried[Booked]) -> CancelRoom:
        return CancelRoom(ctx.input.id, None if tried.result is None else tried.result.ref)

    @step(book, no_compensation="the last step", retry=AT_ONCE)
    async def charge(self, ctx: Context[Order], booked: Booked) -> str:
        return await self.world.act("charge", ctx)


class HastyTrip(Saga[Order], late_grace=0):
    """The same with a time-out that a test can wait for, and two attempts."""

    def __init__(self, world: World) -> None:
        self.world = world

    @command(reply=Booked, timeout=0.3, retry=Retry(attempts=2, initial=0.0, jitter=0.0), to="hotel.book")
    def book(self, ctx: Context[Order]) -> BookRoom:
        return BookRoom(ctx.input.id, 2)

    @book.compensation(timeout=30, to="hotel.cancel")
    def cancel(self, ctx: Context[Order], tried: Tried[Booked]) -> CancelRoom:
        return CancelRoom(ctx.input.id, None if tried.result is None else tried.result.ref)

    @step(book, no_compensation="the last step", retry=AT_ONCE)
    async def charge(self, ctx: Context[Order], booked: Booked) -> str:
        return await self.world.act("charge", ctx)


class Desk:
    """The participant. `heard` is every command that came, in order."""

    def __init__(self, address: str, broker: Broker) -> None:
        self.address = address
        self.broker = broker
        self.heard: list[Message] = []
        self._waiting: dict[str, asyncio.Queue[Message]] = {}
        self._numbers = count(1)

    async def listens(self) -> None:
        """Take in commands until cancelled."""
        async for delivery in self.broker.deliveries("desk"):
            await self._take(delivery)

    async def _take(self, delivery: Delivery) -> None:
        self.heard.append(delivery.message)
        self._queue(delivery.message.topic).put_nowait(delivery.message)
        await delivery.ack()

    def _queue(self, topic: str) -> asyncio.Queue[Message]:
        return self._waiting.setdefault(topic, asyncio.Queue())

    async def hears(self, topic: str) -> Message:
        """Wait for the next command on a topic."""
        return await asyncio.wait_for(self._queue(topic).get(), 20)

    async def answers(self, to: Message, result: object = None, *, twice: bool = False) -> None:
        """Say that it is done; `twice` in two messages with ids of their own."""
        body = json.dumps(result).encode()
        reply = reply_message(to, outcome=headers.SUCCEEDED, body=body, source="hotel", at=1.0)
        copies = [reply, reply._replace(id=f"{reply.id}-again")] if twice else [reply]
        await self.broker.publish(copies)

    async def refuses(self, to: Message, reason: str, body: object = None) -> None:
        """Say that it can't be done, in words or as the declared refusal."""
        told = reason_body(reason) if body is None else json.dumps(body).encode()
        await self.broker.publish([reply_message(to, outcome=headers.REJECTED, body=told, source="hotel", at=1.0)])

    async def publishes(self, to: Message, **changed: Any) -> Message:
        """Publish a reply with headers changed, or left out where None; `body` and `id` may be given too."""
        reply = reply_message(to, outcome=headers.SUCCEEDED, body=b'{"ref":"R1"}', source="hotel", at=1.0)
        said = dict(reply.headers)
        for name, value in changed.pop("said", {}).items():
            said.pop(name, None)
            said |= {} if value is None else {name: value}
        reply = reply._replace(**{"id": f"{reply.id}-{next(self._numbers)}", "headers": said, **changed})
        await self.broker.publish([reply])
        return reply

    async def parked(self, *, times: int = 1) -> Sequence[Parked]:
        """Wait until so many replies were set aside, and return them."""
        async with asyncio.timeout(20):
            while len(found := await self.broker.parked(REPLIES)) < times:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)
        return found

    async def settled(self) -> None:
        """Wait until the orchestrators have taken in every reply."""
        assert isinstance(self.broker, MemoryBroker)
        server = self.broker.server
        async with asyncio.timeout(20):
            while server.groups[REPLIES].items:  # noqa: ASYNC110 - there is no event to wait for
                await asyncio.sleep(0.01)


@asynccontextmanager
async def a_desk() -> AsyncIterator[Desk]:
    """Open a desk on a broker of its own."""
    address = f"memory://{uuid4().hex}"
    async with MemoryBroker(address) as broker:
        await broker.declare("desk", ["hotel.book", "hotel.cancel"])
        desk = Desk(address, broker)
        listening = asyncio.create_task(desk.listens())
        try:
            yield desk
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


def travelling(store: Any, desk: Desk, *sagas: Saga[Any], **other: Any) -> Orchestrator:
    """Return an orchestrator on the desk's broker; `other` are limits."""
    return Orchestrator(
        store, sagas=list(sagas), limits=limits(**other), allow_volatile=True, broker=MemoryBroker(desk.address)
    )
