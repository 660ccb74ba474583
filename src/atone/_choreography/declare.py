"""The decorator that makes reactions, and what it makes: a typed object that collects what belongs to it.

Owns `reacts`, `Reacting` with its `.undo` and `.overdue`, and the notes of what the class body said. Must not judge a
reaction beyond what makes its own line senseless; `check` and the event map's checks do. Used in class bodies.
"""

# A kind of event that is not given leaves its variable unsolved, and a union is right without it.
# pyright: reportInvalidTypeVarUse=false
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import isfunction
from typing import Any, Generic, Never, Self, TypeAlias, TypeGuard, TypeVar, Unpack, overload

from atone._choreography.events import Times, Within, events_in
from atone._choreography.typed import NoEvent, ReactsOptions, TakesReaction, TakesUndo, UndoOptions
from atone._choreography.values import Reaction
from atone._core.retry import Retry
from atone._define.check import duration
from atone._define.step import Function, method
from atone.errors import DefinitionError

S = TypeVar("S")
E = TypeVar("E")
Q = TypeVar("Q")
U = TypeVar("U")
V = TypeVar("V")
W = TypeVar("W")
X = TypeVar("X")
Y = TypeVar("Y")
Z = TypeVar("Z")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
F = TypeVar("F")
G = TypeVar("G")


@dataclass(slots=True)
class Declared:
    """What a class body said about one handler, before anybody judged it."""

    function: Function
    listens: tuple[type, ...]
    emits: tuple[type, ...] = ()
    after: tuple[type, ...] = ()
    out_of_order: Any = "defer"
    pivot: Any = False
    no_undo: Any = None
    expects: Within | None = None
    at_most: Times | None = None
    retry: Retry | None = None
    timeout_seconds: float | None = None
    overdue: Function | None = None
    writes: Any = True

    @property
    def name(self) -> str:
        return self.function.__name__


class Reacting(Generic[S, E, X, Y, Z, W, Q]):
    """One reaction of a participant; `Inventory.reserve` is one.

    `S` is the participant, `E` what it listens to, `X` to `W` what it publishes, `Q` what a direct call gives.
    """

    def __init__(self, declared: Declared) -> None:
        self.declared = declared
        self.undone_by: Declared | None = None
        self.owner: str | None = None
        self.name = declared.name

    def __repr__(self) -> str:
        return f"<reaction {self.name}>"

    @overload
    def __get__(self, obj: None, owner: type) -> Self: ...
    @overload
    def __get__(self, obj: object, owner: type) -> Callable[[Reaction[E]], Q]: ...
    def __get__(self, obj: object | None, owner: type) -> Any:
        return self if obj is None else self.declared.function.__get__(obj, owner)

    def __set__(self, obj: object, value: Never) -> None:
        raise DefinitionError(
            f"{self.declared.name!r} is a reaction, and an attribute would hide it. Give the attribute another name."
        )

    @overload
    def undo(
        self,
        a: type[A],
        b: type[B] = ...,
        c: type[C] = ...,
        d: type[D] = ...,
        e: type[F] = ...,
        f: type[G] = ...,
        /,
        *,
        emits: tuple[type[U]],
        **options: Unpack[UndoOptions],
    ) -> TakesUndo[S, A | B | C | D | F | G, X, Y, Z, W, U]: ...
    @overload
    def undo(
        self,
        a: type[A],
        b: type[B] = ...,
        c: type[C] = ...,
        d: type[D] = ...,
        e: type[F] = ...,
        f: type[G] = ...,
        /,
        *,
        emits: tuple[type[U], type[V]],
        **options: Unpack[UndoOptions],
    ) -> TakesUndo[S, A | B | C | D | F | G, X, Y, Z, W, U | V | Sequence[U | V]]: ...
    def undo(self, *events: Any, **options: Any) -> Any:
        """Undo what the reaction did, when one of `events` is heard: it is handed what the reaction returned."""
        mine = self.declared.name
        where = f"@{mine}.undo"

        def put(function: Any) -> Any:
            method(f"{where}()", function)
            self._refuse_finished("undo")
            if self.undone_by is not None:
                raise DefinitionError(
                    f"{mine!r} already has {self.undone_by.name!r} as its undo. Give that one all events: "
                    f"@{mine}.undo(First, Second)."
                )
            self.undone_by = _declared(where, function, events, options, tuple(UndoOptions.__annotations__))
            return function

        if _are_a_function(events):
            raise DefinitionError(f"{where} stands without events. Write {where}(PaymentDeclined).")
        return put

    @overload
    def overdue(self, function: Callable[[S, X], U], /) -> Callable[[S, X], U]: ...
    @overload
    def overdue(self, function: Callable[[S, Y], U], /) -> Callable[[S, Y], U]: ...
    @overload
    def overdue(self, function: Callable[[S, Z], U], /) -> Callable[[S, Z], U]: ...
    @overload
    def overdue(self, function: Callable[[S, W], U], /) -> Callable[[S, W], U]: ...
    def overdue(self, function: Any, /) -> Any:
        """Make the event that says that what was expected did not come, from what the reaction returned."""
        mine = self.declared.name
        method(f"@{mine}.overdue", function)
        self._refuse_finished("overdue")
        if self.declared.expects is None:
            raise DefinitionError(
                f"{mine!r} expects nothing. Add expects=within(30, ..., otherwise=...), or remove @{mine}.overdue."
            )
        if self.declared.overdue is not None:
            raise DefinitionError(f"{mine!r} already has a method for what is overdue. Remove one @{mine}.overdue.")
        self.declared.overdue = function
        return function

    def _refuse_finished(self, what: str) -> None:
        if self.owner is not None:
            raise DefinitionError(
                f"The class {self.owner} is finished. Move @{self.declared.name}.{what} into its class body."
            )


