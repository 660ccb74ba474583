"""Who watches a saga's progress, in this process: a queue for each watcher.

Sagas that run here tell every durable turn; those that run elsewhere are read again after `poll_seconds`. Must not
judge a change. Used by `Orchestrator`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable

from atone._core.state import SagaState
from atone._runtime.logs import about, told
from atone._runtime.outcomes import is_settled
from atone.errors import StoreUnavailable

log = logging.getLogger("atone.watch")


class Watchers:
    """Queues by saga key; `read` loads a saga's state from the store."""

    def __init__(self, read: Callable[[bytes], Awaitable[SagaState]], poll_seconds: float) -> None:
        self._read, self._poll_seconds = read, poll_seconds
        self._queues: dict[bytes, list[asyncio.Queue[SagaState]]] = {}

    def changed(self, key: bytes, state: SagaState) -> None:
        """Tell who watches this saga; called at every turn, so it costs nothing while nobody does."""
        if self._queues:
            for queue in self._queues.get(key, ()):
                queue.put_nowait(state)

    async def follow(self, key: bytes) -> AsyncGenerator[SagaState, None]:
        """Yield the state now and after every change, until the saga is settled."""
        queue: asyncio.Queue[SagaState] = asyncio.Queue()
        self._queues.setdefault(key, []).append(queue)
        try:
            state = await self._read(key)
            yield state
            while not is_settled(state):
                newer = await self._newer(key, queue)
                if newer.version > state.version:
                    state = newer
                    yield state
        finally:
            self._queues[key].remove(queue)
            if not self._queues[key]:
                del self._queues[key]

    async def _newer(self, key: bytes, queue: asyncio.Queue[SagaState]) -> SagaState:
        while True:
            try:
                # Not `wait_for`: until Python 3.12 it can lose a cancellation that comes together with the result.
                async with asyncio.timeout(self._poll_seconds):
                    return await queue.get()
            except TimeoutError:
                pass  # it may run elsewhere
            try:
                return await self._read(key)
            except StoreUnavailable as error:
                log.warning("watching a saga: %s", told(error), extra=about(error))
