"""The store as one life of the worker sees it: shared with the others, with a point before and after each write.

Owns the points at commits and requests. Must not change an answer. Made by `run` for each life.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Self

from atone._runtime.wire import decode_entries
from atone.store import Delivered, Delivery, Store, Turn, TurnResult
from atone.testing.through import Through


class StoreOfOneLife(Through):
    """Opening and closing it does nothing: the store itself outlives every worker."""

    def __init__(
        self, inner: Store, point: Callable[[str], Awaitable[None]], tell: Callable[[int, bytes], None]
    ) -> None:
        super().__init__(inner)
        self._point, self._tell = point, tell

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    async def commit(self, worker: str | None, turns: Sequence[Turn]) -> Sequence[TurnResult]:
        """See `Store`."""
        rows = ", ".join(_row(turn) for turn in turns)
        await self._point(f"before the commit of {rows}")
        results = await self.inner.commit(worker, turns)
        for turn, result in zip(turns, results, strict=True):
            if result is TurnResult.APPLIED:
                self._tell(turn.version, turn.entries)
        await self._point(f"after the commit of {rows}")
        return results

    async def deliver(self, delivery: Delivery) -> Delivered:
        """See `Store`."""
        await self._point("before a request is stored")
        delivered = await self.inner.deliver(delivery)
        if delivered is Delivered.APPENDED:
            self._tell(0, delivery.entries)
        await self._point("after a request was stored")
        return delivered


def _row(turn: Turn) -> str:
    names = [type(entry).__name__ for entry in decode_entries(turn.entries)]
    return f"row {turn.version} ({', '.join(names) or 'handed back'})"
