"""The rare ways of small parts of the runtime: nothing to do, too late, cancelled already, closed before it was open.

Each is a branch that no saga of the other tests takes; here it is taken on purpose, on the part alone where that does.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from atone import CannotTell, Context, NotLanded, Retry, Saga, Tried, step
from atone._core.state import SagaState
from atone._runtime import counting
from atone._runtime.committer import Committer
from atone._runtime.loop_thread import LoopThread
from atone._runtime.measures import Measures
from atone._runtime.messaging import Messaging
from atone._runtime.outcomes import Outcomes
from atone._runtime.reader import read
from atone._runtime.recovery import Recovery
from atone._runtime.replies import LONGEST_PAUSE_SECONDS, TRIES_MAX, Replies
from atone._runtime.waiting import End, Waiting
from atone._runtime.watchers import Watchers
from atone._threads import run_into
from atone.errors import Shutdown, StoreClosed, UnknownSaga
from atone.outcome import Compensated, Completed
from atone.stores.memory import MemoryStore
from atone.telemetry import Attempted, Looked, Observer, SagaObserver, Subject
from tests.runtime.world import AT_ONCE, Order, limits, opened, run, sqlite

# -- user code -------------------------------------------------------------------------------------------------------


class Probed(Saga[Order], late_grace=0):
    """A step that is in doubt, and a probe that answers as the test says."""

    def __init__(self, *answers: Any) -> None:
        self.answers, self.probes, self.calls, self.undone = list(answers), 0, 0, 0

    @step(retry=AT_ONCE, timeout=20)
    async def act(self, ctx: Context[Order]) -> str:
        self.calls += 1
        if self.calls == 1:
            raise ConnectionError("no answer")
        return "done"

    @act.compensation(retry=AT_ONCE)
    async def undo(self, ctx: Context[Order], tried: Tried[str]) -> None:
        self.undone += 1

    @act.probe(retry=AT_ONCE)
    async def ask(self, ctx: Context[Order], tried: Tried[str]) -> Any:
        self.probes += 1
        return self.answers.pop(0)


def _outcome_of(path: Path, saga: Saga[Order]) -> Any:
    async def main() -> Any:
        async with opened(sqlite(path), saga) as orchestrator:
            return await orchestrator.execute(type(saga), Order(), saga_id="1")

    return run(main())


@pytest.mark.parametrize("answer", [CannotTell(), NotLanded()], ids=["it can't tell", "no"])
def test_after_a_probe_that_does_not_say_that_it_landed_the_step_is_called_again(tmp_path: Path, answer: Any) -> None:
    """Under the same key, so that an attempt that landed after all is met again."""
    saga = Probed(answer)
    assert isinstance(_outcome_of(tmp_path, saga), Completed)
    assert (saga.calls, saga.probes, saga.undone) == (2, 1, 0)


def test_a_probe_that_answers_something_else_has_failed(tmp_path: Path) -> None:
    """It is asked again, and a person sees what it returned if it goes on so."""
    saga = Probed("maybe", NotLanded())
    assert isinstance(_outcome_of(tmp_path, saga), Completed)
    assert (saga.calls, saga.probes) == (2, 2)


class Declined(Exception):
    """What the participant says instead of an answer."""


class Refusing(Saga[Order], late_grace=0):
    """A step whose refusal is an exception of its own."""

    def __init__(self) -> None:
        self.calls, self.read = 0, list[Any]()

    @step(retry=AT_ONCE, timeout=20, no_compensation="it has no effect")
    async def ask(self, ctx: Context[Order]) -> str:
        return "asked"

    @step(ask, rejects=(Declined,), retry=AT_ONCE, timeout=20, no_compensation="it has no effect")
    async def pay(self, ctx: Context[Order], asked: str) -> str:
        self.calls += 1
        raise Declined("no funds")


def test_an_exception_that_the_step_declares_a_refusal_is_not_tried_again(tmp_path: Path) -> None:
    """`rejects=` says that nothing landed, so the saga turns back at once."""
    saga = Refusing()
    outcome = _outcome_of(tmp_path, saga)
    assert isinstance(outcome, Compensated)
    assert "no funds" in str(outcome)
    assert saga.calls == 1


class Skipping(Saga[Order], late_grace=0):
    """A step that is left out, and one that reads what it would have returned."""

    def __init__(self, wanted: bool) -> None:
        self.wanted, self.read = wanted, list[Any]()

    @step(retry=AT_ONCE, timeout=20, no_compensation="it has no effect")
    async def gift(self, ctx: Context[Order]) -> str:
        return "a bow"

    @gift.when
    async def is_wanted(self, ctx: Context[Order]) -> bool:
        return self.wanted

    @step(after=(gift,), retry=AT_ONCE, timeout=20, no_compensation="it has no effect")
    async def wrap(self, ctx: Context[Order]) -> str:
        self.read.append(ctx.result_or_none(Skipping.gift))
        return "wrapped"


@pytest.mark.parametrize("wanted", [True, False])
def test_a_step_reads_the_result_of_one_that_may_be_left_out(tmp_path: Path, wanted: bool) -> None:
    """None stands for a step that was skipped."""
    saga = Skipping(wanted)
    assert isinstance(_outcome_of(tmp_path, saga), Completed)
    assert saga.read == (["a bow"] if wanted else [None])


# -- the blocking face's thread --------------------------------------------------------------------------------------


def _thread(at_exit: Callable[[], None] = lambda: None) -> LoopThread:
    @asynccontextmanager
    async def context() -> AsyncIterator[None]:
        yield
        at_exit()

    return LoopThread(context)


def test_closing_a_thread_that_was_never_opened_is_harmless() -> None:
    """As closing it twice is."""
    _thread().close()


def test_what_leaving_the_context_raises_is_raised_by_close_once() -> None:
    """Nobody else could be told."""

    def fails() -> None:
        raise RuntimeError("could not leave")

    thread = _thread(fails)
    thread.open()
    with pytest.raises(RuntimeError, match="could not leave"):
        thread.close()
    thread.close()


def test_a_call_under_way_when_the_thread_ends_is_told() -> None:
    """It would wait for ever."""
    thread, begun, told = _thread(), threading.Event(), list[type[BaseException]]()

    async def for_ever() -> None:
        begun.set()
        await asyncio.Event().wait()

    def call() -> None:
        try:
            thread.run(for_ever())
        except BaseException as error:
            told.append(type(error))

    thread.open()
    caller = threading.Thread(target=call)
    caller.start()
    assert begun.wait(20)
    thread.close()
    caller.join(20)
    assert told == [Shutdown]


def test_a_call_that_nobody_wants_any_more_is_not_made() -> None:
    """A future cancelled while it waited for a thread."""
    future: Future[None] = Future()
    future.cancel()
    made: list[int] = []
    run_into(future, lambda: made.append(1))
    assert not made


# -- who waits -------------------------------------------------------------------------------------------------------


class _Closed:
    async def find(self, query: object) -> list[Any]:
        raise StoreClosed("closed")


async def _unread(key: bytes) -> SagaState:
    raise AssertionError("nothing is read")


def test_who_waits_is_told_that_the_store_is_closed_and_who_has_left_is_passed_over() -> None:
    """No look would ever tell them; a cancelled future takes nothing."""

    async def main() -> None:
        outcomes = Outcomes(cast("Any", _Closed()), _unread, lambda: (), 0.01)
        left: asyncio.Future[SagaState] = asyncio.get_running_loop().create_future()
        left.cancel()
        outcomes.join(b"k", left)
        with pytest.raises(StoreClosed):
            await outcomes.expect(b"k")

    run(main())


def test_a_settled_or_closed_wait_passes_over_who_has_left() -> None:
    """The other waiter is told."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        outcomes = Outcomes(cast("Any", _Closed()), _unread, lambda: (b"k", b"c"), 60)
        state = cast("SagaState", object())
        for key in (b"k", b"c"):
            left, stays = loop.create_future(), loop.create_future()
            left.cancel()
            outcomes.join(key, left)
            outcomes.join(key, stays)
            if key == b"k":
                outcomes.settle(key, state)
                assert stays.result() is state
            else:
                outcomes.close(Shutdown("closed"))
                assert isinstance(stays.exception(), Shutdown)

    run(main())


