"""The broker in memory: for tests within one process, forgotten with it.

Owns the plainest reading of the port, which the contract's broken brokers are made of. Objects with the same name share
what stands in `Server`, also across threads and event loops; it can be taken down and started again, as a real one.
Must not be used where a message matters. Called through the port, and by tests.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from itertools import count
from math import inf
from types import TracebackType
from typing import Self

from atone.broker import Delivery, Message, Parked, Published
from atone.errors import BrokerClosed, BrokerError, BrokerUnavailable

PATIENCE_SECONDS = 30.0
MESSAGE_BYTES_MAX = 1024 * 1024
_SCHEME = "memory://"


@dataclass
class Item:
    """A message that a group has not settled. `holder` has it until `due`; without one it may be taken from then on."""

    number: int
    message: Message
    due: float = -inf
    holder: object | None = None
    attempts: int = 0


@dataclass
class Group:
    """What a group is to hear, what it has not settled, and what it has set aside."""

    topics: set[str] = field(default_factory=set[str])
    items: dict[int, Item] = field(default_factory=dict[int, Item])
    # The numbers of those that somebody has or that wait for their time, so that nobody looks through all for them.
    later: set[int] = field(default_factory=set[int])
    parked: list[Parked] = field(default_factory=list[Parked])


class Server:
    """What all objects with one name share. `is_up` is for tests that take it away; what is in it stays."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.groups: dict[str, Group] = {}
        self.numbers = count(1)
        self._is_up = True
        self._waiting: dict[asyncio.Event, tuple[asyncio.AbstractEventLoop, Context]] = {}

    @property
    def is_up(self) -> bool:
        """Whether anybody can reach it."""
        return self._is_up

    def kill(self) -> None:
        """Take it down: what was handed out and not ended is nobody's from now on."""
        with self.lock:
            self._is_up = False
            for group in self.groups.values():
                for item in group.items.values():
                    if item.holder is not None:
                        item.holder, item.due = None, -inf
        self.wake()

    def start(self) -> None:
        """Bring it back, with all that was in it."""
        self._is_up = True
        self.wake()

    def put(self, message: Message) -> bool:
        """Give a message to every group that has declared its topic; whether there is one."""
        with self.lock:
            hearing = [group for group in self.groups.values() if message.topic in group.topics]
            for group in hearing:
                number = next(self.numbers)
                group.items[number] = Item(number, message)
        self.wake()
        return bool(hearing)

    def news(self) -> asyncio.Event:
        """Return an event that is set when something changes, once."""
        event = asyncio.Event()
        with self.lock:
            self._waiting[event] = asyncio.get_running_loop(), copy_context()
        return event

    def wake(self) -> None:
        """Have everybody look who waits."""
        with self.lock:
            waiting, self._waiting = self._waiting, {}
        for event, (loop, context) in waiting.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(event.set, context=context)  # who is told it, not who tells it


# By name; a test may put a server of its own here.
SERVERS: dict[str, Server] = {}


def server_of(name: str) -> Server:
    """Return what the objects of that name share."""
    return SERVERS.setdefault(name, Server())


