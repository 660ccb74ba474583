"""Messages over Kafka: a topic for each topic, a consumer group for each group, and offsets that follow what was ended.

Owns what the port asks for, in Kafka's words. What is parked stands in a compacted topic of the group's, and so does
what it alone is given again; one more topic says who has declared what. Must not decide what a message means. How safe
a confirmed message is depends on replicas and `min.insync.replicas`. Called through `open_broker`.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false
# aiokafka has no types.

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self

from aiokafka import TopicPartition  # type: ignore[import-untyped]
from aiokafka.errors import KafkaError, MessageSizeTooLargeError  # type: ignore[import-untyped]

from atone.broker import Message, Parked, Published
from atone.brokers import _kafka_wire as wire
from atone.brokers._hosts import hosts_of
from atone.brokers._kafka_connection import ANSWER_SECONDS, Connection, to_its_end
from atone.brokers._kafka_member import KafkaDelivery, Member, ended
from atone.errors import BrokerError

_EXAMPLE = "kafka://user:password@host:9092,other:9092?partitions=8"
_OPTIONS = frozenset(
    {"partitions", "replicas", "prefix", "idempotence", "message_bytes", "session_seconds", "tls", "sasl"}
)
_HEADERS_BYTES = 16 * 1024  # of a message's largest size, kept free for its headers
_TAIL_SECONDS = 0.5


class KafkaBroker:
    """A broker on Kafka, or on a server that speaks its protocol.

    The URL is `kafka://user:password@host:9092`, several hosts with commas between them. Options: `partitions` (8) and
    `replicas` (1) of topics that are made here; those that are there are used as they are. `prefix` ("atone.") of all
    names. `idempotence=0` for servers without idempotent producers. `message_bytes` (1000000), the largest request.
    `session_seconds` (10), after which a silent member's partitions go to another. `tls=1`, `sasl` (PLAIN).
    """

    def __init__(self, url: str) -> None:
        """Take the URL; nothing is connected yet.

        Raises:
            BrokerError: The URL can't be read.
        """
        hosts = hosts_of(url, _EXAMPLE, 9092, _OPTIONS)
        self._names = wire.Names(hosts.options.get("prefix", "atone."))
        self._partitions = hosts.number("partitions", 8, least=1)
        self._connection = Connection(hosts)
        self._members: set[Member] = set()
        self._declared: dict[str, set[str]] = {}
        self._tail: asyncio.Task[None] | None = None

    @property
    def message_bytes_max(self) -> int:
        """What a request may have, less some room for headers."""
        return self._connection.request_bytes - _HEADERS_BYTES

    async def __aenter__(self) -> Self:
        """Connect."""
        await self._connection.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Commit what is ended, and disconnect; what nobody has ended is given again, since it was not committed."""
        producer = self._connection.shut()
        if self._tail is not None:
            await ended([self._tail])
        await asyncio.gather(*(member.close() for member in self._members), return_exceptions=True)
        self._members.clear()
        if producer is None:
            return
        try:
            await to_its_end(asyncio.wait_for(producer.stop(), ANSWER_SECONDS))
        except (KafkaError, TimeoutError):
            return  # what was not confirmed was said to be unavailable

    async def publish(self, messages: Sequence[Message]) -> Sequence[Published]:
        """Publish in this order and wait for all confirmations."""
        self._connection.check()
        results = [Published.DURABLE] * len(messages)
        confirmations: dict[int, asyncio.Future[Any]] = {}
        with self._connection.asking():
            await self._connection.mend()
            await self._connection.make(
                dict.fromkeys((self._names.topic(one.topic) for one in messages), self._partitions)
            )
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    for place, message in enumerate(messages):
                        if len(message.body) > self.message_bytes_max:
                            results[place] = Published.REFUSED
                        else:
                            confirmations[place] = await self._sent(message)
                    await asyncio.gather(*confirmations.values(), return_exceptions=True)
            finally:
                for future in confirmations.values():
                    future.add_done_callback(_heard)
            for place, future in confirmations.items():
                problem = future.exception()
                if isinstance(problem, MessageSizeTooLargeError):
                    results[place] = Published.REFUSED
                elif problem is not None:
                    raise problem
        return results

    async def _sent(self, message: Message) -> asyncio.Future[Any]:
        try:
            sent: asyncio.Future[Any] = await self._connection.producer.send(
                self._names.topic(message.topic), message.body, key=wire.key_of(message),
                headers=wire.headers_of(message),
            )  # fmt: skip
        except MessageSizeTooLargeError as error:
            sent = asyncio.get_running_loop().create_future()
            sent.set_exception(error)
        return sent

    async def declare(self, group: str, topics: Collection[str]) -> None:
        """Have a group hear these topics too; it is given what they have kept."""
        self._connection.check()
        names = self._names
        with self._connection.asking():
            await self._connection.make(dict.fromkeys((names.topic(topic) for topic in topics), self._partitions))
            await self._connection.make({names.again(group): 1})
            await self._connection.make({names.declared: 1, names.dead(group): 1}, compact=True)
            for topic in topics:
                await self._connection.put(names.declared, wire.declaration(group, topic), b"1", [])

    async def deliveries(self, group: str, *, in_flight: int = 100) -> AsyncIterator[KafkaDelivery]:
        """Yield what comes from this member's share of the partitions."""
        self._connection.check()
        topics = await self._topics_of(group)
        if not topics:
            raise BrokerError(f"The group {group} has declared nothing. Call declare() first.")
        self._connection.check()  # it may have been left meanwhile
        member = Member(self._connection.consumer, self._names, group, in_flight, self._park)
        self._members.add(member)
        try:
            async with aclosing(member.deliveries(topics)) as deliveries:
                async for delivery in deliveries:
                    yield delivery
        except (KafkaError, OSError) as error:
            raise self._connection.unavailable(error) from None
        finally:
            self._members.discard(member)

    async def parked(self, group: str, *, limit: int = 100) -> Sequence[Parked]:
        """Return what is in the group's dead-letter topic, oldest first."""
        self._connection.check()
        return [_parked(record) for record in (await self._dead(group))[:limit]]

    async def unpark(self, group: str, message_id: str) -> bool:
        """Give a parked message to the group again, and to no other."""
        self._connection.check()
        for record in await self._dead(group):
            message = _parked(record).message
            if message.id != message_id:
                continue
            with self._connection.asking():
                # In this order: at worst it is given again and still parked, never neither.
                headers = wire.headers_of(message, **{wire.TOPIC: message.topic})
                await self._connection.put(self._names.again(group), wire.key_of(message), message.body, headers)
                await self._connection.put(self._names.dead(group), record.key, None, [])
            return True
        return False

    async def _park(self, delivery: KafkaDelivery, group: str, reason: str) -> None:
        message = delivery.message
        headers = wire.parked_headers(message, reason[:2000], delivery.attempt)
        with self._connection.asking():
            await self._connection.put(self._names.dead(group), message.id.encode(), message.body, headers)

    async def _dead(self, group: str) -> list[Any]:
        """Return the records of a dead-letter topic that no later one has taken away."""
        found: dict[bytes, Any] = {}
        with self._connection.asking():
            await self._connection.make({self._names.dead(group): 1}, compact=True)
            for record in await self._connection.all(self._names.dead(group)):
                found.pop(record.key, None)
                if record.value is not None:
                    found[record.key] = record
        return list(found.values())

    async def _topics_of(self, group: str) -> set[str]:
        """Return what a group has declared; from now on, members here hear of what is declared later."""
        with self._connection.asking():
            await self._connection.make({self._names.declared: 1}, compact=True)
            self._note(await self._connection.all(self._names.declared))
        if self._tail is None:
            self._tail = asyncio.create_task(self._follow())
        return self._declared.get(group, set())

    async def _follow(self) -> None:
        """Hear what is declared, also by others."""
        while self._connection.is_open:
            consumer = self._connection.consumer()
            try:
                await to_its_end(consumer.start())
                consumer.assign([TopicPartition(self._names.declared, 0)])
                await consumer.seek_to_beginning()
                while self._connection.is_open:
                    found = await consumer.getmany(timeout_ms=int(_TAIL_SECONDS * 1000))
                    self._note([record for records in found.values() for record in records])
            except (KafkaError, OSError):
                await asyncio.sleep(_TAIL_SECONDS)
            finally:
                await to_its_end(consumer.stop())

    def _note(self, records: list[Any]) -> None:
        for record in records:
            read = wire.declaration_from(record.key)
            if read is not None:
                self._declared.setdefault(read[0], set()).add(read[1])
        for member in self._members:
            member.hear(self._declared.get(member.group, set()))


def _parked(record: Any) -> Parked:
    about = wire.about_parked(record.headers)
    message = wire.message_from("", None, record.value, record.headers, f"parked:{record.offset}")
    return Parked(message, about.reason, about.attempts, record.timestamp / 1000)


def _heard(future: asyncio.Future[Any]) -> None:
    """Look at what became of a message that nobody waits for any more, or the loop would complain."""
    if not future.cancelled():
        future.exception()
