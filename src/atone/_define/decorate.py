"""The decorators that make steps: `step`, `pivot`, `retriable`, and the two waits.

Owns their typed signatures: up to six earlier steps by position, whose results the function takes in that order.
Must not judge a step beyond what makes the class body itself senseless; `check` does. Called from class bodies.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Concatenate, Literal, ParamSpec, Protocol, TypedDict, TypeVar, Unpack, overload

from atone._core.plan import Does, Role
from atone._core.retry import Retry
from atone._define.command import MakesForwardCommand
from atone._define.making import After, made, steps_named
from atone._define.step import Action, CoroutineOf, Declared, Step, Undoable, Wait
from atone._define.values import Context, Seconds

S = TypeVar("S")
I = TypeVar("I")  # noqa: E741 - the saga's input, named as in `Saga[I]`
R = TypeVar("R")
P = ParamSpec("P")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
F = TypeVar("F")


class RetriableOptions(TypedDict, total=False):
    """What `@retriable` takes: it must finally succeed, so nothing limits how long it tries."""

    retry: Retry | None
    timeout: Seconds | None
    rejects: tuple[type[Exception], ...]
    after: After | None
    at_most_once: bool


class PivotOptions(RetriableOptions, total=False):
    """What `@pivot` takes; `deadline` bounds all its attempts together."""

    deadline: Seconds | None


class StepOptions(PivotOptions, total=False):
    """What `@step` takes.

    `barrier`: the participant refuses an action that arrives after its compensation. `on_unknown` says what becomes of
    an `at_most_once` step whose outcome stays unknown.
    """

    no_compensation: str | None
    barrier: bool
    on_unknown: Literal["attention", "backward"]


class TakesFirst(Protocol):
    """What `@step()` returns: it takes an async function, one that returns an awaitable, or a plain one."""

    @overload
    def __call__(self, fn: Callable[[S, Context[I]], CoroutineOf[R]], /) -> Undoable[S, I, R, [], CoroutineOf[R]]: ...
    @overload
    def __call__(self, fn: Callable[[S, Context[I]], Awaitable[R]], /) -> Undoable[S, I, R, [], Awaitable[R]]: ...
    @overload
    def __call__(self, fn: Callable[[S, Context[I]], R], /) -> Undoable[S, I, R, [], R]: ...


class Takes(Protocol[S, I, P]):
    """What `@step(a, b)` returns: as `TakesFirst`, for a function that takes their results as well."""

    @overload
    def __call__(
        self, fn: Callable[Concatenate[S, Context[I], P], CoroutineOf[R]], /
    ) -> Undoable[S, I, R, P, CoroutineOf[R]]: ...
    @overload
    def __call__(
        self, fn: Callable[Concatenate[S, Context[I], P], Awaitable[R]], /
    ) -> Undoable[S, I, R, P, Awaitable[R]]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[S, Context[I], P], R], /) -> Undoable[S, I, R, P, R]: ...


class TakesFirstForward(Protocol):
    """As `TakesFirst`, for a step that is never undone."""

    @overload
    def __call__(self, fn: Callable[[S, Context[I]], CoroutineOf[R]], /) -> Action[S, I, R, [], CoroutineOf[R]]: ...
    @overload
    def __call__(self, fn: Callable[[S, Context[I]], Awaitable[R]], /) -> Action[S, I, R, [], Awaitable[R]]: ...
    @overload
    def __call__(self, fn: Callable[[S, Context[I]], R], /) -> Action[S, I, R, [], R]: ...


class TakesForward(Protocol[S, I, P]):
    """As `Takes`, for a step that is never undone."""

    @overload
    def __call__(
        self, fn: Callable[Concatenate[S, Context[I], P], CoroutineOf[R]], /
    ) -> Action[S, I, R, P, CoroutineOf[R]]: ...
    @overload
    def __call__(
        self, fn: Callable[Concatenate[S, Context[I], P], Awaitable[R]], /
    ) -> Action[S, I, R, P, Awaitable[R]]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[S, Context[I], P], R], /) -> Action[S, I, R, P, R]: ...


class _MakesStep:
    """The type of `step`."""

    @overload
    def __call__(self, **options: Unpack[StepOptions]) -> TakesFirst: ...
    @overload
    def __call__(self, a: Step[S, I, A], /, **options: Unpack[StepOptions]) -> Takes[S, I, [A]]: ...
    @overload
    def __call__(
        self, a: Step[S, I, A], b: Step[S, I, B], /, **options: Unpack[StepOptions]
    ) -> Takes[S, I, [A, B]]: ...
    @overload
    def __call__(
        self, a: Step[S, I, A], b: Step[S, I, B], c: Step[S, I, C], /, **options: Unpack[StepOptions]
    ) -> Takes[S, I, [A, B, C]]: ...
    @overload
    def __call__(
        self, a: Step[S, I, A], b: Step[S, I, B], c: Step[S, I, C], d: Step[S, I, D], /, **options: Unpack[StepOptions]
    ) -> Takes[S, I, [A, B, C, D]]: ...
    @overload
    def __call__(
        self,
        a: Step[S, I, A],
        b: Step[S, I, B],
        c: Step[S, I, C],
        d: Step[S, I, D],
        e: Step[S, I, E],
        /,
        **options: Unpack[StepOptions],
    ) -> Takes[S, I, [A, B, C, D, E]]: ...
    @overload
    def __call__(
        self,
        a: Step[S, I, A],
        b: Step[S, I, B],
        c: Step[S, I, C],
        d: Step[S, I, D],
        e: Step[S, I, E],
        f: Step[S, I, F],
        /,
        **options: Unpack[StepOptions],
    ) -> Takes[S, I, [A, B, C, D, E, F]]: ...
    def __call__(self, *needs: Any, **options: Any) -> Any:
        """Make a step of the method below: compensated on the way back, or said not to need it."""
        return made("step", Role.COMPENSATABLE, Does.ACTION, Undoable, StepOptions, needs, options)


class _MakesPivot:
    """The type of `pivot`."""

    command = MakesForwardCommand("pivot.command", Role.PIVOT)

    @overload
    def __call__(self, **options: Unpack[PivotOptions]) -> TakesFirstForward: ...
    @overload
    def __call__(self, a: Step[S, I, A], /, **options: Unpack[PivotOptions]) -> TakesForward[S, I, [A]]: ...
    @overload
    def __call__(
        self, a: Step[S, I, A], b: Step[S, I, B], /, **options: Unpack[PivotOptions]
    ) -> TakesForward[S, I, [A, B]]: ...
    @overload
    def __call__(
        self, a: Step[S, I, A], b: Step[S, I, B], c: Step[S, I, C], /, **options: Unpack[PivotOptions]
    ) -> TakesForward[S, I, [A, B, C]]: ...
    @overload
    def __call__(
        self, a: Step[S, I, A], b: Step[S, I, B], c: Step[S, I, C], d: Step[S, I, D], /, **options: Unpack[PivotOptions]
    ) -> TakesForward[S, I, [A, B, C, D]]: ...
    @overload
    def __call__(
        self,
        a: Step[S, I, A],
        b: Step[S, I, B],
        c: Step[S, I, C],
        d: Step[S, I, D],
        e: Step[S, I, E],
        /,
        **options: Unpack[PivotOptions],
    ) -> TakesForward[S, I, [A, B, C, D, E]]: ...
    @overload
    def __call__(
        self,
        a: Step[S, I, A],
        b: Step[S, I, B],
        c: Step[S, I, C],
        d: Step[S, I, D],
        e: Step[S, I, E],
        f: Step[S, I, F],
        /,
        **options: Unpack[PivotOptions],
    ) -> TakesForward[S, I, [A, B, C, D, E, F]]: ...
    def __call__(self, *needs: Any, **options: Any) -> Any:
        """Make the point of no return of the method below: before it a saga turns backward, after it only forward."""
        return made("pivot", Role.PIVOT, Does.ACTION, Action, PivotOptions, needs, options)


class _MakesRetriable:
    """The type of `retriable`."""

    command = MakesForwardCommand("retriable.command", Role.RETRIABLE)

    @overload
    def __call__(self, **options: Unpack[RetriableOptions]) -> TakesFirstForward: ...
    @overload
    def __call__(self, a: Step[S, I, A], /, **options: Unpack[RetriableOptions]) -> TakesForward[S, I, [A]]: ...
    @overload
    def __call__(
        self, a: Step[S, I, A], b: Step[S, I, B], /, **options: Unpack[RetriableOptions]
    ) -> TakesForward[S, I, [A, B]]: ...
    @overload
    def __call__(
        self, a: Step[S, I, A], b: Step[S, I, B], c: Step[S, I, C], /, **options: Unpack[RetriableOptions]
    ) -> TakesForward[S, I, [A, B, C]]: ...
    @overload
    def __call__(
        self,
        a: Step[S, I, A],
        b: Step[S, I, B],
        c: Step[S, I, C],
        d: Step[S, I, D],
        /,
        **options: Unpack[RetriableOptions],
    ) -> TakesForward[S, I, [A, B, C, D]]: ...
    @overload
    def __call__(
        self,
        a: Step[S, I, A],
        b: Step[S, I, B],
        c: Step[S, I, C],
        d: Step[S, I, D],
        e: Step[S, I, E],
        /,
        **options: Unpack[RetriableOptions],
    ) -> TakesForward[S, I, [A, B, C, D, E]]: ...
    @overload
    def __call__(
        self,
        a: Step[S, I, A],
        b: Step[S, I, B],
        c: Step[S, I, C],
        d: Step[S, I, D],
        e: Step[S, I, E],
        f: Step[S, I, F],
        /,
        **options: Unpack[RetriableOptions],
    ) -> TakesForward[S, I, [A, B, C, D, E, F]]: ...
    def __call__(self, *needs: Any, **options: Any) -> Any:
        """Make a step of the method below that comes after the pivot and must finally succeed."""
        return made("retriable", Role.RETRIABLE, Does.ACTION, Action, RetriableOptions, needs, options)


step = _MakesStep()
pivot = _MakesPivot()
retriable = _MakesRetriable()


def delay(duration: Seconds, /, *, after: After | None = None) -> Wait[None]:
    """Make a step that waits for `duration`; the saga holds no task meanwhile."""
    options = {"wait": duration, "after": steps_named(after)}
    return Wait("delay", Declared("delay", None, Does.DELAY, options=options, payload=type(None)))


def wait_for_event(
    name: str,
    payload: type[R],
    /,
    *,
    timeout: Seconds,
    on_timeout: Literal["backward", "attention"] = "backward",
    after: After | None = None,
) -> Wait[R]:
    """Make a step that waits for an event sent to this saga; its payload is the step's result.

    After the pivot there is no way backward, so `on_timeout="attention"` must be said there.
    """
    options = {"event": name, "wait": timeout, "on_timeout": on_timeout, "after": steps_named(after)}
    return Wait("wait_for_event", Declared("wait_for_event", None, Does.EVENT, options=options, payload=payload))
