"""Workers and services that run what should never be run, beside what should; and who looks whether all is settled.

Owns the poisoned saga and the poisoned choreography, and the processes for both. Must not judge. Run by `poison`.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiosqlite

from atone import Context, Orchestrator, Retry, Saga, Tried, pivot, step
from atone._messaging import headers
from atone.brokers import open_broker
from atone.choreography import Choreography, Participant, Reaction, event, reacts
from atone.orchestrator import Limits
from atone.serving import ServiceTables, serve, start_blocking
from atone.store import Query, Store
from atone.stores.postgres import PostgresStore
from atone.stores.sqlite import SqliteStore
from tests.crash.forks import Tell
from tests.crash.poison_kinds import EVERYTHING

TICK_SECONDS = 0.2
THRICE = Retry(attempts=3, initial=0.01, factor=1.0, jitter=0.0)
NEIGHBOUR = "neighbour"


@dataclass(frozen=True)
class Dose:
    """What a saga's pivot is to do; `on_loop`: as an async function."""

    kind: str
    on_loop: bool


class Bitten(Saga[Dose], recoveries_max=2):
    """A step that goes well, and a point of no return that may not."""

    @step(retry=THRICE, timeout=5, barrier=True)
    async def reserve(self, ctx: Context[Dose]) -> str:
        return "reserved"

    @reserve.compensation
    async def release(self, ctx: Context[Dose], tried: Tried[str]) -> None:
        return None

    @step(reserve, retry=THRICE, timeout=1, barrier=True)
    def bite_in_thread(self, ctx: Context[Dose], reserved: str) -> str:
        return "nothing" if ctx.input.on_loop else done(ctx.input.kind)

    @bite_in_thread.compensation
    async def soothe(self, ctx: Context[Dose], tried: Tried[str]) -> None:
        return None

    @pivot(bite_in_thread, retry=THRICE, timeout=1)
    async def bite_on_loop(self, ctx: Context[Dose], before: str) -> str:
        return done(ctx.input.kind) if ctx.input.on_loop else "done"


def done(kind: str) -> Any:
    """Do what is named."""
    return "done" if kind == NEIGHBOUR else EVERYTHING[kind][0]()


@dataclass(frozen=True)
class Farm:
    """Where poisoned sagas live."""

    folder: Path
    url: str | None = None

    def store(self) -> Store:
        """Return the store, not opened."""
        if self.url is None:
            return SqliteStore(self.folder / "sagas.db")
        return PostgresStore(self.url, migrate=False, readers=1)

    def begin(self, doses: Sequence[tuple[str, Dose]]) -> Callable[[Tell], None]:
        """Return work that starts sagas and runs none."""

        async def main() -> None:
            async with Orchestrator(self.store(), sagas=[Bitten()], runs=False) as orchestrator:
                for saga_id, dose in doses:
                    await orchestrator.start(Bitten, dose, saga_id=saga_id)

        return lambda _tell: asyncio.run(main())

    def work(self, tell: Tell) -> None:
        """Be a worker."""
        _log_to(self.folder)
        limits = Limits(lease_seconds=1.0, poll_seconds=0.05, loop_stall_seconds=1.0, threads_max=64)

        async def main() -> None:
            async with Orchestrator(self.store(), sagas=[Bitten()], limits=limits):
                await _tick(tell)

        asyncio.run(main())

    def watch(self, tell: Tell) -> None:
        """Tell how each saga stands, as soon as all are at rest."""

        async def main() -> None:
            async with Orchestrator(self.store(), sagas=[Bitten()], runs=False) as orchestrator, self.store() as store:
                while await store.find(UNSETTLED):  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
                for one in await store.find(EVERY):
                    outcome = await orchestrator.outcome(Bitten, one.saga_id, timeout=5)
                    tell(saga=one.saga_id, status=one.status, owner=one.owner, told=str(outcome))

        asyncio.run(main())


EVERY = Query(limit=1000)
UNSETTLED = Query(statuses=frozenset({"pending", "running", "compensating"}))


@event("job.asked")
@dataclass(frozen=True)
class Asked:
    kind: str


