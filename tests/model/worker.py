"""What a worker does with one saga: facts in, decisions written, then performed. The order of `_runtime/runner.py`.

Owns one seat's memory from turn to turn: one turn at a time, nothing performed before it is durable, facts wait for the
write under way. Must not look at the journal but by a claim or a reload. `rules` can break the order.
"""

from __future__ import annotations

from atone._core import facts
from atone._core.facts import Fact
from tests.core.invariants import rule
from tests.core.world import OOPS, Wire
from tests.model.book import Book, Decided, Saga, Told
from tests.model.rules import Rules
from tests.model.world import Seat

# A saga that has to wait for longer than this is given up and claimed again.
KEEP_SECONDS = 2.0


class Worker:
    """The shell around `decide`, for any seat."""

    def __init__(self, book: Book, rules: Rules) -> None:
        self.book = book
        self.rules = rules

    def tell(self, seat: Seat, fact: Fact) -> Seat:
        """Add a fact; it is decided as soon as nothing is being written."""
        return self.go_on(seat._replace(queue=(*seat.queue, self.book.told(fact))))

    def resume(self, saga: Saga) -> Seat:
        """Go on with a saga that was claimed: whoever ran its open attempts is gone."""
        told = self._lost(saga) if self.rules.tells_lost else ()
        return self.go_on(Seat(memory=saga, queue=(*told, self.book.woke)))

    def _lost(self, saga: Saga) -> tuple[Told, ...]:
        pairs = zip(self.book.plan.steps, saga.state.steps, strict=True)
        return tuple(
            self.book.told(facts.Lost(step.name, state.open.operation, state.open.attempt))
            for step, state in pairs
            if state.open is not None
        )

    def reload(self, seat: Seat, saga: Saga) -> Seat:
        """Go on from what was read; attempts under way here stay under way."""
        told = () if self.rules.live_stay_live else self._lost(saga)
        queue = (*told, *seat.queue, self.book.woke)
        return self.go_on(seat._replace(memory=saga, behind=False, reading=False, queue=queue))

    def applied(self, seat: Seat) -> Seat:
        """Hear that the turn is durable: perform it."""
        turn = seat.turn
        assert turn is not None
        written = seat._replace(memory=turn.after, turn=None, landed=False)
        if self.rules.commit_first:
            written = self._perform(written, turn)
        return self.go_on(written)

    def conflict(self, seat: Seat) -> Seat:
        """Hear that somebody appended first: keep the fact, read what they wrote, decide again."""
        turn = seat.turn
        assert turn is not None
        queue = (turn.told, *seat.queue) if self.rules.keeps_the_fact else seat.queue
        reads = self.rules.reads_after_conflict
        return self.go_on(seat._replace(turn=None, landed=False, releases=False, reading=reads, queue=queue))

    def go_on(self, seat: Seat) -> Seat:
        """Decide what waits, until something is to be written."""
        while seat.queue and not seat.is_busy:
            told = seat.queue[0]
            assert seat.memory is not None
            decided = self.book.decide(seat.memory, told, not seat.draining)
            seat = seat._replace(queue=seat.queue[1:])
            releases = self._releases(seat, decided)
            if decided.entries or releases:
                seat = seat._replace(turn=decided, releases=releases)
                return seat if self.rules.commit_first else self._perform(seat, decided)
            seat = self._perform(seat, decided)
        return seat

    def _releases(self, seat: Seat, decided: Decided) -> bool:
        """Whether the saga needs no owner after this: it is over, waits for a person, or for long enough."""
        is_over = decided.after.is_final and self.rules.gives_up_what_is_over
        if not decided.idle or ((seat.queue or seat.asks) and not is_over):
            return False
        if decided.wake_at is None or seat.draining:
            return True
        return not seat.calls and decided.wake_at > KEEP_SECONDS

    def _perform(self, seat: Seat, decided: Decided) -> Seat:
        calls, queue = seat.calls, seat.queue
        # One that was declared dead calls too, as if its clock were wrong: the law must not need the look at the lease.
        if decided.calls:
            begun, late = self._begun(decided.calls)
            for wire in begun:
                twice = any(one.step == wire.step and not one.told for one in calls)
                rule(not twice, f"two calls of {wire.step} at once in one worker")
            calls, queue = tuple(sorted((*calls, *begun))), (*queue, *late)
        asks = tuple(sorted({*seat.asks, *decided.asks})) if decided.asks else seat.asks
        if seat.draining and decided.idle and not asks and not queue:
            queue = (self.book.woke,)
        wake_at = None if seat.draining else decided.wake_at
        return seat._replace(calls=calls, asks=asks, wanted=decided.wanted, queue=queue, wake_at=wake_at)

    def _begun(self, wires: tuple[Wire, ...]) -> tuple[tuple[Wire, ...], tuple[Told, ...]]:
        """Begin calls, but none after its hard end: it could have its effect after its undo."""
        if all(wire.deadline > 0.0 for wire in wires):
            return wires, ()
        if not self.rules.nothing_begins_late:
            return tuple(wire._replace(deadline=max(wire.deadline, 0.0)) for wire in wires), ()
        late = [wire for wire in wires if wire.deadline <= 0.0]
        told = tuple(self.book.told(facts.CameToNothing(*wire[:3], OOPS)) for wire in late)
        return tuple(wire for wire in wires if wire not in late), told
