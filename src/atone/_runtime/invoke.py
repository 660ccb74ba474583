"""Call user code for one attempt, and say what came of it as a fact.

Owns the translation of every way a call can end: a value, a rejection, any other exception, a cancellation. Only the
attempt's owner interrupts it (time-out, shutdown, lost lease); a plain function runs in a thread, which nobody can
stop, so its late result is told when it comes; one that still waits for a thread is never begun late. Must not decide
what follows.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from contextvars import copy_context
from datetime import timedelta
from enum import Enum
from functools import partial
from math import isfinite
from types import CoroutineType
from typing import Any, cast

from atone._core import facts
from atone._core.commands import AskMessage, Call, Decision
from atone._core.facts import Fact, Operation, Problem
from atone._core.state import SagaState
from atone._runtime.bound import BoundSaga, BoundStep, Kept
from atone._runtime.deadlines import End
from atone._runtime.telemetry import HeardAttempt
from atone.codec import describe
from atone.definition import CannotTell, Landed, NotLanded, UserCode
from atone.errors import PayloadError, Reject, RetryAfter

NO_DEADLINE = 0.0
_COROUTINES: frozenset[type] = frozenset({CoroutineType})


class Stop(Enum):
    """Why an attempt's owner interrupted it."""

    TIMEOUT = "timeout"
    SHUTDOWN = "shutdown"
    DROPPED = "dropped"


class Attempt(End):
    """One call under way: `stop` says why it was interrupted, `told` that its time-out was told before it ended."""

    __slots__ = ("call", "heard", "in_thread", "stop", "task", "told")

    def __init__(self, call: Call, in_thread: bool) -> None:
        self.passed = None
        self.call = call
        self.in_thread = in_thread
        self.heard: HeardAttempt | None = None
        self.stop: Stop | None = None
        self.task: asyncio.Task[None] | None = None
        self.told = False

    def interrupt(self, why: Stop) -> None:
        """Ask the call to end; the first reason counts."""
        if self.stop is None:
            self.stop = why
        if self.task is not None:
            self.task.cancel()

    @property
    def is_wanted(self) -> bool:
        """Whether a thread that has become free should still call the function."""
        return self.stop is None and not self.told


class Invoker:
    """Calls user code: async functions on the loop, plain ones in the threads of `executor`."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    async def attempt(self, bound: BoundSaga, state: SagaState, attempt: Attempt, kept: Kept) -> Fact | None:
        """Make one call and return what came of it; None if nobody wants to know any more."""
        call = attempt.call
        step = bound.steps[call.step]
        try:
            headers = None if attempt.heard is None else attempt.heard.headers
            code, arguments = self._prepare(bound, step, state, call, kept, headers)
        except PayloadError as error:
            return facts.Impossible(call.step, call.operation, call.attempt, describe(error))
        try:
            value = await self._call(code, bound.saga, arguments, attempt)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 - a SystemExit in a step must not end its neighbours
            return _fact_of_error(error, step, attempt)
        return _fact_of_value(value, bound, state, call, kept)

    def _prepare(
        self,
        bound: BoundSaga,
        step: BoundStep,
        state: SagaState,
        call: Call,
        kept: Kept,
        headers: Mapping[str, str] | None,
    ) -> tuple[UserCode, list[Any]]:
        code = step.code[call.operation]
        if code is None:
            what = f"step {call.step!r} has no {call.operation.value} in this code"
            raise PayloadError(f"{what}; deploy the code that has it")
        context = bound.context(state, call.step, call.operation, call.attempt, call.deadline or None, kept, headers)
        if call.operation is not Operation.ACTION:
            return code, [context, bound.tried(state, call.step, kept)]
        return code, [context, *bound.arguments(state, call.step, kept)] if step.inputs else [context]

    async def _call(self, code: UserCode, saga: object, arguments: list[Any], attempt: Attempt | None = None) -> Any:
        if code.is_async:
            value = code.function(saga, *arguments)
        else:
            value = await self._in_thread(partial(code.function, saga, *arguments), attempt)
        # `isawaitable` is Python code; nearly always the first look tells.
        return await value if type(value) in _COROUTINES or inspect.isawaitable(value) else value

    async def _in_thread(self, call: Callable[[], Any], attempt: Attempt | None) -> Any:
        def run() -> tuple[Any, BaseException | None]:
            if attempt is not None and not attempt.is_wanted:
                return None, TimeoutError("its thread came too late, so it was not called")
            try:
                return call(), None
            except BaseException as error:  # noqa: BLE001 - a future takes no StopIteration, so none is raised in it
                return None, error

        ran = self._executor.submit(copy_context().run, run)
        value, error = await asyncio.wrap_future(ran)
        if error is not None:
            raise error
        return value

    def messages(self, bound: BoundSaga, decision: Decision) -> Fact | None:
        """Build the messages that a decision asks for, if it does, and say what came of that."""
        wanted = [command for command in decision.commands if type(command) is AskMessage]
        told = [self._message(bound, decision.saga, one) for one in wanted]
        failed = [one for one in told if isinstance(one, facts.MessageFailed)]
        if failed or not told:
            return failed[0] if failed else None
        return facts.MessagesBuilt(wanted[0].version, tuple(one for one in told if isinstance(one, facts.Built)))

    def _message(self, bound: BoundSaga, state: SagaState, wanted: AskMessage) -> facts.Built | facts.MessageFailed:
        """Build one message; whatever goes wrong, nothing was sent, and a person must know."""
        name, operation, attempt, version = wanted
        step = bound.steps[name]
        try:
            call = Call(name, operation, attempt, NO_DEADLINE)  # its deadline is decided when it is sent
            code, arguments = self._prepare(bound, step, state, call, Kept(state), None)
            built = code.function(bound.saga, *arguments)
            return facts.Built(name, operation, step.messages[operation.value].encode(built))
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 - as said
            return facts.MessageFailed(version, name, operation, describe(error))

    async def condition(self, bound: BoundSaga, state: SagaState, step: str) -> Fact:
        """Ask a step's `when`; whatever it raises is told, never guessed over."""
        definition = bound.steps[step].definition
        try:
            if definition.when is None:
                raise LookupError(f"step {step!r} has no `when` in this code")
            context = bound.context(state, step, Operation.ACTION, 0, None, Kept(state))
            async with asyncio.timeout(definition.plan.timeout_seconds):
                answer: Any = await self._call(definition.when, bound.saga, [context])
            if not isinstance(answer, bool):
                raise TypeError(f"`when` returned {type(answer).__name__}, not a bool")
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it was, a person must know; nobody asks a second time
            return facts.ConditionFailed(step, describe(error))
        return facts.ConditionTold(step, answer)


