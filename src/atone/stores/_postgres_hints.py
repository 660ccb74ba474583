"""Hints between processes on one PostgreSQL, by NOTIFY: look now, there may be something for you.

A hint is never part of a commit (a NOTIFY makes commits wait for each other) and carries nothing: who hears it looks as
it would at its next poll. So any of them may be lost, and so may the connection, which is made anew in the background.
Many in a short time are one. It must not read or write a saga. Called by the PostgreSQL store.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, Protocol, TypeAlias

from atone.store import FINAL_STATUSES, Hint, Turn

log = logging.getLogger("atone.hints")

# A worker that hears one looks at the store, so this is also how often it may be made to.
GAP_SECONDS = 0.05
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
_NAME_BYTES_MAX = 63
# Somebody may wait for the end of such a saga; the runtime has the same set.
_SETTLED = FINAL_STATUSES | {"needs_attention"}
# The database's clock may be another one: a hint too many, or one too few, is no harm.
_SOON_SECONDS = 1.0
_HINTS = {hint.value for hint in Hint}

# What is lost when the server dies is a hint, so nobody waits for its disk.
_SETTLE_IN = "SELECT set_config('synchronous_commit', 'off', false), set_config('application_name', $1, false)"
_TELL = "SELECT pg_notify($1, hint) FROM unnest($2::text[]) AS h (hint)"


class Speaking(Protocol):
    """What hints need of an asyncpg connection."""

    async def execute(self, query: str, *values: Any) -> str: ...
    async def fetch(self, query: str, *values: Any) -> list[Any]: ...
    async def add_listener(self, channel: str, callback: Callable[..., Any]) -> None: ...
    def add_termination_listener(self, callback: Callable[..., Any]) -> None: ...
    def get_server_pid(self) -> int: ...
    def is_closed(self) -> bool: ...
    def terminate(self) -> None: ...


Dial: TypeAlias = Callable[[], Awaitable[Speaking]]


class Hints:
    """Tells other processes, and hears them, on a connection of its own."""

    def __init__(self, dial: Dial, schema: str, where: str) -> None:
        self._dial, self._where = dial, where
        self._channel = f"atone.{schema}"[:_NAME_BYTES_MAX]
        self._to_tell: set[Hint] = set()
        self._news = asyncio.Event()
        self._listeners: list[Callable[[Hint], None]] = []
        self._due: dict[Hint, asyncio.TimerHandle] = {}
        self._again: set[Hint] = set()
        self._task = asyncio.get_running_loop().create_task(self._run(), name="atone-hints")

    def listen(self, callback: Callable[[Hint], None]) -> None:
        """Call back for what other processes tell."""
        self._listeners.append(callback)

    def tell(self, hints: Collection[Hint]) -> None:
        """Tell the other processes soon; while there is no connection nothing is kept for them."""
        if hints:
            self._to_tell.update(hints)
            self._news.set()

    async def close(self) -> None:
        """Tell what is still to be told, if that can be done at once, and stop."""
        self._listeners.clear()
        for timer in self._due.values():
            timer.cancel()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                connection = await self._dial()
                try:
                    await self._settle_in(connection)
                    pause = FIRST_PAUSE_SECONDS
                    await self._work(connection)
                finally:
                    await self._part(connection)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with a hint, polling goes on
                log.info("no hints from or to %s for now, looks are by poll only: %s", self._where, error)
            self._to_tell.clear()
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    async def _settle_in(self, connection: Speaking) -> None:
        await connection.fetch(_SETTLE_IN, "atone hints")
        connection.add_termination_listener(self._lost)
        await connection.add_listener(self._channel, self._heard)
        for hint in Hint:  # what was told before this is not heard any more
            self._soon(hint)

    async def _work(self, connection: Speaking) -> None:
        """Tell what there is to tell, until the connection is lost."""
        while not connection.is_closed():
            if not self._to_tell:
                self._news.clear()
                await self._news.wait()
                continue
            hints, self._to_tell = self._to_tell, set()
            try:
                await connection.fetch(_TELL, self._channel, sorted(hints))
            except BaseException:
                self._to_tell |= hints  # who stops us may leave the time to say it once more
                raise
            await asyncio.sleep(GAP_SECONDS)

    async def _part(self, connection: Speaking) -> None:
        """Say the last hints (a drain hands sagas back just before it ends), and drop the connection."""
        try:
            if self._to_tell and not connection.is_closed():
                await connection.fetch(_TELL, self._channel, sorted(self._to_tell))
        except Exception as error:  # noqa: BLE001 - it was a hint
            log.debug("the last hints to %s were not told: %s", self._where, error)
        finally:
            connection.terminate()

    def _lost(self, connection: Speaking) -> None:
        self._news.set()

    def _heard(self, connection: Speaking, pid: int, channel: str, payload: object) -> None:
        if pid == connection.get_server_pid():  # what this process has written it knows
            return
        if payload in _HINTS:
            self._soon(Hint(str(payload)))

    def _soon(self, hint: Hint) -> None:
        """Pass a hint on at once, and those that follow it within the gap as one."""
        if hint in self._due:
            self._again.add(hint)
            return
        self._pass_on(hint)

    def _pass_on(self, hint: Hint) -> None:
        for listener in self._listeners:
            listener(hint)
        self._due[hint] = asyncio.get_running_loop().call_later(GAP_SECONDS, self._gap_over, hint)

    def _gap_over(self, hint: Hint) -> None:
        del self._due[hint]
        if hint in self._again:
            self._again.discard(hint)
            self._pass_on(hint)


def hints_of(turns: Sequence[Turn], from_elsewhere: set[bytes]) -> set[Hint]:
    """Return what there is to tell of turns that were written: what nobody owns now is due, or over.

    An end is told of sagas `from_elsewhere` only, which are forgotten with it; who starts one here waits for it here.
    """
    hints: set[Hint] = set()
    for turn in turns:
        hot = turn.hot
        if hot is None or hot.owned:
            continue
        is_from_elsewhere = turn.key in from_elsewhere
        from_elsewhere.discard(turn.key)
        if hot.status in _SETTLED:
            if is_from_elsewhere:
                hints.add(Hint.SETTLED)
        elif hot.wake_at is None or hot.wake_at <= time.time() + _SOON_SECONDS:
            hints.add(Hint.DUE)
    return hints
