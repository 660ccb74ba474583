"""Search the model for a way to break the law: seeded random walks, and every way there is within a small budget.

Owns the search and the report of what it found. `python -m tests.core.explore --walks 200000` walks at random;
`--exhaust` tries everything on the small plans. Exit status 1 if a rule broke; the path and the facts are printed, to
become a test. The suite runs a short part of both.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from atone._core.fold import fold
from atone._core.state import SagaState, SagaStatus
from tests.core.invariants import Broken, check
from tests.core.plans import PLANS
from tests.core.world import Choice, Model, Taken, World

ALL_ASKS = ("cancel", "terminate", "retry", "skip", "resolve", "misjudge", "event")
# How likely each kind of choice is beside the others; ordinary progress is likelier than a fault.
WEIGHTS = {
    "arrive": 6,
    "reply": 8,
    "wake": 4,
    "tick": 4,
    "say": 4,
    "claim": 6,
    "late": 3,
    "ask": 1,
    "build": 8,
    "answer": 8,
}
SETTLE_MAX = 400


@dataclass
class Path:
    """One way through the model: what was chosen, what was told, and the journal it wrote."""

    choices: list[Choice] = field(default_factory=list)
    told: list[tuple[float, Any]] = field(default_factory=list)
    rows: list[tuple[Any, ...]] = field(default_factory=list)

    def add(self, choice: Choice, taken: Taken) -> None:
        self.choices.append(choice)
        self.told += taken.told
        self.rows += taken.rows


@dataclass(frozen=True)
class Found:
    """A broken rule and how to get there."""

    plan: str
    rule: str
    path: Path

    def __str__(self) -> str:
        told = "\n".join(f"    {at:g}: {fact}" for at, fact in self.path.told)
        return f"{self.plan}: {self.rule}\n  choices: {self.path.choices}\n  told:\n{told}"


def walk(name: str, seed: int) -> Found | None:
    """Walk once at random: faults first, then a world without faults, in which the saga must come to an end."""
    chance = random.Random(f"{name}-{seed}")
    model = Model(PLANS[name], budget=chance.choice((1, 2, 3, 4, 6, 9)), asks=ALL_ASKS, keep_last=True)
    path = Path()
    try:
        world = _begin(model, path)
        for _ in range(chance.choice((10, 25, 60))):
            choices = model.choices(world)
            if not choices:
                break
            parked = world.saga.status is SagaStatus.NEEDS_ATTENTION
            weights = [3 if parked and choice[0] == "ask" else WEIGHTS.get(choice[0], 1) for choice in choices]
            world = _go(model, world, chance.choices(choices, weights)[0], path)
        world = settle(model, world._replace(budget=0), path)
        _refold(model, world.saga, path)
    except (AssertionError, LookupError, ValueError) as broken:
        return Found(name, repr(broken), path)
    return None


def _begin(model: Model, path: Path) -> World:
    taken = model.start()
    path.add(("start",), taken)
    check(model, None, taken)
    return taken.world


def _go(model: Model, world: World, choice: Choice, path: Path) -> World:
    taken = model.take(world, choice)
    path.add(choice, taken)
    check(model, world, taken)
    return taken.world


def settle(model: Model, world: World, path: Path) -> World:
    """Let the world be kind from here on: every saga ends, if need be after a person's retry."""
    for _ in range(SETTLE_MAX):
        choice = _kind_choice(model, world)
        if choice is not None:
            world = _go(model, world, choice, path)
        elif world.saga.status.is_final:
            return world
        elif world.saga.status is SagaStatus.NEEDS_ATTENTION:
            world = _help(model, world, path)
        else:
            raise Broken(f"stuck: {world.saga}")
    raise Broken(f"it never comes to an end: {world.saga}")


def _kind_choice(model: Model, world: World) -> Choice | None:
    free = model.choices(world._replace(budget=1))
    for what in ("claim", "build", "arrive", "answer", "reply", "timeout", "say", "wake"):
        for choice in free:
            if choice[0] == what:
                return choice
    return None if world.saga.status is SagaStatus.NEEDS_ATTENTION else _tick(free)


def _tick(free: Sequence[Choice]) -> Choice | None:
    return next((choice for choice in free if choice[0] == "tick"), None)


def _help(model: Model, world: World, path: Path) -> World:
    for name in [step.event_name for step in model.plan.steps if step.event_name]:
        world = _go(model, world, ("ask", "event", name), path)._replace(budget=0)
    if world.saga.status is SagaStatus.NEEDS_ATTENTION:
        world = _go(model, world, ("ask", "retry"), path)._replace(budget=0)
    pivot = model.plan.pivot
    if pivot is not None and world.saga.is_backward and world.saga.steps[pivot].attention is not None:
        # It turned back on somebody's word although its pivot had landed: only a person can end that.
        world = _go(model, world, ("ask", "terminate"), path)._replace(budget=0)
    return world


def _refold(model: Model, saga: SagaState, path: Path) -> None:
    again: SagaState | None = None
    for row in path.rows:
        again = fold(model.plan, again, row)
    if again != saga:
        raise Broken("a reload gives another saga")


def exhaust(
    name: str, budget: int, *, asks: tuple[str, ...] = ("cancel",), states_max: int = 1_000_000
) -> tuple[int, Found | None]:
    """Try everything that can happen within the budget of faults; return how many worlds were seen."""
    model = Model(PLANS[name], budget=budget, asks=asks)
    first = model.start()
    came: dict[World, tuple[World, Choice] | None] = {first.world: None}
    queue = deque([first.world])
    while queue and len(came) < states_max:
        world = queue.popleft()
        for choice in model.choices(world):
            try:
                taken = model.take(world, choice)
                check(model, world, taken)
            except (AssertionError, LookupError, ValueError) as broken:
                return len(came), Found(name, repr(broken), _replayed(model, [*_way(came, world), choice]))
            if taken.world not in came:
                came[taken.world] = (world, choice)
                queue.append(taken.world)
    return len(came), None


def _way(came: dict[World, tuple[World, Choice] | None], world: World) -> list[Choice]:
    way: list[Choice] = []
    while (step := came[world]) is not None:
        world, choice = step
        way.append(choice)
    return way[::-1]


def _replayed(model: Model, way: list[Choice]) -> Path:
    path = Path()
    taken = model.start()
    path.add(("start",), taken)
    for choice in way:
        try:
            taken = model.take(taken.world, choice)
        except AssertionError:
            path.choices.append(choice)
            break
        path.add(choice, taken)
    return path


def main(arguments: list[str] | None = None) -> int:
    """Search as long as asked, and print what was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.core.explore", description=__doc__)
    parser.add_argument("--walks", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plan", choices=sorted(PLANS), action="append")
    parser.add_argument("--exhaust", type=int, metavar="FAULTS", help="try everything within this many faults instead")
    parser.add_argument("--states", type=int, default=1_000_000, help="stop a plan's exhaustive search there")
    options = parser.parse_args(arguments)
    names = options.plan or sorted(PLANS)
    began = time.monotonic()
    found: list[Found] = []
    for at, name in enumerate(names):
        if options.exhaust is not None:
            seen, broken = exhaust(name, options.exhaust, states_max=options.states)
            print(f"{name}: {seen} worlds", flush=True)
            found += [broken] if broken else []
            continue
        for seed in range(options.seed, options.seed + options.walks // len(names) + (at < options.walks % len(names))):
            broken = walk(name, seed)
            if broken is not None:
                found.append(broken)
                break
    for one in found:
        print(one)
    print(f"{len(names)} plans, {time.monotonic() - began:.1f} s, {len(found)} broken")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
