"""A simulated process: what belongs to it by its context, whether it lives, and at which of its points it is to die.

Owns the life of a process and the count of its points. Must not schedule anything: the loop asks it before each of its
handles. Made by `Simulation.process`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from atone.errors import AtoneError


class Killed(AtoneError):
    """The process was killed before it came to its end."""

    code = "process_killed"


class ProcessKilled(BaseException):
    """Raised inside a process that is no more, at the point where it died; nothing of it runs afterwards."""


class Process:
    """One simulated process; see `Simulation.process`. `points` counts its points, `alive` tells whether it runs."""

    def __init__(self, name: str, number: int, tell: Callable[[str], None]) -> None:
        self.name = name
        self.number = number
        self.points = 0
        self.alive = True
        self.frozen = False
        self.held: list[Any] = []
        self._tell = tell
        self._plans: dict[int, Callable[[], None]] = {}
        self._ended: asyncio.Future[Any] | None = None
        self._thaw: Callable[[list[Any]], None] | None = None

    def __repr__(self) -> str:
        return f"<process {self.name}>"

    def crash_at(self, point: int) -> None:
        """Have the process kill itself when it comes to its point of that number, counted from 1."""
        self.at_point(point, lambda: self._die(f"is killed at point {point}"))

    def at_point(self, point: int, call: Callable[[], None]) -> None:
        """Have something done when the process comes to its point of that number, counted from 1."""
        self._plans[point] = call

    def kill(self) -> None:
        """End the process as kill -9 does: nothing of it runs any more, what it has sent is sent.

        Raises:
            ProcessKilled: It was this very process that asked.
        """
        self._die("is killed")
        if PROCESS.get() is self:
            raise ProcessKilled(self.name)

    def freeze(self) -> None:
        """Stop the process as SIGSTOP does: time goes on, and nothing of it runs until it is thawed."""
        if self.alive and not self.frozen:
            self.frozen = True
            self._tell(f"{self.name} is frozen")

    def thaw(self) -> None:
        """Let the process go on; what has become due meanwhile comes at once."""
        if self.frozen:
            self.frozen = False
            self._tell(f"{self.name} is thawed")
            held, self.held = self.held, []
            assert self._thaw is not None, "a simulation made it"
            self._thaw(held)

    async def wait(self) -> Any:
        """Wait for the end, and return what the process's main returned or raise what it raised.

        Raises:
            Killed: It was killed.
        """
        assert self._ended is not None, "a simulation made it"
        return await asyncio.shield(self._ended)

    def comes_to_point(self) -> bool:
        """Count a point; whether the process lives on."""
        self.points += 1
        if self._plans and self.points in self._plans:
            self._plans.pop(self.points)()
        return self.alive

    def _die(self, how: str) -> None:
        self.end(how, None, _killed(self.name))

    def end(self, how: str, result: object, error: BaseException | None = None) -> None:
        """Have nothing of the process run any more, and tell who waits for it."""
        if not self.alive:
            return
        self.alive = self.frozen = False
        self.held = []
        self._tell(f"{self.name} {how}")
        if self._ended is None or self._ended.done():
            return
        if error is None:
            self._ended.set_result(result)
        else:
            self._ended.set_exception(error)
            self._ended.exception()  # nobody need wait for it

    def begin(self, ended: asyncio.Future[Any], give_back: Callable[[list[Any]], None]) -> None:
        """Say what is told of its end, and what takes the handles that were held."""
        self._ended, self._thaw = ended, give_back

    @classmethod
    def dead(cls) -> Process:
        """Return one that never lived: what runs in it comes to no point."""
        process = cls("nobody", 0, lambda line: None)
        process.alive = False
        return process


def _killed(name: str) -> Killed:
    return Killed(f"The process {name} was killed. If that was not meant, look at crash_at and kill.")


PROCESS: ContextVar[Process | None] = ContextVar("atone-simulated-process", default=None)
