"""What a participant remembers of a saga, as text: `Known` to JSON and back, and how it grows by one event.

Owns the stored form and the bookkeeping; what to make of it is `_core.event_guard`'s to say. Must not do I/O. Used by
deliveries, time-outs and `start`.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from atone._core.event_guard import Incoming, Known, Ran
from atone.errors import StoreError

_READ = msgspec.json.Decoder(Known)


def remembered(text: str) -> Known:
    """Return what was stored; "" is a saga that nothing is known of.

    Raises:
        StoreError: It is nothing that `stored` writes.
    """
    try:
        return _READ.decode(text) if text else Known()
    except (msgspec.DecodeError, ValueError, RecursionError) as wrong:
        raise StoreError(
            f"What is remembered of the saga can't be read ({type(wrong).__name__}). Restore the row from a backup."
        ) from wrong


def stored(known: Known) -> str:
    """Return what is known as text."""
    return msgspec.json.encode(known).decode()


def with_heard(known: Known, event: Incoming) -> Known:
    """Add an event that is taken in."""
    return known._replace(heard=(*known.heard, (event.id, event.name)))


def with_run(known: Known, run: Ran, published: Iterable[str]) -> Known:
    """Add a run, and what it published."""
    return known._replace(ran=(*known.ran, run), published=known.published.union(published))


def with_undone(known: Known, run: Ran, published: Iterable[str]) -> Known:
    """Note that a run was undone, and what the undo published."""
    runs = tuple(one._replace(undone=True) if one == run else one for one in known.ran)
    return known._replace(ran=runs, published=known.published.union(published))


def with_overdue(known: Known, run: Ran, published: str) -> Known:
    """Note that what a run expected did not come in time, and what was published instead."""
    runs = tuple(one._replace(overdue=True) if one == run else one for one in known.ran)
    return known._replace(ran=runs, published=known.published | {published})
