"""Hints from other processes on one PostgreSQL, by NOTIFY: look now, a message may have come.

On a connection of its own and never within the transaction that publishes, for a NOTIFY makes commits wait for each
other. Any of them may be lost, and so may the connection, which is made anew; whoever hears nothing looks a little
later. Must not carry a message. Called by the embedded broker's messages in PostgreSQL.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeAlias, cast
from uuid import uuid4

from atone.brokers._embedded_news import tell
from atone.stores._postgres_line import Connection

log = logging.getLogger("atone.brokers")

_GAP_SECONDS = 0.01
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
_NAME_BYTES_MAX = 63

# What is lost when the server dies is a hint, so nobody waits for its disk.
_SETTLE_IN = "SELECT set_config('synchronous_commit', 'off', false), set_config('application_name', $1, false)"
_TELL = "SELECT pg_notify($1, $2)"

Dial: TypeAlias = Callable[[], Awaitable[Connection]]


class _Hearing(Protocol):
    """What this needs of an asyncpg connection beside the rest."""

    async def add_listener(self, channel: str, callback: Callable[..., Any]) -> None: ...
    def add_termination_listener(self, callback: Callable[..., Any]) -> None: ...


class Watch:
    """Tells other processes that something was published, and wakes the members of this one when another has."""

    def __init__(self, dial: Dial, schema: str, place: str) -> None:
        self._dial, self._place = dial, place
        self._channel = f"atone.{schema}.messages"[-_NAME_BYTES_MAX:]
        self._name = uuid4().hex  # what this one has said itself is no news
        self._news = asyncio.Event()
        self._has_published = False
        self._task = asyncio.get_running_loop().create_task(self._run(), name="atone-broker-hints")

    def published(self) -> None:
        """Tell the others soon."""
        self._has_published = True
        self._news.set()

    async def close(self) -> None:
        """Stop."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                connection = await self._dial()
                try:
                    await self._listen(connection)
                    pause = _FIRST_PAUSE_SECONDS
                    await self._speak(connection)
                finally:
                    connection.terminate()
            except Exception as error:  # noqa: BLE001 - whatever is wrong with a hint, looking goes on
                log.info("no hints from or to %s for now: %s", self._place, type(error).__name__)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    async def _listen(self, connection: Connection) -> None:
        await connection.fetch(_SETTLE_IN, "atone hints")
        hearing = cast("_Hearing", connection)
        hearing.add_termination_listener(lambda *_: self._news.set())
        await hearing.add_listener(self._channel, self._heard)
        tell(self._place)  # what was told before this is not heard any more

    async def _speak(self, connection: Connection) -> None:
        while not connection.is_closed():
            self._news.clear()
            if self._has_published:
                self._has_published = False
                await connection.fetch(_TELL, self._channel, self._name)
                await asyncio.sleep(_GAP_SECONDS)
            else:
                await self._news.wait()

    def _heard(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        if payload != self._name:
            tell(self._place)