def _fact_of_value(value: Any, bound: BoundSaga, state: SagaState, call: Call, kept: Kept) -> Fact:
    """Encode and check the value before anybody calls it a success."""
    if call.operation is Operation.COMPENSATION:
        return facts.Succeeded(call.step, call.operation, call.attempt, b"null")
    try:
        if call.operation is Operation.PROBE:
            return _fact_of_answer(value, bound, state, call, kept)
        payload = bound.encoded(value, state, call.step, kept)
    except PayloadError as error:
        # The effect has landed and its result can't be kept: unknown, and calling again would not mend it.
        return facts.CameToNothing(call.step, call.operation, call.attempt, describe(error), repeatable=False)
    return facts.Succeeded(call.step, call.operation, call.attempt, payload)


def _fact_of_answer(value: Any, bound: BoundSaga, state: SagaState, call: Call, kept: Kept) -> Fact:
    match value:
        case Landed():
            payload = bound.encoded(cast("Any", value).result, state, call.step, kept)
            return facts.Probed(call.step, call.attempt, facts.Landed.LANDED, payload)
        case NotLanded():
            return facts.Probed(call.step, call.attempt, facts.Landed.NOT_LANDED)
        case CannotTell():
            return facts.Probed(call.step, call.attempt, facts.Landed.CANNOT_TELL)
        case _:
            what = f"a probe returned {type(value).__name__}, not Landed, NotLanded or CannotTell"
            wrong = Problem("TypeError", what)
            return facts.CameToNothing(call.step, call.operation, call.attempt, wrong)


def _fact_of_error(error: BaseException, step: BoundStep, attempt: Attempt) -> Fact | None:
    call = attempt.call
    at = (call.step, call.operation, call.attempt)
    match error:
        case asyncio.CancelledError():
            return _fact_of_stop(attempt)
        case Reject():
            return facts.Rejected(*at, describe(error))
        case _ if call.operation is Operation.ACTION and isinstance(error, step.rejects):
            return facts.Rejected(*at, describe(error))
        case RetryAfter():
            return facts.CameToNothing(*at, describe(error), retry_after=_delay_of(error.seconds))
        case _:
            return facts.CameToNothing(*at, describe(error))


def _delay_of(asked: Any) -> float | None:
    """Return the delay that was asked for; None, for the policy's own, if it is no time that can pass."""
    try:
        seconds = float(asked.total_seconds() if isinstance(asked, timedelta) else asked)
    except (TypeError, ValueError, OverflowError):
        return None
    return max(0.0, seconds) if isfinite(seconds) else None


def _fact_of_stop(attempt: Attempt) -> Fact | None:
    call = attempt.call
    at = (call.step, call.operation, call.attempt)
    match attempt.stop:
        case Stop.DROPPED:
            return None
        case Stop.SHUTDOWN:
            return facts.Interrupted(*at)
        case Stop.TIMEOUT:
            return timed_out(call)
        case None:
            return facts.CameToNothing(*at, Problem("CancelledError", "the call was cancelled from inside"))


def timed_out(call: Call) -> Fact:
    """Return the fact that an attempt's hard deadline has passed without an answer."""
    problem = Problem("TimeoutError", "no answer within the attempt's time-out")
    return facts.CameToNothing(call.step, call.operation, call.attempt, problem)
