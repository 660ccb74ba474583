"""What a saga view keeps of a message, and the view that is folded of what was kept.

Owns the stored form of an event and of a participant's note, a stored format: JSON with short names. Must not fold by
itself (`_core.event_view` does), and must not show a body that nobody asked for. Used by the saga view, which writes
it, and by the command line, which reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from atone._core.event_map import EventMap
from atone._core.event_view import GRACE_SECONDS, Parked, Seen, View, view
from atone._messaging import headers
from atone._messaging.events import Event
from atone.errors import CorruptJournal, MessageError
from atone.store import Loaded, Row, Summary


class Kept(msgspec.Struct, frozen=True, omit_defaults=True):
    """An event, or with `about` a participant's note on the event of that id. `body` is the event's, as text."""

    name: str
    source: str = ""
    cause: str = ""
    version: int = 1
    body: str = ""
    kind: str = headers.EVENT
    about: str = ""
    event: str = ""
    handler: str = ""
    why: str = ""


class Note(msgspec.Struct, frozen=True):
    """The body of a participant's note."""

    event: str
    handler: str = ""
    why: str = ""


class Line(NamedTuple):
    """One stored row, read."""

    position: int
    at: float
    id: str
    kept: Kept


class Sight(NamedTuple):
    """A choreographed saga as far as it can be read. `map` and `view` are None if its map can't be told."""

    summary: Summary
    map: EventMap | None
    view: View | None
    lines: tuple[Line, ...]
    trouble: str | None = None


def kept_of(event: Event) -> bytes:
    """Return what is kept of an event or a note.

    Raises:
        MessageError: It is a note without a note's body.
    """
    name, source, cause = _plain(event.name), _plain(event.source), _plain(event.cause)
    if event.kind == headers.LIFECYCLE:
        note = _note_of(event.body)
        made = Kept(name, source, kind=event.kind, about=cause, event=note.event, handler=note.handler, why=note.why)
    else:
        body = event.body.decode("utf-8", "replace")
        made = Kept(name, source, cause, event.version, body, _plain(event.kind))
    return msgspec.json.encode(made)


def _plain(text: str) -> str:
    """Return a text that somebody else has set, as JSON can hold it: a broker may carry lone surrogates."""
    return text.encode("utf-8", "backslashreplace").decode()


def _note_of(body: bytes) -> Note:
    try:
        return msgspec.json.decode(body, type=Note)
    except (msgspec.DecodeError, ValueError, RecursionError) as wrong:
        raise MessageError(f"A note whose body is none ({type(wrong).__name__}). See who publishes notes.") from wrong


def sight(loaded: Loaded, now: float, grace_seconds: float = GRACE_SECONDS) -> Sight:
    """Return what can be seen of a saga that a view keeps; what can't be read is told."""
    lines: list[Line] = []
    torn: list[str] = []
    for row in loaded.rows:
        try:
            lines.append(_line(row))
        except CorruptJournal as wrong:
            torn.append(str(wrong))
    event_map: EventMap | None = None
    try:
        event_map = EventMap.from_json(loaded.plan or "")
    except ValueError:
        torn.append("Its event map is missing from the store; start a saga view that has it.")
    found = None if event_map is None else fold(event_map, lines, now, grace_seconds)
    return Sight(loaded.summary, event_map, found, tuple(lines), " ".join(torn) or None)


def fold(event_map: EventMap, lines: Sequence[Line], now: float, grace_seconds: float = GRACE_SECONDS) -> View:
    """Return the view of what was kept."""
    seen = [Seen(one.id, one.kept.name, one.at, one.kept.source, one.kept.cause) for one in lines if is_event(one)]
    return view(event_map, seen, _parked(lines), now=now, grace_seconds=grace_seconds)


def is_event(line: Line) -> bool:
    """Whether a row is of an event, and not of a note."""
    return line.kept.kind == headers.EVENT


def _parked(lines: Sequence[Line]) -> list[Parked]:
    """Return what is parked still: a message that was taken in later is not."""
    taken = {(one.kept.source, one.kept.about) for one in lines if one.kept.name == "taken_in" and not is_event(one)}
    return [
        Parked(one.kept.about, one.kept.event, one.kept.source, one.kept.why, one.at)
        for one in lines
        if one.kept.name == "parked" and not is_event(one) and (one.kept.source, one.kept.about) not in taken
    ]


def _line(row: Row) -> Line:
    try:
        return Line(row.version, row.at, row.commit_id.decode(), msgspec.json.decode(row.entries, type=Kept))
    except (msgspec.DecodeError, ValueError, RecursionError) as wrong:
        raise CorruptJournal(f"Event row {row.version} can't be read ({type(wrong).__name__}).") from wrong
