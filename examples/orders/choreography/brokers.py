"""The broker of a run, by its name: the embedded one, or a real server that is started for the run and gone after it.

Owns which server belongs to which name. The servers come from wheels that the lock brings, RabbitMQ from the system's
packages. Used by the demo and the benchmark.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from examples.orders.audit import Folder

# Name -> module of atone.testing, what starts a server there, and what says that there is none.
_SERVERS = {
    "nats": ("nats", "nats_server", "NoNats"),
    "redis": ("valkey", "valkey_server", "NoValkey"),
    "kafka": ("kafka", "kafka_server", "NoKafka"),
    "rabbitmq": ("rabbitmq", "rabbitmq_server", "NoRabbitMQ"),
}
BROKERS = ("embedded", *_SERVERS)

# A process that is killed here is started again at once; so what it held need not wait for long. Where it is missing,
# the broker sees by itself that a connection is gone, or has no such setting in its URL.
_PATIENCE: dict[str, str] = dict.fromkeys(("embedded", "nats", "redis"), "?patience_seconds=2")


class NoBroker(Exception):
    """The server that was asked for is not here, or does not start."""


@contextmanager
def broker_url(kind: str, folder: Folder) -> Generator[str, None, None]:
    """Return where the broker is, for as long as the block lasts.

    Raises:
        NoBroker: With the server's own reason.
    """
    patience = _PATIENCE.get(kind, "")
    if kind == "embedded":
        yield folder.store_url + patience
        return
    module, start, missing = _SERVERS[kind]
    testing: Any = import_module(f"atone.testing.{module}")
    try:
        with getattr(testing, start)() as server:
            yield server.url() + patience
    except getattr(testing, missing) as error:
        raise NoBroker(str(error)) from error
