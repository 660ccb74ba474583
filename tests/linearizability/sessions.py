"""Sessions: a store of some kind, histories recorded on it, and the verdict on each.

Owns the stores of a run, the figures, and how a history without an explanation is shown to a person. Used by the tests
and by `python -m tests.linearizability`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from math import isinf
from pathlib import Path
from typing import Any

from atone.stores.memory import MemoryStore
from atone.stores.sqlite import SqliteStore
from tests.linearizability.recorder import record
from tests.linearizability.spec import OneSaga
from tests.linearizability.wgl import Call, Verdict, check

SAGAS = 25
ORCHESTRATORS = 3


@dataclass
class Figures:
    """What a run has seen; `unexplained` are the histories without an explanation, for a person to read."""

    histories: int = 0
    calls: int = 0
    open: int = 0
    looks: int = 0
    unexplained: list[str] = field(default_factory=list[str])

    def take(self, name: str, history: Sequence[Call]) -> None:
        """Judge one history."""
        verdict = check(OneSaga(), history)
        self.histories += 1
        self.calls += len(history)
        self.open += sum(call.is_open for call in history)
        self.looks += verdict.looked_at
        if not verdict.holds:
            self.unexplained.append(shown(name, history, verdict))

    def told(self) -> str:
        """Return the figures in words."""
        return (
            f"{self.histories} histories, {self.calls} calls of which {self.open} without an answer, "
            f"{self.looks} nodes searched: {len(self.unexplained)} not linearizable"
        )


class StoreFarm:
    """Makes the stores of a run; the PostgreSQL server starts when it is first needed."""

    def __init__(self, folder: Path, stack: ExitStack, bench: Any = None) -> None:
        self._folder, self._stack, self._given = folder, stack, bench

    @cached_property
    def _bench(self) -> Any:
        from tests.servers.postgres import SERVERS, bench

        return self._given or self._stack.enter_context(bench(next(iter(SERVERS.values()))))

    @cached_property
    def _place(self) -> Any:
        return self._bench.place()

    def stores(self, kind: str, number: int) -> tuple[list[Any], str | None]:
        """Return a store for each orchestrator, not open yet, and the URL for clients in another process."""
        if kind == "memory":
            return [MemoryStore(allow_volatile=True)] * ORCHESTRATORS, None
        if kind == "sqlite":
            path = self._folder / f"histories-{number}.db"
            return [SqliteStore(path) for _ in range(ORCHESTRATORS)], f"sqlite:///{path}"
        url = f"{self._bench.worker_url}?schema={self._place.schema}"
        return [self._place.store(real_clock=True) for _ in range(ORCHESTRATORS)], url


async def record_and_check(
    farm: StoreFarm, kind: str, number: int, figures: Figures, *, sagas: int = SAGAS, elsewhere: bool = True
) -> None:
    """Record one session on a store of this kind, and judge its histories."""
    stores, url = farm.stores(kind, number)
    async with AsyncExitStack() as stack:
        for store in dict.fromkeys(stores):
            await stack.enter_async_context(store)
        histories = await record(stores, sagas, number, url=url if elsewhere else None)
    for saga_id, history in histories.items():
        figures.take(f"{kind}, {saga_id}", history)


async def lies_found(kind: Callable[[], Any], histories: int) -> tuple[int, int]:
    """Return how many histories on a store that lies have no explanation, and of how many, once there are some."""
    figures = Figures()
    while figures.histories < histories and not figures.unexplained:
        async with kind() as store:
            recorded = await record([store] * ORCHESTRATORS, SAGAS, 2 * figures.histories)
        for saga_id, history in recorded.items():
            figures.take(saga_id, history)
    return len(figures.unexplained), figures.histories


def shown(name: str, history: Sequence[Call], verdict: Verdict[Any]) -> str:
    """Return a history in the order of its calls; what the longest order explains has a mark."""
    begin = min((call.invoked for call in history), default=0.0)
    lines = [f"{name}: no order explains this; marked is the longest that explains a part"]
    for at, call in sorted(enumerate(history), key=lambda one: one[1].invoked):
        mark = "*" if at in verdict.stuck_after else " "
        until = "      -  " if isinf(call.returned) else f"{call.returned - begin:9.4f}"
        lines.append(f"  {mark} {call.invoked - begin:9.4f} {until}  {call.asked}  {call.answer}")
    return "\n".join(lines)
