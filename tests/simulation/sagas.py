"""Sagas of drawn shapes: rows, branches, pivots, probes, conditions, plain functions, short time-outs, few attempts.

Owns how a number becomes a definition; the same number gives the same one. What its participants do is
`Disturbed`'s. Must not judge a run: such a saga may end in any way that the invariants allow. Used by the schedules.
"""

from __future__ import annotations

import types
from collections.abc import Callable, MutableMapping, Sequence
from functools import lru_cache
from random import Random
from typing import Any, NamedTuple

from atone import CannotTell, Context, Landed, NotLanded, Retry, Saga, Tried, delay, pivot, retriable, step
from tests.shapes.shape import DONE, PARKED, UNDONE, Order, Shape, Stage, Start

KINDS = 80
REFUSES = 0.08


class _Drawn(NamedTuple):
    name: str
    role: str
    after: tuple[str, ...]
    options: dict[str, Any]
    is_plain: bool
    probes: bool
    condition: bool | None


def _action(own: str, *, is_plain: bool, refuses: bool) -> Callable[..., Any]:
    async def act(self: Any, ctx: Context[Order]) -> str:
        told: str = await self.services.try_to_act(ctx, own, REFUSES if refuses else 0.0)
        return told

    def act_plainly(self: Any, ctx: Context[Order]) -> str:
        self.services.called(ctx, own, "action")
        told: str = self.services.take(ctx, own)
        return told

    return _named(own, act_plainly if is_plain else act)


def _compensation(own: str, *, is_plain: bool) -> Callable[..., Any]:
    async def undo(self: Any, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.services.undo(ctx, own, tried)

    def undo_plainly(self: Any, ctx: Context[Order], tried: Tried[str]) -> None:
        self.services.called(ctx, own, "compensation")
        self.services.give_back(ctx, own, tried)

    return _named(f"undo_{own}", undo_plainly if is_plain else undo)


def _probe(own: str) -> Callable[..., Any]:
    async def find(self: Any, ctx: Context[Order], tried: Tried[str]) -> Landed[str] | NotLanded | CannotTell:
        found: Landed[str] | NotLanded | CannotTell = await self.services.look(tried, own, ctx.saga_id)
        return found

    return _named(f"find_{own}", find)


def _named(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    function.__name__ = function.__qualname__ = name
    return function


def _keep_services(self: Any, services: Any) -> None:
    self.services = services


@lru_cache(maxsize=KINDS)
def saga_of(number: int) -> type[Saga[Order]]:
    """Return the definition with this number."""
    chance = Random(f"saga {number}")
    steps = _steps(chance)

    def body(namespace: MutableMapping[str, Any]) -> None:
        namespace["__module__"] = __name__
        namespace["__init__"] = _keep_services
        for one in steps:
            _write(namespace, one)

    said: dict[str, Any] = {
        "recoveries_max": chance.choice((2, 5, 50)),
        "late_grace": chance.choice((0.0, 0.1, 5.0)),
        "on_compensation_failure": chance.choice(("continue", "continue", "halt")),
    }
    if chance.random() < 0.15:
        said["deadline"] = chance.choice((90.0, 120.0))
    if chance.random() < 0.15:
        said["rollback_deadline"] = chance.choice((60.0, 90.0))
    return types.new_class(f"Drawn{number}", (Saga[Order],), said, body)


def _steps(chance: Random) -> list[_Drawn]:
    before = [f"s{at}" for at in range(chance.randint(1, 5))]
    drawn = [_compensatable(chance, name, before[:at]) for at, name in enumerate(before)]
    if chance.random() < 0.5:
        drawn.append(_forward(chance, "pivot", "p", tuple(before)))
        behind = [f"r{at}" for at in range(chance.randint(0, 2))]
        drawn += [_forward(chance, "retriable", name, ("p", *behind[:at])) for at, name in enumerate(behind)]
    return drawn


def _compensatable(chance: Random, name: str, earlier: Sequence[str]) -> _Drawn:
    after = tuple(earlier[-1:]) if chance.random() < 0.6 else tuple(one for one in earlier if chance.random() < 0.5)
    if chance.random() < 0.1:
        return _Drawn(name, "delay", after, {"seconds": chance.choice((0.1, 3.0))}, False, False, None)
    options: dict[str, Any] = {"timeout": chance.choice((0.2, 1.0, 10.0)), "barrier": chance.random() < 0.5}
    probes = chance.random() < 0.3
    if chance.random() < 0.2:
        options |= {"at_most_once": True}
    else:
        options |= {"retry": Retry(attempts=chance.choice((1, 2, 5)), initial=chance.choice((0.0, 0.1, 3.0)))}
    condition = chance.choice((None, None, None, True, False))
    return _Drawn(name, "step", after, options, chance.random() < 0.2, probes, condition)


def _forward(chance: Random, role: str, name: str, after: tuple[str, ...]) -> _Drawn:
    options: dict[str, Any] = {"timeout": chance.choice((0.2, 1.0, 10.0))}
    attempts = {} if role == "retriable" else {"attempts": chance.choice((2, 20))}
    options["retry"] = Retry(initial=chance.choice((0.05, 1.0)), maximum=3.0, **attempts)
    return _Drawn(name, role, after, options, chance.random() < 0.2, chance.random() < 0.3, None)


def _write(namespace: MutableMapping[str, Any], one: _Drawn) -> None:
    after = tuple(namespace[name] for name in one.after)
    if one.role == "delay":
        namespace[one.name] = delay(one.options["seconds"], after=after)
        return
    maker: Any = {"step": step, "pivot": pivot, "retriable": retriable}[one.role]
    function = _action(one.name, is_plain=one.is_plain, refuses=one.role != "retriable")
    made = namespace[one.name] = maker(after=after, **one.options)(function)
    if one.role == "step":
        retry = Retry(attempts=20, initial=0.1, maximum=5.0)
        undo = _compensation(one.name, is_plain=one.is_plain)
        namespace[undo.__name__] = made.compensation(retry=retry, timeout=10)(undo)
    if one.probes:
        find = _probe(one.name)
        namespace[find.__name__] = made.probe(find)
    if one.condition is not None:
        answer = one.condition
        namespace[f"if_{one.name}"] = made.when(_named(f"if_{one.name}", _condition(answer)))


def _condition(answer: bool) -> Callable[..., Any]:
    def when(self: Any, ctx: Context[Order]) -> bool:
        return answer

    return when


@lru_cache(maxsize=KINDS)
def shape_of(number: int) -> Shape:
    """Return the shape that plays it; it may end in any way."""
    kind = saga_of(number)

    def make(stage: Stage, generation: int) -> Sequence[Saga[Any]]:
        return [kind(stage.services)]  # type: ignore[call-arg]

    ends = DONE | UNDONE | PARKED
    return Shape(f"drawn {number}", "drawn", len(kind.plan().steps), (Start(kind),), make, ends)
