"""What a group's member hears from Kafka: records of its partitions, and offsets that follow what was ended.

Owns one consumer, what has come ahead, what nobody has ended, and the commits. What is to be tried again waits here and
holds its partition's offset back, so that a crash gives it again. Called by the Kafka adapter.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false, reportUntypedBaseClass=false
# aiokafka has no types.

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from typing import Any

from aiokafka import ConsumerRebalanceListener, TopicPartition  # type: ignore[import-untyped]
from aiokafka.errors import IllegalStateError, KafkaError  # type: ignore[import-untyped]

from atone.broker import Message
from atone.brokers._kafka_connection import to_its_end
from atone.brokers._kafka_window import Window
from atone.brokers._kafka_wire import Names, message_from

_log = logging.getLogger("atone.brokers.kafka")

Park = Callable[["KafkaDelivery", str, str], Awaitable[None]]
MakeConsumer = Callable[..., Any]

WINDOW_MAX = 5000
_COMMIT_SECONDS = 0.05
_POLL_SECONDS = 0.5
_POLL_MS = 500
_COMMIT_ANSWER_SECONDS = 5.0
_TROUBLE_SECONDS = 0.2


class KafkaDelivery:
    """One record in the hands of a group's member."""

    def __init__(self, member: Member, message: Message, window: Window, offset: int) -> None:
        self.message = message
        self.attempt = 1
        self.is_doubtful = window.is_young
        self.window, self.offset = window, offset
        self._member = member

    async def ack(self) -> None:
        """Settle it."""
        if self._member.forget(self):
            self._member.end(self)

    async def retry(self, *, after_seconds: float = 0.0) -> None:
        """Have it again later, here, or elsewhere if this member goes."""
        if self._member.forget(self):
            self.attempt += 1
            self.is_doubtful = False
            self._member.later(self, after_seconds)

    async def park(self, reason: str) -> None:
        """Put it away, and settle it when it surely is there."""
        await self._member.park(self, self._member.group, reason)
        await self.ack()


