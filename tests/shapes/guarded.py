"""Shapes whose participants guard themselves: a barrier in their own database transaction, and remembered calls.

Owns their definitions and the tables that they write. Where the effect is a row of a transaction, that row is the
ledger, read by `moved`. Must not know how a run is tormented. Listed by `catalogue`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from atone import Context, Saga, Tried, step
from atone.barrier import BlockingBarrier
from atone.idempotency import Claims, IdempotentStep
from tests.shapes.ledger import EFFECT, Line
from tests.shapes.services import CENTS, CUSTOMER
from tests.shapes.shape import DONE, UNDONE, Order, Shape, Stage, Start
from tests.shapes.straight import OFTEN, RECOVERIES, SOON, paid

BANK = "bank"
_TABLE = "CREATE TABLE IF NOT EXISTS moved (saga TEXT, step TEXT, operation TEXT, cents INTEGER)"
_MOVE = "INSERT INTO moved VALUES (?, ?, ?, ?)"
_MOVED = "SELECT saga, step, operation, cents FROM moved ORDER BY rowid"


def moved(stage: Stage) -> list[Line]:
    """Return the bank's rows as lines of the ledger."""
    with stage.databases(BANK)() as connection:
        connection.execute(_TABLE)
        rows = connection.execute(_MOVED).fetchall()
    return [
        Line(EFFECT, saga, name, operation, moves={CUSTOMER: -cents, name: cents})
        for saga, name, operation, cents in rows
    ]


def _pay(connection: sqlite3.Connection, saga_id: str, name: str) -> str:
    connection.execute(_MOVE, (saga_id, name, "action", CENTS))
    return f"{name} of {saga_id}"


def _pay_back(connection: sqlite3.Connection, result: str, saga_id: str, name: str) -> None:
    connection.execute(_MOVE, (saga_id, name, "compensation", -CENTS))


class Bank:
    """A participant with a barrier: guard and effect are one transaction of its own database."""

    def __init__(self, stage: Stage) -> None:
        self._begin, self.services = stage.databases(BANK), stage.services
        self._barrier = BlockingBarrier()

    def pay(self, ctx: Context[Order], name: str) -> str:
        """Have the effect, once for the key, and never after its undo."""
        self.services.called(ctx, name, "action")
        with self._begin() as connection:
            self._ready(connection)
            return self._barrier.action(connection, ctx.idempotency_key, _pay, ctx.saga_id, name, returns=str)

    def pay_back(self, ctx: Context[Order], name: str, tried: Tried[str]) -> None:
        """Undo it, once, if there is something to undo."""
        self.services.called(ctx, name, "compensation")
        with self._begin() as connection:
            self._ready(connection)
            self._barrier.compensation(
                connection, ctx.idempotency_key, _pay_back, ctx.saga_id, name,
                action_key=tried.idempotency_key, returns=str,
            )  # fmt: skip

    def _ready(self, connection: sqlite3.Connection) -> None:
        self._barrier.create_table(connection)
        connection.execute(_TABLE)


class Guarded(Saga[Order], recoveries_max=RECOVERIES):
    """Two steps in the bank's own transactions, a plain one and one on the loop, and a third that may refuse."""

    def __init__(self, bank: Bank) -> None:
        self.bank = bank

    @step(retry=SOON, barrier=True)
    def reserve(self, ctx: Context[Order]) -> str:
        return self.bank.pay(ctx, "reserve")

    @reserve.compensation(retry=OFTEN)
    def release(self, ctx: Context[Order], tried: Tried[str]) -> None:
        self.bank.pay_back(ctx, "reserve", tried)

    @step(retry=SOON, barrier=True)
    async def charge(self, ctx: Context[Order]) -> str:
        return self.bank.pay(ctx, "charge")

    @charge.compensation(retry=OFTEN)
    async def refund(self, ctx: Context[Order], tried: Tried[str]) -> None:
        self.bank.pay_back(ctx, "charge", tried)

    @step(retry=SOON, barrier=True)
    async def book(self, ctx: Context[Order]) -> str:
        if ctx.input.refused == "book":
            self.bank.services.called(ctx, "book", "action")
            self.bank.services.refuse("book")
        return self.bank.pay(ctx, "book")

    @book.compensation(retry=OFTEN)
    async def unbook(self, ctx: Context[Order], tried: Tried[str]) -> None:
        self.bank.pay_back(ctx, "book", tried)


class Remembered(Saga[Order], recoveries_max=RECOVERIES):
    """Steps whose calls are claimed and remembered by `IdempotentStep`, around participants that honour keys."""

    def __init__(self, stage: Stage) -> None:
        self.services = stage.services
        self.claims = Claims(stage.databases("claims"))
        said: dict[str, Any] = {"claims": self.claims, "returns": str, "saga": "Remembered", "lease_seconds": 0.3}
        self.reserving, self.charging = IdempotentStep[str]("reserve", **said), IdempotentStep[str]("charge", **said)

    @step(retry=OFTEN, barrier=True)
    async def reserve(self, ctx: Context[Order]) -> str:
        self.services.called(ctx, "reserve", "action")
        await self.claims.create_table()

        async def do() -> str:
            return self.services.take(ctx, "reserve")

        return await self.reserving.execute(ctx.saga_id, do)

    @reserve.compensation(retry=OFTEN)
    async def release(self, ctx: Context[Order], tried: Tried[str]) -> None:
        self.services.called(ctx, "reserve", "compensation")
        await self.claims.create_table()

        async def undo(_: Tried[str]) -> None:
            self.services.give_back(ctx, "reserve", tried)

        await self.reserving.compensate(ctx.saga_id, undo)

    @step(retry=OFTEN, barrier=True)
    async def charge(self, ctx: Context[Order]) -> str:
        self.services.called(ctx, "charge", "action")
        await self.claims.create_table()

        async def do() -> str:
            if ctx.input.refused == "charge":
                self.services.refuse("charge")
            return self.services.take(ctx, "charge")

        return await self.charging.execute(ctx.saga_id, do)

    @charge.compensation(retry=OFTEN)
    async def refund(self, ctx: Context[Order], tried: Tried[str]) -> None:
        self.services.called(ctx, "charge", "compensation")
        await self.claims.create_table()

        async def undo(_: Tried[str]) -> None:
            self.services.give_back(ctx, "charge", tried)

        await self.charging.compensate(ctx.saga_id, undo)


def _guarded(stage: Stage, generation: int) -> Sequence[Saga[Any]]:
    return [Guarded(Bank(stage))]


def _remembered(stage: Stage, generation: int) -> Sequence[Saga[Any]]:
    return [Remembered(stage)]


SHAPES = (
    Shape("barrier", "steps in the participant's own transaction, with a barrier", 3, (Start(Guarded),), _guarded, DONE,
          {"completed": paid("reserve", "charge", "book")}, recorded=moved),
    Shape("barrier_refused", "steps with a barrier, of which the last refuses", 3, (Start(Guarded, Order("book")),),
          _guarded, UNDONE, {"compensated": {}}, recorded=moved),
    Shape("idempotent_step", "calls that are claimed and remembered", 2, (Start(Remembered),), _remembered, DONE,
          {"completed": paid("reserve", "charge")}),
    Shape("idempotent_refused", "remembered calls, of which the last refuses", 2, (Start(Remembered, Order("charge")),),
          _remembered, UNDONE, {"compensated": {}}),
)  # fmt: skip
