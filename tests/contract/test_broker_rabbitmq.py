"""The RabbitMQ broker on a real server, if there is one: the contract, and what is its own.

Without the package every test is skipped, and says how to get it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, cast

import aio_pika
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atone.broker import Message, Published
from atone.brokers._rabbit_wire import delay_ms_of
from atone.brokers.rabbitmq import RabbitBroker
from atone.errors import BrokerUnavailable
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


def short(server: RabbitServer, work: Callable[[RabbitBroker, Any], Awaitable[None]]) -> None:
    """Run with an open broker and a plain client's channel."""

    async def main() -> None:
        url = f"{server.url()}?settle_seconds=0&hold_seconds={_HOLD_SECONDS}"
        async with await aio_pika.connect(server.url()) as connection, RabbitBroker(url) as broker:
            async with asyncio.timeout(25):
                await work(broker, await connection.channel())

    asyncio.run(main())


def test_a_wrong_password_is_unavailable_and_not_told(server: RabbitServer) -> None:
    """Nor is the right one; host and port are said."""

    async def enter() -> None:
        async with RabbitBroker(server.url(password="s3cret")):
            raise AssertionError("it was let in")

    with pytest.raises(BrokerUnavailable) as caught:
        asyncio.run(enter())
    assert f"127.0.0.1:{server.port}" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert server.password not in str(caught.value)


@pytest.mark.parametrize("is_told", [True, False])
def test_a_member_hears_again_when_its_queue_was_deleted_and_declared_anew(
    is_told: bool, server: RabbitServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The server ends a consumer without closing its channel, and does not tell it if the queue is back at once."""

    async def work(broker: RabbitBroker, channel: Any) -> None:
        group = f"deleted-{is_told}".lower()
        await broker.declare(group, [group])
        member = broker.deliveries(group)
        waiting = asyncio.ensure_future(anext(member))
        await broker.publish([Message("before", group, "", b"x")])
        await (await waiting).ack()
        waiting = asyncio.ensure_future(anext(member))
        await channel.queue_delete(f"atone.group.{group}")
        while is_told and "has declared nothing" not in caplog.text:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.01)
        await broker.declare(group, [group])
        await broker.publish([Message("after", group, "", b"x")])
        assert (await waiting).message.id == "after"

    short(server, work)


def test_a_member_that_hangs_is_given_nothing_more_until_it_asks(server: RabbitServer) -> None:
    """What it took ahead would wait for it, and the group has others."""

    async def work(broker: RabbitBroker, channel: Any) -> None:
        await broker.declare("hanging", ["hanging.topic"])
        hung, other = broker.deliveries("hanging"), cast("Any", broker.deliveries("hanging"))
        waiting = asyncio.ensure_future(anext(hung))
        await broker.publish([Message("first", "hanging.topic", "", b"x")])
        assert (await waiting).message.id == "first"
        again = await anext(other)
        assert again.message.id == "first"
        await again.ack()
        waiting = asyncio.ensure_future(anext(other))
        await asyncio.sleep(_HOLD_SECONDS)  # nothing can be waited for that must not happen
        sent = [f"{number}" for number in range(6)]
        await broker.publish([Message(one, "hanging.topic", "", b"x") for one in sent])
        came: list[str] = []
        while len(came) < len(sent):
            delivery = await waiting
            came.append(delivery.message.id)
            await delivery.ack()
            waiting = asyncio.ensure_future(anext(other))
        assert sorted(came) == sent
        waiting.cancel()
        await other.aclose()  # else all may be in its hands before the first one asks
        waiting = asyncio.ensure_future(anext(hung))
        await broker.publish([Message(one, "hanging.topic", "", b"x") for one in sent])
        assert (await waiting).message.id in sent

    short(server, work)


def test_headers_of_others_are_texts_and_the_servers_own_are_left_out(server: RabbitServer) -> None:
    """Numbers and dates become words; what dead-lettering and redelivery write is not the publisher's."""

    async def work(broker: RabbitBroker, channel: Any) -> None:
        await broker.declare("headers", ["headers.topic"])
        exchange = await channel.get_exchange("atone")
        await exchange.publish(
            aio_pika.Message(b"x", headers={"number": 5, "raw": bytearray(b"\xff"), "list": [1, 2]}), "headers.topic"
        )
        member = broker.deliveries("headers")
        first = await anext(member)
        assert first.message.headers == {"number": "5", "raw": "\ufffd", "list": "[1, 2]"}
        await first.retry(after_seconds=0.02)
        second = await anext(member)
        assert second.message == first.message
        assert second.attempt == 2

    short(server, work)


@given(st.floats(min_value=0.0, max_value=40 * 24 * 3600))
def test_a_delay_is_never_less_than_asked_for_and_a_fifth_more_at_most(after_seconds: float) -> None:
    """So that few queues serve all of them."""
    delay_ms = delay_ms_of(after_seconds)
    assert delay_ms >= after_seconds * 1000
    assert delay_ms <= max(after_seconds * 1000 * 1.2 + 1, 20)


def test_there_are_few_delays() -> None:
    """Each has a queue of its own on the server."""
    assert len({delay_ms_of(tenth / 10) for tenth in range(36_000)}) < 70


def test_a_message_whose_headers_are_too_large_is_refused_and_holds_up_nobody(server: RabbitServer) -> None:
    """The server would cut the connection, and it would be published again for ever."""

    async def main() -> None:
        async with RabbitBroker(server.url()) as broker, asyncio.timeout(25):
            await broker.declare("large-headers", ["large.headers"])
            large = Message("1", "large.headers", "a", b"", {"x": "x" * 200_000})
            small = Message("2", "large.headers", "a", b"", {"x": "x" * 50_000})
            assert [*await broker.publish([large, small])] == [Published.REFUSED, Published.DURABLE]
            async for delivery in broker.deliveries("large-headers"):
                assert delivery.message == small
                await delivery.park("why " * 30_000)
                break
            (parked,) = await broker.parked("large-headers")
            assert parked.message == small
            assert parked.reason.startswith("why why")

    asyncio.run(main())
