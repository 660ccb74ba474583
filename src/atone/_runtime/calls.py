"""The calls of one saga that are under way: begun, timed out, interrupted, ended.

Owns an attempt from its durable intent to the fact that says how it ended; each is told once, and a success that comes
after its time-out was told is told too. Must not decide what follows. Kept by a runner, which hears the facts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from atone._core import facts
from atone._core.commands import Call
from atone._core.facts import Fact
from atone._core.state import SagaState
from atone._runtime.bound import BoundSaga, Kept
from atone._runtime.deadlines import Deadlines
from atone._runtime.invoke import Attempt, Invoker, Stop, timed_out
from atone._runtime.logs import of_saga
from atone._runtime.slots import Slots
from atone._runtime.telemetry import Heard

log = logging.getLogger("atone.saga")

LEASE_LOOK_SECONDS = 0.05
EXCUSED_MAX = 3


class Caller(Protocol):
    """What calls need of the worker."""

    invoker: Invoker
    deadlines: Deadlines
    threads: Slots
    cancel_grace_seconds: float

    @property
    def id(self) -> str:
        """The worker's id."""
        ...

    def now(self) -> float:
        """Return the store's time."""
        ...

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run a coroutine beside the sagas; its failure is logged."""
        ...

    def may_call(self) -> bool:
        """Whether the lease still protects a call that begins now."""
        ...


_NO_STEPS: frozenset[str] = frozenset()
_NONE_MISSED: dict[str, int] = {}  # replaced, never written


def _nobody(fact: Fact) -> None:
    """Hear what is not told to a runner that was let go.

    Calls that held the runner's own method would keep it alive, and it them: each saga that is over would leave 22
    objects and more to the garbage collector, which looks at all that live in order to find them.
    """


class Calls:
    """The attempts under way; `tell` hears the fact of each. `heard` tells telemetry, if it is on."""

    __slots__ = ("_bound", "_caller", "_gone", "_kept", "_loop", "_missed", "_tell", "_under_way", "asking", "heard")

    def __init__(self, caller: Caller, bound: BoundSaga, tell: Callable[[Fact], None]) -> None:
        self._caller, self._bound, self._tell = caller, bound, tell
        self._loop = asyncio.get_running_loop()
        self._under_way: set[Attempt] = set()
        self._kept: Kept | None = None
        self._missed = _NONE_MISSED  # by step, how often in a row its deadline had passed before its call began
        self._gone = False
        self.asking = _NO_STEPS  # the steps whose `when` is being asked
        self.heard: Heard | None = None

    def __bool__(self) -> bool:
        return bool(self._under_way)

    def begin(self, call: Call, state: SagaState, late: bool = False) -> None:
        """Call the user's code, now or as soon as the lease protects it; `late` if it has had to wait for that."""
        if self._gone:
            self._give_back(call)
            return
        if not self._caller.may_call():
            # The lease may be over: another worker may own the saga, so nothing is called until it is renewed.
            self._loop.call_later(LEASE_LOOK_SECONDS, self.begin, call, state, True)
            return
        if call.deadline <= self._caller.now():
            # A call that begins after its hard deadline could have its effect after its undo.
            self._give_back(call)
            excused = late or self._is_excused(call)
            fact = facts.Interrupted(call.step, call.operation, call.attempt) if excused else timed_out(call)
            self._loop.call_soon(self._say, fact)  # not within the turn that is being performed
            return
        if call.step in self._missed:
            self._missed = {step: times for step, times in self._missed.items() if step != call.step}
        attempt = Attempt(call, self._bound.in_thread(call.step, call.operation))
        self._under_way.add(attempt)
        attempt.task = self._loop.create_task(self._run(attempt, state))
        seconds = call.deadline - self._caller.now()
        self._caller.deadlines.after(seconds, attempt, self._expire)

    def _is_excused(self, call: Call) -> bool:
        """Whether a call that came too late uses up no attempt: a store that stalls must not undo a saga.

        One that is always slower than the step may be does use them up, or the step would be repeated for ever.
        """
        times = self._missed.get(call.step, 0) + 1
        self._missed = {**self._missed, call.step: times}
        return times <= EXCUSED_MAX

    def _say(self, fact: Fact) -> None:
        self._tell(fact)

    def ask(self, step: str, state: SagaState) -> None:
        """Ask the step's `when`, unless that is under way."""
        if step not in self.asking:
            self.asking |= {step}
            self._caller.spawn(self._ask(step, state))

    async def _ask(self, step: str, state: SagaState) -> None:
        fact = await self._caller.invoker.condition(self._bound, state, step)
        self.asking -= {step}
        if not self._gone:
            self._tell(fact)

    def interrupt(self) -> None:
        """End what can be ended, for a shutdown: each is told as interrupted and goes on elsewhere."""
        for attempt in tuple(self._under_way):
            if not attempt.in_thread:
                attempt.interrupt(Stop.SHUTDOWN)

    def leave(self) -> None:
        """Tell nothing from now on; what still runs is a thread whose time is over."""
        self._gone = True
        self._tell = _nobody

    def forget(self) -> None:
        """The saga is not mine any more: interrupt what is under way, and tell nothing from now on."""
        self.leave()
        for attempt in tuple(self._under_way):
            attempt.interrupt(Stop.DROPPED)

    async def _run(self, attempt: Attempt, state: SagaState) -> None:
        call, kept = attempt.call, self._kept
        if kept is None:
            kept = self._kept = Kept(state)
        heard = attempt.heard = None if self.heard is None else self.heard.attempt(call)
        fact = await self._caller.invoker.attempt(self._bound, state, attempt, kept)
        if heard is not None:
            heard.returned(fact, in_time=attempt.stop is None)
        self._caller.deadlines.lift(attempt)
        self._under_way.discard(attempt)
        if attempt.in_thread:
            self._caller.threads.give(1)
        if fact is None:
            return
        if self._gone:
            how = (state.saga_id, call.operation.value, call.step, type(fact).__name__)
            what = {"step": call.step, "operation": call.operation.value, "attempt": call.attempt}
            known = of_saga(self._bound.plan, state, **what, worker=self._caller.id)
            log.warning("saga %s: %s of step %s ended after the saga was let go: %s", *how, extra=known)
        elif not attempt.told or isinstance(fact, facts.Succeeded):
            self._tell(fact)

    def _give_back(self, call: Call) -> None:
        if self._bound.in_thread(call.step, call.operation):
            self._caller.threads.give(1)

    def _expire(self, attempt: Attempt) -> None:
        """The attempt's hard deadline has passed: from now on its outcome is unknown."""
        if attempt.in_thread:
            self._give_up_on(attempt)
        else:
            attempt.interrupt(Stop.TIMEOUT)
            grace = self._caller.cancel_grace_seconds
            self._caller.deadlines.after(grace, attempt, self._give_up_on)

    def _give_up_on(self, attempt: Attempt) -> None:
        """Tell the time-out although the call has not ended; if it ends after all, that is told as a late result."""
        if not attempt.told and not self._gone:
            attempt.told = True
            if attempt.heard is not None:
                attempt.heard.ended("timed_out", "TimeoutError")
            self._tell(timed_out(attempt.call))
