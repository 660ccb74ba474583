"""Runs one service of the order example for a test: a real process on a free port.

Owns how a test starts, asks and reads a service. Makes no assertion. Used by the tests of services and clients.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from examples.orders.children import child
from examples.orders.faults import NO_FAULTS, Rates

STOCK = {"CUP": 10, "RUG": 1}


@dataclass(frozen=True)
class Service:
    """A running service: how to ask it, and where its rows are."""

    http: httpx.AsyncClient
    database: Path
    pid: int

    async def post(self, path: str, key: str, body: object) -> httpx.Response:
        """POST the body under an idempotency key."""
        return await self.http.post(
            path, json=body, headers={"Idempotency-Key": quote(key), "Atone-Saga-Id": "order-1"}
        )

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Read from the database as it is on disk."""
        with closing(sqlite3.connect(self.database)) as connection:
            return connection.execute(query).fetchall()


@asynccontextmanager
async def service(name: str, folder: Path, rates: Rates = NO_FAULTS) -> AsyncGenerator[Service, None]:
    """Run one service while the block lasts."""
    database, stock = folder / f"{name}.db", folder / "stock.json"
    stock.write_text(json.dumps(STOCK))
    options = ["--stop-with-stdin", "--database", str(database), "--faults", str(rates)]
    options += ["--stock", str(stock)] if name == "inventory" else []
    async with AsyncExitStack() as stack:
        process = await stack.enter_async_context(child(name, f"examples.orders.{name}", *options))
        started: Any = await process.read()
        http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{started['port']}", timeout=10)
        yield Service(await stack.enter_async_context(http), database, process.pid)


def run(work: Callable[[], Awaitable[None]]) -> None:
    """Run a test's coroutine."""

    async def main() -> None:
        await work()

    asyncio.run(main())
