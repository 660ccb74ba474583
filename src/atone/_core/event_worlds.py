"""Every way that a choreographed saga can go: which events come, which handlers run, for each choice that there is.

Owns the walk: one world for each combination of outcomes and time-outs. It is exact about what can come together, and
lets everything that is not ordered by cause happen at once. Must not judge a world; `event_checks` does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from atone._core.event_map import EventMap, Handler

WORLDS_MAX = 10_000


class Ran(NamedTuple):
    """One run of a handler in a world: on which event, and what it published."""

    handler: Handler
    trigger: str
    published: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class World:
    """One way that a saga can go.

    `events` came; of these `late` lead nowhere, as their time was over. `absent` never come, as whoever would publish
    them is away. `done` are the reactions that had an effect. `timely` expect something that does come in time.
    """

    start: str
    events: frozenset[str]
    late: frozenset[str] = frozenset()
    absent: frozenset[str] = frozenset()
    ran: tuple[Ran, ...] = ()
    done: frozenset[str] = frozenset()
    timely: tuple[Handler, ...] = ()

    @property
    def told(self) -> str:
        """The way in words: the start, then each handler with what it published."""
        steps = [f"{one.handler.path}: {' + '.join(one.published) or 'nothing'}" for one in self.ran]
        return "; ".join([self.start, *steps])


def worlds(event_map: EventMap) -> Iterator[World]:
    """Yield every way that a saga can go, at most `WORLDS_MAX` + 1 of them."""
    looping = cycles(event_map)
    found = 0
    waiting = [World(start, frozenset([start])) for start in reversed(event_map.starts)]
    while waiting and found <= WORLDS_MAX:
        world = waiting.pop()
        step = _next(event_map, world)
        if step is not None:
            waiting += reversed(list(_branches(event_map, world, *step, looping)))
        elif _is_real(event_map, world):
            found += 1
            yield world


def cycles(event_map: EventMap, *, bounded: bool = True) -> frozenset[str]:
    """Return the paths of handlers that can lead to themselves; `bounded=False` leaves out those with a bound."""
    among = [one for one in event_map.handlers if bounded or one.at_most is None]
    follows = {one.path: {other.path for other in among if set(one.makes) & set(other.listens)} for one in among}
    return frozenset(path for path in follows if path in _reach(follows, path))


def _reach(follows: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = list(follows[start])
    while waiting:
        path = waiting.pop()
        if path not in seen:
            seen.add(path)
            waiting += follows[path]
    return seen


def _next(event_map: EventMap, world: World) -> tuple[Handler, str] | None:
    """Find a handler that has yet to run, and the event it runs on."""
    have = world.events - world.late
    over = {(one.handler.path, one.trigger) for one in world.ran}
    for handler in event_map.handlers:
        for trigger in handler.listens:
            if trigger in have and (handler.path, trigger) not in over and _runs(event_map, world, handler, trigger):
                return handler, trigger
    return None


def _runs(event_map: EventMap, world: World, handler: Handler, trigger: str) -> bool:
    if not world.events.issuperset(handler.after) or not world.absent.isdisjoint(handler.emits):
        return False
    before = [one.trigger for one in world.ran if one.handler.path == handler.path]
    if handler.undo_of is not None:
        return not before and f"{handler.participant}.{handler.undo_of}" in world.done
    return trigger not in event_map.failures or event_map.failures.isdisjoint(before)


def _branches(
    event_map: EventMap, world: World, handler: Handler, trigger: str, looping: frozenset[str]
) -> Iterator[World]:
    for outcome in handler.outcomes:
        if handler.path in looping and outcome and world.events.issuperset(outcome):
            continue  # round again; what comes of it is another branch, or the end of a bound
        yield from _after_run(event_map, world, handler, Ran(handler, trigger, outcome))
    if handler.at_most is not None:
        yield _published(world, Ran(handler, trigger, (handler.at_most.otherwise,)))


def _after_run(event_map: EventMap, world: World, handler: Handler, ran: Ran) -> Iterator[World]:
    grown = _published(world, ran)
    if not event_map.failures.isdisjoint(ran.published):
        yield grown
        return
    grown = replace(grown, done=grown.done | {handler.path})
    expects = handler.expects
    if expects is None or handler in grown.timely:
        yield grown
        return
    yield replace(grown, timely=(*grown.timely, handler))
    overdue = replace(grown, events=grown.events | {expects.otherwise})
    awaited = frozenset(expects.any_of)
    yield replace(overdue, late=overdue.late | awaited)
    yield replace(overdue, absent=overdue.absent | awaited)


def _published(world: World, ran: Ran) -> World:
    return replace(world, events=world.events | set(ran.published), ran=(*world.ran, ran))


def _is_real(event_map: EventMap, world: World) -> bool:
    """What is expected in time does come, unless the saga turned back or ended before."""
    if not world.events.isdisjoint([*event_map.failures, *event_map.completes]):
        return True
    return all(not world.events.isdisjoint(one.expects.any_of) for one in world.timely if one.expects is not None)
