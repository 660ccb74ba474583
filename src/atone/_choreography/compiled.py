"""From participants to an event map, and beside it what the runtime needs: the user's code and types.

Owns `HandlerCode` and the way to `EventMap`. Must not judge the map, nor run a handler. Called by `whole` when a
choreography is built; the code is read by what serves participants.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from atone._choreography.annotate import Reader, Signature, done_of
from atone._choreography.declare import AnyReacting, Declared
from atone._choreography.events import spec_of
from atone._choreography.participant import Participant, name_of
from atone._core.event_map import DEFAULT_RETRY, DEFAULT_TIMEOUT_SECONDS, Bound, Expectation, Handler


@dataclass(frozen=True, slots=True)
class HandlerCode:
    """A handler with its code: call `function(participant, ctx)`, an undo `function(participant, ctx, done)`.

    `is_async`: call it on the event loop and await what it returns; otherwise in a thread. `returns` is the type that
    the result is kept as for the undo. `overdue` makes the event of a time-out, `overdue(participant, done)`; without
    it the event's class is called with nothing. `writes`: it changes rows on the connection that it is given.
    """

    spec: Handler
    function: Callable[..., Any]
    is_async: bool
    returns: Any
    overdue: Callable[..., Any] | None = None
    writes: bool = True


def handlers_of(participant: type[Participant]) -> tuple[HandlerCode, ...]:
    """Compile one participant's reactions and undos, in the order written.

    Raises:
        DefinitionError: An annotation can't be resolved, is missing, or contradicts its decorator.
    """
    reader = Reader(participant, participant.__names_around__)
    found: list[HandlerCode] = []
    for reacting in participant.__reactions__.values():
        found += _reaction(name_of(participant), reader, reacting)
    return tuple(found)


def events_of(participants: Iterable[type[Participant]]) -> list[type]:
    """Return all events that participants name, in the order they are named."""
    found: dict[type, None] = {}
    for participant in participants:
        for reacting in participant.__reactions__.values():
            for said in filter(None, (reacting.declared, reacting.undone_by)):
                found |= dict.fromkeys(_named(said))
    return list(found)


def _named(said: Declared) -> Iterable[type]:
    yield from (*said.listens, *said.after, *said.emits)
    if said.expects is not None:
        yield from (*said.expects.events, said.expects.otherwise)
    if said.at_most is not None:
        yield said.at_most.otherwise


def _reaction(participant: str, reader: Reader, reacting: AnyReacting) -> list[HandlerCode]:
    said, undo = reacting.declared, reacting.undone_by
    signature = reader.reaction(said)
    found = [_code(participant, reacting.name, said, signature, overdue=said.overdue)]
    done = done_of(signature.returns)
    if said.overdue is not None:
        reader.overdue(reacting, said.overdue, done)
    if undo is not None:
        found.append(_code(participant, undo.name, undo, reader.undo(reacting, undo, done), undo_of=reacting.name))
    return found


def _code(
    participant: str,
    name: str,
    said: Declared,
    signature: Signature,
    *,
    undo_of: str | None = None,
    overdue: Callable[..., Any] | None = None,
) -> HandlerCode:
    spec = Handler(
        participant=participant,
        name=name,
        listens=_names(said.listens),
        emits=_names(said.emits),
        outcomes=signature.outcomes,
        undo_of=undo_of,
        after=_names(said.after),
        out_of_order=said.out_of_order,
        pivot=said.pivot,
        no_undo=said.no_undo,
        expects=_expectation(said),
        at_most=None if said.at_most is None else Bound(said.at_most.times, spec_of(said.at_most.otherwise).name),
        retry=said.retry or DEFAULT_RETRY,
        timeout_seconds=said.timeout_seconds or DEFAULT_TIMEOUT_SECONDS,
    )
    return HandlerCode(spec, said.function, signature.is_async, signature.returns, overdue, said.writes)


def _expectation(said: Declared) -> Expectation | None:
    if said.expects is None:
        return None
    return Expectation(said.expects.seconds, _names(said.expects.events), spec_of(said.expects.otherwise).name)


def by_name(handlers: Iterable[HandlerCode]) -> Mapping[str, HandlerCode]:
    """Return a participant's handlers by the name of their method."""
    return {one.spec.name: one for one in handlers}


def _names(classes: Iterable[type]) -> tuple[str, ...]:
    return tuple(spec_of(one).name for one in classes)
