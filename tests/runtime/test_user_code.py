"""Whatever user code does in a call, its own saga is told what it is, and no other saga notices."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from atone import Compensated, Completed, Context, NeedsAttention, Retry, RetryAfter, Saga, Tried, step
from atone.errors import CorruptJournal
from tests.runtime.world import AT_ONCE, ONCE, Order, PlaceOrder, World, opened, raises, run, sqlite, until

REQUEST = contextvars.ContextVar[str]("REQUEST")


class Doing(Saga[Order], late_grace=0):
    """Its one step does what it is given: as a plain function, or on the loop."""

    def __init__(self, do: Callable[[Context[Order]], Any]) -> None:
        self.do = do
        self.undone: list[Tried[str]] = []

    @step(retry=ONCE, timeout=5, barrier=True)
    def work(self, ctx: Context[Order]) -> str:
        found: str = self.do(ctx)
        return found

    @work.compensation(retry=ONCE)
    async def undo(self, ctx: Context[Order], tried: Tried[str]) -> None:
        self.undone.append(tried)


class DoingOnTheLoop(Saga[Order], late_grace=0):
    def __init__(self, do: Callable[[Context[Order]], Any]) -> None:
        self.do = do
        self.undone: list[Tried[str]] = []

    @step(retry=ONCE, timeout=5, barrier=True)
    async def work(self, ctx: Context[Order]) -> str:
        found: str = self.do(ctx)
        return found

    @work.compensation(retry=ONCE)
    async def undo(self, ctx: Context[Order], tried: Tried[str]) -> None:
        self.undone.append(tried)


class Abort(BaseException):
    """What some test tools and frameworks raise past every `except Exception`."""


def does(error: BaseException) -> Callable[[Context[Order]], Any]:
    def do(ctx: Context[Order]) -> Any:
        raise error

    return do


@pytest.mark.parametrize("kind", [Doing, DoingOnTheLoop], ids=["def", "async def"])
@pytest.mark.parametrize(
    "error", [StopIteration(), SystemExit(3), Abort("enough"), asyncio.CancelledError(), TimeoutError()], ids=repr
)
def test_every_exception_ends_its_own_call_at_once(tmp_path: Path, kind: Any, error: BaseException) -> None:
    """The outcome is unknown, so the step is undone; neither the loop nor a neighbour feels it."""

    async def main() -> None:
        saga, world = kind(does(error)), World()
        async with opened(sqlite(tmp_path), saga, PlaceOrder(world)) as orchestrator:
            ends = orchestrator.execute(kind, Order(), saga_id="1", timeout=3)
            other = orchestrator.execute(PlaceOrder, Order(), saga_id="2")
            outcome, neighbour = await asyncio.gather(ends, other)
            assert isinstance(outcome, Compensated), outcome
            assert type(error).__name__ in outcome.cause
            assert isinstance(neighbour, Completed)
        (tried,) = saga.undone
        assert tried.result is None

    run(main())


@pytest.mark.parametrize(
    "asked", [float("inf"), float("nan"), -1, 10**400, "soon", None, "0.01", timedelta(milliseconds=5)], ids=repr
)
def test_a_retry_is_asked_for_after_any_time(tmp_path: Path, asked: Any) -> None:
    """What is no time that can pass means the policy's delay; the journal stays readable."""

    async def main() -> None:
        world = World()
        world.script("charge", raises(RetryAfter(asked)))
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            assert isinstance(await orchestrator.execute(PlaceOrder, Order(), saga_id="1", timeout=3), Completed)
            try:
                await orchestrator.explain(PlaceOrder, "1")
            except CorruptJournal as error:
                pytest.fail(str(error))

    run(main())


