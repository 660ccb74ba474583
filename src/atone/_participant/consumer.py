"""Deliveries of one group: taken from the broker, given to whoever handles them, and ended by what came of them.

Owns the loop, how many are handled at once, that those of one key are handled one after the other, and the pauses while
broker or database are away. Must not read a message. Run by `atone.serving` for each participant and by the saga view.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from atone.broker import Broker, Delivery
from atone.errors import AtoneError, BrokerClosed, BrokerError

log = logging.getLogger("atone.participant")

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Done:
    """It is settled."""


@dataclass(frozen=True, slots=True)
class Again:
    """It is to come again, not before so many seconds."""

    after_seconds: float


@dataclass(frozen=True, slots=True)
class Aside:
    """It can't be handled: it goes to the dead-letter place with this reason."""

    reason: str


Ending: TypeAlias = Done | Again | Aside
Handle: TypeAlias = Callable[[Delivery], Awaitable[Ending]]


class Consumer:
    """Take what a group is to hear for as long as it runs. What `handle` raises is trouble of the place, not of the
    message: it comes again after a pause.
    """

    def __init__(
        self, broker: Broker, group: str, topics: Collection[str], handle: Handle, *, in_flight: int = 32
    ) -> None:
        self._broker, self._group, self._topics, self._handle = broker, group, topics, handle
        self._in_flight = in_flight
        self._lanes: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._main: asyncio.Task[None] | None = None
        self._troubles = 0

    async def start(self) -> None:
        """Declare what the group hears, and begin.

        Raises:
            BrokerError: The broker does not take that now.
        """
        await self._broker.declare(self._group, self._topics)
        self._main = asyncio.create_task(self._run(), name=f"atone-consume-{self._group}")

    async def close(self, *, grace_seconds: float) -> None:
        """Take nothing more, let what is under way end for that long, and give back the rest."""
        if self._main is not None:
            self._main.cancel()
            await asyncio.gather(self._main, return_exceptions=True)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_seconds)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                async with aclosing(
                    cast("Any", self._broker.deliveries(self._group, in_flight=self._in_flight))
                ) as all_:
                    async for delivery in all_:
                        pause = _FIRST_PAUSE_SECONDS
                        self._take(delivery)
            except BrokerClosed:
                return
            except BrokerError as error:
                log.warning("%s hears nothing for now: %s", self._group, error)
            except Exception as error:
                log.exception("%s hears nothing for now: %s", self._group, type(error).__name__)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def _take(self, delivery: Delivery) -> None:
        key = delivery.message.key
        before = self._lanes.get(key) if key else None
        task = asyncio.create_task(self._end(delivery, before))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if key:
            self._lanes[key] = task
            task.add_done_callback(lambda done: self._leave(key, done))

    def _leave(self, key: str, done: asyncio.Task[None]) -> None:
        if self._lanes.get(key) is done:
            del self._lanes[key]

    async def _end(self, delivery: Delivery, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait({before})
        ending = await self._handled(delivery)
        try:
            match ending:
                case Done():
                    await delivery.ack()
                case Again(after_seconds):
                    await delivery.retry(after_seconds=after_seconds)
                case Aside(reason):
                    await delivery.park(reason)
        except BrokerError as error:  # it comes again, and the inbox knows it
            log.warning("%s could not end a delivery: %s", self._group, error)

    async def _handled(self, delivery: Delivery) -> Ending:
        try:
            ending = await self._handle(delivery)
        except Exception as error:  # noqa: BLE001 - the place is in trouble, and the message can wait
            self._troubles += 1
            # A driver's message may quote a row, so a foreign exception is named by its type.
            told = str(error) if isinstance(error, AtoneError) else f"{type(error).__module__}.{type(error).__name__}"
            log.warning("%s can't take in %s now: %s", self._group, delivery.message.topic, told)
            return Again(min(_FIRST_PAUSE_SECONDS * 2.0 ** min(self._troubles, 16), _LONGEST_PAUSE_SECONDS))
        self._troubles = 0
        return ending
