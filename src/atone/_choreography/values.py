"""What a reaction is handed: one frozen value.

Owns `Reaction`. It holds no behaviour, so a unit test makes one by hand. Filled in by what serves a participant.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from msgspec import Struct

E_co = TypeVar("E_co", covariant=True)

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Reaction(Struct, Generic[E_co], frozen=True):
    """Tell one run of a reaction, or of an undo, what it works for.

    `connection` is the service's own, inside the transaction that also takes the event in and holds what is published:
    change rows on it and on nothing else, and don't commit. `idempotency_key` belongs to this reaction and this event,
    every repeat has the same. `attempt` counts from 1. `trace_headers` is the W3C trace context to send along.
    """

    event: E_co
    saga_id: str
    event_id: str
    connection: Any = None
    idempotency_key: str = ""
    attempt: int = 1
    trace_headers: Mapping[str, str] = _NO_HEADERS
    tenant: str = "default"
