"""The broker port: what carries messages between services, at least once and in no promised order.

A broker knows topics, and groups that have declared what they want to hear; each group gets each message, and of its
members one. `atone.testing.broker_contract` holds the suite that defines the port; the adapters in `atone.brokers` pass
it against real servers. A message that was published may come twice, late, and after a newer one; it must not be lost
unless the server loses its disk. Errors: `BrokerUnavailable` means that the outcome is unknown, so publish again.
Called by the relay, by participants, and by what hears the replies to commands.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType, TracebackType
from typing import NamedTuple, Protocol, Self, runtime_checkable

NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Message(NamedTuple):
    """What is carried.

    `id` is the same whenever the message is published again (1 to 200 characters, printable ASCII). `topic`: dotted
    lower-case words such as "inventory.reserved" (1 to 200 characters of a-z, 0-9, `.`, `-`, `_`). `key`: messages with
    the same one are published in order (a saga's identity; may be empty). `headers` are texts by lower-case names.
    """

    id: str
    topic: str
    key: str
    body: bytes
    headers: Mapping[str, str] = NO_HEADERS


class Published(StrEnum):
    """What became of one message.

    DURABLE: the broker has it, on disk as far as the server is set up so. NOBODY: no group has declared the topic and
    this broker keeps nothing for later ones, so it is gone; publish it again later if somebody should hear it. REFUSED:
    it is too large for the broker, and always will be.
    """

    DURABLE = "durable"
    NOBODY = "nobody"
    REFUSED = "refused"


class Delivery(Protocol):
    """A message in the hands of one member of a group. Exactly one of `ack`, `retry` and `park` ends it.

    Who does none of them gets it again, there or elsewhere, once the connection is gone or the broker's patience is.
    """

    @property
    def message(self) -> Message:
        """The message as it was published; one that did not come from a publisher of Atone has an id of the broker's
        own, and what there is of the rest.
        """
        ...

    @property
    def attempt(self) -> int:
        """How often the group has been given it, this time included, as far as the broker knows; at least 1."""
        ...

    async def ack(self) -> None:
        """Settle it: the group never needs it again. Call this after your commit, never before."""
        ...

    async def retry(self, *, after_seconds: float = 0.0) -> None:
        """Give it back: it comes again, not before `after_seconds`, and others may come meanwhile."""
        ...

    async def park(self, reason: str) -> None:
        """Put it into the group's dead-letter place with the reason; it stays there until a person decides."""
        ...


@runtime_checkable
class Doubtful(Protocol):
    """What a delivery may have beside the port, if its broker does not count what a member had that is gone."""

    @property
    def is_doubtful(self) -> bool:
        """Whether a member that is gone may have had it, so that `attempt` may be too low."""
        ...


class Parked(NamedTuple):
    """A message in a group's dead-letter place. `at`: epoch seconds by the broker's clock."""

    message: Message
    reason: str
    attempts: int
    at: float


class Broker(Protocol):
    """What carries messages. Entering connects, and fails if the server can't be reached; leaving disconnects.

    A connection that is lost later is made again for as long as the broker is open. All methods may raise
    `BrokerUnavailable`, and `BrokerClosed` when the object is not open.
    """

    @property
    def message_bytes_max(self) -> int:
        """The largest body that is taken; a larger one is REFUSED."""
        ...

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            BrokerUnavailable: The server can't be reached, with where it was looked for and without a password.
        """
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect. Deliveries that nobody has ended are given again, elsewhere."""
        ...

    async def publish(self, messages: Sequence[Message]) -> Sequence[Published]:
        """Publish in this order, and return what became of each, once the server has confirmed them all.

        Raises:
            BrokerUnavailable: Any of them may have been published, or not; publish them all again.
        """
        ...

    async def declare(self, group: str, topics: Collection[str]) -> None:
        """Have a group hear these topics from now on, durably; those declared before stay. Repeating it is harmless.

        A new group hears what is published after this; a broker that keeps messages may give it older ones too.
        """
        ...

    def deliveries(self, group: str, *, in_flight: int = 100) -> AsyncIterator[Delivery]:
        """Yield what the group is to hear, for as long as the broker is open; at most `in_flight` are not ended.

        Several members of a group share its messages, in one process or many. Closing the iterator gives back what it
        has taken ahead.

        Raises:
            BrokerError: The group has declared nothing.
        """
        ...

    async def parked(self, group: str, *, limit: int = 100) -> Sequence[Parked]:
        """Return what is in the group's dead-letter place, oldest first."""
        ...

    async def unpark(self, group: str, message_id: str) -> bool:
        """Give a parked message to the group again; whether it was there."""
        ...


class Outgoing(NamedTuple):
    """A message that waits in an outbox. `ref` names its row; `at` is when it was written, by the outbox's clock."""

    ref: int
    message: Message
    at: float


class Relayed(NamedTuple):
    """What an outbox gives to a relay: messages that are this relay's until its time is over, and its clock."""

    messages: tuple[Outgoing, ...]
    now: float


class Outbox(Protocol):
    """Where messages wait until a broker has them: written with the change that they tell of, in one transaction."""

    async def relay(
        self, relay: str, *, published: Collection[int], refused: Mapping[int, str], limit: int, lease_seconds: float
    ) -> Relayed:
        """Forget what is published, set aside what is refused (with why), and claim what waits; in one call.

        Claimed are at most `limit` messages, oldest first, for `lease_seconds`; of one key all earlier ones are gone,
        or come before it in the same answer. What is claimed is left out until its time is over, together with all
        that follows with the same key. Rows are claimed by what is written in them, never by a number that was seen
        last: what commits late is found all the same.

        `relay` names the call rather than the caller. Who had no answer calls again under the same name, and is given
        what it has claimed; with each new name, what I have claimed before and name neither as published nor as refused
        stays claimed, and comes again when its time is over.

        A `ref` is never used again, and naming one that is gone is harmless. What is set aside holds up nothing: its
        key goes on without it.
        """
        ...
