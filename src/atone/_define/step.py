"""A step as the user sees it: a typed object that collects what belongs to it while the class body runs.

Owns the types that let both checkers follow results from step to step, and `Declared`, the untyped notes for the
compiler. Must not judge them: `check` does, once the class is whole. Made by `decorate`, read by `compile`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from inspect import isasyncgenfunction, isgeneratorfunction
from types import FunctionType
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    Never,
    ParamSpec,
    Self,
    TypeAlias,
    TypeGuard,
    TypeVar,
    overload,
)

from atone._core.plan import Does, Role
from atone._core.retry import Retry
from atone._define.values import CannotTell, Context, Landed, NotLanded, Seconds, Tried
from atone.errors import DefinitionError

if TYPE_CHECKING:
    from atone._define.saga import Saga

S = TypeVar("S")
I = TypeVar("I")  # noqa: E741 - the saga's input, named as in `Saga[I]`
R = TypeVar("R")
P = ParamSpec("P")
Q = TypeVar("Q")
Q_co = TypeVar("Q_co", covariant=True)
Undone = TypeVar("Undone", bound="Awaitable[None] | None")
Said = TypeVar("Said", bound="Awaitable[bool] | bool")

Function: TypeAlias = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Handler:
    """A function that belongs to a step, with its own policy; None means the default. `to` is a command's topic."""

    function: Function
    retry: Retry | None = None
    timeout: Seconds | None = None
    to: str | None = None

    @property
    def name(self) -> str:
        return self.function.__name__


@dataclass(slots=True)
class Declared:
    """What the class body said about one step, before anybody judged it.

    `word` is what the user wrote (step, pivot, command, delay ...). A wait has no role of its own: it takes the one of
    its place. `owner` is the finished saga class that the step belongs to.
    """

    word: str
    role: Role | None
    does: Does
    action: Function | None = None
    needs: tuple[Step[Any, Any, Any], ...] = ()
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    handlers: dict[str, Handler] = field(default_factory=dict[str, Handler])
    payload: Any = None
    owner: str | None = None

    @property
    def undoable(self) -> str:
        """The decorator of such a step that can be undone."""
        return "command" if self.does is Does.COMMAND else "step"


class Step(Generic[S, I, R]):
    """One step of a saga definition; `PlaceOrder.create_shipment` is one.

    `S` is the saga class, `I` its input, `R` what the step returns.
    """

    def __init__(self, name: str, declared: Declared) -> None:
        self.name = name
        self.declared = declared

    def __repr__(self) -> str:
        return f"<step {self.name}>"

    def when(self, fn: Callable[[S, Context[I]], Said], /) -> Callable[[S, Context[I]], Said]:
        """Skip this step where `fn` returns False; its result is then read with `ctx.result_or_none`."""
        put: Callable[[S, Context[I]], Said] = self._put("when", fn)
        return put

    if not TYPE_CHECKING:
        # Checkers see a missing attribute; whoever runs no checker gets the reason.
        def __getattr__(self, attribute: str) -> Any:
            if attribute == "compensation" and self.declared.role is not None:
                raise DefinitionError(
                    f"{self.name!r} is a {self.declared.word}, which is never undone. "
                    f"Make it a @{self.declared.undoable} if it can be undone, or remove @{self.name}.compensation."
                )
            if attribute in ("compensation", "probe"):
                raise DefinitionError(
                    f"A {self.declared.word} calls nothing, so there is nothing to undo or to ask. "
                    f"Remove its .{attribute}, or put it on the step that has the effect."
                )
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {attribute!r}")

    def _put(
        self, what: str, fn: Any, retry: Retry | None = None, timeout: Seconds | None = None, to: str | None = None
    ) -> Any:
        method(f"@{self.name}.{what}", fn)
        if self.declared.owner is not None:
            raise DefinitionError(
                f"The class {self.declared.owner} is finished. Move @{self.name}.{what} into its class body."
            )
        if what in self.declared.handlers:
            raise DefinitionError(
                f"{self.name!r} already has {self.declared.handlers[what].name!r} as its {what}. "
                f"Remove one @{self.name}.{what}."
            )
        self.declared.handlers[what] = Handler(fn, retry, timeout, to)
        return fn


class Wait(Step[Any, Any, R]):
    """A step that calls nothing: it waits for time to pass or for an event, whose payload is its result."""

    def __get__(self, obj: object | None, owner: type[Saga[Any]]) -> Self:
        return self

    def __set__(self, obj: object, value: Never) -> None:
        raise _hides(self.name)


