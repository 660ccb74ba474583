"""`atone show` of a choreographed saga: its head, what its events tell in their order, and what is missing.

Owns the layout and the JSON document. A row that can't be read is told, the rest is shown all the same. Bodies stay
hidden unless asked for. Must not fold: `atone._choreography.seen` does. Called by the command of that name.
"""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text

from atone._choreography.seen import Line, Sight, is_event, sight
from atone._core.event_view import View
from atone.cli.exits import Exit, Stop
from atone.cli.listing import status_text
from atone.cli.output import Output
from atone.cli.safe import safe
from atone.cli.saga_json import Shown, payload_json, payload_text, summary_json
from atone.cli.times import age, clock, day, moment, span
from atone.store import Views

_STYLES = {
    "failure": "red",
    "back": "magenta",
    "compensates": "magenta",
    "completes": "green",
    "parked": "bold red",
    "unknown": "yellow",
}


async def look_at(views: Views, key: bytes, now: float) -> Sight:
    """Return what is kept of a choreographed saga."""
    loaded = (await views.load([key]))[0]
    if loaded is None:
        raise Stop(Exit.REFUSED, "unknown_saga", "The saga has gone meanwhile. See what there is with: atone list")
    return sight(loaded, now)


def show_sight(out: Output, found: Sight, shown: Shown, now: float) -> Exit:
    """Write a choreographed saga; REFUSED if a part of it can't be read."""
    if out.as_json:
        out.data(_document(found, shown))
    else:
        out.show(_head(found, now))
        out.say("")
        out.show(_timeline(found, shown))
    return Exit.DONE if found.trouble is None else Exit.REFUSED


# For programs


def _document(found: Sight, shown: Shown) -> dict[str, Any]:
    view = found.view
    saga = summary_json(found.summary, choreographed=True)
    return {
        "saga": saga | ({} if view is None else {"status": view.status.value}),
        "ended_at": None if view is None else view.ended_at,
        "missing": [] if view is None else [one._asdict() for one in view.missing],
        "attention": [] if view is None else list(view.attention),
        "events": [_line_json(one, shown) for one in found.lines],
        "trouble": found.trouble,
    }


def _line_json(line: Line, shown: Shown) -> dict[str, Any]:
    kept = line.kept
    said: dict[str, Any] = {"id": line.id, "at": line.at, "name": kept.name, "source": kept.source or None}
    if is_event(line):
        said |= {"version": kept.version, "cause": kept.cause or None, "body": payload_json(kept.body.encode(), shown)}
        return said
    return said | {"about": kept.about, "event": kept.event, "handler": kept.handler or None, "why": kept.why}


# For people


def _head(found: Sight, now: float) -> Table:
    saga, view = found.summary, found.view
    head = Table.grid(padding=(0, 2))
    head.add_column(style="dim", no_wrap=True)
    head.add_column(overflow="fold")
    head.add_row("saga", Text(safe(saga.saga_id), "bold"))
    whose = f"{saga.name}, version {saga.definition_version}, tenant {saga.tenant}"
    head.add_row("choreography", Text(safe(whose)))
    head.add_row("status", status_text(saga.status if view is None else view.status.value))
    head.add_row("started", f"{moment(saga.created_at)} ({age(now - saga.created_at)} ago)")
    if view is not None:
        _add_view(head, view, now)
    if found.trouble is not None:
        head.add_row("damage", Text(safe(found.trouble), "bold red"))
    return head


def _add_view(head: Table, view: View, now: float) -> None:
    for at, why in enumerate(view.attention):
        head.add_row("" if at else "attention", Text(safe(why), "red"))
    for at, one in enumerate(view.awaited):
        due = "" if one.due_at is None else f", due {moment(one.due_at)}"
        text = f"{' or '.join(one.events)} from {one.of}, for {age(max(now - one.since, 0.0))}{due}"
        head.add_row("" if at else "missing", Text(safe(text), "yellow"))


def _timeline(found: Sight, shown: Shown) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    table.add_column("TIME (UTC)", no_wrap=True)
    table.add_column("AFTER", no_wrap=True, justify="right")
    table.add_column("EVENT", overflow="fold")
    table.add_column("BY", overflow="fold")
    kinds = {} if found.view is None else {one.id: one.what for one in found.view.timeline}
    lines = sorted(found.lines, key=lambda one: (one.at, one.position))
    shown_day = ""
    for line in lines:
        today = day(line.at)
        when = clock(line.at) if today == shown_day else f"{today}\n{clock(line.at)}"
        shown_day = today
        after = f"+{span(max(line.at - lines[0].at, 0.0))}"
        table.add_row(when, after, _said(line, kinds.get(line.id, ""), shown), Text(safe(line.kept.source or "-")))
    return table


def _said(line: Line, what: str, shown: Shown) -> Text:
    kept = line.kept
    if not is_event(line):
        note = f"{kept.event} {kept.name.replace('_', ' ')}"
        return Text(safe(f"{note}: {kept.why}" if kept.why else note), "red" if kept.name == "parked" else "dim")
    text = Text(safe(kept.name), _STYLES.get(what, ""))
    if shown.payloads:
        text.append(f"\n  {safe(payload_text(kept.body.encode()))}", "dim")
    return text
