"""The synchronous orchestrator: the same calls, from any thread, never in a loop, and nothing that waits for ever."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import apsw
import pytest

from atone import Compensated, Completed, Context, NeedsAttention, Reject, Saga, SagaStatus, step
from atone.blocking import BlockingHandle, BlockingOrchestrator, BlockingReceipt
from atone.errors import (
    AtoneError,
    CalledInLoop,
    ConflictingStart,
    OutcomeTimeout,
    PayloadError,
    RequestRefused,
    Shutdown,
    StoreError,
    UnknownSaga,
)
from atone.orchestrator import Handle, Orchestrator
from tests.runtime.test_waits import Paid, PaidOrder
from tests.runtime.world import (
    ONCE,
    Landing,
    Order,
    PlaceOrder,
    ShipOrder,
    World,
    hangs,
    lands_and_raises,
    limits,
    raises,
    sqlite,
)

ROOT = Path(__file__).parent.parent.parent


def blocking(path: Path, *sagas: Saga[Any], **other: Any) -> BlockingOrchestrator:
    return BlockingOrchestrator(sqlite(path), sagas=sagas, limits=limits(**other))


def loops() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "atone-loop"]


class Gate:
    """Opened by any thread, waited for on a loop."""

    def __init__(self) -> None:
        self.opened, self.reached = threading.Event(), threading.Event()

    async def __call__(self, at: Landing) -> Any:
        self.reached.set()
        assert await asyncio.to_thread(self.opened.wait, 20)
        return at.land()


def test_a_script_runs_sagas_without_a_loop_of_its_own(tmp_path: Path) -> None:
    """Start, wait, list, look: plain values come back."""
    world = World()
    with blocking(tmp_path, PlaceOrder(world)) as atone:
        done = atone.execute(PlaceOrder, Order(), saga_id="1", timeout=20)
        assert isinstance(done, Completed)
        assert done[PlaceOrder.charge] == "charge of 1"
        handle = atone.start(PlaceOrder, Order(), saga_id="1")
        assert isinstance(handle.outcome(timeout=20), Completed)
        assert [progress.status for progress in handle.watch()] == [SagaStatus.COMPLETED]
        assert handle.status() is SagaStatus.COMPLETED
        assert repr(atone.get(PlaceOrder, "1")) == "<saga PlaceOrder '1'>"
        assert isinstance(atone.outcome(PlaceOrder, "1"), Completed)
        assert [info.saga_id for info in atone.list()] == ["1"]
        assert [progress.status for progress in atone.watch(PlaceOrder, "1")] == [SagaStatus.COMPLETED]
        assert atone.explain(PlaceOrder, "1")
        assert atone.preview(PlaceOrder, "1")
    assert world.names == ["reserve", "charge", "ship"]
    assert not loops()


def test_a_script_steers_sagas(tmp_path: Path) -> None:
    """Requests are answered, events arrive, operators' commands apply."""
    world, gate = World(), Gate()
    world.script("charge", gate)
    with blocking(tmp_path, PlaceOrder(world), ShipOrder(world), PaidOrder(world)) as atone:
        handle = atone.start(PlaceOrder, Order(), saga_id="1")
        assert gate.reached.wait(20)
        receipt = handle.cancel(reason="changed my mind")
        assert receipt.answer(timeout=20).applied
        gate.opened.set()
        assert isinstance(handle.outcome(timeout=20), Compensated)
        paid = atone.start(PaidOrder, Order(), saga_id="2")
        assert paid.send_event("paid", Paid(7)).request_id
        done = paid.outcome(timeout=20)
        assert isinstance(done, Completed)
        assert done[PaidOrder.ship] == 7
        world.script("ship", *[lands_and_raises(OSError("no answer"))] * 3)
        assert isinstance(atone.execute(ShipOrder, Order(), saga_id="3", timeout=20), NeedsAttention)
        refused = atone.skip(ShipOrder, "3", "ship", reason="a test").answer(timeout=20)
        assert refused.verdict == "refused"
        assert atone.resolve(ShipOrder, "3", "ship", landed=True, result="SH1", reason="I looked").answer().applied
        assert isinstance(atone.outcome(ShipOrder, "3", timeout=20), Completed)


