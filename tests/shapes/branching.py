"""Shapes that branch: fan-out with a join, and steps that run only on a condition.

Owns their definitions. Must not know how a run is tormented. Listed by `catalogue`.
"""

from __future__ import annotations

from atone import Context, Saga, Tried, step
from tests.shapes.services import Services
from tests.shapes.shape import DONE, UNDONE, Order, Shape, Start
from tests.shapes.straight import OFTEN, RECOVERIES, SOON, made_of, paid


class FanOutTwo(Saga[Order], recoveries_max=RECOVERIES):
    """One step, two beside each other, one that joins them."""

    def __init__(self, services: Services) -> None:
        self.services = services

    @step(retry=SOON, barrier=True)
    async def fork(self, ctx: Context[Order]) -> str:
        return await self.services.act(ctx, "fork")

    @fork.compensation(retry=OFTEN)
    async def undo_fork(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.services.undo(ctx, "fork", tried)

    @step(after=(fork,), retry=SOON, barrier=True)
    async def left(self, ctx: Context[Order]) -> str:
        return await self.services.act(ctx, "left")

    @left.compensation(retry=OFTEN)
    async def undo_left(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.services.undo(ctx, "left", tried)

    @step(after=(fork,), retry=SOON, barrier=True)
    async def right(self, ctx: Context[Order]) -> str:
        return await self.services.act(ctx, "right")

    @right.compensation(retry=OFTEN)
    async def undo_right(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.services.undo(ctx, "right", tried)

    @step(left, right, retry=SOON, barrier=True)
    async def join(self, ctx: Context[Order], from_left: str, from_right: str) -> str:
        if ctx.input.refused == "join":
            self.services.called(ctx, "join", "action")
            self.services.refuse("join")
        return await self.services.act(ctx, "join")

    @join.compensation(retry=OFTEN)
    async def undo_join(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.services.undo(ctx, "join", tried)


class FanOutFour(Saga[Order], recoveries_max=RECOVERIES):
    """Four steps beside each other, of which one may refuse, and a join."""

    def __init__(self, services: Services) -> None:
        self.services = services

    @step(after=(), retry=SOON, barrier=True)
    async def north(self, ctx: Context[Order]) -> str:
        return await self.services.act(ctx, "north")

    @north.compensation(retry=OFTEN)
    async def undo_north(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.services.undo(ctx, "north", tried)

    @step(after=(), retry=SOON, barrier=True)
    async def east(self, ctx: Context[Order]) -> str:
        return await self.services.act(ctx, "east")

    @east.compensation(retry=OFTEN)
    async def undo_east(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.services.undo(ctx, "east", tried)

    @step(after=(), retry=SOON, barrier=True)
    async def south(self, ctx: Context[Order]) -> str:
        if ctx.input.refused == "south":
            self.services.called(ctx, "south", "action")
            self.services.refuse("south")
        return await self.services.act(ctx, "south")

    @south.compensation(retry=OFTEN)
    async def undo_south(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.services.undo(ctx, "south", tried)

    @step(after=(), retry=SOON, barrier=True)
    async def west(self, ctx: Context[Order]) -> str:
        return await self.services.act(ctx, "west")

    @west.compensation(retry=OFTEN)
    async def undo_west(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.services.undo(ctx, "west", tried)

    @step(north, east, south, west, retry=SOON, barrier=True)
    async def join(self, ctx: Context[Order], a: str, b: str, c: str, d: str) -> str:
        return await self.services.act(ctx, "join")

    @join.compensation(retry=OFTEN)
    async def undo_join(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.services.undo(ctx, "join", tried)


class Conditional(Saga[Order], recoveries_max=RECOVERIES):
    """Two steps that run only on a condition: one is met, and one is not."""

    def __init__(self, services: Services) -> None:
        self.services = services

    @step(retry=SOON, barrier=True)
    async def reserve(self, ctx: Context[Order]) -> str:
        return await self.services.act(ctx, "reserve")

    @reserve.compensation(retry=OFTEN)
    async def release(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.services.undo(ctx, "reserve", tried)

    @step(retry=SOON, barrier=True)
    async def hurry(self, ctx: Context[Order]) -> str:
        return await self.services.act(ctx, "hurry")

    @hurry.compensation(retry=OFTEN)
    async def undo_hurry(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.services.undo(ctx, "hurry", tried)

    @hurry.when
    def is_express(self, ctx: Context[Order]) -> bool:
        return ctx.input.express

    @step(retry=SOON, barrier=True)
    async def wrap(self, ctx: Context[Order]) -> str:
        return await self.services.act(ctx, "wrap")

    @wrap.compensation(retry=OFTEN)
    async def unwrap(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.services.undo(ctx, "wrap", tried)

    @wrap.when
    async def is_slow(self, ctx: Context[Order]) -> bool:
        return not ctx.input.express

    @step(retry=SOON, barrier=True)
    async def charge(self, ctx: Context[Order]) -> str:
        if ctx.input.refused == "charge":
            self.services.called(ctx, "charge", "action")
            self.services.refuse("charge")
        return await self.services.act(ctx, "charge")

    @charge.compensation(retry=OFTEN)
    async def refund(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.services.undo(ctx, "charge", tried)


SHAPES = (
    Shape("fan_out_2", "two branches and a join", 4, (Start(FanOutTwo),), made_of(FanOutTwo), DONE,
          {"completed": paid("fork", "left", "right", "join")}),
    Shape("fan_out_2_refused", "two branches, whose join refuses", 4, (Start(FanOutTwo, Order("join")),),
          made_of(FanOutTwo), UNDONE, {"compensated": {}}),
    Shape("fan_out_4", "four branches and a join", 5, (Start(FanOutFour),), made_of(FanOutFour), DONE,
          {"completed": paid("north", "east", "south", "west", "join")}),
    Shape("fan_out_4_refused", "four branches, of which one refuses", 5, (Start(FanOutFour, Order("south")),),
          made_of(FanOutFour), UNDONE, {"compensated": {}}),
    Shape("conditional", "a step that is skipped, and one that is not", 4, (Start(Conditional, Order(express=True)),),
          made_of(Conditional), DONE, {"completed": paid("reserve", "hurry", "charge")}),
    Shape("conditional_refused", "a skipped step on the way back", 4, (Start(Conditional, Order("charge")),),
          made_of(Conditional), UNDONE, {"compensated": {}}),
)  # fmt: skip
