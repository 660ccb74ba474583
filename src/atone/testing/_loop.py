"""A deterministic event loop: no selector, no sockets, no threads; time jumps to the next timer when nothing is ready.

Owns what is ready and which of it is next: first come, first served, or drawn by a seeded generator. Each handle
belongs to the process of its context; what belongs to a dead one is dropped, and to a frozen one is held. Must not know
what it runs. Driven by `Simulation.run`.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from asyncio import events
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from concurrent.futures import Executor
from contextvars import Context, copy_context
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import Any, NoReturn, TypeVar, TypeVarTuple, Unpack, cast

from atone.errors import AtoneError
from atone.testing._process import PROCESS, Process, ProcessKilled
from atone.testing.clock import VirtualClock

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_CLOSINGS_MAX = 100
_KEEP_TASKS = 2_000  # a look for those that are done is taken at so many


class Stuck(AtoneError):
    """Nothing can happen any more, and the end was not reached."""

    code = "simulation_stuck"


class TooLong(AtoneError):
    """The end was not reached within the steps or the virtual seconds that it was given."""

    code = "simulation_too_long"


class _Handle(asyncio.Handle):
    """Named for its fields, which the standard library's stubs leave out."""

    __slots__ = ()
    _callback: Callable[..., object]
    _context: Context

    def owner(self) -> Process | None:
        """Return the process that it belongs to."""
        return self._context.get(PROCESS)

    def run(self) -> None:
        """Call what is to be called; whatever it raises passes."""
        self._context.run(self._callback, *self._args)


class _Timer(_Handle, asyncio.TimerHandle):
    __slots__ = ()


