"""The decorators that `@reacts(...)` and `@x.undo(...)` give, as type checkers see them.

Owns which functions they take: `E` is what is listened to, `X` to `W` what may be published, one kind each, `R` all
that may be returned. Does nothing at run time. Named by `declare` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypedDict, TypeVar, overload

from atone._choreography.events import Times, Within
from atone._choreography.values import Reaction
from atone._core.retry import Retry
from atone._define.values import Seconds

if TYPE_CHECKING:
    from atone._choreography.declare import Reacting

S = TypeVar("S")
E = TypeVar("E")
R = TypeVar("R")
W = TypeVar("W")
X = TypeVar("X")
Y = TypeVar("Y")
Z = TypeVar("Z")

CoroutineOf: TypeAlias = Coroutine[Any, Any, R]
Undoes: TypeAlias = Callable[[S, Reaction[E], X], R]


class NoEvent:
    """Stands where a reaction publishes fewer kinds of events; nothing is one."""


class UndoOptions(TypedDict, total=False):
    """What `@x.undo` takes besides `emits`.

    `writes=False`: it changes no row on `ctx.connection`, as one that only sends a mail; otherwise its first run that
    changes none is refused, since then its rows lie elsewhere.
    """

    retry: Retry | None
    timeout: Seconds | None
    writes: bool


class ReactsOptions(UndoOptions, total=False):
    """What `@reacts` takes besides `emits`.

    `after`: what must have been heard here in this saga before; otherwise the event is kept until it has, or parked
    with `out_of_order="reject"`. `pivot`: the point of no return. `no_undo`: why there is nothing to undo.
    """

    after: tuple[type, ...]
    out_of_order: str
    pivot: bool
    no_undo: str | None
    expects: Within | None
    at_most: Times | None


class TakesReaction(Generic[E, X, Y, Z, W, R]):
    """What `@reacts(...)` returns: the decorator for the method below it."""

    if TYPE_CHECKING:

        @overload
        def __call__(
            self, fn: Callable[[S, Reaction[E]], CoroutineOf[R]], /
        ) -> Reacting[S, E, X, Y, Z, W, CoroutineOf[R]]: ...
        @overload
        def __call__(self, fn: Callable[[S, Reaction[E]], R], /) -> Reacting[S, E, X, Y, Z, W, R]: ...
        def __call__(self, fn: Any, /) -> Any: ...


class TakesUndo(Generic[S, E, X, Y, Z, W, R]):
    """What `@x.undo(...)` returns: the decorator for the method below it, which takes what the reaction returned."""

    if TYPE_CHECKING:

        @overload
        def __call__(self, fn: Undoes[S, E, X, CoroutineOf[R]], /) -> Undoes[S, E, X, CoroutineOf[R]]: ...
        @overload
        def __call__(self, fn: Undoes[S, E, Y, CoroutineOf[R]], /) -> Undoes[S, E, Y, CoroutineOf[R]]: ...
        @overload
        def __call__(self, fn: Undoes[S, E, Z, CoroutineOf[R]], /) -> Undoes[S, E, Z, CoroutineOf[R]]: ...
        @overload
        def __call__(self, fn: Undoes[S, E, W, CoroutineOf[R]], /) -> Undoes[S, E, W, CoroutineOf[R]]: ...
        @overload
        def __call__(self, fn: Undoes[S, E, X, R], /) -> Undoes[S, E, X, R]: ...
        @overload
        def __call__(self, fn: Undoes[S, E, Y, R], /) -> Undoes[S, E, Y, R]: ...
        @overload
        def __call__(self, fn: Undoes[S, E, Z, R], /) -> Undoes[S, E, Z, R]: ...
        @overload
        def __call__(self, fn: Undoes[S, E, W, R], /) -> Undoes[S, E, W, R]: ...
        @overload
        def __call__(self, fn: Undoes[S, E, tuple[X, Y], R | CoroutineOf[R]], /) -> Callable[..., Any]: ...
        @overload
        def __call__(self, fn: Undoes[S, E, list[X], R | CoroutineOf[R]], /) -> Callable[..., Any]: ...
        def __call__(self, fn: Any, /) -> Any: ...
