"""Who waits for a saga's end, in this process: one future a waiter, one shared query for all of them.

Sagas that run here settle their waiters directly; for those that run elsewhere, or nowhere, one poll asks the store for
all keys at once. Must not decide when a saga is over: the status says so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from atone._core.state import SagaState, SagaStatus
from atone._runtime.logs import about, report, told
from atone.errors import CorruptJournal, StoreClosed, StoreError
from atone.store import FINAL_STATUSES, Query, Store

log = logging.getLogger("atone.outcome")

SETTLED_STATUSES = FINAL_STATUSES | {SagaStatus.NEEDS_ATTENTION.value}
KEYS_A_QUERY = 500


def is_settled(state: SagaState) -> bool:
    """Whether `outcome()` returns: the saga is final or waits for a person."""
    return state.status.value in SETTLED_STATUSES


class Outcomes:
    """Futures by saga key. `read` loads a saga's state; `local` tells which sagas settle themselves."""

    def __init__(
        self,
        store: Store,
        read: Callable[[bytes], Awaitable[SagaState]],
        local: Callable[[], Collection[bytes]],
        poll_seconds: float,
    ) -> None:
        self._store, self._read, self._local, self._poll_seconds = store, read, local, poll_seconds
        self._waiting: dict[bytes, list[asyncio.Future[SagaState]]] = {}
        self._task: asyncio.Task[None] | None = None
        self._asked = asyncio.Event()

    async def expect(self, key: bytes) -> SagaState:
        """Return the state in which the saga settles next (or is settled already)."""
        future: asyncio.Future[SagaState] = asyncio.get_running_loop().create_future()
        self.join(key, future)
        try:
            return await future
        finally:
            self.forget(key, future)

    def join(self, key: bytes, future: asyncio.Future[SagaState]) -> None:
        """Have the future told the state in which the saga settles next; whoever waits for it calls `forget` then."""
        self._waiting.setdefault(key, []).append(future)
        if key not in self._local():
            self._asked.set()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._poll(), name="atone-outcomes")

    def forget(self, key: bytes, future: asyncio.Future[Any]) -> None:
        """Take back what `join` did; nothing happens if the future was told."""
        futures = self._waiting.get(key)
        if futures is not None and future in futures:
            futures.remove(future)
            if not futures:
                del self._waiting[key]

    def settle(self, key: bytes, state: SagaState) -> None:
        """Tell everybody who waits for this saga."""
        for future in self._waiting.pop(key, ()):
            if not future.done():
                future.set_result(state)

    def look(self) -> None:
        """Ask the store at once."""
        self._asked.set()

    def close(self, error: Exception) -> None:
        """Tell everybody that nobody will answer here any more; the sagas are not concerned."""
        if self._task is not None:
            self._task.cancel()
        for futures in list(self._waiting.values()):
            for future in list(futures):
                if not future.done():
                    future.set_exception(error)
        self._waiting.clear()

    async def _poll(self) -> None:
        while self._waiting:
            local = self._local()
            keys = [key for key in self._waiting if key not in local]
            for start in range(0, len(keys), KEYS_A_QUERY):
                try:
                    await self._ask(keys[start : start + KEYS_A_QUERY])
                except StoreClosed as error:
                    for key in keys:  # no look will ever tell them
                        self._fail(key, error)
                except StoreError as error:
                    log.warning("waiting for outcomes: %s", told(error), extra=about(error))
                except Exception as error:  # noqa: BLE001 - as follows
                    # Whoever waits would wait for ever without a next look.
                    report(log, "waiting for outcomes", error)
            await self._pause()

    async def _pause(self) -> None:
        """Wait for the next poll; a new waiter whose saga is not here is not kept waiting for it."""
        try:
            async with asyncio.timeout(self._poll_seconds):
                await self._asked.wait()
        except TimeoutError:
            return
        finally:
            self._asked.clear()

    async def _ask(self, keys: list[bytes]) -> None:
        query = Query(keys=tuple(keys), statuses=SETTLED_STATUSES, limit=len(keys))
        for found in await self._store.find(query):
            try:
                state = await self._read(found.key)
            except CorruptJournal as damage:
                self._fail(found.key, damage)
                continue
            if is_settled(state):  # somebody may have set it going again since it was found
                self.settle(found.key, state)

    def _fail(self, key: bytes, error: Exception) -> None:
        for future in self._waiting.pop(key, ()):
            if not future.done():
                future.set_exception(error)
