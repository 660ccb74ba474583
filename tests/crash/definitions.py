"""Sagas of ten short steps in five shapes, and scripts that say which of them fail and how.

Owns the definitions, made from tables rather than written out, and the random scripts with the end that each must come
to. Every step calls the participant for real. Used by the processes that are killed, and by the verdict.
"""

from __future__ import annotations

import asyncio
import random
import types
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from atone import Context, Reject, Retry, Saga, SagaStatus, Tried, delay, pivot, retriable, step, wait_for_event
from tests.crash.participant import Participant

NAMES = tuple(f"s{number:02d}" for number in range(1, 11))
GATED = "s03"
FATAL = ("reject", "land, then reject", "raise always")
EVENT = "go"

_SOON = Retry(attempts=3, initial=0.02, factor=1.5, maximum=0.1)
_OFTEN = Retry(attempts=60, initial=0.02, factor=1.5, maximum=0.1)


@dataclass(frozen=True)
class Script:
    """What happens in a saga besides success, by step.

    Of an action: "raise before" or "raise after" its effect at the first attempt, "raise always", "reject"; "land, then
    reject" has its effect at the first attempt, raises, and rejects the second; "reject repeats" does so only if the
    first one was lost. Of a compensation: "raise before" or "raise after" at the first attempt. `gate` names a file
    that step 3 waits for. `cancel_after` and `event_after` are seconds after which the process that started the saga
    asks for that, if it still lives.
    """

    actions: dict[str, str] = field(default_factory=dict)
    compensations: dict[str, str] = field(default_factory=dict)
    gate: str | None = None
    cancel_after: float | None = None
    event_after: float | None = None

    @property
    def ends(self) -> frozenset[SagaStatus]:
        """How the saga may end; in two ways only if that hangs on a crash or on who is faster."""
        faults = set(self.actions.values())
        if faults & set(FATAL):
            return frozenset({SagaStatus.COMPENSATED})
        if "reject repeats" in faults or self.cancel_after is not None or self.event_after is not None:
            return frozenset({SagaStatus.COMPENSATED, SagaStatus.COMPLETED})
        return frozenset({SagaStatus.COMPLETED})


class Snag(Exception):
    """A step fails without saying whether it had its effect."""


class _Steps:
    """What all ten steps do, given who they are."""

    def __init__(self, participant: Participant) -> None:
        self.participant = participant

    def called(self, ctx: Context[Script], name: str, operation: str) -> None:
        self.participant.called(ctx.saga_id, name, operation, ctx.attempt)

    def act(self, ctx: Context[Script], name: str) -> str:
        fault = ctx.input.actions.get(name)
        repeats = ctx.attempt > 1
        if fault == "reject" or (repeats and fault in ("land, then reject", "reject repeats")):
            raise Reject(f"{name} is refused")
        if fault == "raise always" or (fault == "raise before" and not repeats):
            raise Snag(f"{name} broke before its effect")
        self.participant.act(ctx.saga_id, name, ctx.idempotency_key)
        if fault in ("raise after", "land, then reject") and not repeats:
            raise Snag(f"{name} broke after its effect")
        return f"{name} of {ctx.saga_id}"

    def undo(self, ctx: Context[Script], name: str, tried: Tried[str]) -> None:
        fault = ctx.input.compensations.get(name) if ctx.attempt == 1 else None
        if fault == "raise before":
            raise Snag(f"the undo of {name} broke before its effect")
        self.participant.undo(ctx.saga_id, name, ctx.idempotency_key, tried.idempotency_key)
        if fault == "raise after":
            raise Snag(f"the undo of {name} broke after its effect")


# Plain functions run in threads, async ones on the loop with a pause in them: a kill finds both in the middle.


def _action(name: str, number: int) -> Callable[..., Any]:
    def plain(self: Any, ctx: Context[Script]) -> str:
        self.steps.called(ctx, name, "action")
        told: str = self.steps.act(ctx, name)
        return told

    async def on_loop(self: Any, ctx: Context[Script]) -> str:
        self.steps.called(ctx, name, "action")
        if name == GATED:
            while ctx.input.gate is not None and not Path(ctx.input.gate).exists():  # noqa: ASYNC110 - a file
                await asyncio.sleep(0.01)
        told: str = self.steps.act(ctx, name)
        await asyncio.sleep(0.001)
        return told

    return _named(name, plain if number % 3 == 2 else on_loop)


