"""Shapes in which something is slow, broken or in doubt: time-outs, retries, undos that fail, at-most-once, deadlines.

Owns their definitions, and what an operator does about those that stop. Must not know how a run is tormented. Listed by
`catalogue`.
"""

from __future__ import annotations

import asyncio

from atone import CannotTell, Context, Landed, NeedsAttention, NotLanded, Orchestrator, Retry, Saga, Tried, step
from tests.shapes.services import Services
from tests.shapes.shape import DONE, PARKED, UNDONE, Order, Shape, Stage, Start, asked
from tests.shapes.straight import OFTEN, RECOVERIES, SOON, made_of, paid

BRIEFLY = 0.25
REPAIRED = "repaired"


class Hanging(Saga[Order], recoveries_max=RECOVERIES, late_grace=0.1):
    """The second step hangs after its effect, once; it is given up, and the repeat finds its key."""

    def __init__(self, services: Services) -> None:
        self.services = services

    @step(retry=SOON)
    async def reserve(self, ctx: Context[Order]) -> str:
        return await self.services.act(ctx, "reserve")

    @reserve.compensation(retry=OFTEN)
    async def release(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.services.undo(ctx, "reserve", tried)

    @step(retry=OFTEN, timeout=BRIEFLY)
    async def charge(self, ctx: Context[Order]) -> str:
        told = await self.services.act(ctx, "charge")
        if self.services.breaks(ctx, "charge", "action", 1):
            await asyncio.sleep(3600)
        return told

    @charge.compensation(retry=OFTEN)
    async def refund(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.services.undo(ctx, "charge", tried)


class Breaking(Saga[Order], recoveries_max=RECOVERIES, late_grace=0.1):
    """The second step has its effect and breaks, however often it is tried: in doubt, so it is undone too."""

    def __init__(self, services: Services) -> None:
        self.services = services

    @step(retry=SOON, timeout=BRIEFLY)
    async def reserve(self, ctx: Context[Order]) -> str:
        return await self.services.act(ctx, "reserve")

    @reserve.compensation(retry=OFTEN)
    async def release(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.services.undo(ctx, "reserve", tried)

    @step(retry=SOON, timeout=BRIEFLY)
    async def charge(self, ctx: Context[Order]) -> str:
        told = await self.services.act(ctx, "charge")
        self.services.fail(ctx, "charge")
        return told

    @charge.compensation(retry=OFTEN)
    async def refund(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.services.undo(ctx, "charge", tried)


class Overdue(Saga[Order], recoveries_max=RECOVERIES, deadline=1.0):
    """The second step breaks until the saga's deadline turns it back."""

    def __init__(self, services: Services) -> None:
        self.services = services

    @step(retry=SOON, barrier=True, timeout=BRIEFLY)
    async def reserve(self, ctx: Context[Order]) -> str:
        return await self.services.act(ctx, "reserve")

    @reserve.compensation(retry=OFTEN)
    async def release(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.services.undo(ctx, "reserve", tried)

    @step(retry=Retry(attempts=1000, initial=0.1, maximum=0.2), barrier=True, timeout=BRIEFLY)
    async def charge(self, ctx: Context[Order]) -> str:
        self.services.called(ctx, "charge", "action")
        self.services.fail(ctx, "charge")
        return ""

    @charge.compensation(retry=OFTEN)
    async def refund(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.services.undo(ctx, "charge", tried)


class Probed(Saga[Order], recoveries_max=RECOVERIES, late_grace=0.1):
    """The second step may be called once only; after a doubt the participant is asked, and knows."""

    def __init__(self, services: Services) -> None:
        self.services = services

    @step(retry=SOON, barrier=True)
    async def reserve(self, ctx: Context[Order]) -> str:
        return await self.services.act(ctx, "reserve")

    @reserve.compensation(retry=OFTEN)
    async def release(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.services.undo(ctx, "reserve", tried)

    @step(at_most_once=True, timeout=BRIEFLY)
    async def charge(self, ctx: Context[Order]) -> str:
        told = await self.services.act(ctx, "charge")
        self.services.fail(ctx, "charge", times=1)
        return told

    @charge.compensation(retry=OFTEN)
    async def refund(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.services.undo(ctx, "charge", tried)

    @charge.probe
    async def find_charge(self, ctx: Context[Order], tried: Tried[str]) -> Landed[str] | NotLanded | CannotTell:
        return self.services.find(tried, "charge", ctx.saga_id)


class Once(Saga[Order], recoveries_max=RECOVERIES):
    """The second step may be called once only, and nobody can say what became of it: a person is asked."""

    def __init__(self, services: Services) -> None:
        self.services = services

    @step(retry=SOON, barrier=True)
    async def reserve(self, ctx: Context[Order]) -> str:
        return await self.services.act(ctx, "reserve")

    @reserve.compensation(retry=OFTEN)
    async def release(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.services.undo(ctx, "reserve", tried)

    @step(at_most_once=True)
    async def charge(self, ctx: Context[Order]) -> str:
        return await self.services.act(ctx, "charge")

    @charge.compensation(retry=OFTEN)
    async def refund(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.services.undo(ctx, "charge", tried)


class Undoing(Saga[Order], recoveries_max=RECOVERIES):
    """The last of three steps refuses; the undo of the first one breaks twice."""

    def __init__(self, services: Services) -> None:
        self.services = services

    @step(retry=SOON, barrier=True)
    async def reserve(self, ctx: Context[Order]) -> str:
        return await self.services.act(ctx, "reserve")

    @reserve.compensation(retry=OFTEN)
    async def release(self, ctx: Context[Order], tried: Tried[str]) -> None:
        if self.services.breaks(ctx, "reserve", "compensation", 2):
            self.services.called(ctx, "reserve", "compensation")
            raise ConnectionError("the undo broke")
        await self.services.undo(ctx, "reserve", tried)

    @step(retry=SOON, barrier=True)
    async def charge(self, ctx: Context[Order]) -> str:
        return await self.services.act(ctx, "charge")

    @charge.compensation(retry=OFTEN)
    async def refund(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.services.undo(ctx, "charge", tried)

    @step(retry=SOON, barrier=True)
    async def ship(self, ctx: Context[Order]) -> str:
        self.services.called(ctx, "ship", "action")
        self.services.refuse("ship")
        return ""

    @ship.compensation(retry=OFTEN)
    async def call_back(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.services.undo(ctx, "ship", tried)


class Stuck(Saga[Order], recoveries_max=RECOVERIES):
    """The last of three steps refuses; the undo of the second one breaks until somebody repairs it."""

    def __init__(self, services: Services) -> None:
        self.services = services

    @step(retry=SOON, barrier=True)
    async def reserve(self, ctx: Context[Order]) -> str:
        return await self.services.act(ctx, "reserve")

    @reserve.compensation(retry=OFTEN)
    async def release(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.services.undo(ctx, "reserve", tried)

    @step(retry=SOON, barrier=True)
    async def charge(self, ctx: Context[Order]) -> str:
        return await self.services.act(ctx, "charge")

    @charge.compensation(retry=SOON)
    async def refund(self, ctx: Context[Order], tried: Tried[str]) -> None:
        if not self.services.noted(ctx.saga_id, REPAIRED):
            self.services.called(ctx, "charge", "compensation")
            raise ConnectionError("the undo is broken")
        await self.services.undo(ctx, "charge", tried)

    @step(retry=SOON, barrier=True)
    async def ship(self, ctx: Context[Order]) -> str:
        self.services.called(ctx, "ship", "action")
        self.services.refuse("ship")
        return ""

    @ship.compensation(retry=OFTEN)
    async def call_back(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.services.undo(ctx, "ship", tried)


class Halting(Saga[Order], recoveries_max=RECOVERIES, on_compensation_failure="halt"):
    """As `Stuck`, and nothing else is undone while one undo has given up."""

    def __init__(self, services: Services) -> None:
        self.services = services

    @step(retry=SOON, barrier=True)
    async def reserve(self, ctx: Context[Order]) -> str:
        return await self.services.act(ctx, "reserve")

    @reserve.compensation(retry=OFTEN)
    async def release(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.services.undo(ctx, "reserve", tried)

    @step(retry=SOON, barrier=True)
    async def charge(self, ctx: Context[Order]) -> str:
        return await self.services.act(ctx, "charge")

    @charge.compensation(retry=SOON)
    async def refund(self, ctx: Context[Order], tried: Tried[str]) -> None:
        self.services.called(ctx, "charge", "compensation")
        raise ConnectionError("the undo is broken")

    @step(retry=SOON, barrier=True)
    async def ship(self, ctx: Context[Order]) -> str:
        self.services.called(ctx, "ship", "action")
        self.services.refuse("ship")
        return ""

    @ship.compensation(retry=OFTEN)
    async def call_back(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.services.undo(ctx, "ship", tried)


async def _repair(orchestrator: Orchestrator, stage: Stage, saga_id: str) -> None:
    """Be the operator who mends the participant, and has the undo tried again."""
    while isinstance(await orchestrator.outcome(Stuck, saga_id), NeedsAttention):
        stage.services.note(saga_id, REPAIRED)
        await asked(lambda: orchestrator.retry(Stuck, saga_id, reason="it is mended"))
        await asyncio.sleep(0.1)


async def _skip(orchestrator: Orchestrator, stage: Stage, saga_id: str) -> None:
    """Be the operator who gives the undo up."""
    while isinstance(await orchestrator.outcome(Stuck, saga_id), NeedsAttention):
        await asked(lambda: orchestrator.skip(Stuck, saga_id, "charge", reason="written off"))
        await asyncio.sleep(0.1)


SHAPES = (
    Shape("time_out", "a step hangs after its effect, is given up and repeated", 2, (Start(Hanging),),
          made_of(Hanging), DONE, {"completed": paid("reserve", "charge")}),
    Shape("retry_then_fail", "a step has its effect and breaks at every attempt", 2, (Start(Breaking),),
          made_of(Breaking), UNDONE, {"compensated": {}}),
    Shape("saga_deadline", "the saga's deadline turns it back", 2, (Start(Overdue),), made_of(Overdue), UNDONE,
          {"compensated": {}}),
    Shape("probe", "a step that may be called once, and can be asked for", 2, (Start(Probed),), made_of(Probed), DONE,
          {"completed": paid("reserve", "charge")}),
    # Killed in that step, it waits for a person, whether the charge has landed or not.
    Shape("at_most_once", "a step that may be called once, and can't be asked for", 2, (Start(Once),), made_of(Once),
          DONE | PARKED, {"completed": paid("reserve", "charge")}),
    Shape("undo_fails_twice", "an undo breaks twice", 3, (Start(Undoing),), made_of(Undoing), UNDONE,
          {"compensated": {}}),
    Shape("undo_parks", "an undo never succeeds, and the others go on", 3, (Start(Stuck),), made_of(Stuck), PARKED,
          {"needs_attention": paid("charge")}),
    Shape("undo_halts", "an undo never succeeds, and the others wait", 3, (Start(Halting),), made_of(Halting), PARKED,
          {"needs_attention": paid("reserve", "charge")}),
    Shape("operator_retries", "an undo parks, is mended, and tried again by an operator", 3, (Start(Stuck),),
          made_of(Stuck), UNDONE, {"compensated": {}}, _repair),
    Shape("operator_skips", "an undo parks, and is given up by an operator", 3, (Start(Stuck),), made_of(Stuck),
          frozenset({"failed"}), {"failed": paid("charge")}, _skip),
)  # fmt: skip
