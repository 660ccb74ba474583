"""Look everywhere: breadth-first over all that can happen, then back from every end to see that none is out of reach.

Owns the search and what it found: figures, or a broken rule with the moves that lead to it. Must not know what a move
means.
"""

from __future__ import annotations

import gc
import time
from array import array
from dataclasses import dataclass
from itertools import pairwise

from atone._core.state import SagaStatus
from tests.model.moves import FAULTS, Moves
from tests.model.network import Move
from tests.model.world import Owner, World

STUCK = "stuck: without further faults it never ends, nor asks for a person"


@dataclass(frozen=True)
class Found:
    """What a search has come to. `broken` is None if nothing broke; `way` is how it came about, move by move."""

    plan: str
    states: int
    transitions: int
    depth: int
    seconds: float
    cpu_seconds: float
    complete: bool
    ends: int
    broken: str | None = None
    way: tuple[str, ...] = ()

    def __str__(self) -> str:
        how = "".join(f"\n    {line}" for line in self.way)
        rate = self.states / max(self.seconds, 1e-9)
        size = f"{self.states:>9,} states {self.transitions:>10,} transitions  depth {self.depth:>3}"
        cut = "" if self.complete else "  (cut short)"
        ended = f"\n  BROKEN: {self.broken}{how}" if self.broken else ""
        return f"{self.plan:24} {size}  {self.seconds:6.1f} s {rate:>7,.0f}/s{cut}{ended}"


class Search:
    """One search through the worlds of one plan."""

    def __init__(self, name: str, moves: Moves, states_max: int) -> None:
        self.name = name
        self.moves = moves
        self.states_max = states_max
        self.worlds: list[World] = []
        self._at: dict[World, int] = {}
        self._came = array("l")
        self._kind_from = array("l")
        self._kind_to = array("l")
        self.transitions = 0
        self.depth = 0

    def run(self) -> Found:
        """Search to the end, or until `states_max`; stop at the first broken rule."""
        began, cpu_began = time.monotonic(), time.process_time()
        collects = gc.isenabled()
        gc.disable()
        try:
            broken, at, complete = self._forward()
            if broken is None:
                at = self._first_stuck(complete)
                broken = None if at is None else STUCK
            way = () if at is None else tuple(self._way(at, broken))
        finally:
            if collects:
                gc.enable()
        seconds, cpu_seconds = time.monotonic() - began, time.process_time() - cpu_began
        ends = sum(1 for world in self.worlds if world.saga.is_final)
        size = (len(self.worlds), self.transitions, self.depth)
        return Found(self.name, *size, seconds, cpu_seconds, complete, ends, broken, way)

    def _forward(self) -> tuple[str | None, int | None, bool]:
        worlds, known, came = self.worlds, self._at, self._came
        for world in self.moves.first():
            self._add(world, -1)
        kind_from, kind_to = self._kind_from, self._kind_to
        at, level_ends, of = 0, len(worlds), self.moves.of
        while at < len(worlds):
            if at == level_ends:
                self.depth, level_ends = self.depth + 1, len(worlds)
            try:
                for name, _, after in of(worlds[at]):
                    self.transitions += 1
                    place = known.get(after)
                    if place is None:
                        place = known[after] = len(worlds)
                        worlds.append(after)
                        came.append(at)
                    if name not in FAULTS:
                        kind_from.append(at)
                        kind_to.append(place)
            except (AssertionError, LookupError, ValueError) as broken:
                return str(broken) or repr(broken), at, False
            at += 1
            if len(worlds) >= self.states_max:
                return None, None, False
        return None, None, True

    def _add(self, world: World, came: int) -> None:
        self._at[world] = len(self.worlds)
        self.worlds.append(world)
        self._came.append(came)

    def _first_stuck(self, complete: bool) -> int | None:
        """Return a world from which no end can be reached without faults; None if there is none."""
        good = bytearray(_is_end(world) for world in self.worlds)
        if not complete:
            return None
        moved = True
        while moved:
            moved = False
            # Newest first: a world's successors are mostly younger than itself.
            for source, target in zip(reversed(self._kind_from), reversed(self._kind_to), strict=True):
                if good[target] and not good[source]:
                    good[source] = 1
                    moved = True
        stuck = good.find(0)
        return None if stuck < 0 else stuck

    def _way(self, at: int, broken: str | None) -> list[str]:
        """Return the moves to a world, and the one that broke there."""
        path = [at]
        while self._came[path[-1]] >= 0:
            path.append(self._came[path[-1]])
        path.reverse()
        lines: list[str] = []
        for source, target in pairwise(path):
            move = next(move for move in self.moves.of(self.worlds[source]) if move[2] == self.worlds[target])
            lines.append(_told(move))
        lines.append("then " + describe(self.worlds[at]))
        if broken != STUCK:
            lines.append(self._last_move(self.worlds[at]))
        return lines

    def _last_move(self, world: World) -> str:
        names: list[str] = []
        try:
            names.extend(move[0] for move in self.moves.of(world))
        except (AssertionError, LookupError, ValueError):
            return f"and the move after {names}"
        return ""


def _is_end(world: World) -> bool:
    """Whether the saga has ended or asks for a person, owes nobody an answer, and belongs to nobody any more."""
    state = world.saga.state
    ended = state.status.is_final or state.status is SagaStatus.NEEDS_ATTENTION
    return ended and not state.requests and world.owner is Owner.NOBODY


def _told(move: Move) -> str:
    name, at, world = move
    who = "" if at < 0 else f" [{at}]"
    return f"{name}{who} -> {describe(world)}"


def describe(world: World) -> str:
    """Return a world in one line: the saga, whose it is, and what each worker is about."""
    steps = " ".join(
        f"{state.status.value}{'?' if state.doubt else ''}{'*' if state.open else ''}"
        for state in world.saga.state.steps
    )
    seats = "; ".join(
        "-"
        if seat.memory is None and seat.turn is None
        else f"{'dead ' if seat.fenced else ''}{'behind ' if seat.behind else ''}"
        f"{type(seat.turn.told.fact).__name__ + (' landed' if seat.landed else ' unwritten') if seat.turn else 'idle'}"
        f" {[f'{c.operation.value} {c.step} {c.answer}' for c in seat.calls]}"
        for seat in world.seats
    )
    there = " ".join(f"{one.standing}{'u' if one.undid else ''}" for one in world.there)
    return f"{world.saga.state.status.value} [{steps}] {world.owner.name} | {seats} | effects {there}"
