"""Every way that a choreographed saga can go: which events come, which handlers run, for each choice that there is.

Owns the walk: one world for each combination of outcomes and time-outs. It is exact about what can come together, and
lets everything that is not ordered by cause happen at once. Must not judge a world; `event_checks` does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from atone._core.event_map import EventMap, Expectation, Handler

WORLDS_MAX = 10_000
# A walk of few ways may be long, as some turn out at their end to be none. This is a few seconds.
STEPS_MAX = 200_000


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

    `events` came. `absent` never come, as whoever would publish them is away. `done` are the reactions that had an
    effect; `over` says what ran on what, by participant and name, and `once` what runs no more. `timely` expect
    something that does come in time; `overdue` told that it did not, and of these `crossed` told it although it may
    have come: hearing is not publishing. `missed` says who acts on what no more, as it had told so before it heard.
    """

    start: str
    events: frozenset[str]
    absent: frozenset[str] = frozenset()
    ran: tuple[Ran, ...] = ()
    done: frozenset[str] = frozenset()
    over: frozenset[tuple[str, str, str]] = frozenset()
    once: frozenset[tuple[str, str]] = frozenset()
    timely: tuple[Handler, ...] = ()
    overdue: tuple[Handler, ...] = ()
    crossed: frozenset[str] = frozenset()
    missed: frozenset[tuple[str, str]] = frozenset()

    @property
    def told(self) -> str:
        """The way in words: the start, then each handler with what it published."""
        return "; ".join([self.start, *(_told(one) for one in self.ran)])


def _told(ran: Ran) -> str:
    if ran.is_late:
        return f"{ran.handler.path}: too late for it"
    return f"{ran.handler.path}: {' + '.join(ran.published) or 'nothing'}"


def worlds(event_map: EventMap) -> tuple[World, ...] | None:
    """Return every way that a saga can go; None if there are more than `WORLDS_MAX`, or too many to look for them."""
    found: list[World] = []
    waiting = [World(start, frozenset([start])) for start in reversed(event_map.starts)]
    for _ in range(STEPS_MAX):
        if not waiting or len(found) > WORLDS_MAX:
            break
        world = waiting.pop()
        step = _next(event_map, world)
        if step is not None:
            waiting += reversed(list(_branches(event_map, world, *step)))
        elif _is_real(event_map, world):
            found.append(world)
    return None if waiting or len(found) > WORLDS_MAX else tuple(found)


def _next(event_map: EventMap, world: World) -> tuple[Handler, str] | None:
    """Find a handler that has yet to run, and the event it runs on."""
    for handler in event_map.handlers:
        for trigger in handler.listens:
            if trigger in world.events and _is_due(event_map, world, handler, trigger):
                return handler, trigger
    return None


def _is_due(event_map: EventMap, world: World, handler: Handler, trigger: str) -> bool:
    key = (handler.participant, handler.name)
    if (*key, trigger) in world.over or not world.events.issuperset(handler.after):
        return False
    if not world.absent.isdisjoint(handler.emits):
        return False
    if any((handler.participant, name) in world.missed for name in (trigger, *handler.after)):
        return False
    if handler.undo_of is not None:
        return key not in world.once and f"{handler.participant}.{handler.undo_of}" in world.done
    return trigger not in event_map.failures or key not in world.once


def _branches(event_map: EventMap, world: World, handler: Handler, trigger: str) -> Iterator[World]:
    for outcome in handler.outcomes:
        if handler.path in event_map.looping and outcome and world.events.issuperset(outcome):
            continue  # round again; what comes of it is another branch, or the end of a bound
        yield from _after_run(event_map, world, handler, Ran(handler, trigger, outcome))
    if handler.at_most is not None:
        yield _published(event_map, world, Ran(handler, trigger, (handler.at_most.otherwise,)))
    if event_map.failures and handler.undo_of is None and trigger not in event_map.backward:
        late = _published(event_map, world, Ran(handler, trigger, (), is_late=True))
        if _may_fail(event_map, late):
            yield late


def _may_fail(event_map: EventMap, world: World) -> bool:
    """Whether a failure came or may still come; without one nothing is late, so such a world need not be walked."""
    came = set(world.events)
    grown = True
    while grown and came.isdisjoint(event_map.failures):
        more = {name for one in event_map.handlers if _may_run(world, one, came) for name in one.makes}
        grown = not more <= came
        came |= more
    return not came.isdisjoint(event_map.failures)


def _may_run(world: World, handler: Handler, came: set[str]) -> bool:
    if not came.issuperset(handler.after) or not world.absent.isdisjoint(handler.emits):
        return False
    return any(one in came and (handler.participant, handler.name, one) not in world.over for one in handler.listens)


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
    yield from _overdue(event_map, grown, handler, expects)


def _overdue(event_map: EventMap, world: World, handler: Handler, expects: Expectation) -> Iterator[World]:
    """The time-out is told: as nothing of it was published, or though it was, and everybody else may act on it."""
    awaited = frozenset(expects.any_of)
    told = replace(world, events=world.events | {expects.otherwise}, overdue=(*world.overdue, handler))
    if awaited.isdisjoint(world.events):
        yield replace(told, absent=told.absent | awaited)
    crossed = replace(told, crossed=told.crossed | {handler.path})
    if not _turns(event_map, handler) or handler.path in event_map.looping:
        yield crossed  # it acts on what it awaited after all: in time for another round, or as nothing turned back
    elif not _acted_on(world, handler.participant, forward := awaited - event_map.backward):
        missed = {(handler.participant, name) for name in forward}
        yield replace(crossed, missed=crossed.missed | missed)


def _turns(event_map: EventMap, handler: Handler) -> bool:
    """Whether its time-out turns the saga back for whoever tells it."""
    return handler.expects is not None and handler.expects.otherwise in event_map.backward


def _acted_on(world: World, participant: str, awaited: frozenset[str]) -> bool:
    """Whether a participant has heard one of these in time; then it tells of no time-out."""
    mine = [one for one in world.ran if one.handler.participant == participant and not one.is_late]
    return any(not awaited.isdisjoint((one.trigger, *one.handler.after)) for one in mine)


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
    """Nothing is late without a failure, and what is expected in time comes, unless the saga turned or ended before.

    And nobody who has completed a saga tells after that that something is overdue, nor the other way round.
    """
    completed = {one.handler.participant for one in world.ran if not {*event_map.completes}.isdisjoint(one.published)}
    if any(one.participant in completed and _turns(event_map, one) for one in world.overdue):
        return False
    if not world.events.isdisjoint(event_map.failures):
        return True
    if any(one.is_late for one in world.ran):
        return False
    if not world.events.isdisjoint(event_map.completes):
        return True
    return all(not world.events.isdisjoint(one.expects.any_of) for one in world.timely if one.expects is not None)
