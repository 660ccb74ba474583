"""What many tasks want done at once, in batches: nobody waits for a timer, and one batch is under way at a time.

A batch leaves when the one before it is done; an error that is one item's own is told to whoever gave that item. Must
not know what is done. Called by the embedded broker, for what is published and what is ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from atone.errors import StoreUnavailable

T = TypeVar("T")
R = TypeVar("R")

_ITEMS_MAX = 1000


class Gatherer(Generic[T, R]):
    """Give items and get the results; `send` does a batch."""

    def __init__(self, send: Callable[[Sequence[T]], Awaitable[Sequence[R]]]) -> None:
        self._send = send
        self._waiting: list[tuple[Sequence[T], asyncio.Future[Sequence[R]]]] = []
        self._task: asyncio.Task[None] | None = None

    async def give(self, items: Sequence[T]) -> Sequence[R]:
        """Return the results of these items, which are done side by side and in their order."""
        answer: asyncio.Future[Sequence[R]] = asyncio.get_running_loop().create_future()
        self._waiting.append((items, answer))
        if self._task is None:
            self._task = asyncio.create_task(self._work(), name="atone-broker-batches")
        return await answer

    async def settle(self) -> None:
        """Come back when everything that was given is done."""
        if self._task is not None:
            await asyncio.wait({self._task})

    async def _work(self) -> None:
        try:
            while self._waiting:
                await self._do(self._batch())
        finally:
            self._task = None

    def _batch(self) -> list[tuple[Sequence[T], asyncio.Future[Sequence[R]]]]:
        size, count = 0, 0
        for items, _ in self._waiting:
            size, count = size + len(items), count + 1
            if size >= _ITEMS_MAX:
                break
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        return batch

    async def _do(self, batch: Sequence[tuple[Sequence[T], asyncio.Future[Sequence[R]]]]) -> None:
        try:
            results = await self._send([item for items, _ in batch for item in items])
        except Exception as error:  # noqa: BLE001 - every giver is told
            if len(batch) > 1 and not isinstance(error, StoreUnavailable):
                for one in batch:  # one of them can't be done; its neighbours can
                    await self._do([one])
                return
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(error)
            return
        done = 0
        for items, answer in batch:
            if not answer.done():  # its giver was cancelled
                answer.set_result(results[done : done + len(items)])
            done += len(items)
