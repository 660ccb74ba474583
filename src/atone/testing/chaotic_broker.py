"""A broker that does everything a broker may do, far more often than one does: duplicates, disorder, losses that come
again, acknowledgements that get lost, and publishing that fails before or after it has landed. In a simulation, each
publish and acknowledgement is a crash point before and after.

Wraps any other broker; the chance has a seed. Must not lose a message for good, nor break what the port promises.
Called by tests that show that nothing is lost and nothing done twice.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self, cast

from atone.broker import Broker, Delivery, Message, Parked, Published
from atone.errors import BrokerError, BrokerUnavailable
from atone.testing.simulate import point

__all__ = ["Chaos", "ChaoticBroker"]


@dataclass(frozen=True)
class Chaos:
    """How much of what: shares are from 0 to 1. `copies_max` messages come of one; of `window` any may be next.

    `lost` deliveries come again a little later, and `acks_lost` too. `unsent` calls to publish fail before they land
    and `unheard` ones afterwards, both with BrokerUnavailable. `delay_seconds` is the longest that one is held up.
    """

    copies_max: int = 3
    window: int = 50
    lost: float = 0.1
    acks_lost: float = 0.05
    unsent: float = 0.05
    unheard: float = 0.05
    delay_seconds: float = 0.002


class ChaoticBroker:
    """Pass everything on to `inner`, badly."""

    def __init__(self, inner: Broker, seed: int, chaos: Chaos | None = None) -> None:
        self._inner = inner
        self._chaos = Chaos() if chaos is None else chaos
        self._chance = random.Random(seed)

    @property
    def message_bytes_max(self) -> int:
        """See `Broker`."""
        return self._inner.message_bytes_max

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._inner.__aexit__(kind, error, trace)

    async def publish(self, messages: Sequence[Message]) -> Sequence[Published]:
        """See `Broker`."""
        if messages and self._happens(self._chaos.unsent):
            raise BrokerUnavailable("Chaos: this was not published. Publish it again.")
        point("broker.publish is called")
        copied = [message for message in messages for _ in range(self._copies())]
        results = await self._inner.publish(copied)
        point("broker.publish has answered")
        if messages and self._happens(self._chaos.unheard):
            raise BrokerUnavailable("Chaos: this was published, and nobody heard of it. Publish it again.")
        became = {id(message): result for message, result in zip(copied, results, strict=True)}
        return [became[id(message)] for message in messages]

    async def declare(self, group: str, topics: Collection[str]) -> None:
        """See `Broker`."""
        await self._inner.declare(group, topics)

    async def deliveries(self, group: str, *, in_flight: int = 100) -> AsyncIterator[Delivery]:
        """See `Broker`."""
        inner = cast("AsyncGenerator[Delivery]", self._inner.deliveries(group, in_flight=in_flight))
        pool = _Pool(inner, self._chaos.window)
        try:
            while (delivery := await pool.draw(self._chance, self._chaos.delay_seconds)) is not None:
                if self._happens(self._chaos.lost):
                    await _again(delivery, self._delay())
                    continue
                yield _ChaoticDelivery(self, delivery)
        finally:
            await pool.close()

    async def parked(self, group: str, *, limit: int = 100) -> Sequence[Parked]:
        """See `Broker`."""
        return await self._inner.parked(group, limit=limit)

    async def unpark(self, group: str, message_id: str) -> bool:
        """See `Broker`."""
        return await self._inner.unpark(group, message_id)

    async def acknowledge(self, delivery: Delivery) -> None:
        """Acknowledge, or have it look so."""
        point("broker.ack is called")
        if self._happens(self._chaos.acks_lost):
            await delivery.retry(after_seconds=self._delay())
        else:
            await delivery.ack()
        point("broker.ack has answered")

    def _happens(self, share: float) -> bool:
        return self._chance.random() < share

    def _copies(self) -> int:
        return self._chance.randint(1, self._chaos.copies_max)

    def _delay(self) -> float:
        return self._chance.uniform(0, self._chaos.delay_seconds)


class _Pool:
    """Deliveries that have come and were not handed out: any of them may be next."""

    def __init__(self, inner: AsyncGenerator[Delivery], window: int) -> None:
        self._inner, self._window = inner, window
        self._here: list[Delivery] = []
        self._coming: asyncio.Task[Delivery | None] | None = None
        self._is_over = False

    async def draw(self, chance: random.Random, delay_seconds: float) -> Delivery | None:
        """Return one of them, once there are enough or none comes for a moment; None when there is none any more."""
        while len(self._here) < self._window and not self._is_over:
            if self._coming is None:
                self._coming = asyncio.create_task(anext(self._inner, None))
            pause = chance.uniform(0, delay_seconds) if self._here else None
            done, _ = await asyncio.wait({self._coming}, timeout=pause)
            if not done:
                break
            come, self._coming = self._coming.result(), None
            if come is None:
                self._is_over = True
            else:
                self._here.append(come)
        return self._here.pop(chance.randrange(len(self._here))) if self._here else None

    async def close(self) -> None:
        """Give back what is here."""
        if self._coming is not None:
            self._coming.cancel()
            await asyncio.gather(self._coming, return_exceptions=True)
        for delivery in self._here:
            await _again(delivery, 0.0)
        await self._inner.aclose()


class _ChaoticDelivery:
    def __init__(self, broker: ChaoticBroker, inner: Delivery) -> None:
        self._broker, self._inner = broker, inner

    @property
    def message(self) -> Message:
        return self._inner.message

    @property
    def attempt(self) -> int:
        return self._inner.attempt

    async def ack(self) -> None:
        await self._broker.acknowledge(self._inner)

    async def retry(self, *, after_seconds: float = 0.0) -> None:
        await self._inner.retry(after_seconds=after_seconds)

    async def park(self, reason: str) -> None:
        await self._inner.park(reason)


async def _again(delivery: Delivery, after_seconds: float) -> None:
    try:
        await delivery.retry(after_seconds=after_seconds)
    except BrokerError:  # it comes again all the same: nobody has ended it
        pass
