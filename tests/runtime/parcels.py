"""Sagas for the command line's tests: a parcel that is packed, handed to a carrier once, and reported.

Owns the definitions and a participant whose faults a test switches on and off. Also runs as a worker in a process of
its own: `python -m tests.runtime.parcels URL FAULT ...`. Used by the command line's tests.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from atone import Context, Orchestrator, Reject, Retry, Saga, Tried, pivot, retriable, step, wait_for_event
from atone.codec import Codec
from atone.orchestrator import Limits

QUICK = Limits(poll_seconds=0.05, keep_seconds=0.5)
ONCE = Retry(attempts=1, initial=0.0, jitter=0.0)
LATER = Retry(attempts=5, initial=3600.0, jitter=0.0, maximum=3600.0)


@dataclass(frozen=True)
class Parcel:
    content: str
    card: str = "4111-1111"


@dataclass(frozen=True)
class Slip:
    number: int


class CarrierSilent(Exception):
    """The carrier did not answer: it may have taken the parcel or not."""


@dataclass
class Shop:
    """The participants: `faults` names what goes wrong now, `calls` what was called; a payment waits for `pause`."""

    faults: set[str] = field(default_factory=set)
    calls: list[str] = field(default_factory=list)
    pause: asyncio.Event | None = None

    def call(self, what: str, error: Exception) -> None:
        """Note a call, and let it fail if that is switched on."""
        self.calls.append(what)
        if what in self.faults:
            raise error


class SendParcel(Saga[Parcel], version=1):
    """Pack, pay, hand over (once, no way back), tell."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop

    @step(retry=ONCE)
    async def pack(self, ctx: Context[Parcel]) -> Slip:
        self.shop.call("pack", Reject("no box fits"))
        return Slip(1)

    @pack.compensation(retry=ONCE)
    async def unpack(self, ctx: Context[Parcel], tried: Tried[Slip]) -> None:
        self.shop.call("unpack", OSError("the shelf is locked"))

    @step(retry=ONCE)
    async def pay(self, ctx: Context[Parcel]) -> None:
        if self.shop.pause is not None:
            await self.shop.pause.wait()
        self.shop.call("pay", Reject("the card was declined"))

    @pay.compensation(retry=ONCE)
    async def pay_back(self, ctx: Context[Parcel], tried: Tried[None]) -> None:
        self.shop.call("pay_back", OSError("the bank is closed"))

    @pivot(pack, at_most_once=True)
    async def hand_over(self, ctx: Context[Parcel], slip: Slip) -> Slip:
        self.shop.call("hand_over", CarrierSilent("no answer from the carrier"))
        return Slip(7)

    @retriable(hand_over, retry=LATER)
    async def tell(self, ctx: Context[Parcel], slip: Slip) -> None:
        self.shop.call("tell", OSError("the mail is down"))


class AwaitPickup(Saga[str], version=2):
    """Wait for a day, in the store; nothing to undo."""

    picked_up = wait_for_event("picked_up", int, timeout=86400)


@asynccontextmanager
async def working(url: str, shop: Shop, codec: Codec | None = None) -> AsyncIterator[Orchestrator]:
    """Run an orchestrator with all definitions of this file."""
    sagas: Sequence[Saga[Parcel] | Saga[str]] = [SendParcel(shop), AwaitPickup()]
    async with Orchestrator(url, sagas=sagas, codec=codec, limits=QUICK) as orchestrator:
        yield orchestrator


async def work_until_told(url: str, faults: Sequence[str]) -> None:
    """Be a worker until standard input ends; say when ready."""
    async with working(url, Shop(set(faults))):
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(work_until_told(sys.argv[1], sys.argv[2:]))
