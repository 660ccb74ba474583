"""What a broker check is, what it is given, and the short words it is written in.

`Lab` opens brokers on the subject's server and closes them; names of groups and topics are new in every check, so that
all may share one server. Waits have an end that only fails. It must not reach behind the port. Called by the modules of
checks beside it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Protocol, cast
from uuid import uuid4

from atone.broker import NO_HEADERS, Broker, Delivery, Message, Published
from atone.errors import BrokerUnavailable
from atone.testing._subject import ContractBroken, holds, same

__all__ = ["BrokerCheck", "BrokerServer", "BrokerSubject", "ContractBroken", "Lab", "Member", "NotOffered"]


class NotOffered(Exception):
    """The subject has not what this check needs; the message says what."""


class BrokerServer(Protocol):
    """The server behind the brokers, to be taken away: `kill` as kill -9 does, `start` on the same data and port."""

    async def kill(self) -> None:
        """End it at once."""
        ...

    async def start(self) -> None:
        """Start it again and come back when it takes connections."""
        ...


@dataclass(frozen=True)
class BrokerSubject:
    """A server for messages, and the ways to it.

    `connect` makes a new broker that nobody has entered; several at once are as several processes. It must be patient:
    for a minute it gives nothing again whose member is there. `hurried` makes one that gives a message again when it
    was not ended for `patience_seconds`, and `hurried_url` is the same for `open_broker`, in another process. `keeps`:
    what nobody has declared is kept all the same, as DURABLE. `counts_attempts`: an attempt is known to every member.
    `unreachable` makes a broker whose URL has the password s3cret, where no server is. `publish_foreign(topic, body)`
    publishes with a plain client, without Atone's headers. `deadline_seconds` is how long a check waits before it
    fails.
    """

    connect: Callable[[], Broker]
    hurried: Callable[[], Broker] | None = None
    hurried_url: str | None = None
    patience_seconds: float = 1.0
    keeps: bool = False
    counts_attempts: bool = True
    server: BrokerServer | None = None
    unreachable: Callable[[], Broker] | None = None
    publish_foreign: Callable[[str, bytes], Awaitable[None]] | None = None
    deadline_seconds: float = 20.0


class BrokerCheck:
    """One sentence of the contract: `await check(make_subject)` raises ContractBroken if it does not hold.

    It raises NotOffered when the subject has not what the sentence is about.
    """

    def __init__(self, body: Callable[[Lab], Awaitable[None]]) -> None:
        self._body = body
        self.name = body.__name__
        self.__doc__ = body.__doc__

    def __repr__(self) -> str:
        return self.name

    async def __call__(self, make_subject: Callable[[], BrokerSubject]) -> None:
        async with AsyncExitStack() as stack:
            await self._body(Lab(make_subject(), stack))


class Lab:
    """A server under test, with makers of brokers, names and messages."""

    def __init__(self, subject: BrokerSubject, stack: AsyncExitStack) -> None:
        self.subject = subject
        self._stack = stack
        self._word = uuid4().hex[:10]

    async def broker(self) -> Broker:
        """Return an open, patient broker; it is closed at the end."""
        return await self._stack.enter_async_context(self.subject.connect())

    async def hurried(self) -> Broker:
        """Return an open broker that gives again soon what was not ended."""
        if self.subject.hurried is None:
            raise NotOffered("this broker gives nothing again while the connection is there")
        return await self._stack.enter_async_context(self.subject.hurried())

    @property
    def server(self) -> BrokerServer:
        """Return the server, to be taken away."""
        if self.subject.server is None:
            raise NotOffered("there is no server that could be taken away")
        return self.subject.server

    def needs_a_server(self) -> None:
        """Leave the check if there is no server to take away."""
        assert self.server is not None, "it says so itself"

    def topic(self, name: str = "stock.reserved") -> str:
        """Return a topic of this check's own; the same for the same name."""
        return f"t{self._word}.{name}"

    def group(self, name: str = "shipping") -> str:
        """Return a group of this check's own; the same for the same name."""
        return f"g{self._word}-{name}"

    def message(self, body: bytes = b"{}", *, key: str | None = None, topic: str | None = None) -> Message:
        """Return a message with a new id, and a key of its own unless one is given."""
        number = uuid4().hex
        return Message(number, topic or self.topic(), number if key is None else key, body, NO_HEADERS)

    def messages(self, count: int, *, key: str | None = None, topic: str | None = None) -> list[Message]:
        """Return several of them, whose bodies are their numbers."""
        return [self.message(b"%d" % number, key=key, topic=topic) for number in range(count)]

    async def member(self, broker: Broker, *, group: str | None = None, in_flight: int = 100) -> Member:
        """Return a member of a group that has declared the usual topic."""
        name = self.group() if group is None else group
        await broker.declare(name, [self.topic()])
        return self.joined(broker, group=name, in_flight=in_flight)

    def joined(self, broker: Broker, *, group: str | None = None, in_flight: int = 100) -> Member:
        """Return a member of a group that has declared something before; it is closed at the end."""
        member = Member(self, broker, self.group() if group is None else group, in_flight)
        self._stack.push_async_callback(member.leave)
        return member

    async def published(self, broker: Broker, *messages: Message) -> None:
        """Publish messages that the broker has to have afterwards."""
        found = list(await broker.publish(messages))
        same(found, [Published.DURABLE] * len(messages), "what became of messages that a group has declared")

    async def published_in_the_end(self, broker: Broker, *messages: Message) -> None:
        """Publish until the broker says that it has them, as a relay does."""
        await self.in_the_end(lambda: self.published(broker, *messages), "publishing")

    async def in_the_end(self, act: Callable[[], Awaitable[None]], what: str) -> None:
        """Repeat while the broker is unavailable, until the deadline."""
        until = asyncio.get_running_loop().time() + self.subject.deadline_seconds
        while True:
            try:
                await act()
            except BrokerUnavailable as error:
                if asyncio.get_running_loop().time() > until:
                    raise ContractBroken(f"{what} did not work again in time: {error}") from error
                await asyncio.sleep(0.02)
            else:
                return

    async def in_time(self, call: Awaitable[object], what: str) -> None:
        """Complain if it takes longer than the deadline."""
        try:
            async with asyncio.timeout(self.subject.deadline_seconds):
                await call
        except TimeoutError:
            raise ContractBroken(f"{what} did not come back in time") from None

    async def elsewhere(self, count: int, group: str | None = None) -> asyncio.subprocess.Process:
        """Start another process that takes so many deliveries and ends none of them; return when it has them."""
        if self.subject.hurried_url is None:
            raise NotOffered("no other process can reach this broker")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "atone.testing._broker_member", self.subject.hurried_url, group or self.group(),
            str(count), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip

        async def end() -> None:
            if process.returncode is None:
                process.kill()
            await process.communicate()

        self._stack.push_async_callback(end)
        assert process.stdout is not None, "it has a pipe"
        for _ in range(count):
            try:
                async with asyncio.timeout(self.subject.deadline_seconds):
                    line = await process.stdout.readline()
            except TimeoutError:
                raise ContractBroken("a member in another process was given too little") from None
            holds(line.strip(), "a member in another process ended")
        return process


