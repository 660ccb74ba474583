"""One member of a group on Redis Streams: reads ahead, gives to its user, and ends what the user has done with.

Owns the iterator and its two tasks, which work on whatever becomes of the server meanwhile. Must not acknowledge by
itself. Called by `RedisBroker.deliveries`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Self

from atone.brokers import _redis_scripts as scripts
from atone.brokers._redis_calls import Calls, Line, stop
from atone.brokers._redis_entries import Places, RedisDelivery
from atone.brokers._redis_upkeep import Hands, Upkeep
from atone.errors import BrokerError, BrokerUnavailable

_log = logging.getLogger("atone.brokers.redis")

_BLOCK_MS = 1000
_PAUSE_SECONDS_MAX = 2.0


class Member:
    """An iterator of deliveries. It works from the first `anext` until `aclose`, and ends with the broker."""

    def __init__(
        self, calls: Calls, places: Places, *, in_flight: int, patience_seconds: float,
        hold_seconds: float, declare: Callable[[Sequence[str]], Awaitable[None]], left: Callable[[Member], None],
    ) -> None:  # fmt: skip
        self.places = places
        self._calls = calls
        self._declare = declare
        self._left = left
        self._hands = Hands(self, places, in_flight)
        self._upkeep = Upkeep(calls, places, self._hands, patience_seconds=patience_seconds, hold_seconds=hold_seconds)
        self._tasks: list[asyncio.Task[None]] = []
        self._line: Line | None = None
        self._reading = False
        self._answer_lost = False  # the server may have given me what I do not know of
        self._failed: BrokerError | None = None

    # The iterator

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> RedisDelivery:
        if not self._tasks and not self._hands.ended:
            await self._join()
        while not (self._hands.ahead and len(self._hands.held) < self._hands.in_flight):
            if self._failed is not None:
                raise self._failed
            if self._hands.ended:
                raise StopAsyncIteration
            self._hands.changed.clear()
            await self._hands.changed.wait()
        one = self._hands.ahead.popleft()
        self._hands.held[one.stream, one.entry] = one
        self._hands.changed.set()  # the reader may take more
        return one

    async def aclose(self) -> None:
        """Take nothing more, and give back what was taken ahead; what has been yielded can still be ended."""
        if self._hands.ended:
            return
        self._hands.ended = True
        self._hands.changed.set()
        await self._stop_reading()  # the other task keeps fresh what has been yielded
        self._hands.ahead.clear()
        if self._tasks and self._calls.is_open:
            await self._upkeep.give_back(gone=not self._hands.held)
        self._end_if_empty()

    async def leave(self) -> None:
        """Give back everything, for the broker is closing."""
        self._hands.ended = True
        self._hands.changed.set()
        await self._stop_reading()
        await stop(self._tasks)
        self._hands.ahead.clear()
        if not self._tasks:
            return
        try:
            for one in tuple(self._hands.held.values()):
                await self.retry(one, 0.0)
            await self._upkeep.give_back(gone=True)
        except BrokerError:
            # They are found when the broker's patience with this member is over.
            _log.debug("could not give back what %s held", self._hands.consumer, exc_info=True)

    async def _stop_reading(self) -> None:
        """End the reader. It is not cut off while the server may give it something: that would be nobody's for long."""
        reader = self._tasks[:1]
        if self._line is None:
            return
        for _ in range(100):
            if not self._reading:
                break
            try:
                await self._line.wake()
            except BrokerError:
                break
            await asyncio.wait(reader, timeout=0.02)
        await stop(reader)
        await self._line.close()

    # What becomes of a delivery

    async def ack(self, one: RedisDelivery) -> None:
        """Settle it; the group's own streams keep nothing that is settled."""
        try:
            if one.stream == self.places.again:
                await asyncio.gather(
                    self._calls.one("XACK", one.stream, self.places.group, one.entry),
                    self._calls.one("XDEL", one.stream, one.entry),
                )
            else:
                await self._calls.one("XACK", one.stream, self.places.group, one.entry)
        finally:
            self._release(one)

    async def retry(self, one: RedisDelivery, after_seconds: float) -> None:
        """Have it come again, in one step with its end here."""
        later = after_seconds > 0
        await self._move(one, self.places.later if later else self.places.again, round(after_seconds * 1000), ())
        self._upkeep.due.set()

    async def park(self, one: RedisDelivery, reason: str) -> None:
        """Put it into the dead-letter stream, in one step with its end here."""
        await self._move(one, self.places.parked, 0, ("~reason", reason))

    async def _move(self, one: RedisDelivery, to: str, after_ms: int, more: Sequence[str]) -> None:
        own = "own" if one.stream == self.places.again else ""
        message = one.message
        fields = ("~topic", message.topic, "~id", message.id, "~attempts", one.attempt, *more)
        keys = (one.stream, to, self.places.due)
        due = max(after_ms, 1) if to == self.places.later else ""
        try:
            await self._calls.script(scripts.MOVE, keys, self.places.group, one.entry, own, due, *fields)
        finally:
            self._release(one)

    def _release(self, one: RedisDelivery) -> None:
        """Keep it fresh no longer: it is ended, or will be anybody's when the patience is over."""
        self._hands.held.pop((one.stream, one.entry), None)
        self._hands.changed.set()
        self._end_if_empty()

    def _end_if_empty(self) -> None:
        if self._hands.ended and not self._hands.held:
            for task in self._tasks:
                task.cancel()
            self._left(self)

    # Reading

    async def _join(self) -> None:
        self._hands.topics = await self._upkeep.declared()
        if not self._hands.topics:
            raise BrokerError(f'The group "{self.places.group}" has declared no topics. Call `declare` first.')
        self._line = self._calls.line()
        self._tasks = [asyncio.create_task(self._work(turn)) for turn in (self._read, self._upkeep.turn)]

    async def _work(self, turn: Callable[[], Awaitable[None]]) -> None:
        """Repeat a turn, whatever becomes of the server meanwhile."""
        pause = 0.05
        while not (self._hands.ended and turn == self._read):
            try:
                await turn()
                pause = 0.05
            except BrokerUnavailable as error:
                if "NOGROUP" in str(error):  # the server has lost its data: nothing can be heard until this is done
                    await self._declare_again()
                elif pause == 0.05:
                    _log.warning("%s Trying again until it is.", error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _PAUSE_SECONDS_MAX)
            except BrokerError as error:
                self._failed = error
                self._hands.changed.set()
                return

    async def _declare_again(self) -> None:
        _log.warning("Redis at %s has forgotten the group %s; declaring it again", self._calls.where, self.places.group)
        try:
            await self._declare(self._hands.topics)
        except BrokerUnavailable:
            return

    async def _read(self) -> None:
        if self._answer_lost:
            self._reading = False
            await self._upkeep.give_back(gone=False)
            self._answer_lost = False
        room = self._hands.room
        if room <= 0 or (
            self._hands.ahead and room * 2 < self._hands.in_flight
        ):  # few large reads instead of many small ones
            self._hands.changed.clear()
            await self._hands.changed.wait()
            return
        streams = self._hands.streams()
        each = max(1, room // len(streams))
        assert self._line is not None, "it has joined"
        self._answer_lost = self._reading = True
        answer = await self._line.do(
            "XREADGROUP", "GROUP", self.places.group, self._hands.consumer, "COUNT", each, "BLOCK", _BLOCK_MS,
            "STREAMS", *streams, *([">"] * len(streams)),
        )  # fmt: skip
        self._answer_lost = self._reading = False
        for stream, entries in answer or ():
            for entry, fields in entries:
                self._hands.take(stream.decode(), entry, fields, 1)
