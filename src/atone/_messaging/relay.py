"""The relay: takes what waits in an outbox to a broker, at least once and in order for each key, while it is open.

Owns the loop, its pauses and what it says of a call that fails; `posting` publishes what was claimed. Nothing is lost
with it: what it has claimed and not named as published is claimed again, by itself or by another relay. Must not make
or read a message's body, nor judge a saga. Run by the orchestrator's workers and by participants, each on the outbox of
its own database; the broker is open already.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from typing import TypeVar

from atone._messaging.posting import Guarded, Posting, RelayObserver, Report
from atone.broker import Broker, Outbox, Outgoing, Relayed
from atone.errors import AtoneError, BrokerClosed, BrokerUnavailable, StoreClosed, StoreUnavailable
from atone.machine import machine, new_name

log = logging.getLogger("atone.relay")

T = TypeVar("T")

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 5.0
_LONGEST_CLAIM_SECONDS = 600.0
_ITSELF = "own work"  # beside the store and the broker


class _Ended(Exception):
    """The relay is closing, or what it stands on is closed."""


def monotonic() -> float:
    """Return the machine's monotonic time."""
    return machine().monotonic()


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
        self._outbox, self._observer = outbox, Guarded(observer)
        self._posting = Posting(broker, self._observer)
        self._batch, self._lease_seconds = batch, lease_seconds
        self._poll_seconds, self._poll_seconds_max = poll_seconds, poll_seconds_max
        self._idle_seconds = poll_seconds
        self._name, self._calls = new_name(), count(1)
        self._wanted = asyncio.Event()
        self._ending = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._last_claim_at = float("inf")
        self._in_trouble: set[str] = set()
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
        report = Report()
        while True:
            try:
                report = await self._turn(report)
            except _Ended:
                return
            except Exception as error:  # noqa: BLE001 - a mistake of its own must not end it in silence
                report = Report()  # what was published and not named is published again
                self._failed(_ITSELF, error)
                if self._ending.is_set():
                    return
                await self._pause(self._lease_seconds)
            else:
                self._works_again(_ITSELF)

    async def _turn(self, report: Report) -> Report:
        """Claim what waits, telling of what was published before, and publish it; rest if there is nothing."""
        self._wanted.clear()
        since = monotonic()
        claimed = await self._persist("store", self._call_outbox(report))
        if self._ending.is_set() and not claimed.messages:
            raise _Ended
        if claimed.messages:
            self._idle_seconds = self._poll_seconds
            return await self._publish(claimed.messages, since + self._lease_seconds)
        if await self._rest(self._idle_seconds):
            self._idle_seconds = self._poll_seconds
        else:
            self._idle_seconds = min(self._idle_seconds * 2, self._poll_seconds_max)
        return Report()

    def _call_outbox(self, report: Report) -> Callable[[], Awaitable[Relayed]]:
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

    def _note_silence(self, since: float, report: Report, claimed: int) -> None:
        if report.published or report.refused or claimed < self._batch:
            self._unheard_since = None
        elif self._unheard_since is None:
            self._unheard_since = since

    async def _publish(self, outgoing: Sequence[Outgoing], until: float) -> Report:
        """Publish what was claimed, and return what to say of it; nothing, if that took longer than the claim lasts."""
        messages = [one.message for one in outgoing]
        try:
            outcomes = await self._persist("broker", lambda: self._posting.publish(messages), until)
        except TimeoutError:
            self._unheard_since = None  # nothing is known of them
            return Report()
        report = self._posting.report(outgoing, outcomes)
        self._note_silence(until - self._lease_seconds, report, len(outgoing))
        return report

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
            await self._pause(machine().uniform(pause / 2, pause))
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def _failed(self, where: str, error: BaseException) -> None:
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
        return await _within(self._wanted, machine().uniform(seconds * 0.8, seconds * 1.2))

    async def _pause(self, seconds: float) -> None:
        await _within(self._ending, seconds)


async def _within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
