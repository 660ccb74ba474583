"""Runs the orders through the four processes of either style, each killed and started again, and waits for the end.

Owns the processes and the moments of the kills: `ChoreographyRun` has a saga view beside the services, `CommandsRun` an
orchestrator in place of the orders' service. Judges nothing: the books are the demo's business, after everything here
has stopped. Every process is a `child`, which goes when the demo goes.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, closing
from itertools import cycle
from typing import TypeAlias

import msgspec

from atone import Compensated, Failed, NeedsAttention, Orchestrator
from atone.brokers import open_broker
from atone.saga_view import SagaView
from atone.store import Query, Store, Viewing
from atone.stores import open_store
from examples.orders.audit import Folder, saga_id_of, statuses_of_orders
from examples.orders.books import COMPENSATED, COMPLETED, Mistake
from examples.orders.children import Child, child
from examples.orders.choreography.commanding import CommandOrder
from examples.orders.choreography.participants import ORDERS, order_id_of
from examples.orders.choreography.unruly import Mischief
from examples.orders.display import Display, Progress, kind_of, numbers
from examples.orders.domain import Order
from examples.orders.running import Ended, Settings

Look: TypeAlias = Callable[[], Awaitable[dict[str, str]]]

_SERVICES = ("inventory", "payments", "shipping")
_LOOK_EVERY_SECONDS = 0.1
_PAGE = 500
_LISTED = 5
_STATUS_OF = {COMPLETED: "approved", COMPENSATED: "rejected"}


class _Run(ABC):
    """One run in one folder; `driver` is the process that places the orders."""

    driver: str

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
            # Whoever looks comes first: a broker keeps what is published only for groups that it knows.
            look = await self._open(stack)
            for name in (*_SERVICES, self.driver):
                await self._begin(name, stack)
            try:
                async with asyncio.timeout(self._settings.limit_seconds):
                    await self._follow(look, stack)
            except TimeoutError:
                self._ended.in_time = False
                self._display.say(f"not every saga has ended within {self._settings.limit_seconds:g} seconds")
            for reader in self._readers:
                reader.cancel()
            ends = await look()
            self._folder.write_ends(ends)
            self._ended.parked = await self._parked()
            self._ended.causes = await self._causes()
        self._ended.mistakes = self._mistakes(ends)
        self._ended.table = await _listed(self._folder)
        self._ended.met = {"faults": self._sums(), "guard": {}}
        return self._ended

    @abstractmethod
    async def _open(self, stack: AsyncExitStack) -> Look:
        """Open what sees the sagas, and return a look: how each order stands, by its id."""

    @abstractmethod
    def _driver_command(self) -> list[str]:
        """Return the module of the driver's process, and its own options."""

    @abstractmethod
    async def _causes(self) -> Mapping[str, int]:
        """Return why orders were not completed."""

    @abstractmethod
    def _groups(self) -> list[str]:
        """Return the groups of the broker whose dead letters are looked for."""

    def _is_settled(self) -> bool:
        """Whether nothing follows any more once all sagas have ended."""
        return True

    def _mistakes(self, ends: Mapping[str, str]) -> list[Mistake]:
        """Return what is off beside the books that all runs have."""
        return []

    async def _begin(self, name: str, stack: AsyncExitStack) -> None:
        mischief = Mischief()
        common = [f"--broker={self._broker_url}", f"--twice={mischief.twice}", f"--late={mischief.late}"]
        common += [f"--seed={self._settings.seed + len(self._readers)}"]
        running = await stack.enter_async_context(child(name, *self._command(name), *common))
        self._note(running, await running.read())
        self._running[name] = running
        self._readers.append(asyncio.create_task(self._read(running)))
        self._display.say(f"{name} started (process {running.pid})")

    def _command(self, name: str) -> list[str]:
        if name == self.driver:
            return [*self._driver_command(), f"--orders={self._folder.orders}", f"--inflight={self._settings.inflight}"]
        stock = [f"--stock={self._folder.stock}"] if name == "inventory" else []
        return [*self._service(name), *stock]

    def _service(self, name: str) -> list[str]:
        return [
            "examples.orders.choreography.process",
            f"--service={name}",
            f"--database={self._folder.database(name)}",
        ]

    async def _read(self, running: Child) -> None:
        """Hear what a process says, for as long as it says something."""
        try:
            while True:
                self._note(running, await running.read())
        except EOFError:
            return

    def _note(self, running: Child, said: object) -> None:
        self._met[running.pid] = msgspec.convert(said, dict[str, int])

    async def _follow(self, look: Look, stack: AsyncExitStack) -> None:
        kills, victims = sorted(self._settings.kill_after), cycle((*_SERVICES, self.driver))
        while True:
            progress = self._progress(await look())
            if kills and progress.ended >= kills[0] * progress.total:
                kills.pop(0)
                await self._kill(next(victims), progress, stack)
            if progress.done and self._is_settled():
                return
            for running in self._running.values():
                running.refuse_end()
            await asyncio.sleep(_LOOK_EVERY_SECONDS)

    def _progress(self, seen: Mapping[str, str]) -> Progress:
        counts = Counter(seen.values())
        counts["pending"] += len(self._orders) - counts.total()
        settled = sum(counts[status] for status in ("completed", "compensated", "failed", "needs_attention"))
        progress = Progress(len(self._orders), dict(counts), {}, settled == len(self._orders))
        self._display.show(progress)
        return progress

    async def _kill(self, name: str, progress: Progress, stack: AsyncExitStack) -> None:
        await self._running.pop(name).kill()
        self._ended.kills.append(progress.counts)
        self._display.say(f"killed {name} with SIGKILL: {numbers(progress.counts)}")
        await self._begin(name, stack)

    async def _parked(self) -> int:
        """Count what the services could not handle; there is to be none."""
        async with open_broker(self._broker_url) as broker:
            return sum([len(await broker.parked(group)) for group in self._groups()])

    def _sums(self) -> dict[str, int]:
        sums: Counter[str] = Counter()
        for met in self._met.values():
            sums.update(met)
        return dict(sums)


