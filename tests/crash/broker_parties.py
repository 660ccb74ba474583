"""The two sides of a broker under torment: a publisher with an outbox, and consumers with an inbox, on one PostgreSQL.

Owns what each does with a message, and the rules that may be broken on purpose to see the verdict turn red. Must not
kill or judge. Runs as tasks, or as a process of its own: `python -m tests.crash.broker_parties JSON`, until its input
ends.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import asyncpg
import msgspec

from atone._messaging.relay import Relay
from atone._participant.database import Database
from atone.broker import Broker, Delivery, Message
from atone.brokers import open_broker
from atone.errors import BrokerError, BrokerUnavailable
from atone.inbox import Inbox
from atone.outbox import Relaying, ServiceOutbox
from atone.testing.chaotic_broker import ChaoticBroker

GROUP = "stock"
TOPIC = "order.placed"
TABLES = """
CREATE TABLE orders (number bigint PRIMARY KEY);
CREATE TABLE effects (message text NOT NULL);
CREATE TABLE tallies (what text NOT NULL, number bigint NOT NULL);
"""
_ADD_ALL = """
INSERT INTO atone_outbox (id, topic, key, body, headers, at)
SELECT 'order-' || n, $2, 'customer-' || n % $3, convert_to('{"order": ' || n || '}', 'UTF8'),
       '{"atone-kind": "event"}', extract(epoch FROM clock_timestamp())
  FROM unnest($1::bigint[]) AS n ON CONFLICT (id) DO NOTHING"""
_TAKE_ALL = """
INSERT INTO atone_inbox (consumer, message, is_done, at)
SELECT $1, one, 1, extract(epoch FROM clock_timestamp()) FROM unnest($2::text[]) AS one
    ON CONFLICT (consumer, message) DO NOTHING RETURNING message"""

_KEYS = 2000
_BLOCK = 500
_TOGETHER = 60
_WINDOW = 50
_IDLE_SECONDS = 0.02
_GAP_SECONDS = 0.1
_RECONNECT_SECONDS = 0.1


@dataclass(frozen=True)
class Part:
    """One life of a publisher or a consumer. `early` and `no_inbox` break the rules.

    `bulk` writes to the tables of outbox and inbox a batch at a time, with what their own statements come to. `chaotic`
    puts a `ChaoticBroker` between, besides what a consumer does to its deliveries anyway.
    """

    role: str
    dsn: str
    url: str
    messages: int
    seed: int
    early: bool = False
    no_inbox: bool = False
    bulk: bool = False
    chaotic: bool = False


@asynccontextmanager
async def _broker(part: Part) -> AsyncGenerator[Broker, None]:
    """Open the broker, also one that is down just now."""
    while True:
        broker = open_broker(part.url)
        if part.chaotic:
            broker = ChaoticBroker(broker, part.seed)
        try:
            await broker.__aenter__()
        except BrokerUnavailable:
            await asyncio.sleep(_RECONNECT_SECONDS)
            continue
        break
    try:
        yield broker
    finally:
        await broker.__aexit__(None, None, None)


async def play(part: Part) -> None:
    """Be a publisher or a consumer until cancelled."""
    async with asyncpg.create_pool(part.dsn, min_size=1, max_size=3) as pool, _broker(part) as broker:
        await (_publish(part, pool, broker) if part.role == "publisher" else _Consumer(part, pool, broker).run())


async def _publish(part: Part, pool: Any, broker: Broker) -> None:
    """Write orders and their messages, each block in one transaction, while a relay sends what waits."""
    outbox = ServiceOutbox()
    relay = Relay(Relaying(outbox, Database(pool)), broker, batch=500, lease_seconds=3.0, poll_seconds=0.02)
    relay.start()
    try:
        async with pool.acquire() as connection:
            begin = await connection.fetchval("SELECT count(*) FROM orders")
            for first in range(begin, part.messages, _BLOCK):
                numbers = range(first, min(first + _BLOCK, part.messages))
                async with connection.transaction():
                    await connection.executemany("INSERT INTO orders VALUES ($1)", [(one,) for one in numbers])
                    if part.bulk:
                        await connection.execute(_ADD_ALL, numbers, TOPIC, _KEYS)
                    else:
                        await outbox.add(connection, [_message(number) for number in numbers])
                relay.nudge()
        await asyncio.Event().wait()
    finally:
        await relay.close(grace_seconds=2.0)


def _message(number: int) -> Message:
    return Message(
        f"order-{number}", TOPIC, f"customer-{number % _KEYS}", b'{"order": %d}' % number, {"atone-kind": "event"}
    )


class _Copy:
    """One of several times that a delivery is handled."""

    def __init__(self, delivery: Delivery, left: list[int]) -> None:
        self.delivery = delivery
        self._left = left

    def is_last(self) -> bool:
        """Count it as handled; whether no other copy of the delivery waits."""
        self._left[0] -= 1
        return self._left[0] == 0


class _Consumer:
    """Handles each delivery three times, in another order, and gives every tenth back though it was handled."""

    def __init__(self, part: Part, pool: Any, broker: Broker) -> None:
        self._part, self._pool, self._broker = part, pool, broker
        self._inbox = Inbox()
        self._together = _BLOCK if part.bulk else _TOGETHER
        self._chance = random.Random(part.seed)
        self._waiting: list[_Copy] = []

    async def run(self) -> None:
        """Handle what comes, in batches."""
        deliveries = cast("AsyncGenerator[Delivery]", self._broker.deliveries(GROUP, in_flight=400))
        async with aclosing(deliveries):
            arrived: asyncio.Queue[Delivery] = asyncio.Queue()
            reading = asyncio.create_task(_read(deliveries, arrived))
            try:
                while not reading.done():
                    await self._gather(arrived)
                    await self._handle([self._waiting.pop(0) for _ in range(min(self._together, len(self._waiting)))])
                reading.result()
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    async def _gather(self, arrived: asyncio.Queue[Delivery]) -> None:
        if not self._waiting:
            try:
                self._put(await asyncio.wait_for(arrived.get(), 0.5))
            except TimeoutError:
                return
            await asyncio.sleep(_IDLE_SECONDS)
        while not arrived.empty() and len(self._waiting) < 4 * self._together:
            self._put(arrived.get_nowait())

    def _put(self, delivery: Delivery) -> None:
        left = [3]
        for _ in range(3):
            place = self._chance.randint(max(0, len(self._waiting) - _WINDOW), len(self._waiting))
            self._waiting.insert(place, _Copy(delivery, left))

    async def _handle(self, copies: list[_Copy]) -> None:
        if not copies:
            return
        last = [copy.delivery for copy in copies if copy.is_last()]
        if self._part.early:
            await self._end(last)
            await asyncio.sleep(_GAP_SECONDS)  # the gap is there anyway; so it is wide enough to be hit
        try:
            await self._commit(sorted(copy.delivery.message.id for copy in copies))
        except (asyncpg.PostgresError, OSError):
            for copy in copies:
                await copy.delivery.retry()
            return
        if not self._part.early:
            await self._end(last)

    async def _commit(self, ids: list[str]) -> None:
        async with self._pool.acquire() as connection, connection.transaction():
            new = await self._new(connection, ids)
            await connection.execute("INSERT INTO effects SELECT unnest($1::text[])", new)
            if len(new) < len(ids):
                await connection.execute("INSERT INTO tallies VALUES ('duplicates', $1)", len(ids) - len(new))

    async def _new(self, connection: Any, ids: list[str]) -> list[str]:
        if self._part.no_inbox:
            return ids
        if self._part.bulk:
            return [row["message"] for row in await connection.fetch(_TAKE_ALL, GROUP, ids)]
        return [one for one in ids if await self._inbox.take(connection, GROUP, one)]

    async def _end(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            try:
                if self._chance.random() < 0.1:
                    await delivery.retry()
                else:
                    await delivery.ack()
            except BrokerError:
                continue  # it comes again


async def _read(deliveries: AsyncIterator[Delivery], arrived: asyncio.Queue[Delivery]) -> None:
    async for delivery in deliveries:
        arrived.put_nowait(delivery)


async def _main(part: Part) -> None:
    playing = asyncio.create_task(play(part))
    reading = asyncio.create_task(asyncio.to_thread(sys.stdin.buffer.read))
    await asyncio.wait({playing, reading}, return_when=asyncio.FIRST_COMPLETED)
    playing.cancel()
    try:
        await playing
    except asyncio.CancelledError:
        return


if __name__ == "__main__":
    asyncio.run(_main(msgspec.json.decode(sys.argv[1], type=Part)))
