"""One member of a group on RabbitMQ: a consumer on a channel of its own, and the deliveries that came over it.

Owns the channel, which is opened again when it is lost; what was delivered over the former one is the server's to give
again. Must not acknowledge by itself. Called by `RabbitBroker.deliveries`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Self

from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, AbstractQueue
from aio_pika.exceptions import ChannelNotFoundEntity

from atone.broker import Message
from atone.brokers import _rabbit_wire as wire
from atone.brokers._rabbit_connection import ASK_SECONDS, Connection, uncancelled
from atone.brokers._rabbit_publishing import Publishing
from atone.errors import BrokerError, BrokerUnavailable

_log = logging.getLogger("atone.brokers.rabbitmq")

_LOOK_SECONDS = 5.0
_PAUSE_SECONDS_MAX = 2.0
_SILENT_SECONDS_MAX = 60.0


class RabbitDelivery:
    """A message in the hands of one member, for as long as the channel is open over which it came."""

    def __init__(self, member: Member, channel: AbstractChannel, amqp: AbstractIncomingMessage) -> None:
        self._member = member
        self.channel = channel
        self.amqp = amqp
        self.since = time.monotonic()
        self._message = wire.message_of(amqp)
        self._attempt = wire.attempts_of(amqp) + 1

    @property
    def message(self) -> Message:
        """The message as it was published."""
        return self._message

    @property
    def attempt(self) -> int:
        """How often the group has been given it."""
        return self._attempt

    async def ack(self) -> None:
        """Settle it."""
        await self._member.ack(self)

    async def retry(self, *, after_seconds: float = 0.0) -> None:
        """Give it back, not to come before then."""
        await self._member.retry(self, after_seconds)

    async def park(self, reason: str) -> None:
        """Put it into the group's dead-letter queue."""
        await self._member.park(self, reason)


