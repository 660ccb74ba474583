"""Deterministic simulation: real code on a seeded scheduler and a virtual clock, in processes that can be killed.

Owns a run from its seed to its digest: the same seed does the same, to the byte. Nothing sleeps, no socket opens and no
thread starts; what Atone's runtime takes from the machine (time, chance, threads) is the simulation's here. Must not
know a saga. Called by tests, and by `atone.testing.verify`.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future
from contextvars import copy_context
from functools import partial
from hashlib import sha256
from random import Random
from typing import Any, TypeVar, cast

from atone._threads import run_into
from atone.machine import MACHINE, Beats
from atone.testing._loop import SimulatedLoop, Stuck, TooLong, in_a_thread
from atone.testing._process import PROCESS, Killed, Process, ProcessKilled
from atone.testing.clock import VirtualClock

__all__ = ["Killed", "Process", "ProcessKilled", "Simulation", "Stuck", "TooLong", "point"]

T = TypeVar("T")

STEPS_MAX = 1_000_000
SECONDS_MAX = 30 * 86_400.0


def point(what: str) -> None:
    """Name a crash point, if a simulation runs here; see `Simulation.point`."""
    machine = MACHINE.get()
    if isinstance(machine, _SimulatedMachine):
        machine.simulation.point(what)


class Simulation:
    """One deterministic run. `seed` draws which ready handle is next, and all chance; None is first in, first out.

    `steps_max` and `seconds_max` bound the run, in handles and in virtual time. What is given to a thread is called at
    once, and takes up to `thread_seconds` to return. A simulation runs once.
    """

    def __init__(
        self,
        seed: int | None = 0,
        *,
        clock: VirtualClock | None = None,
        steps_max: int = STEPS_MAX,
        seconds_max: float = SECONDS_MAX,
        thread_seconds: float = 0.0,
    ) -> None:
        self.seed = seed
        self.clock = clock or VirtualClock()
        self.thread_seconds = thread_seconds
        self.trace: list[str] = []
        self.is_over = False
        self._began_at = self.clock.monotonic()
        pick = None if seed is None else Random(f"schedule {seed}")
        made: Callable[..., SimulatedLoop] = cast("Any", SimulatedLoop)  # it leaves out all that needs a socket
        self._loop = made(self.clock, pick, steps_max=steps_max, seconds_max=seconds_max)
        self._processes: list[Process] = []
        self._machine = _SimulatedMachine(self, self._loop, 1, Random(f"machine {seed}"))

    @property
    def steps(self) -> int:
        """How many handles have run."""
        return self._loop.steps

    @property
    def errors(self) -> list[str]:
        """What failed with nobody there to hear it."""
        return self._loop.errors

    def chance(self, purpose: str) -> Random:
        """Return a generator of this seed for some purpose, which nobody else draws from."""
        return Random(f"{purpose} {self.seed}")

    def run(self, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine function and all that it starts, in virtual time, and return what it returned.

        What still runs then is thrown away. The garbage collector waits meanwhile, for it would come when it likes.

        Raises:
            Stuck: Nothing can happen any more.
            TooLong: There were too many steps, or too much virtual time has passed.
        """
        collects = gc.isenabled()
        gc.disable()
        context = copy_context()
        context.run(MACHINE.set, self._machine)
        try:
            return context.run(self._run, main)
        finally:
            if collects:
                gc.enable()

    def _run(self, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        try:
            return cast("T", self._loop.run_until_complete(main()))
        finally:
            self.is_over = True
            self._loop.close()

    def process(self, name: str, main: Callable[[], Coroutine[Any, Any, Any]], *, skew_seconds: float = 0.0) -> Process:
        """Start a simulated process: every task, handle and timer that `main` makes belongs to it.

        It is over when `main` has returned, as a program is: what it has left running runs no more. `skew_seconds` is
        how far its time of day is off.
        """
        process = Process(name, len(self._processes) + 1, self.note)
        process.begin(self._loop.create_future(), self._loop.give_back)
        self._processes.append(process)
        context = copy_context()
        context.run(PROCESS.set, process)
        chance = Random(f"machine {self.seed} {process.number}")
        machine = _SimulatedMachine(self, self._loop, process.number + 1, chance, skew_seconds)
        context.run(MACHINE.set, machine)
        self.note(f"{name} begins")
        context.run(self._begin, process, main)
        return process

    def _begin(self, process: Process, main: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        task = self._loop.create_task(main(), name=process.name)
        task.add_done_callback(partial(_over, process), context=copy_context())

    def point(self, what: str) -> None:
        """Name a crash point of the process that runs now: it is counted, traced, and may be the last one.

        Raises:
            ProcessKilled: The process is no more; the caller must let it pass.
        """
        process = PROCESS.get()
        if process is not None and not process.alive:
            raise ProcessKilled(process.name)
        self.note(what if process is None else f"{process.name}: {what}")
        if process is not None and not process.comes_to_point():
            raise ProcessKilled(process.name)

    def note(self, what: str) -> None:
        """Add a line to the trace, with the time."""
        if self.is_over:
            return
        self.trace.append(f"{self.clock.monotonic() - self._began_at:.6f} {what}")

    def digest(self) -> str:
        """Return a hash over all that happened, and in which order."""
        lines = "\n".join([*self.trace, f"{self._loop.steps} {self._loop.pulse:x}"])
        return sha256(lines.encode()).hexdigest()


def _over(process: Process, task: asyncio.Task[Any]) -> None:
    error = None if task.cancelled() else task.exception()
    if isinstance(error, ProcessKilled):
        return
    if task.cancelled():
        error = Killed(f"The process {process.name} was cancelled.")
    how = "ends" if error is None else f"fails: {type(error).__name__}: {error}"
    process.end(how, None if error else task.result(), error)


class _SimulatedMachine:
    """The machine of one simulated process."""

    def __init__(
        self, simulation: Simulation, loop: SimulatedLoop, pid: int, chance: Random, skew_seconds: float = 0.0
    ) -> None:
        self.simulation = simulation
        self._loop, self._pid = loop, pid
        self._skew_seconds, self._clock = skew_seconds, simulation.clock
        self.monotonic = simulation.clock.monotonic
        self.random_bytes, self.uniform = chance.randbytes, chance.uniform

    @property
    def pid(self) -> int:
        return self._pid

    def time(self) -> float:
        return self._clock.time() + self._skew_seconds

    def aside(self, call: Callable[[], None], name: str) -> None:
        self._loop.call_soon(call)

    def beats(self, beat: Callable[[], float | None], name: str) -> Beats:
        return _Beats(self._loop, beat)

    def threads(self, most: int, name: str) -> Executor:
        return _Inline(self._loop, self._seconds)

    def _seconds(self) -> float:
        most = self.simulation.thread_seconds
        return self.uniform(0.0, 1.0) ** 4 * most if most > 0 else 0.0


class _Beats:
    """A timer of the loop: it stops with its process, like everything of it."""

    def __init__(self, loop: SimulatedLoop, beat: Callable[[], float | None]) -> None:
        self._loop, self._beat = loop, beat
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False

    def start(self, first_seconds: float) -> None:
        self._timer = self._loop.call_later(first_seconds, self._run)

    def stop(self, timeout_seconds: float) -> None:
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def _run(self) -> None:
        pause = self._beat()
        if pause is not None and not self._stopped:
            self._timer = self._loop.call_later(pause, self._run)


class _Inline(Executor):
    """Runs each call when the loop has drawn it, and tells its result some time after that."""

    def __init__(self, loop: SimulatedLoop, seconds: Callable[[], float]) -> None:
        self._loop, self._seconds = loop, seconds

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        told: Future[T] = Future()
        self._loop.call_soon(self._run, told, partial(fn, *args, **kwargs))
        return told

    def _run(self, told: Future[T], call: Callable[[], T]) -> None:
        if not told.set_running_or_notify_cancel():
            return
        done: Future[T] = Future()
        run_into(done, partial(in_a_thread, call))
        if (seconds := self._seconds()) > 0:
            self._loop.call_later(seconds, _tell, done, told)
        else:
            _tell(done, told)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        pass


def _tell(done: Future[T], told: Future[T]) -> None:
    error = done.exception()
    if error is None:
        told.set_result(done.result())
    elif not isinstance(error, ProcessKilled):
        told.set_exception(error)
