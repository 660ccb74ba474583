"""Events as users declare them, and what a reaction may say about those that should follow it.

Owns `event`, `within` and `times`. An event stays the class that it was; it carries its name and version beside its
fields. Must not look at handlers. Used in class bodies; `spec_of` is read by everything else in this room.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, is_typeddict

from atone._core.event_map import EventSpec
from atone._define.check import duration
from atone._define.values import Seconds
from atone.errors import DefinitionError

C = TypeVar("C")

NAME_CHARACTERS_MAX = 100
_MARK = "__atone_event__"
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789._-")


def event(name: str, *, version: int = 1, failure: bool = False) -> Callable[[type[C]], type[C]]:
    """Make an event of the class below, which stays a dataclass, Struct or model: `@event("order.placed")`.

    `name` is the topic it is published to: lower-case words with dots. `version` is of its fields; a reader refuses
    another. `failure`: what was done before it in the same saga must be undone.

    Raises:
        DefinitionError: The name, the version or the class will not do.
    """
    given: Any = name
    if isinstance(given, type):
        raise DefinitionError(f'@event stands without brackets above {given.__name__}. Write @event("order.placed").')
    if not is_name(name):
        raise DefinitionError(
            f"{name!r:.120} is not an event's name. Write lower-case words with dots, such as "
            f'@event("order.placed"), at most {NAME_CHARACTERS_MAX} characters.'
        )
    if not is_whole(version):
        raise DefinitionError(f"{name}: version={version!r} is not a whole number from 1. Write version=1.")
    if failure not in (True, False):
        raise DefinitionError(f"{name}: failure={failure!r} means nothing. Write failure=True, or leave it out.")

    def mark(cls: type[C]) -> type[C]:
        given: Any = cls
        if not isinstance(given, type) or is_typeddict(cls):
            raise DefinitionError(
                f"@event({name!r}) stands above {getattr(given, '__name__', given)!r}, whose values don't know what "
                f"they are. Make it a dataclass or a msgspec Struct."
            )
        if _MARK in vars(cls):
            raise DefinitionError(f"{cls.__name__} is the event {spec_of(cls).name!r} already. Remove one @event.")
        setattr(cls, _MARK, EventSpec(name, version, failure, cls.__name__))
        return cls

    return mark


def is_event(value: object) -> bool:
    """Whether a class was declared with `@event` itself; a subclass of an event is none."""
    return isinstance(value, type) and isinstance(vars(value).get(_MARK), EventSpec)


def spec_of(cls: type) -> EventSpec:
    """Return what `@event` said of a class."""
    found: EventSpec = vars(cls)[_MARK]
    return found


def events_in(where: str, option: str, given: Any) -> tuple[type, ...]:
    """Return the events that were given to `option`, without repeating one.

    Raises:
        DefinitionError: It is no tuple of events.
    """
    classes: list[Any] = [*given] if isinstance(given, tuple | list) else [given]
    for one in classes:
        if not is_event(one):
            shown = getattr(one, "__name__", repr(one))
            raise DefinitionError(
                f'{where}: its {option} {shown:.100} is not an event. Write @event("order.placed") above that class.'
            )
    if not isinstance(given, tuple):
        names = ", ".join(one.__name__ for one in classes)
        raise DefinitionError(f"{where}: {option} is not a tuple. Write {option}=({names},).")
    if len(set(classes)) != len(classes):
        twice = next(one for one in classes if classes.count(one) > 1)
        raise DefinitionError(f"{where}: its {option} names {twice.__name__} twice. Remove one.")
    return tuple(classes)


def is_name(value: object) -> bool:
    """Whether a text may name an event or a participant: it is a part of topics and groups."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= NAME_CHARACTERS_MAX
        and _LETTERS.issuperset(value)
        and all(part.strip("-_") for part in value.split("."))
    )


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number from 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


@dataclass(frozen=True, slots=True)
class Within:
    """What `within` says: one of these events has to follow in time."""

    seconds: float
    events: tuple[type, ...]
    otherwise: type


@dataclass(frozen=True, slots=True)
class Times:
    """What `times` says: how often at most, and what follows then."""

    times: int
    otherwise: type


def within(time: Seconds, /, *events: type, otherwise: type) -> Within:
    """Say that one of `events` has to be heard within `time` of the reaction, and what is published if none is.

    It counts from a run that published no failure, and ends when the saga turns back or is over. `otherwise` is made
    without arguments, or by the method below `@reaction.overdue`.
    """
    seconds = duration("within", "its time", time)
    if seconds is None:
        raise DefinitionError("within(None, ...) would wait for ever. Write seconds above 0, or a timedelta.")
    if not events:
        raise DefinitionError(f"within({time!r}) expects nothing. Name the events that should follow.")
    expected = events_in("within", "events", events)
    (instead,) = events_in("within", "otherwise", (otherwise,))
    if instead in expected:
        raise DefinitionError(f"within: {instead.__name__} is expected and its own replacement. Take another event.")
    return Within(seconds, expected, instead)


def times(count: int, /, *, otherwise: type) -> Times:
    """Say how often a reaction of a cycle runs in one saga, and what is published instead of the next time."""
    if not is_whole(count):
        raise DefinitionError(f"times({count!r}) is not a whole number from 1. Write times(3, otherwise=GaveUp).")
    (instead,) = events_in("times", "otherwise", (otherwise,))
    if not makes_itself(instead):
        raise DefinitionError(f"times: {instead.__name__} can't be made without arguments. Give its fields defaults.")
    return Times(count, instead)


def makes_itself(cls: type) -> bool:
    """Whether an event can be made without arguments."""
    try:
        parameters = inspect.signature(cls).parameters.values()
    except (TypeError, ValueError):  # a class that hides its signature: trying it is for the run
        return True
    by_name = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return all(one.default is not inspect.Parameter.empty or one.kind in by_name for one in parameters)
