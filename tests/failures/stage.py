"""The stage of a failure: sagas in a deterministic simulation, the real command line, and the page that comes of it.

Owns the run of one story in virtual time, what the page quotes of it, and the seam by which `atone` looks at the
simulated store. A page is the same to the byte each time. Must not know a failure; `stories` tell them.
"""

from __future__ import annotations

import asyncio
import io
import logging
import os
import shlex
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from inspect import cleandoc
from types import SimpleNamespace
from typing import Any, Self
from unittest import mock

from atone import Orchestrator, Saga, SagaStatus
from atone.cli import commands
from atone.cli.exits import Exit, Stop
from atone.cli.output import Output
from atone.errors import AtoneError
from atone.orchestrator import Limits
from atone.store import Query
from atone.stores.memory import MemoryStore
from atone.testing.simulate import Process, Simulation
from tests.failures.shop import Order, PlaceOrder
from tests.runtime.faulty_store import FaultyStore
from tests.runtime.world import World

Story = Callable[["Stage"], Awaitable[None]]
SETTLED = frozenset({*(status for status in SagaStatus if status.is_final), SagaStatus.NEEDS_ATTENTION})
_TERMINAL = {"COLUMNS": "110", "TERM": "dumb", "NO_COLOR": "1"}


@dataclass(frozen=True)
class Failure:
    """One failure: its page's name is itself in words, `symptom` is what somebody sees first."""

    name: str
    title: str
    symptom: str
    story: Story

    @property
    def file(self) -> str:
        return f"{self.name}.md"


FAILURES: dict[str, Failure] = {}


def failure(title: str, symptom: str) -> Callable[[Story], Story]:
    """Register a story under its function's name; see `Failure`."""

    def registered(story: Story) -> Story:
        name = story.__name__.replace("_", "-")
        FAILURES[name] = Failure(name, title, symptom, story)
        return story

    return registered


@dataclass
class Page:
    """What is said, section by section."""

    happens: list[str] = field(default_factory=list)
    shows: list[str] = field(default_factory=list)
    person: list[str] = field(default_factory=list)

    def text(self, failure: Failure) -> str:
        """Return the page."""
        sections = (
            ("What happens", self.happens),
            ("What the journal shows", self.shows),
            ("What a person does", self.person),
        )
        where = failure.story.__module__.replace(".", "/")
        said = [f"<!-- made by python -m tests.failures --write; the words stand in {where}.py -->"]
        said += [f"# {failure.title}", f"*You see:* {failure.symptom}"]
        for title, parts in sections:
            assert parts, f"{failure.name} says nothing of: {title}"
            said += [f"## {title}", *parts]
        said.append("[All failures](../failures.md)")
        return "\n\n".join(said) + "\n"