class SimulatedLoop(asyncio.AbstractEventLoop):
    """Runs handles one by one; `pick` draws the next one of so many, None takes the first."""

    def __init__(self, clock: VirtualClock, pick: Random | None, *, steps_max: int, seconds_max: float) -> None:
        self.clock = clock
        self._pick = pick
        self._steps_max, self._end_at = steps_max, clock.monotonic() + seconds_max
        self._ready: list[_Handle] = []
        self._timers: list[tuple[float, int, _Timer]] = []
        self._numbers = count()
        self._task_numbers = count(1)
        self._tasks: list[asyncio.Task[Any]] = []
        self._generators: list[AsyncGenerator[Any, Any]] = []
        self._is_closed = self._is_running = False
        self._on_error: Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object] | None = None
        self.steps = 0
        self.pulse: int = 0
        self.errors: list[str] = []

    # -- running -------------------------------------------------------------------------------------------------

    def run_until_complete(self, future: Any) -> Any:
        """Run until the future is done, and return its result.

        Raises:
            Stuck: Nothing is ready and no timer is set.
            TooLong: There were too many steps, or too much virtual time has passed.
        """
        main: asyncio.Future[Any] = asyncio.ensure_future(future, loop=self)
        hooks = sys.get_asyncgen_hooks()
        before = events._get_running_loop()
        events._set_running_loop(self)
        sys.set_asyncgen_hooks(firstiter=self._generators.append, finalizer=_forget)
        self._is_running = True
        try:
            while not main.done():
                self._step()
        finally:
            self._is_running = False
            sys.set_asyncgen_hooks(*hooks)
            events._set_running_loop(before)
        return main.result()

    def _step(self) -> None:
        now = self.clock.monotonic()
        if self._timers and self._timers[0][0] <= now:
            self._ring(now)
        if not self._ready:
            self._jump()
        ready, pick = self._ready, self._pick
        if pick is None or len(ready) == 1:
            handle = ready.pop(0)
        else:
            at = int(pick.random() * len(ready))
            handle, ready[at] = ready[at], ready[-1]
            ready.pop()
        if handle.cancelled():
            return
        self.steps += 1
        if self.steps > self._steps_max:
            raise TooLong(
                f"The end was not reached within {self._steps_max} steps. Look at the trace, or allow more steps_max."
            )
        process = handle.owner()
        if process is not None:
            if process.frozen:
                process.held.append(handle)
                return
            if not process.alive or not process.comes_to_point():
                return
            self.pulse = (self.pulse * 31 + process.number) & 0xFFFFFFFFFFFFFFF
        try:
            handle.run()
        except ProcessKilled:
            pass
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - as every loop does
            self.call_exception_handler({"message": "a handle failed", "exception": error})

    def _ring(self, now: float) -> None:
        """Move the timers that are due to what is ready."""
        while self._timers and self._timers[0][0] <= now:
            handle = heappop(self._timers)[2]
            if not handle.cancelled():
                self._ready.append(handle)

    def _jump(self) -> None:
        """Move the clock to the next timer of somebody who lives."""
        while self._timers:
            at, _, handle = self._timers[0]
            process = handle.owner()
            if handle.cancelled() or (process is not None and not process.alive):
                heappop(self._timers)
                continue
            if at > self._end_at:
                raise TooLong(
                    "The end was not reached within the virtual time. Look at the trace, or allow more seconds_max."
                )
            self.clock.move_to(at)
            self._ring(at)
            return
        raise Stuck("Nothing is ready and no timer is set, so nothing can happen any more. Look at the trace.")

    def give_back(self, handles: list[_Handle]) -> None:
        """Take handles that were held."""
        self._ready.extend(handles)

    # -- what a loop is asked for --------------------------------------------------------------------------------

    def call_soon(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Run the callback as soon as it is drawn; nothing happens once the loop is closed."""
        handle = _Handle(callback, args, self, context)
        if not self._is_closed:
            self._ready.append(handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Do the same as `call_soon`."""
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self, delay: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Run the callback after so many virtual seconds."""
        return self.call_at(self.clock.monotonic() + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Run the callback at this moment of `time()`."""
        timer = _Timer(when, callback, args, self, context)
        if not self._is_closed:
            heappush(self._timers, (when, next(self._numbers), timer))
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Leave it where it is: it is passed over when its time comes."""

    def time(self) -> float:
        """Return the virtual time."""
        return self.clock.monotonic()

    def create_future(self) -> asyncio.Future[Any]:
        """Return a future of this loop.

        Raises:
            ProcessKilled: The loop is closed, so nobody waits for anything any more.
        """
        if self._is_closed:
            raise ProcessKilled
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: object = None,
        context: Context | None = None,
        **other: Any,
    ) -> asyncio.Task[T]:
        """Run a coroutine; it is kept until the end of all, so that no `finally` of a dead process ever runs."""
        named = f"task-{next(self._task_numbers)}" if name is None else str(name)
        task: asyncio.Task[T] = asyncio.Task(cast("Any", coro), loop=self, name=named, context=context, **other)
        if len(self._tasks) >= _KEEP_TASKS and len(self._tasks) % _KEEP_TASKS == 0:
            self._tasks = [one for one in self._tasks if not one.done()]
        self._tasks.append(task)
        return task

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Run the call here, when it is drawn: there are no threads."""
        future: asyncio.Future[T] = self.create_future()
        self.call_soon(_run_into, future, func, args)
        return future

    def is_running(self) -> bool:
        """Whether it runs now."""
        return self._is_running

    def is_closed(self) -> bool:
        """Whether it is closed."""
        return self._is_closed

    def get_debug(self) -> bool:
        """No: tracebacks of where handles were made cost too much."""
        return False

    def set_exception_handler(self, handler: Callable[[asyncio.AbstractEventLoop, Any], object] | None) -> None:
        """Have somebody else hear what fails with nobody there."""
        self._on_error = cast("Any", handler)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep what failed with nobody there to hear it; nothing of a dead process counts."""
        process = PROCESS.get()
        if self._is_closed or (process is not None and not process.alive):
            return
        if self._on_error is not None:
            self._on_error(self, context)
            return
        error = context.get("exception")
        if not isinstance(error, ProcessKilled):
            self.errors.append(f"{context['message']}: {type(error).__name__}: {error}")

    async def shutdown_asyncgens(self) -> None:
        """Nothing: what is left of generators ends with the loop."""

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Nothing: there is none."""

    def close(self) -> None:
        """Throw away all that is left, without letting any of it act."""
        self._is_closed = True
        self._ready.clear()
        self._timers.clear()
        grave = copy_context()
        grave.run(PROCESS.set, Process.dead())
        hook, sys.unraisablehook = sys.unraisablehook, _forget
        before = events._get_running_loop()
        events._set_running_loop(self)
        try:
            waited = [grave.run(_throw_away, task) for task in self._tasks if not task.done()]
            self._tasks.clear()
            self._generators.clear()
            if any(waited):
                gc.collect()  # what is left of them complains when it is found
        finally:
            events._set_running_loop(before)
            sys.unraisablehook = hook


def _refuses(name: str) -> Callable[..., NoReturn]:
    def refuse(*args: object, **named: object) -> NoReturn:
        raise NotImplementedError(
            f"{name}: there are no sockets, processes or signals in a simulation. Give the code under test a fake, or "
            "the real service in this process."
        )

    return refuse


for _name in ("add_reader", "add_signal_handler", "add_writer", "connect_read_pipe", "connect_write_pipe",
              "create_connection", "create_datagram_endpoint", "create_server", "create_unix_connection",
              "create_unix_server", "getaddrinfo", "getnameinfo", "sock_accept", "sock_connect", "sock_recv",
              "sock_sendall", "subprocess_exec", "subprocess_shell"):  # fmt: skip
    setattr(SimulatedLoop, _name, _refuses(_name))


def _run_into(future: asyncio.Future[T], func: Callable[..., T], args: tuple[Any, ...]) -> None:
    if future.cancelled():
        return
    try:
        result = in_a_thread(func, *args)
    except (KeyboardInterrupt, SystemExit, ProcessKilled):
        raise
    except BaseException as error:  # noqa: BLE001 - whoever waits is told
        future.set_exception(error)
    else:
        future.set_result(result)


def in_a_thread(func: Callable[..., T], *args: Any, **named: Any) -> T:
    """Call a function as if in a thread of its own: one that asks finds no event loop there."""
    loop = events._get_running_loop()
    events._set_running_loop(None)
    try:
        return func(*args, **named)
    finally:
        events._set_running_loop(loop)


def _throw_away(task: asyncio.Task[Any]) -> bool:
    """Close what a task runs; whatever it does in a `finally` finds a closed loop and a dead process.

    Return whether it went on to wait there.
    """
    cast("Any", task)._log_destroy_pending = False
    coroutine: Any = task.get_coro()
    for closing in range(_CLOSINGS_MAX):  # what awaits in a `finally` goes on waiting there, so it is closed once more
        try:
            coroutine.close()
        except RuntimeError:
            continue
        except BaseException:  # noqa: BLE001 - it was to be thrown away
            return closing > 0
        return closing > 0
    return True


def _forget(left: object) -> None:
    """Do nothing: a generator that nobody has must not act when the collector finds it."""