class Member:
    """A member of a group: one iterator over its deliveries, which waits across calls."""

    def __init__(self, lab: Lab, broker: Broker, group: str, in_flight: int) -> None:
        self._lab = lab
        self._iterator = cast("AsyncGenerator[Delivery]", broker.deliveries(group, in_flight=in_flight))
        self._waiting: asyncio.Task[Delivery] | None = None
        self.group = group

    async def within(self, seconds: float) -> Delivery | None:
        """Return the next delivery, or None if there is none for so long."""
        if self._waiting is None:
            self._waiting = asyncio.create_task(self._next())
        done, _ = await asyncio.wait({self._waiting}, timeout=seconds)
        if not done:
            return None
        waited, self._waiting = self._waiting, None
        return waited.result()

    async def next(self) -> Delivery:
        """Return the next delivery; there has to be one."""
        found = await self.within(self._lab.subject.deadline_seconds)
        if found is None:
            raise ContractBroken(f"nothing came to {self.group} in time")
        return found

    async def take(self, count: int) -> list[Delivery]:
        """Return so many deliveries, not ended."""
        return [await self.next() for _ in range(count)]

    async def hear(self, count: int) -> list[Message]:
        """Return so many messages, settled."""
        heard: list[Message] = []
        for _ in range(count):
            delivery = await self.next()
            heard.append(delivery.message)
            await delivery.ack()
        return heard

    async def hear_all(self, wanted: Collection[Message]) -> list[Message]:
        """Settle what comes until each of these has come, and return it all; duplicates are allowed."""
        missing = {message.id for message in wanted}
        heard: list[Message] = []
        while missing:
            delivery = await self.next()
            heard.append(delivery.message)
            missing.discard(delivery.message.id)
            await delivery.ack()
        return heard

    async def stays_quiet(self, seconds: float, what: str) -> None:
        """Complain if anything comes in so many seconds."""
        found = await self.within(seconds)
        if found is not None:
            raise ContractBroken(f"{what}: {found.message.topic} came, attempt {found.attempt}")

    async def leave(self) -> None:
        """Close the iterator; a second time it does nothing."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        await self._iterator.aclose()

    async def _next(self) -> Delivery:
        return await anext(self._iterator)


def ids(messages: Sequence[Message]) -> list[str]:
    """Return their ids."""
    return [message.id for message in messages]
