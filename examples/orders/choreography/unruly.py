"""A broker that behaves as badly as brokers may: it gives messages twice, and some of them late, after newer ones.

Owns the mischief. Loses nothing and invents nothing: what it does, a real broker does after a lost acknowledgement or a
reconnect. Stands before any real one. Used by `process`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from random import Random
from types import TracebackType
from typing import Any, Self, cast

import msgspec

from atone.broker import Broker, Delivery, Message, Parked, Published

_REPORT_EVERY_SECONDS = 0.2
_LATE_SECONDS = (0.05, 0.6)


@dataclass(frozen=True, slots=True)
class Mischief:
    """Shares of deliveries, from 0 to 1."""

    twice: float = 0.15
    late: float = 0.15


class Unruly:
    """Wrap a broker that is open, or is opened with this one."""

    def __init__(self, broker: Broker, mischief: Mischief, seed: int) -> None:
        self._broker, self._mischief, self._random = broker, mischief, Random(seed)
        self.met = {"given twice": 0, "given late": 0}

    @property
    def message_bytes_max(self) -> int:
        return self._broker.message_bytes_max

    async def __aenter__(self) -> Self:
        await self._broker.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._broker.__aexit__(kind, error, trace)

    async def publish(self, messages: Sequence[Message]) -> Sequence[Published]:
        return await self._broker.publish(messages)

    async def declare(self, group: str, topics: Collection[str]) -> None:
        await self._broker.declare(group, topics)

    async def deliveries(self, group: str, *, in_flight: int = 100) -> AsyncIterator[Delivery]:
        """Yield what comes, but not always at once, and some of it again after it was settled."""
        async with aclosing(cast("Any", self._broker.deliveries(group, in_flight=in_flight))) as coming:
            async for delivery in coming:
                if self._random.random() < self._mischief.late:
                    self.met["given late"] += 1
                    await delivery.retry(after_seconds=self._random.uniform(*_LATE_SECONDS))
                else:
                    yield _Given(delivery, self)

    async def parked(self, group: str, *, limit: int = 100) -> Sequence[Parked]:
        return await self._broker.parked(group, limit=limit)

    async def unpark(self, group: str, message_id: str) -> bool:
        return await self._broker.unpark(group, message_id)

    def loses_acknowledgement(self) -> bool:
        """Whether this one is lost, so that the message comes again."""
        lost = self._random.random() < self._mischief.twice
        self.met["given twice"] += lost
        return lost


async def print_for_ever(broker: Unruly) -> None:
    """Say on standard output, as a line of JSON every now and then, what was done so far."""
    while True:
        print(msgspec.json.encode(broker.met).decode(), flush=True)
        await asyncio.sleep(_REPORT_EVERY_SECONDS)


class _Given:
    """A delivery whose acknowledgement may be lost."""

    def __init__(self, delivery: Delivery, broker: Unruly) -> None:
        self._delivery, self._broker = delivery, broker

    @property
    def message(self) -> Message:
        return self._delivery.message

    @property
    def attempt(self) -> int:
        return self._delivery.attempt

    async def ack(self) -> None:
        if self._broker.loses_acknowledgement():
            await self._delivery.retry()
        else:
            await self._delivery.ack()

    async def retry(self, *, after_seconds: float = 0.0) -> None:
        await self._delivery.retry(after_seconds=after_seconds)

    async def park(self, reason: str) -> None:
        await self._delivery.park(reason)
