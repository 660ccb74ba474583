"""The relay: takes what waits in an outbox to a broker, at least once and in order for each key, while it is open.

Owns the loop, its pauses and what it says of trouble. Nothing is lost with it: what it has claimed and not named as
published is claimed again, by itself or by another relay. Must not make or read a message's body, nor judge a saga. Run
by the orchestrator's workers and by participants, each on the outbox of its own database; the broker is open already.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from time import monotonic
from typing import NamedTuple, Protocol, TypeVar
from uuid import uuid4

from atone._messaging import headers
from atone.broker import Broker, Message, Outbox, Outgoing, Published, Relayed
from atone.errors import AtoneError, BrokerClosed, BrokerError, BrokerUnavailable, StoreClosed, StoreUnavailable

log = logging.getLogger("atone.relay")

T = TypeVar("T")

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 5.0
_LONGEST_CLAIM_SECONDS = 600.0
_TOPICS_TOLD_MAX = 1000


class RelayObserver(Protocol):
    """Hears what a relay does."""

    def relayed(self, published: int, refused: int, unheard: int) -> None:
        """A batch is over: so many are with the broker, are set aside, and wait because nobody listens."""
        ...

    def relay_failed(self, where: str) -> None:
        """A call to the broker or to the store (the word says which) failed, and is made again."""
        ...


class _Report(NamedTuple):
    """What is to be told the outbox with the next call."""

    published: tuple[int, ...] = ()
    refused: dict[int, str] | None = None


class _Ended(Exception):
    """The relay is closing, or what it stands on is closed."""


class Relay:
    """Publishes what waits in `outbox`; `start` it once `broker` is open, and `close` it before either is closed.

    At most `batch` messages are in its hands at a time, for `lease_seconds`; after that another relay may publish them
    too, and they are tried again here. An empty outbox is looked at again after `poll_seconds` at first, and at most
    after `poll_seconds_max`, or at once after a `nudge`. A message that nobody has declared to hear waits, unless it
    is a lifecycle event.
    """

    def __init__(
        self,
        outbox: Outbox,
        broker: Broker,
        *,
        batch: int = 250,
        lease_seconds: float = 5.0,
        poll_seconds: float = 0.1,
        poll_seconds_max: float = 1.0,
        observer: RelayObserver | None = None,
    ) -> None:
        self._outbox, self._broker, self._observer = outbox, broker, observer
        self._batch, self._lease_seconds = batch, lease_seconds
        self._poll_seconds, self._poll_seconds_max = poll_seconds, poll_seconds_max
        self._name, self._calls = uuid4().hex, count(1)
        self._wanted = asyncio.Event()
        self._ending = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._last_claim_at = float("inf")
        self._in_trouble: set[str] = set()
        self._unheard: set[str] = set()
        self._unheard_since: float | None = None

    def start(self) -> None:
        """Begin to relay."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="atone-relay")

    def nudge(self) -> None:
        """Look at once: something was written here a moment ago."""
        self._wanted.set()

    async def close(self, *, grace_seconds: float = 5.0) -> None:
        """Publish what waits, for half of `grace_seconds` and unless something fails, name it to the outbox, and stop.

        After `grace_seconds` stop at once.
        """
        self._last_claim_at = monotonic() + grace_seconds / 2
        self._ending.set()
        self._wanted.set()
        if self._task is None:
            return
        _, late = await asyncio.wait({self._task}, timeout=grace_seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        report, idle_seconds = _Report(), self._poll_seconds
        try:
            while True:
                self._wanted.clear()
                since = monotonic()
                claimed = await self._persist("store", self._call_outbox(report))
                if self._ending.is_set() and not claimed.messages:
                    return
                if claimed.messages:
                    idle_seconds = self._poll_seconds
                    report = await self._publish(claimed.messages, since + self._lease_seconds)
                    continue
                report = _Report()
                if await self._rest(idle_seconds):
                    idle_seconds = self._poll_seconds
                else:
                    idle_seconds = min(idle_seconds * 2, self._poll_seconds_max)
        except _Ended:
            return

    def _call_outbox(self, report: _Report) -> Callable[[], Awaitable[Relayed]]:
        name = f"{self._name}-{next(self._calls)}"  # of all tries together: an answer that is lost is given again
        lease_seconds = self._claim_seconds()

        async def call() -> Relayed:
            return await self._outbox.relay(
                name,
                published=report.published,
                refused=report.refused or {},
                limit=self._batch if monotonic() < self._last_claim_at else 0,
                lease_seconds=lease_seconds,
            )

        return call

    def _claim_seconds(self) -> float:
        """Return for how long to claim: longer, the longer there has been nothing but what can't be published.

        With one time for all, the oldest of a great many would be claimed again before the newest are ever looked at.
        """
        silent_seconds = 0.0 if self._unheard_since is None else monotonic() - self._unheard_since
        return min(self._lease_seconds + 2 * silent_seconds, max(_LONGEST_CLAIM_SECONDS, self._lease_seconds))

    def _note_silence(self, since: float, report: _Report, claimed: int) -> None:
        if report.published or report.refused or claimed < self._batch:
            self._unheard_since = None
        elif self._unheard_since is None:
            self._unheard_since = since

    async def _publish(self, outgoing: Sequence[Outgoing], until: float) -> _Report:
        """Publish what was claimed, and return what to say of it; nothing, if that took longer than the claim lasts."""
        messages = [one.message for one in outgoing]

        async def call() -> Sequence[Published | str | None]:
            try:
                return await self._broker.publish(messages)
            except (BrokerUnavailable, BrokerClosed):
                raise
            except Exception as error:  # noqa: BLE001 - a message that the adapter chokes on must not hold up the others
                log.warning("the broker's adapter failed on a batch (%s); trying each alone", type(error).__name__)
                return await self._publish_each(messages)

        try:
            results = await self._persist("broker", call, until)
        except TimeoutError:
            self._unheard_since = None  # nothing is known of them
            return _Report()
        report = self._judged(outgoing, results)
        self._note_silence(until - self._lease_seconds, report, len(outgoing))
        return report

    async def _publish_each(self, messages: Sequence[Message]) -> Sequence[Published | str | None]:
        """Publish each alone; behind one that has to wait (None), its key waits."""
        results: list[Published | str | None] = []
        held: set[str] = set()
        for message in messages:
            result = None if message.key in held else await self._publish_alone(message)
            if result is None:
                held.add(message.key)
            results.append(result)
        return results

    async def _publish_alone(self, message: Message) -> Published | str | None:
        """Publish one message; return the reason if the adapter can't even send it, None if somebody may mend it."""
        try:
            (result,) = await self._broker.publish([message])
        except (BrokerUnavailable, BrokerClosed):
            raise
        except BrokerError as error:  # such as a topic that may not be made: no reason for other topics to wait
            if self._is_news(message.topic):
                text = "messages to %s can't be published, wait, and are tried again: %s"
                log.error(text, message.topic, error)  # noqa: TRY400 - where it comes from says nothing
            if self._observer is not None:
                self._observer.relay_failed("broker")
            return None
        except Exception as error:  # noqa: BLE001 - it would fail at every try
            return f"the broker's adapter can't publish it: {type(error).__name__}"
        return result

    def _judged(self, outgoing: Sequence[Outgoing], results: Sequence[Published | str | None]) -> _Report:
        published: list[int] = []
        refused: dict[int, str] = {}
        unheard: list[Message] = []
        for one, result in zip(outgoing, results, strict=True):
            if result is Published.DURABLE or (result is Published.NOBODY and _may_go_unheard(one.message)):
                published.append(one.ref)
            elif result is Published.NOBODY:
                unheard.append(one.message)
            elif result is Published.REFUSED:
                most = self._broker.message_bytes_max
                refused[one.ref] = f"the broker refused it: {len(one.message.body)} bytes, and it takes {most}"
            elif result is not None:
                refused[one.ref] = result
        self._tell(unheard, outgoing, refused)
        if self._observer is not None:
            self._observer.relayed(len(published), len(refused), len(unheard))
        return _Report(tuple(published), refused)

    def _tell(self, unheard: Sequence[Message], outgoing: Sequence[Outgoing], refused: dict[int, str]) -> None:
        for topic in {message.topic for message in unheard}:
            if self._is_news(topic):
                log.warning("nobody has declared to hear %s: what is sent there waits until somebody has", topic)
        for one in outgoing:
            if one.ref in refused:
                log.error("message %s to %s is set aside: %s", one.message.id, one.message.topic, refused[one.ref])

    def _is_news(self, topic: str) -> bool:
        """Tell whether nothing was said yet of what waits for this topic."""
        if topic in self._unheard or len(self._unheard) >= _TOPICS_TOLD_MAX:
            return False
        self._unheard.add(topic)
        return True

    async def _persist(self, where: str, call: Callable[[], Awaitable[T]], until: float | None = None) -> T:
        """Return what a call returns; while it fails, make it again after growing pauses.

        Raises:
            TimeoutError: The time `until` which it may be made is over.
            _Ended: It failed, and the relay is closing or can't go on.
        """
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                result = await call()
            except (StoreClosed, BrokerClosed) as error:
                if not self._ending.is_set():
                    log.warning("the relay ends: %s", error)
                raise _Ended from error
            except asyncio.CancelledError as error:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                self._failed(where, error)  # a client's own, which cancels what waits for a connection that is gone
            except Exception as error:  # noqa: BLE001 - whatever it is, what waits must not wait for a restart
                self._failed(where, error)
            else:
                self._works_again(where)
                return result
            if self._ending.is_set():
                raise _Ended
            if until is not None and monotonic() >= until:
                raise TimeoutError
            await self._pause(random.uniform(pause / 2, pause))
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def _failed(self, where: str, error: BaseException) -> None:
        if self._observer is not None:
            self._observer.relay_failed(where)
        if where in self._in_trouble:
            return
        self._in_trouble.add(where)
        # A foreign exception may quote a message, so it is named by its type.
        told = str(error) if isinstance(error, AtoneError) else type(error).__name__
        expected = isinstance(error, StoreUnavailable | BrokerUnavailable)
        level = logging.WARNING if expected else logging.ERROR
        log.log(level, "the relay's %s fails; messages wait, and it is tried again: %s", where, told)

    def _works_again(self, where: str) -> None:
        if where in self._in_trouble:
            self._in_trouble.discard(where)
            log.info("the relay's %s works again", where)

    async def _rest(self, seconds: float) -> bool:
        """Wait for a nudge, and for no longer than that; whether one came."""
        return await _within(self._wanted, random.uniform(seconds * 0.8, seconds * 1.2))

    async def _pause(self, seconds: float) -> None:
        await _within(self._ending, seconds)


async def _within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


def _may_go_unheard(message: Message) -> bool:
    """Tell whether nobody need ever hear it: lifecycle events are for whoever happens to listen."""
    return message.headers.get(headers.KIND) == headers.LIFECYCLE
