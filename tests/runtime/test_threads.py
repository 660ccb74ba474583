"""Plain functions take threads, and there are only so many: an intent waits until its call can begin."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

from atone import Compensated, Completed, Context, Retry, Saga, Tried, step
from atone._core.journal import AttemptStarted
from atone._runtime.wire import decode_entries
from atone.stores.memory import MemoryStore
from tests.runtime.faulty_store import FaultyStore
from tests.runtime.world import ONCE, Order, opened, run, sqlite, until


class InThreads(Saga[Order], late_grace=0):
    """Two plain functions, and one undo on the loop."""

    def __init__(self, gate: threading.Event) -> None:
        self.gate = gate
        self.begun: list[str] = []
        self.undone: list[str] = []

    @step(retry=ONCE, timeout=10, barrier=True)
    def first(self, ctx: Context[Order]) -> str:
        self.begun.append(ctx.saga_id)
        assert self.gate.wait(20)
        return ctx.saga_id

    @first.compensation(retry=ONCE)
    async def undo(self, ctx: Context[Order], tried: Tried[str]) -> None:
        self.undone.append(ctx.saga_id)

    @step(retry=ONCE, timeout=10, no_compensation="a test")
    def second(self, ctx: Context[Order]) -> None: ...


def intents(store: FaultyStore) -> list[AttemptStarted]:
    entries = [entry for turn in store.turns for entry in decode_entries(turn.entries)]
    return [entry for entry in entries if isinstance(entry, AttemptStarted)]


def test_an_intent_waits_for_its_thread(tmp_path: Path) -> None:
    """Ten sagas and two threads: two intents; the rest is started, and its time does not run yet."""

    async def main() -> None:
        gate, store = threading.Event(), FaultyStore(sqlite(tmp_path))
        saga = InThreads(gate)
        async with opened(store, saga, threads_max=2) as orchestrator:
            handles = [await orchestrator.start(InThreads, Order(), saga_id=str(number)) for number in range(10)]
            await until(lambda: len(saga.begun) == 2)
            assert len(intents(store)) == 2
            gate.set()
            outcomes = await asyncio.gather(*[handle.outcome(timeout=20) for handle in handles])
            assert all(isinstance(outcome, Completed) for outcome in outcomes)
        assert sorted(saga.begun) == sorted(str(number) for number in range(10))
        assert len(intents(store)) == 20

    run(main())


def test_a_saga_that_goes_while_it_waits_for_a_thread_takes_nobodys_turn(tmp_path: Path) -> None:
    """The first in the queue is cancelled; the free thread goes to the next."""

    async def main() -> None:
        gate = threading.Event()
        saga = InThreads(gate)
        async with opened(sqlite(tmp_path), saga, threads_max=1) as orchestrator:
            running = await orchestrator.start(InThreads, Order(), saga_id="running")
            await until(lambda: saga.begun == ["running"])
            gone = await orchestrator.start(InThreads, Order(), saga_id="gone")
            next_one = await orchestrator.start(InThreads, Order(), saga_id="next")
            await gone.cancel(reason="changed my mind")
            assert isinstance(await gone.outcome(timeout=20), Compensated)
            gate.set()
            assert isinstance(await running.outcome(timeout=20), Completed)
            assert isinstance(await next_one.outcome(timeout=20), Completed)
        assert saga.begun == ["running", "next"]

    run(main())


class Crowded(Saga[Order], late_grace=0):
    """Three plain functions side by side, with too little time."""

    def __init__(self, gate: threading.Event) -> None:
        self.gate = gate
        self.begun: list[str] = []
        self.undone: list[str] = []

    def work(self, name: str) -> str:
        self.begun.append(name)
        assert self.gate.wait(20)
        return name

    @step(retry=ONCE, timeout=0.1, barrier=True, after=())
    def left(self, ctx: Context[Order]) -> str:
        return self.work("left")

    @left.compensation(retry=ONCE)
    async def undo_left(self, ctx: Context[Order], tried: Tried[str]) -> None:
        self.undone.append("left")

    @step(retry=ONCE, timeout=0.1, barrier=True, after=())
    def middle(self, ctx: Context[Order]) -> str:
        return self.work("middle")

    @middle.compensation(retry=ONCE)
    async def undo_middle(self, ctx: Context[Order], tried: Tried[str]) -> None:
        self.undone.append("middle")

    @step(retry=ONCE, timeout=0.1, barrier=True, after=())
    def right(self, ctx: Context[Order]) -> str:
        return self.work("right")

    @right.compensation(retry=ONCE)
    async def undo_right(self, ctx: Context[Order], tried: Tried[str]) -> None:
        self.undone.append("right")


def test_a_call_that_got_no_thread_in_time_is_never_made(tmp_path: Path) -> None:
    """One saga's parallel steps outnumber the threads: what is undone before its thread is free must not begin then."""

    async def main() -> None:
        gate = threading.Event()
        saga = Crowded(gate)
        async with opened(sqlite(tmp_path), saga, threads_max=1) as orchestrator:
            outcome = await orchestrator.execute(Crowded, Order(), saga_id="1", timeout=20)
            assert isinstance(outcome, Compensated), outcome
            begun = list(saga.begun)
            gate.set()
            other = threading.Event()
            other.set()
            # The one thread is free again when another call of a plain function has gone through it.
            saga.gate = other
            threads = orchestrator._worker._threads
            await asyncio.wrap_future(threads.submit(lambda: None))
        assert saga.begun == begun == ["left"]
        assert set(saga.undone) == {"left", "middle", "right"}

    run(main())


class Mixed(Saga[Order], late_grace=0):
    """A retry of a plain function, which has to wait for its thread."""

    def __init__(self) -> None:
        self.calls = 0

    @step(retry=Retry(attempts=3, initial=0.01, jitter=0), no_compensation="a test")
    def work(self, ctx: Context[Order]) -> int:
        self.calls += 1
        if ctx.attempt < 3:
            raise OSError("no answer")
        return ctx.attempt


def test_many_sagas_share_one_thread() -> None:
    """Back-offs, successes and waits for the thread mix; every saga ends."""

    async def main() -> None:
        saga = Mixed()
        async with opened(MemoryStore(allow_volatile=True), saga, threads_max=1) as orchestrator:
            sagas: list[Any] = [orchestrator.execute(Mixed, Order(), saga_id=str(number)) for number in range(50)]
            outcomes = await asyncio.gather(*sagas)
            assert all(isinstance(outcome, Completed) for outcome in outcomes)
        assert saga.calls == 150

    run(main())


class Hurried(Saga[Order], deadline=0.3, late_grace=0):
    @step(timeout=0.2, retry=ONCE, no_compensation="a test")
    def work(self, ctx: Context[Order]) -> None: ...


def test_a_saga_that_waits_for_a_thread_keeps_its_deadline(tmp_path: Path) -> None:
    """The only thread hangs; the saga turns back all the same."""

    async def main() -> None:
        gate = threading.Event()
        saga = InThreads(gate)
        async with opened(sqlite(tmp_path), saga, Hurried(), threads_max=1) as orchestrator:
            await orchestrator.start(InThreads, Order(), saga_id="1")
            await until(lambda: saga.begun == ["1"])
            outcome = await orchestrator.execute(Hurried, Order(), saga_id="2", timeout=20)
            assert isinstance(outcome, Compensated)
            assert "deadline" in outcome.cause
            gate.set()

    run(main())
