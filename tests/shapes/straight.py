"""Shapes in a row: one to eight steps, refusals, a pivot, retriable steps, a step without an undo, plain functions.

Owns their definitions. Every action pays 100 cents to an account of the step's name, and its undo gives them back. Must
not know how a run is tormented. Listed by `catalogue`.
"""

from __future__ import annotations

import types
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

from atone import Context, Retry, Saga, Tried, pivot, retriable, step
from tests.shapes.services import CUSTOMER, Services
from tests.shapes.shape import DONE, ORDER, PARKED, UNDONE, Order, Shape, Stage, Start

SOON = Retry(attempts=3, initial=0.02, factor=1.5, maximum=0.1)
OFTEN = Retry(attempts=60, initial=0.02, factor=1.5, maximum=0.1)
RECOVERIES = 50  # none of these is to wait for a person because it was killed often


def made_of(*kinds: type[Saga[Order]]) -> Callable[[Stage, int], Sequence[Saga[Any]]]:
    """Return what makes objects of these classes, for any generation."""

    def make(stage: Stage, generation: int) -> Sequence[Saga[Any]]:
        return [kind(stage.services) for kind in kinds]  # type: ignore[call-arg]

    return make


def paid(*steps: str) -> dict[str, int]:
    """Return the balances when these steps stand."""
    return {CUSTOMER: -100 * len(steps), **dict.fromkeys(steps, 100)}


def _row(name: str, *names: str) -> type[Saga[Order]]:
    """Make a saga of steps in a row, each of which refuses if the order says so."""

    def action(own: str) -> Callable[..., Any]:
        async def act(self: Any, ctx: Context[Order]) -> str:
            if ctx.input.refused == own:
                self.services.called(ctx, own, "action")
                self.services.refuse(own)
            told: str = await self.services.act(ctx, own)
            return told

        return _named(own, act)

    def compensation(own: str) -> Callable[..., Any]:
        async def undo(self: Any, ctx: Context[Order], tried: Tried[str]) -> None:
            await self.services.undo(ctx, own, tried)

        return _named(f"undo_{own}", undo)

    def body(namespace: MutableMapping[str, Any]) -> None:
        namespace["__module__"] = __name__
        namespace["__init__"] = _keep_services
        for one in names:
            made = step(retry=SOON, barrier=True)(action(one))
            undo = made.compensation(retry=OFTEN)(compensation(one))
            namespace[one], namespace[undo.__name__] = made, undo

    return types.new_class(name, (Saga[Order],), {"recoveries_max": RECOVERIES}, body)


def _keep_services(self: Any, services: Services) -> None:
    self.services = services