class Member:
    """The deliveries of one member of a group."""

    def __init__(self, make_consumer: MakeConsumer, names: Names, group: str, in_flight: int, park: Park) -> None:
        self.group = group
        self.park = park
        self._make_consumer, self._names, self._in_flight = make_consumer, names, in_flight
        self._consumer: Any = None
        self._windows: dict[TopicPartition, Window] = {}
        self._ahead: deque[KafkaDelivery] = deque()
        self._held: set[KafkaDelivery] = set()
        self._wake, self._room, self._dirty = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._topics: set[str] = set()
        self._is_over = False

    async def deliveries(self, topics: Collection[str]) -> AsyncGenerator[KafkaDelivery, None]:
        """Yield until it is closed."""
        self._consumer = self._make_consumer(group_id=self._names.group(self.group), auto_offset_reset="earliest")
        try:
            await to_its_end(self._consumer.start())
            self.hear(topics)
            self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._commit_often())]
            while not self._is_over:
                while self._ahead and len(self._held) < self._in_flight and not self._is_over:
                    delivery = self._ahead.popleft()
                    if not delivery.window.is_lost:
                        self._held.add(delivery)
                        yield delivery
                self._room.set()
                await self._wake.wait()
                self._wake.clear()
        finally:
            await to_its_end(self.close())

    def hear(self, topics: Collection[str]) -> None:
        """Hear these topics of the group's; others join in when there are more of them."""
        wanted = {self._names.topic(topic) for topic in topics} | {self._names.again(self.group)}
        if self._consumer is not None and not wanted <= self._topics:
            self._topics |= wanted
            self._consumer.subscribe(sorted(self._topics), listener=_Listener(self))

    def forget(self, delivery: KafkaDelivery) -> bool:
        """Take a delivery out of its user's hands; whether it was there."""
        known = delivery in self._held
        self._held.discard(delivery)
        self._wake.set()
        return known

    def end(self, delivery: KafkaDelivery) -> None:
        """Let the partition's offset go past it, once all before it are ended."""
        if delivery.window.end(delivery.offset):
            self._dirty.set()

    def later(self, delivery: KafkaDelivery, seconds: float) -> None:
        """Give a delivery again after a while, if the partition is still ours."""
        asyncio.get_running_loop().call_later(seconds, self._again, delivery)

    def _again(self, delivery: KafkaDelivery) -> None:
        if not delivery.window.is_lost and not self._is_over:
            self._ahead.append(delivery)
            self._wake.set()

    async def lose(self, partitions: Collection[TopicPartition]) -> None:
        """Commit what is ended, and drop the rest of these partitions: somebody else is given it."""
        await self._commit()
        for partition in partitions:
            window = self._windows.pop(partition, None)
            if window is not None:
                window.is_lost = True

    async def close(self) -> None:
        """Commit what is ended, and leave the group."""
        if self._is_over:
            return
        self._is_over = True
        for event in (self._wake, self._room, self._dirty):
            event.set()
        await ended(self._tasks)
        await self.lose(tuple(self._windows))
        try:
            await self._consumer.stop()
        except KafkaError as error:
            _log.debug("A consumer of %s left in disorder: %s", self.group, type(error).__name__)

    async def _read(self) -> None:
        """Take records while there is room for them."""
        while not self._is_over:
            room = self._in_flight - len(self._held) - len(self._ahead)
            partitions = [one for one in self._consumer.assignment() if len(self._windows.get(one, ())) < WINDOW_MAX]
            if room <= 0 or not partitions:
                self._room.clear()
                await _within(self._room, _POLL_SECONDS)
                continue
            try:
                found = await self._consumer.getmany(
                    *partitions, timeout_ms=int(_POLL_SECONDS * 1000), max_records=room
                )
            except (KafkaError, IllegalStateError) as error:
                _log.debug("Reading for %s: %s", self.group, type(error).__name__)
                await asyncio.sleep(_TROUBLE_SECONDS)
                continue
            for partition, records in found.items():
                self._take(partition, records)

    def _take(self, partition: TopicPartition, records: list[Any]) -> None:
        window = self._windows.setdefault(partition, Window())
        for record in records:
            topic = record.topic.removeprefix(self._names.prefix)
            message = message_from(
                topic, record.key, record.value, record.headers, f"{topic}:{record.partition}:{record.offset}"
            )
            window.take(record.offset)
            self._ahead.append(KafkaDelivery(self, message, window, record.offset))
        self._wake.set()

    async def _commit_often(self) -> None:
        while not self._is_over:
            await self._dirty.wait()
            await asyncio.sleep(_COMMIT_SECONDS)  # one commit for whatever is ended meanwhile
            self._dirty.clear()
            if not await self._commit():
                self._dirty.set()
                await asyncio.sleep(_TROUBLE_SECONDS)

    async def _commit(self) -> bool:
        """Commit how far each partition is; whether there is no reason to try it again."""
        mine = self._consumer.assignment()
        offsets = {one: window.position for one, window in self._windows.items() if one in mine and window.position}
        if not offsets:
            return True
        try:
            async with asyncio.timeout(_COMMIT_ANSWER_SECONDS):
                await self._consumer.commit(offsets)
        except (KafkaError, IllegalStateError, TimeoutError) as error:
            _log.debug("A commit of %s: %s", self.group, type(error).__name__)
            return isinstance(error, IllegalStateError)
        return True


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Tells a member which partitions it loses."""

    def __init__(self, member: Member) -> None:
        self._member = member

    async def on_partitions_revoked(  # pyright: ignore[reportIncompatibleMethodOverride] - it may be either
        self, revoked: Collection[TopicPartition]
    ) -> None:
        """Some or all are somebody else's from now on, or ours again from the committed offset."""
        await self._member.lose(revoked)

    async def on_partitions_assigned(  # pyright: ignore[reportIncompatibleMethodOverride] - it may be either
        self, assigned: Collection[TopicPartition]
    ) -> None:
        """Begin at the committed offsets, which the client looks up."""


async def ended(tasks: Collection[asyncio.Task[None]]) -> None:
    """Wait for tasks that know that they are to end; cancel those that do not in time.

    A cancellation alone would not do: the client swallows some.
    """
    late: Collection[asyncio.Task[None]] = tasks
    for _ in range(3):
        if not late:
            return
        _, late = await asyncio.wait(late, timeout=2 * _POLL_SECONDS)
        for task in late:
            task.cancel()


async def _within(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
