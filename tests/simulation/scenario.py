"""What one schedule is made of, drawn from its seed: sagas, workers, faults, and when what strikes.

Owns the draw, as plain data that can be printed. Must not run anything. Read by `schedule`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from random import Random

from tests.shapes.catalogue import SHAPES
from tests.shapes.choreographed import DANCES
from tests.shapes.shape import Shape
from tests.simulation.sagas import KINDS, shape_of

LEASE_SECONDS = 3.0
_BARE = tuple(sorted(name for name, shape in SHAPES.items() if shape.serving is None))
_SERVED = tuple(sorted(name for name, shape in SHAPES.items() if shape.serving is not None))
_DANCES = tuple(sorted(DANCES))


class Strike(StrEnum):
    """What happens to one process, at one of its points."""

    KILL = "kill"
    FREEZE = "freeze"
    LEAVE = "leave"
    OUTAGE = "outage"


@dataclass(frozen=True)
class Blow:
    """A strike at a point of a process's nth life; `seconds` is how long a freeze or an outage lasts."""

    what: Strike
    node: int
    life: int
    point: int
    seconds: float


@dataclass(frozen=True)
class Play:
    """A shape, played by some of the nodes: each of them starts it and does what is done from outside."""

    shape: str
    saga_id: str
    nodes: tuple[int, ...]


@dataclass(frozen=True)
class Serving:
    """A node that serves participants: those of a shape whose steps are commands, or these roles of a dance."""

    shape: str = ""
    dance: str = ""
    roles: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scenario:
    """One schedule. `starters` are the nodes that run nothing; `strict`: each shape must end as it says.

    `servings` are nodes too, numbered after the others. `told`: what happens to sagas goes to the broker. `ordered`:
    what is ready first is first, else it is drawn. `bare`: participants of steps without a barrier
    know keys again and nothing else: in such a schedule nothing may come late, for nobody refuses it.
    """

    seed: int
    nodes: int
    starters: frozenset[int]
    plays: tuple[Play, ...]
    blows: tuple[Blow, ...]
    shares: dict[str, float] = field(default_factory=dict[str, float])
    badly: bool = False
    slow_seconds: float = 0.0
    strict: bool = False
    ordered: bool = False
    skews: tuple[float, ...] = ()
    servings: tuple[Serving, ...] = ()
    told: bool = False
    thread_seconds: float = 0.0
    bare: bool = False

    def __str__(self) -> str:
        plays = ", ".join(f"{one.shape} as {one.saga_id} by {one.nodes}" for one in self.plays)
        blows = ", ".join(f"{one.what} {one.node}.{one.life} at {one.point}" for one in self.blows)
        served = ", ".join(one.shape or f"{one.dance} {one.roles}" for one in self.servings)
        return (
            f"{self.nodes} nodes (starters {sorted(self.starters)}){', served: ' + served if served else ''}; {plays}; "
            f"{blows or 'no blows'}; {self.shares}"
        )


def drawn(seed: int) -> Scenario:
    """Return the schedule of a seed."""
    chance = Random(f"scenario {seed}")
    nodes = chance.choice((1, 2, 2, 3))
    starters = frozenset({nodes - 1} if nodes > 1 and chance.random() < 0.2 else ())
    plays = tuple(_play(chance, number, nodes) for number in range(chance.choice((1, 1, 2, 3))))
    servings, told = (), False
    if chance.random() < 0.05:
        servings, told = _servings(chance), chance.random() < 0.5
        served = next((one.shape for one in servings if one.shape), None)
        if served is not None:
            plays = (Play(served, "c0", (0,)), *plays[1:])
    gentle = chance.random() < 0.3
    blows = tuple(
        _blow(chance, nodes + len(servings), gentle=gentle) for _ in range(chance.choice((0, 1, 1, 2, 2, 3, 4)))
    )
    strict = gentle and not any(shape_named(one.shape).is_long for one in plays)
    badly = not strict and chance.random() < 0.6
    scenario = Scenario(
        seed,
        nodes,
        starters,
        plays,
        blows,
        _shares(chance),
        badly,
        slow_seconds=0.0 if strict else chance.choice((0.0, 0.02, 0.5, 3.0)),
        strict=strict,
        ordered=chance.random() < 0.3,
        skews=tuple(chance.choice((0.0, 0.0, 3600.0, -3600.0)) for _ in range(nodes + len(servings))),
        servings=servings,
        told=told,
        thread_seconds=0.0 if strict else chance.choice((0.0, 0.1, 30.0)),
    )
    return _bared(chance, scenario) if not servings and chance.random() < 0.25 else scenario


def _bared(chance: Random, scenario: Scenario) -> Scenario:
    """Return a schedule of drawn sagas only, whose participants are slow and guard against nothing that comes late.

    A process that sleeps in the middle of a call may wake up too late for all promises, so none is frozen there.
    """
    return replace(
        scenario,
        plays=tuple(replace(one, shape=f"drawn {chance.randrange(KINDS)}") for one in scenario.plays),
        blows=tuple(replace(one, what=Strike.KILL) if one.what is Strike.FREEZE else one for one in scenario.blows),
        slow_seconds=chance.choice((1.0, 3.0, 10.0)),
        strict=False,
        bare=True,
    )


def _servings(chance: Random) -> tuple[Serving, ...]:
    if chance.random() < 0.4:
        return (Serving(shape=chance.choice(_SERVED)),)
    dance = DANCES[chance.choice(_DANCES)]
    roles = list(dance.roles)
    chance.shuffle(roles)
    cut = chance.randint(0, len(roles) - 1)
    return tuple(Serving(dance=dance.name, roles=tuple(some)) for some in (roles[:cut], roles[cut:]) if some)


def _play(chance: Random, number: int, nodes: int) -> Play:
    players = tuple(sorted(chance.sample(range(nodes), 1 if chance.random() < 0.7 else chance.randint(1, nodes))))
    name = chance.choice(_BARE) if chance.random() < 0.5 else f"drawn {chance.randrange(KINDS)}"
    return Play(name, f"s{number}", players)


def shape_named(name: str) -> Shape:
    """Return a shape of the catalogue, or a drawn one."""
    return shape_of(int(name.removeprefix("drawn "))) if name.startswith("drawn ") else SHAPES[name]


def _blow(chance: Random, nodes: int, *, gentle: bool) -> Blow:
    whats = (Strike.KILL, Strike.OUTAGE) if gentle else (Strike.KILL, Strike.KILL, *Strike)
    what = chance.choice(whats)
    point = int(400 * chance.random() ** 2) + 1
    seconds = chance.uniform(0.1, 4 * LEASE_SECONDS) if what is Strike.FREEZE else chance.uniform(0.05, 6.0)
    return Blow(what, chance.randrange(nodes), chance.choice((0, 0, 0, 1, 2)), point, seconds)


def _shares(chance: Random) -> dict[str, float]:
    if chance.random() < 0.25:
        return {}
    worst = chance.choice((0.01, 0.05, 0.2))
    shares = {what: worst * chance.random() for what in ("unsent", "unheard", "late", "slow")}
    shares["slow_seconds"] = chance.choice((0.1, 1.0, 2 * LEASE_SECONDS))
    shares["late_seconds"] = chance.choice((0.5, 5.0, 30.0))
    shares["travel_seconds"] = chance.choice((0.0, 0.0, 0.005))
    return shares
