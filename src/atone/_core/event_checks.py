"""What is wrong with a choreography as a whole: each finding with a code, the place, and the line to add.

Owns the rules that no participant can see alone: who hears what, whether every failure undoes what was done before it,
whether every way ends. Must not raise; whoever asked does. Called when a choreography is built, and by `atone check`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from atone._core.event_map import EventMap, Handler, cycles
from atone._core.event_worlds import WORLDS_MAX, World, worlds

CODES = (
    "duplicate_event", "duplicate_participant", "no_start", "no_end", "no_compensating_end", "failure_as_end",
    "nobody_listens", "nobody_emits", "silent_undo", "undo_fails", "undo_on_the_way_forward", "undo_waits", "both_ways",
    "unbounded_cycle", "no_undo", "failure_misses_undo", "failure_after_pivot", "never_completes", "never_compensates",
    "ends_twice", "timeout_meets_pivot", "never_runs", "expects_nothing", "too_many_ways",
)  # fmt: skip


class Finding(NamedTuple):
    """One thing that is wrong: a stable code, the event or handler it is about, and what to do, in words."""

    code: str
    where: str
    message: str


def findings(event_map: EventMap) -> tuple[Finding, ...]:
    """Return everything that is wrong with a choreography; nothing means that it may run."""
    found: list[Finding] = []
    for rule in _RULES:
        found += rule(event_map)
    ways = worlds(event_map)
    if ways is None:
        return (*found, _too_many(event_map))
    for judge in _OF_WORLDS:
        found += judge(event_map, ways)
    return tuple(found)


# Names and ends


def _named_twice(event_map: EventMap) -> Iterator[Finding]:
    kinds: list[tuple[str, Iterable[str]]] = [
        ("event", (event.name for event in event_map.events)),
        ("participant", event_map.participants),
    ]
    for kind, names in kinds:
        for name in _twice(names):
            yield Finding(f"duplicate_{kind}", name, f"Two {kind}s are called {name!r}. Give one of them another name.")


def _ends_said(event_map: EventMap) -> Iterator[Finding]:
    if not event_map.starts:
        yield Finding("no_start", event_map.name, "Nothing begins a saga. Add: starts=(...,)")
    if not event_map.completes:
        yield Finding("no_end", event_map.name, "Nothing completes a saga. Add: completes=(...,)")
    if event_map.failures and not event_map.compensates:
        yield Finding(
            "no_compensating_end",
            event_map.name,
            f"Sagas may fail ({_list(event_map.failures)}), and nothing says when all is undone. "
            f"Add: compensates=(...,)",
        )
    for option, names in (("starts", event_map.starts), ("completes", event_map.completes)):
        for name in names:
            if name in event_map.failures:
                yield Finding(
                    "failure_as_end",
                    name,
                    f"{name} is a failure, and {option} names it. Take it out of {option}, or remove failure=True.",
                )


# Who hears what


def _heard(event_map: EventMap) -> Iterator[Finding]:
    needed = {name for handler in event_map.handlers for name in handler.needs}
    needed |= {*event_map.completes, *event_map.compensates}
    for event in event_map.events:
        made = event_map.makers[event.name]
        if made and all(one.undo_of is not None for one in made):
            continue  # the saga view waits for it: it is how one sees that the undo ran
        if (made or event.name in event_map.starts) and event.name not in needed:
            by = f"{_paths(made)} publishes {event.name}" if made else f"{event.name} begins sagas"
            yield Finding(
                "nobody_listens",
                event.name,
                f"{by}, and nobody listens to it. Add: @reacts({_type(event_map, event.name)}) in a participant, "
                f"or name it in completes or compensates.",
            )


def _made(event_map: EventMap) -> Iterator[Finding]:
    for event in event_map.events:
        if event_map.makers[event.name] or event.name in event_map.starts:
            continue
        heard = [one for one in event_map.handlers if event.name in one.needs]
        by = f"{_paths(heard)} waits for {event.name}" if heard else f"{event.name} ends sagas"
        yield Finding(
            "nobody_emits",
            event.name,
            f"{by}, and nobody publishes it. Add: emits=({_type(event_map, event.name)},) to the reaction that should, "
            f"or name it in starts.",
        )


# The way back


def _undos_sound(event_map: EventMap) -> Iterator[Finding]:
    for undo in event_map.undos.values():
        if () in undo.outcomes:
            yield Finding(
                "silent_undo",
                undo.path,
                f"{undo.path} may publish nothing, so nobody can see that {undo.undo_of} was undone. "
                f"Add: emits=(...,) to @{undo.undo_of}.undo, and return that event.",
            )
        failing = [name for name in undo.emits if name in event_map.failures]
        if failing:
            yield Finding(
                "undo_fails",
                undo.path,
                f"{undo.path} publishes the failure {_list(failing)}, which would turn back what is on its way back. "
                f"Raise instead, and it is repeated; or remove failure=True.",
            )
        forward = [name for name in undo.listens if name not in event_map.backward]
        if forward:
            yield Finding(
                "undo_on_the_way_forward",
                undo.path,
                f"{undo.path} listens to {_list(forward)}, which is no part of the way back, so what comes later would "
                f"still go forward. Add: failure=True to @event({forward[0]!r}).",
            )


def _both_ways(event_map: EventMap) -> Iterator[Finding]:
    for event in event_map.events:
        if event.name in event_map.backward:
            continue
        back = [one for one in event_map.makers[event.name] if _on_the_way_back(event_map, one)]
        if back:
            yield Finding(
                "both_ways",
                event.name,
                f"{event.name} is published on the way back by {_paths(back)}, and is also part of the way forward, "
                f"where it comes too late then. Add an event of its own for the way back.",
            )


def _waiting_undos(event_map: EventMap) -> Iterator[Finding]:
    for undo in event_map.undos.values():
        for name in undo.listens:
            for one in event_map.listeners[name]:
                if one.participant == undo.participant and one.after:
                    yield Finding(
                        "undo_waits",
                        undo.path,
                        f"{undo.path} would wait with {one.name}, which runs on {name} too, after {_list(one.after)}. "
                        f"Let {one.name} listen to {_list(one.after)} instead.",
                    )


# Cycles


def _cycles_bounded(event_map: EventMap) -> Iterator[Finding]:
    looping = cycles(event_map, bounded=False)
    if looping:
        first = next(one for one in event_map.handlers if one.path in looping)
        yield Finding(
            "unbounded_cycle",
            first.path,
            f"{_list(sorted(looping))} can go round for ever. "
            f"Add: at_most=times(3, otherwise=...) to @reacts of {first.path}.",
        )


_RULES = (_named_twice, _ends_said, _heard, _made, _undos_sound, _both_ways, _waiting_undos, _cycles_bounded)


# Every way that a saga can go


def _undone(event_map: EventMap, ways: Iterable[World]) -> Iterator[Finding]:
    """Every failure, and every compensating end, reaches the undo of everything done before it or beside it."""
    standing: dict[str, World] = {}
    causes: dict[str, set[str]] = {}
    for world in sorted(ways, key=_is_crossed):
        turns = _turns(event_map, world)
        undone = {f"{one.handler.participant}.{one.handler.undo_of}" for one in world.ran if one.handler.undo_of}
        for path in world.done - undone if turns else ():
            handler = event_map.by_path[path]
            if not handler.pivot and _is_past(event_map, world):
                continue  # what follows the hole is no hole of its own
            may_stand = handler.no_undo is not None and not handler.pivot
            if handler.undo_of is None and not may_stand and not _on_the_way_back(event_map, handler):
                standing.setdefault(path, world)
                causes.setdefault(path, set()).update(turns)
    for handler in event_map.handlers:
        if handler.path in standing:
            yield _stands(event_map, handler, sorted(causes[handler.path]), standing[handler.path])


def _stands(event_map: EventMap, handler: Handler, turns: list[str], world: World) -> Finding:
    types = ", ".join(_type(event_map, name) for name in turns)
    example = f"For example: {world.told}."
    if handler.pivot and world.crossed:
        return _meets(event_map, world, handler, "is the point of no return")
    if handler.pivot:
        return Finding(
            "failure_after_pivot",
            handler.path,
            f"{handler.path} is the point of no return, and {_list(turns)} may come when it was done. Let it come "
            f"after everything that may fail: after=(...,), or remove pivot=True and add "
            f"@{handler.name}.undo({types}). {example}",
        )
    if handler.path in event_map.undos:
        return Finding(
            "failure_misses_undo",
            handler.path,
            f"{handler.path} may have been done when {_list(turns)} comes, and "
            f"{event_map.undos[handler.path].path} does not hear of it. "
            f"Add: {types} to @{handler.name}.undo. {example}",
        )
    return Finding(
        "no_undo",
        handler.path,
        f"{handler.path} may have been done when {_list(turns)} comes, and has no undo. "
        f'Add: @{handler.name}.undo({types}), or no_undo="why" to its @reacts. {example}',
    )


def _meets(event_map: EventMap, world: World, handler: Handler, what: str) -> Finding:
    """A time-out that is told although what it awaited came, and had led to where nothing leads back from."""
    waiting = next(one for one in world.overdue if one.path in world.crossed)
    expects = waiting.expects
    assert expects is not None
    awaited = [_type(event_map, name) for name in expects.any_of if name not in event_map.backward]
    otherwise, names = _type(event_map, expects.otherwise), _list(awaited)
    if waiting.participant == handler.participant:
        advice = f"Let {handler.name} come after it: after=({', '.join(awaited)},)"
    else:
        advice = (
            f"Move expects= from {waiting.path} to a reaction of {handler.participant}, for what {handler.name} runs "
            f"on: its own row has either that or the time-out"
        )
    ends = not {*event_map.completes}.isdisjoint(handler.emits)
    instead = "" if ends else f", or remove pivot=True and add @{handler.name}.undo({otherwise})"
    return Finding(
        "timeout_meets_pivot",
        handler.path,
        f"{handler.path} {what}, and {otherwise} may come all the same: {waiting.path} tells it when "
        f"{waiting.participant} has not heard {names} in time, though others may have. {advice}{instead}. "
        f"For example: {world.told}.",
    )


def _is_past(event_map: EventMap, world: World) -> bool:
    """Whether a time-out met a point of no return or a completing end."""
    pivots = any(event_map.by_path[path].pivot for path in world.done)
    return bool(world.crossed) and (pivots or not world.events.isdisjoint(event_map.completes))


def _is_crossed(world: World) -> bool:
    return bool(world.crossed)


def _ends_reached(event_map: EventMap, ways: Iterable[World]) -> Iterator[Finding]:
    """Every way ends, and once."""
    seen: set[tuple[str, tuple[str, ...]]] = set()
    for world in sorted(ways, key=_is_crossed):
        code = _end_of(event_map, world)
        last = _loose(event_map, world)
        if code is None or (code, last) in seen:
            continue
        seen.add((code, last))
        closing = _completing(event_map, world)
        if code == "ends_twice" and world.crossed and closing is not None:
            if (code, (closing.path,)) not in seen:
                yield _meets(event_map, world, closing, "completes the saga")
            seen.add((code, (closing.path,)))
            continue
        yield Finding(code, last[0], _END_MESSAGES[code].format(_list(last), world.told))


def _end_of(event_map: EventMap, world: World) -> str | None:
    completed, compensated = world.events & {*event_map.completes}, world.events & {*event_map.compensates}
    failed = world.events & event_map.failures
    pivots = any(event_map.by_path[path].pivot for path in world.done)
    if completed and (failed or compensated):
        return None if pivots else "ends_twice"
    if failed and not compensated and event_map.compensates:
        return "never_compensates"
    ended = compensated or not world.events.isdisjoint(event_map.completes)
    return None if failed or ended or not event_map.completes else "never_completes"


def _completing(event_map: EventMap, world: World) -> Handler | None:
    return next((one.handler for one in world.ran if not {*event_map.completes}.isdisjoint(one.published)), None)


_END_MESSAGES = {
    "ends_twice": "A saga may be completed and fail all the same ({}). Let what completes it come after everything "
    "that may fail: after=(...,). For example: {}.",
    "never_compensates": "A saga may fail and never come to an end: after {} nothing leads to one of compensates. "
    "Add a reaction that does. For example: {}.",
    "never_completes": "A saga may stop without an end: after {} nothing leads to one of completes. "
    "Add a reaction that does. For example: {}.",
}


def _ever_run(event_map: EventMap, ways: Iterable[World]) -> Iterator[Finding]:
    """Every handler whose events can come runs in some world, and what is expected can follow."""
    came: set[str] = set()
    ran: set[str] = set()
    followed: set[str] = set()
    for world in ways:
        came |= world.events
        ran |= {one.handler.path for one in world.ran if not one.is_late}
        followed |= {one.path for one in world.timely if one.expects and world.events & {*one.expects.any_of}}
    for handler in event_map.handlers:
        if handler.path not in ran and came.intersection(handler.listens) and came.issuperset(handler.after):
            missing = f"{handler.undo_of} was never done then" if handler.undo_of else "what it follows is never there"
            yield Finding(
                "never_runs",
                handler.path,
                f"{handler.path} never runs: where {_list(handler.listens)} comes, {missing}. Take it out, or listen "
                f"to what can come.",
            )
        if handler.expects is not None and handler.path in ran and handler.path not in followed:
            yield Finding(
                "expects_nothing",
                handler.path,
                f"{handler.path} expects {_list(handler.expects.any_of)}, which can't follow it, so it would always be "
                f"overdue. Expect what can follow, or remove expects.",
            )


_OF_WORLDS = (_undone, _ends_reached, _ever_run)


def _too_many(event_map: EventMap) -> Finding:
    return Finding(
        "too_many_ways",
        event_map.name,
        f"It can go more than {WORLDS_MAX} ways, which is more than anybody can check. Join branches with "
        f"after=(...,), or make it several choreographies.",
    )


def _turns(event_map: EventMap, world: World) -> list[str]:
    """What turned this world back: its failures, or else the compensating end that it came to."""
    return sorted(world.events & event_map.failures) or sorted(world.events & {*event_map.compensates})


def _loose(event_map: EventMap, world: World) -> tuple[str, ...]:
    """The events of a world that lead no further; all that came, if each leads somewhere."""
    used = {one.trigger for one in world.ran if one.published}
    return tuple(event.name for event in event_map.events if event.name in world.events - used) or (world.start,)


def _on_the_way_back(event_map: EventMap, handler: Handler) -> bool:
    return handler.undo_of is not None or not event_map.backward.isdisjoint(handler.listens)


def _twice(names: Iterable[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _type(event_map: EventMap, name: str) -> str:
    return event_map.by_name[name].type_name or name


def _paths(handlers: Iterable[Handler]) -> str:
    return _list(handler.path for handler in handlers)


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
