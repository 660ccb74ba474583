"""A network of participants that know nothing but the guard: events come late, twice and in any order.

Owns what happens between judgements: deliveries in the order that a test chooses, runs with chosen outcomes, time-outs.
Nothing is stored and nothing is slept; what each participant did is counted, so the books can be checked at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from atone._core.event_guard import (
    Decision,
    Defer,
    Ignore,
    Incoming,
    Known,
    Ran,
    Refuse,
    Run,
    Undo,
    Undoing,
    Why,
    did_something,
    expected,
    judge,
)
from atone._core.event_map import EventMap
from atone._core.event_view import Parked, Seen

Choose = Callable[[int], int]
"""Return a number below the one given."""


@dataclass
class Network:
    """One saga under way. `pending` are deliveries: who hears which event, by its place in `log`."""

    event_map: EventMap
    choose: Choose
    log: list[Seen] = field(default_factory=list[Seen])
    pending: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    known: dict[str, Known] = field(default_factory=dict[str, Known])
    ignored: list[tuple[str, str, Why]] = field(default_factory=list[tuple[str, str, Why]])
    parked: list[Parked] = field(default_factory=list[Parked])
    undone: list[tuple[str, Ran]] = field(default_factory=list[tuple[str, Ran]])

    def publish(self, name: str, source: str = "", cause: str = "") -> None:
        """Put an event on its way to everybody who hears it, to some of them twice."""
        self.log.append(Seen(f"e{len(self.log)}", name, float(len(self.log)), source, cause))
        for participant in self.event_map.participants:
            if name in self.event_map.hears(participant):
                self.pending += [(participant, len(self.log) - 1)] * (1 + self.choose(2))

    def run(self, *, with_time_outs: bool = False) -> None:
        """Deliver until nothing is on its way; what is deferred goes to the back of the line."""
        steps = 0
        while self.pending:
            if with_time_outs and self.choose(4) == 0 and self._time_out():
                continue
            at = self.choose(len(self.pending))
            participant, event = self.pending.pop(at)
            if isinstance(self.deliver(participant, self.log[event]), Defer):
                self.pending.append((participant, event))
            steps += 1
            if steps > 2_000:  # what is left waits for events that never come
                return

    def deliver(self, participant: str, event: Seen) -> Decision:
        """Have one participant judge one event, and do what it says."""
        known = self.known.get(participant, Known())
        decision = judge(self.event_map, participant, known, Incoming(event.id, event.name))
        match decision:
            case Ignore(why):
                self.ignored.append((participant, event.name, why))
            case Refuse(_, reason):
                self.parked.append(Parked(event.id, event.name, participant, reason, event.at))
            case Run(reactions, gives_up):
                self._take_in(participant, event, (), reactions, gives_up)
            case Undo(undos, reactions):
                self._take_in(participant, event, undos, reactions, ())
            case Defer():
                pass
        return decision

    def _take_in(
        self,
        participant: str,
        event: Seen,
        undos: tuple[Undoing, ...],
        reactions: tuple[str, ...],
        gives_up: tuple[str, ...],
    ) -> None:
        known = self.known.get(participant, Known())
        self.known[participant] = known._replace(heard=(*known.heard, (event.id, event.name)))
        for undo in undos:
            self.undone.append((participant, undo.ran))
            self._change(participant, undo.ran, undo.ran._replace(undone=True))
            self._outcome(participant, undo.undo, event)
        for name in reactions:
            published = self._outcome(participant, name, event)
            self._keep(participant, Ran(name, event.id, did_something(self.event_map, published)))
        for name in gives_up:
            bound = self.event_map.by_path[f"{participant}.{name}"].at_most
            assert bound is not None
            self._keep(participant, Ran(name, event.id, did=False))
            self._send(participant, bound.otherwise, event.id)

    def _outcome(self, participant: str, handler: str, event: Seen) -> tuple[str, ...]:
        outcomes = self.event_map.by_path[f"{participant}.{handler}"].outcomes
        published = outcomes[self.choose(len(outcomes))]
        for name in published:
            self._send(participant, name, event.id)
        return published

    def _send(self, participant: str, name: str, cause: str) -> None:
        known = self.known[participant]
        self.known[participant] = known._replace(published=known.published | {name})
        self.publish(name, participant, cause)

    def _keep(self, participant: str, ran: Ran) -> None:
        known = self.known[participant]
        self.known[participant] = known._replace(ran=(*known.ran, ran))

    def _change(self, participant: str, old: Ran, new: Ran) -> None:
        known = self.known[participant]
        self.known[participant] = known._replace(ran=tuple(new if one == old else one for one in known.ran))

    def _time_out(self) -> bool:
        for participant, known in self.known.items():
            for one in expected(self.event_map, participant, known):
                self._change(participant, one.ran, one.ran._replace(overdue=True))
                self._send(participant, one.otherwise, one.ran.event_id)
                return True
        return False
