"""Look at a saga: its outcome, its progress as it happens, why it is where it is, what a cancel would undo.

Owns the way from a stored journal to what people read. Must not write, nor need a worker that owns the saga. The base
of `Orchestrator`, beside `Steering`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from atone._runtime.reader import Found, read
from atone._runtime.views import Progress, progress_of
from atone._runtime.watchers import Watchers
from atone.definition import Saga, Seconds
from atone.outcome import Outcome
from atone.store import Store

if TYPE_CHECKING:
    from atone._core.explain import Explanation, Preview


class Looking(ABC):
    """What can be seen of a saga by who holds its definition."""

    _store: Store
    _watchers: Watchers

    @abstractmethod
    async def get(self, saga: type[Saga[Any]], saga_id: str, /) -> Any:
        """Return the handle of a saga that exists."""

    @abstractmethod
    def _now(self) -> float: ...

    async def outcome(self, saga: type[Saga[Any]], saga_id: str, /, *, timeout: Seconds | None = None) -> Outcome:
        """Wait until the saga is final or needs attention; see `Handle.outcome`."""
        outcome: Outcome = await (await self.get(saga, saga_id)).outcome(timeout=timeout)
        return outcome

    async def watch(self, saga: type[Saga[Any]], saga_id: str, /) -> AsyncIterator[Progress]:
        """Yield the saga's progress now and after every change, until it is final or needs attention."""
        handle = await self.get(saga, saga_id)
        async with aclosing(self._watchers.follow(handle.key)) as states:
            async for state in states:
                yield progress_of(handle.plan, state)

    async def explain(self, saga: type[Saga[Any]], saga_id: str, /) -> Explanation:
        """Say why the saga is where it is, what happens next, and what an operator may do."""
        from atone._core.explain import explain

        found = await self._found(saga, saga_id)
        return explain(found.plan, found.state, self._now())

    async def preview(self, saga: type[Saga[Any]], saga_id: str, /) -> Preview:
        """Say what a cancel would undo now, in which order, or why it can't."""
        from atone._core.preview import preview

        found = await self._found(saga, saga_id)
        return preview(found.plan, found.state, self._now())

    async def _found(self, saga: type[Saga[Any]], saga_id: str) -> Found:
        return await read(self._store, (await self.get(saga, saga_id)).key)