def test_errors_come_through_as_they_are(tmp_path: Path) -> None:
    """Types, messages, and a time-out that leaves the saga alone."""
    world = World()
    world.always("charge", hangs)
    with blocking(tmp_path, PlaceOrder(world)) as atone:
        handle = atone.start(PlaceOrder, Order(), saga_id="1")
        with pytest.raises(OutcomeTimeout):
            handle.outcome(timeout=0.05)
        with pytest.raises(ConflictingStart):
            atone.start(PlaceOrder, Order(total=7), saga_id="1")
        with pytest.raises(PayloadError):
            atone.start(PlaceOrder, 7, saga_id="2")
        with pytest.raises(UnknownSaga):
            atone.get(PlaceOrder, "2")
        with pytest.raises(UnknownSaga):
            list(atone.watch(PlaceOrder, "2"))
        with pytest.raises(RequestRefused):
            atone.cancel(PlaceOrder, "1", reason="")


def test_many_threads_may_call_at_once(tmp_path: Path) -> None:
    """Each gets its own answer."""
    world = World()
    with blocking(tmp_path, PlaceOrder(world)) as atone, ThreadPoolExecutor(16) as pool:

        def one(number: int) -> Any:
            done = atone.execute(PlaceOrder, Order(total=number), saga_id=str(number), timeout=20)
            assert isinstance(done, Completed)
            return done[PlaceOrder.ship]

        assert list(pool.map(one, range(80))) == [f"ship of {number}" for number in range(80)]
    assert set(world.effects.values()) == {1}


def test_a_call_where_a_loop_runs_is_refused(tmp_path: Path) -> None:
    """It would stop that loop; the message names the asynchronous way, and no coroutine is left behind."""

    async def calls(atone: BlockingOrchestrator) -> None:
        uses: list[Callable[[], Any]] = [
            lambda: atone.start(PlaceOrder, Order(), saga_id="1"),
            lambda: atone.outcome(PlaceOrder, "1"),
            lambda: list(atone.watch(PlaceOrder, "1")),
            lambda: atone.__exit__(None, None, None),
            lambda: BlockingOrchestrator(sqlite(tmp_path), sagas=[]).__enter__(),
        ]
        for use in uses:
            with pytest.raises(CalledInLoop, match=r"atone\.Orchestrator"):
                use()

    with blocking(tmp_path, PlaceOrder(World())) as atone:
        asyncio.run(calls(atone))
        assert atone.list() == []


def test_a_plain_step_may_start_another_saga(tmp_path: Path) -> None:
    """Its thread runs no loop, and the loop is free meanwhile."""
    world = World()

    class Parent(Saga[Order]):
        @step(retry=ONCE, no_compensation="a test")
        def start_another(self, ctx: Context[Order]) -> str:
            return type(atone.execute(PlaceOrder, Order(), saga_id=f"of {ctx.saga_id}", timeout=20)).__name__

        @step(retry=ONCE, no_compensation="a test")
        async def try_on_the_loop(self, ctx: Context[Order]) -> str:
            try:
                return str(atone.list())
            except CalledInLoop as error:
                return type(error).__name__

    with blocking(tmp_path, PlaceOrder(world), Parent()) as atone:
        done = atone.execute(Parent, Order(), saga_id="1", timeout=20)
        assert isinstance(done, Completed)
        assert done[Parent.start_another] == "Completed"
        assert done[Parent.try_on_the_loop] == "CalledInLoop"


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_call_outside_of_the_context_says_so(tmp_path: Path, when: str) -> None:
    """And leaves nothing behind."""
    atone = blocking(tmp_path, PlaceOrder(World()))
    if when == "after":
        with atone:
            pass
        atone.__exit__(None, None, None)
    with pytest.raises(Shutdown, match="not open"):
        atone.start(PlaceOrder, Order(), saga_id="1")
    with pytest.raises(Shutdown, match="not open"):
        next(atone.watch(PlaceOrder, "1"))


def test_opening_twice_is_refused_and_opening_again_is_not(tmp_path: Path) -> None:
    """One object is one orchestrator at a time."""
    atone = blocking(tmp_path, PlaceOrder(World()))
    with atone:
        with pytest.raises(AtoneError, match="open already"):
            atone.__enter__()
        atone.execute(PlaceOrder, Order(), saga_id="1", timeout=20)
    with atone:
        assert isinstance(atone.outcome(PlaceOrder, "1", timeout=20), Completed)