def test_a_later_retry_is_asked_for_instead_of_the_policys(tmp_path: Path) -> None:
    """`RetryAfter(3600)` beats a policy that would repeat at once."""

    async def main() -> None:
        world = World()
        world.script("charge", raises(RetryAfter(3600, "the bank is closed")))
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            await orchestrator.start(PlaceOrder, Order(), saga_id="1")
            await until(lambda: not orchestrator._worker.runners)
            (info,) = await orchestrator.list()
            assert info.wake_at is not None
            assert 3500 < info.wake_at - info.created_at < 3700
        assert world.count("charge") == 1

    run(main())


class Choosing(Saga[Order]):
    """Its second step is asked whether it runs."""

    def __init__(self, when: Callable[[], Any]) -> None:
        self.answer = when

    @step(no_compensation="a test")
    async def first(self, ctx: Context[Order]) -> None: ...

    @step(no_compensation="a test", timeout=0.2)
    async def second(self, ctx: Context[Order]) -> None: ...

    @second.when
    async def may_run(self, ctx: Context[Order]) -> bool:
        answer = self.answer()
        return await answer if asyncio.iscoroutine(answer) else answer


def fails(error: BaseException) -> Callable[[], Any]:
    def answer() -> Any:
        raise error

    return answer


@pytest.mark.parametrize(
    ("when", "cause"),
    [
        (fails(ValueError("which?")), "ValueError: which?"),
        (fails(asyncio.CancelledError()), "CancelledError"),
        (fails(SystemExit(1)), "SystemExit"),
        (lambda: asyncio.Event().wait(), "TimeoutError"),
        (lambda: 1, "not a bool"),
        (lambda: None, "not a bool"),
    ],
    ids=["raises", "cancels", "exits", "hangs", "one", "none"],
)
def test_a_condition_that_does_not_answer_calls_a_person(tmp_path: Path, when: Callable[[], Any], cause: str) -> None:
    """It is never guessed over; `retry` asks it again."""

    async def main() -> None:
        saga = Choosing(when)
        async with opened(sqlite(tmp_path), saga) as orchestrator:
            outcome = await orchestrator.execute(Choosing, Order(), saga_id="1", timeout=3)
            assert isinstance(outcome, NeedsAttention), outcome
            assert outcome.step == "second"
            assert cause in outcome.cause
            saga.answer = lambda: True
            receipt = await orchestrator.retry(Choosing, "1", reason="the condition is mended")
            assert (await receipt.answer()).applied
            assert isinstance(await orchestrator.outcome(Choosing, "1", timeout=3), Completed)

    run(main())


def test_a_plain_function_sees_the_context_variables_of_its_call(tmp_path: Path) -> None:
    """A trace that was set around the orchestrator goes along into the thread."""

    async def main() -> None:
        REQUEST.set("trace 7")
        async with opened(sqlite(tmp_path), Doing(lambda ctx: REQUEST.get())) as orchestrator:
            done = await orchestrator.execute(Doing, Order(), saga_id="1")
            assert isinstance(done, Completed)
            assert done[Doing.work] == "trace 7"

    run(main())


def test_a_plain_function_may_return_an_awaitable(tmp_path: Path) -> None:
    """It is awaited on the loop, like an async function's."""

    async def later() -> str:
        return threading.current_thread().name

    async def main() -> None:
        async with opened(sqlite(tmp_path), Doing(lambda ctx: later())) as orchestrator:
            done = await orchestrator.execute(Doing, Order(), saga_id="1")
            assert isinstance(done, Completed)
            assert done[Doing.work] == "MainThread"

    run(main())


class Slow(Saga[Order], late_grace=300):
    """A plain function that takes longer than it may, with an undo that would wait for it for minutes."""

    def __init__(self, gate: threading.Event) -> None:
        self.gate = gate
        self.undone: list[Tried[str]] = []
        self.calls = 0

    @step(retry=ONCE, timeout=0.05)
    def work(self, ctx: Context[Order]) -> str:
        self.calls += 1
        assert self.gate.wait(20)
        return "done late"

    @work.compensation
    async def undo(self, ctx: Context[Order], tried: Tried[str]) -> None:
        self.undone.append(tried)


