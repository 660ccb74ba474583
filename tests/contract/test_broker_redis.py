"""The Redis broker on a real Valkey: the contract, and what is its own.

The server writes to disk before it answers, and is killed and started again by the contract's checks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from redis.asyncio import Redis

from atone.brokers.redis import RedisBroker
from atone.testing.broker_contract import BROKER_CHECKS, BrokerCheck, BrokerSubject
from atone.testing.valkey import ValkeyServer, valkey_server
from tests.contract.test_brokers import run

_PATIENCE_SECONDS = 0.4


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    with valkey_server() as one:
        yield one


class Control:
    """The server, to be taken away."""

    def __init__(self, server: ValkeyServer) -> None:
        self._server = server

    async def kill(self) -> None:
        await asyncio.to_thread(self._server.stop, "kill")

    async def start(self) -> None:
        await asyncio.to_thread(self._server.start)


def subject_on(server: ValkeyServer) -> BrokerSubject:
    async def publish_foreign(topic: str, body: bytes) -> None:
        async with Redis.from_url(server.url()) as client:
            await client.xadd(f"atone:topic:{topic}", {"body": body})

    return BrokerSubject(
        connect=lambda: RedisBroker(server.url()),
        hurried=lambda: RedisBroker(
            f"{server.url()}?patience_seconds={_PATIENCE_SECONDS}&hold_seconds={_PATIENCE_SECONDS}"
        ),
        hurried_url=server.url(),
        patience_seconds=2 * _PATIENCE_SECONDS,
        server=Control(server),
        unreachable=lambda: RedisBroker("redis://atone:s3cret@127.0.0.1:1/0"),
        publish_foreign=publish_foreign,
    )


@pytest.mark.parametrize("check", BROKER_CHECKS, ids=repr)
def test_redis_broker(check: BrokerCheck, server: ValkeyServer) -> None:
    """One sentence of the contract holds on Valkey."""
    run(check, lambda: subject_on(server))
