"""The RabbitMQ broker on a real server, if there is one: the contract, and what is its own.

Without the package every test is skipped, and says how to get it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import aio_pika
import pytest

from atone.brokers.rabbitmq import RabbitBroker
from atone.testing import _broker_server_checks
from atone.testing.broker_contract import BROKER_CHECKS, BrokerCheck, BrokerSubject
from atone.testing.rabbitmq import RabbitServer, find_rabbitmq, rabbitmq_server
from tests.contract.test_brokers import run
from tests.servers.rabbit import MISSING

_HOLD_SECONDS = 0.5
NEED_A_SERVER = [one for one in BROKER_CHECKS if one in _broker_server_checks.CHECKS]


@pytest.fixture(scope="module")
def server() -> Iterator[RabbitServer]:
    if find_rabbitmq() is None:
        pytest.skip(MISSING)
    with rabbitmq_server() as one:
        yield one


class Control:
    """The server, to be taken away once for several checks that run together: it takes seconds to come back."""

    def __init__(self, server: RabbitServer, checks: int) -> None:
        self._server = server
        self._killing = Together(checks)
        self._starting = Together(checks)

    async def kill(self) -> None:
        await self._killing.once(lambda: self._server.stop("kill"))

    async def start(self) -> None:
        await self._starting.once(self._server.start)


class Together:
    """Something that is done once, when so many ask for it."""

    def __init__(self, count: int) -> None:
        self._missing = count
        self._done = asyncio.Event()

    async def once(self, act: Callable[[], None]) -> None:
        self._missing -= 1
        if self._missing == 0:
            await asyncio.to_thread(act)
            self._done.set()
        await self._done.wait()


def subject_on(server: RabbitServer, control: Control | None = None, settle_seconds: float = 0.0) -> BrokerSubject:
    url = f"{server.url()}?settle_seconds={settle_seconds}"

    async def publish_foreign(topic: str, body: bytes) -> None:
        connection = await aio_pika.connect(server.url())
        async with connection:
            exchange = await (await connection.channel()).get_exchange("atone")
            await exchange.publish(aio_pika.Message(body), topic)

    return BrokerSubject(
        connect=lambda: RabbitBroker(url),
        hurried=lambda: RabbitBroker(f"{url}&hold_seconds={_HOLD_SECONDS}"),
        hurried_url=url,
        patience_seconds=_HOLD_SECONDS,
        server=control,
        unreachable=lambda: RabbitBroker("amqp://atone:s3cret@127.0.0.1:1/"),
        publish_foreign=publish_foreign,
    )


@pytest.mark.parametrize("check", [one for one in BROKER_CHECKS if one not in NEED_A_SERVER], ids=repr)
def test_rabbit_broker(check: BrokerCheck, server: RabbitServer) -> None:
    """One sentence of the contract holds on RabbitMQ."""
    run(check, lambda: subject_on(server))


def test_what_a_killed_rabbitmq_had_is_there_again(server: RabbitServer) -> None:
    """The contract's sentences about a server that is killed hold, all at once."""

    async def main() -> None:
        control = Control(server, len(NEED_A_SERVER))
        async with asyncio.TaskGroup() as group:
            for check in NEED_A_SERVER:
                group.create_task(check(lambda: subject_on(server, control, settle_seconds=3.0)))

    asyncio.run(main())
