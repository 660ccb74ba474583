"""Every broker passes the same contract; the sentences of it are in `atone.testing.broker_contract`.

Brokers that need a server of their own kind are tested beside this, each in a file of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from atone.broker import Message
from atone.brokers.embedded import EmbeddedBroker
from atone.brokers.memory import MemoryBroker, Server, server_of
from atone.testing.broker_contract import BROKER_CHECKS, BrokerCheck, BrokerSubject, NotOffered
from atone.testing.postgres import PostgresServer

MakeSubject = Callable[[], BrokerSubject]


class MemoryServer:
    """The memory broker's shared state as a server to be taken away."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def kill(self) -> None:
        self._server.kill()

    async def start(self) -> None:
        self._server.start()


def memory_subject(kind: type[MemoryBroker] = MemoryBroker, name: str | None = None) -> BrokerSubject:
    """Return a memory broker's, under a name of its own unless one is given; `kind` may be a broken one."""
    url = f"memory://{name or uuid4().hex}"
    server = server_of(url.removeprefix("memory://"))

    async def publish_foreign(topic: str, body: bytes) -> None:
        server.put(Message(f"foreign-{next(server.numbers)}", topic, "", body))

    return BrokerSubject(
        connect=lambda: kind(url),
        hurried=lambda: kind(url, patience_seconds=0.2),
        patience_seconds=0.2,
        server=MemoryServer(server),
        publish_foreign=publish_foreign,
        deadline_seconds=10,
    )


def sqlite_subject(folder: Path, kind: type[EmbeddedBroker] = EmbeddedBroker) -> BrokerSubject:
    """Return an embedded broker's, in a file of its own."""
    url = f"sqlite:///{folder / 'atone.db'}"
    return BrokerSubject(
        connect=lambda: kind(url),
        hurried=lambda: kind(f"{url}?patience_seconds=0.5"),
        hurried_url=f"{url}?patience_seconds=0.5",
        patience_seconds=0.5,
        unreachable=lambda: kind(f"sqlite:///{folder / 'no such folder' / 'atone.db'}"),
        deadline_seconds=20,
    )


class KillablePostgres:
    """A PostgreSQL as a server to be taken away."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server

    async def kill(self) -> None:
        await asyncio.to_thread(self._server.stop, "kill")

    async def start(self) -> None:
        await asyncio.to_thread(self._server.start)


def postgres_subject(bench: Any, schema: str) -> BrokerSubject:
    """Return an embedded broker's, with a worker's rights and no more."""
    url = f"{bench.worker_url}?schema={schema}"
    hurried = f"{url}&patience_seconds=0.5"
    return BrokerSubject(
        connect=lambda: EmbeddedBroker(url),
        hurried=lambda: EmbeddedBroker(hurried),
        hurried_url=hurried,
        patience_seconds=0.5,
        server=KillablePostgres(bench.server),
        unreachable=lambda: EmbeddedBroker("postgresql://wanda:s3cret@127.0.0.1:1/postgres"),
        deadline_seconds=30,
    )


def run(check: BrokerCheck, make_subject: MakeSubject) -> None:
    """Run one check; what the subject does not offer is skipped, with words."""
    run_async(lambda: check(make_subject))


def run_async(work: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await work()

    try:
        asyncio.run(main())
    except NotOffered as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("check", BROKER_CHECKS, ids=repr)
def test_memory_broker(check: BrokerCheck, tmp_path: Path) -> None:
    """One sentence of the contract holds for the broker in memory."""
    run(check, memory_subject)


@pytest.mark.parametrize("check", BROKER_CHECKS, ids=repr)
def test_embedded_broker_on_sqlite(check: BrokerCheck, tmp_path: Path) -> None:
    """One sentence of the contract holds for the broker in an SQLite file, also across processes."""
    run(check, lambda: sqlite_subject(tmp_path))


@pytest.fixture(scope="module")
def killable_bench() -> Iterator[Any]:
    """A server of this module's own, for it is killed."""
    from tests.servers.postgres import SERVERS, bench

    with bench(next(iter(SERVERS.values()))) as running:
        run_migrations(running.server.url(), "Messages")
        yield running


def run_migrations(url: str, schema: str) -> None:
    from atone.stores.postgres import migrate

    asyncio.run(migrate(url, schema=schema))


@pytest.mark.parametrize("check", BROKER_CHECKS, ids=repr)
def test_embedded_broker_on_postgres(check: BrokerCheck, killable_bench: Any) -> None:
    """One sentence of the contract holds for the broker in a PostgreSQL, across processes and kills of the server."""
    run(check, lambda: postgres_subject(killable_bench, "Messages"))
