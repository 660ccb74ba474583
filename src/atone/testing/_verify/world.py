"""What outlives the worker in a run: the participants, what is under way to them, and calls that land later.

Owns the tasks of the other side: they belong to no worker, so nobody's death or time-out ends them. Must not judge
anything. Made by `run`, used by `calls`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from typing import Any


class World:
    """The other side of the network; made outside of every simulated process."""

    def __init__(self) -> None:
        self._context: Context = copy_context()
        self._under_way: set[asyncio.Task[Any]] = set()
        self._letters: list[Callable[[], Awaitable[Any]]] = []

    def do(self, request: Callable[[], Awaitable[Any]]) -> asyncio.Task[Any]:
        """Have something done over there; what fails there fails for who waits, or for nobody."""
        task = asyncio.get_running_loop().create_task(_done(request), context=self._context.copy())
        self._under_way.add(task)
        task.add_done_callback(self._ended, context=self._context)
        return task

    def do_after(self, seconds: float, request: Callable[[], Awaitable[Any]]) -> None:
        """Have something done in a while."""

        async def later() -> None:
            await asyncio.sleep(seconds)
            await request()

        _ = self.do(later)

    def do_at_the_end(self, request: Callable[[], Awaitable[Any]]) -> None:
        """Have something done once the saga is over."""
        self._letters.append(request)

    async def settle(self) -> None:
        """Let everything land that is under way, then what was kept for the end."""
        await self._quiet()
        letters, self._letters = self._letters, []
        for letter in letters:
            await asyncio.gather(self.do(letter), return_exceptions=True)
        await self._quiet()

    async def _quiet(self) -> None:
        while self._under_way:
            await asyncio.wait(set(self._under_way))

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waits has it; for nobody else it matters


async def _done(request: Callable[[], Awaitable[Any]]) -> Any:
    return await request()