class ChoreographyRun(_Run):
    """The services react to each other; a saga view hears them all."""

    driver = "orders"

    async def _open(self, stack: AsyncExitStack) -> Look:
        store = await stack.enter_async_context(open_store(self._folder.store_url))
        await stack.enter_async_context(SagaView(ORDERS, store=store, broker=self._broker_url, look_seconds=1))
        return lambda: seen_ends(store)

    def _driver_command(self) -> list[str]:
        return self._service(self.driver)

    async def _causes(self) -> Mapping[str, int]:
        return Counter(kind_of(reason) for _, status, reason in order_rows(self._folder) if status == "rejected")

    def _groups(self) -> list[str]:
        return [f"{ORDERS.name}.{name}" for name in (*_SERVICES, self.driver)]

    def _is_settled(self) -> bool:
        return all(status != "pending" for _, status, _ in order_rows(self._folder))

    def _mistakes(self, ends: Mapping[str, str]) -> list[Mistake]:
        """Return each order whose status, in the orders' service, is not what its saga came to."""
        found = {order_id: status for order_id, status, _ in order_rows(self._folder)}
        return [
            Mistake(f"order {order_id}, its status", _STATUS_OF.get(end, "an end"), found.get(order_id, "none"))
            for order_id, end in sorted(ends.items())
            if found.get(order_id) != _STATUS_OF.get(end)
        ]


class CommandsRun(_Run):
    """An orchestrator sends commands to the same services."""

    driver = "orchestrator"

    async def _open(self, stack: AsyncExitStack) -> Look:
        looking = Orchestrator(self._folder.store_url, sagas=[CommandOrder()], broker=self._broker_url, runs=False)
        self._looking = await stack.enter_async_context(looking)
        return lambda: statuses_of_orders(self._looking)

    def _driver_command(self) -> list[str]:
        return ["examples.orders.choreography.commanding", f"--store={self._folder.store_url}"]

    async def _causes(self) -> Mapping[str, int]:
        causes: Counter[str] = Counter()
        for order in self._orders:
            try:
                end = await self._looking.outcome(CommandOrder, saga_id_of(order.id), timeout=0)
            except TimeoutError:
                continue
            if isinstance(end, Compensated | NeedsAttention):
                causes[kind_of(str(end.cause))] += 1
            elif isinstance(end, Failed):
                causes[kind_of(end.reason)] += 1
        return causes

    def _groups(self) -> list[str]:
        return [f"{name}.commands" for name in _SERVICES]


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
