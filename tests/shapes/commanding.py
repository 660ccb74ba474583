"""Shapes whose steps are commands: nothing is called, a message is sent, and a participant of its own replies.

Owns their definition and the service that replies: the same participants that dance in `choreographed`, asked by an
orchestrator. Must not know how a run is tormented. Listed by `catalogue`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from atone import Context, Saga, Tried, command, pivot
from atone.broker import Broker
from atone.serving import Service, serve
from tests.shapes.choreographed import (
    CHAIN,
    Charged,
    Money,
    Placed,
    Refunded,
    Reserved,
    Shipped,
    Stock,
    VanMissing,
    Vans,
    moved_in,
    with_table,
)
from tests.shapes.ledger import Line
from tests.shapes.shape import DONE, PARKED, UNDONE, Order, Shape, Stage, Start
from tests.shapes.straight import OFTEN, RECOVERIES, SOON, paid

SHOP = "shop"


class Asking(Saga[Order], recoveries_max=RECOVERIES):
    """Three participants are asked by command; the last one is the point of no return, and may refuse."""

    @command(reply=Reserved, timeout=2, retry=OFTEN, to="stock.reserve")
    def reserve(self, ctx: Context[Order]) -> Placed:
        return Placed(ctx.input.refused)

    @reserve.compensation(to="stock.release", retry=OFTEN)
    def release(self, ctx: Context[Order], tried: Tried[Reserved]) -> Refunded:
        return Refunded("given up")

    @command(reserve, reply=Charged, timeout=2, retry=OFTEN, to="money.charge")
    def charge(self, ctx: Context[Order], reserved: Reserved) -> Reserved:
        return reserved

    @charge.compensation(to="money.refund", retry=OFTEN)
    def refund(self, ctx: Context[Order], tried: Tried[Charged]) -> VanMissing:
        return VanMissing("given up")

    @pivot.command(charge, reply=Shipped, rejects=VanMissing, timeout=2, retry=SOON, to="vans.ship")
    def ship(self, ctx: Context[Order], charged: Charged) -> Charged:
        return charged


def _asking(stage: Stage, generation: int) -> Sequence[Saga[Any]]:
    return [Asking()]


def _serving(stage: Stage, broker: Broker) -> Service:
    database = with_table(stage, SHOP)
    return serve(CHAIN, Stock(), Money(), Vans(), database=database, broker=broker, poll_seconds=0.1)


def _recorded(stage: Stage) -> list[Line]:
    return moved_in(stage, [SHOP])


SHAPES = (
    Shape("commands", "steps that are commands", 3, (Start(Asking),), _asking, DONE,
          {"completed": paid("reserve", "charge", "ship")}, recorded=_recorded, serving=_serving),
    # A pivot that was asked twice, because its first reply was late, and refuses is in doubt.
    Shape("commands_refused", "commands, of which the last is refused", 3, (Start(Asking, Order("vans")),), _asking,
          UNDONE | PARKED, {"compensated": {}}, recorded=_recorded, serving=_serving),
)  # fmt: skip
