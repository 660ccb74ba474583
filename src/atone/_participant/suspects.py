"""Messages that were given before without a word of what came of it: perhaps their handler ends the process.

Owns who is one, that they are handled one at a time in a process, and the count of their beginnings, which is durable
before each: of several that a process had when it ended, only the one that ended it is counted again and again. What
is given for the first time, or comes again as it was asked to, is no concern of it and costs nothing. Must not handle
anything itself. Called by `taking` and `commanded`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from atone._participant.consumer import Again, Ending
from atone._participant.database import Database
from atone.broker import Delivery, Doubtful
from atone.inbox import Inbox

LOSSES_MAX = 5
GATE_SECONDS = 60.0
_SURVIVED_MAX = 10_000

_DEADLY = (
    "{what} was given to {group} at least {times} times, and each time its process ended before the handling did. "
    "Probably its handler ends the process: os._exit, a crash in a library, too much memory, or a loop without an end. "
    "Mend that, then give the message again."
)


class Unexplained(Exception):
    """It was given before, and nobody has said what came of it: take it in alone."""


class Suspects:
    """One for all that a process handles, so that no two of them are under way when it ends."""

    def __init__(self, inbox: Inbox, database: Database) -> None:
        self._inbox, self._database = inbox, database
        self._gate = asyncio.Lock()
        self._open: dict[tuple[str, str], int] = {}  # begun here, not ended, and this process lives: how many were lost
        # Given back by this very process, for the place was in trouble: nothing was counted, and nobody has died.
        self._survived: dict[tuple[str, str], int] = {}

    def check(self, group: str, message_id: str, delivery: Delivery, told: int) -> None:
        """Compare how often a message was given with how often it came again for a reason that is known.

        Raises:
            Unexplained: It was given more often, or the broker can't say.
        """
        is_doubtful = isinstance(delivery, Doubtful) and delivery.is_doubtful
        if is_doubtful or delivery.attempt - 1 > told + self._survived.get((group, message_id), 0):
            raise Unexplained

    def survived(self, group: str, message_id: str) -> None:
        """Remember that a message goes back although nothing of it could be written."""
        whose = (group, message_id)
        if whose in self._survived or len(self._survived) < _SURVIVED_MAX:
            self._survived[whose] = self._survived.get(whose, 0) + 1

    async def alone(
        self,
        group: str,
        message_id: str,
        what: str,
        handle: Callable[[], Awaitable[Ending]],
        give_up: Callable[[str], Awaitable[Ending]],
    ) -> Ending:
        """Handle a suspect when no other one is; give it up if it was begun too often and came to no end."""
        whose = (group, message_id)
        is_alone = await self._enter()
        try:
            lost = self._open.pop(whose, None)
            if lost is None:
                lost = await self._count(whose) - 1
            if lost >= LOSSES_MAX:
                # Whoever gives it again, after mending it, has it tried once more before it is given up again.
                await self._count(whose, ended=True)
                return await give_up(_DEADLY.format(what=what, group=group, times=lost + 1))
            self._open[whose] = lost
            ending = await handle()
            if isinstance(ending, Again):  # it has failed or come too early, which is counted elsewhere
                await self._count(whose, ended=True)
            del self._open[whose]
            return ending
        finally:
            if is_alone:
                self._gate.release()

    async def _enter(self) -> bool:
        """Wait until no other suspect is under way; False if one of them does not end."""
        try:
            async with asyncio.timeout(GATE_SECONDS):
                return await self._gate.acquire()
        except TimeoutError:
            return False

    async def _count(self, whose: tuple[str, str], *, ended: bool = False) -> int:
        """Count a beginning or an end, and return how many beginnings have no end."""
        group, message_id = whose
        consumer = f"{group} (begun alone)"

        async def work(line: Any) -> int:
            tries = await self._inbox.count(line, consumer, message_id, deferred=ended)
            return tries.failures - tries.deferrals

        return await self._database.run(work)
