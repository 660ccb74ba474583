"""A database and a folder that several processes share, and the ways to ask both; for the tests of a fleet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from atone import Orchestrator
from atone.orchestrator import Limits
from tests.servers.deliveries import Deliver, Fetch, steps
from tests.servers.postgres import Place, until
from tests.servers.workers import worker

LEFT = "SELECT status, owner, wake_at <= extract(epoch FROM clock_timestamp()) FROM sagas WHERE saga_id = %s"


class Site:
    """A database, the folder that its processes share, and the ways to ask both."""

    def __init__(self, place: Place, folder: Path) -> None:
        self.place, self.folder = place, folder
        self.url = f"{place.bench.worker_url}?schema={place.schema}"

    def open(self, gate: str) -> None:
        (self.folder / f"{gate}.gate").touch()

    def worker(self, *arguments: str, **more: Any) -> Any:
        return worker(self.url, self.folder, *arguments, **more)

    async def called(self, saga_id: str, name: str, times: int = 1) -> None:
        """Wait until a step of a saga was called this often."""
        await until(lambda: steps(self.folder, saga_id).count(name) >= times)

    async def after(self, seconds: float) -> None:
        """Let the database's clock go on; a lease of less than that would have ended."""
        (began,) = self.place.sql("SELECT clock_timestamp()")
        await until(
            lambda: bool(self.place.sql(f"SELECT clock_timestamp() > %s + interval '{seconds} s'", *began)[0][0])
        )

    def owner_of(self, saga_id: str) -> str | None:
        ((owner,),) = self.place.sql("SELECT owner FROM sagas WHERE saga_id = %s", saga_id)
        return owner

    def dead(self) -> set[int]:
        """Return the pids whose worker ids are dead."""
        return {int(name.split("-")[0]) for (name,) in self.place.sql("SELECT id FROM workers WHERE dead")}

    @asynccontextmanager
    async def starter(self, *sagas: Any, poll: float = 0.05, parameters: str = "") -> AsyncIterator[Orchestrator]:
        """Open an orchestrator that starts sagas and runs none."""
        limits, some = Limits(poll_seconds=poll), list(sagas or [Deliver(), Fetch()])
        async with Orchestrator(self.url + parameters, sagas=some, runs=False, limits=limits) as one:
            yield one