def test_a_late_success_of_a_plain_function_is_undone_with_its_result(tmp_path: Path) -> None:
    """Nobody can stop a thread; when it returns after all, the undo knows what to undo and need not wait any more."""

    async def main() -> None:
        gate = threading.Event()
        saga = Slow(gate)
        async with opened(sqlite(tmp_path), saga) as orchestrator:
            handle = await orchestrator.start(Slow, Order(), saga_id="1")
            async for progress in handle.watch():
                if progress.status == "compensating":
                    break
            gate.set()
            outcome = await handle.outcome(timeout=10)
            assert isinstance(outcome, Compensated), outcome
        assert [tried.result for tried in saga.undone] == ["done late"]

    run(main())


class Patient(Saga[Order], late_grace=0):
    """The same going forward: its next attempt is an hour away."""

    def __init__(self, gate: threading.Event) -> None:
        self.gate = gate
        self.attempts: list[int] = []

    @step(retry=Retry(attempts=5, initial=3600, jitter=0), timeout=0.05, no_compensation="a test")
    def work(self, ctx: Context[Order]) -> str:
        self.attempts.append(ctx.attempt)
        assert self.gate.wait(20)
        return f"attempt {ctx.attempt}"


def test_a_late_success_spares_the_next_attempt(tmp_path: Path) -> None:
    """The step was given up on and then succeeded: it is not called again."""

    async def main() -> None:
        gate = threading.Event()
        saga = Patient(gate)
        async with opened(sqlite(tmp_path), saga) as orchestrator:
            handle = await orchestrator.start(Patient, Order(), saga_id="1")
            async for progress in handle.watch():
                if progress.steps["work"] == "unknown":
                    break
            gate.set()
            done = await handle.outcome(timeout=10)
            assert isinstance(done, Completed), done
            assert done[Patient.work] == "attempt 1"
        assert saga.attempts == [1]

    run(main())


class Stubborn(Saga[Order], late_grace=0):
    """An async step that will not be cancelled."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.attempts: list[int] = []

    @step(retry=Retry(attempts=5, initial=3600, jitter=0), timeout=0.05, no_compensation="a test")
    async def work(self, ctx: Context[Order]) -> str:
        self.attempts.append(ctx.attempt)
        while not self.gate.is_set():
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                continue
        return f"attempt {ctx.attempt}"


def test_a_call_that_swallows_its_time_out_is_given_up_on_and_heard_late(tmp_path: Path) -> None:
    """The saga goes on after `cancel_grace_seconds`; what the call says at last is still worth something."""

    async def main() -> None:
        saga = Stubborn()
        async with opened(sqlite(tmp_path), saga) as orchestrator:
            handle = await orchestrator.start(Stubborn, Order(), saga_id="1")
            async for progress in handle.watch():
                if progress.steps["work"] == "unknown":
                    break
            saga.gate.set()
            done = await handle.outcome(timeout=10)
            assert isinstance(done, Completed), done
        assert saga.attempts == [1]

    run(main())


def test_an_async_call_is_cancelled_at_its_time_out(tmp_path: Path) -> None:
    """Its cleanup runs, its outcome is unknown, and it is repeated."""
    ended: list[int] = []

    class Hanging(Saga[Order]):
        @step(retry=AT_ONCE, timeout=0.05, no_compensation="a test")
        async def work(self, ctx: Context[Order]) -> int:
            try:
                if ctx.attempt < 3:
                    await asyncio.Event().wait()
            finally:
                ended.append(ctx.attempt)
            return ctx.attempt

    async def main() -> None:
        async with opened(sqlite(tmp_path), Hanging()) as orchestrator:
            done = await orchestrator.execute(Hanging, Order(), saga_id="1", timeout=10)
            assert isinstance(done, Completed)
            assert done[Hanging.work] == 3
        assert ended == [1, 2, 3]

    run(main())
