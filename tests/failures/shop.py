"""The sagas that the failures happen to: an order, in the words of the guide.

Owns the definitions. What their steps do is scripted by each story on a `World`, which honours keys and remembers
calls.
"""

from __future__ import annotations

from dataclasses import dataclass

from atone import Context, Retry, Saga, Tried, pivot, retriable, step
from tests.runtime.world import World

THRICE = Retry(attempts=3, initial=1.0, jitter=0.0)
FOR_EVER = Retry(initial=1.0, maximum=60.0, jitter=0.0)


@dataclass(frozen=True)
class Order:
    item: str = "cup"
    cents: int = 500


class PlaceOrder(Saga[Order], late_grace=5):
    """Reserve, charge, ship (no way back after that), send the receipt."""

    def __init__(self, world: World) -> None:
        self.world = world

    @step(retry=THRICE, timeout=10)
    async def reserve(self, ctx: Context[Order]) -> str:
        return await self.world.act("reserve", ctx)

    @reserve.compensation(retry=THRICE, timeout=10)
    async def release(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.world.act("release", ctx, tried)

    @step(retry=THRICE, timeout=10)
    async def charge(self, ctx: Context[Order]) -> str:
        return await self.world.act("charge", ctx)

    @charge.compensation(retry=THRICE, timeout=10)
    async def refund(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.world.act("refund", ctx, tried)

    @pivot(reserve, charge, retry=THRICE, timeout=10)
    async def ship(self, ctx: Context[Order], reservation: str, payment: str) -> str:
        return await self.world.act("ship", ctx)

    @retriable(ship, retry=FOR_EVER, timeout=10)
    async def send_receipt(self, ctx: Context[Order], shipment: str) -> None:
        await self.world.act("send_receipt", ctx)
