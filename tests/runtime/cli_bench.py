"""One store and the command line on it, for tests: runs `main` in this process and keeps what it wrote.

Owns how a test calls the command line and reads its answer. Makes no assertion. Used by the command line's tests.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import pytest

from atone.cli import main
from tests.runtime.parcels import AwaitPickup, Parcel, SendParcel, Shop, working


class Ran(NamedTuple):
    """What a command wrote, and its exit status."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on standard output."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """The JSON objects on standard output, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def words(self) -> str:
        """Standard output with its line breaks and columns pressed into single spaces."""
        return " ".join(self.out.split())


@dataclass(frozen=True)
class Bench:
    """A store file, its participants, and the command line."""

    file: Path
    shop: Shop
    capture: pytest.CaptureFixture[str]

    @property
    def url(self) -> str:
        """The store's URL."""
        return f"sqlite:///{self.file}"

    def atone(self, *arguments: str) -> Ran:
        """Run one command on the store."""
        self.capture.readouterr()
        status = main([arguments[0], "--store", self.url, *arguments[1:]])
        return Ran(status, *self.capture.readouterr())

    async def beside(self, *arguments: str) -> Ran:
        """Run one command in another thread, while this one's orchestrator works."""
        return await asyncio.to_thread(self.atone, *arguments)

    def run(self, story: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a test's story; an orchestrator that does not end is a failure."""
        asyncio.run(asyncio.wait_for(story(), 60))

    def parcels(self, *saga_ids: str, faults: str = "", content: str = "a cup") -> None:
        """Run parcels until each is settled, with these faults, and stop the orchestrator."""

        async def story() -> None:
            self.shop.faults = set(faults.split())
            async with working(self.url, self.shop) as orchestrator:
                for saga_id in saga_ids:
                    await orchestrator.execute(SendParcel, Parcel(content), saga_id=saga_id, timeout=20)

        self.run(story)

    def parcel_past_the_pivot(self, saga_id: str) -> None:
        """Run a parcel that is handed over and waits an hour to be told."""

        async def story() -> None:
            self.shop.faults = {"tell"}
            async with working(self.url, self.shop) as orchestrator:
                handle = await orchestrator.start(SendParcel, Parcel("a cup"), saga_id=saga_id)
                async for progress in handle.watch():
                    if progress.steps["tell"].value == "unknown":
                        break

        self.run(story)

    def pickup(self, saga_id: str, note: str = "") -> None:
        """Start a saga that waits for a day, and stop the orchestrator."""

        async def story() -> None:
            async with working(self.url, self.shop) as orchestrator:
                await orchestrator.start(AwaitPickup, note, saga_id=saga_id)

        self.run(story)

    def statement(self, text: str, *values: Any) -> list[Any]:
        """Run a statement on the store's file, as somebody with an SQL prompt would."""
        with closing(apsw.Connection(str(self.file))) as connection:
            return connection.execute(text, values).fetchall()
