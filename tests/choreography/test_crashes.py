"""A crash between every two steps of a delivery, duplicates and reordering: each effect once, and the books balance.

A crash is an exception where the process might have died: what was not committed is gone, what was is there, and nobody
has been told. Real processes are killed in `test_killed_processes`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from atone._participant.handling import Handling
from atone._participant.ledger import Ledger
from atone._participant.sending import Sending
from atone.barrier import Barrier
from atone.broker import Broker, Delivery, Message, Published
from atone.brokers.memory import MemoryBroker
from atone.inbox import Inbox
from atone.outbox import ServiceOutbox
from atone.testing.chaotic_broker import ChaoticBroker
from tests.choreography.shop import LEFT, Shop, on_postgres, on_sqlite

# Where a delivery may be cut off: a method, and whether before or after its work.
STEPS: dict[str, tuple[type, str]] = {
    "lock": (Ledger, "lock"),
    "inbox": (Inbox, "begin"),
    "barrier": (Barrier, "action"),
    "undo": (Barrier, "compensation"),
    "handled": (Handling, "take_in"),
    "outbox": (Sending, "events"),
    "state": (Ledger, "write"),
    "ended": (Inbox, "end"),
    "relay": (ServiceOutbox, "relay"),
}
# After one step is before the next one.
POINTS = [("lock", "before"), *((name, "after") for name in STEPS)]
POINTS += [("commit", "before"), ("commit", "after"), ("ack", "before"), ("ack", "after"), ("publish", "after")]


CRASHES_MAX = 4
SAGAS = {"o-1": "", "o-2": "shipping", "o-3": "payments"}


class Crash(Exception):
    """The process might have died here."""


class Crashing:
    """Let every so many-th pass of a point crash, each the first time that it is passed by a saga at that place."""

    def __init__(self, every: int) -> None:
        self.every, self.passed, self.crashed = every, 0, 0
        self.is_armed = False

    def __call__(self) -> None:
        self.passed += self.is_armed
        if self.is_armed and self.crashed < CRASHES_MAX and self.passed % self.every == 0:
            self.crashed += 1
            raise Crash


class BrokenBroker(MemoryBroker):
    """A broker whose answers are lost now and then: what was acknowledged or published is, and nobody knows."""

    def __init__(self, url: str, point: tuple[str, str], crash: Crashing) -> None:
        super().__init__(url)
        self._point, self._crash = point, crash

    async def publish(self, messages: Sequence[Message]) -> Sequence[Published]:
        done = await super().publish(messages)
        if self._point == ("publish", "after"):
            self._crash()
        return done

    async def deliveries(self, group: str, *, in_flight: int = 100) -> AsyncIterator[Delivery]:
        async for delivery in super().deliveries(group, in_flight=in_flight):
            yield _Delivery(delivery, self._point, self._crash)


class _Delivery:
    """A delivery that is not acknowledged, or not known to be; the broker gives it again."""

    def __init__(self, delivery: Delivery, point: tuple[str, str], crash: Crashing) -> None:
        self._delivery, self._point, self._crash = delivery, point, crash
        self.message, self.attempt = delivery.message, delivery.attempt
        self.retry, self.park = delivery.retry, delivery.park

    async def ack(self) -> None:
        if self._point[0] != "ack":
            await self._delivery.ack()
            return
        try:
            self._crash()
        except Crash:
            if self._point[1] == "after":
                await self._delivery.ack()
            else:
                await self._delivery.retry()
            return
        await self._delivery.ack()


@contextmanager
def crashing(point: tuple[str, str], crash: Crashing, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    name, when = point
    if name in STEPS:
        owner, method = STEPS[name]
        real = getattr(owner, method)

        async def wrapped(*arguments: Any, **options: Any) -> Any:
            if when == "before":
                crash()
            result = await real(*arguments, **options)
            if when == "after":
                crash()
            return result

        monkeypatch.setattr(owner, method, wrapped)
    yield


def crashing_database(engine: Any, point: tuple[str, str], crash: Crashing) -> Callable[[], Any]:
    """Return transactions whose end is lost: rolled back, or committed with nobody told."""

    @asynccontextmanager
    async def begin() -> AsyncIterator[Any]:
        async with engine.begin() as connection:
            yield connection
            if point == ("commit", "before"):
                crash()
        if point == ("commit", "after"):
            crash()

    return begin


@pytest.fixture
def urls(request: pytest.FixtureRequest, tmp_path: Path, dialect: str) -> dict[str, str]:
    if dialect == "sqlite":
        return on_sqlite(tmp_path)
    return on_postgres(request.getfixturevalue("postgres_bench").server.url())


# What differs between the databases is what a lock and a lost commit do; the rest is passed on the quicker one.
ON_BOTH = {("inbox", "after"), ("commit", "before"), ("commit", "after"), ("ack", "before")}
CASES = [("sqlite", point) for point in POINTS] + [("postgres", point) for point in sorted(ON_BOTH)]


@pytest.mark.parametrize(("dialect", "point"), CASES, ids=[f"{on}-{when}-{name}" for on, (name, when) in CASES])
def test_a_crash_between_any_two_steps_loses_nothing_and_repeats_nothing(
    point: tuple[str, str], urls: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three sagas pass each point several times, and some of the passes crash; each leaves what it should."""
    # The relay passes its points all the time, and what it has claimed and lost waits for its lease.
    crash = Crashing(every=3 if point[0] in STEPS and point[0] != "relay" else 9)

    async def main() -> None:
        async with BrokenBroker(f"memory://crash-{id(crash)}", point, crash) as broker:
            shop = Shop(urls, broker)
            await shop.create()
            for saga_id, fails_at in SAGAS.items():
                await shop.place(saga_id, fails_at)
            shop.around = lambda engine: crashing_database(engine, point, crash)
            with crashing(point, crash, monkeypatch):
                async with shop.open():
                    crash.is_armed = True
                    for saga_id, fails_at in SAGAS.items():
                        await shop.until(saga_id, fails_at)
                    crash.is_armed = False
            assert [await broker.parked(f"orders.{name}") for name in shop.engines] == [[], [], [], []]
            await shop.close()

    asyncio.run(main())
    assert crash.crashed


