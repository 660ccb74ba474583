"""Events as messages: what a choreography's event carries beside its body, and how it is read back.

Owns which headers an event has, its topic, key and id, and what makes a message no event of a choreography. Must
not decode a body: whoever knows the event's type does. Used by participants, by the timer and by the saga view.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import NamedTuple

from atone._core.keys import part_of_saga
from atone._messaging import headers as names
from atone._runtime.arguments import ID_LENGTH_MAX, is_name
from atone._runtime.trace_context import TraceContext, read_headers
from atone.broker import Message
from atone.errors import MessageError
from atone.machine import machine

DEFAULT_TENANT = "default"

_VERSION_MAX = 1_000_000


class Event(NamedTuple):
    """An event of a choreographed saga, its body still as bytes.

    `cause` is the id of the message that led to it, "" if a caller did; `at` is when it was written, epoch seconds.
    """

    id: str
    name: str
    version: int
    choreography: str
    saga_id: str
    body: bytes
    cause: str = ""
    source: str = ""
    at: float = 0.0
    trace: TraceContext | None = None
    kind: str = names.EVENT
    tenant: str = DEFAULT_TENANT


def saga_key(tenant: str, choreography: str, saga_id: str) -> str:
    """Return what messages of one saga have in common, so that they are published in order."""
    return part_of_saga(tenant, choreography, saga_id)


def event_id(*origin: str) -> str:
    """Return an event's id, made of what it comes of: the same whenever that is done again."""
    return sha256("".join(f"{len(part)}-{part}." for part in origin).encode()).hexdigest()[:40]


def to_message(event: Event) -> Message:
    """Return the message that carries an event."""
    carried = {
        names.KIND: event.kind,
        names.NAME: event.name,
        names.VERSION: str(event.version),
        names.TENANT: event.tenant,
        names.SAGA: event.choreography,
        names.SAGA_ID: event.saga_id,
        names.CAUSE: event.cause,
        names.SOURCE: event.source,
        names.AT: f"{event.at or machine().time():.6f}",
    }
    if event.trace is not None:
        carried.update(event.trace.headers)
    return Message(event.id, event.name, saga_key(event.tenant, event.choreography, event.saga_id), event.body, carried)


def from_message(message: Message, choreography: str) -> Event | None:
    """Return the event that a message carries; None if it is one of another choreography.

    A message that Atone has not written is an event of its topic, version 1, if a header names the saga.

    Raises:
        MessageError: It names no saga, or no version.
    """
    carried = message.headers
    if carried.get(names.SAGA, choreography) != choreography:
        return None
    saga_id = carried.get(names.SAGA_ID, "")
    if not is_name(saga_id):
        raise MessageError(f"The message names no saga. Whoever sends {message.topic} sets the header {names.SAGA_ID}.")
    name, tenant = carried.get(names.NAME, message.topic), carried.get(names.TENANT, DEFAULT_TENANT)
    for what, given in (("id", message.id), ("event's name", name), ("tenant", tenant)):
        if not is_name(given):  # it could not even be written down that this failed
            raise MessageError(f"The message's {what} is no text of 1 to {ID_LENGTH_MAX} characters without NUL.")
    return Event(
        id=message.id,
        name=name,
        version=_version(carried),
        choreography=choreography,
        saga_id=saga_id,
        body=message.body,
        cause=carried.get(names.CAUSE, ""),
        source=carried.get(names.SOURCE, ""),
        at=_at(carried),
        trace=read_headers(carried),
        kind=carried.get(names.KIND, names.EVENT),
        tenant=tenant,
    )


def _version(carried: Mapping[str, str]) -> int:
    text = carried.get(names.VERSION, "1")
    if not (text.isascii() and text.isdigit() and len(text) <= 7 and 1 <= int(text) <= _VERSION_MAX):
        raise MessageError(f"The header {names.VERSION} is no version. It is a whole number from 1.")
    return int(text)


def _at(carried: Mapping[str, str]) -> float:
    try:
        at = float(carried.get(names.AT, "0"))
    except ValueError:
        return 0.0
    return at if 0 <= at < 1e11 else 0.0
