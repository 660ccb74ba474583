"""The floor on PostgreSQL: what a saga by hand would write, a row an event, in one group-commit loop without an engine.

One writer connection (asyncpg) inserts whatever is queued with one statement over arrays, so one transaction; each
saga waits for each of its rows: start, three steps, end; or start, two steps, the failure, two undos, end. No checks,
owners, leases or recovery: it bounds what an engine can reach, and is no rival. Must not share code with Atone's commit
path. Used by `side`.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeAlias
from uuid import uuid4

import asyncpg

_TABLE = """
CREATE TABLE ev (saga text, seq int, kind text, data text, at timestamptz DEFAULT now(), PRIMARY KEY (saga, seq))
"""
_WRITE = """
INSERT INTO ev (saga, seq, kind, data) SELECT * FROM unnest($1::text[], $2::int[], $3::text[], $4::text[])
"""

_Row: TypeAlias = tuple[str, int, str, str]
_Do: TypeAlias = Callable[[str], Awaitable[dict[str, str]]]
_Undo: TypeAlias = Callable[[dict[str, str]], Awaitable[None]]


class FloorPostgres:
    """Writes sagas to a new table in the database at `dsn`."""

    def __init__(self, dsn: str, workload: str) -> None:
        self._dsn = dsn
        self._fails = workload == "compensate"
        self._queue: list[tuple[_Row, asyncio.Future[None]]] = []
        self._wanted = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self.turns = 0
        self.batches = 0
        self.calls: Counter[str] = Counter()
        self._steps: tuple[tuple[str, _Do, _Undo], ...] = (
            ("reserve", self._reserve, self._release),
            ("pay", self._pay, self._refund),
            ("ship", self._ship, self._call_back),
        )

    async def start(self) -> None:
        """Make the table and begin to write."""
        connection = await asyncpg.connect(self._dsn)
        await connection.execute(_TABLE)
        self._writer = asyncio.create_task(self._write(connection))

    async def close(self) -> None:
        """Stop writing; what is queued is not written."""
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.wait([self._writer])

    async def run_one(self, client: int, number: int) -> None:
        """Run one saga, each event of it durable before the next."""
        order, seq = uuid4().hex, 0
        done: list[tuple[str, _Undo, dict[str, str]]] = []
        await self._put(order, seq, "start", json.dumps({"order_id": order}))
        try:
            for name, step, undo in self._steps:
                result = await step(order)
                seq += 1
                await self._put(order, seq, name, json.dumps(result))
                done.append((name, undo, result))
        except _OutOfStock as error:
            seq += 1
            await self._put(order, seq, "failed", repr(error))
            for name, undo, result in reversed(done):
                await undo(result)
                seq += 1
                await self._put(order, seq, f"undo-{name}", "{}")
        await self._put(order, seq + 1, "end", "{}")

    async def _reserve(self, order: str) -> dict[str, str]:
        self.calls["reserve"] += 1
        return {"reservation": f"r-{order}"}

    async def _release(self, result: dict[str, str]) -> None:
        self.calls["release"] += 1

    async def _pay(self, order: str) -> dict[str, str]:
        self.calls["pay"] += 1
        return {"payment": f"p-{order}"}

    async def _refund(self, result: dict[str, str]) -> None:
        self.calls["refund"] += 1

    async def _ship(self, order: str) -> dict[str, str]:
        self.calls["ship"] += 1
        if self._fails:
            raise _OutOfStock(order)
        return {"shipment": f"s-{order}"}

    async def _call_back(self, result: dict[str, str]) -> None:
        self.calls["call back"] += 1

    async def _put(self, *row: *_Row) -> None:
        durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append((row, durable))
        self._wanted.set()
        await durable

    async def _write(self, connection: asyncpg.Connection) -> None:
        try:
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                batch, self._queue = self._queue, []
                await connection.execute(_WRITE, *map(list, zip(*[row for row, _ in batch], strict=True)))
                self.batches += 1
                self.turns += len(batch)
                for _, durable in batch:
                    durable.set_result(None)
        finally:
            connection.terminate()


class _OutOfStock(Exception):
    pass
