"""One call of a step's code in a run, with what goes wrong with it; and the calls that it makes over the network.

Owns how each kind of fault is done. Must not choose them: the run says which one hits which call. Put in place of the
user's code by `tampered`.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from atone._core.facts import Operation
from atone._runtime.bound import BoundSaga
from atone.definition import Context, UserCode
from atone.errors import Reject
from atone.testing._verify.scenarios import Called, Fault, Kind
from atone.testing._verify.world import World
from atone.testing.network import LINE

PAST_DEADLINE_SECONDS = 2.0
_HANGS = 3600.0
_CALLED: dict[Operation, Called] = {
    Operation.ACTION: "action",
    Operation.COMPENSATION: "compensation",
    Operation.PROBE: "probe",
}


class Running(Protocol):
    """What a call needs of its run."""

    world: World
    late_grace_seconds: float

    def now(self) -> float:
        """Return the store's time."""
        ...

    def count(self, step: str, called: Called) -> int:
        """Count a call, and return which one of its kind it is."""
        ...

    def fault(self, step: str, called: Called, number: int, hop: int | None) -> Fault | None:
        """Return what goes wrong with it."""
        ...

    def saw_hop(self, step: str, called: Called, hop: int) -> None:
        """Remember that the step's code calls a participant."""
        ...

    def landed(self, step: str, called: Called, value: Any) -> None:
        """Remember what came of a call, for a person who is asked whether it landed."""
        ...

    async def point(self, what: str) -> None:
        """Come to a place where the process may die."""
        ...

    def point_blocking(self, what: str) -> None:
        """Come to one in plain code."""
        ...

    def note(self, what: str) -> None:
        """Write a line of the timeline."""
        ...


def tampered(run: Running, bound: BoundSaga) -> None:
    """Put a call with its faults in place of each function of a saga, before anything runs."""
    for name, step in bound.steps.items():
        # What builds a command is called as it is: the command itself meets the faults.
        step.code = {
            one: code if one.value in step.messages else _around(run, name, _CALLED[one], code)
            for one, code in step.code.items()
        }
        when = _around(run, name, "when", step.definition.when)
        step.definition = replace(step.definition, when=when)


def _around(run: Running, step: str, called: Called, code: UserCode | None) -> UserCode | None:
    if code is None:
        return None

    async def call(saga: object, context: Context[Any], *rest: Any) -> Any:
        return await _Call(run, step, called, code, saga, (context, *rest)).go()

    # What was a plain function is still taken for one: nobody interrupts it, and its late result is told.
    return UserCode(call, True)


@dataclass(slots=True)
class _Call:
    """One attempt under way; the line that its calls of participants go over."""

    run: Running
    step: str
    called: Called
    code: UserCode
    saga: object
    arguments: tuple[Any, ...]
    number: int = 0
    hops: int = 0

    async def go(self) -> Any:
        self.number = self.run.count(self.step, self.called)
        fault = self.run.fault(self.step, self.called, self.number, None)
        what = f"{self.step}, {self.called} {self.number}"
        await self.run.point(f"{what} is called")
        try:
            value = await self._with(None if fault is None else fault.kind)
        except asyncio.CancelledError:
            self.run.note(f"{what} is given up on")
            raise
        except Exception as error:
            self.run.note(f"{what} raises {type(error).__name__}: {error}"[:200])
            await self.run.point(f"{what} has raised")
            raise
        self.run.note(f"{what} returns {value!r}"[:200])
        await self.run.point(f"{what} has returned")
        return value

    async def _with(self, kind: Kind | None) -> Any:
        match kind:
            case None:
                return await self._user()
            case Kind.REJECTED:
                raise Reject("refused, by the test")
            case Kind.FAILS:
                raise ConnectionError("the participant was not reached, by the test")
            case Kind.REPLY_LOST:
                await self._user()
                raise ConnectionError("the reply was lost, by the test")
            case Kind.TWICE:
                await self._user()
                self.run.note(
                    f"{self.step}, {self.called} {self.number} is called again with the same key, by the test"
                )
                return await self._user()
            case Kind.TWICE_AT_ONCE:
                _, value = await asyncio.gather(self._user(), self._user())
                return value
            case _:
                return await self._hang(kind)

    async def _hang(self, kind: Kind) -> Any:
        """Give no answer in time."""
        deadline = self.arguments[0].deadline
        left = _HANGS if deadline is None else max(0.0, deadline - self.run.now())
        if kind is Kind.TIMES_OUT_AFTER:
            await self._user()
        elif kind is Kind.LATE:
            self.run.world.do_after(left + 0.9 * self.run.late_grace_seconds, self._lands)
        elif kind is Kind.LATE_AFTER_END:
            self.run.world.do_at_the_end(self._lands)
        await asyncio.sleep(left + PAST_DEADLINE_SECONDS)
        raise ConnectionError("the answer came too late, by the test")

    async def _lands(self) -> None:
        what = f"{self.step}, {self.called} {self.number}, delayed,"
        try:
            value = await self._plainly()
        except Exception as error:  # noqa: BLE001 - nobody is there to hear it
            self.run.note(f"{what} arrives, and is refused: {type(error).__name__}: {error}"[:200])
        else:
            self.run.note(f"{what} arrives: {value!r}"[:200])

    async def _user(self) -> Any:
        before = LINE.get()
        LINE.set(self)
        try:
            value = await self._plainly()
        finally:
            LINE.set(before)  # no token: what is thrown away at the end ends in another context
        self.run.landed(self.step, self.called, value)
        return value

    async def _plainly(self) -> Any:
        value = self.code.function(self.saga, *self.arguments)
        return await value if inspect.isawaitable(value) else value

    # -- the line ------------------------------------------------------------------------------------------------

    def _hop(self) -> tuple[int, Kind | None]:
        self.hops += 1
        self.run.saw_hop(self.step, self.called, self.hops)
        fault = self.run.fault(self.step, self.called, self.number, self.hops)
        return self.hops, None if fault is None else fault.kind

    async def carry(self, what: str, request: Callable[[], Awaitable[Any]]) -> Any:
        _, kind = self._hop()
        await self.run.point(f"{self.step}: {what} is sent")
        if kind is Kind.FAILS:
            raise ConnectionError(f"{what} was not reached, by the test")
        if kind is Kind.TWICE:
            self.run.note(f"{what} is sent twice, by the test")
            await asyncio.shield(self.run.world.do(request))
        value = await asyncio.shield(self.run.world.do(request))
        self.run.landed(self.step, self.called, value)
        await self.run.point(f"{self.step}: {what} has answered")
        if kind is Kind.REPLY_LOST:
            raise ConnectionError(f"the reply of {what} was lost, by the test")
        return value

    def carry_blocking(self, what: str, request: Callable[[], Any]) -> Any:
        _, kind = self._hop()
        self.run.point_blocking(f"{self.step}: {what} is sent")
        if kind is Kind.FAILS:
            raise ConnectionError(f"{what} was not reached, by the test")
        if kind is Kind.TWICE:
            request()
        value = request()
        self.run.landed(self.step, self.called, value)
        self.run.point_blocking(f"{self.step}: {what} has answered")
        if kind is Kind.REPLY_LOST:
            raise ConnectionError(f"the reply of {what} was lost, by the test")
        return value
