"""A choreography compiled to data: which events there are, who listens to them, what that makes, what undoes what.

Owns the shape and what can be read off it without walking it: who hears what, which events belong to the way back.
Must not judge it (`event_checks` does) nor say what to do with an event (`event_guard` does). Frozen, hashable, JSON.
Made by `atone.choreography`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from hashlib import sha256

from atone._core.retry import Retry
from atone._core.stored import known_fields

DEFAULT_TIMEOUT_SECONDS = 30.0
DEFAULT_RETRY = Retry(attempts=20, initial=0.5, factor=2.0, maximum=300.0)
DEFAULT_DEADLINE_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class EventSpec:
    """One event: its name is its topic; `failure` means that what was done before it must be undone.

    `type_name` is what the code calls it, for messages only.
    """

    name: str
    version: int = 1
    failure: bool = False
    type_name: str = ""


@dataclass(frozen=True, slots=True)
class Expectation:
    """One of `any_of` has to be heard within `seconds` after the reaction; else `otherwise` is published."""

    seconds: float
    any_of: tuple[str, ...]
    otherwise: str


@dataclass(frozen=True, slots=True)
class Bound:
    """How often a reaction runs in one saga; the next time `otherwise` is published instead."""

    times: int
    otherwise: str


@dataclass(frozen=True, slots=True)
class Handler:
    """A reaction, or the undo of one (`undo_of` names it), as data. Events are named by their names.

    `outcomes` are the sets of events that one run may publish, each a possible end of it; an empty set publishes
    nothing. `after`: what must have been heard here before. `out_of_order` says what becomes of an event that comes
    too early: "defer" or "reject". `no_undo` is the reason why there is nothing to undo.
    """

    participant: str
    name: str
    listens: tuple[str, ...]
    emits: tuple[str, ...] = ()
    outcomes: tuple[tuple[str, ...], ...] = ((),)
    undo_of: str | None = None
    after: tuple[str, ...] = ()
    out_of_order: str = "defer"
    pivot: bool = False
    no_undo: str | None = None
    expects: Expectation | None = None
    at_most: Bound | None = None
    retry: Retry = DEFAULT_RETRY
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS

    @property
    def path(self) -> str:
        """Participant and handler in one word: `inventory.reserve`."""
        return f"{self.participant}.{self.name}"

    @property
    def makes(self) -> tuple[str, ...]:
        """All events that can come of it, those of a time-out or a reached bound included."""
        more = [one.otherwise for one in (self.expects, self.at_most) if one is not None]
        return tuple(dict.fromkeys([*self.emits, *more]))

    @property
    def needs(self) -> tuple[str, ...]:
        """All events that it has to hear of: those it runs on, follows, or waits for."""
        awaited = self.expects.any_of if self.expects else ()
        return tuple(dict.fromkeys([*self.listens, *self.after, *awaited]))


# What a change of does not strand a saga in flight, so it stays out of the hash.
_TUNABLE = frozenset({"retry", "timeout_seconds", "no_undo", "outcomes"})


@dataclass(frozen=True)
class EventMap:
    """A choreography as data. `starts` begin a saga, `completes` and `compensates` end it.

    `deadline_seconds` after its first event a saga that has not ended is reported as in need of attention.
    """

    name: str
    version: int = 1
    events: tuple[EventSpec, ...] = ()
    participants: tuple[str, ...] = ()
    handlers: tuple[Handler, ...] = ()
    starts: tuple[str, ...] = ()
    completes: tuple[str, ...] = ()
    compensates: tuple[str, ...] = ()
    deadline_seconds: float = field(default=DEFAULT_DEADLINE_SECONDS)

    @cached_property
    def by_name(self) -> dict[str, EventSpec]:
        """The events by name."""
        return {event.name: event for event in self.events}

    @cached_property
    def by_path(self) -> dict[str, Handler]:
        """The handlers by `participant.name`."""
        return {handler.path: handler for handler in self.handlers}

    @cached_property
    def undos(self) -> dict[str, Handler]:
        """The undo of each reaction that has one, by the reaction's path."""
        return {f"{one.participant}.{one.undo_of}": one for one in self.handlers if one.undo_of is not None}

    @cached_property
    def failures(self) -> frozenset[str]:
        """The failure events."""
        return frozenset(event.name for event in self.events if event.failure)

    @cached_property
    def makers(self) -> dict[str, tuple[Handler, ...]]:
        """Which handlers can publish an event, by its name."""
        return {one.name: tuple(h for h in self.handlers if one.name in h.makes) for one in self.events}

    @cached_property
    def listeners(self) -> dict[str, tuple[Handler, ...]]:
        """Which handlers run on an event, by its name."""
        return {one.name: tuple(h for h in self.handlers if one.name in h.listens) for one in self.events}

    @cached_property
    def backward(self) -> frozenset[str]:
        """The events that belong to the way back, and to nothing else.

        They are the failures, the compensating ends, and what only undos and handlers of such events publish.
        """
        found = set(self.failures) | set(self.compensates)
        grown = True
        while grown:
            more = {
                event.name
                for event in self.events
                if event.name not in found
                and event.name not in self.starts
                and self.makers[event.name]
                and all(one.undo_of is not None or found.issuperset(one.listens) for one in self.makers[event.name])
            }
            found |= more
            grown = bool(more)
        return frozenset(found)

    @cached_property
    def looping(self) -> frozenset[str]:
        """The paths of handlers that can lead to themselves, with a bound or without."""
        return cycles(self)

    def of(self, participant: str) -> tuple[Handler, ...]:
        """Return the handlers of one participant, in the order written."""
        return tuple(handler for handler in self.handlers if handler.participant == participant)

    def hears(self, participant: str) -> tuple[str, ...]:
        """Return the events that a participant subscribes to.

        Besides what its handlers need these are all failures and ends, so that it knows what comes too late.
        """
        needed: set[str] = {name for handler in self.of(participant) for name in handler.needs}
        needed |= {*self.failures, *self.completes, *self.compensates}
        return tuple(event.name for event in self.events if event.name in needed)

    def publishes(self, participant: str) -> tuple[str, ...]:
        """Return the events that a participant's handlers can publish."""
        made = {name for handler in self.of(participant) for name in handler.makes}
        return tuple(event.name for event in self.events if event.name in made)

    @cached_property
    def map_hash(self) -> str:
        """A digest of names, versions and edges; retries and time-outs of calls may change under sagas in flight."""
        plain = asdict(self) | {
            "events": [(one.name, one.version, one.failure) for one in self.events],
            "handlers": [{k: v for k, v in asdict(one).items() if k not in _TUNABLE} for one in self.handlers],
        }
        del plain["deadline_seconds"]
        return sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:32]

    def __hash__(self) -> int:
        """Hash by what identifies a map."""
        return hash((self.name, self.version, self.map_hash))

    def to_json(self) -> str:
        """Return the whole map as JSON text."""
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> EventMap:
        """Rebuild a map from `to_json`; unknown keys of a newer release are ignored.

        Raises:
            ValueError: The text is not a map.
        """
        try:
            known = known_fields(EventMap, json.loads(text))
            known["events"] = tuple(EventSpec(**known_fields(EventSpec, one)) for one in known["events"])
            known["handlers"] = tuple(_handler_from(one) for one in known["handlers"])
            for key in ("participants", "starts", "completes", "compensates"):
                known[key] = tuple(known[key])
            return _whole(EventMap(**known))
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as wrong:
            raise ValueError(f"The stored event map can't be read ({wrong}); it was not written by Atone.") from wrong


