"""One run of a saga in the simulation, with what a scenario asks for, and the judgement of it.

Owns the lives of the worker (a killed one is followed by another), the events and the cancel that come from outside, a
person who tells a saga in need of attention to try again, and what is compared at the end. Must not choose scenarios.
Called by `verifying` for each.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from atone._core.plan import Plan
from atone._core.state import SagaStatus
from atone._runtime.limits import Limits
from atone.brokers.memory import SERVERS, MemoryBroker
from atone.definition import Saga
from atone.errors import RequestRefused
from atone.orchestrator import Handle, Orchestrator
from atone.outcome import NeedsAttention, Outcome
from atone.stores.memory import MemoryStore
from atone.testing._verify.calls import tampered
from atone.testing._verify.case import Case, definition_on, entered
from atone.testing._verify.letters import BrokerOfOneLife, pending
from atone.testing._verify.scenarios import NO_FAULT, Called, Fault, Kind, Scenario
from atone.testing._verify.store import StoreOfOneLife
from atone.testing._verify.timeline import Timeline
from atone.testing._verify.world import World
from atone.testing.invariants import Called as CalledBy
from atone.testing.invariants import check_invariants, read_histories
from atone.testing.simulate import Killed, Process, Simulation, Stuck, TooLong

SAGA_ID = "verified"
LIVES_MAX = 20
ROUNDS_MAX = 3
LOOK_SECONDS = 1.0
LOOKS_MAX = 120
STEPS_MAX = 100_000  # some runs of long sagas come to a tenth of it
_NUMBERS = count(1)


@dataclass
class Result:
    """What came of a run. `end` is how the saga ended, `wrong` what must not be, `balance` what the ledger said.

    `failure` is why it was undone, of a run without faults that no step has refused.
    """

    scenario: Scenario
    end: str = "no end"
    balance: Any = None
    untouched: Any = None
    wrong: list[str] = field(default_factory=list[str])
    points: list[str] = field(default_factory=list[str])
    hops: dict[tuple[str, Called], int] = field(default_factory=dict[tuple[str, Called], int])
    calls: Counter[tuple[str, Called]] = field(default_factory=Counter[tuple[str, Called]])
    hit: set[Fault] = field(default_factory=set[Fault])
    failure: str | None = None
    timeline: Timeline | None = None

    @property
    def status(self) -> str:
        """The final status, if there is one."""
        return self.end.removeprefix("attention, then ")


class Run:
    """One run; used once."""

    def __init__(self, case: Case, scenario: Scenario) -> None:
        self.case, self.scenario = case, scenario
        self.late_grace_seconds = case.plan.late_grace_seconds
        self.result = Result(scenario)
        self._sim = Simulation(scenario.seed, steps_max=STEPS_MAX)
        self._store = MemoryStore(allow_volatile=True, clock=self._sim.clock.time)
        self._timeline = Timeline(self._sim.clock, case.plan)
        self._calls: list[CalledBy] = []
        self._process: Process | None = None
        self._handle: Handle[Any] | None = None
        self._outcome: Outcome | None = None
        self._attended = False
        self._landed: dict[str, Any] = {}
        self._is_mended = False
        self._broker: MemoryBroker | None = None
        self.world: World

    def go(self) -> Result:
        """Run it, and judge."""
        result = self.result
        try:
            self._sim.run(self._main)
        except Stuck:
            result.wrong.append("the saga stands still: nothing will ever happen in it any more")
        except TooLong as never:
            result.wrong.append(f"it comes to no end, for a step goes round and round, or waits for ever: {never}")
        result.timeline = self._timeline
        return result

    # -- what calls ask for --------------------------------------------------------------------------------------

    def now(self) -> float:
        """Return the store's time."""
        return self._sim.clock.time()

    def count(self, step: str, called: Called) -> int:
        """Count a call, and return which one of its kind it is."""
        self.result.calls[step, called] += 1
        return self.result.calls[step, called]

    def saw(self, step: str, called: Called, attempt: int) -> None:
        """Remember a call, for the comparison with its intent."""
        if called in ("action", "compensation"):
            self._calls.append(CalledBy(SAGA_ID, step, called, attempt))

    def sent(self, step: str, called: Called, attempt: int) -> None:
        """Remember that a command went out."""
        self.result.calls[step, called] += 1
        self.note(f"the command of {step}, {called} {attempt} is published")

    def timeout_seconds(self, step: str, called: Called) -> float:
        """Return how long the saga waits for the answer to a command."""
        plan = self.case.plan.steps[self.case.plan.index[step]]
        return plan.timeout_seconds if called == "action" else plan.compensation_timeout_seconds

    def fault(self, step: str, called: Called, number: int, hop: int | None) -> Fault | None:
        """Return what goes wrong with a call: nothing more once a person has looked after the saga."""
        if self._is_mended:
            return None
        found = next((one for one in self.scenario.faults if one.hits(step, called, number, hop)), None)
        if found is not None:
            self.result.hit.add(found)
            self.note(f"** {found.name}")
        return found

    def saw_hop(self, step: str, called: Called, hop: int) -> None:
        """Remember that the step's code calls a participant."""
        self.result.hops[step, called] = max(hop, self.result.hops.get((step, called), 0))

    def landed(self, step: str, called: Called, value: Any) -> None:
        """Remember what came of a call, for a person who is asked whether it landed."""
        if called == "action":
            self._landed[step] = value

    async def point(self, what: str) -> None:
        """Come to a place where the process may die, or a cancel may come."""
        self.point_blocking(what)
        if len(self.result.points) == self.scenario.cancel and self._handle is not None and not self._is_mended:
            self.note("** cancelled from outside")
            try:
                await self._handle.cancel(reason="cancelled, by the test")
            except RequestRefused as over:
                self.note(f"the cancel is refused: {over}")

    def point_blocking(self, what: str) -> None:
        """Come to such a place in plain code, where no cancel comes."""
        self.result.points.append(what)
        number = len(self.result.points)
        if number in self.scenario.crashes and not self._is_mended:
            self.note(f"** the worker is killed at point {number}: {what}")
            assert self._process is not None
            self._process.kill()
        self._sim.point(what)

    def note(self, what: str) -> None:
        """Write a line of the timeline."""
        self._timeline.add(what)

    # -- the run -------------------------------------------------------------------------------------------------

    async def _main(self) -> None:
        self.world = World()
        async with AsyncExitStack() as stack:
            participants = await entered(self.case.participants(), stack)
            self.result.untouched = self.case.balance(participants)
            if self.case.serving is not None:
                self._broker = await stack.enter_async_context(_broker(self._sim.clock.time))
                await stack.enter_async_context(self.case.serving(participants, self._broker))
            await self._live(participants)
            await self._judge(participants)

    async def _live(self, participants: Any) -> None:
        for life in range(1, LIVES_MAX + 1):
            self.note(f"worker {life} begins")
            self._process = self._sim.process(
                f"worker {life}", lambda: self._work(definition_on(self.case.saga, participants))
            )
            try:
                await self._process.wait()
            except Killed:
                self._handle = None
                continue
            return
        raise AssertionError("nobody kills so often")

    async def _work(self, saga: Saga[Any]) -> None:
        store = StoreOfOneLife(self._store, self.point, self._timeline.tell)
        broker = None if self._broker is None else BrokerOfOneLife(self._broker, self)
        orchestrator = Orchestrator(store, sagas=[saga], limits=_limits(self.case.plan), broker=broker)
        for bound in orchestrator._catalogue.all:  # pyright: ignore[reportPrivateUsage] - what it calls is ours here
            tampered(self, bound)
        async with orchestrator:
            handle = self._handle = await self._start(orchestrator, saga)
            outcome = await self._attend(orchestrator, handle, await handle.outcome())
            await self._settle()
            self._outcome = await self._attend(orchestrator, handle, outcome)

    async def _settle(self) -> None:
        """Let all that is under way arrive, and be answered."""
        await self._quiet()
        await self.world.settle()
        await self._quiet()

    async def _quiet(self) -> None:
        for _ in range(LOOKS_MAX):
            if self._broker is None or not pending(self._broker.server):
                return
            await asyncio.sleep(LOOK_SECONDS)

    async def _start(self, orchestrator: Orchestrator, saga: Saga[Any]) -> Handle[Any]:
        early = [one for one in self.scenario.faults if one.kind is Kind.COMES_EARLY]
        for name in self._events_of(early):
            await self._send(orchestrator, saga, name)
        handle = await orchestrator.start(type(saga), self.case.given, saga_id=SAGA_ID)
        self.result.hit.update(one for one in self.scenario.faults if one.called == "event")
        never = {one.step for one in self.scenario.faults if one.kind is Kind.NEVER_COMES}
        for step in self.case.plan.steps:
            awaited = step.event_name
            if awaited is not None and awaited in self.case.events and step.name not in never:
                await self._send(orchestrator, saga, awaited)
        return handle

    def _events_of(self, faults: list[Fault]) -> list[str]:
        by_name = {step.name: step.event_name for step in self.case.plan.steps}
        return [name for one in faults if (name := by_name.get(one.step)) in self.case.events and name is not None]

    async def _send(self, orchestrator: Orchestrator, saga: Saga[Any], name: str) -> None:
        """Send an event, with the same id each time, so that a repeat is known for one."""
        self.note(f"the event {name} is sent")
        twice = any(one.kind is Kind.TWICE and one.called == "event" for one in self.scenario.faults)
        for _ in range(2 if twice else 1):
            try:
                await orchestrator.send_event(type(saga), SAGA_ID, name, self.case.events[name], event_id=f"the {name}")
            except RequestRefused as over:
                self.note(f"the event {name} is refused: {over}")

    async def _attend(self, orchestrator: Orchestrator, handle: Handle[Any], outcome: Outcome) -> Outcome:
        """Do what a person does with a saga that needs one: see to it that the fault is over, then try again."""
        for _ in range(ROUNDS_MAX):
            if not isinstance(outcome, NeedsAttention):
                return outcome
            self.note(f"needs attention at {outcome.step}: {outcome.cause}"[:200])
            self._attended = self._is_mended = True
            self.note("the faults are over; a person looks after it")
            await self._help(orchestrator, type(handle.bound.saga), outcome.step)
            outcome = await self._moved(handle)
        return outcome

    async def _help(self, orchestrator: Orchestrator, saga: type[Saga[Any]], step: str) -> None:
        """Have it try again; of a step that may be called once only say what became of it, and say the truth."""
        at = self.case.plan.index.get(step)
        if at is None or not self.case.plan.steps[at].at_most_once:
            await orchestrator.retry(saga, SAGA_ID, reason="mended")
        elif step in self._landed:
            result = self._landed[step]
            await orchestrator.resolve(saga, SAGA_ID, step, landed=True, result=result, reason="it is there")
        else:
            await orchestrator.resolve(saga, SAGA_ID, step, landed=False, reason="it is not there")

    async def _moved(self, handle: Handle[Any]) -> Outcome:
        for _ in range(LOOKS_MAX):
            await asyncio.sleep(LOOK_SECONDS)
            if await handle.status() is not SagaStatus.NEEDS_ATTENTION:
                break
        return await handle.outcome()

    # -- the judgement -------------------------------------------------------------------------------------------

    async def _judge(self, participants: Any) -> None:
        result = self.result
        histories = await read_histories(self._store)
        status = histories[0].summary.status if histories else "never started"
        result.failure = self._timeline.failure() if self.scenario == NO_FAULT else None
        result.end = f"attention, then {status}" if self._attended else status
        try:
            result.balance = self.case.balance(participants)
        except Exception as error:  # noqa: BLE001 - a ledger may raise what it likes: it complains
            result.wrong.append(f"the ledger complains ({type(error).__name__}): {error}")
        steps = [step.name for step in self.case.plan.steps]
        broken = check_invariants(histories, [], calls=self._calls, unrecorded=steps)
        result.wrong += [str(one) for one in broken]
        result.wrong += [f"outside of the saga: {one}" for one in self._sim.errors]


def _limits(plan: Plan) -> Limits:
    """Return the limits of a worker whose looks at the store are few, however long its saga waits: days are no time."""
    longest = max((step.wait_seconds or 0.0 for step in plan.steps), default=0.0)
    scale = max(1.0, longest / 1000)
    return Limits(poll_seconds=5 * scale, lease_seconds=10 * scale, loop_stall_seconds=40 * scale)


@asynccontextmanager
async def _broker(clock: Callable[[], float]) -> AsyncGenerator[MemoryBroker, None]:
    """A broker of this run alone; when it is over nothing of it is kept."""
    name = f"verify-{next(_NUMBERS)}"
    try:
        async with MemoryBroker(f"memory://{name}", clock=clock) as broker:
            yield broker
    finally:
        SERVERS.pop(name, None)
