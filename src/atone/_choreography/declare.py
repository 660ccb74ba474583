"""The decorator that makes reactions, and what it makes: a typed object that collects what belongs to it.

Owns `reacts`, `Reacting` with its `.undo` and `.overdue`, and the notes of what the class body said. Must not judge a
reaction beyond what makes its own line senseless; `check` and the event map's checks do. Used in class bodies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from inspect import isfunction
from typing import Any, NoReturn

from atone._choreography.events import Times, Within, events_in
from atone._core.retry import Retry
from atone._define.check import duration
from atone._define.step import Function, method
from atone.errors import DefinitionError

REACTS_OPTIONS = (
    "emits", "after", "out_of_order", "pivot", "no_undo", "expects", "at_most", "retry", "timeout",
)  # fmt: skip
UNDO_OPTIONS = ("emits", "retry", "timeout")


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

    @property
    def name(self) -> str:
        return self.function.__name__


@dataclass(slots=True)
class Reacting:
    """One reaction of a participant; `Inventory.reserve` is one."""

    declared: Declared
    undone_by: Declared | None = None
    owner: str | None = None
    name: str = field(default="")

    def __get__(self, obj: object | None, owner: type) -> Any:
        return self if obj is None else self.declared.function.__get__(obj, owner)

    def __set__(self, obj: object, value: Any) -> NoReturn:
        raise DefinitionError(
            f"{self.declared.name!r} is a reaction, and an attribute would hide it. Give the attribute another name."
        )

    def undo(self, *events: type, **options: Any) -> Any:
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
            self.undone_by = _declared(where, function, events, options, UNDO_OPTIONS)
            return function

        if _are_a_function(events):
            raise DefinitionError(f"{where} stands without events. Write {where}(PaymentDeclined).")
        return put

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


def reacts(*events: type, **options: Any) -> Callable[[Any], Reacting]:
    """Make a reaction to `events` of the method below; in one transaction with the service's own rows."""
    if _are_a_function(events):
        raise DefinitionError("@reacts stands without brackets above a function. Write @reacts(OrderPlaced).")

    def make(function: Any) -> Reacting:
        method("@reacts()", function)
        return Reacting(_declared("@reacts", function, events, options, REACTS_OPTIONS))

    return make


def _are_a_function(given: tuple[Any, ...]) -> bool:
    return len(given) == 1 and isfunction(given[0])


def _declared(
    word: str, function: Function, events: tuple[type, ...], options: dict[str, Any], known: tuple[str, ...]
) -> Declared:
    where = f"{function.__qualname__.rpartition('<locals>.')[2]}"
    unknown = sorted(options.keys() - set(known))
    if unknown:
        raise DefinitionError(f"{where}: {word} has no option {unknown[0]!r}. It takes: {', '.join(known)}.")
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
    )
