"""The Redis broker on a real Valkey: the contract, and what is its own.

The server writes to disk before it answers, and is killed and started again by the contract's checks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from redis.asyncio import Redis

from atone.broker import Delivery, Message, Published
from atone.brokers._redis_calls import Line
from atone.brokers._redis_scripts import TRIM
from atone.brokers.redis import RedisBroker
from atone.errors import BrokerUnavailable
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


def short(server: ValkeyServer, work: Callable[[RedisBroker, Any], Awaitable[None]]) -> None:
    """Run with an open broker and a plain client."""

    async def main() -> None:
        async with Redis.from_url(server.url()) as client, RedisBroker(server.url()) as broker:
            async with asyncio.timeout(25):
                await work(broker, client)

    asyncio.run(main())


def messages(count: int, topic: str) -> list[Message]:
    return [Message(f"{topic}-{number}", topic, "", b"x") for number in range(count)]


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    while True:
        if await holds():
            return
        await asyncio.sleep(0.05)


async def hear(member: AsyncIterator[Delivery], count: int) -> set[str]:
    heard: set[str] = set()
    acking: list[asyncio.Task[None]] = []
    while len(heard) < count:
        delivery = await anext(member)
        heard.add(delivery.message.id)
        acking.append(asyncio.create_task(delivery.ack()))
    await asyncio.gather(*acking)
    return heard


def test_only_what_every_group_has_ended_is_removed(server: ValkeyServer) -> None:
    """A topic shrinks when the last group has ended its entries, and not before."""

    async def work(broker: RedisBroker, client: Any) -> None:
        await broker.declare("trim-one", ["trim.topic"])
        await broker.declare("trim-other", ["trim.topic"])
        await broker.publish(messages(300, "trim.topic"))
        one = broker.deliveries("trim-one")
        await hear(one, 300)
        waiting = asyncio.create_task(anext(one))  # the member stays, and looks after the topic
        await client.eval(TRIM, 1, "atone:topic:trim.topic")
        assert await client.xlen("atone:topic:trim.topic") == 300
        other = broker.deliveries("trim-other")
        assert len(await hear(other, 300)) == 300

        async def is_short() -> bool:
            return int(await client.xlen("atone:topic:trim.topic")) < 100  # of the last node some may stay

        await until(is_short)
        waiting.cancel()

    short(server, work)


def test_a_member_whose_connections_are_cut_again_and_again_hears_all(server: ValkeyServer) -> None:
    """Each cut costs no more than a repetition."""

    async def work(broker: RedisBroker, client: Any) -> None:
        await broker.declare("cut", ["cut.topic"])
        missing = {message.id for message in messages(200, "cut.topic")}
        await broker.publish(messages(200, "cut.topic"))
        member = broker.deliveries("cut", in_flight=10)
        given = 0
        while missing:
            delivery = await anext(member)
            given += 1
            if given % 20 == 0:
                await client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            try:
                await delivery.ack()
            except BrokerUnavailable:
                continue  # it comes again
            missing.discard(delivery.message.id)

    short(server, work)


def test_what_was_given_in_an_answer_that_was_lost_comes_at_once(
    server: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not when the patience is over: the member gives back what it does not know of."""
    do, answers = Line.do, 0

    async def do_and_forget(line: Line, *command: Any) -> Any:
        nonlocal answers
        answer = await do(line, *command)
        answers += bool(answer)
        if answer and answers % 2:
            raise BrokerUnavailable("the answer was lost")
        return answer

    monkeypatch.setattr(Line, "do", do_and_forget)

    async def work(broker: RedisBroker, client: Any) -> None:
        await broker.declare("deaf", ["deaf.topic"])
        await broker.publish(messages(60, "deaf.topic"))
        assert len(await hear(broker.deliveries("deaf", in_flight=10), 60)) == 60
        assert answers > 2

    short(server, work)


def test_a_server_that_has_lost_everything_is_told_again(server: ValkeyServer) -> None:
    """The member declares its group anew and hears what is published from then on."""

    async def work(broker: RedisBroker, client: Any) -> None:
        await broker.declare("lost", ["lost.topic"])
        await broker.publish(messages(1, "lost.topic"))
        member = broker.deliveries("lost")
        await hear(member, 1)
        waiting = asyncio.create_task(hear(member, 1))
        await client.flushall()

        async def is_heard() -> bool:
            return list(await broker.publish(messages(1, "lost.topic"))) == [Published.DURABLE]

        await until(is_heard)
        assert await waiting == {"lost.topic-0"}

    short(server, work)


def test_a_server_that_is_full_is_unavailable(server: ValkeyServer) -> None:
    """Nothing is said to be durable that it did not take; the same call works when there is room."""

    async def work(broker: RedisBroker, client: Any) -> None:
        await broker.declare("full", ["full.topic"])
        await client.config_set("maxmemory", 1)
        try:
            with pytest.raises(BrokerUnavailable):
                await broker.publish(messages(3, "full.topic"))
        finally:
            await client.config_set("maxmemory", 0)
        assert set(await broker.publish(messages(3, "full.topic"))) == {Published.DURABLE}

    short(server, work)
