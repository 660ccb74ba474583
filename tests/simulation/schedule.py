"""One schedule, run and judged: nodes that live and die as its scenario says, then calm, then the invariants.

Owns the world of a run: one store that all nodes share, the participants, and who starts nodes again. Must not draw
what happens (`scenario`) nor print (`__main__`). The same seed gives the same verdict, to the byte.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from random import Random
from typing import Any, NamedTuple

from atone import Orchestrator, Saga
from atone.broker import Message, Published
from atone.brokers.memory import SERVERS, MemoryBroker
from atone.codec import Codec
from atone.errors import AtoneError, StoreError
from atone.orchestrator import Limits
from atone.store import Loaded
from atone.stores.memory import MemoryStore
from atone.testing.chaotic_broker import Chaos, ChaoticBroker
from atone.testing.faults import Faults, FaultyStore
from atone.testing.invariants import Violation, check_invariants, read_histories
from atone.testing.simulate import Killed, Process, Simulation, Stuck, TooLong, point
from tests.shapes.catalogue import SHAPES
from tests.shapes.choreographed import DANCES
from tests.shapes.databases import MemoryDatabases
from tests.shapes.ledger import calls_in, effects_in
from tests.shapes.shape import Shape, Stage, patiently
from tests.simulation.disturbed import Disturbed
from tests.simulation.scenario import LEASE_SECONDS, Blow, Play, Scenario, Serving, Strike, drawn, shape_named

QUICK = Limits(poll_seconds=1.0, lease_seconds=LEASE_SECONDS, grace_seconds=2.0, keep_seconds=1.0)
TROUBLE_SECONDS = 60.0
REST_SECONDS = 1800.0
DAYS_SECONDS = 31 * 86_400.0
LANDING_SECONDS = 120.0
PUBLISHED_SECONDS = 15.0
DANCED = "d0"
CHAOS = Chaos(window=5, delay_seconds=0.05)
DEBUG = False  # a replay shows tracebacks too
_CODEC = Codec()  # what it knows of types is the same for all


class Verdict(NamedTuple):
    """What came of one schedule; `wrong` is empty if all is well."""

    seed: int
    digest: str
    steps: int
    kills: int
    wrong: tuple[str, ...]
    sagas: int = 0
    story: tuple[str, ...] = ()


class Recorded(MemoryBroker):
    """Keeps what was published, for the judge."""

    def __init__(self, url: str, *, published: list[Message], **other: Any) -> None:
        super().__init__(url, **other)
        self._published = published

    async def publish(self, messages: Sequence[Message]) -> Sequence[Published]:
        """See `Broker`."""
        results = await super().publish(messages)
        self._published += messages
        return results


class Run:
    """One schedule under way."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.sim = Simulation(
            None if scenario.ordered else scenario.seed,
            steps_max=100_000,
            seconds_max=10 * DAYS_SECONDS,
            thread_seconds=scenario.thread_seconds,
        )
        self.store = MemoryStore(allow_volatile=True, clock=self.sim.clock.time)
        self.faults = Faults(self._drawn("store"), **scenario.shares)
        self.stage = Stage(point=point, databases=MemoryDatabases(point=point, clock=self.sim.clock.time))
        self.services = Disturbed(
            self.stage.services,
            self._drawn("participants"),
            badly=scenario.badly,
            slow_seconds=scenario.slow_seconds,
            late_seconds=self._late_seconds,
            now=self.sim.clock.time,
        )
        self.stage.services = self.services
        self.shapes = [shape_named(one.shape) for one in scenario.plays]
        self.is_long = any(shape.is_long for shape in self.shapes)
        self._late: dict[tuple[str, str], float] = {
            (play.saga_id + start.suffix, step.name): start.saga.plan().late_grace_seconds
            for play, shape in zip(scenario.plays, self.shapes, strict=True)
            for start in shape.starts
            for step in start.saga.plan().steps
            if not step.barrier and scenario.bare
        }
        self.url = f"memory://simulation-{scenario.seed}"
        self.published: list[Message] = []
        self._needed = {(node, at) for at, play in enumerate(scenario.plays) for node in play.nodes}
        self.wrong: list[str] = []
        self.kills = 0
        self._over = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._calm = False
        self._played: set[tuple[int, int]] = set()
        self._all_played = asyncio.Event()
        self._live: dict[int, Process] = {}
        self._leave: dict[int, asyncio.Event] = {}

    # -- the nodes -------------------------------------------------------------------------------------------------

    async def _node(self, node: int, leave: asyncio.Event) -> None:
        more: dict[str, Any] = {}
        if self.scenario.servings:
            more = {"broker": self._broker(f"{node}"), "events": self.scenario.told}
        orchestrator = Orchestrator(
            FaultyStore(self.store, self.faults),
            sagas=self._sagas(),
            codec=_CODEC,
            limits=QUICK,
            runs=node not in self.scenario.starters,
            **more,
        )
        async with orchestrator:
            tasks = [
                asyncio.ensure_future(self._play(orchestrator, node, number, play))
                for number, play in enumerate(self.scenario.plays)
                if node in play.nodes and (node, number) not in self._played
            ]
            left = asyncio.ensure_future(leave.wait())
            await asyncio.wait([left, *tasks], return_when=asyncio.FIRST_EXCEPTION)
            await left
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, serving: Serving, leave: asyncio.Event) -> None:
        """Serve the participants of one process, and begin what they dance."""
        async with AsyncExitStack() as stack:
            broker = await stack.enter_async_context(self._broker(str(serving)))
            if serving.shape:
                make = SHAPES[serving.shape].serving
                assert make is not None, "it was drawn because it has one"
                await stack.enter_async_context(make(self.stage, broker))
            else:
                dance = DANCES[serving.dance]
                for role in serving.roles:
                    await stack.enter_async_context(dance.service(role, self.stage, broker))
                if dance.starter in serving.roles:
                    dance.begin(self.stage, DANCED)
            await leave.wait()

    def _broker(self, purpose: str) -> ChaoticBroker:
        inner = Recorded(self.url, clock=self.sim.clock.time, patience_seconds=5.0, published=self.published)
        return ChaoticBroker(inner, self._drawn(f"broker {purpose}").getrandbits(32), CHAOS)

    async def _dance(self) -> None:
        dance = next((DANCES[one.dance] for one in self.scenario.servings if one.dance), None)
        if dance is not None:
            while not dance.is_over(self.stage, DANCED):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.25)
        self._over_with(-1, 0)

    def _over_with(self, node: int, number: int) -> None:
        self._played.add((node, number))
        if self._played >= self._needed:
            self._all_played.set()

    async def _play(self, orchestrator: Orchestrator, node: int, number: int, play: Play) -> None:
        try:
            await patiently(lambda: shape_named(play.shape).play(orchestrator, self.stage, play.saga_id))
        except AtoneError as error:
            self.wrong.append(f"playing {play.shape}: {type(error).__name__}: {error}")
        self._over_with(node, number)

    def _drawn(self, purpose: str) -> Random:
        return self.sim.chance(f"{purpose} of {self.scenario.seed}")

    def _late_seconds(self, saga_id: str, step: str) -> float | None:
        """Return how long after its hard end a call may land; None if the participant guards against late ones."""
        return self._late.get((saga_id, step))

    def _sagas(self) -> list[Saga[Any]]:
        made: dict[type, Saga[Any]] = {}
        for shape in self.shapes:
            for saga in shape.make(self.stage, shape.generations - 1):
                made.setdefault(type(saga), saga)
        return list(made.values())

    async def _keep_up(self, node: int) -> None:
        """Start a node again whenever it is gone, until all is over."""
        chance, life = self._drawn(f"node {node}"), 0
        first_serving = self.scenario.nodes
        while not self._over.is_set():
            leave = self._leave[node] = asyncio.Event()
            name = f"node{node}.{life}"
            skew = self.scenario.skews[node]
            if node < first_serving:
                begin = partial(self._node, node, leave)
            else:
                begin = partial(self._serve, self.scenario.servings[node - first_serving], leave)
            process = self._live[node] = self.sim.process(name, begin, skew_seconds=skew)
            for blow in self.scenario.blows:
                if (blow.node, blow.life) == (node, life):
                    process.at_point(blow.point, lambda process=process, blow=blow: self._strike(process, blow))
            try:
                await process.wait()
            except Killed:
                self.kills += 1
            except StoreError:
                pass  # it could not begin, as its store was away: whoever runs it starts it again
            except Exception as error:
                self.wrong.append(f"{name} failed: {type(error).__name__}: {error}")
            life += 1
            await asyncio.sleep(chance.choice((0.0, 0.1, 2 * LEASE_SECONDS)))

    def _strike(self, process: Process, blow: Blow) -> None:
        if self._calm:
            return
        self.sim.note(f"{process.name} at point {process.points}: {blow.what}")
        assert self._loop is not None, "it runs"
        loop = self._loop  # not the running one: a thread may have come to the point
        match blow.what:
            case Strike.KILL:
                process.end("is killed", None, Killed("It was killed. That was meant."))
            case Strike.FREEZE:
                process.freeze()
                loop.call_later(blow.seconds, process.thaw, context=_NOBODY)
            case Strike.LEAVE:
                self._leave[blow.node].set()
            case Strike.OUTAGE:
                self.faults.away = True
                loop.call_later(blow.seconds, self._back, context=_NOBODY)

    def _back(self) -> None:
        self.faults.away = False

    # -- the whole -------------------------------------------------------------------------------------------------

    async def main(self) -> list[Loaded]:
        """Run all that was drawn, then let it come to rest, and return what stands in the store."""
        self._loop = asyncio.get_running_loop()
        nodes = self.scenario.nodes + len(self.scenario.servings)
        keepers = [asyncio.ensure_future(self._keep_up(node)) for node in range(nodes)]
        if self.scenario.servings:
            self._needed.add((-1, 0))
            keepers.append(asyncio.ensure_future(self._dance()))
        await self._within(TROUBLE_SECONDS / 2, self._all_played)
        if self.is_long:
            self.sim.note("the whole fleet sleeps for days")
            self.sim.clock.advance(DAYS_SECONDS)
        await self._within(TROUBLE_SECONDS / 2, self._all_played)
        self._become_calm()
        if self.is_long and not await self._within(TROUBLE_SECONDS / 2, self._all_played):
            self.sim.clock.advance(DAYS_SECONDS)  # it came to its delay only now
        if not await self._within(REST_SECONDS, self._all_played):
            self.wrong.append(f"I9 liveness: not at rest {REST_SECONDS:.0f} s after the faults were over")
        if self.scenario.servings:
            await asyncio.sleep(PUBLISHED_SECONDS)
            if (waiting := (await self.store.outstanding()).waiting) > 0:
                self.wrong.append(f"I9 liveness: {waiting} messages wait, and nothing moves them any more")
        self._over.set()
        for leave in self._leave.values():
            leave.set()
        done, late = await asyncio.wait(keepers, timeout=60)
        if late:
            self.wrong.append("I9 liveness: a node did not close within a minute")
        for one in done:
            one.result()
        await asyncio.sleep(LANDING_SECONDS)  # what is still on its way lands now
        histories = await read_histories(self.store)
        if any(one.summary.owner is not None and one.summary.status == "needs_attention" for one in histories):
            # Its owner was closed while a `when` was asked beside; whoever comes next finds it and hands it back.
            leave = asyncio.Event()
            last = self.sim.process("last", partial(self._node, 0, leave))
            await asyncio.sleep(2 * LEASE_SECONDS)
            leave.set()
            await last.wait()
            histories = await read_histories(self.store)
        return histories

    def _become_calm(self) -> None:
        self._calm = self.services.calm = True
        self.sim.note("the faults are over")
        self.faults.stop()
        for process in self._live.values():
            process.thaw()

    async def _within(self, seconds: float, event: asyncio.Event) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            return False
        return True

    def judge(self, histories: Sequence[Loaded]) -> Iterator[str]:
        """Yield everything that is wrong with what is left."""
        recorded = {shape.recorded: None for shape in self.shapes if shape.recorded is not None}
        lines = [*self.stage.lines, *(line for read in recorded for line in read(self.stage))]
        told: dict[str, Any] = {"published": self.published, "events": True} if self.scenario.told else {}
        yield from (str(one) for one in check_invariants(histories, effects_in(lines), calls=calls_in(lines), **told))
        for dance in {one.dance for one in self.scenario.servings if one.dance}:
            yield from (str(one) for one in DANCES[dance].violations(self.stage, DANCED))
        if self.scenario.strict:
            for play, shape in zip(self.scenario.plays, self.shapes, strict=True):
                yield from (f"strict: {one}" for one in self._wrong_ends(shape, play, histories))
        yield from self.sim.errors

    def _wrong_ends(self, shape: Shape, play: Play, histories: Sequence[Loaded]) -> list[Violation]:
        return [
            one for one in shape.violations(histories, self.stage, play.saga_id) if one.saga_id.startswith(play.saga_id)
        ]


