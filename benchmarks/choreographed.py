"""One service of a choreographed order, as a process of its own: a row for each event, and nothing else to do.

Owns the four participants, their databases, and what each process tells: orders that ended, how long they took, and how
long messages waited in its outbox. Must not start a server or judge a figure. Run by `choreography` as
`python -m benchmarks.choreographed TASK`; it works until its standard input ends.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from atone._messaging import headers
from atone.broker import Broker, Delivery, Message, Parked, Published
from atone.brokers import open_broker
from atone.choreography import Choreography, Participant, Reaction, event, reacts
from atone.serving import Service, serve

SERVICES = ("inventory", "payments", "shipping", "orders")
READY = "ready"


@event("bench.placed")
@dataclass(frozen=True, slots=True)
class Placed:
    at: float


@event("bench.reserved")
@dataclass(frozen=True, slots=True)
class Reserved:
    at: float


@event("bench.refused", failure=True)
@dataclass(frozen=True, slots=True)
class Refused:
    reason: str


@event("bench.released")
@dataclass(frozen=True, slots=True)
class Released:
    reason: str


@event("bench.paid")
@dataclass(frozen=True, slots=True)
class Paid:
    at: float


@event("bench.shipped")
@dataclass(frozen=True, slots=True)
class Shipped:
    at: float


class Task(msgspec.Struct, frozen=True):
    """Which service on which database and broker; `inflight` is how many orders it keeps under way, if it is orders."""

    service: str
    database: str
    broker: str
    inflight: int = 0
    warmup_seconds: float = 1.0
    seconds: float = 4.0


class Told(msgspec.Struct, frozen=True):
    """What a process has seen: the orders' service its orders, each one its outbox."""

    lags_ms: list[float]
    took_ms: list[float] = []
    orders_per_second: float = 0.0
    cpu_seconds: float = 0.0


def note(ctx: Reaction[Any]) -> None:
    """Write the service's own row."""
    ctx.connection.execute("INSERT INTO notes (saga, at) VALUES (?, ?)", (ctx.saga_id, time.time()))


class Inventory(Participant, name="inventory"):
    """Reserves."""

    @reacts(Placed, emits=(Reserved,))
    def reserve(self, ctx: Reaction[Placed]) -> Reserved:
        note(ctx)
        return Reserved(ctx.event.at)

    @reserve.undo(Refused, emits=(Released,))
    def release(self, ctx: Reaction[Refused], done: Reserved) -> Released:
        note(ctx)
        return Released(ctx.event.reason)


class Payments(Participant, name="payments"):
    """Charges; it can refuse, and never does here."""

    @reacts(Reserved, emits=(Paid, Refused), pivot=True)
    def charge(self, ctx: Reaction[Reserved]) -> Paid | Refused:
        note(ctx)
        return Paid(ctx.event.at)


class Shipping(Participant, name="shipping"):
    """Ships."""

    @reacts(Paid, emits=(Shipped,), no_undo="it is gone")
    def ship(self, ctx: Reaction[Paid]) -> Shipped:
        note(ctx)
        return Shipped(ctx.event.at)


class Orders(Participant, name="orders"):
    """Hears of the end, and tells `ended`."""

    def __init__(self, ended: Callable[[float], None] = lambda at: None) -> None:
        self._ended = ended

    @reacts(Shipped, no_undo="it is the last word")
    def close(self, ctx: Reaction[Shipped]) -> None:
        note(ctx)
        self._ended(ctx.event.at)

    @reacts(Released, no_undo="it is the last word")
    def cancel(self, ctx: Reaction[Released]) -> None:
        note(ctx)


ORDERS = Choreography(
    "bench", Orders, Inventory, Payments, Shipping, starts=(Placed,), completes=(Shipped,), compensates=(Released,)
)


class Timed:
    """A broker that notes how long each message had waited in the outbox when the server had it."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.lags_ms: list[float] = []

    @property
    def message_bytes_max(self) -> int:
        return self._broker.message_bytes_max

    async def __aenter__(self) -> Self:
        await self._broker.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._broker.__aexit__(kind, error, trace)

    async def publish(self, messages: Sequence[Message]) -> Sequence[Published]:
        published = await self._broker.publish(messages)
        now = time.time()
        for message, what in zip(messages, published, strict=True):
            if what is Published.DURABLE and headers.AT in message.headers:
                self.lags_ms.append((now - float(message.headers[headers.AT])) * 1000)
        return published

    async def declare(self, group: str, topics: Collection[str]) -> None:
        await self._broker.declare(group, topics)

    def deliveries(self, group: str, *, in_flight: int = 100) -> AsyncIterator[Delivery]:
        return self._broker.deliveries(group, in_flight=in_flight)

    async def parked(self, group: str, *, limit: int = 100) -> Sequence[Parked]:
        return await self._broker.parked(group, limit=limit)

    async def unpark(self, group: str, message_id: str) -> bool:
        return await self._broker.unpark(group, message_id)


def transactions(path: Path) -> Callable[[], Any]:
    """Return what begins a transaction on the service's database: one connection, one at a time, durable at its end."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, saga TEXT, at REAL)")
    lock = threading.Lock()

    @contextmanager
    def transaction() -> Generator[sqlite3.Connection, None, None]:
        with lock:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    return transaction


class Placing:
    """Keeps so many orders under way, and counts those that end while it measures."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._loop = asyncio.get_running_loop()
        self._places = asyncio.Semaphore(task.inflight)
        self._ends: list[tuple[float, float]] = []

    def ended(self, placed_at: float) -> None:
        """Note an end; called in the thread of a handler."""
        self._loop.call_soon_threadsafe(self._note, placed_at)

    def _note(self, placed_at: float) -> None:
        self._ends.append((placed_at, time.time()))
        self._places.release()

    async def place(self, begin: Callable[[], Any], service: Service) -> Told:
        """Place orders for as long as the task says, and return what came of those that ended in the measured time."""
        began, number = time.time() + self._task.warmup_seconds, 0
        until = began + self._task.seconds
        while time.time() < until:
            try:
                await asyncio.wait_for(self._places.acquire(), max(0.0, until - time.time()))
            except TimeoutError:
                break
            with begin() as connection:
                await service.start(connection, Placed(time.time()), saga_id=f"o-{number}")
            number += 1
        measured = [(placed, end) for placed, end in self._ends if began <= end < until]
        took = [(end - placed) * 1000 for placed, end in measured]
        return Told([], took, len(measured) / self._task.seconds)


async def run(task: Task) -> Told:
    """Serve until standard input ends; the orders' service measures first."""
    begin = transactions(Path(task.database))
    placing = Placing(task)
    participants: dict[str, Participant] = {
        "inventory": Inventory(), "payments": Payments(), "shipping": Shipping(), "orders": Orders(placing.ended),
    }  # fmt: skip
    timed = Timed(open_broker(task.broker))
    async with timed as broker, serve(ORDERS, participants[task.service], database=begin, broker=broker) as service:
        print(READY, flush=True)
        await asyncio.to_thread(sys.stdin.readline)  # "go"
        told = await placing.place(begin, service) if task.inflight else Told([])
        if task.inflight:
            print("measured", flush=True)
        await asyncio.to_thread(sys.stdin.readline)  # the end
    return msgspec.structs.replace(told, lags_ms=timed.lags_ms, cpu_seconds=time.process_time())


def main() -> None:
    told = asyncio.run(run(msgspec.json.decode(sys.argv[1].encode(), type=Task)))
    print(msgspec.json.encode(told).decode(), flush=True)


if __name__ == "__main__":
    main()
