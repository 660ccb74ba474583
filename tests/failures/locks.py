"""Failures of sagas that meet each other: locks that outlive transactions, and circles of those who wait.

Each function is one failure: it makes it happen, asserts what the page claims, and quotes what was seen.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from atone import Context, Retry, Saga, SagaStatus, Tried, step
from atone.isolation import BlockingSemanticLocks
from tests.failures.stage import Stage, failure

PATIENT = Retry(attempts=50, initial=1.0, maximum=5.0, jitter=0.0)


@dataclass(frozen=True)
class Move:
    """From one account to another."""

    first: str
    second: str


class MoveMoney(Saga[Move], name="MoveMoney", late_grace=0):
    """Hold one account, then the other; both are given back at the end or by the undo."""

    def __init__(self, locks: BlockingSemanticLocks, connection: sqlite3.Connection) -> None:
        self.locks, self.connection = locks, connection

    @step(retry=PATIENT)
    async def hold_first(self, ctx: Context[Move]) -> None:
        self.locks.run(ctx.saga_id, [ctx.input.first], lambda connection: None)
        await asyncio.sleep(1)

    @hold_first.compensation
    async def give_back_first(self, ctx: Context[Move], tried: Tried[None]) -> None:
        with self.connection:
            self.connection.execute("BEGIN")
            self.locks.release_all(self.connection, ctx.saga_id)

    @step(retry=PATIENT)
    async def hold_second(self, ctx: Context[Move]) -> None:
        self.locks.run(ctx.saga_id, [ctx.input.second], lambda connection: None)

    @hold_second.compensation
    async def give_back_second(self, ctx: Context[Move], tried: Tried[None]) -> None: ...

    @step(no_compensation="it is the last step")
    async def move(self, ctx: Context[Move]) -> None:
        with self.connection:
            self.connection.execute("BEGIN")
            self.locks.release_all(self.connection, ctx.saga_id)


@failure("Sagas wait for each other's locks", "`Locked` again and again, then a saga was undone for a deadlock")
async def a_circle_of_locks(at: Stage) -> None:
    at.happens("""
        Two sagas move money between the same two accounts, in opposite directions. Each holds its first account with a
        semantic lock, which outlives transactions and has no lease, and wants the other's. To wait would be to wait for
        ever. Who is refused writes down for whom it waits; when that closes a circle, the youngest of it gives way: its
        step is rejected with `DeadlockFound`, and it turns back. The other one gets what it wants.
    """)
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        # Who is the youngest is told by the database's time, which is the simulation's here.
        connection.create_function("julianday", 1, lambda _: at.sim.clock.time() / 86_400 + 2_440_587.5)

        @contextmanager
        def database() -> Iterator[sqlite3.Connection]:
            with connection:
                connection.execute("BEGIN")
                yield connection

        locks = BlockingSemanticLocks(database, retry_seconds=5)
        with database():
            locks.create_table(connection)
        saga = MoveMoney(locks, connection)
        at.worker(saga)
        async with at.client(saga) as atone:
            await atone.start(MoveMoney, Move("a", "b"), saga_id="there")
            await atone.start(MoveMoney, Move("b", "a"), saga_id="back")
        ends = {await at.settled("there"), await at.settled("back")}
        assert ends == {SagaStatus.COMPLETED, SagaStatus.COMPENSATED}
        at.journal("The one that gave way:")
        turned = "back" if await at.status("back") is SagaStatus.COMPENSATED else "there"
        assert "deadlock" in await at.atone(f"show {turned}")
        at.journal("The other one, which had to wait:")
        other = "there" if turned == "back" else "back"
        assert "Locked" in await at.atone(f"show {other}")
        with database():
            assert locks.held(connection) == []
        at.person("""
            Nothing for these. Start the one that gave way again under a new id, when the caller still wants it. Let a
            step take all that it needs in one call, for these are taken in one order, and there is no circle.
        """)
