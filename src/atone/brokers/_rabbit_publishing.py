"""How the RabbitMQ adapter publishes: in order, confirmed, to topics, to one queue, or to a place where it waits.

Owns the one channel for it and the exchanges, which are declared when it is opened. Must not end deliveries. Called by
`RabbitBroker` and its members.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from aio_pika import ExchangeType
from aio_pika.abc import AbstractChannel, AbstractExchange
from aio_pika.abc import AbstractMessage as AmqpMessage
from aiormq.abc import DeliveredMessage

from atone.brokers import _rabbit_wire as wire
from atone.brokers._rabbit_connection import ASK_SECONDS, Connection, uncancelled
from atone.brokers._rabbit_queues import Queues
from atone.errors import BrokerUnavailable

_TOGETHER_MAX = 500
_TOGETHER_BYTES_MAX = 8 * 1024 * 1024


class Publishing:
    """One channel with confirmations; who publishes waits for those before."""

    def __init__(self, connection: Connection, names: wire.Names, queues: Queues) -> None:
        self._connection = connection
        self._names = names
        self._queues = queues
        self._turn = asyncio.Lock()
        self._opened: tuple[AbstractChannel, AbstractExchange] | None = None  # with the exchange of the topics

    async def to_topics(self, messages: Sequence[tuple[str, AmqpMessage]]) -> list[bool]:
        """Publish in this order; whether each has come to a queue."""
        self._connection.check()
        return await uncancelled(self._to_topics(messages))

    async def to_queue(self, queue: str, message: AmqpMessage) -> None:
        """Publish to one queue, which has to be there."""
        await uncancelled(self._one(queue, message, None))

    async def to_queue_later(self, queue: str, message: AmqpMessage, after_seconds: float) -> None:
        """Publish to where it waits, to come to a queue when its time is over."""
        await uncancelled(self._one(queue, message, wire.delay_ms_of(after_seconds)))

    async def _to_topics(self, messages: Sequence[tuple[str, AmqpMessage]]) -> list[bool]:
        found: list[bool] = []
        async with self._turn:  # two at once would mix their order
            with self._connection.asking():
                topics = (await self._open())[1]
                for lot in _lots(messages):
                    publishing = [asyncio.create_task(self._published(topics, *one)) for one in lot]
                    answers = await asyncio.gather(*publishing, return_exceptions=True)
                    for answer in answers:
                        if isinstance(answer, BaseException):
                            raise answer
                        found.append(answer)
        return found

    async def _one(self, queue: str, message: AmqpMessage, delay_ms: int | None) -> None:
        later = "" if delay_ms is None else await self._queues.later(delay_ms)
        async with self._turn:
            with self._connection.asking():
                channel, _ = await self._open()
                exchange = await channel.get_exchange(later, ensure=False) if later else channel.default_exchange
                arrived = await self._published(exchange, queue, message)
        if not arrived:
            self._queues.forget()
            raise BrokerUnavailable(f"The queue {later or queue} is not there. Declare the group again, and try again.")

    async def _published(self, exchange: AbstractExchange, key: str, message: AmqpMessage) -> bool:
        answer = await exchange.publish(message, routing_key=key, mandatory=True, timeout=ASK_SECONDS)
        return not isinstance(answer, DeliveredMessage)  # it was returned: no queue is bound to it

    async def _open(self) -> tuple[AbstractChannel, AbstractExchange]:
        if self._opened is None or self._opened[0].is_closed:
            self._queues.forget()
            channel = await self._connection.channel(confirms=True)
            topics = await channel.declare_exchange(self._names.prefix, ExchangeType.TOPIC, durable=True)
            self._opened = (channel, topics)
        return self._opened


def _lots(messages: Sequence[tuple[str, AmqpMessage]]) -> Iterator[list[tuple[str, AmqpMessage]]]:
    """Divide what is on its way at once: boundedly many, and one id only once, by which the server returns them."""
    lot: list[tuple[str, AmqpMessage]] = []
    ids: set[str | None] = set()
    size = 0
    for key, message in messages:
        full = len(lot) == _TOGETHER_MAX or size + len(message.body) > _TOGETHER_BYTES_MAX
        if lot and (full or message.message_id in ids):
            yield lot
            lot, ids, size = [], set[str | None](), 0
        lot.append((key, message))
        ids.add(message.message_id)
        size += len(message.body)
    if lot:
        yield lot
