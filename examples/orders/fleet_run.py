"""Runs the orders on a fleet: one PostgreSQL, three `atone worker` processes, one of them killed on the way.

Owns the workers and the moments at which one is killed or asked to stop. This process only starts sagas and waits: it
runs none. Looks into no participant's database. Every process is a `child`, which goes when the demo goes.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import httpx

from atone import Compensated, Failed, NeedsAttention, Orchestrator
from examples.orders.audit import Folder, saga_id_of, statuses_of_orders
from examples.orders.children import Child, child, finished
from examples.orders.display import Display, Progress, kind_of, numbers
from examples.orders.domain import Order
from examples.orders.fleet import CALL_SECONDS, LEASH, place_order
from examples.orders.running import Ended, Settings, met, services
from examples.orders.saga import PlaceOrder

WORKERS = 3
_LEASE_SECONDS = 3
_LOOK_EVERY_SECONDS = 0.1
_PAGE = 1000


class FleetRun:
    """One run in one folder, on the database behind one URL."""

    def __init__(
        self, settings: Settings, folder: Folder, store_url: str, orders: Sequence[Order], display: Display
    ) -> None:
        self._settings, self._folder, self._store_url = settings, folder, store_url
        self._orders, self._display = orders, display
        self._environment: dict[str, str] = {}
        self._workers: list[Child] = []
        self._made = 0
        self._ended = Ended()

    async def run(self) -> Ended:
        """Run every order to its end, through every kill; when this returns, all processes are gone.

        Raises:
            EOFError: a process ended by itself where it should not.
        """
        async with services(self._folder, self._settings) as ports:
            self._display.say(", ".join(f"{name} on port {port}" for name, port in ports.items()))
            self._environment = {f"ORDERS_{name.upper()}": f"http://127.0.0.1:{port}" for name, port in ports.items()}
            # In the environment, not among the arguments: those are for every user of the machine to see.
            self._environment["ATONE_STORE"] = self._store_url
            await finished("atone", "migrate", environment=self._environment)
            async with AsyncExitStack() as stack:
                for _ in range(WORKERS):
                    await self._begin_worker(stack)
                await self._with_starter(stack)
            self._ended.met = await met(ports)
        return self._ended

    async def _begin_worker(self, stack: AsyncExitStack) -> None:
        self._made += 1
        name = f"worker {self._made}"
        share = max(1, self._settings.inflight // WORKERS)
        options = ["worker", "examples.orders.fleet:sagas"]
        options += ["--concurrency", str(share), "--lease", str(_LEASE_SECONDS)]
        log = self._folder.path / f"worker-{self._made}.log"
        running = child(name, "atone", *options, environment={**self._environment, LEASH: "1"}, log=log)
        self._workers.append(await stack.enter_async_context(running))
        self._display.say(
            f"{name} started: python -m atone {' '.join(options[:2])} ... (process {self._workers[-1].pid})"
        )

    async def _with_starter(self, stack: AsyncExitStack) -> None:
        async with httpx.AsyncClient(timeout=CALL_SECONDS) as http:
            saga = place_order(http, self._environment)
            async with Orchestrator(self._store_url, sagas=[saga], runs=False) as starter:
                try:
                    async with asyncio.timeout(self._settings.limit_seconds):
                        await asyncio.gather(*(self._start(starter, order) for order in self._orders))
                        self._display.say(f"{len(self._orders)} sagas stored; the fleet runs them")
                        await self._follow(starter, stack)
                except TimeoutError:
                    self._ended.in_time = False
                    self._display.say(f"not every saga has ended within {self._settings.limit_seconds:g} seconds")
                self._ended.causes = await self._causes(starter)
                self._folder.write_ends(await statuses_of_orders(starter))

    async def _start(self, starter: Orchestrator, order: Order) -> None:
        await starter.start(PlaceOrder, order, saga_id=saga_id_of(order.id))

    async def _follow(self, starter: Orchestrator, stack: AsyncExitStack) -> None:
        """Watch until all have ended; kill and drain workers when it is time."""
        kills, drains = sorted(self._settings.kill_after), sorted(self._settings.drain_after)
        while True:
            progress = await self._look(starter)
            share = progress.ended / max(progress.total, 1)
            if kills and share >= kills[0] and await self._kill_one(starter, progress):
                kills.pop(0)
                if len(self._workers) < WORKERS - 1:
                    await self._begin_worker(stack)
            elif drains and share >= drains[0]:
                drains.pop(0)
                await self._drain_one(stack)
            if progress.done:
                return
            await asyncio.sleep(_LOOK_EVERY_SECONDS)

    async def _look(self, starter: Orchestrator) -> Progress:
        for worker in self._workers:
            worker.refuse_end()
        counts = Counter((await statuses_of_orders(starter)).values())
        settled = sum(counts[status] for status in ("completed", "compensated", "failed", "needs_attention"))
        progress = Progress(len(self._orders), dict(counts), {}, settled == len(self._orders))
        self._display.show(progress)
        return progress

    async def _kill_one(self, starter: Orchestrator, progress: Progress) -> bool:
        """Kill the worker that has most sagas in flight; False if at this moment none has any."""
        held = await _held(starter)
        victim = max(self._workers, key=lambda worker: held[worker.pid])
        if not held[victim.pid]:
            return False
        await victim.kill()
        self._workers.remove(victim)
        # What it had is still its own in the store, until its lease ends and another one takes over.
        left = (await _held(starter))[victim.pid]
        self._ended.kills.append(progress.counts)
        self._ended.left_behind.append(left)
        self._display.say(f"killed {victim.name} with SIGKILL, {left} sagas in flight: {numbers(progress.counts)}")
        return True

    async def _drain_one(self, stack: AsyncExitStack) -> None:
        leaving = self._workers.pop(0)
        await self._begin_worker(stack)
        status = await leaving.drain()
        if status:
            raise EOFError(f"{leaving.name} was asked to stop and ended with status {status}")
        self._ended.drained += 1
        self._display.say(f"{leaving.name} drained with SIGTERM: its calls ended, its sagas were handed back")

    async def _causes(self, starter: Orchestrator) -> Mapping[str, int]:
        causes: Counter[str] = Counter()
        for order in self._orders:
            match await _end_of(starter, order):
                case Compensated(cause) | NeedsAttention(cause=cause) | Failed(cause):
                    causes[kind_of(cause)] += 1
                case _:
                    pass
        return causes


async def _end_of(starter: Orchestrator, order: Order) -> Any:
    try:
        return await starter.outcome(PlaceOrder, saga_id_of(order.id), timeout=0)
    except TimeoutError:
        return None


async def _held(starter: Orchestrator) -> Counter[int]:
    """Return how many sagas each process owns; a worker's id begins with its process's."""
    owners = [saga.worker for saga in await starter.list(limit=_PAGE) if saga.worker is not None]
    return Counter(int(owner.partition("-")[0]) for owner in owners)
