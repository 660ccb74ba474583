"""The ways to Kafka: one producer, consumers as they are needed, topics that are made, and what went wrong in words.

Owns the clients and their settings. Must not know a group's deliveries. Called by the Kafka adapter.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false
# aiokafka has no types.

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Coroutine, Generator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition  # type: ignore[import-untyped]
from aiokafka.admin import AIOKafkaAdminClient, NewTopic  # type: ignore[import-untyped]
from aiokafka.errors import KafkaError  # type: ignore[import-untyped]

from atone.brokers._hosts import Hosts
from atone.errors import BrokerClosed, BrokerError, BrokerUnavailable

T = TypeVar("T")

ANSWER_SECONDS = 8.0
_EXISTS = 36
_COMPACT = {"cleanup.policy": "compact"}


async def to_its_end(call: Coroutine[Any, Any, T]) -> T:
    """Run a call of a client's to its end, even if who waits for it is cancelled: it would leave sockets open."""
    task = asyncio.ensure_future(call)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


def _has_ended(producer: Any) -> bool:
    task = getattr(getattr(producer, "_sender", None), "sender_task", None)
    return task is not None and bool(task.done())


class Connection:
    """What one broker object uses. `request_bytes`: the largest request."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts
        self._replicas = hosts.number("replicas", 1, least=1)
        self.request_bytes = hosts.number("message_bytes", 1_000_000, least=100_000)
        self._session_seconds = hosts.number("session_seconds", 10.0, least=1.0)
        self._producer: Any = None
        self._mending = asyncio.Lock()
        self._made: set[str] = set()

    @property
    def is_open(self) -> bool:
        """Whether it is wanted, up or not."""
        return self._producer is not None

    @property
    def producer(self) -> Any:
        """What sends."""
        self.check()
        return self._producer

    def check(self) -> None:
        """Raise if it is not open."""
        if self._producer is None:
            raise BrokerClosed("This broker is not open. Enter it first: async with open_broker(url) as broker.")

    async def open(self) -> None:
        """Connect."""
        self._producer = await self._started()

    async def mend(self) -> None:
        """Have another producer if some error has ended the sending of this one, which never sends again then."""
        async with self._mending:
            ended = self._producer
            if ended is None or not _has_ended(ended):
                return
            producer = await self._started()
            if self._producer is ended:
                self._producer, producer = producer, ended
            with suppress(KafkaError):  # what it had was said to be unavailable
                await to_its_end(producer.stop())

    async def _started(self) -> Any:
        idempotent = self._hosts.options.get("idempotence", "1") not in ("0", "false", "off")
        producer = AIOKafkaProducer(
            **self._client(), acks="all", enable_idempotence=idempotent, max_request_size=self.request_bytes,
            request_timeout_ms=int(ANSWER_SECONDS * 1000),
        )  # fmt: skip
        try:
            with self.asking():
                await to_its_end(producer.start())
        except BaseException:
            await to_its_end(producer.stop())
            raise
        return producer

    def shut(self) -> Any:
        """Be wanted no more; return what is still to be stopped."""
        producer, self._producer = self._producer, None
        return producer

    async def all(self, topic: str) -> list[Any]:
        """Read a topic of one partition from its beginning to where it ends now."""
        return await to_its_end(self._read(topic))

    async def _read(self, topic: str) -> list[Any]:
        consumer = self.consumer()
        try:
            await consumer.start()
            partition = TopicPartition(topic, 0)
            consumer.assign([partition])
            await consumer.seek_to_beginning()
            end = (await consumer.end_offsets([partition]))[partition]
            records: list[Any] = []
            async with asyncio.timeout(ANSWER_SECONDS):
                while await consumer.position(partition) < end:
                    found = await consumer.getmany(partition, timeout_ms=200)
                    records += found.get(partition, [])
            return records
        finally:
            await consumer.stop()

    async def put(self, topic: str, key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]]) -> None:
        await self.mend()
        async with asyncio.timeout(ANSWER_SECONDS):
            await self.producer.send_and_wait(topic, value, key=key, headers=headers)

    async def make(self, topics: dict[str, int], *, compact: bool = False) -> None:
        """Make the topics that are not there, of so many partitions each."""
        wanted = [
            NewTopic(name, partitions, self._replicas, topic_configs=_COMPACT if compact else {})
            for name, partitions in topics.items()
            if name not in self._made
        ]
        if not wanted:
            return
        answer = await to_its_end(self._created(wanted))
        for name, code, text in answer.topic_errors:
            if code not in (0, _EXISTS):
                raise BrokerError(f"Kafka does not make the topic {name}: {text or code}. Make it yourself.")
            self._made.add(name)

    async def _created(self, wanted: list[Any]) -> Any:
        admin = AIOKafkaAdminClient(**self._client(), request_timeout_ms=int(ANSWER_SECONDS * 1000))
        try:
            await admin.start()
            return await admin.create_topics(wanted)
        finally:
            await admin.close()

    def consumer(self, **options: Any) -> Any:
        session = int(self._session_seconds * 1000)
        return AIOKafkaConsumer(
            **self._client(), enable_auto_commit=False, max_poll_interval_ms=24 * 3600 * 1000,
            session_timeout_ms=session, rebalance_timeout_ms=session, heartbeat_interval_ms=session // 5,
            request_timeout_ms=max(int(ANSWER_SECONDS * 1000), session + 5000), **options,
        )  # fmt: skip

    def _client(self) -> dict[str, Any]:
        """Return what every client is told about the way to the server."""
        secure = self._hosts.options.get("tls") in ("1", "true")
        login = self._hosts.user is not None
        return {
            "bootstrap_servers": [f"{name}:{port}" for name, port in self._hosts.hosts],
            "client_id": "atone",
            "security_protocol": f"{'SASL_' if login else ''}{'SSL' if secure else 'PLAINTEXT'}",
            "ssl_context": ssl.create_default_context() if secure else None,
            "sasl_mechanism": self._hosts.options.get("sasl", "PLAIN"),
            "sasl_plain_username": self._hosts.user,
            "sasl_plain_password": self._hosts.password,
        }

    def unavailable(self, what: object) -> BrokerUnavailable:
        text = str(what) or type(what).__name__
        if self._hosts.password:
            text = text.replace(self._hosts.password, "***")
        return BrokerUnavailable(f"Kafka at {self._hosts.shown}: {text}. See that the server runs, then try again.")

    @contextmanager
    def asking(self) -> Generator[None, None, None]:
        """Turn what can go wrong with the server into the port's errors."""
        try:
            yield
        except (KafkaError, OSError, TimeoutError) as error:
            raise self.unavailable(error) from None
