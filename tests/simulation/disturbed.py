"""Participants that take their time, hang, and break before or after their effect, as drawn by a seed.

Owns how badly they behave; what they decide and remember is `tests.shapes.services`'. When `calm` is set they behave
from then on. Must not know how a process dies. Used by the schedules.
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

from atone import CannotTell, Context, Landed, NotLanded, Tried
from tests.shapes.services import Services, Snag

BREAKS = 0.06
HANGS = 0.03
SLOW = 0.4
LONGEST_HANG_SECONDS = 60.0


class Disturbed(Services):
    """The participants of a shape, on a bad day. `badly`: they also break and hang; else they are only slow."""

    def __init__(self, services: Services, chance: Random, *, badly: bool, slow_seconds: float) -> None:
        super().__init__(services.ledger, services.point)
        self._chance, self._badly, self._slow_seconds = chance, badly, slow_seconds
        self.calm = False

    async def act(self, ctx: Context[Any], step: str, cents: int = 100) -> str:
        """See `Services`."""
        self.called(ctx, step, "action")
        await self._disturb()
        told = self.take(ctx, step, cents)
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
        told = self.take(ctx, step)
        await self._disturb()
        return told

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
