"""Sagas for tests with several processes: what is called is written to files that every process can see.

A step leaves a line in its saga's file, then waits for the gate that its input names: a file that the test makes.
Owns the targets that `atone worker` is given, and the reading of the files. The folder is in an environment variable.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from pathlib import Path

from atone import Context, Retry, Saga, Tried, step

FOLDER = "DELIVERIES"
OFTEN = Retry(attempts=50, initial=0.0, jitter=0.0)


@dataclass(frozen=True)
class Parcel:
    """`held_at` is the step that waits for the gate `gate`; `blocked_at` one that stops the event loop for it."""

    gate: str = ""
    held_at: str = ""
    blocked_at: str = ""


def folder() -> Path:
    return Path(os.environ[FOLDER])


async def called(name: str, ctx: Context[Parcel]) -> str:
    """Leave a line, and wait for the gate if this is the step for it."""
    with (folder() / f"{ctx.saga_id}.calls").open("a") as file:
        file.write(f"{name} {os.getpid()}\n")
    gate = folder() / f"{ctx.input.gate}.gate"
    while name == ctx.input.blocked_at and not gate.exists():
        time.sleep(0.01)  # noqa: ASYNC251 - that is what is tested
    while name == ctx.input.held_at and not gate.exists():  # noqa: ASYNC110 - it is made by another process
        await asyncio.sleep(0.01)
    return name


def calls(place: Path, saga_id: str) -> list[tuple[str, int]]:
    """Return the steps that were called and by which process, in their order."""
    file = place / f"{saga_id}.calls"
    lines = file.read_text().splitlines() if file.exists() else []
    return [(step_name, int(pid)) for step_name, pid in (line.split() for line in lines)]


def steps(place: Path, saga_id: str) -> list[str]:
    """Return the steps that were called, in their order."""
    return [name for name, _ in calls(place, saga_id)]


class Deliver(Saga[Parcel], late_grace=0):
    """Pack, carry, hand over."""

    @step(retry=OFTEN, timeout=100, barrier=True)
    async def pack(self, ctx: Context[Parcel]) -> str:
        return await called("pack", ctx)

    @pack.compensation
    async def unpack(self, ctx: Context[Parcel], tried: Tried[str]) -> None:
        await called("unpack", ctx)

    @step(retry=OFTEN, timeout=100, barrier=True)
    async def carry(self, ctx: Context[Parcel]) -> str:
        return await called("carry", ctx)

    @carry.compensation
    async def carry_back(self, ctx: Context[Parcel], tried: Tried[str]) -> None:
        await called("carry_back", ctx)

    @step(retry=OFTEN, timeout=100, no_compensation="they have it")
    async def hand_over(self, ctx: Context[Parcel]) -> str:
        return await called("hand_over", ctx)


class DeliverFaster(Saga[Parcel], name="Deliver", version=2):
    """The next version: handed over at once."""

    @step(retry=OFTEN, timeout=100, no_compensation="they have it")
    async def hand_over(self, ctx: Context[Parcel]) -> str:
        return await called("hand_over", ctx)


class Fetch(Saga[Parcel]):
    """Another definition: one step."""

    @step(retry=OFTEN, timeout=100, no_compensation="we have it")
    async def fetch(self, ctx: Context[Parcel]) -> str:
        return await called("fetch", ctx)


first = [Deliver(), Fetch()]
second = (DeliverFaster(),)
one = Fetch()
nothing: list[object] = []
number = 7
broken_in_parts = [Fetch(), "no saga"]


def made() -> Saga[Parcel]:
    return Fetch()


async def opened() -> object:
    """Yield sagas as a context manager does, and leave a trace of both ends."""
    (folder() / "opened").touch()
    yield [Deliver(), Fetch()]
    (folder() / "closed").touch()


async def awaited() -> list[Saga[Parcel]]:
    return [Fetch()]


def fails() -> None:
    raise ValueError("no address of the carrier")


class WithArguments(Saga[Parcel]):
    """A class where an object is meant."""

    def __init__(self, carrier: str) -> None:
        self.carrier = carrier

    @step(no_compensation="nothing")
    async def go(self, ctx: Context[Parcel]) -> None: ...
