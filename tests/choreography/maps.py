"""Event maps written in a few words, for tests of the rules about them.

Owns the short form: `handler("inventory.reserve", on="order.placed", to="stock.reserved|stock.out")`, where `|` is a
choice and `+` goes out together. Failure events are those whose names begin with `no.`.
"""

from __future__ import annotations

from typing import Any

from atone._core.event_map import EventMap, EventSpec, Handler


def handler(path: str, on: str, to: str = "", **more: Any) -> Handler:
    """Make a handler; `on` and `to` are names with blanks between them, or `|` and `+`."""
    participant, name = path.split(".")
    outcomes = tuple(tuple(one.split("+")) if one else () for one in to.split("|"))
    emits = tuple(dict.fromkeys(name for outcome in outcomes for name in outcome))
    return Handler(participant, name, tuple(on.split()), emits, outcomes, **more)


def undo(path: str, of: str, on: str, to: str) -> Handler:
    """Make the undo of a reaction of the same participant."""
    return handler(path, on, to, undo_of=of)


def the_map(*handlers: Handler, starts: str = "a", completes: str = "z", compensates: str | None = None) -> EventMap:
    """Put handlers together; the events are those that they name. "undone" ends a saga if anybody publishes it."""
    if compensates is None:
        compensates = "undone" if any("undone" in one.makes for one in handlers) else ""
    named = [name for one in handlers for name in (*one.needs, *one.makes)]
    names = dict.fromkeys([*starts.split(), *named, *completes.split(), *compensates.split()])
    return EventMap(
        name="sample",
        events=tuple(EventSpec(name, failure=name.startswith("no.")) for name in names),
        participants=tuple(dict.fromkeys(one.participant for one in handlers)),
        handlers=handlers,
        starts=tuple(starts.split()),
        completes=tuple(completes.split()),
        compensates=tuple(compensates.split()),
    )
