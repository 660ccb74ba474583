"""One member of a group: takes messages ahead, hands them out one by one, and knows which of them nobody has ended.

A claim is never cut short: who stops waiting leaves it to its end, and what it brought is given back. An outage is
waited out here. Must not know which database it is. Called by the embedded broker, one for each iterator.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from uuid import uuid4

from atone.broker import Message
from atone.brokers._embedded_backend import Backend, Claim, Ending, How, Taken
from atone.brokers._embedded_news import forget, listen, tell
from atone.errors import StoreError

log = logging.getLogger("atone.brokers")

_FIRST_PAUSE_SECONDS = 0.01
_LONGEST_PAUSE_SECONDS = 0.2
_OUTAGE_PAUSE_SECONDS = 0.25

End = Callable[[Ending], Awaitable[None]]


class Member:
    """What a member has: `ahead` is not handed out yet, `held` is not ended yet."""

    def __init__(self, backend: Backend, group: str, in_flight: int, patience_seconds: float, end: End) -> None:
        self._backend, self._group = backend, group
        self._in_flight, self._patience_seconds = in_flight, patience_seconds
        self._end = end
        self._ahead: deque[Taken] = deque()
        self._held: dict[int, float] = {}
        self._fresh_until = 0.0
        self._claiming: asyncio.Task[Claim] | None = None
        self._is_in_doubt = False
        self._has_left = False
        self._pause_seconds = _FIRST_PAUSE_SECONDS
        self._news = asyncio.Event()
        self.holder = uuid4().hex
        listen(backend.place, self._news)

    async def next(self) -> Delivery | None:
        """Return the next delivery, or None when the member has left."""
        while not self._has_left:
            await self._refresh()
            if self._ahead:
                taken = self._ahead.popleft()
                self._held[taken.seq] = self._fresh_until
                return Delivery(self, taken)
            self._news.clear()
            wait_seconds = await self._fetch()
            if not self._ahead:
                await self._wait(wait_seconds)
        return None

    async def leave(self) -> None:
        """Give back what was taken ahead; a second time it does nothing."""
        if self._has_left:
            return
        self._has_left = True
        self._news.set()
        forget(self._backend.place, self._news)
        if self._claiming is not None:
            await asyncio.wait({self._claiming})
        if self._ahead or self._is_in_doubt or self._claiming is not None:
            self._ahead.clear()
            await self._give_back(seen=False)

    async def give_back_all(self) -> None:
        """Leave, and give back what nobody has ended, too."""
        await self.leave()
        if self._held:
            self._held.clear()
            await self._give_back(seen=True)

    async def ended(self, ending: Ending) -> None:
        """End a delivery, and have room for another."""
        await self._end(ending)
        self._held.pop(ending.seq, None)
        self._news.set()

    async def _refresh(self) -> None:
        """Hold on to what is ahead if that is not sure any more; what others have by now is theirs."""
        if not self._ahead or time.monotonic() < self._fresh_until - self._patience_seconds / 2:
            return
        now = time.monotonic()
        try:
            mine = await self._backend.extend(self.holder, [one.seq for one in self._ahead], self._patience_seconds)
        except StoreError as error:
            self._suffer(error)
            mine = ()
        self._fresh_until = now + self._patience_seconds
        self._ahead = deque(one for one in self._ahead if one.seq in mine)

    async def _fetch(self) -> float | None:
        """Take as many as there is room for; return how long to wait for more, if that is known."""
        now = time.monotonic()
        for seq in [seq for seq, until in self._held.items() if until <= now]:
            del self._held[seq]  # the broker's patience is over: it is given again
        room = self._in_flight - len(self._held)
        if room <= 0:
            return min(self._held.values()) - now
        try:
            if self._is_in_doubt:
                await self._backend.give_back(self.holder, keep=[*self._held], seen=False)
                self._is_in_doubt = False
            claim = await self._claim(room)
        except StoreError as error:
            self._suffer(error)
            return _OUTAGE_PAUSE_SECONDS
        self._fresh_until = now + self._patience_seconds
        self._ahead.extend(claim.taken)
        if claim.taken:
            self._pause_seconds = _FIRST_PAUSE_SECONDS
        return self._pause(claim.wait_seconds)

    async def _claim(self, room: int) -> Claim:
        claiming = self._backend.claim(self._group, self.holder, room, self._patience_seconds)
        self._claiming = asyncio.ensure_future(claiming)
        claim = await asyncio.shield(self._claiming)
        self._claiming = None
        return claim

    def _pause(self, wait_seconds: float | None) -> float:
        pause = self._pause_seconds
        self._pause_seconds = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        return pause if wait_seconds is None else max(0.001, min(pause, wait_seconds))

    async def _wait(self, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return
        self._pause_seconds = _FIRST_PAUSE_SECONDS

    async def _give_back(self, *, seen: bool) -> None:
        try:
            await self._backend.give_back(self.holder, keep=[*self._held], seen=seen)
        except StoreError as error:
            log.info("what a member of %s had is given to others when its time is over: %s", self._group, error)
        tell(self._backend.place)

    def _suffer(self, error: StoreError) -> None:
        self._claiming = None
        if not self._is_in_doubt:
            log.warning("nothing can be heard by %s for now, trying on: %s", self._group, error)
        self._is_in_doubt = True


class Delivery:
    """See `atone.broker.Delivery`."""

    __slots__ = ("_member", "_taken")

    def __init__(self, member: Member, taken: Taken) -> None:
        self._member, self._taken = member, taken

    @property
    def message(self) -> Message:
        return self._taken.message

    @property
    def attempt(self) -> int:
        return self._taken.attempt

    async def ack(self) -> None:
        await self._member.ended(Ending(How.ACK, self._taken.seq, self._member.holder))

    async def retry(self, *, after_seconds: float = 0.0) -> None:
        await self._member.ended(Ending(How.RETRY, self._taken.seq, self._member.holder, seconds=after_seconds))

    async def park(self, reason: str) -> None:
        await self._member.ended(Ending(How.PARK, self._taken.seq, self._member.holder, reason=reason))