class Shared(FaultyStore):
    """One process's way to the store: it is open already, and fails as a story tells."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


class Stage:
    """One story under way. Everything that is told is either prose or a quotation of what really ran."""

    def __init__(self, seed: int | None = None) -> None:
        self.sim = Simulation(seed)
        self.world = World()
        self.memory = MemoryStore(allow_volatile=True, clock=self.sim.clock.time)
        self.store = Shared(self.memory)
        self.page = Page()
        self.heard = _Heard()
        self._section = self.page.happens

    # -- the page

    def happens(self, text: str) -> None:
        """Say what happens."""
        self.page.happens.append(cleandoc(text))
        self._section = self.page.happens

    def journal(self, text: str) -> None:
        """Say what can be seen."""
        self.page.shows.append(cleandoc(text))
        self._section = self.page.shows

    def person(self, text: str) -> None:
        """Say what a person does."""
        self.page.person.append(cleandoc(text))
        self._section = self.page.person

    def quote(self, text: str) -> None:
        """Quote something, in the section of what was said last."""
        self._section.append(f"```text\n{text.rstrip()}\n```")

    def ledger(self, saga_id: str = "order-1") -> str:
        """Return, in words, what the participants did for a saga."""
        calls = [one.step for one in self.world.calls if one.saga_id == saga_id]
        counted = ", ".join(f"{name} {calls.count(name)}" for name in dict.fromkeys(calls))
        standing = ", ".join(sorted(self.world.standing(saga_id))) or "nothing"
        return f"*At the participants:* calls: {counted}. What stands: {standing}."

    def tell_ledger(self, saga_id: str = "order-1") -> None:
        """Put that on the page."""
        self._section.append(self.ledger(saga_id))

    def log(self, *words: str) -> None:
        """Quote the lines of the log that have any of these words; there must be one."""
        found = [line for line in self.heard.lines if any(word in line for word in words)]
        assert found, self.heard.lines
        self.quote("\n".join(dict.fromkeys(found)))

    # -- what runs

    def worker(self, *sagas: Saga[Any], name: str = "worker", store: Any = None, **limits: Any) -> Process:
        """Start a worker in a process of its own; it runs until it is killed."""
        return self.sim.process(name, lambda: self._work(sagas or (PlaceOrder(self.world),), store, limits))

    async def _work(self, sagas: tuple[Saga[Any], ...], store: Any, limits: dict[str, Any]) -> None:
        usual = {"poll_seconds": 1.0, **limits}
        options: dict[str, Any] = {"allow_volatile": True, "limits": Limits(**usual)}
        async with Orchestrator(store or self.store, sagas=list(sagas), **options):
            await asyncio.Event().wait()

    @asynccontextmanager
    async def client(self, *sagas: Saga[Any]) -> AsyncIterator[Orchestrator]:
        """Be a program that starts sagas and asks for them, and runs none."""
        given = list(sagas or (PlaceOrder(self.world),))
        async with Orchestrator(Shared(self.memory), sagas=given, runs=False, allow_volatile=True) as atone:
            yield atone

    async def start(self, saga_id: str = "order-1", saga: Saga[Any] | None = None, **order: Any) -> None:
        """Start a saga."""
        made = saga or PlaceOrder(self.world)
        async with self.client(made) as atone:
            await atone.start(type(made), Order(**order), saga_id=saga_id)

    async def status(self, saga_id: str = "order-1") -> SagaStatus:
        """Return where a saga stands."""
        (found,) = await self.memory.find(Query(saga_id=saga_id))
        return SagaStatus(found.status)

    async def settled(self, saga_id: str = "order-1") -> SagaStatus:
        """Wait until a saga is over, or needs a person."""
        return await self.until(lambda status: status in SETTLED, saga_id)

    async def until(self, is_so: Callable[[SagaStatus], bool], saga_id: str = "order-1") -> SagaStatus:
        """Wait until a saga's status is such."""
        pause = 0.05
        while not is_so(status := await self.status(saga_id)):
            await asyncio.sleep(pause)
            pause = min(pause * 1.1, 1.0)
        return status

    async def atone(self, line: str, *, status: int = 0) -> str:
        """Run a command as a person would, quote it with what it says, and return that."""
        said, ended = await self.quietly(line)
        self.quote(f"$ atone {line}\n{said}")
        assert ended == status, f"atone {line} ended with status {ended}: {said}"
        return said

    async def quietly(self, line: str) -> tuple[str, int]:
        """Run a command; return what it says, and its exit status."""
        took: list[Callable[[Output, Any], Awaitable[Exit]]] = []

        def take(where: Any, work: Callable[[Output, Any], Awaitable[Exit]], *, notify: bool = False) -> Exit:
            took.append(work)  # it would run in an event loop of its own
            return Exit.DONE

        said = io.StringIO()
        seams = {"_with_store": take, "time": SimpleNamespace(time=self.sim.clock.time)}
        with ExitStack() as around:
            around.enter_context(mock.patch.multiple(commands, **seams))
            around.enter_context(mock.patch.dict(os.environ, _TERMINAL))
            around.enter_context(redirect_stdout(said))
            around.enter_context(redirect_stderr(said))
            ended: int = commands.run([*shlex.split(line)])
            out = Output("--json" in line)
            for work in took:
                ended = await self._worked(out, work)
        lines = (one.rstrip() for one in said.getvalue().splitlines())
        return "\n".join(lines).strip("\n"), ended

    async def _worked(self, out: Output, work: Callable[[Output, Any], Awaitable[Exit]]) -> int:
        try:
            return await work(out, self.memory)
        except Stop as stop:
            out.fail(stop.code, str(stop), **stop.more)
            return stop.status
        except AtoneError as error:
            out.fail(error.code, str(error))
            return Exit.REFUSED


class _Heard(logging.Handler):
    """Keeps what Atone logs."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        first, *_ = record.getMessage().splitlines()  # what follows is where it was raised
        self.lines.append(f"{record.levelname} {record.name}: {first}")


def page_of(failure: Failure) -> str:
    """Run a failure's story and return its page; what the story asserts has held."""
    stage = Stage()
    log = logging.getLogger("atone")
    before = log.level
    log.addHandler(stage.heard)
    log.setLevel(logging.INFO)
    try:
        stage.sim.run(lambda: _told(stage, failure))
    finally:
        log.removeHandler(stage.heard)
        log.setLevel(before)
    return stage.page.text(failure)


async def _told(stage: Stage, failure: Failure) -> None:
    async with stage.memory:
        await failure.story(stage)
