"""NATS JetStream passes the broker contract, on a real server that is killed and started again on its data."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import nats
import nats.js.errors
import pytest

from atone.broker import Message, Published
from atone.brokers.nats import NatsBroker
from atone.errors import BrokerError, BrokerUnavailable
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


def test_a_client_that_has_given_up_is_replaced(server: NatsServer) -> None:
    """The library ends a connection for good after some errors; members and publishers go on with a new one."""

    async def run() -> None:
        async with asyncio.timeout(30), NatsBroker(server.url()) as broker:
            await broker.declare("replaced", ["replaced"])
            heard: asyncio.Queue[str] = asyncio.Queue()
            hearing = asyncio.create_task(_hear(broker, "replaced", heard))
            assert await _publish(broker, "before") == await heard.get()
            await broker._connection.client.close()
            assert await _publish(broker, "after") == await heard.get()
            hearing.cancel()
            await asyncio.gather(hearing, return_exceptions=True)

    asyncio.run(run())


def test_members_of_one_group_that_declare_at_once_are_all_heard(server: NatsServer) -> None:
    """None of them puts the consumer back to what it knew itself."""

    async def run() -> None:
        async with asyncio.timeout(30), NatsBroker(server.url()) as one, NatsBroker(server.url()) as other:
            topics = [f"at.once.{number}" for number in range(12)]
            await asyncio.gather(
                *((one if number % 2 else other).declare("at-once", [topic]) for number, topic in enumerate(topics))
            )
            found = await one.publish([Message(topic, topic, "", b"") for topic in topics])
            assert list(found) == [Published.DURABLE] * len(topics)

    asyncio.run(run())


def test_a_stream_of_ones_own_is_used_as_it_is(server: NatsServer) -> None:
    """One that keeps everything keeps what nobody hears, too; one that has a single group is refused."""

    async def run() -> None:
        client = await nats.connect(server.url())
        context = client.jetstream()
        await context.add_stream(name="MINE", subjects=["mine.>"], max_age=3600)
        await context.add_stream(name="WORK", subjects=["work.>"], retention="workqueue")
        await client.close()
        async with NatsBroker(f"{server.url()}?stream=MINE") as broker:
            assert list(await broker.publish([Message("1", "unheard", "", b"")])) == [Published.DURABLE]
        with pytest.raises(BrokerError, match="work queue"):
            async with NatsBroker(f"{server.url()}?stream=WORK"):
                pass

    asyncio.run(run())


async def _hear(broker: NatsBroker, group: str, heard: asyncio.Queue[str]) -> None:
    async for delivery in broker.deliveries(group):
        await delivery.ack()
        heard.put_nowait(delivery.message.id)


async def _publish(broker: NatsBroker, message_id: str) -> str:
    """Publish until the broker has it, as a relay does."""
    while True:
        try:
            await broker.publish([Message(message_id, "replaced", "", b"")])
        except BrokerUnavailable:
            await asyncio.sleep(0.02)
        else:
            return message_id


def test_a_message_whose_headers_are_too_large_is_refused_and_holds_up_nobody(server: NatsServer) -> None:
    """The server would never answer, and it would be published again for ever."""

    async def main() -> None:
        async with NatsBroker(server.url()) as broker, asyncio.timeout(25):
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


def test_messages_with_one_id_on_two_topics_are_two(server: NatsServer) -> None:
    """Services choose their ids by themselves; the server would drop the second one, and confirm it."""

    async def main() -> None:
        async with NatsBroker(server.url()) as broker, asyncio.timeout(25):
            await broker.declare("one-id", ["one.id", "another.id"])
            one, another = (Message("order-1", topic, "a", b"") for topic in ("one.id", "another.id"))
            assert [*await broker.publish([one, another, one])] == [Published.DURABLE] * 3
            heard: list[str] = []
            async for delivery in broker.deliveries("one-id"):
                assert delivery.message.id == "order-1"
                heard.append(delivery.message.topic)
                await delivery.ack()
                if len(heard) == 2:
                    break
            assert sorted(heard) == ["another.id", "one.id"]

    asyncio.run(main())


def test_a_cluster_without_a_leader_is_unavailable_and_one_without_jetstream_is_of_no_use(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first is tried again, as the worker does; the second would be the same each time."""
    said: dict[str, Any] = {"code": 503, "err_code": 10008, "description": "JetStream system temporarily unavailable"}

    async def refused(*_: object, **__: object) -> None:
        raise nats.js.errors.ServiceUnavailableError(**said)

    async def enter() -> None:
        async with NatsBroker(server.url()):
            raise AssertionError("it was opened")

    monkeypatch.setattr("nats.js.JetStreamContext.stream_info", refused)
    with pytest.raises(BrokerUnavailable, match="temporarily"):
        asyncio.run(enter())
    said["err_code"] = 10039
    with pytest.raises(BrokerError, match="no JetStream") as caught:
        asyncio.run(enter())
    assert not isinstance(caught.value, BrokerUnavailable)
