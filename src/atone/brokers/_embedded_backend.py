"""What the embedded broker needs of a database: a few calls on rows of messages, the same for SQLite and PostgreSQL.

A row is ready, waits until a time, or is parked; who holds it is written in it, so that nothing is found or lost by a
number that was seen last. Must not know an iterator or a task. Implemented beside this for each database; called by the
broker.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from enum import Enum, auto
from typing import Any, NamedTuple, Protocol

from atone.broker import Message, Parked
from atone.errors import StoreError
from atone.stores._messages import headers_of_text


class Taken(NamedTuple):
    """A message that a member has taken."""

    seq: int
    message: Message
    attempt: int


class Claim(NamedTuple):
    """What a member was given. Without anything, `wait_seconds` says when something becomes due, if that is known."""

    taken: Sequence[Taken]
    wait_seconds: float | None = None


class How(Enum):
    """How a delivery ends."""

    ACK = auto()
    RETRY = auto()
    PARK = auto()


class Ending(NamedTuple):
    """The end of a delivery; `value` is the reason of a parked one, `seconds` when a retry may come."""

    how: How
    seq: int
    holder: str
    seconds: float = 0.0
    reason: str = ""


class Backend(Protocol):
    """Messages in a database. Errors are those of a store."""

    place: str  # the same for all who use the same messages, and without a secret

    async def open(self) -> None:
        """Connect, and see that the tables are there."""
        ...

    async def close(self) -> None:
        """Disconnect."""
        ...

    async def publish(self, messages: Sequence[Message]) -> Sequence[bool]:
        """Write messages for the groups that have declared them; whether there was one, for each."""
        ...

    async def declare(self, group: str, topics: Collection[str]) -> None:
        """Have a group hear topics."""
        ...

    async def knows(self, group: str) -> bool:
        """Whether a group has declared anything."""
        ...

    async def claim(self, group: str, holder: str, limit: int, patience_seconds: float) -> Claim:
        """Take messages in their order, and nothing of a key of which another member holds an earlier one."""
        ...

    async def extend(self, holder: str, seqs: Sequence[int], patience_seconds: float) -> Collection[int]:
        """Hold messages anew, and return which of them were still the holder's."""
        ...

    async def end(self, endings: Sequence[Ending]) -> None:
        """Settle, give back or set aside."""
        ...

    async def give_back(self, holder: str, *, keep: Collection[int], seen: bool) -> None:
        """Give back what a holder has, except `keep`; what nobody has `seen` was no attempt."""
        ...

    async def parked(self, group: str, limit: int) -> Sequence[Parked]:
        """Return what is set aside, oldest first."""
        ...

    async def unpark(self, group: str, message_id: str) -> bool:
        """Make parked messages of that id ready again; whether there was one."""
        ...


def headers_out(headers: Mapping[str, str]) -> str:
    """Return headers as a database may hold them: ASCII, whatever is in them."""
    return json.dumps(dict(headers), separators=(",", ":")) if headers else "{}"


def key_out(key: str) -> bytes:
    """Return a key as bytes; a database's text may refuse some of them."""
    return key.encode("utf-8", "surrogatepass")


def reason_out(reason: str) -> str:
    """Return a reason as a database may hold it."""
    return reason.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def message_of(number: str, topic: str, key: bytes, body: bytes, headers: str) -> Message:
    """Return a message as it was published.

    Raises:
        StoreError: Its row can't be read.
    """
    try:
        text = key.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        raise StoreError(f"The key of message {number!r} can't be read. Correct its row, or delete it.") from None
    return Message(number, topic, text, body, headers_of_text(headers))


def taken_of(row: Sequence[Any]) -> Taken:
    """Return what (seq, attempts, id, topic, key, body, headers) is."""
    return Taken(row[0], message_of(*row[2:7]), row[1])
