"""Redis and Valkey as a broker: a stream for each topic, a consumer group for each group, and durable retries.

Owns what is published and declared; `_redis_member` owns what is delivered. As durable as the server: run it with
`appendonly yes` and `appendfsync always`, or a power cut takes the last second with it; and never with an eviction
policy. One server of Redis 7 or Valkey 7.2 and newer; no cluster. Called through `open_broker`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from atone.broker import Delivery, Message, Parked, Published
from atone.brokers import _redis_scripts as scripts
from atone.brokers._hosts import hosts_of
from atone.brokers._redis_calls import Calls, Command
from atone.brokers._redis_entries import Places, attempts_of, fields_of, message_of
from atone.brokers._redis_member import Member
from atone.brokers._texts import whole_number
from atone.errors import BrokerError

_EXAMPLE = "redis://user:password@host:6379/0"
_OPTIONS = frozenset({"prefix", "patience_seconds", "hold_seconds", "message_bytes_max"})
_PIPELINED_MAX = 500
_PIPELINED_BYTES_MAX = 4 * 1024 * 1024
_PAGE = 500


class RedisBroker:
    """A broker on Redis or Valkey Streams: redis://user:password@host:6379/0, or rediss:// for TLS.

    Options: `prefix` (atone) begins all keys; `patience_seconds` (30), when others may have what a member was given
    that died or can't reach the server; `hold_seconds` (1800), how long a living member may keep a delivery before it
    is treated in the same way; `message_bytes_max` (16 MiB; the server's own bound is 512 MB).

    Keys, below `prefix`: `topic:T` is the stream of a topic, made when a group first declares it; what nobody has
    declared is not kept. `group:G:...` are a group's own: `topics` (a set), `again` (a stream of what comes once more),
    `later` and `due` (what waits until then), and `parked` (the dead letters). An entry goes from one to another in one
    step. A topic's entries are removed when every group has ended them; a group that is no more must be removed by
    hand (XGROUP DESTROY), or its topics grow.
    """

    def __init__(self, url: str) -> None:
        """Take the URL; nothing is connected yet.

        Raises:
            BrokerError: The URL can't be read.
        """
        hosts = hosts_of(url, _EXAMPLE, 6379, _OPTIONS)
        database = hosts.path.strip("/") or "0"
        number = whole_number(database, -1)
        if len(hosts.hosts) != 1 or number < 0:
            raise BrokerError(f"A Redis URL names one host and a database's number. Write one like {_EXAMPLE}.")
        self._calls = Calls(hosts, database=number, tls=url.startswith("rediss:"))
        self._prefix = hosts.options.get("prefix", "atone")
        self._patience_seconds = hosts.number("patience_seconds", 30.0, least=0.1)
        self._hold_seconds = hosts.number("hold_seconds", 1800.0, least=0.1)
        self._message_bytes_max = hosts.number("message_bytes_max", 16 * 1024**2, least=1)
        self._members: set[Member] = set()

    @property
    def message_bytes_max(self) -> int:
        """The largest body that is taken."""
        return self._message_bytes_max

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            BrokerUnavailable: The server can't be reached, or lets nobody in with this password.
        """
        await self._calls.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give back what nobody has ended, and disconnect."""
        try:
            for member in tuple(self._members):
                await member.leave()
        finally:
            self._members.clear()
            await self._calls.close()

    async def publish(self, messages: Sequence[Message]) -> Sequence[Published]:
        """Publish in this order; the server answers when its file has them, if it is set up so.

        Raises:
            BrokerUnavailable: Any of them may have been published, or not; publish them all again.
        """
        outcomes = [Published.REFUSED] * len(messages)
        for places in self._lots(messages):
            for place, answer in zip(places, await self._calls.many([self._add(messages[at]) for at in places]),
                                     strict=True):  # fmt: skip
                outcomes[place] = Published.NOBODY if self._calls.checked(answer) is None else Published.DURABLE
        return outcomes

    def _lots(self, messages: Sequence[Message]) -> Iterator[list[int]]:
        """Divide what is not too large into lots that one pipeline carries."""
        lot: list[int] = []
        size = 0
        for place, message in enumerate(messages):
            if len(message.body) > self._message_bytes_max:
                continue
            if lot and (len(lot) == _PIPELINED_MAX or size + len(message.body) > _PIPELINED_BYTES_MAX):
                yield lot
                lot, size = [], 0
            lot.append(place)
            size += len(message.body)
        if lot:
            yield lot

    def _add(self, message: Message) -> Command:
        return ("XADD", self._places("").topic(message.topic), "NOMKSTREAM", "*", *fields_of(message))

    async def declare(self, group: str, topics: Collection[str]) -> None:
        """Have a group hear these topics from now on, and what others have left in their streams."""
        places = self._places(group)
        streams = [places.again, *(places.topic(topic) for topic in topics)]
        answers = await self._calls.many([("XGROUP", "CREATE", one, group, "0", "MKSTREAM") for one in streams])
        for answer in answers:
            if not (isinstance(answer, Exception) and "BUSYGROUP" in str(answer)):
                self._calls.checked(answer)
        if topics:
            await self._calls.one("SADD", places.topics, *topics)

    def deliveries(self, group: str, *, in_flight: int = 100) -> AsyncIterator[Delivery]:
        """Yield what the group is to hear; `aclose` gives back what was taken ahead.

        Raises:
            BrokerError: The group has declared nothing.
        """

        async def declare(topics: Sequence[str]) -> None:
            await self.declare(group, topics)

        member = Member(
            self._calls, self._places(group), in_flight=in_flight, patience_seconds=self._patience_seconds,
            hold_seconds=self._hold_seconds, declare=declare, left=self._members.discard,
        )  # fmt: skip
        self._members.add(member)
        return member

    async def parked(self, group: str, *, limit: int = 100) -> Sequence[Parked]:
        """Return what is in the group's dead-letter stream, oldest first."""
        found: Any = await self._calls.one("XRANGE", self._places(group).parked, "-", "+", "COUNT", limit)
        return [self._parked(group, entry.decode(), fields) for entry, fields in found]

    def _parked(self, group: str, entry: str, fields: dict[bytes, bytes]) -> Parked:
        places = self._places(group)
        message = message_of(places, places.parked, entry, fields)
        reason = fields.get(b"~reason", b"").decode("utf-8", "replace")
        return Parked(message, reason, attempts_of(fields), int(entry.partition("-")[0]) / 1000)

    async def unpark(self, group: str, message_id: str) -> bool:
        """Give a parked message to the group again; whether it was there."""
        places = self._places(group)
        start, entries = "-", list[str]()
        while True:
            page: Any = await self._calls.one("XRANGE", places.parked, start, "+", "COUNT", _PAGE)
            read = [(entry.decode(), fields) for entry, fields in page]
            entries += [entry for entry, fields in read if self._parked(group, entry, fields).message.id == message_id]
            if len(read) < _PAGE:
                break
            start = f"({read[-1][0]}"
        return bool(entries) and bool(await self._calls.script(scripts.UNPARK, (places.parked, places.again), *entries))

    def _places(self, group: str) -> Places:
        return Places(self._prefix, group)
