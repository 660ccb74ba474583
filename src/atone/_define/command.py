"""The decorators that make command steps: `command`, `pivot.command` and `retriable.command`.

Owns their typed signatures, as `decorate` does for steps that call: the method below builds a message, a participant
carries it out, and the step's result is of the type of its reply. Must not judge a step; `check` does. Called from
class bodies, and by `decorate`, which hangs two of them on `pivot` and `retriable`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, Literal, ParamSpec, Protocol, TypedDict, TypeVar, Unpack, overload

from atone._core.plan import Does, Role
from atone._core.retry import Retry
from atone._define.making import After, made
from atone._define.step import Action, Step, UndoableCommand
from atone._define.values import Context, Seconds

S = TypeVar("S")
I = TypeVar("I")  # noqa: E741 - the saga's input, named as in `Saga[I]`
R = TypeVar("R")
M = TypeVar("M")
P = ParamSpec("P")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
F = TypeVar("F")


class ForwardCommandOptions(TypedDict, total=False):
    """What `@pivot.command` and `@retriable.command` take beside `reply`, the type of a good answer.

    `rejects` is the type of a refusal's body (a text `reason` if left out). `timeout` is how long a reply is awaited
    before the command is sent again under the same key. `to` is the topic, if it is not the message's own name.
    """

    rejects: type[Any] | None
    retry: Retry | None
    timeout: Seconds | None
    after: After | None
    at_most_once: bool
    to: str | None


class CommandOptions(ForwardCommandOptions, total=False):
    """What `@command` takes.

    `barrier` is True unless said otherwise: the participant refuses a command that arrives after the one that undoes
    it, as all of Atone's do. `on_unknown` says what becomes of an `at_most_once` command that nobody answers.
    """

    no_compensation: str | None
    barrier: bool
    on_unknown: Literal["attention", "backward"]


class TakesFirstMessage(Protocol[R]):
    """What `@command(reply=...)` returns: it takes the plain function that builds the message."""

    def __call__(self, fn: Callable[[S, Context[I]], M], /) -> UndoableCommand[S, I, R, [], M]: ...


class TakesMessage(Protocol[S, I, R, P]):
    """What `@command(a, b, reply=...)` returns: as `TakesFirstMessage`, for a function that takes their results."""

    def __call__(self, fn: Callable[Concatenate[S, Context[I], P], M], /) -> UndoableCommand[S, I, R, P, M]: ...


class TakesFirstMessageForward(Protocol[R]):
    """As `TakesFirstMessage`, for a step that is never undone."""

    def __call__(self, fn: Callable[[S, Context[I]], M], /) -> Action[S, I, R, [], M]: ...


class TakesMessageForward(Protocol[S, I, R, P]):
    """As `TakesMessage`, for a step that is never undone."""

    def __call__(self, fn: Callable[Concatenate[S, Context[I], P], M], /) -> Action[S, I, R, P, M]: ...


class _MakesCommand:
    """The type of `command`."""

    @overload
    def __call__(self, *, reply: type[R], **options: Unpack[CommandOptions]) -> TakesFirstMessage[R]: ...
    @overload
    def __call__(
        self, a: Step[S, I, A], /, *, reply: type[R], **options: Unpack[CommandOptions]
    ) -> TakesMessage[S, I, R, [A]]: ...
    @overload
    def __call__(
        self, a: Step[S, I, A], b: Step[S, I, B], /, *, reply: type[R], **options: Unpack[CommandOptions]
    ) -> TakesMessage[S, I, R, [A, B]]: ...
    @overload
    def __call__(
        self,
        a: Step[S, I, A],
        b: Step[S, I, B],
        c: Step[S, I, C],
        /,
        *,
        reply: type[R],
        **options: Unpack[CommandOptions],
    ) -> TakesMessage[S, I, R, [A, B, C]]: ...
    @overload
    def __call__(
        self,
        a: Step[S, I, A],
        b: Step[S, I, B],
        c: Step[S, I, C],
        d: Step[S, I, D],
        /,
        *,
        reply: type[R],
        **options: Unpack[CommandOptions],
    ) -> TakesMessage[S, I, R, [A, B, C, D]]: ...
    @overload
    def __call__(
        self,
        a: Step[S, I, A],
        b: Step[S, I, B],
        c: Step[S, I, C],
        d: Step[S, I, D],
        e: Step[S, I, E],
        /,
        *,
        reply: type[R],
        **options: Unpack[CommandOptions],
    ) -> TakesMessage[S, I, R, [A, B, C, D, E]]: ...
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
        *,
        reply: type[R],
        **options: Unpack[CommandOptions],
    ) -> TakesMessage[S, I, R, [A, B, C, D, E, F]]: ...
    def __call__(self, *needs: Any, **options: Any) -> Any:
        """Make a step that sends the message built below, and ends when the participant has replied.

        Nothing is held meanwhile. Nobody who answers in time has it sent again, under the same key; what undoes it is a
        message too.
        """
        return made("command", Role.COMPENSATABLE, Does.COMMAND, UndoableCommand, _ALL, needs, options)


class MakesForwardCommand:
    """The type of `pivot.command` and `retriable.command`."""

    def __init__(self, word: str, role: Role) -> None:
        self._word, self._role = word, role

    @overload
    def __call__(self, *, reply: type[R], **options: Unpack[ForwardCommandOptions]) -> TakesFirstMessageForward[R]: ...
    @overload
    def __call__(
        self, a: Step[S, I, A], /, *, reply: type[R], **options: Unpack[ForwardCommandOptions]
    ) -> TakesMessageForward[S, I, R, [A]]: ...
    @overload
    def __call__(
        self, a: Step[S, I, A], b: Step[S, I, B], /, *, reply: type[R], **options: Unpack[ForwardCommandOptions]
    ) -> TakesMessageForward[S, I, R, [A, B]]: ...
    @overload
    def __call__(
        self,
        a: Step[S, I, A],
        b: Step[S, I, B],
        c: Step[S, I, C],
        /,
        *,
        reply: type[R],
        **options: Unpack[ForwardCommandOptions],
    ) -> TakesMessageForward[S, I, R, [A, B, C]]: ...
    @overload
    def __call__(
        self,
        a: Step[S, I, A],
        b: Step[S, I, B],
        c: Step[S, I, C],
        d: Step[S, I, D],
        /,
        *,
        reply: type[R],
        **options: Unpack[ForwardCommandOptions],
    ) -> TakesMessageForward[S, I, R, [A, B, C, D]]: ...
    @overload
    def __call__(
        self,
        a: Step[S, I, A],
        b: Step[S, I, B],
        c: Step[S, I, C],
        d: Step[S, I, D],
        e: Step[S, I, E],
        /,
        *,
        reply: type[R],
        **options: Unpack[ForwardCommandOptions],
    ) -> TakesMessageForward[S, I, R, [A, B, C, D, E]]: ...
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
        *,
        reply: type[R],
        **options: Unpack[ForwardCommandOptions],
    ) -> TakesMessageForward[S, I, R, [A, B, C, D, E, F]]: ...
    def __call__(self, *needs: Any, **options: Any) -> Any:
        """Make such a step of the message built below: it is over when the participant has replied."""
        return made(self._word, self._role, Does.COMMAND, Action, _FORWARD, needs, options)


class _ALL(CommandOptions):
    reply: type[Any]


class _FORWARD(ForwardCommandOptions):
    reply: type[Any]


command = _MakesCommand()
