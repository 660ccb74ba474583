"""Worker processes on one PostgreSQL, and the ledger of every call that their participants got.

Owns a child process, run as `python -m benchmarks.crew TASK`: a worker that may start sagas of its own, or a closed
loop of clients that is measured; and the parent's side of it. What the ledger holds survives a SIGKILL. Must not judge.
Used by `scale` and `recovery`.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from atone import Completed, Context, Orchestrator, Saga, Tried, step
from atone.orchestrator import Limits
from atone.stores.postgres import PostgresStore
from benchmarks.load import Loaded, closed_loop
from benchmarks.order_saga import AN_ORDER, Order, PlaceOrder, saga_id, the_saga

STEPS = ("reserve", "pay", "ship")


class Task(msgspec.Struct):
    """What a process is to do: measure itself as `inflight` clients, or work until its standard input ends.

    `starts`: how many sagas it starts itself. `blocks`: its second step never returns.
    """

    dsn: str
    ledger: str = ""
    starts: int = 0
    blocks: bool = False
    lease_seconds: float = 10.0
    inflight: int = 0
    warmup_seconds: float = 1.0
    seconds: float = 4.0
    first_client: int = 0


class Ledger:
    """Notes each call in a file, a line at a time; the lines of processes that share it do not mix."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(self, ctx: Context[Any], name: str) -> None:
        """Note a call; it is in the file when this returns."""
        os.write(self._file, f"{ctx.saga_id} {name} {os.getpid()}\n".encode())


class CountedOrder(Saga[Order], version=1):
    """Three steps that note that they were called; with `blocks` the second one never returns."""

    def __init__(self, ledger: Ledger, *, blocks: bool = False) -> None:
        self.ledger, self.blocks = ledger, blocks

    @step()
    async def reserve(self, ctx: Context[Order]) -> str:
        self.ledger.note(ctx, "reserve")
        return f"reservation-{ctx.saga_id}"

    @reserve.compensation
    async def release(self, ctx: Context[Order], tried: Tried[str]) -> None:
        self.ledger.note(ctx, "release")

    @step()
    async def pay(self, ctx: Context[Order]) -> str:
        self.ledger.note(ctx, "pay")
        if self.blocks:
            await asyncio.Event().wait()
        return f"payment-{ctx.saga_id}"

    @pay.compensation
    async def refund(self, ctx: Context[Order], tried: Tried[str]) -> None:
        self.ledger.note(ctx, "refund")

    @step()
    async def ship(self, ctx: Context[Order]) -> str:
        self.ledger.note(ctx, "ship")
        return f"shipment-{ctx.saga_id}"

    @ship.compensation
    async def call_back(self, ctx: Context[Order], tried: Tried[str]) -> None:
        self.ledger.note(ctx, "call_back")


def calls_in(ledger: Path) -> Counter[tuple[str, str]]:
    """Return how often each step of each saga was called, by (saga id, step)."""
    lines = ledger.read_text(encoding="utf-8").splitlines() if ledger.exists() else []
    return Counter((line.split()[0], line.split()[1]) for line in lines)


class Worker:
    """The parent's side of one process; it ends with its parent, however that ends."""

    def __init__(self, task: Task) -> None:
        command = [sys.executable, "-m", "benchmarks.crew", msgspec.json.encode(task).decode()]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def told(self) -> dict[str, Any]:
        """Wait for the next thing that it says."""
        assert self._process.stdout is not None, "it was started with a pipe"
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"A worker process has ended too early, with status {self._process.wait()}.")
        told: dict[str, Any] = json.loads(line)
        return told

    def kill(self) -> None:
        """End it as a power cut would."""
        self._process.kill()
        self._process.wait()

    def leave(self) -> None:
        """Let it finish what it does, and end."""
        assert self._process.stdin is not None, "it was started with a pipe"
        self._process.stdin.close()
        self._process.wait()


def measured(task: Task) -> Loaded:
    """Run a closed loop in a process of its own, and return what it measured."""
    worker = Worker(task)
    loaded = msgspec.convert(worker.told(), Loaded)
    worker.leave()
    return loaded


async def _work(task: Task) -> None:
    saga = CountedOrder(Ledger(task.ledger), blocks=task.blocks)
    limits = Limits(lease_seconds=task.lease_seconds)
    async with Orchestrator(PostgresStore(task.dsn), sagas=[saga], limits=limits) as orchestrator:
        for number in range(task.starts):
            await orchestrator.start(CountedOrder, AN_ORDER, saga_id=saga_id(task.first_client, number))
        _say(ready=os.getpid())
        await asyncio.to_thread(sys.stdin.read)


async def _measure(task: Task) -> Loaded:
    limits = Limits(sagas_in_flight_max=max(Limits.sagas_in_flight_max, 2 * task.inflight))
    async with Orchestrator(PostgresStore(task.dsn), sagas=[the_saga("order")], limits=limits) as orchestrator:

        async def run_one(client: int, number: int) -> None:
            name = saga_id(task.first_client + client, number)
            outcome = await orchestrator.execute(PlaceOrder, AN_ORDER, saga_id=name)
            assert isinstance(outcome, Completed), f"Completed was expected, not {outcome}"

        return await closed_loop(
            run_one, inflight=task.inflight, warmup_seconds=task.warmup_seconds, seconds=task.seconds
        )


def _say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


def main() -> None:
    task = msgspec.json.decode(sys.argv[1], type=Task)
    if task.inflight:
        print(msgspec.json.encode(asyncio.run(_measure(task))).decode(), flush=True)
        return
    if task.blocks:  # it is to be killed; whoever dies without killing it must not leave it behind
        threading.Thread(target=_end_with_parent, daemon=True).start()
    asyncio.run(_work(task))


def _end_with_parent() -> None:
    parent = os.getppid()
    while os.getppid() == parent:
        threading.Event().wait(1.0)
    os._exit(3)


if __name__ == "__main__":
    main()
