"""What a member of a group on Redis Streams does beside reading: keeps its own fresh, takes over, and tidies up.

Owns what one consumer has in its hands, and the turns that look after its group. The server does not know who is alive:
an entry that nobody has kept fresh for the broker's patience is anybody's. Must not end a delivery. Called by `Member`.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterator, Mapping
from uuid import uuid4

from atone.brokers import _redis_scripts as scripts
from atone.brokers._redis_calls import Calls
from atone.brokers._redis_entries import Ends, Places, RedisDelivery

_TEND_SECONDS = 1.0
_SILENT_MS = 600_000


class Hands:
    """What one consumer has been given: `ahead` waits for its user, `held` is in the user's hands."""

    def __init__(self, ends: Ends, places: Places, in_flight: int) -> None:
        self.consumer = uuid4().hex
        self.in_flight = in_flight
        self.ahead: deque[RedisDelivery] = deque()
        self.held: dict[tuple[str, str], RedisDelivery] = {}
        self.topics: list[str] = []
        self.changed = asyncio.Event()  # something to yield, or room for more
        self.ended = False
        self._ends = ends
        self._places = places

    @property
    def room(self) -> int:
        """How many more it may have."""
        return self.in_flight - len(self.ahead) - len(self.held)

    def all(self) -> Iterator[RedisDelivery]:
        """Everything that it has."""
        yield from self.ahead
        yield from self.held.values()

    def streams(self) -> list[str]:
        """Name what it reads: first what comes again."""
        return [self._places.again, *(self._places.topic(topic) for topic in self.topics)]

    def take(self, stream: str, entry: bytes, fields: Mapping[bytes, bytes], given: int) -> None:
        """Put an entry where its user gets it."""
        self.ahead.append(RedisDelivery(self._ends, self._places, stream, entry.decode(), fields, given))
        self.changed.set()


class Upkeep:
    """The turns of one member. `due` has the next one begin at once."""

    def __init__(
        self, calls: Calls, places: Places, hands: Hands, *, patience_seconds: float, hold_seconds: float
    ) -> None:
        self.due = asyncio.Event()
        self._calls = calls
        self._places = places
        self._hands = hands
        self._patience_seconds = patience_seconds
        self._hold_seconds = hold_seconds
        self._cursors: dict[str, str] = {}
        self._renewed = self._forgot = time.monotonic()

    async def declared(self) -> list[str]:
        """Ask what the group has declared."""
        return sorted(topic.decode() for topic in await self._calls.one("SMEMBERS", self._places.topics))

    async def turn(self) -> None:
        """Do what is due, then wait a little."""
        hands, places = self._hands, self._places
        self.due.clear()
        next_ms = int(await self._calls.script(scripts.PROMOTE, (places.due, places.later, places.again)))
        period_seconds = min(_TEND_SECONDS, self._patience_seconds / 4)
        if time.monotonic() - self._renewed >= self._patience_seconds / 4:
            await self._renew()
        won = await self._calls.one(
            "SET", places.sweep, self._hands.consumer, "NX", "PX", max(1, int(period_seconds * 900))
        )
        if won:
            await self._sweep()
        hands.topics = await self.declared() or hands.topics
        wait_seconds = period_seconds if next_ms < 0 else min(period_seconds, next_ms / 1000)
        try:
            async with asyncio.timeout(max(wait_seconds, 0.002)):
                await self.due.wait()
        except TimeoutError:
            return

    async def _renew(self) -> None:
        self._renewed = now = time.monotonic()
        by_stream: dict[str, list[str]] = {}
        for one in self._hands.all():
            if now - one.since < self._hold_seconds:
                by_stream.setdefault(one.stream, []).append(one.entry)
        for stream, entries in by_stream.items():
            await self._calls.script(scripts.RENEW, (stream,), self._places.group, self._hands.consumer, *entries)

    async def _sweep(self) -> None:
        """Take what the dead have left, and remove what nobody needs; one member of a group at a time does it."""
        forgets = time.monotonic() - self._forgot > _SILENT_MS / 2000
        for stream in self._hands.streams():
            if not self._hands.ended:
                await self._claim(stream)
            if stream != self._places.again:
                while await self._calls.script(scripts.TRIM, (stream,)) >= 5000:
                    pass
            if forgets:
                await self._calls.script(scripts.FORGET, (stream,), self._places.group, _SILENT_MS)
        if forgets:
            self._forgot = time.monotonic()

    async def _claim(self, stream: str) -> None:
        idle_ms = int(self._patience_seconds * 1000)
        while (room := self._hands.room) > 0:
            start = self._cursors.get(stream, "0-0")
            cursor, entries, counts = await self._calls.script(
                scripts.CLAIM, (stream,), self._places.group, self._hands.consumer, idle_ms, start, room
            )
            self._cursors[stream] = cursor.decode()
            for (entry, fields), given in zip(entries, counts, strict=True):
                self._hands.take(stream, entry, dict(zip(fields[::2], fields[1::2], strict=True)), int(given))
            if cursor == b"0-0":
                return

    async def give_back(self, *, gone: bool) -> None:
        """Leave to others what the server has given me, and what neither I nor my user know of or want."""
        for stream in self._hands.streams():
            topic = "" if stream == self._places.again else stream.removeprefix(self._places.topic(""))
            kept = [one.entry for one in self._hands.all() if one.stream == stream]
            keys = (stream, self._places.again)
            group = self._places.group
            await self._calls.script(
                scripts.GIVE_BACK, keys, group, self._hands.consumer, topic, "gone" if gone else "", *kept
            )