def _named(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    function.__name__ = function.__qualname__ = name
    return function


OneStep = _row("OneStep", "a")
TwoSteps = _row("TwoSteps", "a", "b")
FourSteps = _row("FourSteps", "a", "b", "c", "d")
EightSteps = _row("EightSteps", "a", "b", "c", "d", "e", "f", "g", "h")


class Pivoted(Saga[Order], recoveries_max=RECOVERIES):
    """A point of no return, and two steps behind it; the first of these breaks twice before it succeeds."""

    def __init__(self, services: Services) -> None:
        self.services = services

    @step(retry=SOON, barrier=True)
    async def reserve(self, ctx: Context[Order]) -> str:
        return await self.services.act(ctx, "reserve")

    @reserve.compensation(retry=OFTEN)
    async def release(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.services.undo(ctx, "reserve", tried)

    @pivot(reserve, retry=SOON)
    async def ship(self, ctx: Context[Order], reserved: str) -> str:
        if ctx.input.refused == "ship":
            self.services.called(ctx, "ship", "action")
            self.services.refuse("ship")
        return await self.services.act(ctx, "ship")

    @retriable(ship, retry=OFTEN)
    async def confirm(self, ctx: Context[Order], shipped: str) -> str:
        if ctx.input.express and self.services.breaks(ctx, "confirm", "action", 2):
            self.services.called(ctx, "confirm", "action")
            self.services.fail(ctx, "confirm", times=3)
        return await self.services.act(ctx, "confirm")


class Mailed(Saga[Order], recoveries_max=RECOVERIES):
    """A mail that can't be taken back, between two steps that can; the last one refuses."""

    def __init__(self, services: Services) -> None:
        self.services = services

    @step(retry=SOON, barrier=True)
    async def reserve(self, ctx: Context[Order]) -> str:
        return await self.services.act(ctx, "reserve")

    @reserve.compensation(retry=OFTEN)
    async def release(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.services.undo(ctx, "reserve", tried)

    @step(retry=SOON, no_compensation="a mail that was sent is sent")
    async def mail(self, ctx: Context[Order]) -> str:
        return await self.services.act(ctx, "mail", cents=0)

    @step(retry=SOON, barrier=True)
    async def charge(self, ctx: Context[Order]) -> str:
        self.services.called(ctx, "charge", "action")
        self.services.refuse("charge")
        return ""

    @charge.compensation(retry=OFTEN)
    async def refund(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.services.undo(ctx, "charge", tried)


class Plain(Saga[Order], recoveries_max=RECOVERIES):
    """Plain functions, which run in threads."""

    def __init__(self, services: Services) -> None:
        self.services = services

    @step(retry=SOON, barrier=True)
    def reserve(self, ctx: Context[Order]) -> str:
        self.services.called(ctx, "reserve", "action")
        return self.services.take(ctx, "reserve")

    @reserve.compensation(retry=OFTEN)
    def release(self, ctx: Context[Order], tried: Tried[str]) -> None:
        self.services.called(ctx, "reserve", "compensation")
        self.services.give_back(ctx, "reserve", tried)

    @step(retry=SOON, barrier=True)
    def charge(self, ctx: Context[Order]) -> str:
        self.services.called(ctx, "charge", "action")
        self.services.refuse("charge")
        return ""

    @charge.compensation(retry=OFTEN)
    def refund(self, ctx: Context[Order], tried: Tried[str]) -> None:
        self.services.called(ctx, "charge", "compensation")
        self.services.give_back(ctx, "charge", tried)


class TryConfirmCancel(Saga[Order], recoveries_max=RECOVERIES):
    """TCC: two participants try, which may be cancelled; once both have, both are told to confirm."""

    def __init__(self, services: Services) -> None:
        self.services = services

    @step(retry=SOON, barrier=True)
    async def try_seat(self, ctx: Context[Order]) -> str:
        return await self.services.act(ctx, "try_seat")

    @try_seat.compensation(retry=OFTEN)
    async def cancel_seat(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.services.undo(ctx, "try_seat", tried)

    @step(retry=SOON, barrier=True)
    async def try_room(self, ctx: Context[Order]) -> str:
        if ctx.input.refused == "try_room":
            self.services.called(ctx, "try_room", "action")
            self.services.refuse("try_room")
        return await self.services.act(ctx, "try_room")

    @try_room.compensation(retry=OFTEN)
    async def cancel_room(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.services.undo(ctx, "try_room", tried)

    @pivot(retry=OFTEN)
    async def confirm_seat(self, ctx: Context[Order]) -> str:
        return await self.services.act(ctx, "confirm_seat", cents=0)

    @retriable(retry=OFTEN)
    async def confirm_room(self, ctx: Context[Order]) -> str:
        return await self.services.act(ctx, "confirm_room", cents=0)


def _one(
    name: str, about: str, kind: type[Saga[Order]], ends: frozenset[str], given: Order = ORDER, **more: Any
) -> Shape:
    steps = len(kind.plan().steps)
    return Shape(name, about, steps, (Start(kind, given),), made_of(kind), ends, **more)


SHAPES = (
    _one("one_step", "one step", OneStep, DONE, balances={"completed": paid("a")}),
    _one("two_steps", "two steps in a row", TwoSteps, DONE, balances={"completed": paid("a", "b")}),
    _one("four_steps", "four steps in a row", FourSteps, DONE, balances={"completed": paid("a", "b", "c", "d")}),
    _one("eight_steps", "eight steps in a row", EightSteps, DONE, balances={"completed": paid(*"abcdefgh")}),
    _one("refused", "four steps in a row, of which the last one refuses", FourSteps, UNDONE, Order("d"),
         balances={"compensated": {}}),
    _one("pivot", "a point of no return, with a step behind it", Pivoted, DONE,
         balances={"completed": paid("reserve", "ship", "confirm")}),
    # A pivot whose first attempt was lost is in doubt, and a refusal of the second one settles nothing.
    _one("pivot_refused", "the point of no return refuses", Pivoted, UNDONE | PARKED, Order("ship"),
         balances={"compensated": {}, "needs_attention": paid("reserve")}),
    _one("retriable", "a step behind the pivot breaks twice", Pivoted, DONE, Order(express=True),
         balances={"completed": paid("reserve", "ship", "confirm")}),
    _one("no_undo", "a step that can't be undone, on the way back", Mailed, UNDONE, balances={"compensated": {}}),
    _one("plain_functions", "steps in threads, of which the second refuses", Plain, UNDONE,
         balances={"compensated": {}}),
    _one("tcc", "two tries, then both confirmations", TryConfirmCancel, DONE,
         balances={"completed": paid("try_seat", "try_room")}),
    _one("tcc_cancelled", "the second try refuses", TryConfirmCancel, UNDONE, Order("try_room"),
         balances={"compensated": {}}),
    Shape("batch", "five sagas at once, of which one refuses", 2,
          tuple(Start(TwoSteps, Order("b" if at == 3 else ""), f"-{at}") for at in range(5)), made_of(TwoSteps),
          {f"-{at}": UNDONE if at == 3 else DONE for at in range(5)},
          {"completed": paid("a", "b"), "compensated": {}}),
)  # fmt: skip
