"""What every run has: its settings, the three services as processes, and how it went.

Owns the start of the services and the sum of what they met. Knows no orchestrator and no worker: `crash_run` has the
one, `fleet_run` the others. Looks into no database.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import httpx
import msgspec

from examples.orders.audit import Folder
from examples.orders.books import Mistake
from examples.orders.children import Child, child
from examples.orders.faults import Rates

SERVICES = ("inventory", "payments", "shipping")


@dataclass(frozen=True, slots=True)
class Settings:
    """How to run the orders."""

    kill_after: tuple[float, ...]
    """At which shares of ended orders the orchestrator, or a worker, is killed, from 0 to 1."""
    drain_after: tuple[float, ...]
    """At which shares a worker is asked to stop, and replaced."""
    faults: Rates
    seed: int
    inflight: int
    limit_seconds: float


@dataclass(slots=True)
class Ended:
    """How the run went, before anybody looks at the books."""

    in_time: bool = True
    kills: list[Mapping[str, int]] = field(default_factory=list[Mapping[str, int]])
    """How many sagas stood where, at each kill."""
    left_behind: list[int] = field(default_factory=list[int])
    """How many sagas each killed worker had in flight."""
    drained: int = 0
    """How many workers stopped in order, and handed back what they had."""
    parked: int = 0
    """How many messages nobody could handle, and wait for a person."""
    mistakes: list[Mistake] = field(default_factory=list[Mistake])
    """What is off beside the books that all runs have."""
    table: str = ""
    """What `atone list` says of the last sagas."""
    causes: Mapping[str, int] = field(default_factory=dict[str, int])
    """Why sagas were compensated, with how many for each cause."""
    met: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])
    """What the services met: `faults` on purpose, and repeats and late calls at the `guard`."""


@asynccontextmanager
async def services(folder: Folder, settings: Settings) -> AsyncGenerator[dict[str, int], None]:
    """Run the three services while the block lasts, on free ports. At its end they finish what is under way."""
    async with AsyncExitStack() as stack:
        started: dict[str, Child] = {}
        for name in SERVICES:
            options = ["--stop-with-stdin", f"--database={folder.database(name)}"]
            options += [f"--faults={settings.faults}", f"--seed={settings.seed}"]
            options += [f"--stock={folder.stock}"] if name == "inventory" else []
            started[name] = await stack.enter_async_context(child(name, f"examples.orders.{name}", *options))
        yield {name: msgspec.convert(await running.read(), dict[str, int])["port"] for name, running in started.items()}


async def met(ports: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Add up what the services met."""
    sums: dict[str, dict[str, int]] = {"faults": {}, "guard": {}}
    async with httpx.AsyncClient(timeout=10) as http:
        for port in ports.values():
            found: dict[str, dict[str, int]] = (await http.get(f"http://127.0.0.1:{port}/counts")).json()
            for group, counts in found.items():
                for name, count in counts.items():
                    sums[group][name] = sums[group].get(name, 0) + count
    return sums