def test_a_wait_without_an_end_is_not_cut_and_a_time_out_of_the_block_is_its_own() -> None:
    """Only the wait's own end is an OutcomeTimeout."""

    async def main() -> None:
        async with End(None).reached_is("never"):
            pass
        with pytest.raises(TimeoutError, match="of the block"):
            async with End(60).reached_is("later"):
                raise TimeoutError("of the block")

    run(main())


def test_a_hint_that_nobody_waits_for_is_harmless() -> None:
    """It comes from the store, whenever it likes."""
    Waiting(cast("Any", _Closed()), lambda: (), 1.0).hinted()


def test_a_watcher_that_leaves_does_not_take_the_others_along() -> None:
    """Each has a queue of its own."""

    async def main() -> None:
        state = cast("SagaState", SimpleNamespace(version=1, status=SimpleNamespace(value="running")))
        newer = cast("SagaState", SimpleNamespace(version=2, status=SimpleNamespace(value="completed")))

        async def reads(key: bytes) -> SagaState:
            return state

        watchers = Watchers(reads, 60)
        one, other, third = watchers.follow(b"k"), watchers.follow(b"k"), watchers.follow(b"k")
        for each in (one, other, third):
            assert await anext(each) is state
        await one.aclose()
        watchers.changed(b"k", newer)
        assert [seen async for seen in other] == [newer]
        assert [seen async for seen in third] == [newer]
        watchers.changed(b"k", newer)  # nobody is there any more

    run(main())


