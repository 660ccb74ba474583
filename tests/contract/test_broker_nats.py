"""NATS JetStream passes the broker contract, on a real server that is killed and started again on its data."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import nats
import pytest

from atone.brokers.nats import NatsBroker
from atone.testing.broker_contract import BROKER_CHECKS, BrokerCheck, BrokerSubject, NotOffered
from atone.testing.nats import NatsServer, nats_server


class _Server:
    """The server, to be taken away."""

    def __init__(self, server: NatsServer) -> None:
        self._server = server

    async def kill(self) -> None:
        await asyncio.to_thread(self._server.stop, "kill")

    async def start(self) -> None:
        await asyncio.to_thread(self._server.start)


@pytest.fixture(scope="module")
def server() -> Iterator[NatsServer]:
    """Start one server for all checks of this module."""
    with nats_server() as running:
        yield running


def subject(server: NatsServer) -> BrokerSubject:
    """Return what the contract wants to know."""

    async def publish_foreign(topic: str, body: bytes) -> None:
        client = await nats.connect(server.url())
        await client.jetstream().publish(f"atone.{topic}", body, headers={"Content-Type": "text/plain"})
        await client.close()

    return BrokerSubject(
        connect=lambda: NatsBroker(server.url()),
        hurried=lambda: NatsBroker(f"{server.url()}?patience_seconds=0.5"),
        hurried_url=f"{server.url()}?patience_seconds=0.5",
        patience_seconds=0.5,
        server=_Server(server),
        unreachable=lambda: NatsBroker("nats://atone:s3cret@127.0.0.1:1"),
        publish_foreign=publish_foreign,
        deadline_seconds=15,
    )


@pytest.mark.parametrize("check", BROKER_CHECKS, ids=repr)
def test_nats(check: BrokerCheck, server: NatsServer) -> None:
    """One sentence of the contract holds for NATS."""
    try:
        asyncio.run(check(lambda: subject(server)))
    except NotOffered as reason:
        pytest.skip(str(reason))
