"""One run of a shape in which processes die at chosen points, and an answer may be lost: what came of it.

Owns the stage of such a run: simulated processes on a virtual clock, a store and a broker whose calls are points, one
role whose process is killed and replaced, and the judgement at the end. Every resumption of a task is a point too. Must
not choose the points: `every_point` does.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self, TypeVar

from atone import Orchestrator
from atone._connections.face import finish
from atone.broker import Message, Published
from atone.brokers.memory import SERVERS, MemoryBroker, server_of
from atone.errors import AtoneError, BrokerUnavailable, StoreUnavailable
from atone.orchestrator import Limits
from atone.store import Claimed, Delivered, Delivery, Lease, Loaded, Query, Store, StoredPlan, Summary, Turn, TurnResult
from atone.stores.memory import MemoryStore
from atone.testing.invariants import Rule, Violation, read_histories
from atone.testing.simulate import Killed, Process, Simulation, point
from atone.testing.through import Through
from tests.crash.surviving import Surface
from tests.shapes.choreographed import Dance
from tests.shapes.databases import MemoryDatabases
from tests.shapes.services import no_point
from tests.shapes.shape import Shape, Stage

T = TypeVar("T")

LEASE_SECONDS = 2.0
LIMITS = Limits(lease_seconds=LEASE_SECONDS, poll_seconds=1.0)
PATIENCE_SECONDS = 2.0
SETTLE_SECONDS = 3.0
# What one fault may keep others waiting: its lease, the longest pause before a repeat, and five seconds for the rest.
REST_SECONDS = LEASE_SECONDS + 0.1 + 5.0
# With a broker the relay's lease comes before that, and an event that was put off because it came too early.
REST_WITH_BROKER_SECONDS = REST_SECONDS + 5.0 + 5.0
STEPS_MAX = 30_000


@dataclass(frozen=True)
class Faults:
    """What goes wrong: the role that dies, the points at which its first, second ... processes die, counted from 1.

    `unheard` and `unsent` number a call of the store or the broker, in all: it is carried out and not answered, or it
    never arrives.
    """

    role: str = "worker"
    deaths: tuple[int, ...] = ()
    unheard: int = 0
    unsent: int = 0

    def __str__(self) -> str:
        said = [f"{self.role} dies at point {at}" for at in self.deaths]
        said += [f"call {self.unheard} is not answered"] if self.unheard else []
        said += [f"call {self.unsent} never arrives"] if self.unsent else []
        return ", then ".join(said) or "nothing"


NO_FAULTS = Faults()


@dataclass
class Ran:
    """What came of a run. Of the last process of the role: what would have survived it at each of its points."""

    violations: list[Violation] = field(default_factory=list[Violation])
    states: list[bytes] = field(default_factory=list[bytes])
    died_at: list[str] = field(default_factory=list[str])
    calls: int = 0
    seconds: float = 0.0
    trace: list[str] = field(default_factory=list[str])


@dataclass(frozen=True)
class Parts:
    """What a test may break: the store that survives, what a process sees of it, and the stage."""

    store: Callable[..., MemoryStore] = MemoryStore
    ignores_keys: bool = False


WHOLE = Parts()


class Calls:
    """Numbers the calls of store and broker over all processes, and loses one of them."""

    def __init__(self, faults: Faults, surface: Surface) -> None:
        self.faults, self.surface, self.number = faults, surface, 0

    async def pass_on(self, what: str, call: Callable[[], Coroutine[Any, Any, T]], lost: type[AtoneError]) -> T:
        """Carry a call out, between two points and two resumptions."""
        self.number += 1
        number = self.number
        point(f"before call {number}, {what}")
        await asyncio.sleep(0)
        if number == self.faults.unsent:
            raise lost("The call never arrived. Send it again.")
        answer = await call()
        self.surface.changed()
        point(f"after call {number}, {what}")
        await asyncio.sleep(0)
        if number == self.faults.unheard:
            raise lost("There was no answer. Send it again.")
        return answer


class PointedStore(Through):
    """The port around a store that outlives its processes."""

    def __init__(self, inner: Store, calls: Calls) -> None:
        super().__init__(inner)
        self._calls = calls

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def renew(self, worker: str | None, lease_seconds: float, *, register: Sequence[StoredPlan] | None = None) -> Lease:
        point("before store.renew")
        lease = self.inner.renew(worker, lease_seconds, register=register)
        self._calls.surface.changed()
        point("after store.renew")
        return lease

    async def commit(self, worker: str | None, turns: Sequence[Turn]) -> Sequence[TurnResult]:
        return await self._pass("commit", lambda: self.inner.commit(worker, turns))

    async def load(self, keys: Sequence[bytes], *, after: int = 0, with_plan: bool = False) -> Sequence[Loaded | None]:
        return await self._pass("load", lambda: self.inner.load(keys, after=after, with_plan=with_plan))

    async def claim(self, worker: str, **wish: Any) -> Claimed:
        return await self._pass("claim", lambda: self.inner.claim(worker, **wish))

    async def deliver(self, delivery: Delivery) -> Delivered:
        return await self._pass("deliver", lambda: self.inner.deliver(delivery))

    async def find(self, query: Query) -> Sequence[Summary]:
        return await self._pass("find", lambda: self.inner.find(query))

    async def relay(self, relay: str, **wish: Any) -> Any:
        return await self._pass("relay", lambda: self.inner.relay(relay, **wish))

    async def _pass(self, method: str, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return await self._calls.pass_on(f"store.{method}", call, StoreUnavailable)


class PointedBroker(MemoryBroker):
    """One process's way to the broker."""

    def __init__(self, url: str, calls: Calls, clock: Callable[[], float]) -> None:
        super().__init__(url, patience_seconds=PATIENCE_SECONDS, clock=clock)
        self._calls = calls

    async def publish(self, messages: Sequence[Message]) -> Sequence[Published]:
        publish = super().publish
        return await self._calls.pass_on("broker.publish", lambda: publish(messages), BrokerUnavailable)

    def settle(self, hands: Any, item: Any) -> None:
        point("before broker.ack")
        super().settle(hands, item)
        self._calls.surface.changed()
        point("after broker.ack")

    def _claim(self, hands: Any) -> Any:
        taken = super()._claim(hands)
        if taken:
            self._calls.surface.changed()
        return taken


