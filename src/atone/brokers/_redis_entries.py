"""What stands in Redis: the names of keys, how a message is an entry of a stream, and an entry in somebody's hands.

Owns names and fields, which are a stored format. Must not speak to the server. Called by the other parts of the Redis
adapter.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from atone.broker import Message
from atone.brokers._texts import whole_number

_HEADER = "h:"


class Places(NamedTuple):
    """Names of the keys of one group."""

    prefix: str
    group: str

    def topic(self, topic: str) -> str:
        """Name the stream of a topic, which all groups read."""
        return f"{self.prefix}:topic:{topic}"

    @property
    def topics(self) -> str:
        """Name the set of what the group has declared."""
        return self._own("topics")

    @property
    def again(self) -> str:
        """Name the stream of what only this group gets, once more."""
        return self._own("again")

    @property
    def later(self) -> str:
        """Name the stream of what waits until it is due."""
        return self._own("later")

    @property
    def due(self) -> str:
        """Name the sorted set of due times, by the server's clock."""
        return self._own("due")

    @property
    def parked(self) -> str:
        """Name the dead-letter stream."""
        return self._own("parked")

    @property
    def sweep(self) -> str:
        """Name the note that somebody is looking after the group just now."""
        return self._own("sweep")

    def _own(self, what: str) -> str:
        return f"{self.prefix}:group:{self.group}:{what}"


class Ends(Protocol):
    """Who knows how to end a delivery."""

    async def ack(self, one: RedisDelivery) -> None:
        """Settle it."""
        ...

    async def retry(self, one: RedisDelivery, after_seconds: float) -> None:
        """Have it come again."""
        ...

    async def park(self, one: RedisDelivery, reason: str) -> None:
        """Put it into the dead-letter stream."""
        ...


class RedisDelivery:
    """An entry in the hands of one member."""

    def __init__(
        self, ends: Ends, places: Places, stream: str, entry: str, fields: Mapping[bytes, bytes], given: int
    ) -> None:
        self._ends = ends
        self.stream = stream
        self.entry = entry
        self.since = time.monotonic()
        self._message = message_of(places, stream, entry, fields)
        self._attempt = attempts_of(fields) + given

    @property
    def message(self) -> Message:
        """The message as it was published."""
        return self._message

    @property
    def attempt(self) -> int:
        """How often the group has been given it."""
        return self._attempt

    async def ack(self) -> None:
        """Settle it."""
        await self._ends.ack(self)

    async def retry(self, *, after_seconds: float = 0.0) -> None:
        """Give it back, not to come before then."""
        await self._ends.retry(self, after_seconds)

    async def park(self, reason: str) -> None:
        """Put it into the group's dead-letter stream."""
        await self._ends.park(self, reason)


def fields_of(message: Message) -> list[Any]:
    """Return a message as names and values."""
    fields: list[Any] = ["id", message.id, "key", message.key, "body", message.body]
    for name, value in message.headers.items():
        fields += (_HEADER + name, value)
    return fields


def message_of(places: Places, stream: str, entry: str, fields: Mapping[bytes, bytes]) -> Message:
    """Read a message; what another publisher has left out is empty, and its id is the entry's."""
    texts = {name.decode("utf-8", "replace"): value for name, value in fields.items()}

    def text(name: str, otherwise: str = "") -> str:
        return texts[name].decode("utf-8", "replace") if name in texts else otherwise

    id_ = text("~id") or text("id")
    usable = 0 < len(id_) <= 200 and id_.isascii() and id_.isprintable()
    return Message(
        id=id_ if usable else entry,
        topic=text("~topic") or stream.removeprefix(places.topic("")),
        key=text("key"),
        body=texts.get("body", b""),
        headers={name.removeprefix(_HEADER): text(name) for name in texts if name.startswith(_HEADER)},
    )


def attempts_of(fields: Mapping[bytes, bytes]) -> int:
    """Return how often the group had been given it before it came to this stream."""
    return whole_number(fields.get(b"~attempts", b"0").decode("latin-1"), 0)
