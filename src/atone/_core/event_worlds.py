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
    """One run of a handler in a world: on which event, and what it published.

    `is_late`: it did not run, as its participant knew of a failure by then.
    """

    handler: Handler
    trigger: str
    published: tuple[str, ...]
    is_late: bool = False


@dataclass(frozen=True, slots=True)
class World:
    """One way that a saga can go.

    `events` came; of these `late` lead nowhere, as their time was over. `absent` never come, as whoever would publish
    them is away. `done` are the reactions that had an effect; `over` says what ran on what, by participant and name,
    and `once` what runs no more. `timely` expect something that does come in time.
    """

    start: str
    events: frozenset[str]
    late: frozenset[str] = frozenset()
    absent: frozenset[str] = frozenset()
    ran: tuple[Ran, ...] = ()
    done: frozenset[str] = frozenset()
    over: frozenset[tuple[str, str, str]] = frozenset()
    once: frozenset[tuple[str, str]] = frozenset()
    timely: tuple[Handler, ...] = ()

    @property
    def told(self) -> str:
        """The way in words: the start, then each handler with what it published."""
        return "; ".join([self.start, *(_told(one) for one in self.ran)])


def _told(ran: Ran) -> str:
    if ran.is_late:
        return f"{ran.handler.path}: too late for it"
    return f"{ran.handler.path}: {' + '.join(ran.published) or 'nothing'}"


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
    for handler in event_map.handlers:
        for trigger in handler.listens:
            if trigger in have and _is_due(event_map, world, handler, trigger):
                return handler, trigger
    return None


def _is_due(event_map: EventMap, world: World, handler: Handler, trigger: str) -> bool:
    key = (handler.participant, handler.name)
    if (*key, trigger) in world.over or not world.events.issuperset(handler.after):
        return False
    if not world.absent.isdisjoint(handler.emits):
        return False
    if handler.undo_of is not None:
        return key not in world.once and f"{handler.participant}.{handler.undo_of}" in world.done
    return trigger not in event_map.failures or key not in world.once


def _branches(
    event_map: EventMap, world: World, handler: Handler, trigger: str, looping: frozenset[str]
) -> Iterator[World]:
    for outcome in handler.outcomes:
        if handler.path in looping and outcome and world.events.issuperset(outcome):
            continue  # round again; what comes of it is another branch, or the end of a bound
        yield from _after_run(event_map, world, handler, Ran(handler, trigger, outcome))
    if handler.at_most is not None:
        yield _published(event_map, world, Ran(handler, trigger, (handler.at_most.otherwise,)))
    if event_map.failures and handler.undo_of is None and trigger not in event_map.backward:
        yield _published(event_map, world, Ran(handler, trigger, (), is_late=True))


def _after_run(event_map: EventMap, world: World, handler: Handler, ran: Ran) -> Iterator[World]:
    grown = _published(event_map, world, ran)
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


def _published(event_map: EventMap, world: World, ran: Ran) -> World:
    key = (ran.handler.participant, ran.handler.name)
    is_once = ran.handler.undo_of is not None or ran.trigger in event_map.failures
    return replace(
        world,
        events=world.events.union(ran.published),
        ran=(*world.ran, ran),
        over=world.over | {(*key, ran.trigger)},
        once=world.once | {key} if is_once else world.once,
    )


def _is_real(event_map: EventMap, world: World) -> bool:
    """Nothing is late without a failure, and what is expected in time comes, unless the saga turned or ended before."""
    if not world.events.isdisjoint(event_map.failures):
        return True
    if any(one.is_late for one in world.ran):
        return False
    if not world.events.isdisjoint(event_map.completes):
        return True
    return all(not world.events.isdisjoint(one.expects.any_of) for one in world.timely if one.expects is not None)
