"""Who waits for messages in this process is told at once when something may have come; another process has to look.

Owns nothing that matters: whoever hears nothing looks a little later. Must not carry a message. Called by the embedded
broker.
"""

from __future__ import annotations

import asyncio
import threading

_gate = threading.Lock()
_waiting: dict[str, dict[asyncio.Event, asyncio.AbstractEventLoop]] = {}


def listen(place: str, event: asyncio.Event) -> None:
    """Have an event of this loop set whenever something may have come to a place."""
    with _gate:
        _waiting.setdefault(place, {})[event] = asyncio.get_running_loop()


def forget(place: str, event: asyncio.Event) -> None:
    """Stop that."""
    with _gate:
        listeners = _waiting.get(place, {})
        listeners.pop(event, None)
        if not listeners:
            _waiting.pop(place, None)


def is_awaited(place: str) -> bool:
    """Whether anybody waits for a place."""
    return place in _waiting


def tell(place: str) -> None:
    """Set the events of all who wait for a place."""
    with _gate:
        listeners = list(_waiting.get(place, {}).items())
    for event, loop in listeners:
        try:
            loop.call_soon_threadsafe(event.set)
        except RuntimeError:  # that loop is closed: nobody waits any more
            pass