@event("job.done")
@dataclass(frozen=True)
class Ready:
    by: str


class Works(Participant, name="works"):
    """Does as it is asked, in a thread."""

    @reacts(Asked, emits=(Ready,), no_undo="a test", retry=THRICE, timeout=1)
    def do(self, ctx: Reaction[Asked]) -> Ready:
        ctx.connection.execute("INSERT INTO did VALUES (?)", (ctx.saga_id,))
        return Ready(done(ctx.event.kind))


class AsyncWorks(Participant, name="works"):
    """Does as it is asked, on the event loop."""

    @reacts(Asked, emits=(Ready,), no_undo="a test", retry=THRICE, timeout=1)
    async def do(self, ctx: Reaction[Asked]) -> Ready:
        await ctx.connection.execute("INSERT INTO did VALUES (?)", (ctx.saga_id,))
        return Ready(done(ctx.event.kind))


JOBS = Choreography("jobs", Works, starts=(Asked,), completes=(Ready,))
ASYNC_JOBS = Choreography("jobs", AsyncWorks, starts=(Asked,), completes=(Ready,))


@dataclass(frozen=True)
class Workshop:
    """Where a poisoned choreography lives: a database file and an embedded broker, or another one."""

    folder: Path
    on_loop: bool
    broker_url: str | None = None

    @property
    def broker(self) -> str:
        """Its address; what nobody holds any more is given again after a second."""
        return self.broker_url or f"sqlite:///{self.folder}/broker.db?patience_seconds=1"

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Begin a transaction, as a service would."""
        connection = sqlite3.connect(self.folder / "works.db", isolation_level=None, timeout=10)
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("CREATE TABLE IF NOT EXISTS did (saga TEXT)")
            with connection:
                yield connection
        finally:
            connection.close()

    @asynccontextmanager
    async def transaction_on_loop(self) -> AsyncIterator[aiosqlite.Connection]:
        """Do the same for handlers on the event loop."""
        async with aiosqlite.connect(self.folder / "works.db", isolation_level=None, timeout=10) as connection:
            await connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                await connection.execute("ROLLBACK")
                raise
            await connection.execute("COMMIT")

    def begin(self, kinds: Sequence[tuple[str, str]]) -> Callable[[Tell], None]:
        """Return work that starts sagas; a relay of the service's publishes them."""

        def main(_tell: Tell) -> None:
            with self.transaction() as connection:
                ServiceTables().create_blocking(connection)
                for saga_id, kind in kinds:
                    start_blocking(JOBS, connection, Asked(kind), saga_id=saga_id)

        return main

    def work(self, tell: Tell) -> None:
        """Be a service."""
        _log_to(self.folder)
        service = (
            serve(ASYNC_JOBS, AsyncWorks(), database=self.transaction_on_loop, broker=self.broker, poll_seconds=0.1)
            if self.on_loop
            else serve(JOBS, Works(), database=self.transaction, broker=self.broker, poll_seconds=0.1)
        )

        async def main() -> None:
            async with service:
                await _tick(tell)

        asyncio.run(main())

    def watch(self, wanted: int) -> Callable[[Tell], None]:
        """Return work that tells what was done and what was set aside, as soon as that is all."""

        async def main(tell: Tell) -> None:
            async with open_broker(self.broker) as broker:
                while True:
                    parked = await broker.parked("jobs.works", limit=1000)
                    with self.transaction() as connection:
                        did = [saga for (saga,) in connection.execute("SELECT saga FROM did")]
                    if len(parked) + len(did) >= wanted:
                        break
                    await asyncio.sleep(0.1)
                for one in parked:
                    tell(parked=one.message.headers[headers.SAGA_ID], reason=one.reason)
                for saga in did:
                    tell(did=saga)

        return lambda tell: asyncio.run(main(tell))


async def _tick(tell: Tell) -> None:
    while True:  # for as long as the event loop goes round
        tell(tick=1)
        await asyncio.sleep(TICK_SECONDS)


def _log_to(folder: Path) -> None:
    name = folder / "log.txt"
    logging.basicConfig(filename=name, level=logging.WARNING, format="%(process)d %(relativeCreated)d %(message)s")
