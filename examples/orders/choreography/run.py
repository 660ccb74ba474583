"""Runs the orders through the choreography: four processes, killed and started again, and a saga view beside them.

Owns the processes, the moments of the kills, and the wait for the end. Judges nothing: the books are the demo's
business, after everything here has stopped. Every process is a `child`, which goes when the demo goes.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, closing
from itertools import cycle

import msgspec

from atone.brokers import open_broker
from atone.saga_view import SagaView
from atone.store import Query, Store, Viewing
from atone.stores import open_store
from examples.orders.audit import Folder
from examples.orders.books import COMPENSATED, COMPLETED, Mistake
from examples.orders.children import Child, child
from examples.orders.choreography.participants import ORDERS, order_id_of
from examples.orders.choreography.unruly import Mischief
from examples.orders.display import Display, Progress, kind_of, numbers
from examples.orders.domain import Order
from examples.orders.running import Ended, Settings

SERVICES = ("inventory", "payments", "shipping", "orders")
_LOOK_EVERY_SECONDS = 0.1
_PAGE = 500
_LISTED = 5
_STATUS_OF = {COMPLETED: "approved", COMPENSATED: "rejected"}


class ChoreographyRun:
    """One run in one folder."""

    def __init__(
        self, settings: Settings, folder: Folder, broker_url: str, orders: Sequence[Order], display: Display
    ) -> None:
        self._settings, self._folder, self._broker_url = settings, folder, broker_url
        self._orders, self._display = orders, display
        self._ended = Ended()
        self._running: dict[str, Child] = {}
        self._met: dict[int, Mapping[str, int]] = {}
        self._readers: list[asyncio.Task[None]] = []

    async def run(self) -> Ended:
        """Run every order to its end, through every kill; when this returns, all processes are gone.

        Raises:
            EOFError: a process ended by itself where it should not.
        """
        async with AsyncExitStack() as stack:
            # The view first: a broker keeps what is published only for groups that it knows.
            store = await stack.enter_async_context(open_store(self._folder.store_url))
            view = SagaView(ORDERS, store=store, broker=self._broker_url, look_seconds=1)
            await stack.enter_async_context(view)
            for service in SERVICES:
                await self._begin(service, stack)
            try:
                async with asyncio.timeout(self._settings.limit_seconds):
                    await self._follow(store, stack)
            except TimeoutError:
                self._ended.in_time = False
                self._display.say(f"not every saga has ended within {self._settings.limit_seconds:g} seconds")
            for reader in self._readers:
                reader.cancel()
            ends = await seen_ends(store)
            self._folder.write_ends(ends)
            self._ended.parked = await self._parked()
        self._ended.mistakes = _statuses_off(self._folder, ends)
        self._ended.table = await _listed(self._folder)
        self._ended.causes = self._causes()
        self._ended.met = {"faults": self._sums(), "guard": {}}
        return self._ended

    async def _begin(self, service: str, stack: AsyncExitStack) -> None:
        mischief = Mischief()
        options = [f"--service={service}", f"--database={self._folder.database(service)}"]
        options += [f"--broker={self._broker_url}", f"--twice={mischief.twice}", f"--late={mischief.late}"]
        options += [f"--seed={self._settings.seed + len(self._readers)}"]
        if service == "inventory":
            options.append(f"--stock={self._folder.stock}")
        if service == "orders":
            options += [f"--orders={self._folder.orders}", f"--inflight={self._settings.inflight}"]
        running = await stack.enter_async_context(
            child(f"the {service} service", "examples.orders.choreography.process", *options)
        )
        self._note(running, await running.read())
        self._running[service] = running
        self._readers.append(asyncio.create_task(self._read(running)))
        self._display.say(f"{service} started (process {running.pid})")

    async def _read(self, running: Child) -> None:
        """Hear what a process says, for as long as it says something."""
        try:
            while True:
                self._note(running, await running.read())
        except EOFError:
            return

    def _note(self, running: Child, said: object) -> None:
        self._met[running.pid] = msgspec.convert(said, dict[str, int])

    async def _follow(self, store: Store, stack: AsyncExitStack) -> None:
        kills, victims = sorted(self._settings.kill_after), cycle(SERVICES)
        while True:
            progress = await self._look(store)
            if kills and progress.ended >= kills[0] * progress.total:
                kills.pop(0)
                await self._kill(next(victims), progress, stack)
            if progress.done and not self._pending():
                return
            await asyncio.sleep(_LOOK_EVERY_SECONDS)

    async def _look(self, store: Store) -> Progress:
        for running in self._running.values():
            running.refuse_end()
        counts = Counter((await seen_ends(store)).values())
        counts["pending"] += len(self._orders) - counts.total()
        settled = sum(counts[status] for status in ("completed", "compensated", "failed", "needs_attention"))
        progress = Progress(len(self._orders), dict(counts), {}, settled == len(self._orders))
        self._display.show(progress)
        return progress

    async def _kill(self, service: str, progress: Progress, stack: AsyncExitStack) -> None:
        await self._running.pop(service).kill()
        self._ended.kills.append(progress.counts)
        self._display.say(f"killed {service} with SIGKILL: {numbers(progress.counts)}")
        await self._begin(service, stack)

    def _pending(self) -> int:
        return sum(status == "pending" for _, status, _ in order_rows(self._folder))

    def _causes(self) -> Mapping[str, int]:
        return Counter(kind_of(reason) for _, status, reason in order_rows(self._folder) if status == "rejected")

    async def _parked(self) -> int:
        """Count what the services could not handle; there is to be none."""
        async with open_broker(self._broker_url) as broker:
            return sum([len(await broker.parked(f"{ORDERS.name}.{service}")) for service in SERVICES])

    def _sums(self) -> dict[str, int]:
        sums: Counter[str] = Counter()
        for met in self._met.values():
            sums.update(met)
        return dict(sums)


async def seen_ends(store: Store) -> dict[str, str]:
    """Return how the saga view sees each order, by the order's id."""
    assert isinstance(store, Viewing), "Atone's stores keep choreographed sagas"
    seen: dict[str, str] = {}
    query = Query(name=ORDERS.name, limit=_PAGE)
    while page := await store.views.find(query):
        seen.update((order_id_of(saga.saga_id), saga.status) for saga in page)
        query = query._replace(after=page[-1].key)
    return seen


def order_rows(folder: Folder) -> list[tuple[str, str, str]]:
    """Return what the orders' service says of each order: its id, its status, and why."""
    with closing(sqlite3.connect(folder.database("orders"), timeout=30)) as connection:
        return connection.execute("SELECT id, status, reason FROM orders").fetchall()


async def _listed(folder: Folder) -> str:
    """Return what `atone list` says of the first sagas."""
    command = [sys.executable, "-m", "atone", "list", "--store", folder.store_url, "--limit", str(_LISTED)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=None)
    said, _ = await process.communicate()
    return said.decode()


def _statuses_off(folder: Folder, ends: Mapping[str, str]) -> list[Mistake]:
    """Return each order whose status, in the orders' service, is not what its saga came to."""
    found = {order_id: status for order_id, status, _ in order_rows(folder)}
    return [
        Mistake(f"order {order_id}, its status", _STATUS_OF.get(end, "an end"), found.get(order_id, "none"))
        for order_id, end in sorted(ends.items())
        if found.get(order_id) != _STATUS_OF.get(end)
    ]
