"""The brokers under torment: how each is started, killed and started again on its data.

Owns the servers and their addresses. Must not publish, consume or judge. A broker without a server of its own has
nothing to be killed but the processes that use it. Used by `tests.crash.brokers`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4


@dataclass(frozen=True)
class Target:
    """A broker's address, and how its server is ended with `kill -9` and started; None where there is none.

    `within` is true if it exists in one process only, `chaotic` if faults are to be added to it.
    """

    url: str
    kill: Callable[[], None] | None = None
    start: Callable[[], None] | None = None
    within: bool = False
    chaotic: bool = False


@contextmanager
def memory() -> Generator[Target, None, None]:
    """Give a broker in memory."""
    from atone.brokers.memory import server_of

    name = uuid4().hex
    server = server_of(name)
    yield Target(f"memory://{name}", server.kill, server.start, within=True)


@contextmanager
def chaotic() -> Generator[Target, None, None]:
    """Give a broker in memory with faults: copies, another order, calls and acknowledgements that are lost."""
    with memory() as target:
        yield replace(target, chaotic=True)


@contextmanager
def embedded_sqlite() -> Generator[Target, None, None]:
    """Give a broker in a file."""
    with tempfile.TemporaryDirectory(prefix="atone-broker-") as folder:
        yield Target(f"sqlite:///{Path(folder) / 'broker.db'}?patience_seconds=3")


@contextmanager
def embedded_postgres() -> Generator[Target, None, None]:
    """Give a broker in a PostgreSQL of its own, which writes to disk before it confirms."""
    from atone.testing.postgres import postgres_server

    with postgres_server() as server:
        yield Target(f"{server.url()}?patience_seconds=3", lambda: server.stop("kill"), server.start)


@contextmanager
def nats() -> Generator[Target, None, None]:
    """Give a NATS server that writes to disk before it confirms."""
    from atone.testing.nats import nats_server

    with nats_server() as server:
        yield Target(f"{server.url()}?patience_seconds=3", lambda: server.stop("kill"), server.start)


@contextmanager
def redis() -> Generator[Target, None, None]:
    """Give a Valkey that writes to disk before it confirms."""
    from atone.testing.valkey import valkey_server

    with valkey_server() as server:
        yield Target(f"{server.url()}?patience_seconds=3", lambda: server.stop("kill"), server.start)


@contextmanager
def rabbitmq() -> Generator[Target, None, None]:
    """Give a RabbitMQ."""
    from atone.testing.rabbitmq import rabbitmq_server

    with rabbitmq_server() as server:
        yield Target(server.url(), lambda: server.stop("kill"), server.start)


@contextmanager
def kafka() -> Generator[Target, None, None]:
    """Give a server that speaks Kafka's protocol; it keeps everything in memory, so nobody kills it."""
    from atone.testing.kafka import kafka_server

    with kafka_server() as server:
        yield Target(f"{server.url()}&session_seconds=6&partitions=4")


TARGETS = {
    "memory": memory,
    "chaotic": chaotic,
    "kafka": kafka,
    "embedded-sqlite": embedded_sqlite,
    "embedded-postgres": embedded_postgres,
    "nats": nats,
    "redis": redis,
    "rabbitmq": rabbitmq,
}
