"""The embedded broker: messages in a store's own database, so that no other server is needed. It is the default.

SQLite through apsw, PostgreSQL through asyncpg, each on connections of its own. A message is one row for each group
that has declared its topic, and gone when that group has settled it. What another process has published is found by
looking, which a hint makes sooner: a NOTIFY, or a look at whether the file has changed. Called through the port.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Generator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self
from urllib.parse import parse_qsl, urlencode

from atone.broker import Delivery, Message, Parked, Published
from atone.brokers._embedded_backend import Backend, Ending
from atone.brokers._embedded_gather import Gatherer
from atone.brokers._embedded_member import Member
from atone.brokers._embedded_news import tell
from atone.errors import BrokerClosed, BrokerError, BrokerUnavailable, StoreClosed, StoreError, StoreUnavailable
from atone.stores import read_postgres_url, refuse_without_asyncpg, sqlite_path
from atone.stores._address import POSTGRES, scheme_of, without_secrets

PATIENCE_SECONDS = 30.0
MESSAGE_BYTES_MAX = 1024 * 1024
_PATIENCE = "patience_seconds"


class EmbeddedBroker:
    """Carry messages in the database of a store, which `url` names as for `open_store`.

    `patience_seconds` is how long a member may hold a message before another is given it; `?patience_seconds=` in the
    URL is the same. Make it longer than your longest handler. What is published while nobody has declared its topic is
    gone, and said to be.
    """

    def __init__(
        self, url: str, *, patience_seconds: float = PATIENCE_SECONDS, message_bytes_max: int = MESSAGE_BYTES_MAX
    ) -> None:
        with _as_a_brokers():
            url, asked_seconds = _without_patience(url)
            self._backend = _backend(url)
            self._where = without_secrets(url)
        self._patience_seconds = patience_seconds if asked_seconds is None else asked_seconds
        self._message_bytes_max = message_bytes_max
        self._publishing: Gatherer[Message, bool] = Gatherer(self._backend.publish)
        self._ending: Gatherer[Ending, None] = Gatherer(self._end_all)
        self._members: set[Member] = set()
        self._is_open = False

    @property
    def message_bytes_max(self) -> int:
        """See `Broker`."""
        return self._message_bytes_max

    async def __aenter__(self) -> Self:
        if self._is_open:
            raise BrokerError(f"The broker {self._where} is already open; give each user an object of its own.")
        with _as_a_brokers():
            await self._backend.open()
        self._is_open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._is_open:
            return
        self._is_open = False
        closing = asyncio.create_task(self._close(), name="atone-broker-close")
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:
            await asyncio.wait({closing})  # cut short, it would leave connections, and messages that nobody else gets
            raise

    async def _close(self) -> None:
        await self._ending.settle()
        await self._publishing.settle()
        for member in list(self._members):
            await member.give_back_all()
        self._members.clear()
        with _as_a_brokers():
            await self._backend.close()

    async def publish(self, messages: Sequence[Message]) -> Sequence[Published]:
        """See `Broker`."""
        self._check_open()
        fitting = [message for message in messages if len(message.body) <= self._message_bytes_max]
        heard: dict[str, bool] = {}
        if fitting:
            with _as_a_brokers():
                results = await self._publishing.give(fitting)
            heard = {message.topic: result for message, result in zip(fitting, results, strict=True)}
            tell(self._backend.place)
        return [self._became(message, heard) for message in messages]

    async def declare(self, group: str, topics: Collection[str]) -> None:
        """See `Broker`."""
        self._check_open()
        with _as_a_brokers():
            await self._backend.declare(group, topics)

    async def deliveries(self, group: str, *, in_flight: int = 100) -> AsyncIterator[Delivery]:
        """See `Broker`."""
        self._check_open()
        with _as_a_brokers():
            is_known = await self._backend.knows(group)
        if not is_known:
            raise BrokerError(f"Group {group!r} has declared nothing. Declare what it is to hear first.")
        member = Member(self._backend, group, in_flight, self._patience_seconds, self._end)
        self._members.add(member)
        try:
            while (delivery := await member.next()) is not None:
                yield delivery
        finally:
            await member.leave()

    async def parked(self, group: str, *, limit: int = 100) -> Sequence[Parked]:
        """See `Broker`."""
        self._check_open()
        with _as_a_brokers():
            return await self._backend.parked(group, limit)

    async def unpark(self, group: str, message_id: str) -> bool:
        """See `Broker`."""
        self._check_open()
        with _as_a_brokers():
            was_there = await self._backend.unpark(group, message_id)
        tell(self._backend.place)
        return was_there

    async def _end(self, ending: Ending) -> None:
        self._check_open()
        with _as_a_brokers():
            await self._ending.give([ending])

    async def _end_all(self, endings: Sequence[Ending]) -> Sequence[None]:
        await self._backend.end(endings)
        return [None] * len(endings)

    def _became(self, message: Message, heard: dict[str, bool]) -> Published:
        if len(message.body) > self._message_bytes_max:
            return Published.REFUSED
        return Published.DURABLE if heard[message.topic] else Published.NOBODY

    def _check_open(self) -> None:
        if not self._is_open:
            raise BrokerClosed(f"The broker {self._where} is not open. Enter it with `async with` first.")


def _without_patience(url: str) -> tuple[str, float | None]:
    address, separator, query = url.rpartition("?")
    given = dict(parse_qsl(query, keep_blank_values=True)) if separator else {}
    if _PATIENCE not in given:
        return url, None
    try:
        url.encode()
        seconds = float(given.pop(_PATIENCE))
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 10**9:
        raise BrokerError(f"{_PATIENCE} is a number of seconds above 0. Write {_PATIENCE}=30, or leave it out.")
    return (f"{address}?{urlencode(given)}" if given else address), seconds


def _backend(url: str) -> Backend:
    """Return the messages in a store's database; the driver is imported only now."""
    if scheme_of(url) in POSTGRES:
        refuse_without_asyncpg()
        from atone.brokers._embedded_postgres import PostgresMessages

        dsn, schema, options = read_postgres_url(url)
        return PostgresMessages(dsn, schema, options["statement_cache_size"], notify=options["notify"])
    from atone.brokers._embedded_sqlite import SqliteMessages

    return SqliteMessages(sqlite_path(url.removeprefix("sqlite://")))


@contextmanager
def _as_a_brokers() -> Generator[None, None, None]:
    """Tell a store's errors as a broker's."""
    try:
        yield
    except StoreUnavailable as error:
        raise BrokerUnavailable(str(error)) from error
    except StoreClosed as error:
        raise BrokerClosed(str(error)) from error
    except StoreError as error:
        raise BrokerError(str(error)) from error