def test_a_saga_that_is_not_there_can_not_be_read() -> None:
    """The error says so, instead of an empty state."""
    with pytest.raises(UnknownSaga, match="no such saga"):
        run(read(MemoryStore(allow_volatile=True), b"\0" * 16))


# -- parts that were never started -----------------------------------------------------------------------------------


def test_what_was_never_started_can_be_closed() -> None:
    """Opening may fail between two parts, and closing meets both."""

    async def main() -> None:
        for closes in (True, False):
            committer = Committer(MemoryStore(allow_volatile=True), None, lambda: None)
            if closes:
                await committer.close()
            else:
                committer.abandon()
            assert committer.waiting == 0
        await Messaging(cast("Any", object()), cast("Any", object())).close()

    run(main())


# -- gauges ----------------------------------------------------------------------------------------------------------


class _Counts:
    async def census(self) -> Any:
        return "census"


class _Posts:
    async def outstanding(self) -> Any:
        return "outstanding"

    async def set_aside(self, *, limit: int = 100) -> Any: ...

    async def post_again(self, message_id: str) -> Any: ...

    async def drop_set_aside(self, message_id: str) -> Any: ...


@pytest.mark.parametrize(("store", "told"), [(_Counts(), ["census"]), (_Posts(), ["outstanding"]), (object(), [])])
def test_a_store_is_asked_for_what_it_can_count(store: Any, told: list[str]) -> None:
    """One that counts sagas need not keep messages, nor the other way round."""

    async def main() -> None:
        heard: list[Any] = []
        hears = SimpleNamespace(census_seconds=60.0, counted=heard.append, posting=heard.append)
        with suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await counting.keep_counting(store, cast("Any", hears))
        assert heard == told

    run(main())


def test_a_store_without_an_outbox_has_no_waiting_messages(caplog: pytest.LogCaptureFixture) -> None:
    """So there is nothing to warn of."""
    run(counting.warn_of_messages(cast("Any", object())))
    assert not caplog.records


