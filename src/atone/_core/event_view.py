"""A choreographed saga as its events tell it: status, timeline, and what is missing; a pure fold.

Owns what can be said of a saga that nobody runs. The order in which events reach the view does not matter, nor how
often: the same events give the same view. Must not read a clock; `now` is handed in. Called by the saga view.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from atone._core.event_map import EventMap, Handler
from atone._core.state import SagaStatus

GRACE_SECONDS = 30.0


class Seen(NamedTuple):
    """One event of the saga: its message's id, name and time, who published it, and the id of what led to it."""

    id: str
    name: str
    at: float
    source: str = ""
    cause: str = ""


class Parked(NamedTuple):
    """A message of the saga in a participant's dead-letter place, where it still is."""

    id: str
    name: str
    participant: str
    reason: str
    at: float


class Moment(NamedTuple):
    """One line of the timeline. `what` is starts, forward, failure, back, completes, compensates, unknown or parked."""

    at: float
    what: str
    name: str
    source: str
    id: str
    reason: str = ""


class Missing(NamedTuple):
    """What should come and has not: one of `events`, published by handler `of`; the handlers `awaited_by` need it.

    `since` is when it became due to begin, `due_at` when it is late, if anything says so.
    """

    events: tuple[str, ...]
    of: str
    awaited_by: tuple[str, ...]
    since: float
    due_at: float | None = None


class View(NamedTuple):
    """A choreographed saga as far as its events tell. `attention` says why a person should look, in sentences."""

    status: SagaStatus
    started_at: float | None
    ended_at: float | None
    timeline: tuple[Moment, ...]
    missing: tuple[Missing, ...]
    attention: tuple[str, ...]

    @property
    def is_settled(self) -> bool:
        """Whether it is over, or goes on only when a person has looked."""
        return self.status.is_final or bool(self.attention)

    @property
    def awaited(self) -> tuple[Missing, ...]:
        """What is still to come: of what is missing, all, as long as the saga is not over."""
        return () if self.status.is_final else self.missing


def view(
    event_map: EventMap,
    seen: Iterable[Seen],
    parked: Iterable[Parked] = (),
    *,
    now: float,
    grace_seconds: float = GRACE_SECONDS,
) -> View:
    """Fold what was seen of one saga. `grace_seconds` after its time something that has not come is overdue."""
    story = _Story(event_map, seen)
    held = sorted(set(parked), key=lambda one: (one.at, one.id, one.participant))
    missing = tuple(sorted(story.missing(), key=lambda one: (one.since, one.of, one.events)))
    status = story.status(missing)
    attention = (
        *(f"{one.participant} has parked {one.name}: {one.reason}" for one in held),
        *story.contradictions(),
        *story.overdue(status, missing, now - grace_seconds),
    )
    return View(
        SagaStatus.NEEDS_ATTENTION if attention else status,
        story.started_at,
        story.ended_at if status.is_final else None,
        tuple(
            sorted(
                [
                    *story.moments(),
                    *(Moment(one.at, "parked", one.name, one.participant, one.id, one.reason) for one in held),
                ]
            )
        ),
        missing,
        attention,
    )