class Run:
    """A run before, while and after it runs; made anew for each."""

    def __init__(
        self, shape: Shape | Dance, faults: Faults, parts: Parts, *, limit_seconds: float, records: bool
    ) -> None:
        self.shape, self.faults, self.ran, self._records = shape, faults, Ran(), records
        self.sim = Simulation(None, steps_max=STEPS_MAX, seconds_max=limit_seconds)
        clock = self.sim.clock.time
        self.store = parts.store(allow_volatile=True, clock=clock)
        databases = MemoryDatabases(point=point, clock=clock)
        self.stage = Stage(point=point, databases=databases, ignores_keys=parts.ignores_keys)
        self._others: list[Process] = []
        self.surface = Surface(self.store, self.stage, self.sim.clock.monotonic, self._elsewhere)
        self.calls = Calls(faults, self.surface)
        self._server_name = f"every-point-{id(self)}"
        if isinstance(shape, Dance) or shape.serving is not None:
            self.surface.server = server_of(self._server_name)
        self._deploys = 0
        self._deaths = list(faults.deaths)

    def go(self) -> Ran:
        """Run, judge, and forget everything else."""
        hook, sys.unraisablehook = sys.unraisablehook, lambda _: None  # what is thrown away may complain of it
        try:
            self.sim.run(self._main)
        except AtoneError as error:  # stuck, too long, or whatever a process failed with
            self.ran.violations.append(
                Violation(Rule.LIVENESS, self.shape.name, "", f"{type(error).__name__}: {error}")
            )
        else:
            self.ran.violations += self._judged()
        finally:
            sys.unraisablehook = hook
            SERVERS.pop(self._server_name, None)
            databases = self.stage.databases
            assert isinstance(databases, MemoryDatabases)
            databases.close()
        self.ran.calls, self.ran.trace = self.calls.number, self.sim.trace
        return self.ran

    def _judged(self) -> list[Violation]:
        if isinstance(self.shape, Dance):
            found = self.shape.violations(self.stage)
        else:
            found = self.shape.violations(finish(read_histories(self.store)), self.stage)
        unheard = [Violation(Rule.LIVENESS, self.shape.name, "", f"Nobody heard of {one}") for one in self.sim.errors]
        return found + self._left_over() + unheard

    def _left_over(self) -> list[Violation]:
        """Return what nobody will ever hear: messages that are parked, or still wait."""
        server = self.surface.server
        groups = {} if server is None else server.groups
        silent = self.shape.silent if isinstance(self.shape, Dance) else ()
        return [
            Violation(Rule.MESSAGES, self.shape.name, "", f"group {name} left {what}: {count}.")
            for name, group in groups.items()
            if name.rpartition(".")[2] not in silent
            for what, count in (("parked", len(group.parked)), ("unsettled", len(group.items)))
            if count
        ]

    def _elsewhere(self) -> object:
        """Return what the other processes have done so far, which nothing but the run's own past tells."""
        if not self._others:
            return None
        waiting = [one.owner() for one in self.sim._loop._ready]
        return [one.points for one in self._others], [one.number for one in waiting if one in self._others]

    # -- the roles

    async def _main(self) -> None:
        await self.store.__aenter__()
        began = self.sim.clock.monotonic()
        lives = self._lives()
        main = next(iter(lives))
        keeping = {
            role: asyncio.create_task(self._keep(role, life), name=f"keeper of {role}") for role, life in lives.items()
        }
        if isinstance(self.shape, Dance):
            await self.stage.until(lambda: self._is_over(keeping))
        else:
            await keeping[main]
        self.ran.seconds = self.sim.clock.monotonic() - began
        if self.surface.server is not None:
            # What is said twice must be heard twice, and change nothing: also by who comes when all is over.
            if isinstance(self.shape, Shape):
                keeping["last"] = asyncio.create_task(self._keep("last", self._hear_out), name="keeper of last")
            await asyncio.sleep(SETTLE_SECONDS)
        for task in keeping.values():
            if task.done():
                task.result()

    def _is_over(self, keeping: dict[str, asyncio.Task[None]]) -> bool:
        assert isinstance(self.shape, Dance)
        for task in keeping.values():
            if task.done():
                task.result()
        with self._unwatched():
            return self.shape.is_over(self.stage)

    @contextmanager
    def _unwatched(self) -> Iterator[None]:
        """Look into the databases without a point."""
        databases = self.stage.databases
        assert isinstance(databases, MemoryDatabases)
        databases.point = no_point
        yield
        databases.point = point

    def _lives(self) -> dict[str, Callable[[], Coroutine[Any, Any, None]]]:
        if isinstance(self.shape, Dance):
            return {role: partial(self._dance, role) for role in self.shape.roles}
        lives: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {"worker": self._work}
        if self.shape.serving is not None:
            lives["service"] = self._serve
        return lives

    async def _keep(self, role: str, life: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have a process of that role, and another one when it has died."""
        while True:
            process = self.sim.process(role, life)
            if role == self.faults.role:
                self._watch(process)
            else:
                self._others.append(process)
            try:
                await process.wait()
                return
            except Killed:
                self.ran.died_at.append(self._last_words(role))
            except (StoreUnavailable, BrokerUnavailable):
                pass  # it could not even open, and whoever started it starts it again

    def _last_words(self, role: str) -> str:
        """Return the last named point that a process of the role came to."""
        said = (line.partition(" ")[2] for line in reversed(self.sim.trace))
        return next((line for line in said if line.startswith(f"{role}: ")), f"{role}: its beginning")

    def _watch(self, process: Process) -> None:
        """Note what would survive at each point, and kill the process at its own."""
        records = self._records and not self._deaths
        if self._deaths:
            process.crash_at(self._deaths.pop(0))
        if not records:
            return
        states, digest, comes = self.ran.states, self.surface.digest, process.comes_to_point
        states.clear()

        def watched() -> bool:
            states.append(digest())
            return comes()

        process.comes_to_point = watched  # type: ignore[method-assign]

    async def _work(self) -> None:
        assert isinstance(self.shape, Shape)
        shape, more = self.shape, dict[str, Any]()
        if shape.serving is not None:
            more["broker"] = broker = self._broker()
            await broker.__aenter__()
        first, self._deploys = min(self._deploys, shape.generations - 1), self._deploys + 1
        for generation in range(first, shape.generations):
            store, sagas = PointedStore(self.store, self.calls), shape.make(self.stage, generation)
            async with Orchestrator(store, sagas=sagas, limits=LIMITS, **more) as orchestrator:
                await shape.play(orchestrator, self.stage, generation=generation)

    async def _hear_out(self) -> None:
        assert isinstance(self.shape, Shape)
        store, sagas = PointedStore(self.store, self.calls), self.shape.make(self.stage, 0)
        async with self._broker() as broker, Orchestrator(store, sagas=sagas, limits=LIMITS, broker=broker):
            await asyncio.Event().wait()

    async def _serve(self) -> None:
        assert isinstance(self.shape, Shape)
        assert self.shape.serving is not None
        async with self._broker() as broker, self.shape.serving(self.stage, broker):
            await asyncio.Event().wait()

    async def _dance(self, role: str) -> None:
        assert isinstance(self.shape, Dance)
        async with self._broker() as broker, self.shape.service(role, self.stage, broker):
            if role == self.shape.starter:
                self.shape.begin(self.stage)
            await asyncio.Event().wait()

    def _broker(self) -> PointedBroker:
        return PointedBroker(f"memory://{self._server_name}", self.calls, self.sim.clock.time)


def run(
    shape: Shape | Dance,
    faults: Faults = NO_FAULTS,
    parts: Parts = WHOLE,
    *,
    limit_seconds: float = 3600.0,
    records: bool = True,
) -> Ran:
    """Run a shape once with these faults. `records`: tell what would survive at each point of the last process."""
    return Run(shape, faults, parts, limit_seconds=limit_seconds, records=records).go()
