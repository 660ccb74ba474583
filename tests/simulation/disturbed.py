"""Participants that take their time, hang, and break before or after their effect, as drawn by a seed.

Owns how badly they behave; what they decide and remember is `tests.shapes.services`'. When `calm` is set they behave
from then on. Must not know how a process dies. Used by the schedules.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from random import Random
from typing import Any

from atone import CannotTell, Context, Landed, NotLanded, Tried
from atone.testing._process import PROCESS
from tests.shapes.services import CENTS, Services, Snag

BREAKS = 0.06
HANGS = 0.03
SLOW = 0.4
LONGEST_HANG_SECONDS = 60.0
TRAVELS = 0.3


class Disturbed(Services):
    """The participants of a shape, on a bad day. `badly`: they also break and hang; else they are only slow."""

    def __init__(
        self,
        services: Services,
        chance: Random,
        *,
        badly: bool,
        slow_seconds: float,
        late_seconds: Callable[[str, str], float | None],
        now: Callable[[], float],
    ) -> None:
        """`late_seconds`: of a saga and a step, how long after a call's hard end it may land; None if it is guarded."""

        def guards(saga_id: str, step: str) -> bool:
            return late_seconds(saga_id, step) is None

        super().__init__(services.ledger, services.point, guards=guards)
        self._late_seconds, self._now = late_seconds, now
        self._chance, self._badly, self._slow_seconds = chance, badly, slow_seconds
        self.calm = False

    async def act(self, ctx: Context[Any], step: str, cents: int = 100) -> str:
        """See `Services`."""
        self.called(ctx, step, "action")
        await self._disturb()
        told = await self._land(ctx, step, cents)
        await self._disturb()
        return told

    async def undo(self, ctx: Context[Any], step: str, tried: Tried[Any]) -> None:
        """See `Services`."""
        self.called(ctx, step, "compensation")
        await self._disturb()
        self.give_back(ctx, step, tried)
        await self._disturb()

    async def try_to_act(self, ctx: Context[Any], step: str, refuses: float) -> str:
        """Do as `act`, or refuse without a look at the key, as often as said."""
        self.called(ctx, step, "action")
        await self._disturb()
        if not self.calm and self._chance.random() < refuses:
            self.refuse(step)
        told = await self._land(ctx, step, CENTS)
        await self._disturb()
        return told

    async def _land(self, ctx: Context[Any], step: str, cents: int) -> str:
        """Have the effect; without a guard that is when the network likes, whoever has died or given up by then.

        It is as late as the law lets a call be, and no later: its hard end and the grace after it.
        """
        late_seconds = self._late_seconds(ctx.saga_id, step)
        if late_seconds is None or ctx.deadline is None:
            return self.take(ctx, step, cents)
        latest = ctx.deadline - self._now() + late_seconds
        seconds = max(0.0, latest) * self._chance.random() if self._chance.random() < TRAVELS else 0.0
        nobody = copy_context()
        nobody.run(PROCESS.set, None)
        sent = asyncio.get_running_loop().create_task(self._arrive(seconds, ctx, step, cents), context=nobody)
        return await asyncio.shield(sent)

    async def _arrive(self, seconds: float, ctx: Context[Any], step: str, cents: int) -> str:
        await asyncio.sleep(seconds)
        return self.take(ctx, step, cents)

    async def look(self, tried: Tried[Any], step: str, saga_id: str) -> Landed[str] | NotLanded | CannotTell:
        """Say whether the action has landed, if they know today."""
        await self._disturb()
        if not self.calm and self._chance.random() < 0.2:
            return CannotTell()
        found = self.find(tried, step, saga_id)
        await self._disturb()
        return found

    async def _disturb(self) -> None:
        drawn = self._chance.random()
        if self.calm or drawn < 0.3:
            return
        if drawn < 0.3 + SLOW:
            await asyncio.sleep(self._slow_seconds * self._chance.random() ** 3)
        elif self._badly and drawn > 1 - BREAKS:
            raise Snag("the participant has a bad day")
        elif self._badly and drawn > 1 - BREAKS - HANGS:
            await asyncio.sleep(self._chance.uniform(0, LONGEST_HANG_SECONDS))
        else:
            await asyncio.sleep(0)
