"""Connections that may be lost: each is made when it is needed, dropped at the first doubt, and made anew.

Owns whose turn it is on a connection, and the repeating of what the database has turned down for conflicting with
other work: a statement, or the whole work if that is a transaction. It must not repeat anything whose outcome is
unknown. Called by the PostgreSQL store: a line for commits, a few for everything else, one for leases.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeAlias, TypeVar

from atone.errors import StoreError, StoreUnavailable
from atone.stores._postgres_errors import is_repeatable, keeps_the_connection, translated, unreached

T = TypeVar("T")

_REPEATS_MAX = 12
_FIRST_PAUSE_SECONDS = 0.002
_LONGEST_PAUSE_SECONDS = 0.2
_CLOSING_SECONDS = 2.0
_TOO_BUSY = "The database is too busy with conflicting work; nothing was written. Try again."


class Connection(Protocol):
    """What Atone uses of an asyncpg connection."""

    async def execute(self, query: str, *values: Any) -> str: ...
    async def fetch(self, query: str, *values: Any) -> list[Any]: ...
    async def fetchrow(self, query: str, *values: Any) -> Any: ...
    async def fetchval(self, query: str, *values: Any) -> Any: ...
    def transaction(self) -> Any: ...
    def is_in_transaction(self) -> bool: ...
    def is_closed(self) -> bool: ...
    def terminate(self) -> None: ...
    async def close(self, *, timeout: float) -> None: ...


class Session:
    """A connection, and what was seen on it: another server may have other numbers of definitions, and other births.

    `held_names` are those of sagas to which somebody else's open transaction gave birth when they were last asked for.

    Outside of a transaction a statement that was turned down is repeated here, and none that was done before it.
    """

    __slots__ = ("connection", "definitions", "held_names")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.definitions: dict[tuple[str, int, str], int] = {}
        self.held_names: set[tuple[str, str, str]] = set()

    async def rows(self, statement: str, *values: Any) -> list[Any]:
        """Return all rows of a statement."""
        return await self._repeated(self.connection.fetch, statement, values)

    async def row(self, statement: str, *values: Any) -> Any:
        """Return the first row, or None."""
        return await self._repeated(self.connection.fetchrow, statement, values)

    async def value(self, statement: str, *values: Any) -> Any:
        """Return the first value of the first row, or None."""
        return await self._repeated(self.connection.fetchval, statement, values)

    async def _repeated(self, call: Callable[..., Awaitable[T]], statement: str, values: tuple[Any, ...]) -> T:
        for repeats in range(_REPEATS_MAX):
            try:
                return await call(statement, *values)
            except Exception as error:
                if not is_repeatable(error) or self.connection.is_in_transaction():
                    raise
            await _pause(repeats)
        raise StoreUnavailable(_TOO_BUSY)


async def _pause(repeats: int) -> None:
    pause = min(_FIRST_PAUSE_SECONDS * 2**repeats, _LONGEST_PAUSE_SECONDS)
    await asyncio.sleep(random.uniform(pause / 2, pause))


Dial: TypeAlias = Callable[[], Awaitable[Connection]]
Work: TypeAlias = Callable[[Session], Awaitable[T]]


class _TransactionTurnedDown(Exception):
    """The database has rolled back a transaction that may succeed when it is done again."""


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
        for repeats in range(_REPEATS_MAX):
            try:
                return await self._try(work)
            except _TransactionTurnedDown:
                await _pause(repeats)
        raise StoreUnavailable(_TOO_BUSY)

    async def _try(self, work: Work[T]) -> T:
        session = self._session
        if session is None or session.connection.is_closed():
            session = self._session = await self._opened()
        try:
            return await work(session)
        except BaseException as error:
            if not keeps_the_connection(error):
                # Cancelled callers end here too: an answer to them must not be read by the next caller. At once, so
                # that the driver can't ask the server to cancel: a commit that waits for a standby would then be shown
                # as made without it, and be lost with the primary.
                self._session = None
                session.connection.terminate()
            if is_repeatable(error) and isinstance(error, Exception):
                raise _TransactionTurnedDown from error
            better = translated(error, self._where)
            if better is error:
                raise
            raise better from error

    async def _opened(self) -> Session:
        try:
            connection = await self._dial()
        except Exception as error:
            better = unreached(error, self._where)
            if better is error:
                raise
        else:
            return Session(connection)
        raise better from better.__cause__  # out here it has no other error behind it: that might quote the address


class Lines:
    """A few lines; a caller gets one that is free, the one that was used last if it can.

    Who has waited for `patience_seconds` is sent away: a queue that only grows must be heard of.
    """

    def __init__(self, dial: Dial, where: str, count: int, patience_seconds: float) -> None:
        self._where = where
        self._patience_seconds = patience_seconds
        self._all = [Line(dial, where) for _ in range(count)]
        self._free = list(self._all)
        self._room = asyncio.Semaphore(count)

    async def do(self, work: Work[T]) -> T:
        """Do the same as `Line.do`."""
        await self._until_free()
        line = self._free.pop()
        try:
            return await line.do(work)
        finally:
            self._free.append(line)
            self._room.release()

    async def _until_free(self) -> None:
        if not self._room.locked():  # the usual case needs no timer
            await self._room.acquire()
            return
        try:
            async with asyncio.timeout(self._patience_seconds):
                await self._room.acquire()
        except TimeoutError:
            raise StoreUnavailable(
                f"All {len(self._all)} connections to {self._where} were busy for {self._patience_seconds:g} s; "
                "nothing was sent. Try again; if it stays so, give the store more readers, or see what they wait for."
            ) from None

    async def close(self) -> None:
        """Close all, each when what it does is done."""
        for _ in self._all:
            await self._room.acquire()
        for line in self._all:
            await line.close()
        for _ in self._all:
            self._room.release()  # who comes now is told that they are closed
