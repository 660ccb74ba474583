"""Broker adapters: each implements the port `atone.broker.Broker` and passes `atone.testing.broker_contract`.

Owns the one place where a URL becomes an adapter: `open_broker`. Adapters are imported when they are asked for, and
never import each other. Called by the orchestrator, participants and the command line.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from atone.broker import Broker
from atone.errors import BrokerError
from atone.stores._address import scheme_of

_SCHEMES = (
    "sqlite:///orders.db or postgresql://user@host/database (no broker needed), nats://host:4222, kafka://host:9092, "
    "amqp://user@host:5672/, redis://host:6379/0, or memory:// in tests"
)
# Scheme -> module, class, the package that it stands on, the extra that brings it.
_ADAPTERS: dict[str, tuple[str, str, str, str]] = {
    "memory": ("memory", "MemoryBroker", "", ""),
    "sqlite": ("embedded", "EmbeddedBroker", "", ""),
    "postgresql": ("embedded", "EmbeddedBroker", "asyncpg", "postgres"),
    "postgres": ("embedded", "EmbeddedBroker", "asyncpg", "postgres"),
    "nats": ("nats", "NatsBroker", "nats", "nats"),
    "kafka": ("kafka", "KafkaBroker", "aiokafka", "kafka"),
    "amqp": ("rabbitmq", "RabbitBroker", "aio_pika", "rabbitmq"),
    "amqps": ("rabbitmq", "RabbitBroker", "aio_pika", "rabbitmq"),
    "redis": ("redis", "RedisBroker", "redis", "redis"),
    "rediss": ("redis", "RedisBroker", "redis", "redis"),
}


def open_broker(url: str) -> Broker:
    """Return the broker that `url` names, not connected yet: `async with open_broker(url) as broker`.

    The URL of a store names the embedded broker, which lives in that store's database.

    Raises:
        BrokerError: The URL names no broker that this version has, or a package for it is missing.
    """
    scheme = scheme_of(url)
    if scheme is None or scheme not in _ADAPTERS:  # nothing of it is repeated: a password may stand anywhere
        raise BrokerError(f"This is no broker URL. Write one of {_SCHEMES}.")
    module, name, package, extra = _ADAPTERS[scheme]
    if package and find_spec(package) is None:
        raise BrokerError(f'A broker at {scheme}:// needs {package}. Run: pip install "atone[{extra}]"')
    adapter: Any = getattr(import_module(f"atone.brokers.{module}"), name)
    broker: Broker = adapter(url)
    return broker
