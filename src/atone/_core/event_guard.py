"""What one participant does with an event, given what it knows of the saga: a pure decision.

Owns the rules: nothing twice, nothing forward once the saga turned back, each run undone once, newest first, too early
is kept or refused, and what can't be right is refused aloud. Must not run a handler or read a clock. Called by what
serves participants, in the transaction that takes the event in.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from atone._core.event_map import EventMap, Handler


class Incoming(NamedTuple):
    """An event that has arrived: the id of its message, its name and the version of its fields."""

    id: str
    name: str
    version: int = 1


class Ran(NamedTuple):
    """One run of a reaction: what it ran on, and what is left of it.

    `did`: it had its effect; False if it published a failure or gave up (see `did_something`). `overdue`: what it
    expected did not come in time, and that was published.
    """

    reaction: str
    event_id: str
    did: bool = True
    undone: bool = False
    overdue: bool = False


class Known(NamedTuple):
    """What a participant knows of one saga.

    `heard` are ids and names in the order taken in, without what was deferred, ignored or refused; `ran` is in order
    too. `published` are the names of what its own handlers published, time-outs and reached bounds included.
    """

    heard: tuple[tuple[str, str], ...] = ()
    ran: tuple[Ran, ...] = ()
    published: frozenset[str] = frozenset()


class Phase(StrEnum):
    """Where a saga stands as far as one participant knows."""

    FORWARD = "forward"
    BACKWARD = "backward"
    COMPLETED = "completed"
    COMPENSATED = "compensated"


class Why(StrEnum):
    """Why an event leads to nothing."""

    DUPLICATE = "duplicate"
    LATE = "late"
    ENDED = "ended"
    UNKNOWN_EVENT = "unknown_event"
    WRONG_VERSION = "wrong_version"
    OUT_OF_ORDER = "out_of_order"
    PAST_PIVOT = "past_pivot"
    AFTER_COMPLETION = "after_completion"


class Run(NamedTuple):
    """Take it in and run these reactions, by name; none means that it only has to be remembered.

    Those in `gives_up` have reached their bound: instead of running them, publish their `at_most.otherwise`, and keep
    a `Ran` with `did=False`.
    """

    reactions: tuple[str, ...] = ()
    gives_up: tuple[str, ...] = ()


class Undoing(NamedTuple):
    """One undo to be called, for one run of its reaction."""

    undo: str
    ran: Ran


class Undo(NamedTuple):
    """Take it in, call these undos in this order, then run the reactions, by name."""

    undos: tuple[Undoing, ...]
    reactions: tuple[str, ...] = ()


class Defer(NamedTuple):
    """Not yet: keep it until the missing events have been heard here."""

    missing: tuple[str, ...]


class Ignore(NamedTuple):
    """It leads to nothing, rightly; let it be seen, and settle it."""

    why: Why


class Refuse(NamedTuple):
    """It can't be right: park it with the reason, for a person."""

    why: Why
    reason: str


Decision: TypeAlias = Run | Undo | Defer | Ignore | Refuse


class Expected(NamedTuple):
    """A run that still waits for one of `any_of`; `seconds` after it, `otherwise` is to be published."""

    ran: Ran
    any_of: tuple[str, ...]
    otherwise: str
    seconds: float


def judge(event_map: EventMap, participant: str, known: Known, event: Incoming) -> Decision:
    """Say what `participant` does with `event`. The same question always has the same answer."""
    unreadable = _unreadable(event_map, event)
    if unreadable is not None:
        return unreadable
    if any(event.id == one for one, _ in known.heard):
        return Ignore(Why.DUPLICATE)
    phase = phase_of(event_map, known)
    repeated = any(event.name == name for _, name in known.heard)
    if event.name not in event_map.backward:
        return _way_forward(event_map, participant, known, event, phase, repeated)
    impossible = _impossible(event_map, participant, known, event, phase)
    return impossible or _way_back(event_map, participant, known, event, repeated and phase is Phase.COMPENSATED)


def phase_of(event_map: EventMap, known: Known) -> Phase:
    """Return where the saga stands by what this participant heard and published."""
    names = {name for _, name in known.heard} | known.published
    if not names.isdisjoint(event_map.compensates):
        return Phase.COMPENSATED
    if not names.isdisjoint(event_map.backward):
        return Phase.BACKWARD
    return Phase.COMPLETED if not names.isdisjoint(event_map.completes) else Phase.FORWARD


def did_something(event_map: EventMap, published: Iterable[str]) -> bool:
    """Say whether a run that published these events had an effect: one that published a failure had none."""
    return event_map.failures.isdisjoint(published)


def expected(event_map: EventMap, participant: str, known: Known) -> tuple[Expected, ...]:
    """Return the runs that still wait for an event; none once the saga has turned back or is over.

    What was heard before the run answers it too, unless the run can be one of several rounds: whoever has acted on an
    event must not tell later that it did not come.
    """
    if phase_of(event_map, known) is not Phase.FORWARD:
        return ()
    waiting: list[Expected] = []
    for ran in known.ran:
        handler = event_map.by_path.get(f"{participant}.{ran.reaction}")  # None: an older version's, gone since
        expects = handler.expects if handler is not None else None
        if handler is None or expects is None or not ran.did or ran.overdue:
            continue
        answers = _heard_since(known, ran) if handler.path in event_map.looping else {name for _, name in known.heard}
        if not answers.isdisjoint(expects.any_of):
            continue
        waiting.append(Expected(ran, expects.any_of, expects.otherwise, expects.seconds))
    return tuple(waiting)