def run(seed: int, *, tell: bool = False) -> Verdict:
    """Run the schedule of a seed; with `tell` the verdict has its story even if all is well."""
    return run_scenario(drawn(seed), tell=tell)


def run_scenario(scenario: Scenario, *, tell: bool = False) -> Verdict:
    """Run one schedule."""
    histories: list[Loaded] = []
    one = Run(scenario)
    with _listening(one):
        try:
            histories = one.sim.run(one.main)
        except (Stuck, TooLong) as end:
            one.wrong.append(f"I9 liveness: {type(end).__name__}: {end}")
    SERVERS.pop(one.url.removeprefix("memory://"), None)
    wrong = (*one.wrong, *one.judge(histories))
    story = tuple(_story(one, histories)) if wrong or tell else ()
    return Verdict(scenario.seed, one.sim.digest(), one.sim.steps, one.kills, wrong, len(histories), story)


def _story(one: Run, histories: Sequence[Loaded]) -> Iterator[str]:
    yield str(one.scenario)
    yield from one.sim.trace
    for loaded in histories:
        found = loaded.summary
        yield f"-- {found.name} {found.saga_id}: {found.status}, owner {found.owner}"
        for row in loaded.rows:
            yield f"   {row.version} at {row.at - one.sim.clock.time():.3f}: {row.entries.decode()}"
    yield from (f"   ledger: {line}" for line in one.stage.lines)


class _Listener(logging.Handler):
    def __init__(self, one: Run) -> None:
        super().__init__(logging.INFO)
        self._run = one

    def emit(self, record: logging.LogRecord) -> None:
        if self._run.sim.is_over:
            return  # what is thrown away has nothing to say
        text = record.getMessage()
        self._run.sim.note(f"log {record.levelname} {text}")
        if DEBUG and record.exc_info:
            self._run.sim.note(logging.Formatter().formatException(record.exc_info))
        if record.levelno >= logging.ERROR and "event loop has not run" not in text:
            self._run.wrong.append(f"logged an error: {text}")


@contextmanager
def _listening(one: Run) -> Iterator[None]:
    log, listener = logging.getLogger("atone"), _Listener(one)
    propagate, log.propagate = log.propagate, False
    log.addHandler(listener)
    try:
        yield
    finally:
        log.removeHandler(listener)
        log.propagate = propagate


def _nobody() -> Any:
    from contextvars import Context

    return Context()


_NOBODY = _nobody()
