"""Runs the orders through the three services, kills the orchestrator on the way, and starts it again.

Owns the orchestrator's process and the moments of the kills. Looks into no database: the books are the demo's business,
after everything here has stopped. Every process is a `child`, which goes when the demo goes, whatever ends it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager

import msgspec

from examples.orders.audit import Folder
from examples.orders.children import Child, child
from examples.orders.display import Display, Progress, numbers
from examples.orders.running import Ended, Settings, met, services


class CrashRun:
    """One run in one folder."""

    def __init__(self, settings: Settings, folder: Folder, display: Display) -> None:
        self._settings, self._folder, self._display = settings, folder, display
        self._ended = Ended()

    async def run(self) -> Ended:
        """Run every order to its end, through every kill; when this returns, all processes are gone.

        Raises:
            EOFError: a process ended by itself where it should not.
        """
        async with services(self._folder, self._settings) as ports:
            self._display.say(", ".join(f"{name} on port {port}" for name, port in ports.items()))
            try:
                async with asyncio.timeout(self._settings.limit_seconds):
                    for share in self._settings.kill_after:
                        await self._until_killed(ports, share)
                    await self._to_the_end(ports)
            except TimeoutError:
                self._ended.in_time = False
                self._display.say(f"not every saga has ended within {self._settings.limit_seconds:g} seconds")
            self._ended.met = await met(ports)
        return self._ended

    def _orchestrator(self, ports: Mapping[str, int]) -> AbstractAsyncContextManager[Child]:
        urls = [f"--{name}=http://127.0.0.1:{port}" for name, port in ports.items()]
        files = [f"--store={self._folder.store_url}", f"--orders={self._folder.orders}"]
        options = [*urls, *files, f"--inflight={self._settings.inflight}", "--stop-with-stdin"]
        return child("the orchestrator", "examples.orders.run_orders", *options)

    async def _until_killed(self, ports: Mapping[str, int], share: float) -> None:
        async with self._orchestrator(ports) as running:
            self._say_started(running)
            progress = await self._next(running)
            while progress.ended < share * progress.total:
                progress = await self._next(running)
            await running.kill()
        self._ended.kills.append(progress.counts)
        self._display.say(f"killed it with SIGKILL: {numbers(progress.counts)}")

    async def _to_the_end(self, ports: Mapping[str, int]) -> None:
        async with self._orchestrator(ports) as running:
            self._say_started(running)
            progress = await self._next(running)
            while not progress.done:
                progress = await self._next(running)
            self._ended.causes = progress.causes
            await running.wait()

    def _say_started(self, running: Child) -> None:
        again = " on the same store; it takes over when the killed one's lease ends" if self._ended.kills else ""
        self._display.say(f"orchestrator started{again} (process {running.pid})")

    async def _next(self, running: Child) -> Progress:
        progress = msgspec.convert(await running.read(), Progress)
        self._display.show(progress)
        return progress