def cycles(event_map: EventMap, *, bounded: bool = True) -> frozenset[str]:
    """Return the paths of handlers that can lead to themselves; `bounded=False` leaves out those with a bound."""
    among = [one for one in event_map.handlers if bounded or one.at_most is None]
    follows = {one.path: {other.path for other in among if set(one.makes) & set(other.listens)} for one in among}
    return frozenset(path for path in follows if path in _reach(follows, path))


def _reach(follows: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = list(follows[start])
    while waiting:
        path = waiting.pop()
        if path not in seen:
            seen.add(path)
            waiting += follows[path]
    return seen


def _handler_from(found: object) -> Handler:
    known = known_fields(Handler, found)
    for key in ("listens", "emits", "after"):
        known[key] = tuple(known[key])
    known["outcomes"] = tuple(_names(one) for one in known["outcomes"])
    known["retry"] = Retry(**known_fields(Retry, known["retry"]))
    if known["expects"] is not None:
        expects = known_fields(Expectation, known["expects"])
        expects["any_of"] = tuple(expects["any_of"])
        known["expects"] = Expectation(**expects)
    if known["at_most"] is not None:
        known["at_most"] = Bound(**known_fields(Bound, known["at_most"]))
    return Handler(**known)


def _whole(event_map: EventMap) -> EventMap:
    """Return a map whose handlers name events and reactions that it has; whoever walks it relies on that."""
    for one in event_map.handlers:
        missing = {*one.needs, *one.makes} - event_map.by_name.keys()
        if one.undo_of is not None:
            missing |= {f"{one.participant}.{one.undo_of}"} - event_map.by_path.keys()
        if missing:
            raise ValueError(f"{one.path} names what is not there: {', '.join(sorted(missing))}")
    missing = {*event_map.starts, *event_map.completes, *event_map.compensates} - event_map.by_name.keys()
    if missing:
        raise ValueError(f"it begins or ends with events that are not there: {', '.join(sorted(missing))}")
    return event_map


def _names(found: Iterable[str]) -> tuple[str, ...]:
    return tuple(found)