def test_dead_letters_are_counted_and_without_a_census_no_saga_is() -> None:
    """What a look found is told; gauges of a census that is off are left out."""
    told: list[tuple[str, float]] = []

    class Meter:
        def counter(self, metric: Any, labels: tuple[str, ...]) -> Callable[[float], None]:
            return lambda value: told.append((metric.name, value))

        histogram = counter

    measures = Measures(cast("Any", Meter()), census_seconds=None)
    measures.looked(Looked(0, 2, 3, 4, "w"))
    assert [value for _, value in told] == [3]
    assert [value for _, _, value in measures.gauges()] == [2, 4]


class Hearing(Observer, SagaObserver):
    """Hears what keeps failing, and wants to hear of no attempt."""

    def __init__(self) -> None:
        self.failing: list[str] = []

    def follow(self, saga: Subject) -> SagaObserver:
        return self

    def attempt(self, what: Attempted) -> None:
        return None

    def keeps_failing(self, step: str) -> None:
        self.failing.append(step)


class Stubborn(Saga[Order], late_grace=0):
    """A step that fails once, which is as often as it may before somebody is told."""

    def __init__(self) -> None:
        self.calls = 0

    @step(
        retry=Retry(attempts=3, initial=0.0, jitter=0.0, alert_after=1), timeout=20, no_compensation="it has no effect"
    )
    async def act(self, ctx: Context[Order]) -> str:
        self.calls += 1
        if self.calls == 1:
            raise ConnectionError("no answer")
        return "done"


def test_a_step_that_keeps_failing_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In the log and to the observers, also to one that hears no attempts."""
    hearing = Hearing()

    async def main() -> None:
        async with opened(sqlite(tmp_path), Stubborn(), telemetry=(hearing,)) as orchestrator:
            assert isinstance(await orchestrator.execute(Stubborn, Order(), saga_id="1"), Completed)

    run(main())
    assert hearing.failing == ["act"]
    assert any("act" in one.getMessage() for one in caplog.records if one.levelname == "WARNING")


def test_sagas_without_a_definition_are_told_of_once_until_there_are_others(caplog: pytest.LogCaptureFixture) -> None:
    """A look every second must not fill the log, and none is no news."""
    recovery = Recovery(
        MemoryStore(allow_volatile=True), cast("Any", None), cast("Any", SimpleNamespace(id="w")), {}, limits()
    )
    for count in (2, 2, 0, 0, 1):
        recovery._report(cast("Any", SimpleNamespace(unclaimable=count, dead_letters=0)))
    assert [one.getMessage()[:1] for one in caplog.records] == ["2", "1"]
    recovery.stop()  # it was never started


# -- replies ---------------------------------------------------------------------------------------------------------


class _Delivery:
    """A message that only remembers how it was ended."""

    def __init__(self, attempt: int) -> None:
        self.attempt, self.ended = attempt, list[Any]()
        self.message = SimpleNamespace(id="m-1")

    async def park(self, why: str) -> None:
        self.ended.append(why)

    async def retry(self, after_seconds: float) -> None:
        self.ended.append(after_seconds)


@pytest.mark.parametrize("attempt", [1, TRIES_MAX])
def test_a_reply_that_breaks_its_listener_comes_again_so_often_and_is_then_set_aside(
    attempt: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug over one reply neither loses it nor keeps it going round for ever."""

    async def breaks(self: Replies, delivery: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Replies, "_settle", breaks)
    delivery = _Delivery(attempt)
    replies = Replies(MemoryStore(allow_volatile=True), [], cast("Any", None), "replies", lambda: None)
    run(replies._take(cast("Any", delivery)))
    (ended,) = delivery.ended
    if attempt < TRIES_MAX:
        assert ended == LONGEST_PAUSE_SECONDS
    else:
        assert "in 10 tries" in ended
        assert "RuntimeError" in ended