def _compensation(name: str, number: int) -> Callable[..., Any]:
    def plain(self: Any, ctx: Context[Script], tried: Tried[str]) -> None:
        self.steps.called(ctx, name, "compensation")
        self.steps.undo(ctx, name, tried)

    async def on_loop(self: Any, ctx: Context[Script], tried: Tried[str]) -> None:
        self.steps.called(ctx, name, "compensation")
        self.steps.undo(ctx, name, tried)
        await asyncio.sleep(0.001)

    return _named(f"undo_{name}", plain if number % 4 == 0 else on_loop)


def _named(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    function.__name__ = name
    function.__qualname__ = name
    return function


_WAITS: dict[str, Callable[[], Any]] = {
    # Over soon if nobody sends the event, because the process that would have is gone.
    "wait": lambda: wait_for_event(EVENT, str, timeout=1.5),
    "pause": lambda: delay(0.05),
}


def _define(
    name: str,
    edges: dict[str, tuple[str, ...]],
    pivot_at: str | None,
    waits: Mapping[str, str] = MappingProxyType({}),
    **options: Any,
) -> type[Saga[Script]]:
    """Make a saga class; `edges` says what a step comes after, where that is not everything above it."""
    class_options = {key: options.pop(key) for key in ("late_grace",) if key in options}

    def body(namespace: MutableMapping[str, Any]) -> None:
        namespace["__module__"] = __name__

        def __init__(self: Any, participant: Participant) -> None:  # noqa: N807 - it becomes the class's own
            self.steps = _Steps(participant)

        namespace["__init__"] = __init__
        made: dict[str, Any] = {}
        for number, one in enumerate(NAMES, start=1):
            after = tuple(made[other] for other in edges[one]) if one in edges else None
            if one in waits:
                made[one] = _WAITS[waits[one]]()
            elif pivot_at is not None and one >= pivot_at:
                decorate = pivot if one == pivot_at else retriable
                made[one] = decorate(after=after, retry=_OFTEN, timeout=options.get("timeout"))(_action(one, number))
            else:
                made[one] = step(after=after, retry=_SOON, **options)(_action(one, number))
                undo = made[one].compensation(retry=_OFTEN)(_compensation(one, number))
                namespace[undo.__name__] = undo
            namespace[one] = made[one]

    keywords = {"version": 1, "recoveries_max": 100, **class_options}
    return types.new_class(name, (Saga[Script],), keywords, body)


Straight = _define("Straight", {}, None, barrier=True)
Pivoted = _define("Pivoted", {}, "s06", barrier=True)
# s01, then two branches of three, then the pivot, then two retriable steps beside each other.
Branching = _define(
    "Branching",
    {"s05": ("s01",), "s06": ("s05",), "s07": ("s06",), "s08": ("s04", "s07"), "s09": ("s08",), "s10": ("s08",)},
    "s08",
    barrier=True,
)
# The participant is not known to refuse late calls: an unknown step is compensated only after a grace.
Graceful = _define("Graceful", {}, None, timeout=2, late_grace=0.1)
# Nobody owns it while it waits.
Waiting = _define("Waiting", {}, "s08", {"s05": "wait", "s06": "pause"}, barrier=True)

SHAPES: tuple[type[Saga[Script]], ...] = (Straight, Pivoted, Branching, Graceful, Waiting)
_PIVOTS = {"Pivoted": 6, "Branching": 8, "Waiting": 8}


def all_sagas(participant: Participant) -> list[Saga[Script]]:
    """Return an object of each shape."""
    return [shape(participant) for shape in SHAPES]


def random_saga(seed: str) -> tuple[type[Saga[Script]], Script]:
    """Return a shape and a script; the same seed gives the same."""
    rng = random.Random(seed)
    shape = rng.choice(SHAPES)
    pivot_at = _PIVOTS.get(shape.__name__, 11)
    actions = {name: rng.choice(("raise before", "raise after")) for name in NAMES if rng.random() < 0.06}
    # Not at the pivot: a rejection there after a lost attempt rightly waits for a person.
    if rng.random() < 0.4:
        actions[NAMES[rng.choice(range(2, 4 if shape is Waiting else pivot_at - 1))]] = rng.choice(FATAL)
    elif rng.random() < 0.4:
        actions |= dict.fromkeys(NAMES[1 : pivot_at - 1], "reject repeats")
    undos = {name: rng.choice(("raise before", "raise after")) for name in NAMES if rng.random() < 0.15}
    cancel_after = rng.uniform(0.0, 0.3) if rng.random() < 0.1 else None
    event_after = rng.uniform(0.0, 0.2) if shape is Waiting else None
    return shape, Script(actions, undos, cancel_after=cancel_after, event_after=event_after)
