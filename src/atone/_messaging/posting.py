"""What a relay has claimed, published: in order for each key, and nothing ahead of what has to wait.

Owns the calls to the broker's `publish`, the judgement of their outcomes, and what is said of messages that wait or are
set aside. Must not call the outbox, nor try again what failed as a whole: that is the relay's, which calls this.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from atone._messaging import headers
from atone.broker import Broker, Message, Outgoing, Published
from atone.errors import BrokerClosed, BrokerError, BrokerUnavailable

log = logging.getLogger("atone.relay")

_TOPICS_TOLD_MAX = 1000
_TOPICS_HEARD_MAX = 10_000

Outcome: TypeAlias = Published | str | None  # a text: why it can never be published; None: it waits, and was not lost


class RelayObserver(Protocol):
    """Hears what a relay does."""

    def relayed(self, published: int, refused: int, unheard: int) -> None:
        """A batch is over: so many are with the broker, are set aside, and wait because nobody listens."""
        ...

    def relay_failed(self, where: str) -> None:
        """A call to the broker or to the store (the word says which), or its own work, failed; it is tried again."""
        ...


class Guarded:
    """Passes on to an observer, if there is one; its mistakes are told once, and hold up no message."""

    def __init__(self, observer: RelayObserver | None) -> None:
        self._observer = observer
        self._has_failed = False

    def relayed(self, published: int, refused: int, unheard: int) -> None:
        """See `RelayObserver`."""
        self._tell(lambda observer: observer.relayed(published, refused, unheard))

    def relay_failed(self, where: str) -> None:
        """See `RelayObserver`."""
        self._tell(lambda observer: observer.relay_failed(where))

    def _tell(self, what: Callable[[RelayObserver], None]) -> None:
        if self._observer is None:
            return
        try:
            what(self._observer)
        except Exception as error:  # noqa: BLE001 - as said
            if not self._has_failed:
                log.error("the relay's observer fails; mend it: %s", type(error).__name__)  # noqa: TRY400 - as with all
            self._has_failed = True


class Report(NamedTuple):
    """What is to be told the outbox with the next call."""

    published: tuple[int, ...] = ()
    refused: dict[int, str] | None = None


class Posting:
    """Publishes claims to `broker`, one after the other.

    The broker is given in one call what can't overtake anything: all of a claim, once each of its topics was heard.
    Behind a message whose topic nobody is known to hear, its key waits until the outcome is known; that holds unless
    the topic was heard before, by this object, and is not any more.
    """

    def __init__(self, broker: Broker, observer: RelayObserver) -> None:
        self._broker, self._observer = broker, observer
        self._heard: set[str] = set()
        self._told: set[str] = set()

    async def publish(self, messages: Sequence[Message]) -> Sequence[Outcome]:
        """Publish together what is sure, then what comes behind; behind one that nobody hears, its key waits (None).

        Raises:
            BrokerUnavailable: Any of them may have been published, or not; publish them all again.
        """
        outcomes: list[Outcome] = [None] * len(messages)
        places: Collection[int] = range(len(messages))
        while places:
            now = self._sure(messages, places)
            held: set[str] = set()
            for place, outcome in zip(now, await self._publish_together([messages[at] for at in now]), strict=True):
                outcomes[place] = outcome
                if self._holds(messages[place], outcome):
                    held.add(messages[place].key)
            gone = set(now)
            places = [place for place in places if place not in gone and messages[place].key not in held]
        return outcomes

    def _sure(self, messages: Sequence[Message], places: Collection[int]) -> list[int]:
        """Return what may be published in one call: of each key, up to the first that may turn out to be unheard."""
        sure: list[int] = []
        ends: set[str] = set()
        for place in places:
            message = messages[place]
            if message.key in ends:
                continue
            sure.append(place)
            if message.topic not in self._heard and not _may_go_unheard(message):
                ends.add(message.key)
        return sure

    def _holds(self, message: Message, outcome: Outcome) -> bool:
        """Tell whether what comes behind the message has to wait, and remember whether its topic is heard."""
        if outcome is Published.DURABLE:
            if len(self._heard) >= _TOPICS_HEARD_MAX:
                self._heard.clear()  # those in use are learned again
            self._heard.add(message.topic)
        elif outcome is Published.NOBODY:
            self._heard.discard(message.topic)
        return outcome is None or (outcome is Published.NOBODY and not _may_go_unheard(message))

    async def _publish_together(self, messages: Sequence[Message]) -> Sequence[Outcome]:
        try:
            return await self._broker.publish(messages)
        except (BrokerUnavailable, BrokerClosed):
            raise
        except Exception as error:  # noqa: BLE001 - a message that the adapter chokes on must not hold up the others
            log.warning("the broker's adapter failed on a batch (%s); trying each alone", type(error).__name__)
            return await self._publish_each(messages)

    async def _publish_each(self, messages: Sequence[Message]) -> Sequence[Outcome]:
        """Publish each alone; behind one that has to wait, its key waits (None)."""
        outcomes: list[Outcome] = []
        held: set[str] = set()
        for message in messages:
            outcome = None if message.key in held else await self._publish_alone(message)
            if self._holds(message, outcome):
                held.add(message.key)
            outcomes.append(outcome)
        return outcomes

    async def _publish_alone(self, message: Message) -> Outcome:
        """Publish one message; return the reason if the adapter can't even send it, None if somebody may mend it."""
        try:
            (outcome,) = await self._broker.publish([message])
        except (BrokerUnavailable, BrokerClosed):
            raise
        except BrokerError as error:  # such as a topic that may not be made: no reason for other topics to wait
            if self._is_news(message.topic):
                text = "messages to %s can't be published, wait, and are tried again: %s"
                log.error(text, message.topic, error)  # noqa: TRY400 - where it comes from says nothing
            self._observer.relay_failed("broker")
            return None
        except Exception as error:  # noqa: BLE001 - it would fail at every try
            return f"the broker's adapter can't publish it: {type(error).__name__}"
        return outcome

    def report(self, outgoing: Sequence[Outgoing], outcomes: Sequence[Outcome]) -> Report:
        """Return what the outbox is to be told of a claim, and tell of what waits or is set aside."""
        published: list[int] = []
        refused: dict[int, str] = {}
        unheard: list[Message] = []
        for one, outcome in zip(outgoing, outcomes, strict=True):
            if outcome is Published.DURABLE or (outcome is Published.NOBODY and _may_go_unheard(one.message)):
                published.append(one.ref)
            elif outcome is Published.NOBODY:
                unheard.append(one.message)
            elif outcome is Published.REFUSED:
                most = self._broker.message_bytes_max
                refused[one.ref] = f"the broker refused it: {len(one.message.body)} bytes, and it takes {most}"
            elif outcome is not None:
                refused[one.ref] = outcome
        self._tell(unheard, outgoing, refused)
        self._observer.relayed(len(published), len(refused), len(unheard))
        return Report(tuple(published), refused)

    def _tell(self, unheard: Sequence[Message], outgoing: Sequence[Outgoing], refused: dict[int, str]) -> None:
        for topic in {message.topic for message in unheard}:
            if self._is_news(topic):
                log.warning("nobody has declared to hear %s: what is sent there waits until somebody has", topic)
        for one in outgoing:
            if one.ref in refused:
                log.error("message %s to %s is set aside: %s", one.message.id, one.message.topic, refused[one.ref])

    def _is_news(self, topic: str) -> bool:
        """Tell whether nothing was said yet of what waits for this topic."""
        if topic in self._told or len(self._told) >= _TOPICS_TOLD_MAX:
            return False
        self._told.add(topic)
        return True


def _may_go_unheard(message: Message) -> bool:
    """Tell whether nobody need ever hear it: lifecycle events are for whoever happens to listen."""
    return message.headers.get(headers.KIND) == headers.LIFECYCLE
