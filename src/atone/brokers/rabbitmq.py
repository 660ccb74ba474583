"""RabbitMQ as a broker: a topic exchange, a quorum queue for each group, and confirmed publishing.

Owns what is published and declared; `_rabbit_member` owns what is delivered. A quorum queue is on the disks of most of
its nodes before a message is confirmed. Must not rely on the server's own dead-lettering of what is poison: when to
park is the user's to say. RabbitMQ 3.10 or newer. Called through `open_broker`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self
from urllib.parse import unquote

from aio_pika.abc import AbstractIncomingMessage, AbstractQueue
from aio_pika.exceptions import ChannelNotFoundEntity

from atone.broker import Delivery, Message, Parked, Published
from atone.brokers import _rabbit_wire as wire
from atone.brokers._hosts import hosts_of
from atone.brokers._rabbit_connection import Connection, uncancelled
from atone.brokers._rabbit_member import Member
from atone.brokers._rabbit_publishing import Publishing
from atone.brokers._rabbit_queues import Queues

_EXAMPLE = "amqp://user:password@host:5672/virtual-host"
_OPTIONS = frozenset({"prefix", "hold_seconds", "message_bytes_max", "heartbeat_seconds", "settle_seconds"})


class RabbitBroker:
    """A broker on RabbitMQ, of one host or several nodes: amqp://user:password@host:5672,other:5672/virtual-host.

    Options: `prefix` (atone) begins all names; `hold_seconds` (1500), after which a delivery that nobody has ended is
    given again, and which must be less than the server's `consumer_timeout` (half an hour); `message_bytes_max`
    (16 MiB, the server's own bound from 4.0 on); `heartbeat_seconds` (30), twice which the server takes to see that
    somebody is gone without a word; `settle_seconds` (3), which a queue that was just made is given before it is used,
    because a server that is killed sooner may lose it.

    A message that waits for its next try stands in a queue `PREFIX.later.MILLISECONDS`, whose delays are at most a
    fifth longer than asked for; such queues go when they are not used. What waits survives member and server. A retry
    or a park publishes a copy, confirmed, and then settles the original: whoever dies in between leaves a duplicate. A
    group that is no more must be removed by hand, or its queue grows. The server gives foreign messages no id, so two
    that are the same in all they say, and have none, count as one.
    """

    def __init__(self, url: str) -> None:
        """Take the URL; nothing is connected yet.

        Raises:
            BrokerError: The URL can't be read.
        """
        tls = url.startswith("amqps:")
        hosts = hosts_of(url, _EXAMPLE, 5671 if tls else 5672, _OPTIONS)
        self._names = wire.Names(hosts.options.get("prefix", "atone"))
        self._hold_seconds = hosts.number("hold_seconds", 1500.0, least=0.1)
        self._message_bytes_max = hosts.number("message_bytes_max", 16 * 1024**2, least=1)
        self._connection = Connection(
            hosts, virtual_host=unquote(hosts.path.removeprefix("/")) or "/", tls=tls,
            heartbeat_seconds=hosts.number("heartbeat_seconds", 30, least=1),
        )  # fmt: skip
        self._queues = Queues(self._connection, self._names, hosts.number("settle_seconds", 3.0, least=0.0))
        self._publishing = Publishing(self._connection, self._names, self._queues)
        self._members: set[Member] = set()

    @property
    def message_bytes_max(self) -> int:
        """The largest body that is taken."""
        return self._message_bytes_max

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            BrokerUnavailable: The server can't be reached, or lets nobody in with this user and password.
        """
        await self._connection.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give back what nobody has ended, and disconnect."""
        try:
            for member in tuple(self._members):
                await member.leave()
        finally:
            self._members.clear()
            await self._connection.close()

    async def publish(self, messages: Sequence[Message]) -> Sequence[Published]:
        """Publish in this order, each confirmed by the queues that it came to.

        Raises:
            BrokerUnavailable: Any of them may have been published, or not; publish them all again.
        """
        self._connection.check()
        places = [place for place, one in enumerate(messages) if self._fits(one)]
        outcomes = [Published.REFUSED] * len(messages)
        arrived = await self._publishing.to_topics(
            [(messages[place].topic, wire.amqp_of(messages[place])) for place in places]
        )
        for place, has_arrived in zip(places, arrived, strict=True):
            outcomes[place] = Published.DURABLE if has_arrived else Published.NOBODY
        return outcomes

    def _fits(self, message: Message) -> bool:
        return len(message.body) <= self._message_bytes_max and wire.header_bytes(message) <= wire.HEADER_BYTES_MAX

    async def declare(self, group: str, topics: Collection[str]) -> None:
        """Have a group hear these topics from now on."""
        self._connection.check()
        await uncancelled(self._queues.group(group, topics))

    def deliveries(self, group: str, *, in_flight: int = 100) -> AsyncIterator[Delivery]:
        """Yield what the group is to hear; `aclose` gives back what was taken ahead.

        Raises:
            BrokerError: The group has declared nothing.
        """
        member = Member(
            self._connection, self._publishing, self._names, group,
            in_flight=in_flight, hold_seconds=self._hold_seconds, left=self._members.discard,
        )  # fmt: skip
        self._members.add(member)
        return member

    async def parked(self, group: str, *, limit: int = 100) -> Sequence[Parked]:
        """Return what is in the group's dead-letter queue, oldest first; meanwhile others do not see it there."""
        self._connection.check()
        return await uncancelled(self._parked(group, limit))

    async def _parked(self, group: str, limit: int) -> list[Parked]:
        found: list[Parked] = []
        async with self._dead_letters(group) as queue:
            while queue is not None and len(found) < limit:
                amqp = await queue.get(fail=False)
                if amqp is None:
                    break
                note = wire.note_of(amqp)
                found.append(Parked(wire.message_of(amqp), note.reason, note.attempts, note.at))
        return sorted(found, key=lambda one: one.at)

    async def unpark(self, group: str, message_id: str) -> bool:
        """Give a parked message to the group again; whether it was there."""
        self._connection.check()
        return await uncancelled(self._unpark(group, message_id))

    async def _unpark(self, group: str, message_id: str) -> bool:
        again: AbstractIncomingMessage | None = None
        async with self._dead_letters(group) as queue:
            while queue is not None and (amqp := await queue.get(fail=False)) is not None:
                if wire.message_of(amqp).id != message_id:
                    continue
                if again is None:  # more of them are duplicates
                    attempts = wire.note_of(amqp).attempts
                    copy = wire.amqp_of(wire.message_of(amqp), attempts=attempts)
                    await self._publishing.to_queue(self._names.queue(group), copy)
                    again = amqp
                await amqp.ack()
        return again is not None

    @asynccontextmanager
    async def _dead_letters(self, group: str) -> AsyncGenerator[AbstractQueue | None, None]:
        """Open the dead-letter queue, if there is one; what was got and not settled goes back to where it was."""
        channel = await self._connection.channel()
        with self._connection.asking():
            try:
                queue = await channel.get_queue(self._names.parked(group), ensure=True)
            except ChannelNotFoundEntity:
                yield None
                return
            try:
                yield queue
            finally:
                if not channel.is_closed:
                    underlay = await channel.get_underlay_channel()
                    await underlay.basic_nack(0, multiple=True, requeue=True)
                    await channel.close()