class RoughBroker(MemoryBroker):
    """Gives each message three times, and in an order of its own."""

    def __init__(self, url: str, seed: int) -> None:
        super().__init__(url)
        self._random = random.Random(seed)
        self._late: set[asyncio.Task[Any]] = set()

    async def publish(self, messages: Sequence[Message]) -> Sequence[Published]:
        for message in messages:
            for _ in range(3):
                # Without a key nothing keeps the broker's own order either.
                task = asyncio.create_task(self._later(message._replace(key=""), self._random.uniform(0, 0.15)))
                self._late.add(task)
                task.add_done_callback(self._late.discard)
        return [Published.DURABLE] * len(messages)

    async def _later(self, message: Message, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await super().publish([message])

    @property
    def is_still(self) -> bool:
        """Whether everything that was published was given to the groups."""
        return not self._late


@asynccontextmanager
async def rough(seed: int) -> AsyncIterator[tuple[Broker, Callable[[], bool]]]:
    """Give a broker that says everything three times, and whether nothing is on its way any more."""
    async with RoughBroker(f"memory://{uuid4()}", seed) as broker:
        yield broker, lambda: broker.is_still and not any(group.items for group in broker.server.groups.values())


@asynccontextmanager
async def chaotic(seed: int) -> AsyncIterator[tuple[Broker, Callable[[], bool]]]:
    """Give one that does all that a broker may do, answers lost included."""
    inner = MemoryBroker(f"memory://{uuid4()}")
    async with ChaoticBroker(inner, seed) as broker:
        yield broker, lambda: not any(group.items for group in inner.server.groups.values())


@pytest.mark.parametrize("dialect", ["sqlite", "postgres"])
@pytest.mark.parametrize("kind", [rough, chaotic])
def test_events_several_times_and_in_any_order_leave_what_they_should(urls: dict[str, str], kind: Any) -> None:
    """Forty events and more, repeated, and shuffled over the time of a whole saga: effects once, books balanced."""

    async def main() -> None:
        async with kind(seed=7) as (broker, is_still):
            shop = Shop(urls, broker)
            await shop.create()
            orders = {f"o-{at}": fails_at for at, fails_at in enumerate([*LEFT, *LEFT])}
            async with shop.open():
                for saga_id, fails_at in orders.items():
                    await shop.place(saga_id, fails_at)
                for saga_id, fails_at in orders.items():
                    await shop.until(saga_id, fails_at)
                async with asyncio.timeout(30):
                    while not is_still():  # noqa: ASYNC110 - stillness has no event
                        await asyncio.sleep(0.02)
            for saga_id, fails_at in orders.items():
                assert await shop.effects(saga_id) == LEFT[fails_at]
            await shop.close()

    asyncio.run(main())
