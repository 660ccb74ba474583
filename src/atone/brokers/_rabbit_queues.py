"""The RabbitMQ adapter's queues: made when they are not there, and not used before the server has written them down.

Owns the declarations. A node that is killed within about a second after it made a quorum queue may come back with that
queue unable to work, and what was confirmed for it gone (seen with one node of 3.10); so a new queue is given time
first. Must not publish or consume. Called by `RabbitBroker` and its publishing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping
from typing import Any

from aio_pika import ExchangeType
from aio_pika.abc import AbstractQueue
from aio_pika.exceptions import ChannelNotFoundEntity

from atone.brokers import _rabbit_wire as wire
from atone.brokers._rabbit_connection import Connection

_KNOWN_SECONDS = 60.0  # how long a queue for waiting is taken to be there


class Queues:
    """Declarations on one connection. `settle_seconds` is what a new queue is given."""

    def __init__(self, connection: Connection, names: wire.Names, settle_seconds: float) -> None:
        self._connection = connection
        self._names = names
        self._settle_seconds = settle_seconds
        self._turn = asyncio.Lock()
        self._known: dict[int, float] = {}

    async def group(self, group: str, topics: Collection[str]) -> None:
        """Have the queues of a group be there, and hear these topics."""
        names = (self._names.parked(group), self._names.queue(group))
        new = [name for name in names if not await self._is_there(name)]
        channel = await self._connection.channel()
        with self._connection.asking():
            exchange = await channel.declare_exchange(self._names.prefix, ExchangeType.TOPIC, durable=True)
            arguments = dict(wire.QUEUE)
            queues = [await channel.declare_queue(name, durable=True, arguments=arguments) for name in names]
            await asyncio.gather(*(queues[1].bind(exchange, topic) for topic in topics))
            await channel.close()
        if new:
            await asyncio.sleep(self._settle_seconds)

    async def later(self, delay_ms: int) -> str:
        """Have the queue for such a delay be there; return the name of its exchange."""
        name = self._names.later(delay_ms)
        async with self._turn:
            if self._known.get(delay_ms, 0.0) > time.monotonic():
                return name
            is_new = not await self._is_there(name)
            await self._declare_later(name, wire.later_queue(delay_ms))
            if is_new:
                await asyncio.sleep(self._settle_seconds)
            self._known[delay_ms] = time.monotonic() + _KNOWN_SECONDS
        return name

    def forget(self) -> None:
        """Look again what is there."""
        self._known.clear()

    async def _declare_later(self, name: str, arguments: Mapping[str, Any]) -> None:
        channel = await self._connection.channel()
        with self._connection.asking():
            exchange = await channel.declare_exchange(name, ExchangeType.FANOUT, durable=True, auto_delete=True)
            queue: AbstractQueue = await channel.declare_queue(name, durable=True, arguments=dict(arguments))
            await queue.bind(exchange)
            await channel.close()

    async def _is_there(self, name: str) -> bool:
        channel = await self._connection.channel()
        with self._connection.asking():
            try:
                await channel.get_queue(name, ensure=True)
            except ChannelNotFoundEntity:
                return False  # the server has closed the channel
            await channel.close()
        return True