class _Story:
    """What was seen of one saga, each event once."""

    def __init__(self, event_map: EventMap, seen: Iterable[Seen]) -> None:
        self._map = event_map
        first: dict[str, Seen] = {}
        for one in sorted(seen):
            first.setdefault(one.id, one)
        self._seen = sorted(first.values(), key=lambda one: (one.at, one.id))
        self._names = {one.name for one in self._seen}
        self._is_backward = not self._names.isdisjoint(event_map.backward)

    @property
    def started_at(self) -> float | None:
        return self._seen[0].at if self._seen else None

    @property
    def ended_at(self) -> float | None:
        ends = {*self._map.completes, *self._map.compensates}
        return max((one.at for one in self._seen if one.name in ends), default=None)

    def moments(self) -> Iterator[Moment]:
        for one in self._seen:
            yield Moment(one.at, self._what(one.name), one.name, one.source, one.id)

    def _what(self, name: str) -> str:
        if name not in self._map.by_name:
            return "unknown"
        kinds = (
            ("failure", self._map.failures),
            ("completes", self._map.completes),
            ("compensates", self._map.compensates),
            ("back", self._map.backward),
            ("starts", self._map.starts),
        )
        return next((what for what, names in kinds if name in names), "forward")

    def status(self, missing: tuple[Missing, ...]) -> SagaStatus:
        if not self._seen:
            return SagaStatus.PENDING
        if self._is_backward:
            undos = {undo.path for undo in self._map.undos.values()}
            over = not self._names.isdisjoint(self._map.compensates) and not any(one.of in undos for one in missing)
            return SagaStatus.COMPENSATED if over else SagaStatus.COMPENSATING
        return SagaStatus.COMPLETED if not self._names.isdisjoint(self._map.completes) else SagaStatus.RUNNING

    def contradictions(self) -> Iterator[str]:
        completed = sorted(self._names.intersection(self._map.completes))
        turned = sorted(self._names.intersection(self._map.backward))
        if completed and turned:
            yield f"{', '.join(completed)} completed it, and {', '.join(turned)} turned it back; settle it by hand"

    def overdue(self, status: SagaStatus, missing: tuple[Missing, ...], late: float) -> Iterator[str]:
        for one in missing:
            if one.due_at is not None and one.due_at < late and not status.is_final:
                yield f"{one.of} waits for {' or '.join(one.events)} in vain"
        if self.started_at is not None and not status.is_final and self.started_at + self._map.deadline_seconds < late:
            yield f"it has not come to an end within {self._map.deadline_seconds:g} s"

    def missing(self) -> Iterator[Missing]:
        for handler in self._map.handlers:
            yield from self._unpublished(handler)
            yield from self._unheard(handler)

    def _unpublished(self, handler: Handler) -> Iterator[Missing]:
        """What a handler should have published by now, since all that it runs on was seen."""
        back = handler.undo_of is not None or not self._map.backward.isdisjoint(handler.listens)
        if () in handler.outcomes or (self._is_backward and not back) or not self._has_cause(handler):
            return
        triggers = [one for one in self._seen if one.name in handler.listens]
        for trigger in triggers[:1] if back else triggers:
            if not self._answered(handler, None if back else trigger):
                since = max([trigger.at, *(self._first_at(name) for name in handler.after)])
                yield Missing(handler.emits, handler.path, self._needed_by(handler.emits), since)

    def _has_cause(self, handler: Handler) -> bool:
        if not self._names.issuperset(handler.after):
            return False
        return handler.undo_of is None or bool(self._done(f"{handler.participant}.{handler.undo_of}"))

    def _done(self, reaction: str) -> list[Seen]:
        """The events that tell that a reaction had an effect."""
        handler = self._map.by_path[reaction]
        telling = set(handler.emits) - self._map.failures
        return [one for one in self._seen if one.name in telling and one.source in ("", handler.participant)]

    def _answered(self, handler: Handler, trigger: Seen | None) -> bool:
        """Whether anything was seen that a handler published, for one event or at all."""
        return any(
            one.name in handler.makes
            and one.source in ("", handler.participant)
            and (trigger is None or one.cause in ("", trigger.id))
            for one in self._seen
        )

    def _unheard(self, handler: Handler) -> Iterator[Missing]:
        """What a reaction expects to follow it in time."""
        expects = handler.expects
        if expects is None or self._is_backward or not self._names.isdisjoint(self._map.completes):
            return
        # Counted, not compared by time: the clocks of two services need not agree.
        followed = sum(one.name in (*expects.any_of, expects.otherwise) for one in self._seen)
        for one in self._begun(handler)[followed:]:
            yield Missing(expects.any_of, handler.path, (handler.path,), one.at, one.at + expects.seconds)

    def _begun(self, handler: Handler) -> list[Seen]:
        """The events that tell that a reaction ran; of one that only waits, what it runs on tells it."""
        if handler.emits:
            return self._done(handler.path)
        ready = self._names.issuperset(handler.after)
        return [one for one in self._seen if ready and one.name in handler.listens]

    def _needed_by(self, events: Iterable[str]) -> tuple[str, ...]:
        wanted = set(events)
        return tuple(one.path for one in self._map.handlers if wanted.intersection(one.needs))

    def _first_at(self, name: str) -> float:
        return min(one.at for one in self._seen if one.name == name)
