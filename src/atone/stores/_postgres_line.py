"""Connections that may be lost: each is made when it is needed, dropped at the first doubt, and made anew.

Owns whose turn it is on a connection, its settings, and the repeating of work that the database has turned down for
conflicting with other work. It must not repeat anything whose outcome is unknown. Called by the PostgreSQL store, which
has a line for commits, a few for everything else, and one for leases.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

from atone.errors import StoreError, StoreUnavailable
from atone.stores._postgres_errors import is_repeatable, keeps_the_connection, translated, unreached

T = TypeVar("T")

_REPEATS_MAX = 12
_LONGEST_PAUSE_SECONDS = 0.1
_CLOSING_SECONDS = 2.0


class Connection(Protocol):
    """What Atone uses of an asyncpg connection."""

    async def execute(self, query: str, *values: Any) -> str: ...
    async def fetch(self, query: str, *values: Any) -> list[Any]: ...
    async def fetchrow(self, query: str, *values: Any) -> Any: ...
    async def fetchval(self, query: str, *values: Any) -> Any: ...
    def transaction(self) -> Any: ...
    def is_closed(self) -> bool: ...
    def terminate(self) -> None: ...
    async def close(self, *, timeout: float) -> None: ...


class Session(NamedTuple):
    """A connection, and the numbers of the definitions that were seen on it: another server may have others."""

    connection: Connection
    definitions: dict[tuple[str, int, str], int]


Dial: TypeAlias = Callable[[], Awaitable[Connection]]
Work: TypeAlias = Callable[[Session], Awaitable[T]]


class Line:
    """One connection at a time, for one caller at a time, in the order in which they came."""

    def __init__(self, dial: Dial, where: str) -> None:
        self._dial = dial
        self._where = where
        self._turn = asyncio.Lock()
        self._session: Session | None = None
        self._is_closed = False

    async def do(self, work: Work[T]) -> T:
        """Return what `work` returns; it may be called several times, but never after its outcome was in doubt."""
        if self._is_closed:
            raise StoreError(f"The store {self._where} is not open. Enter it with `async with` first.")
        async with self._turn:
            return await self._do(work)

    async def close(self) -> None:
        """Close the connection when everything that was given before is done."""
        self._is_closed = True
        async with self._turn:
            session, self._session = self._session, None
            if session is None:
                return
            try:
                await session.connection.close(timeout=_CLOSING_SECONDS)
            except Exception:  # noqa: BLE001 - it is of no use to anybody any more, however it ends
                session.connection.terminate()

    async def _do(self, work: Work[T]) -> T:
        for _ in range(_REPEATS_MAX):
            try:
                return await self._try(work)
            except Exception as error:
                if not is_repeatable(error):
                    raise
            await asyncio.sleep(random.uniform(0, _LONGEST_PAUSE_SECONDS))
        raise StoreUnavailable(
            f"{self._where} is too busy with conflicting work; nothing was written, {_REPEATS_MAX} times. Try again."
        )

    async def _try(self, work: Work[T]) -> T:
        session = self._session
        if session is None or session.connection.is_closed():
            session = self._session = await self._opened()
        try:
            return await work(session)
        except BaseException as error:
            if not keeps_the_connection(error):
                # Cancelled callers end here too: an answer to them must not be read by the next caller.
                self._session = None
                session.connection.terminate()
            if is_repeatable(error):
                raise
            better = translated(error, self._where)
            if better is error:
                raise
            raise better from error

    async def _opened(self) -> Session:
        try:
            return Session(await self._dial(), {})
        except Exception as error:
            better = unreached(error, self._where)
            if better is error:
                raise
            raise better from error


class Lines:
    """A few lines; a caller gets one that is free, the one that was used last if it can."""

    def __init__(self, dial: Dial, where: str, count: int) -> None:
        self._all = [Line(dial, where) for _ in range(count)]
        self._free = list(self._all)
        self._room = asyncio.Semaphore(count)

    async def do(self, work: Work[T]) -> T:
        """Do the same as `Line.do`."""
        async with self._room:
            line = self._free.pop()
            try:
                return await line.do(work)
            finally:
                self._free.append(line)

    async def close(self) -> None:
        """Close all, each when what it does is done."""
        for _ in self._all:
            await self._room.acquire()
        for line in self._all:
            await line.close()
        for _ in self._all:
            self._room.release()  # who comes now is told that they are closed
