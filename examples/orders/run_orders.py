"""The orchestrator's own process: starts one saga for each order, and says how they stand until all have ended.

Owns the start of the sagas and the progress lines (JSON, one a line, on standard output). Holds nothing that a crash
could lose: started again on the same store it goes on where the killed one was, because Atone continues what it finds
there and a start with the same id and order is the same saga. Run by `crash_run`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx
import msgspec

from atone import Compensated, Completed, Failed, NeedsAttention, Orchestrator, SagaStatus
from examples.orders.audit import saga_id_of, statuses_of_orders
from examples.orders.children import when_stdin_closes
from examples.orders.clients import Inventory, Payments, Shipping
from examples.orders.display import Progress, kind_of
from examples.orders.domain import Order
from examples.orders.order_file import read_orders
from examples.orders.saga import PlaceOrder

_STOP_SECONDS = 15.0
_REPORT_EVERY_SECONDS = 0.1


async def run_orders(settings: argparse.Namespace) -> None:
    """Start a saga for every order of the file, and follow each to its end."""
    if settings.stop_with_stdin:
        _stop_with_stdin()
    orders = read_orders(settings.orders).orders
    # A call that takes longer is given up here; whether it happened, only the participant knows.
    async with httpx.AsyncClient(timeout=settings.timeout_seconds) as http:
        saga = PlaceOrder(
            Inventory(http, settings.inventory), Payments(http, settings.payments), Shipping(http, settings.shipping)
        )
        async with Orchestrator(settings.store, sagas=[saga]) as orchestrator:
            await _Run(orchestrator, orders, await statuses_of_orders(orchestrator), settings.inflight).run()


class _Run:
    """Follows every order; at most so many at a time, in the order of the file."""

    def __init__(
        self, orchestrator: Orchestrator, orders: Sequence[Order], found: Mapping[str, str], inflight: int
    ) -> None:
        self._orchestrator, self._orders = orchestrator, orders
        self._places = asyncio.Semaphore(inflight)
        self._statuses = {order.id: found.get(order.id, SagaStatus.PENDING.value) for order in orders}
        self._counts = Counter(self._statuses.values())
        self._causes: Counter[str] = Counter()

    async def run(self) -> None:
        """Return when every saga is over, or waits for a person."""
        reporting = asyncio.create_task(self._report_for_ever())
        async with asyncio.TaskGroup() as group:
            for order in self._orders:
                group.create_task(self._follow(order))
        reporting.cancel()
        self._report(done=True)

    async def _follow(self, order: Order) -> None:
        async with self._places:
            handle = await self._orchestrator.start(PlaceOrder, order, saga_id=saga_id_of(order.id))
            async for progress in handle.watch():
                self._counts[self._statuses[order.id]] -= 1
                self._statuses[order.id] = progress.status.value
                self._counts[progress.status.value] += 1
            self._report()
            match await handle.outcome():
                case Compensated(cause) | NeedsAttention(cause=cause) | Failed(cause):
                    self._causes[kind_of(cause)] += 1
                case Completed():
                    pass

    async def _report_for_ever(self) -> None:
        while True:
            self._report()
            await asyncio.sleep(_REPORT_EVERY_SECONDS)

    def _report(self, *, done: bool = False) -> None:
        progress = Progress(len(self._orders), dict(self._counts), dict(self._causes), done)
        print(msgspec.json.encode(progress).decode(), flush=True)


def _stop_with_stdin() -> None:
    """Shut down in order when the parent is gone: no saga is cancelled by that, another process will go on."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None
    when_stdin_closes(lambda: loop.call_soon_threadsafe(task.cancel), exit_after_seconds=_STOP_SECONDS)


def main() -> None:
    """Run until every saga has ended."""
    parser = argparse.ArgumentParser(description="Run one saga for each order.")
    parser.add_argument("--store", required=True, help="Atone's store, for example sqlite:///orders.db")
    parser.add_argument("--orders", type=Path, required=True)
    for service in ("inventory", "payments", "shipping"):
        parser.add_argument(f"--{service}", required=True, help="its address")
    parser.add_argument("--inflight", type=int, default=40, help="sagas under way at a time")
    parser.add_argument("--timeout-seconds", type=float, default=1.0, help="how long a participant may take")
    parser.add_argument("--stop-with-stdin", action="store_true", help="stop when standard input is closed")
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(run_orders(parser.parse_args()))


if __name__ == "__main__":
    main()