class Action(Step[S, I, R], Generic[S, I, R, P, Q_co]):
    """A step that calls user code: `P` are the results it takes, `Q_co` what a direct call of it gives."""

    @overload
    def __get__(self, obj: None, owner: type[Saga[I]]) -> Self: ...
    @overload
    def __get__(self, obj: object, owner: type[Saga[I]]) -> Callable[Concatenate[Context[I], P], Q_co]: ...
    def __get__(self, obj: object | None, owner: type[Saga[I]]) -> Any:
        assert self.declared.action is not None
        return self if obj is None else self.declared.action.__get__(obj, owner)

    def __set__(self, obj: object, value: Never) -> None:
        raise _hides(self.name)

    @overload
    def probe(self, fn: TriedTo[S, I, R, CoroutineOf[Answer[R]]], /) -> TriedTo[S, I, R, CoroutineOf[Answer[R]]]: ...
    @overload
    def probe(self, fn: TriedTo[S, I, R, Awaitable[Answer[R]]], /) -> TriedTo[S, I, R, Awaitable[Answer[R]]]: ...
    @overload
    def probe(self, fn: TriedTo[S, I, R, Answer[R]], /) -> TriedTo[S, I, R, Answer[R]]: ...
    @overload
    def probe(self, *, retry: Retry | None = None, timeout: Seconds | None = None) -> TakesProbe[S, I, R]: ...
    def probe(self, *fn: Any, retry: Retry | None = None, timeout: Seconds | None = None) -> Any:
        """Ask the participant, without changing anything there, whether an unknown attempt landed."""
        return self._handler("probe", fn, retry, timeout)

    def _handler(self, what: str, fn: tuple[Any, ...], retry: Retry | None, timeout: Seconds | None) -> Any:
        def put(function: Any) -> Any:
            return self._put(what, function, retry, timeout)

        return put(*fn) if fn else put


class Undoable(Action[S, I, R, P, Q_co]):
    """An action before the point of no return: it has a compensation, or says why not."""

    @overload
    def compensation(self, fn: TriedTo[S, I, R, Undone], /) -> TriedTo[S, I, R, Undone]: ...
    @overload
    def compensation(
        self, *, retry: Retry | None = None, timeout: Seconds | None = None
    ) -> TakesCompensation[S, I, R]: ...
    def compensation(self, *fn: Any, retry: Retry | None = None, timeout: Seconds | None = None) -> Any:
        """Undo what the action did, or may have done, when the saga turns backward."""
        return self._handler("compensation", fn, retry, timeout)


class UndoableCommand(Action[S, I, R, P, Q_co]):
    """A command before the point of no return: another command undoes it, or it says why none has to."""

    @overload
    def compensation(self, fn: TriedTo[S, I, R, Q], /) -> TriedTo[S, I, R, Q]: ...
    @overload
    def compensation(
        self, *, retry: Retry | None = None, timeout: Seconds | None = None, to: str | None = None
    ) -> TakesUndoing[S, I, R]: ...
    def compensation(
        self, *fn: Any, retry: Retry | None = None, timeout: Seconds | None = None, to: str | None = None
    ) -> Any:
        """Build the command that undoes what this one did, or may have done, when the saga turns backward."""

        def put(function: Any) -> Any:
            return self._put("compensation", function, retry, timeout, to)

        return put(*fn) if fn else put


AnyStep: TypeAlias = Step[Any, Any, Any]
CoroutineOf: TypeAlias = Coroutine[Any, Any, R]
Answer: TypeAlias = Landed[R] | NotLanded | CannotTell
TriedTo: TypeAlias = Callable[[S, Context[I], Tried[R]], Q]


class TakesProbe(Generic[S, I, R]):
    """What `@x.probe(...)` returns: the decorator for the function below it."""

    if TYPE_CHECKING:

        @overload
        def __call__(
            self, fn: TriedTo[S, I, R, CoroutineOf[Answer[R]]], /
        ) -> TriedTo[S, I, R, CoroutineOf[Answer[R]]]: ...
        @overload
        def __call__(self, fn: TriedTo[S, I, R, Awaitable[Answer[R]]], /) -> TriedTo[S, I, R, Awaitable[Answer[R]]]: ...
        @overload
        def __call__(self, fn: TriedTo[S, I, R, Answer[R]], /) -> TriedTo[S, I, R, Answer[R]]: ...
        def __call__(self, fn: Any, /) -> Any: ...


class TakesUndoing(Generic[S, I, R]):
    """What `@x.compensation(...)` of a command returns: the decorator for the function below it."""

    if TYPE_CHECKING:

        def __call__(self, fn: TriedTo[S, I, R, Q], /) -> TriedTo[S, I, R, Q]: ...


class TakesCompensation(Generic[S, I, R]):
    """What `@x.compensation(...)` returns: the decorator for the function below it."""

    if TYPE_CHECKING:

        def __call__(self, fn: TriedTo[S, I, R, Undone], /) -> TriedTo[S, I, R, Undone]: ...


def _hides(name: str) -> DefinitionError:
    return DefinitionError(f"{name!r} is a step, and an attribute would hide it. Give the attribute another name.")


def is_step(value: object) -> TypeGuard[AnyStep]:
    """Whether a value from a class body is a step."""
    return isinstance(value, Step)


def method(decorator: str, given: Any) -> Function:
    """Return what stands below a decorator, if it is a method that returns one value."""
    if not isinstance(given, FunctionType):
        raise DefinitionError(f"{decorator} was given {given!r}. Write it above a plain `def` or `async def` method.")
    if isgeneratorfunction(given) or isasyncgenfunction(given):
        raise DefinitionError(f"{decorator} stands above {given.__name__}, which yields. Return one value instead.")
    return given
