"""The worker's way to its broker: connected for as long as the orchestrator is open, and what runs meanwhile.

Owns when the broker is entered and left. A broker that is away keeps nobody from running sagas: what is to be published
waits in the outbox, and the connection is tried again. Must not know what a message says. Made by `Orchestrator`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from atone._messaging.posting import RelayObserver
from atone._messaging.relay import Relay
from atone._runtime.logs import about, report, told
from atone.broker import Broker, Outbox
from atone.errors import BrokerUnavailable
from atone.machine import machine

log = logging.getLogger("atone.broker")

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
# An orchestrator that opens waits so long to hear of a wrong address; a broker that is only slow or away comes later.
_OPENING_SECONDS = 5.0

Listening = Callable[[Broker], Awaitable[None]]


class Messaging:
    """Keeps a broker connected; relays the outbox to it, and runs each of `listening` with it until it is closed."""

    def __init__(
        self, outbox: Outbox, broker: Broker, observer: RelayObserver | None = None, listening: Sequence[Listening] = ()
    ) -> None:
        self._broker = broker
        self._listening = tuple(listening)
        self._relay = Relay(outbox, broker, observer=observer)
        self._ending = asyncio.Event()
        self._tried = asyncio.Event()
        self._error: BaseException | None = None
        self._is_opening = True
        self._grace_seconds = 5.0
        self._task: asyncio.Task[None] | None = None

    def nudge(self) -> None:
        """Have the outbox looked at now."""
        self._relay.nudge()

    async def open(self) -> None:
        """Connect, or go on trying to.

        Raises:
            BrokerError: The broker can't be used however often it is tried.
        """
        self._task = asyncio.get_running_loop().create_task(self._run(), name="atone-messaging")
        try:
            async with asyncio.timeout(_OPENING_SECONDS):
                await self._tried.wait()
        except TimeoutError:
            log.warning("the broker does not answer yet; messages wait in the outbox, and it is tried again")
        self._is_opening = False
        if self._error is not None:
            raise self._error

    async def close(self, *, grace_seconds: float = 5.0) -> None:
        """Publish what waits, as far as it goes in that time, and disconnect."""
        self._grace_seconds = grace_seconds
        self._ending.set()
        if self._task is None:
            return
        _, late = await asyncio.wait({self._task}, timeout=2 * grace_seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            if not await self._connected():
                return
        except Exception as error:  # noqa: BLE001 - whoever opens is told
            self._error = error
            return
        finally:
            self._tried.set()
        tasks = [asyncio.ensure_future(self._listen(one)) for one in self._listening]
        try:
            self._relay.start()
            await self._ending.wait()
            await self._relay.close(grace_seconds=self._grace_seconds)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._left()

    async def _connected(self) -> bool:
        """Enter the broker; while it is away, try again. False: there is no need any more."""
        pause = _FIRST_PAUSE_SECONDS
        while not self._ending.is_set():
            try:
                await self._broker.__aenter__()
            except BrokerUnavailable as error:
                if not self._tried.is_set():
                    text = "the broker is away: %s; sagas run, messages wait, and it is tried again"
                    log.warning(text, told(error), extra=about(error))
                self._tried.set()
            except Exception as error:
                if self._is_opening and not self._tried.is_set():
                    raise
                report(log, "connecting to the broker failed; messages wait, and it is tried again", error)
            else:
                if self._tried.is_set():
                    log.info("the broker is there")
                return True
            try:
                async with asyncio.timeout(machine().uniform(pause / 2, pause)):
                    await self._ending.wait()
            except TimeoutError:
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
        return False

    async def _listen(self, listening: Listening) -> None:
        """Run one listener; one that fails is started again."""
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                await listening(self._broker)
            except Exception as error:  # noqa: BLE001 - what was not heard yet comes again
                report(log, "listening to the broker failed; it is tried again", error)
            await asyncio.sleep(machine().uniform(pause / 2, pause))
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    async def _left(self) -> None:
        try:
            await self._broker.__aexit__(None, None, None)
        except Exception as error:  # noqa: BLE001 - it is gone either way
            log.warning("leaving the broker: %s", told(error), extra=about(error))
