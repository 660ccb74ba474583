"""Time: what is due next, and the world as it looks then.

Owns the one clock. Nothing is made late by it for free: a commit, a reply or a call that misses its time is a fault.
Called by `moves.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

from atone._core.plan import Plan
from tests.model.book import Book
from tests.model.network import Move, Network
from tests.model.world import FRESH, Owner, Seat, World, spent


class Passing:
    """How time passes for one plan."""

    def __init__(self, plan: Plan, book: Book, network: Network) -> None:
        self.plan = plan
        self.book = book
        self.network = network
        self._barriers = frozenset(step.name for step in plan.steps if step.barrier)

    def of(self, world: World) -> Iterator[Move]:
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
                if not wire.answer and not seat.fenced and wire.step not in self._barriers:
                    lost_at = min(lost_at, wire.deadline + grace)
        free = min((time for time in times if time > 0.0), default=lost_at)
        if free < min(lost_at, *too_late, 1e9):
            yield "tick", -1, self._tick(world, free)
        if world.budget:
            for seconds in sorted({time for time in too_late if time <= min(free, lost_at)}):
                yield "stall", -1, self._tick(spent(world), seconds)

    def _tick(self, world: World, seconds: float) -> World:
        book = self.book
        seats = tuple(seat if seat == FRESH else self._seat_later(seat, seconds) for seat in world.seats)
        wake_at = None if world.wake_at is None else max(world.wake_at - seconds, 0.0)
        ghosts = tuple(
            wire for wire in (book.wire_later(one, seconds) for one in world.ghosts) if self.network.may_arrive(wire)
        )
        letters = tuple(book.wire_later(wire, seconds) for wire in world.letters)
        orphans = tuple(orphan._replace(turn=book.decided_later(orphan.turn, seconds)) for orphan in world.orphans)
        saga = book.later(world.saga, seconds)
        return world._replace(saga=saga, wake_at=wake_at, seats=seats, ghosts=ghosts, letters=letters, orphans=orphans)

    def _seat_later(self, seat: Seat, seconds: float) -> Seat:
        book = self.book
        calls = tuple(book.wire_later(wire, seconds) for wire in seat.calls)
        kept = tuple(wire for wire in calls if not wire.told or self.network.may_arrive(wire) or wire.answer)
        return seat._replace(
            memory=None if seat.memory is None else book.later(seat.memory, seconds),
            turn=None if seat.turn is None else book.decided_later(seat.turn, seconds),
            calls=kept,
            wake_at=None if seat.wake_at is None else max(seat.wake_at - seconds, 0.0),
        )