@overload
def reacts(
    a: type[A],
    b: type[B] = ...,
    c: type[C] = ...,
    d: type[D] = ...,
    e: type[F] = ...,
    f: type[G] = ...,
    /,
    *,
    emits: tuple[()] = ...,
    **options: Unpack[ReactsOptions],
) -> TakesReaction[A | B | C | D | F | G, None, NoEvent, NoEvent, NoEvent, None]: ...
@overload
def reacts(
    a: type[A],
    b: type[B] = ...,
    c: type[C] = ...,
    d: type[D] = ...,
    e: type[F] = ...,
    f: type[G] = ...,
    /,
    *,
    emits: tuple[type[X]],
    **options: Unpack[ReactsOptions],
) -> TakesReaction[A | B | C | D | F | G, X, NoEvent, NoEvent, NoEvent, X | Sequence[X] | None]: ...
@overload
def reacts(
    a: type[A],
    b: type[B] = ...,
    c: type[C] = ...,
    d: type[D] = ...,
    e: type[F] = ...,
    f: type[G] = ...,
    /,
    *,
    emits: tuple[type[X], type[Y]],
    **options: Unpack[ReactsOptions],
) -> TakesReaction[A | B | C | D | F | G, X, Y, NoEvent, NoEvent, X | Y | Sequence[X | Y] | None]: ...
@overload
def reacts(
    a: type[A],
    b: type[B] = ...,
    c: type[C] = ...,
    d: type[D] = ...,
    e: type[F] = ...,
    f: type[G] = ...,
    /,
    *,
    emits: tuple[type[X], type[Y], type[Z]],
    **options: Unpack[ReactsOptions],
) -> TakesReaction[A | B | C | D | F | G, X, Y, Z, NoEvent, X | Y | Z | Sequence[X | Y | Z] | None]: ...
@overload
def reacts(
    a: type[A],
    b: type[B] = ...,
    c: type[C] = ...,
    d: type[D] = ...,
    e: type[F] = ...,
    f: type[G] = ...,
    /,
    *,
    emits: tuple[type[X], type[Y], type[Z], type[W]],
    **options: Unpack[ReactsOptions],
) -> TakesReaction[A | B | C | D | F | G, X, Y, Z, W, X | Y | Z | W | Sequence[X | Y | Z | W] | None]: ...
@overload
def reacts(
    a: type[A],
    b: type[B] = ...,
    c: type[C] = ...,
    d: type[D] = ...,
    e: type[F] = ...,
    f: type[G] = ...,
    /,
    *,
    emits: tuple[type[Any], ...],
    **options: Unpack[ReactsOptions],
) -> TakesReaction[A | B | C | D | F | G, Any, Any, Any, Any, Any]: ...
def reacts(*events: Any, **options: Any) -> Any:
    """Make a reaction to `events` of the method below; in one transaction with the service's own rows."""
    if _are_a_function(events):
        raise DefinitionError("@reacts stands without brackets above a function. Write @reacts(OrderPlaced).")

    def make(function: Any) -> AnyReacting:
        method("@reacts()", function)
        return Reacting(_declared("@reacts", function, events, options, tuple(ReactsOptions.__annotations__)))

    return make


AnyReacting: TypeAlias = Reacting[Any, Any, Any, Any, Any, Any, Any]


def is_reacting(value: object) -> TypeGuard[AnyReacting]:
    """Whether a value from a class body is a reaction."""
    return isinstance(value, Reacting)


def _are_a_function(given: tuple[Any, ...]) -> bool:
    return len(given) == 1 and isfunction(given[0])


def _declared(
    word: str, function: Function, events: tuple[type, ...], options: dict[str, Any], known: tuple[str, ...]
) -> Declared:
    where = f"{function.__qualname__.rpartition('<locals>.')[2]}"
    unknown = sorted(options.keys() - {"emits", *known})
    if unknown:
        raise DefinitionError(f"{where}: {word} has no option {unknown[0]!r}. It takes: emits, {', '.join(known)}.")
    if not events:
        raise DefinitionError(f"{where}: {word} names no event. Write {word}(OrderPlaced).")
    retry, expects, at_most = (options.get(key) for key in ("retry", "expects", "at_most"))
    if retry is not None and not isinstance(retry, Retry):
        raise DefinitionError(f"{where}: retry={retry!r} is not a policy. Write retry=Retry(attempts=5).")
    if expects is not None and not isinstance(expects, Within):
        raise DefinitionError(
            f"{where}: expects={expects!r} says no time. Write expects=within(30, PaymentTaken, otherwise=TimedOut)."
        )
    if at_most is not None and not isinstance(at_most, Times):
        raise DefinitionError(f"{where}: at_most={at_most!r} is not a bound. Write at_most=times(3, otherwise=GaveUp).")
    return Declared(
        function,
        events_in(where, "events", events),
        events_in(where, "emits", options.get("emits", ())),
        events_in(where, "after", options.get("after", ())),
        options.get("out_of_order", "defer"),
        options.get("pivot", False),
        options.get("no_undo"),
        expects,
        at_most,
        retry,
        duration(where, "timeout", options.get("timeout")),
        writes=options.get("writes", True),
    )
