"""What may happen next, and what it leads to: every move of the workers, the network, the participants and people.

Owns the list of moves and what each uses up of the budget of faults. A move that costs nothing happens in a world
without faults too. Must not judge; `judge.py` is asked at the moments that matter.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, TypeAlias

from atone._core import facts
from atone._core.facts import ACTION, PROBE
from atone._core.plan import Plan
from atone._core.state import Request, SagaStatus
from tests.core.world import OOPS, Participant, Wire, fact_of, message_of, receive, result_of
from tests.model.book import Book
from tests.model.judge import Judge
from tests.model.promise import APPLIED, DEAD, Promise
from tests.model.rules import ATONE, Rules
from tests.model.worker import Worker
from tests.model.world import FRESH, Orphan, Owner, Seat, World

Move: TypeAlias = tuple[str, int, World]
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
        self._steps = {step.name: step for step in plan.steps}
        self._bare = {step.name: replace(step, barrier=False) for step in plan.steps}

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
            yield (
                "late arrival",
                -1,
                self._arrive(world._replace(ghosts=_without(world.ghosts, wire)), wire, "arrive")[0],
            )
        for wire in world.letters:
            yield from self._of_letter(world, wire)
        if world.budget:
            yield from self._asks(world)
        yield from self._time(world)

    # One worker

    def _of_seat(self, world: World, at: int, seat: Seat) -> Iterator[Move]:
        worker, budget = self.worker, world.budget
        if seat.turn is not None:
            yield from self._of_turn(world, at, seat)
        elif seat.reading:
            yield "read", at, self._read(world, at, seat)
        elif seat.wanted:
            yield "build", at, _seated(world, at, self._built(seat, "build"))
            if budget:
                yield "unbuilt", at, _seated(_spent(world), at, self._built(seat, "unbuilt"))
        else:
            if seat.behind and not seat.draining:
                yield "look", at, self._read(world, at, seat)
            if seat.wake_at is not None and seat.wake_at <= 0.0:
                yield "wake", at, _seated(world, at, worker.tell(seat, facts.Woke()))
        if seat.asks:
            yield from self._told_condition(world, at, seat)
        for wire in seat.calls:
            yield from self._of_call(world, at, seat, wire)
        if seat.fenced:
            yield "learn of its death", at, self._drop(world, at)
        if budget:
            yield from self._ends(_spent(world), at, seat)

    def _of_turn(self, world: World, at: int, seat: Seat) -> Iterator[Move]:
        if seat.landed:
            yield "hear", at, _seated(world, at, self.worker.applied(seat))
            # Sent again, it is applied again; only where that differs from hearing the first answer is it told apart.
            if world.budget and (seat.fenced or not self.rules.commit_id):
                yield "answer lost", at, self._commit(_spent(world), at)
            return
        yield "commit", at, self._commit(world, at)
        if world.budget and not self.rules.sends_again:
            yield "answer lost", at, self._forget_turn(_spent(world), at, seat)

    def _told_condition(self, world: World, at: int, seat: Seat) -> Iterator[Move]:
        for step in seat.asks:
            left = seat._replace(asks=tuple(one for one in seat.asks if one != step))
            yield "say yes", at, _seated(world, at, self.worker.tell(left, facts.ConditionTold(step, True)))
            yield "say no", at, _seated(world, at, self.worker.tell(left, facts.ConditionTold(step, False)))
            if world.budget:
                yield "raise", at, _seated(_spent(world), at, self.worker.tell(left, facts.ConditionFailed(step, OOPS)))

    def _ends(self, world: World, at: int, seat: Seat) -> Iterator[Move]:
        yield "crash", at, self._drop(world, at)
        if seat.turn is not None and not seat.landed and not seat.fenced:
            gone = self._drop(world, at)
            orphan = Orphan(seat.turn, seat.releases, seat.behind)
            yield "crash with a turn on its way", at, gone._replace(orphans=(*gone.orphans, orphan))
        if "drain" in self.asks and not seat.draining and not seat.fenced:
            yield "drain", at, _seated(world, at, self._drained(seat))

    def _commit(self, world: World, at: int) -> World:
        turn = world.seats[at].turn
        if turn is not None and turn.letters and not self.rules.sends_with_the_turn:
            world = world._replace(letters=tuple(sorted({*world.letters, *turn.letters})))
        after, answer = self.promise.commit(world, at)
        if answer is DEAD:
            return self._drop(after, at)
        if answer is not APPLIED:
            return _seated(after, at, self.worker.conflict(after.seats[at]))
        seat = after.seats[at]
        if seat.releases:
            # Whatever it hears of this turn, and when: it has nothing more to do with the saga.
            after = _seated(after, at, FRESH, self._ghosts(after, seat.calls))
        return self._checked(world, after)

    def _forget_turn(self, world: World, at: int, seat: Seat) -> World:
        """Take silence for an answer: read what is there, while the turn is still on its way. Atone does not."""
        turn = seat.turn
        assert turn is not None
        orphans = (*world.orphans, Orphan(turn, seat.releases, seat.behind, seat.fenced))
        return _seated(world._replace(orphans=orphans), at, self.worker.conflict(seat))

    def _read(self, world: World, at: int, seat: Seat) -> World:
        if at != 0 or world.owner is not Owner.FIRST:
            return self._drop(world, at)
        return _seated(world, at, self.worker.reload(seat, world.saga))

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
        ghosts = self._ghosts(world, world.seats[at].calls)
        return _seated(world._replace(owner=owner), at, FRESH, ghosts)

    def _ghosts(self, world: World, wires: tuple[Wire, ...]) -> tuple[Wire, ...]:
        found = {wire._replace(told=False) for wire in wires if self._may_arrive(wire) and wire.operation is not PROBE}
        return tuple(sorted(found.union(world.ghosts))) if found else world.ghosts

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
                yield "claim without an answer", place, self.promise.claim(_spent(world), place)
            return
        if place and world.owner is Owner.FIRST and world.budget:
            yield "take over a live one", place, self._claim(_spent(world), place)

    def _claim(self, world: World, at: int) -> World:
        after = self.promise.claim(world, at)
        return _seated(after, 0, self.worker.resume(after.saga))

    # Calls

    def _may_arrive(self, wire: Wire) -> bool:
        if wire.answer:
            return False
        if self._steps[wire.step].barrier or not self.rules.grace:
            return True
        return wire.deadline + self.plan.late_grace_seconds > 0.0

    def _of_call(self, world: World, at: int, seat: Seat, wire: Wire) -> Iterator[Move]:
        worker = self.worker
        others = _without(seat.calls, wire)
        if not wire.answer and self._may_arrive(wire):
            for what in ("arrive", "refuse", "cannot tell"):
                if self._answers(what, wire, world.budget):
                    paid = world if what == "arrive" else _spent(world)
                    yield what, at, self._arrive_at(paid, at, seat, wire, what)
        if not wire.told:
            if wire.answer:
                yield "reply", at, _seated(world, at, worker.tell(seat._replace(calls=others), fact_of(wire)))
            # It costs nothing to give up what will never be answered.
            is_hopeless = wire.deadline <= 0.0 and not wire.answer and not self._may_arrive(wire)
            if is_hopeless or world.budget:
                nothing = facts.CameToNothing(wire.step, wire.operation, wire.attempt, OOPS)
                after = _seated(world, at, worker.tell(seat._replace(calls=self._given_up(others, wire)), nothing))
                yield ("time out", at, after) if is_hopeless else ("break", at, _spent(after))
        elif wire.answer == "ok" and world.budget:
            landed = facts.Succeeded(wire.step, ACTION, wire.attempt, result_of(wire.step))
            yield "late", at, _seated(_spent(world), at, worker.tell(seat._replace(calls=others), landed))
        if world.budget and wire.answer != "refused" and self._may_come_twice(wire):
            ghost = wire._replace(answer="", told=False)
            if ghost not in world.ghosts and self._may_arrive(ghost):
                ghosts = tuple(sorted((*world.ghosts, ghost)))
                yield "twice", at, _spent(world)._replace(ghosts=ghosts)

    def _answers(self, what: str, wire: Wire, budget: int) -> bool:
        if what == "arrive":
            return True
        return bool(budget) and (what == "cannot tell") is (wire.operation is PROBE)

    def _given_up(self, others: tuple[Wire, ...], wire: Wire) -> tuple[Wire, ...]:
        """Return the calls with one that is not waited for any more, if it can still matter."""
        told = wire._replace(told=True)
        matters = wire.operation is not PROBE and (
            self._may_arrive(wire) or (wire.answer == "ok" and wire.operation is ACTION)
        )
        return tuple(sorted((*others, told))) if matters else others

    def _may_come_twice(self, wire: Wire) -> bool:
        step = self._steps[wire.step]
        return wire.operation is not PROBE and (step.barrier or not step.at_most_once)

    def _arrive_at(self, world: World, at: int, seat: Seat, wire: Wire, what: str) -> World:
        after, answer = self._arrive(world, wire, what)
        if answer == "refused":
            # A participant that has refused a call refuses its copies.
            copy = wire._replace(told=False)
            after = after._replace(ghosts=tuple(ghost for ghost in after.ghosts if ghost != copy))
        others = _without(seat.calls, wire)
        if wire.told and not (answer == "ok" and wire.operation is ACTION):
            return _seated(after, at, seat._replace(calls=others))
        calls = tuple(sorted((*others, wire._replace(answer=answer))))
        return _seated(after, at, seat._replace(calls=calls))

    def _arrive(self, world: World, wire: Wire, what: str) -> tuple[World, str]:
        place, how = self.plan.index[wire.step], "cannot" if what == "cannot tell" else what
        step = self._heeded(wire.step)
        known = world.there[place]
        if not self.rules.keys:
            known = known._replace(acted=known.acted and step.barrier)
        there, answer = receive(step, known, wire.operation, how)
        after = world._replace(there=(*world.there[:place], there, *world.there[place + 1 :]))
        self.judge.arrived(world, after, wire)
        return after, answer

    def _heeded(self, name: str) -> Any:
        step = self._steps[name]
        if self.rules.barrier or not step.barrier:
            return step
        return self._bare[name]

    # Commands, and what people ask for

    def _of_letter(self, world: World, wire: Wire) -> Iterator[Move]:
        others = _without(world.letters, wire)
        if not wire.answer:
            if not self._may_arrive(wire):
                yield "lost for good", -1, world._replace(letters=others)
                return
            for what in ("arrive", "refuse") if world.budget else ("arrive",):
                after, answer = self._arrive(world, wire, what)
                left = tuple(sorted((*others, wire._replace(answer=answer))))
                after = after._replace(letters=left)
                yield what, -1, after if what == "arrive" else _spent(after)
            if world.budget:
                yield "lost in the post", -1, _spent(world)._replace(letters=others)
        elif not wire.told:
            yield "answer", -1, self._reply(world, others, wire, "answer")
            if world.budget:
                yield "lost in the post", -1, _spent(world)._replace(letters=others)
        elif world.budget:
            yield "reply twice", -1, self._reply(_spent(world), others, wire, "repeat")

    def _reply(self, world: World, others: tuple[Wire, ...], wire: Wire, what: str) -> World:
        name = f"{wire.operation}-{wire.step}-{wire.attempt}-{what}"
        landed = wire.answer == "ok"
        payload = result_of(wire.step) if landed else None
        request = Request(name, "reply", "there", "no", wire.step, None, payload, landed, wire.operation, wire.attempt)
        kept = others
        if what == "answer" and world.budget:
            kept = tuple(sorted((*others, wire._replace(told=True, deadline=0.0))))
        return self.promise.deliver(world._replace(letters=kept), request)

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
            after = _spent(world)._replace(asked=asked, forced=world.forced or kind == "retry")
            yield "ask", -1, self.promise.deliver(after, request)

    # Time

    def _time(self, world: World) -> Iterator[Move]:
        """Let time pass until something is due. It is a fault if that makes something late that was in time.

        A call is not lost by waiting: one that is was broken off, which is a fault too.
        """
        times = [] if world.wake_at is None or world.owner is not Owner.NOBODY else [world.wake_at]
        too_late = [wire.deadline for wire in world.letters if not wire.told and wire.deadline > 0.0]
        lost_at, grace = 1e9, self.plan.late_grace_seconds
        for seat in world.seats:
            if seat.wake_at is not None and not seat.is_busy:
                times.append(seat.wake_at)
            if seat.turn is not None and not seat.fenced:
                # A commit may take as long as the call may, or so long that it could not even arrive any more.
                ends = {wire.deadline + more for wire in seat.turn.calls for more in (0.0, grace)}
                too_late += [end for end in ends if end > 0.0]
            for wire in seat.calls:
                if wire.told:
                    continue
                times.append(wire.deadline)
                if not wire.answer and not seat.fenced and not self._steps[wire.step].barrier:
                    lost_at = min(lost_at, wire.deadline + grace)
        free = min((time for time in times if time > 0.0), default=lost_at)
        if free < min(lost_at, *too_late, 1e9):
            yield "tick", -1, self._tick(world, free)
        if world.budget:
            for seconds in sorted({time for time in too_late if time <= min(free, lost_at)}):
                yield "stall", -1, self._tick(_spent(world), seconds)

    def _tick(self, world: World, seconds: float) -> World:
        book = self.book
        seats = tuple(seat if seat == FRESH else self._seat_later(seat, seconds) for seat in world.seats)
        wake_at = None if world.wake_at is None else max(world.wake_at - seconds, 0.0)
        ghosts = tuple(
            wire for wire in (book.wire_later(one, seconds) for one in world.ghosts) if self._may_arrive(wire)
        )
        letters = tuple(book.wire_later(wire, seconds) for wire in world.letters)
        orphans = tuple(orphan._replace(turn=book.decided_later(orphan.turn, seconds)) for orphan in world.orphans)
        saga = book.later(world.saga, seconds)
        return world._replace(saga=saga, wake_at=wake_at, seats=seats, ghosts=ghosts, letters=letters, orphans=orphans)

    def _seat_later(self, seat: Seat, seconds: float) -> Seat:
        book = self.book
        calls = tuple(book.wire_later(wire, seconds) for wire in seat.calls)
        kept = tuple(wire for wire in calls if not wire.told or self._may_arrive(wire) or wire.answer)
        return seat._replace(
            memory=None if seat.memory is None else book.later(seat.memory, seconds),
            turn=None if seat.turn is None else book.decided_later(seat.turn, seconds),
            calls=kept,
            wake_at=None if seat.wake_at is None else max(seat.wake_at - seconds, 0.0),
        )

    def _checked(self, before: World, after: World) -> World:
        if after.saga is not before.saga:
            self.judge.ended(after)
        return after


def _without(wires: tuple[Wire, ...], wire: Wire) -> tuple[Wire, ...]:
    at = wires.index(wire)
    return wires[:at] + wires[at + 1 :]


def _spent(world: World) -> World:
    letters = world.letters
    if world.budget == 1 and letters:
        # What was answered can only come twice, and nothing can go wrong any more.
        letters = tuple(wire for wire in letters if not wire.told)
    saga, owner, wake_at, seats, there, ghosts, _, orphans, asked, budget, forced = world
    return World(saga, owner, wake_at, seats, there, ghosts, letters, orphans, asked, budget - 1, forced)


def _seated(world: World, at: int, seat: Seat, ghosts: tuple[Wire, ...] | None = None) -> World:
    """Return the world with this seat; `_replace` would take three times as long, and this is half of all there is."""
    saga, owner, wake_at, seats, there, before, letters, orphans, asked, budget, forced = world
    if seat == FRESH and (at or owner is not Owner.FIRST):
        # Those who know nothing of the saga are alike, so they stand last.
        seats = (*seats[:at], *seats[at + 1 :], FRESH)
    else:
        seats = (*seats[:at], seat, *seats[at + 1 :])
    now = before if ghosts is None else ghosts
    return World(saga, owner, wake_at, seats, there, now, letters, orphans, asked, budget, forced)
