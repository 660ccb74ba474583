"""Expectations that were not met in time: found in the database, and answered with the event declared for that.

Owns the loop and one transaction for each. The saga's row is locked first, as by a delivery, so of an event that comes
at the last moment and the time-out exactly one is first, and the other sees it. Survives restarts, for all that it
knows is in the tables. Must not judge: `_core.event_guard` says whether something is still expected.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from atone._connections.face import face_of
from atone._core import event_guard as guard
from atone._messaging.events import Event
from atone._participant.bound import Bound, Kept
from atone._participant.database import Database
from atone._participant.ledger import Due, Overdue, Whose
from atone._participant.remembering import remembered, stored, with_overdue
from atone._participant.sending import Sending
from atone._participant.sql import joined
from atone._participant.tables import ServiceTables
from atone._runtime.trace_context import read_text

log = logging.getLogger("atone.participant")

_AT_ONCE = 100
_PAUSE_AFTER_TROUBLE_SECONDS = 2.0
_PUT_OFF_SECONDS = 5.0


class Timer:
    """Look every `poll_seconds`, or sooner if something is due sooner."""

    def __init__(
        self,
        bound: Bound,
        tables: ServiceTables,
        database: Database,
        *,
        poll_seconds: float = 1.0,
        on_commit: Callable[[], None] = lambda: None,
    ) -> None:
        self._bound, self._tables, self._database = bound, tables, database
        self._poll_seconds, self._on_commit = poll_seconds, on_commit
        self._sending = Sending(bound.types, bound.name, tables)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, if anything is ever expected here."""
        if any(one.expects is not None for one in self._bound.map.of(self._bound.name)):
            self._task = asyncio.create_task(self._run(), name=f"atone-timer-{self._bound.group}")

    async def close(self) -> None:
        """Stop; what is due is found again by whoever comes next."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def look(self) -> int:
        """Answer what is overdue now, and return how many."""
        due = await self._database.run(self._due)
        answered = 0
        for one in due:
            try:
                answered += await self._database.run(partial(self._answer, one))
            except Exception as error:  # noqa: BLE001 - a saga that can't be answered must not hold up the others
                await self._put_off(one, error)
        if answered:
            self._on_commit()
        return answered

    async def _put_off(self, due: Due, error: Exception) -> None:
        """Look at it again later; raises if the database is away."""
        log.warning("%s can't say that %s is overdue now: %s", self._bound.group, due.reaction, type(error).__name__)
        whose = Whose(due.tenant, self._bound.map.name, self._bound.name, due.saga)
        put_off = self._tables.ledger.put_off

        async def work(connection: Any) -> None:
            await put_off(await joined(connection), whose, due.reaction, due.cause, seconds=_PUT_OFF_SECONDS)

        await self._database.run(work)

    async def _run(self) -> None:
        while True:
            pause = self._poll_seconds
            try:
                if await self.look() == 0:
                    pause = await self._database.run(self._pause)
            except Exception as error:  # noqa: BLE001 - what is due stays due
                log.warning("%s can't look for what is overdue now: %s", self._bound.group, type(error).__name__)
                pause = _PAUSE_AFTER_TROUBLE_SECONDS
            await asyncio.sleep(pause)

    async def _due(self, connection: Any) -> list[Due]:
        return await self._tables.ledger.due(face_of(connection), self._bound.map.name, self._bound.name, _AT_ONCE)

    async def _pause(self, connection: Any) -> float:
        ledger = self._tables.ledger
        seconds = await ledger.seconds_to_next(face_of(connection), self._bound.map.name, self._bound.name)
        return self._poll_seconds if seconds is None else min(max(seconds, 0.01), self._poll_seconds)

    async def _answer(self, due: Due, connection: Any) -> bool:
        face = await joined(connection)
        whose = Whose(due.tenant, self._bound.map.name, self._bound.name, due.saga)
        known = remembered(await self._tables.ledger.lock(face, whose))
        found = await self._tables.ledger.overdue(face, whose, due.reaction, due.cause)
        waiting = {
            (one.ran.reaction, one.ran.event_id): one
            for one in guard.expected(self._bound.map, self._bound.name, known)
        }
        expected = waiting.get((due.reaction, due.cause))
        if found is None or expected is None:
            return False
        value = self._otherwise(due, expected, found)
        cause = self._cause(due, found)
        await self._sending.events(connection, cause, (due.reaction, due.cause, "overdue"), [value])
        await self._tables.ledger.write(face, whose, stored(with_overdue(known, expected.ran, expected.otherwise)))
        return True

    def _otherwise(self, due: Due, expected: guard.Expected, found: Overdue) -> Any:
        code = self._bound.code[due.reaction]
        if code.overdue is None:
            return self._bound.types.make(expected.otherwise)
        kept = self._tables.codec.schema(Kept).decode(found.result.encode())
        return code.overdue(self._bound.object, self._bound.result(kept, due.saga))

    def _cause(self, due: Due, found: Overdue) -> Event:
        """Return what led to the time-out, as far as an event that follows from it needs it."""
        trace = read_text(found.trace) if found.trace else None
        return Event(due.cause, "", 1, self._bound.map.name, due.saga, b"", trace=trace, tenant=due.tenant)
