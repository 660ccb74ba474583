"""An event map as a Mermaid flowchart: events between the participants' handlers, the way back dashed.

Owns the picture only. Drawn from data alone, so a stored map can be drawn as well. Called by `Choreography.mermaid`.
"""

from __future__ import annotations

from collections.abc import Iterator

from atone._core.event_map import EventMap, EventSpec, Handler
from atone._define.draw import escaped

_STYLES = (
    "classDef pivot stroke-width:4px",
    "classDef failure stroke-width:2px,stroke-dasharray:2 2",
    "classDef finish stroke-width:4px",
    "classDef undo stroke-dasharray:6 4",
)


def draw(event_map: EventMap) -> str:
    """Return Mermaid text; ends without a line break."""
    lines = ["flowchart LR"]
    events = {event.name: f"e{at}" for at, event in enumerate(event_map.events)}
    handlers = {handler.path: f"h{at}" for at, handler in enumerate(event_map.handlers)}
    lines += [f"    {events[event.name]}{_event(event_map, event)}" for event in event_map.events]
    for at, participant in enumerate(event_map.participants):
        lines.append(f'    subgraph p{at}["{escaped(participant)}"]')
        lines += [f"        {handlers[one.path]}{_handler(one)}" for one in event_map.of(participant)]
        lines.append("    end")
    for handler in event_map.handlers:
        lines += [f"    {edge}" for edge in _edges(handler, events, handlers)]
    return "\n".join([*lines, *(f"    {style}" for style in _STYLES)])


def _event(event_map: EventMap, event: EventSpec) -> str:
    version = f" v{event.version}" if event.version > 1 else ""
    label = escaped(event.name + version)
    if event.name in event_map.starts:
        return f'(["{label}<br/>starts"])'
    if event.name in event_map.completes:
        return f'(["{label}<br/>completes"]):::finish'
    if event.name in event_map.compensates:
        return f'(["{label}<br/>compensates"]):::finish'
    return f'(["{label}"]):::failure' if event.failure else f'(["{label}"])'


def _handler(handler: Handler) -> str:
    remarks = [f"undoes {handler.undo_of}"] if handler.undo_of else []
    if handler.pivot:
        remarks.append("pivot")
    if handler.at_most is not None:
        remarks.append(f"at most {handler.at_most.times} times")
    label = "<br/>".join(escaped(one) for one in (handler.name, *remarks))
    if handler.pivot:
        return f'{{{{"{label}"}}}}:::pivot'
    return f'["{label}"]' + (":::undo" if handler.undo_of else "")


def _edges(handler: Handler, events: dict[str, str], handlers: dict[str, str]) -> Iterator[str]:
    mine = handlers[handler.path]
    arrow = "-.->" if handler.undo_of else "-->"
    yield from (f"{events[name]} {arrow} {mine}" for name in handler.listens)
    yield from (f'{events[name]} -->|"before"| {mine}' for name in handler.after)
    yield from (f"{mine} {arrow} {events[name]}" for name in handler.emits)
    if handler.undo_of:
        yield f"{handlers[f'{handler.participant}.{handler.undo_of}']} -.- {mine}"
    if handler.expects is not None:
        late = f"{handler.expects.seconds:g} s without {' or '.join(handler.expects.any_of)}"
        yield f'{mine} -.->|"{escaped(late)}"| {events[handler.expects.otherwise]}'
    if handler.at_most is not None:
        yield f'{mine} -.->|"{escaped("after that")}"| {events[handler.at_most.otherwise]}'