class MemoryBroker:
    """Carry messages within this process. What is published while nobody has declared its topic is gone.

    `url` is memory://name; `patience_seconds` is how long a member may hold a message before another is given it.
    """

    def __init__(
        self,
        url: str = _SCHEME,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
        message_bytes_max: int = MESSAGE_BYTES_MAX,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._url = url
        self.server = server_of(url.removeprefix(_SCHEME))
        self._patience_seconds = patience_seconds
        self._message_bytes_max = message_bytes_max
        self._clock = clock
        self._is_open = False

    @property
    def message_bytes_max(self) -> int:
        """See `Broker`."""
        return self._message_bytes_max

    async def __aenter__(self) -> Self:
        if not self.server.is_up:
            raise self._gone()
        self._is_open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_open = False
        with self.server.lock:
            for group in self.server.groups.values():
                for item in group.items.values():
                    self._give_back(item, self)
        self.server.wake()

    async def publish(self, messages: Sequence[Message]) -> Sequence[Published]:
        """See `Broker`."""
        self.reach()
        return [self._publish(message) for message in messages]

    async def declare(self, group: str, topics: Collection[str]) -> None:
        """See `Broker`."""
        self.reach()
        with self.server.lock:
            self.server.groups.setdefault(group, Group()).topics.update(topics)

    async def deliveries(self, group: str, *, in_flight: int = 100) -> AsyncIterator[Delivery]:
        """See `Broker`."""
        self.reach()
        if group not in self.server.groups:
            raise BrokerError(f"Group {group!r} has declared nothing. Declare what it is to hear first.")
        hands = _Hands(self, group, in_flight)
        ahead: deque[Item] = deque()
        try:
            while self._is_open:
                news = self.server.news()
                ahead.extend(self._claim(hands))
                while ahead:
                    yield hands.delivery(ahead.popleft())
                # Not before its own news: what changes between a look and the wait would be missed.
                await _until(news, self._pause(group))
        finally:
            with self.server.lock:
                for item in ahead:
                    self._take_back(item, hands)
            self.server.wake()

    async def parked(self, group: str, *, limit: int = 100) -> Sequence[Parked]:
        """See `Broker`."""
        self.reach()
        return self.group_of(group).parked[:limit]

    async def unpark(self, group: str, message_id: str) -> bool:
        """See `Broker`."""
        self.reach()
        with self.server.lock:
            found = self.group_of(group)
            again = [one for one in found.parked if one.message.id == message_id]
            found.parked = [one for one in found.parked if one.message.id != message_id]
            for one in again:
                number = next(self.server.numbers)
                found.items[number] = Item(number, one.message, attempts=one.attempts)
        self.server.wake()
        return bool(again)

    # -- what a test takes a rule out of

    def _publish(self, message: Message) -> Published:
        if len(message.body) > self._message_bytes_max:
            return Published.REFUSED
        return Published.DURABLE if self.server.put(message) else Published.NOBODY

    def _claim(self, hands: _Hands) -> list[Item]:
        """Take what is due, oldest first; of one key nothing while another member has an earlier one."""
        if not self.server.is_up:
            return []
        now, taken, held = self._clock(), list[Item](), set[str]()
        room = hands.in_flight - hands.held()
        with self.server.lock:
            for item in self.group_of(hands.group).items.values():
                if len(taken) >= room:
                    break
                if item.due > now or item.message.key in held:
                    if item.holder is not None and item.holder is not hands and item.message.key:
                        held.add(item.message.key)
                    continue
                taken.append(item)
            for item in taken:
                item.holder, item.due = hands, now + self._patience_seconds
                item.attempts += 1
                hands.numbers.add(item.number)
                self.group_of(hands.group).later.add(item.number)
        return taken

    def settle(self, hands: _Hands, item: Item) -> None:
        """Forget a message."""
        self.group_of(hands.group).items.pop(item.number, None)

    def put_back(self, hands: _Hands, item: Item, after_seconds: float) -> None:
        """Leave a message to whoever comes first, from then on."""
        if item.holder is hands:
            item.holder, item.due = None, self._clock() + after_seconds

    def set_aside(self, hands: _Hands, item: Item, reason: str) -> None:
        """Move a message to the dead-letter place."""
        group = self.group_of(hands.group)
        if group.items.pop(item.number, None) is not None:
            group.parked.append(Parked(item.message, reason, item.attempts, self._clock()))

    def _take_back(self, item: Item, hands: _Hands) -> None:
        """Take back what was claimed ahead and shown to nobody: that was no attempt."""
        if item.holder is hands:
            item.attempts -= 1
            item.holder, item.due = None, -inf

    def _give_back(self, item: Item, broker: MemoryBroker) -> None:
        if isinstance(item.holder, _Hands) and item.holder.broker is broker:
            item.holder, item.due = None, -inf

    def group_of(self, name: str) -> Group:
        """Return a group, an empty one if there is none."""
        return self.server.groups.get(name) or Group()

    def _pause(self, group: str) -> float | None:
        """Return in how many seconds something becomes due that nothing wakes for."""
        now = self._clock()
        found = self.group_of(group)
        found.later.intersection_update(found.items)
        due = [item.due for item in map(found.items.__getitem__, found.later) if item.due > now]
        return max(min(due) - now, 0.001) if due else None

    def reach(self) -> None:
        """Complain unless the server can be reached through this object."""
        if not self._is_open:
            raise BrokerClosed(f"The broker {self._url} is not open. Enter it with `async with` first.")
        if not self.server.is_up:
            raise self._gone()

    def _gone(self) -> BrokerUnavailable:
        return BrokerUnavailable(f"The broker {self._url} was taken down by a test. Start it again, then try again.")


class _Hands:
    """One member of a group: what it has claimed and nobody has ended."""

    def __init__(self, broker: MemoryBroker, group: str, in_flight: int) -> None:
        self.broker, self.group, self.in_flight = broker, group, in_flight
        self.numbers: set[int] = set()

    def held(self) -> int:
        """Count what this member has."""
        items = self.broker.group_of(self.group).items
        self.numbers = {one for one in self.numbers if one in items and items[one].holder is self}
        return len(self.numbers)

    def delivery(self, item: Item) -> _Delivery:
        """Return what the member's user gets."""
        return _Delivery(self, item)


class _Delivery:
    def __init__(self, hands: _Hands, item: Item) -> None:
        self._hands, self._item = hands, item
        self._attempt = item.attempts

    @property
    def message(self) -> Message:
        return self._item.message

    @property
    def attempt(self) -> int:
        return self._attempt

    async def ack(self) -> None:
        broker = self._hands.broker
        broker.reach()
        broker.settle(self._hands, self._item)
        broker.server.wake()

    async def retry(self, *, after_seconds: float = 0.0) -> None:
        broker = self._hands.broker
        broker.reach()
        broker.put_back(self._hands, self._item, after_seconds)
        broker.server.wake()

    async def park(self, reason: str) -> None:
        broker = self._hands.broker
        broker.reach()
        broker.set_aside(self._hands, self._item, reason)
        broker.server.wake()


async def _until(news: asyncio.Event, seconds: float | None) -> None:
    try:
        async with asyncio.timeout(seconds):
            await news.wait()
    except TimeoutError:
        pass
