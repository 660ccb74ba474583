"""What there is at one moment: a journal, the workers at it, the participants, and what is on its way between them.

Owns the shapes alone, as hashable data. The first seat is the owner's, or the last one's that was: so two worlds that
differ only in the workers' names are one. Times count from now.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from atone._core.commands import AskMessage
from tests.core.world import Participant, Wire
from tests.model.book import Decided, Saga, Told


class Owner(IntEnum):
    """Whose the saga is, as the store has it. GONE: it has an owner, and that process is no more."""

    NOBODY = 0
    FIRST = 1
    GONE = 2


class Seat(NamedTuple):
    """One worker, as far as this saga goes. All in its memory but `behind`, `landed` and `fenced`, which are the truth.

    `memory` is None if the saga is not in its registry; `behind`: the journal has a row that it has not read. `turn` is
    being written, `landed`: and stands in the journal, but the answer was not heard; `releases`: it gives the saga up.
    `reading`: it is loading the saga again. `queue`: facts that wait for the write under way. `fenced`: somebody has
    declared this life dead.
    """

    memory: Saga | None = None
    behind: bool = False
    turn: Decided | None = None
    landed: bool = False
    releases: bool = False
    reading: bool = False
    queue: tuple[Told, ...] = ()
    calls: tuple[Wire, ...] = ()
    asks: tuple[str, ...] = ()
    wanted: tuple[AskMessage, ...] = ()
    wake_at: float | None = None
    fenced: bool = False
    draining: bool = False

    @property
    def is_busy(self) -> bool:
        """Whether a fact has to wait."""
        return self.turn is not None or self.reading or bool(self.wanted)


FRESH = Seat()


class Orphan(NamedTuple):
    """A turn that was sent, and whose sender has died or does not wait for it; `behind`: its version is taken."""

    turn: Decided
    releases: bool
    behind: bool
    fenced: bool = False


class World(NamedTuple):
    """Everything. `ghosts` are calls that nobody listens to and that may still arrive; `letters` are commands sent.

    `asked` names what people have asked for; `forced`: an at-most-once step was called again because a person said so.
    """

    saga: Saga
    owner: Owner
    wake_at: float | None
    seats: tuple[Seat, ...]
    there: tuple[Participant, ...]
    ghosts: tuple[Wire, ...] = ()
    letters: tuple[Wire, ...] = ()
    orphans: tuple[Orphan, ...] = ()
    asked: tuple[str, ...] = ()
    budget: int = 0
    forced: bool = False


def without(wires: tuple[Wire, ...], wire: Wire) -> tuple[Wire, ...]:
    """Return the calls without one of them."""
    at = wires.index(wire)
    return wires[:at] + wires[at + 1 :]


def spent(world: World) -> World:
    """Return the world after one more fault."""
    letters = world.letters
    if world.budget == 1 and letters:
        # What was answered can only come twice, and nothing can go wrong any more.
        letters = tuple(wire for wire in letters if not wire.told)
    saga, owner, wake_at, seats, there, ghosts, _, orphans, asked, budget, forced = world
    return World(saga, owner, wake_at, seats, there, ghosts, letters, orphans, asked, budget - 1, forced)


def seated(world: World, at: int, seat: Seat, ghosts: tuple[Wire, ...] | None = None) -> World:
    """Return the world with this seat; `_replace` would take three times as long, and this is half of all there is."""
    saga, owner, wake_at, seats, there, before, letters, orphans, asked, budget, forced = world
    if seat == FRESH and (at or owner is not Owner.FIRST):
        # Those who know nothing of the saga are alike, so they stand last.
        seats = (*seats[:at], *seats[at + 1 :], FRESH)
    else:
        seats = (*seats[:at], seat, *seats[at + 1 :])
    now = before if ghosts is None else ghosts
    return World(saga, owner, wake_at, seats, there, now, letters, orphans, asked, budget, forced)
