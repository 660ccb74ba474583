"""What the store promises, in one place: the port's contract (`atone/store.py`) in as few lines as it can be said.

A row is appended only by a live owner, at the very version that its writer has folded; one that stands there already
under the same commit id is applied, not written twice. A claim declares the owner dead, for ever, and only then takes.
Outside writers append too, at the next version, and what nobody owns is due then. Must not know what a row means.
"""

from __future__ import annotations

from atone._core.state import Request
from tests.model.book import Book, Decided
from tests.model.rules import Rules
from tests.model.world import FRESH, Orphan, Owner, Seat, World

APPLIED, CONFLICT, DEAD = "applied", "conflict", "dead"


class Promise:
    """The store, for one saga. `rules` can break it."""

    def __init__(self, book: Book, rules: Rules) -> None:
        self.book = book
        self.rules = rules

    def commit(self, world: World, at: int) -> tuple[World, str]:
        """Judge the turn that the worker `at` writes, and append it if it fits: the three checks, then the row."""
        seat, rules = world.seats[at], self.rules
        turn = seat.turn
        assert turn is not None
        if seat.fenced and rules.fence:
            return world, DEAD
        if seat.landed and rules.commit_id:
            return world, APPLIED
        if rules.compare_and_swap and (seat.behind or seat.landed):
            return world, CONFLICT
        seats = self._overtaken(world.seats, at)
        landed = seats[at]._replace(landed=True, behind=False)
        seats = (*seats[:at], landed, *seats[at + 1 :])
        after = self._append(world, turn, seat.releases, is_stale=seat.behind or seat.landed)
        return after._replace(seats=seats, orphans=_stale(world.orphans)), APPLIED

    def deliver_orphan(self, world: World, which: int) -> World:
        """Append a turn that its sender does not wait for, if it still fits."""
        orphan = world.orphans[which]
        left = world._replace(orphans=world.orphans[:which] + world.orphans[which + 1 :])
        if (orphan.fenced and self.rules.fence) or (orphan.behind and self.rules.compare_and_swap):
            return left
        after = self._append(left, orphan.turn, orphan.releases, is_stale=orphan.behind)
        return after._replace(seats=self._overtaken(left.seats, None), orphans=_stale(left.orphans))

    def claim(self, world: World, at: int) -> World:
        """Give the saga to the worker `at`; whoever had it is dead from now on. Its seat becomes the first."""
        seats = world.seats
        if at != 0 or world.owner is not Owner.FIRST:
            was = seats[0] if at != 0 and world.owner is Owner.FIRST else None
            others = [seat for place, seat in enumerate(seats) if place != at]
            if was is not None:
                others[0] = was._replace(fenced=True)
            # Those who know nothing of the saga are alike, so they stand last.
            others.sort(key=lambda seat: seat == FRESH)
            seats = (seats[at], *others)
        orphans = tuple(orphan._replace(fenced=True) for orphan in world.orphans)
        if self.rules.fence:
            orphans = ()
        return world._replace(seats=seats, owner=Owner.FIRST, wake_at=None, orphans=orphans)

    def deliver(self, world: World, request: Request) -> World:
        """Append a request as the next row; a saga that nobody owns is due at once, one that is over is left alone."""
        if world.saga.is_final and self.rules.refuses_after_end:
            return world
        saga = self.book.received(world.saga, request)
        seats = self._overtaken(world.seats, None)
        due = 0.0 if world.owner is Owner.NOBODY and self.rules.wakes_on_request else world.wake_at
        return world._replace(saga=saga, seats=seats, wake_at=due, orphans=_stale(world.orphans))

    def is_due(self, world: World) -> bool:
        """Whether somebody who owns nothing may take the saga without its owner's being late."""
        if world.saga.is_final:
            return False
        if world.owner is Owner.NOBODY:
            return world.wake_at is not None and world.wake_at <= 0.0
        return world.owner is Owner.GONE and self.rules.takes_from_the_dead

    def _append(self, world: World, turn: Decided, releases: bool, *, is_stale: bool) -> World:
        saga = self.book.folded(world.saga, turn.entries) if is_stale else turn.after
        owner, wake_at = (Owner.NOBODY, turn.wake_at) if releases else (world.owner, world.wake_at)
        letters = world.letters
        if turn.letters:
            letters = tuple(sorted({*letters, *turn.letters}))
        return world._replace(saga=saga, owner=owner, wake_at=wake_at, letters=letters)

    def _overtaken(self, seats: tuple[Seat, ...], writer: int | None) -> tuple[Seat, ...]:
        """Return the seats after somebody has appended a row: the others have not read it."""
        return tuple(
            seat
            if place == writer or seat.behind or (seat.memory is None and seat.turn is None)
            else seat._replace(behind=True)
            for place, seat in enumerate(seats)
        )


def _stale(orphans: tuple[Orphan, ...]) -> tuple[Orphan, ...]:
    return tuple(orphan._replace(behind=True) for orphan in orphans) if orphans else orphans
