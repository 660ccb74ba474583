"""What a participant sends: the events of a handler, and notes for the saga view about what it did not do.

Owns their ids, which are the same at each repeat, and that they go into the outbox of the same transaction. Must not
publish. Used by deliveries, time-outs and `start`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from atone._messaging import headers
from atone._messaging.events import Event, event_id, saga_key, to_message
from atone._participant.bound import Types
from atone._participant.tables import ServiceTables
from atone.broker import Message

TEXT_CHARACTERS_MAX = 2000


def notes_topic(choreography: str) -> str:
    """Return where participants say what they did not do, for whoever shows sagas."""
    return f"atone.{choreography}.notes"


class Sending:
    """Write messages of one participant into its outbox."""

    def __init__(self, types: Types, source: str, tables: ServiceTables) -> None:
        self._types, self._source, self._tables = types, source, tables

    async def events(
        self, connection: Any, cause: Event, origin: Sequence[str], values: Sequence[Any]
    ) -> tuple[str, ...]:
        """Write events, and return their names. `origin` tells what they come of, within the saga."""
        messages: list[Message] = []
        names: list[str] = []
        for at, value in enumerate(values):
            spec, body = self._types.body(value, cause.saga_id)
            made = cause._replace(
                id=event_id(cause.tenant, cause.choreography, cause.saga_id, self._source, *origin, str(at), spec.name),
                name=spec.name,
                version=spec.version,
                body=body,
                cause=cause.id,
                source=self._source,
                at=0.0,
                kind=headers.EVENT,
            )
            messages.append(to_message(made))
            names.append(spec.name)
        await self._tables.outbox.add(connection, messages)
        return tuple(names)

    async def note(self, connection: Any, kind: str, about: Event, handler: str, why: str) -> None:
        """Write a note: `kind` is ignored, parked or taken_in."""
        body = {"event": about.name, "handler": handler, "why": why[:TEXT_CHARACTERS_MAX]}
        made = about._replace(
            id=event_id("note", kind, about.id, self._source, handler),
            name=kind,
            version=1,
            body=msgspec.json.encode(body),
            cause=about.id,
            source=self._source,
            at=0.0,
            kind=headers.LIFECYCLE,
        )
        key = saga_key(about.tenant, about.choreography, about.saga_id)
        message = to_message(made)._replace(topic=notes_topic(about.choreography), key=key)
        await self._tables.outbox.add(connection, [message])
