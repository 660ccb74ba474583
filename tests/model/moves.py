"""What may happen next, and what it leads to: every move of the workers, the network, the participants and people.

Owns the list of moves and what each uses up of the budget of faults. A move that costs nothing happens in a world
without faults too. Must not judge; `judge.py` is asked at the moments that matter.
"""

from __future__ import annotations

from collections.abc import Iterator

from atone._core import facts
from atone._core.plan import Plan
from atone._core.state import Request, SagaStatus
from tests.core.world import OOPS, Participant, message_of
from tests.model.book import Book
from tests.model.judge import Judge
from tests.model.network import Move, Network
from tests.model.passing import Passing
from tests.model.promise import APPLIED, DEAD, Promise
from tests.model.rules import ATONE, Rules
from tests.model.worker import Worker
from tests.model.world import FRESH, Orphan, Owner, Seat, World, seated, spent, without

FAULTS = frozenset(
    {
        "crash",
        "crash with a turn on its way",
        "answer lost",
        "take over a live one",
        "claim without an answer",
        "break",
        "refuse",
        "cannot tell",
        "twice",
        "late",
        "reply twice",
        "stall",
        "lost in the post",
        "drain",
        "raise",
        "unbuilt",
        "ask",
    }
)


class Moves:
    """The moves of one plan. `asks` names what people may ask for, each once."""

    def __init__(
        self, plan: Plan, *, budget: int, workers: int = 2, asks: tuple[str, ...] = ("cancel",), rules: Rules = ATONE
    ) -> None:
        self.plan = plan
        self.budget = budget
        self.workers = workers
        self.asks = asks
        self.rules = rules
        self.book = Book(plan)
        self.judge = Judge(plan)
        self.promise = Promise(self.book, rules)
        self.worker = Worker(self.book, rules)
        self._event = next((step.event_name for step in plan.steps if step.event_name), None)
        self.network = Network(plan, rules, self.judge, self.promise, self.worker)
        self.passing = Passing(plan, self.book, self.network)

    def first(self) -> list[World]:
        """Return the worlds in which a search begins: a start that a worker has written, and one that nobody owns."""
        begun = self.book.start(may_start=True)
        waits = self.book.start(may_start=False)
        there = (Participant(),) * len(self.plan.steps)
        others = (FRESH,) * (self.workers - 1)
        seat = Seat(turn=begun, landed=True)
        return [
            World(begun.after, Owner.FIRST, None, (seat, *others), there, begun.letters, budget=self.budget),
            World(waits.after, Owner.NOBODY, 0.0, (FRESH, *others), there, budget=self.budget),
        ]

    def of(self, world: World) -> Iterator[Move]:
        """Yield what may happen: its name, whose seat it is about (-1: nobody's), and the world after it."""
        for at, seat in enumerate(world.seats):
            if seat.memory is not None or seat.turn is not None:
                yield from self._of_seat(world, at, seat)
        yield from self._claims(world)
        for which in range(len(world.orphans)):
            yield "orphan lands", -1, self._checked(world, self.promise.deliver_orphan(world, which))
        for wire in world.ghosts:
            left = world._replace(ghosts=without(world.ghosts, wire))
            yield "late arrival", -1, self.network.arrive(left, wire, "arrive")[0]
        for wire in world.letters:
            yield from self.network.of_letter(world, wire)
        if world.budget:
            yield from self._asks(world)
        yield from self.passing.of(world)

    # One worker

    def _of_seat(self, world: World, at: int, seat: Seat) -> Iterator[Move]:
        worker, budget = self.worker, world.budget
        if seat.turn is not None:
            yield from self._of_turn(world, at, seat)
        elif seat.reading:
            yield "read", at, self._read(world, at, seat)
        elif seat.wanted:
            yield "build", at, seated(world, at, self._built(seat, "build"))
            if budget:
                yield "unbuilt", at, seated(spent(world), at, self._built(seat, "unbuilt"))
        else:
            if seat.behind and not seat.draining:
                yield "look", at, self._read(world, at, seat)
            if seat.wake_at is not None and seat.wake_at <= 0.0:
                yield "wake", at, seated(world, at, worker.tell(seat, facts.Woke()))
        if seat.asks:
            yield from self._told_condition(world, at, seat)
        for wire in seat.calls:
            yield from self.network.of_call(world, at, seat, wire)
        if seat.fenced:
            yield "learn of its death", at, self._drop(world, at)
        if budget:
            yield from self._ends(spent(world), at, seat)

    def _of_turn(self, world: World, at: int, seat: Seat) -> Iterator[Move]:
        if seat.landed:
            yield "hear", at, seated(world, at, self.worker.applied(seat))
            # Sent again, it is applied again; only where that differs from hearing the first answer is it told apart.
            if world.budget and (seat.fenced or not self.rules.commit_id):
                yield "answer lost", at, self._commit(spent(world), at)
            return
        yield "commit", at, self._commit(world, at)
        if world.budget and not self.rules.sends_again:
            yield "answer lost", at, self._forget_turn(spent(world), at, seat)

    def _told_condition(self, world: World, at: int, seat: Seat) -> Iterator[Move]:
        for step in seat.asks:
            left = seat._replace(asks=tuple(one for one in seat.asks if one != step))
            yield "say yes", at, seated(world, at, self.worker.tell(left, facts.ConditionTold(step, True)))
            yield "say no", at, seated(world, at, self.worker.tell(left, facts.ConditionTold(step, False)))
            if world.budget:
                yield "raise", at, seated(spent(world), at, self.worker.tell(left, facts.ConditionFailed(step, OOPS)))

    def _ends(self, world: World, at: int, seat: Seat) -> Iterator[Move]:
        yield "crash", at, self._drop(world, at)
        if seat.turn is not None and not seat.landed and not seat.fenced:
            gone = self._drop(world, at)
            orphan = Orphan(seat.turn, seat.releases, seat.behind)
            yield "crash with a turn on its way", at, gone._replace(orphans=(*gone.orphans, orphan))
        if "drain" in self.asks and not seat.draining and not seat.fenced:
            yield "drain", at, seated(world, at, self._drained(seat))

    def _commit(self, world: World, at: int) -> World:
        turn = world.seats[at].turn
        if turn is not None and turn.letters and not self.rules.sends_with_the_turn:
            world = world._replace(letters=tuple(sorted({*world.letters, *turn.letters})))
        after, answer = self.promise.commit(world, at)
        if answer is DEAD:
            return self._drop(after, at)
        if answer is not APPLIED:
            return seated(after, at, self.worker.conflict(after.seats[at]))
        seat = after.seats[at]
        if seat.releases:
            # Whatever it hears of this turn, and when: it has nothing more to do with the saga.
            after = seated(after, at, FRESH, self.network.ghosts(after, seat.calls))
        return self._checked(world, after)

    def _forget_turn(self, world: World, at: int, seat: Seat) -> World:
        """Take silence for an answer: read what is there, while the turn is still on its way. Atone does not."""
        turn = seat.turn
        assert turn is not None
        orphans = (*world.orphans, Orphan(turn, seat.releases, seat.behind, seat.fenced))
        return seated(world._replace(orphans=orphans), at, self.worker.conflict(seat))

    def _read(self, world: World, at: int, seat: Seat) -> World:
        if at != 0 or world.owner is not Owner.FIRST:
            return self._drop(world, at)
        return seated(world, at, self.worker.reload(seat, world.saga))

    def _built(self, seat: Seat, what: str) -> Seat:
        told = self.book.told(message_of(seat.wanted, what))
        return self.worker.go_on(seat._replace(wanted=(), queue=(told, *seat.queue)))

    def _drained(self, seat: Seat) -> Seat:
        seat = seat._replace(draining=True)
        for wire in seat.calls:
            if not wire.told:
                seat = self.worker.tell(seat, facts.Interrupted(wire.step, wire.operation, wire.attempt))
        calls = tuple(wire._replace(told=True) for wire in seat.calls)
        return self.worker.tell(seat._replace(calls=calls), facts.Woke())

    def _drop(self, world: World, at: int) -> World:
        """Forget the saga, with its process or without it; what it had called may still arrive."""
        owner = Owner.GONE if at == 0 and world.owner is Owner.FIRST else world.owner
        ghosts = self.network.ghosts(world, world.seats[at].calls)
        return seated(world._replace(owner=owner), at, FRESH, ghosts)

    # Claims

    def _claims(self, world: World) -> Iterator[Move]:
        place = next((at for at, seat in enumerate(world.seats) if seat == FRESH), None)
        if place is None or world.saga.is_final:
            return
        if world.owner is Owner.FIRST and world.seats[0] == FRESH:
            if self.rules.finds_my_own:
                yield "claim again", 0, self._claim(world, 0)
            place = 1 if len(world.seats) > 1 and world.seats[1] == FRESH else None
        elif self.promise.is_due(world):
            yield "claim", place, self._claim(world, place)
            if world.budget:
                yield "claim without an answer", place, self.promise.claim(spent(world), place)
            return
        if place and world.owner is Owner.FIRST and world.budget:
            yield "take over a live one", place, self._claim(spent(world), place)

    def _claim(self, world: World, at: int) -> World:
        after = self.promise.claim(world, at)
        return seated(after, 0, self.worker.resume(after.saga))

    def _asks(self, world: World) -> Iterator[Move]:
        if world.saga.is_final:
            return
        for kind in self.asks:
            if kind == "drain" or kind in world.asked or (kind == "event" and self._event is None):
                continue
            parked = world.saga.state.status is SagaStatus.NEEDS_ATTENTION
            if kind == "retry" and not parked:
                continue
            request = Request(kind, kind, "ann", "because")
            if kind == "event":
                request = request._replace(event=self._event, payload=b'"event"')
            asked = tuple(sorted((*world.asked, kind)))
            after = spent(world)._replace(asked=asked, forced=world.forced or kind == "retry")
            yield "ask", -1, self.promise.deliver(after, request)

    def _checked(self, before: World, after: World) -> World:
        if after.saga is not before.saga:
            self.judge.ended(after)
        return after