def _unreadable(event_map: EventMap, event: Incoming) -> Refuse | None:
    spec = event_map.by_name.get(event.name)
    if spec is None:
        return Refuse(
            Why.UNKNOWN_EVENT,
            f"{event_map.name} has no event {event.name!r}. Declare it, or stop publishing it into these sagas.",
        )
    if spec.version != event.version:
        return Refuse(
            Why.WRONG_VERSION,
            f"{event.name} came with version {event.version}, and this process reads version {spec.version}. "
            f"Deploy one that reads it, then give the message to it again.",
        )
    return None


def _way_forward(
    event_map: EventMap, participant: str, known: Known, event: Incoming, phase: Phase, repeated: bool
) -> Decision:
    match phase:
        case Phase.BACKWARD:
            return Ignore(Why.LATE)
        case Phase.COMPENSATED:
            return Ignore(Why.ENDED)
        case Phase.COMPLETED if repeated:
            return Ignore(Why.ENDED)
        case _:
            pass  # what is heard for the first time after the end was on its way all the while
    if repeated and event.name in event_map.starts and not event_map.makers[event.name]:
        return Ignore(Why.DUPLICATE)
    reactions = _reactions(event_map, participant, event.name)
    early = _early(known, reactions)
    if early is not None:
        return early
    ready = [one for one in reactions if _runs(known, one) < _limit(one)]
    gives_up = [one for one in reactions if _runs(known, one) == _limit(one)]
    return Run(tuple(one.name for one in ready), tuple(one.name for one in gives_up))


def _way_back(event_map: EventMap, participant: str, known: Known, event: Incoming, over: bool) -> Decision:
    undos = _undos(event_map, participant, known, event.name)
    reactions = [one for one in _reactions(event_map, participant, event.name) if _is_new(event_map, known, one, event)]
    early = _early(known, reactions)
    if early is not None:
        return early
    if over and not undos and not reactions:
        return Ignore(Why.ENDED)
    names = tuple(one.name for one in reactions)
    return Undo(undos, names) if undos else Run(names)


def _impossible(event_map: EventMap, participant: str, known: Known, event: Incoming, phase: Phase) -> Refuse | None:
    if event.name not in event_map.failures:
        return None
    pivots = {one.name for one in event_map.of(participant) if one.pivot}
    passed = next((one for one in known.ran if one.did and one.reaction in pivots), None)
    if passed is not None:
        return Refuse(
            Why.PAST_PIVOT,
            f"{event.name} came after {participant}.{passed.reaction}, the point of no return. Look at what was done "
            f"in this saga, and settle it by hand.",
        )
    if phase is Phase.COMPLETED:
        return Refuse(
            Why.AFTER_COMPLETION,
            f"{event.name} came when the saga was completed. Look at what was done in it, and settle it by hand.",
        )
    return None


def _reactions(event_map: EventMap, participant: str, name: str) -> list[Handler]:
    return [one for one in event_map.listeners[name] if one.participant == participant and one.undo_of is None]


def _undos(event_map: EventMap, participant: str, known: Known, name: str) -> tuple[Undoing, ...]:
    by_reaction = {
        one.undo_of: one.name
        for one in event_map.listeners[name]
        if one.participant == participant and one.undo_of is not None
    }
    return tuple(
        Undoing(by_reaction[ran.reaction], ran)
        for ran in reversed(known.ran)
        if ran.reaction in by_reaction and ran.did and not ran.undone
    )


def _is_new(event_map: EventMap, known: Known, reaction: Handler, event: Incoming) -> bool:
    """On the way back a reaction runs once for each event it listens to, and once for all failures together."""
    names = dict(known.heard)
    before = {names.get(ran.event_id) for ran in known.ran if ran.reaction == reaction.name}
    same = event_map.failures if event.name in event_map.failures else {event.name}
    return before.isdisjoint(same)


def _early(known: Known, reactions: Iterable[Handler]) -> Defer | Refuse | None:
    heard = {name for _, name in known.heard}
    for reaction in reactions:
        missing = tuple(name for name in reaction.after if name not in heard)
        if missing and reaction.out_of_order == "reject":
            return Refuse(
                Why.OUT_OF_ORDER,
                f"{reaction.path} comes after {', '.join(missing)}, which was not heard here. "
                f"Give the message again when it has been.",
            )
        if missing:
            return Defer(missing)
    return None


def _runs(known: Known, reaction: Handler) -> int:
    return sum(ran.reaction == reaction.name for ran in known.ran)


def _limit(reaction: Handler) -> float:
    return float("inf") if reaction.at_most is None else reaction.at_most.times


def _heard_since(known: Known, ran: Ran) -> set[str]:
    """The names heard after the event that a run ran on."""
    ids = [one for one, _ in known.heard]
    since = ids.index(ran.event_id) + 1 if ran.event_id in ids else 0
    return {name for _, name in known.heard[since:]}