class Member:
    """An iterator of deliveries. It works from the first `anext` until `aclose`, and ends with the broker."""

    def __init__(
        self, connection: Connection, publishing: Publishing, names: wire.Names, group: str, *,
        in_flight: int, hold_seconds: float, left: Callable[[Member], None],
    ) -> None:  # fmt: skip
        self._connection = connection
        self._publishing = publishing
        self._names = names
        self._group = group
        self._in_flight = in_flight
        self._hold_seconds = hold_seconds
        self._left = left
        self._ahead: deque[RabbitDelivery] = deque()
        self._held: set[RabbitDelivery] = set()
        self._changed = asyncio.Event()
        self._channel: AbstractChannel | None = None
        self._queue: AbstractQueue | None = None
        self._tag = ""
        self._task: asyncio.Task[None] | None = None
        self._waiting = 0
        self._came_at = 0.0  # when the last delivery came, or the consumer was made
        self._is_paused = False
        self._ended = False

    # The iterator

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> RabbitDelivery:
        if self._task is None and not self._ended:
            self._connection.check()
            await uncancelled(self._consume())
            self._task = asyncio.create_task(self._work())
        if self._is_paused:
            await uncancelled(self._take_again())
        self._waiting += 1
        try:
            return await self._next()
        finally:
            self._waiting -= 1

    async def _next(self) -> RabbitDelivery:
        while not self._ahead:
            if self._ended:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        one = self._ahead.popleft()
        one.since = time.monotonic()
        self._held.add(one)
        return one

    async def aclose(self) -> None:
        """Take nothing more, and give back what was taken ahead; what has been yielded can still be ended."""
        if self._ended:
            return
        self._ended = True
        self._changed.set()
        await uncancelled(self._stop())

    async def leave(self) -> None:
        """Give back everything, for the broker is closing."""
        self._ended = True
        self._changed.set()
        self._held.clear()
        await uncancelled(self._stop())

    async def _stop(self) -> None:
        if self._queue is not None and self._channel is not None and not self._channel.is_closed:
            try:
                with self._connection.asking():
                    if not self._is_paused:
                        await self._queue.cancel(self._tag)  # nothing comes any more once this is answered
                    for one in tuple(self._ahead):
                        await one.amqp.nack(requeue=True)
            except BrokerUnavailable:
                _log.debug("the channel is gone, and the server gives back what came over it", exc_info=True)
        self._ahead.clear()
        await self._end_if_empty()

    async def _end_if_empty(self) -> None:
        if not self._ended or self._held:
            return
        self._left(self)
        if self._task is not None:
            self._task.cancel()
        channel, self._channel = self._channel, None
        if channel is not None and not channel.is_closed:
            try:
                with self._connection.asking():
                    await channel.close()
            except BrokerUnavailable:
                return

    # What becomes of a delivery

    async def ack(self, one: RabbitDelivery) -> None:
        """Settle it."""
        await uncancelled(self._end(one, None))

    async def retry(self, one: RabbitDelivery, after_seconds: float) -> None:
        """Put a copy to where it waits, then settle the original: who dies in between leaves both."""
        amqp = wire.amqp_of(one.message, attempts=one.attempt)
        queue = self._names.queue(self._group)
        if after_seconds > 0:
            await uncancelled(self._end(one, self._publishing.to_queue_later(queue, amqp, after_seconds)))
        else:
            await uncancelled(self._end(one, self._publishing.to_queue(queue, amqp)))

    async def park(self, one: RabbitDelivery, reason: str) -> None:
        """Put a copy into the dead-letter queue, then settle the original."""
        amqp = wire.amqp_of(one.message, attempts=one.attempt, reason=reason, at=time.time())
        await uncancelled(self._end(one, self._publishing.to_queue(self._names.parked(self._group), amqp)))

    async def _end(self, one: RabbitDelivery, first: Coroutine[Any, Any, None] | None) -> None:
        try:
            self._connection.check()
            if one not in self._held or one.channel.is_closed:
                raise BrokerUnavailable("The connection that it came over is gone, so it comes again. End it then.")
            if first is not None:
                await first
                first = None
            with self._connection.asking():
                await one.amqp.ack()
        finally:
            if first is not None:
                first.close()
            self._held.discard(one)
            await self._end_if_empty()

    # Receiving

    async def _consume(self) -> None:
        channel = await self._connection.channel()
        try:
            with self._connection.asking():
                await channel.set_qos(prefetch_count=self._in_flight)
                try:
                    queue = await channel.get_queue(self._names.queue(self._group), ensure=True)
                except ChannelNotFoundEntity:
                    raise BrokerError(
                        f'The group "{self._group}" has declared nothing. Call `declare` first.'
                    ) from None
                self._channel, self._queue, self._is_paused = channel, queue, False
                self._came_at = time.monotonic()
                self._tag = await queue.consume(partial(self._take, channel))
        except BrokerError:
            if not channel.is_closed:
                with self._connection.asking():
                    await channel.close()
            raise

    async def _take(self, channel: AbstractChannel, amqp: AbstractIncomingMessage) -> None:
        self._came_at = time.monotonic()
        self._ahead.append(RabbitDelivery(self, channel, amqp))
        self._changed.set()

    async def _take_again(self) -> None:
        """Go on after a pause; if the channel is gone, whoever watches over it opens another one."""
        try:
            if self._queue is not None and self._channel is not None and not self._channel.is_closed:
                with self._connection.asking():
                    self._tag = await self._queue.consume(partial(self._take, self._channel))
        except BrokerUnavailable:
            _log.debug("the channel is gone, or will be at the next look", exc_info=True)
        finally:
            self._is_paused = False

    async def _work(self) -> None:
        """Watch over the channel, and open another one when it is gone, for as long as it takes."""
        pause = 0.05
        while True:
            try:
                await self._watch()
                if self._ended:
                    return
                await uncancelled(self._consume())
                pause = 0.05
            except BrokerError as error:
                if pause == 0.05:
                    _log.warning("%s Trying again until it is.", error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _PAUSE_SECONDS_MAX)

    async def _watch(self) -> None:
        """Return when the channel is gone; until then give back what has been held for too long."""
        channel = self._channel
        if channel is not None:
            gone = asyncio.ensure_future(channel.closed())
            while not channel.is_closed:
                await asyncio.wait({gone}, timeout=self._look_seconds)
                if not channel.is_closed:
                    await uncancelled(self._look(channel))
            gone.cancel()  # it is a shield: the channel's own future stays as it is
        self._ahead.clear()
        self._held.clear()

    @property
    def _look_seconds(self) -> float:
        return min(_LOOK_SECONDS, self._hold_seconds / 4)

    @property
    def _silent_seconds(self) -> float:
        return min(_SILENT_SECONDS_MAX, self._hold_seconds * 4)

    async def _look(self, channel: AbstractChannel) -> None:
        with self._connection.asking():
            if self._ended or self._is_paused:
                is_deaf = False
            else:
                underlay: Any = await channel.get_underlay_channel()
                is_deaf = self._tag not in underlay.consumers or await self._stays_silent()
            if is_deaf:  # the server has ended the consumer: its queue moved, or is gone
                await channel.close()
                return
            old = [one for one in self._held if time.monotonic() - one.since > self._hold_seconds]
            if old and not self._waiting and not self._ended and self._queue is not None:
                self._is_paused = True  # its user hangs, and would be given the same ones again
                await self._queue.cancel(self._tag)
                old += self._ahead
                self._ahead.clear()
            for one in old:
                self._held.discard(one)
                await one.amqp.nack(requeue=True)

    async def _stays_silent(self) -> bool:
        """Tell whether nothing has come for so long that the server may have forgotten the consumer; then end that.

        The server says nothing, counts the consumer and delivers to nobody, when a quorum queue is deleted and declared
        again within some 50 ms (seen with 3.10); what it has so is given again when the channel is closed.
        """
        if self._held or self._ahead or self._queue is None or time.monotonic() - self._came_at < self._silent_seconds:
            return False
        await self._queue.cancel(self._tag, timeout=ASK_SECONDS)  # so that nothing is under way when it is closed
        if self._ended:
            return False
        if self._ahead or self._held:
            await self._take_again()
            return False
        return True