def test_an_orchestrator_that_can_not_be_opened_says_why(tmp_path: Path) -> None:
    """The store's own error comes out of `with`, and no thread stays."""
    (tmp_path / "sagas.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreError), blocking(tmp_path, PlaceOrder(World())):
        pytest.fail("it must not open")
    assert not loops()


def test_closing_tells_everybody_who_waits(tmp_path: Path) -> None:
    """Waiters, watchers and starts in other threads end; none hangs."""
    world = World()
    world.always("charge", hangs)
    with ThreadPoolExecutor(8) as pool:
        atone = blocking(tmp_path, PlaceOrder(world)).__enter__()
        handle = atone.start(PlaceOrder, Order(), saga_id="1")
        waiting = [pool.submit(handle.outcome) for _ in range(3)]
        waiting.append(pool.submit(lambda: list(atone.watch(PlaceOrder, "1"))))
        waiting.append(pool.submit(atone.outcome, PlaceOrder, "1"))
        atone.list()
        atone.__exit__(None, None, None)
        told = [future.exception(timeout=20) for future in waiting]
    assert all(isinstance(error, AtoneError) for error in told), told


def test_a_watcher_that_stops_early_is_forgotten(tmp_path: Path) -> None:
    """Whether it is closed or only dropped."""
    world = World()
    world.always("charge", hangs)
    with blocking(tmp_path, PlaceOrder(world)) as atone:
        atone.start(PlaceOrder, Order(), saga_id="1")
        for _ in atone.watch(PlaceOrder, "1"):
            break
        watching = atone.watch(PlaceOrder, "1")
        next(watching)
        del watching
        atone.list()
        atone.list()
        assert not atone._atone._watchers._queues


def test_ctrl_c_ends_the_wait_and_not_the_saga(tmp_path: Path) -> None:
    """The next call works; the saga was never touched."""
    world, gate = World(), Gate()
    world.script("charge", gate)
    with blocking(tmp_path, PlaceOrder(world)) as atone:
        handle = atone.start(PlaceOrder, Order(), saga_id="1")
        assert gate.reached.wait(20)
        timer = threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            handle.outcome(timeout=20)
        timer.join()
        gate.opened.set()
        assert isinstance(handle.outcome(timeout=20), Completed)
    assert world.names == ["reserve", "charge", "ship"]


def test_the_end_of_the_interpreter_closes_it(tmp_path: Path) -> None:
    """A script that forgets to close leaves no lease: the call under way is handed back at once."""
    command = [sys.executable, "-X", "dev", "-W", "error", "-m", "tests.runtime.blocking_child", str(tmp_path)]
    path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    environment = {**os.environ, "PYTHONPATH": path}
    child = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert child.returncode == 0, child.stderr
    assert child.stdout.startswith("Completed")
    assert "Traceback" not in child.stderr
    with apsw.Connection(str(tmp_path / "sagas.db")) as file:
        assert file.execute("SELECT count(*) FROM workers WHERE dead = 0").get == 0
        assert file.execute("SELECT owner FROM sagas WHERE saga_id = 'under way'").get is None
    world = World()
    with blocking(tmp_path, PlaceOrder(world)) as atone:
        assert isinstance(atone.outcome(PlaceOrder, "under way", timeout=20), Completed)


def test_a_start_joins_the_callers_transaction(tmp_path: Path) -> None:
    """The connection is the caller's, of the caller's thread."""
    with blocking(tmp_path, PlaceOrder(World())) as atone:
        connection = apsw.Connection(str(tmp_path / "sagas.db"))
        connection.set_busy_timeout(5000)
        connection.execute("BEGIN IMMEDIATE")
        handle = atone.start(PlaceOrder, Order(), saga_id="1", connection=connection)
        with pytest.raises(UnknownSaga):
            handle.outcome()
        connection.execute("COMMIT")
        connection.close()
        assert isinstance(handle.outcome(timeout=20), Completed)


def public(cls: type) -> dict[str, inspect.Signature]:
    members = inspect.getmembers(cls, inspect.isfunction)
    return {name: inspect.signature(member) for name, member in members if not name.startswith("_")}


@pytest.mark.parametrize(("blocks", "waits"), [(BlockingOrchestrator, Orchestrator), (BlockingHandle, Handle)])
def test_every_call_has_its_counterpart_with_the_same_parameters(blocks: type, waits: type) -> None:
    """What the orchestrator learns, this one learns too."""
    ours, theirs = public(blocks), public(waits)
    assert ours.keys() == theirs.keys()
    for name, signature in theirs.items():
        mine = [(one.kind, one.default) for one in ours[name].parameters.values()]
        assert mine == [(one.kind, one.default) for one in signature.parameters.values()], name


def test_a_rejected_saga_is_told_like_any_outcome(tmp_path: Path) -> None:
    """And a receipt shows what became of a request."""
    world = World()
    world.script("charge", raises(Reject("card declined")))
    with blocking(tmp_path, PlaceOrder(world)) as atone:
        outcome = atone.execute(PlaceOrder, Order(), saga_id="1", timeout=20)
        assert outcome == Compensated("charge: card declined")
        with pytest.raises(RequestRefused):
            atone.terminate(PlaceOrder, "1", reason="a test")
    assert isinstance(BlockingReceipt, type)
