"""Shapes that wait, or are steered from outside: cancel, events, delays, and a new version that is deployed meanwhile.

Owns their definitions, and what is done from outside. Must not know how a run is tormented. Listed by `catalogue`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from atone import Context, Orchestrator, Saga, Tried, delay, pivot, step, wait_for_event
from tests.shapes.ledger import EFFECT
from tests.shapes.services import Services
from tests.shapes.shape import DONE, EITHER, UNDONE, Order, Shape, Stage, Start, asked
from tests.shapes.straight import OFTEN, RECOVERIES, SOON, made_of, paid

GO = "go"


class Awaiting(Saga[Order], recoveries_max=RECOVERIES):
    """It waits for an event between two steps, for as long as it takes."""

    def __init__(self, services: Services) -> None:
        self.services = services

    @step(retry=SOON, barrier=True)
    async def reserve(self, ctx: Context[Order]) -> str:
        return await self.services.act(ctx, "reserve")

    @reserve.compensation(retry=OFTEN)
    async def release(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.services.undo(ctx, "reserve", tried)

    go = wait_for_event(GO, str, timeout=3600)

    @step(go, retry=SOON, barrier=True)
    async def charge(self, ctx: Context[Order], said: str) -> str:
        return await self.services.act(ctx, "charge")

    @charge.compensation(retry=OFTEN)
    async def refund(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.services.undo(ctx, "charge", tried)


class Impatient(Saga[Order], recoveries_max=RECOVERIES):
    """It waits for an event that does not come, and turns back."""

    def __init__(self, services: Services) -> None:
        self.services = services

    @step(retry=SOON, barrier=True)
    async def reserve(self, ctx: Context[Order]) -> str:
        return await self.services.act(ctx, "reserve")

    @reserve.compensation(retry=OFTEN)
    async def release(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.services.undo(ctx, "reserve", tried)

    go = wait_for_event(GO, str, timeout=0.2)

    @pivot(go, retry=OFTEN)
    async def ship(self, ctx: Context[Order], said: str) -> str:
        return await self.services.act(ctx, "ship")


class Racing(Saga[Order], recoveries_max=RECOVERIES):
    """Two steps and a point of no return, which a cancel races with."""

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

    @charge.compensation(retry=OFTEN)
    async def refund(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.services.undo(ctx, "charge", tried)

    @pivot(retry=OFTEN)
    async def ship(self, ctx: Context[Order]) -> str:
        return await self.services.act(ctx, "ship")


class Pausing(Saga[Order], recoveries_max=RECOVERIES):
    """A short delay between two steps."""

    def __init__(self, services: Services) -> None:
        self.services = services

    @step(retry=SOON, barrier=True)
    async def reserve(self, ctx: Context[Order]) -> str:
        return await self.services.act(ctx, "reserve")

    @reserve.compensation(retry=OFTEN)
    async def release(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.services.undo(ctx, "reserve", tried)

    pause = delay(0.2)

    @step(retry=SOON, barrier=True)
    async def charge(self, ctx: Context[Order]) -> str:
        return await self.services.act(ctx, "charge")

    @charge.compensation(retry=OFTEN)
    async def refund(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.services.undo(ctx, "charge", tried)


class Sleeping(Saga[Order], recoveries_max=RECOVERIES):
    """A long delay between two steps: nobody owns the saga meanwhile, and every lease ends."""

    def __init__(self, services: Services) -> None:
        self.services = services

    @step(retry=SOON, barrier=True)
    async def reserve(self, ctx: Context[Order]) -> str:
        return await self.services.act(ctx, "reserve")

    @reserve.compensation(retry=OFTEN)
    async def release(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.services.undo(ctx, "reserve", tried)

    pause = delay(15)

    @step(retry=SOON, barrier=True)
    async def charge(self, ctx: Context[Order]) -> str:
        return await self.services.act(ctx, "charge")

    @charge.compensation(retry=OFTEN)
    async def refund(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.services.undo(ctx, "charge", tried)


class Evolving(Saga[Order], recoveries_max=RECOVERIES):
    """The first version: a step, an event, a step."""

    def __init__(self, services: Services) -> None:
        self.services = services

    @step(retry=SOON, barrier=True)
    async def reserve(self, ctx: Context[Order]) -> str:
        return await self.services.act(ctx, "reserve")

    @reserve.compensation(retry=OFTEN)
    async def release(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.services.undo(ctx, "reserve", tried)

    go = wait_for_event(GO, str, timeout=3600)

    @step(retry=SOON, barrier=True)
    async def charge(self, ctx: Context[Order]) -> str:
        return await self.services.act(ctx, "charge")

    @charge.compensation(retry=OFTEN)
    async def refund(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.services.undo(ctx, "charge", tried)


class Evolved(Saga[Order], name="Evolving", version=2, recoveries_max=RECOVERIES):
    """The second version: no event, and another step."""

    def __init__(self, services: Services) -> None:
        self.services = services

    @step(retry=SOON, barrier=True)
    async def charge(self, ctx: Context[Order]) -> str:
        return await self.services.act(ctx, "charge")

    @charge.compensation(retry=OFTEN)
    async def refund(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.services.undo(ctx, "charge", tried)

    @pivot(retry=OFTEN)
    async def ship(self, ctx: Context[Order]) -> str:
        return await self.services.act(ctx, "ship")


def _has(stage: Stage, saga_id: str, step: str) -> bool:
    return stage.ledger.book().has(EFFECT, saga_id, step) > 0


async def _send(orchestrator: Orchestrator, stage: Stage, saga_id: str) -> None:
    await stage.until(lambda: _has(stage, saga_id, "reserve"))
    await asked(lambda: orchestrator.send_event(Awaiting, saga_id, GO, "now", event_id=f"{GO}-{saga_id}"))


async def _send_early(orchestrator: Orchestrator, stage: Stage, saga_id: str) -> None:
    await asked(lambda: orchestrator.send_event(Awaiting, saga_id, GO, "now", event_id=f"{GO}-{saga_id}"))


async def _send_to_old(orchestrator: Orchestrator, stage: Stage, saga_id: str) -> None:
    old = f"{saga_id}-old"
    await stage.until(lambda: _has(stage, old, "reserve"))
    await asked(lambda: orchestrator.send_event(Evolving, old, GO, "now", event_id=f"{GO}-{old}"))


async def _cancel(orchestrator: Orchestrator, stage: Stage, saga_id: str) -> None:
    await stage.until(lambda: _has(stage, saga_id, "reserve"))
    await asked(lambda: orchestrator.cancel(Awaiting, saga_id, reason="changed my mind"))


async def _cancel_at_once(orchestrator: Orchestrator, stage: Stage, saga_id: str) -> None:
    await asked(lambda: orchestrator.cancel(Racing, saga_id, reason="changed my mind"))


def _deploy(stage: Stage, generation: int) -> Sequence[Saga[Any]]:
    old, new = Evolving(stage.services), Evolved(stage.services)
    return [old] if generation == 0 else [old, new]


SHAPES = (
    Shape("cancel", "cancelled while it waits", 3, (Start(Awaiting),), made_of(Awaiting), UNDONE, {"compensated": {}},
          _cancel),
    Shape("cancel_race", "a cancel against a point of no return", 3, (Start(Racing),), made_of(Racing), EITHER,
          {"compensated": {}, "completed": paid("reserve", "charge", "ship")}, _cancel_at_once),
    Shape("event", "waits for an event", 3, (Start(Awaiting),), made_of(Awaiting), DONE,
          {"completed": paid("reserve", "charge")}, _send),
    Shape("event_early", "an event that comes before it is waited for", 3, (Start(Awaiting),), made_of(Awaiting), DONE,
          {"completed": paid("reserve", "charge")}, _send_early),
    Shape("event_never", "waits for an event that does not come", 3, (Start(Impatient),), made_of(Impatient), UNDONE,
          {"compensated": {}}),
    Shape("delay", "a short delay", 3, (Start(Pausing),), made_of(Pausing), DONE,
          {"completed": paid("reserve", "charge")}),
    Shape("long_delay", "a long delay, in which nobody owns it", 3, (Start(Sleeping),), made_of(Sleeping), DONE,
          {"completed": paid("reserve", "charge")}, is_long=True),
    Shape("upgraded", "a new version is deployed while one of the old is under way", 3,
          (Start(Evolving, Order(), "-old"), Start(Evolved, Order(), "-new")), _deploy, DONE,
          {"-old:completed": paid("reserve", "charge"), "-new:completed": paid("charge", "ship")}, _send_to_old, 2),
)  # fmt: skip
