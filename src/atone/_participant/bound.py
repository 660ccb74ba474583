"""One participant's object in one choreography, ready to be called: its handlers, its events' types, its keys.

Owns how an event's body becomes a value and back, how a handler's result is kept for its undo, and idempotency keys.
Must not do I/O. Made by `atone.serving`; used by deliveries, time-outs, commands and `start`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import msgspec

from atone._choreography.compiled import HandlerCode
from atone._choreography.events import is_event, spec_of
from atone._choreography.participant import Participant, name_of
from atone._core.event_map import EventMap, EventSpec, Handler
from atone._core.keys import part_of_saga, part_of_step
from atone._messaging.events import Event
from atone.codec import Codec
from atone.errors import MessageError, PayloadError

if TYPE_CHECKING:
    from atone._choreography.whole import Choreography


class Said(msgspec.Struct, frozen=True):
    """One event that a handler returned, as its result is kept: JSON in `body`."""

    name: str
    version: int
    body: str


class Kept(msgspec.Struct, frozen=True):
    """A handler's result as it is kept for the undo: None, one event, or several together."""

    events: tuple[Said, ...] = ()
    is_many: bool = False


class Types:
    """The events of a choreography as types: to bytes and back."""

    def __init__(self, choreography: Choreography, codec: Codec) -> None:
        self._types = choreography.event_types
        self._codec = codec
        self._plain = codec.plain
        self.map: EventMap = choreography.event_map

    def value(self, name: str, body: bytes, saga_id: str) -> Any:
        """Return the value that a body holds. Raises MessageError if it is none of its type."""
        try:
            return self._codec.schema(self._types[name]).decode(body, self._context(name, saga_id))
        except PayloadError as wrong:
            raise MessageError(f"The body of {name} can't be read: {wrong}") from wrong

    def plain(self, name: str, body: bytes) -> Any:
        """Return the value of a command's body, which is never encrypted. Raises MessageError as `value`."""
        try:
            return self._plain.schema(self._types[name]).decode(body)
        except PayloadError as wrong:
            raise MessageError(f"The body of {name} can't be read: {wrong}") from wrong

    def bare(self, name: str, body: bytes, saga_id: str) -> bytes:
        """Return a body as JSON that is not encrypted, as a reply is sent."""
        return self._codec.unseal(body, self._context(name, saga_id))

    def body(self, value: Any, saga_id: str) -> tuple[EventSpec, bytes]:
        """Return what an event is called, and its body.

        Raises:
            PayloadError: It does not survive the trip, or is no event of this choreography.
        """
        kind = kind_of(value)
        if not is_event(kind) or self._types.get(spec_of(kind).name) is not kind:
            raise PayloadError(
                f"{kind.__qualname__} is no event of {self.map.name}. Return one that is declared there."
            )
        spec = spec_of(kind)
        return spec, self._codec.schema(kind).encode(value, self._context(spec.name, saga_id))

    def make(self, name: str) -> Any:
        """Return an event that is made without arguments."""
        return self._types[name]()

    def _context(self, name: str, saga_id: str) -> bytes:
        return f"{self.map.name}/{saga_id}/{name}".encode()


class Bound:
    """A participant's object and its part of the choreography."""

    def __init__(self, choreography: Choreography, participant: Participant, codec: Codec) -> None:
        self.object = participant
        self.name = name_of(type(participant))
        self.types = Types(choreography, codec)
        self.map: EventMap = choreography.event_map
        self.code: Mapping[str, HandlerCode] = choreography.handlers[self.name]
        self.group = group_of(self.map, self.name)
        # Functions that were seen to write on the connection that they are given: none moves to another one later.
        self.proven: set[Any] = set()

    def spec(self, handler: str) -> Handler:
        """Return what is declared of a handler."""
        return self.code[handler].spec

    def key(self, event: Event, handler: str, cause: str, operation: str) -> str:
        """Return the idempotency key of a handler's run on the event with id `cause`: the same at each repeat.

        Parts are length-prefixed, so that no two runs ever share one.
        """
        whose = part_of_step(self.name, handler)
        saga = part_of_saga(event.tenant, self.map.name, event.saga_id)
        return f"{saga}.{whose}.{part_of_step(cause, operation)}"

    def by_path(self, path: str) -> Handler:
        """Return what is declared of `participant.handler`."""
        return self.map.by_path[path]

    def emitted(self, handler: Handler, result: Any) -> Sequence[Any]:
        """Return the events of a handler's result.

        Raises:
            PayloadError: One of them is not among those that it declares.
        """
        events = _events_in(result)
        for value in events:
            kind = kind_of(value)
            if not is_event(kind) or spec_of(kind).name not in handler.emits:
                declared = ", ".join(handler.emits) or "nothing"
                raise PayloadError(
                    f"{handler.path} returned a {kind.__qualname__}, but declares that it emits {declared}. Nothing "
                    "was written. Return what is declared, or add it to emits=."
                )
        return events

    def keep(self, result: Any, saga_id: str) -> Kept:
        """Return a result as it is kept."""
        said: list[Said] = []
        for value in _events_in(result):
            spec, body = self.types.body(value, saga_id)
            said.append(Said(spec.name, spec.version, body.decode()))
        return Kept(tuple(said), isinstance(result, list | tuple))

    def result(self, kept: Kept, saga_id: str) -> Any:
        """Return the result that was kept."""
        values = tuple(self.types.value(one.name, one.body.encode(), saga_id) for one in kept.events)
        if kept.is_many:
            return values
        return values[0] if values else None

    def tells_of_failure(self, result: Any) -> bool:
        """Whether a handler's result is, or holds, a failure event."""
        kinds: list[type[Any]] = [type(one) for one in _events_in(result)]
        return any(is_event(kind) and spec_of(kind).failure for kind in kinds)

    def has_failed(self, kept: Kept) -> bool:
        """Whether a result tells of a failure, so that there is nothing to undo."""
        return any(one.name in self.map.failures for one in kept.events)


def group_of(events: EventMap, participant: str) -> str:
    """Return the group in which the processes of one participant share the choreography's events."""
    return f"{events.name}.{participant}"


def kind_of(value: object) -> type:
    """Return a value's class; `type(value)` of what may be anything is nothing that type checkers know."""
    return type(value)


def _events_in(result: Any) -> tuple[Any, ...]:
    if result is None:
        return ()
    return tuple(cast("Sequence[Any]", result)) if isinstance(result, list | tuple) else (result,)
