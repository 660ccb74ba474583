"""What a shape of saga is: definitions, participants, what is done from outside, and how it may end.

Owns the two words that every tool shares: a `Stage`, which outlives the processes that play on it, and a `Shape`, which
says what one process does there (`play`) and judges what is left when all is over (`violations`). Must not know how a
process dies, or which store it runs on. Used by the simulation, by every-point crashes and by real kills.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import msgspec

from atone import Orchestrator, Saga
from atone.broker import Broker
from atone.errors import RequestRefused, StoreUnavailable, UnknownSaga
from atone.orchestrator import Handle
from atone.serving import Service
from atone.store import Loaded
from atone.testing.invariants import Rule, Violation, check_invariants
from tests.shapes.databases import Databases, MemoryDatabases
from tests.shapes.ledger import Ledger, Line, MemoryLedger, calls_in, effects_in
from tests.shapes.services import Services, balances_of, no_point

T = TypeVar("T")

DONE = frozenset({"completed"})
UNDONE = frozenset({"compensated"})
EITHER = DONE | UNDONE
PARKED = frozenset({"needs_attention"})


class Order(msgspec.Struct, frozen=True):
    """What every shape is given. `refused` names the step that refuses, if one does."""

    refused: str = ""
    express: bool = False


ORDER = Order()


class Start(NamedTuple):
    """A saga to start: its id is the run's with `suffix` behind it."""

    saga: type[Saga[Any]]
    given: Any = ORDER
    suffix: str = ""


class Stage:
    """All that outlives a process besides the store and the broker: the ledger, the participants and their databases.

    `point` is called by name wherever a process may die around an effect.
    """

    def __init__(
        self,
        ledger: Ledger | None = None,
        *,
        point: Callable[[str], None] = no_point,
        databases: Databases | None = None,
        ignores_keys: bool = False,
    ) -> None:
        self.ledger: Ledger = ledger or MemoryLedger()
        self.services = Services(self.ledger, point, ignores_keys=ignores_keys)
        self.databases = databases or MemoryDatabases(point=point)
        self.point = point

    @property
    def lines(self) -> list[Line]:
        """What stands in the ledger."""
        return self.ledger.book().lines

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for something that other processes may do."""
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


Drive = Callable[[Orchestrator, Stage, str], Awaitable[None]]


@dataclass(frozen=True)
class Shape:
    """One shape of saga. `steps` is how long it is; `ends` may be given for each suffix, `balances` for each status.

    `drive` is what is done from outside while it runs, by whichever process lives: it must bear being done again.
    A shape with two `generations` is deployed anew on the way: `make` is told which one it is to make. `is_long`:
    it takes so long that it is for a virtual clock. `recorded` reads effects that are rows of a participant's database.
    `serving`: it needs a broker, and this service on it, which is a process of its own.
    """

    name: str
    about: str
    steps: int
    starts: tuple[Start, ...]
    make: Callable[[Stage, int], Sequence[Saga[Any]]]
    ends: frozenset[str] | Mapping[str, frozenset[str]]
    balances: Mapping[str, Mapping[str, int]] = field(default_factory=dict[str, Mapping[str, int]])
    drive: Drive | None = None
    generations: int = 1
    is_long: bool = False
    recorded: Callable[[Stage], list[Line]] | None = None
    serving: Callable[[Stage, Broker], Service] | None = None

    async def play(self, orchestrator: Orchestrator, stage: Stage, saga_id: str = "s", generation: int = -1) -> None:
        """Do what the process around one orchestrator does: start, drive, and wait for the ends.

        A process that comes after a crash does the same again. Of several generations, all but the last return early.
        """
        if generation not in (-1, self.generations - 1):
            await self._begin(orchestrator, self.starts[0], saga_id)
            await stage.until(lambda: any(line.saga_id.startswith(saga_id) for line in stage.lines))
            return
        handles = [await self._begin(orchestrator, start, saga_id) for start in self.starts]
        if self.drive is not None:
            await self.drive(orchestrator, stage, saga_id)
        for handle in handles:
            await patiently(handle.outcome)

    async def _begin(self, orchestrator: Orchestrator, start: Start, saga_id: str) -> Handle[Any]:
        return await patiently(lambda: orchestrator.start(start.saga, start.given, saga_id=saga_id + start.suffix))

    def lines(self, stage: Stage) -> list[Line]:
        """Return what the participants have written down, wherever it stands."""
        return stage.lines if self.recorded is None else stage.lines + self.recorded(stage)

    def may_end(self, suffix: str) -> frozenset[str]:
        """Return how the saga with that suffix may end."""
        return self.ends if isinstance(self.ends, frozenset) else self.ends[suffix]

    def violations(self, histories: Sequence[Loaded], stage: Stage, saga_id: str = "s") -> list[Violation]:
        """Return everything that is wrong with a run that is over: the invariants, its ends and its money.

        Sagas of other runs in the same store and ledger are left out of the ends, and not of the invariants.
        """
        lines = self.lines(stage)
        found = check_invariants(histories, effects_in(lines), calls=calls_in(lines))
        statuses = {one.summary.saga_id: one.summary.status for one in histories}
        for start in self.starts:
            status = statuses.get(saga_id + start.suffix, "not in the store")
            found += self._wrong_end(status, start, saga_id + start.suffix, lines)
        return found

    def _wrong_end(self, status: str, start: Start, saga_id: str, lines: list[Line]) -> list[Violation]:
        name, found = start.saga.plan().name, list[Violation]()
        may = self.may_end(start.suffix)
        if status not in may:
            what = f"it ended {status}, and may end {' or '.join(sorted(may))} only."
            found.append(Violation(Rule.ENDS, name, saga_id, what))
        expected = self.balances.get(f"{start.suffix}:{status}", self.balances.get(status))
        have = balances_of(lines, saga_id)
        if expected is not None and have != {account: cents for account, cents in expected.items() if cents}:
            found.append(Violation(Rule.MONEY, name, saga_id, f"it is {status}; its accounts are {dict(have)}."))
        return found


async def patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Do as the error says: send the same call again."""
    while True:
        try:
            return await call()
        except StoreUnavailable:
            await asyncio.sleep(0.1)


async def asked(call: Callable[[], Awaitable[Any]]) -> None:
    """Ask something of a saga that may be over meanwhile."""
    with suppress(RequestRefused, UnknownSaga):
        await patiently(call)
