"""Kafka's protocol passes the broker contract, on a real server, as far as there is one from a wheel: Tansu.

A group's first join takes seconds there, so all checks run at once, and each test looks at what became of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import OutOfOrderSequenceNumber

from atone.broker import Message, Published
from atone.brokers.kafka import KafkaBroker
from atone.testing.broker_contract import BROKER_CHECKS, BrokerCheck, BrokerSubject, NotOffered
from atone.testing.kafka import KafkaServer, kafka_server

Results = dict[str, BaseException | None]

# Its members come and go, and then Tansu's coordinator sometimes keeps for ever a generation whose leader has left.
# On a server of its own this check usually passes.
BEYOND_TANSU = {"of_two_thousand_messages_none_is_lost"}
CHECKS = [check for check in BROKER_CHECKS if check.name not in BEYOND_TANSU]


def subject(server: KafkaServer) -> BrokerSubject:
    """Return what the contract wants to know: it keeps what nobody hears, and loses everything with its process."""

    async def publish_foreign(topic: str, body: bytes) -> None:
        async with AIOKafkaProducer(bootstrap_servers=f"127.0.0.1:{server.port}") as producer:
            await producer.send_and_wait(f"atone.{topic}", body, headers=[("content-type", b"text/plain")])

    return BrokerSubject(
        connect=lambda: KafkaBroker(f"{server.url()}&partitions=2&session_seconds=2"),
        keeps=True,
        counts_attempts=False,
        unreachable=lambda: KafkaBroker("kafka://atone:s3cret@127.0.0.1:1"),
        publish_foreign=publish_foreign,
        deadline_seconds=30,
    )


@pytest.fixture(scope="module")
def results() -> Iterator[Results]:
    """Run all checks at once."""
    with kafka_server() as server:

        async def run() -> list[BaseException | None]:
            return await asyncio.gather(*(check(lambda: subject(server)) for check in CHECKS), return_exceptions=True)

        yield {check.name: result for check, result in zip(CHECKS, asyncio.run(run()), strict=True)}


@pytest.mark.parametrize("check", CHECKS, ids=repr)
def test_kafka(check: BrokerCheck, results: Results) -> None:
    """One sentence of the contract holds for a server that speaks Kafka's protocol."""
    result = results[check.name]
    if isinstance(result, NotOffered):
        pytest.skip(str(result))
    if result is not None:
        raise result


def test_a_producer_that_an_error_has_ended_is_replaced() -> None:
    """The client's own sending task ends on some errors, such as a lost sequence, and is never begun again."""

    def broken(*_: object, **__: object) -> None:
        raise OutOfOrderSequenceNumber

    async def main(server: KafkaServer) -> None:
        async with KafkaBroker(server.url()) as broker, asyncio.timeout(60):
            assert [*await broker.publish([Message("1", "order.placed", "a", b"")])] == [Published.DURABLE]
            producer = broker._connection.producer
            producer._message_accumulator.drain_by_nodes = broken
            # What is on its way then may fail or not; who publishes again is heard.
            await asyncio.gather(broker.publish([Message("2", "order.placed", "a", b"")]), return_exceptions=True)
            await asyncio.wait({producer._sender.sender_task})
            assert [*await broker.publish([Message("2", "order.placed", "a", b"")])] == [Published.DURABLE]
            assert broker._connection.producer is not producer

    with kafka_server() as server:
        asyncio.run(main(server))
