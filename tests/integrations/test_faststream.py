"""A FastStream service on a real NATS: each message once, in its own transaction; commands are answered after it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiosqlite
import nats
import pytest
from faststream.message import StreamMessage
from faststream.nats import JStream, NatsBroker, PullSub

from atone._messaging import headers
from atone._messaging.envelope import Command, command_message, read_reply, reason_of
from atone.broker import Message
from atone.brokers.nats import NatsBroker as AtoneNats
from atone.errors import MessageError, Reject
from atone.integrations.faststream import SagaCall, SagaMiddleware, read_message
from atone.testing.nats import NatsServer, nats_server

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(scope="module")
def server() -> Iterator[NatsServer]:
    """Start one server for all tests of this module."""
    with nats_server() as running:
        yield running


@dataclass
class Order:
    sku: str
    amount: int


class Shop:
    """The service's own database, and what its handler was given."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "shop.db"
        self.calls: list[Any] = []
        self.faults: list[Exception] = []
        self.commits = False
        self.middleware = SagaMiddleware(self.transaction, consumer="inventory", attempts_max=3)

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Any]:
        async with aiosqlite.connect(self.path, isolation_level=None, timeout=20) as connection:
            await connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                await connection.execute("COMMIT")
            except BaseException:
                await connection.execute("ROLLBACK")
                raise

    async def create(self) -> None:
        await self.middleware.create_tables()
        async with self.transaction() as connection:
            await connection.execute("CREATE TABLE reserved (sku TEXT, amount INTEGER)")

    async def reserve(self, order: Order, call: Any) -> dict[str, int]:
        self.calls.append((order, call))
        await call.connection.execute("INSERT INTO reserved VALUES (?, ?)", (order.sku, order.amount))
        if self.commits:
            await call.connection.execute("COMMIT")
        if self.faults:
            raise self.faults.pop(0)
        return {"left": 7}

    async def release(self, call: Any) -> None:
        self.calls.append(("release", call))
        await call.connection.execute("DELETE FROM reserved")

    async def rows(self, query: str = "SELECT sku, amount FROM reserved") -> list[Any]:
        async with aiosqlite.connect(self.path) as connection:
            return [tuple(row) for row in await connection.execute_fetchall(query)]

    async def replies(self) -> list[Message]:
        async with self.transaction() as connection:
            claimed = await self.middleware.outbox.relay(
                connection, "test", published=(), refused={}, limit=10, lease_seconds=60
            )
        return [one.message for one in claimed.messages]


@asynccontextmanager
async def serving(server: NatsServer, shop: Shop, name: str) -> AsyncGenerator[AtoneNats]:
    """Run the service, and give a broker of Atone's to publish with; the subscribers' ack policy is the default one."""
    await shop.create()
    broker = NatsBroker(server.url(), middlewares=[shop.middleware], logger=None)
    stream = JStream("ATONE", declare=False)
    pull = PullSub(batch_size=10, timeout=1.0)

    @broker.subscriber(f"atone.{name}.reserve", stream=stream, durable=f"{name}-reserve", pull_sub=pull)
    async def reserve(order: Order, call: SagaCall) -> dict[str, int]:
        return await shop.reserve(order, call)

    @broker.subscriber(f"atone.{name}.release", stream=stream, durable=f"{name}-release", pull_sub=pull)
    async def release(order: Order, call: SagaCall) -> None:
        await shop.release(call)

    async with AtoneNats(server.url()) as sending:
        await sending.declare(f"{name}-declared", [f"{name}.reserve", f"{name}.release"])
        async with broker:
            await broker.start()
            yield sending


async def until(condition: Any, seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - it is the server's to say
            await asyncio.sleep(0.02)


async def is_settled(server: NatsServer, durable: str) -> bool:
    """Whether the server waits for nothing of this consumer any more."""
    client = await nats.connect(server.url())
    try:
        info = await client.jetstream().consumer_info("ATONE", durable)
    finally:
        await client.close()
    return not info.num_ack_pending and not info.num_pending


def event(topic: str) -> Message:
    said = {headers.KIND: headers.EVENT, headers.SAGA_ID: "order-Ł", headers.TRACEPARENT: TRACE}
    return Message(f"event on {topic}", topic, "order-Ł", b'{"sku": "apple", "amount": 3}', said)


def command(topic: str, operation: str = headers.ACTION, attempt: int = 1, action_key: str | None = None) -> Message:
    key = f"key of {operation} on {topic}"
    made = Command(
        "default", "PlaceOrder", "order-1", "reserve", operation, attempt, key, "Order", 1, "replies", "atone", 1.0,
        action_key, {headers.TRACEPARENT: TRACE},
    )  # fmt: skip
    return command_message(made, topic, b'{"sku": "apple", "amount": 3}')


def test_an_event_is_handled_once_however_often_it_comes(server: NatsServer, tmp_path: Path) -> None:
    """With saga id, key and trace; the second delivery is settled without a call."""
    shop = Shop(tmp_path)

    async def main() -> None:
        async with serving(server, shop, "once") as sending:
            first = event("once.reserve")
            await sending.publish([first])
            await until(lambda: is_settled(server, "once-reserve"))
            # Past the server's own memory for duplicates: another Nats-Msg-Id, the same id.
            client = await nats.connect(server.url())
            again = {"Nats-Msg-Id": "another", "Atone-Key": "k", "Atone-Id": first.id, **first.headers}
            again[headers.SAGA_ID] = "order-1"
            await client.jetstream().publish("atone.once.reserve", first.body, headers=again)
            await client.close()
            await until(lambda: is_settled(server, "once-reserve"))

    asyncio.run(main())
    ((order, call),) = shop.calls
    assert order == Order("apple", 3)
    assert (call.saga_id, call.idempotency_key, call.message.key) == ("order-Ł", "event on once.reserve", "order-Ł")
    assert call.trace_headers["traceparent"] == TRACE
    assert asyncio.run(shop.rows()) == [("apple", 3)]


def test_a_failure_rolls_back_and_the_message_comes_again(server: NatsServer, tmp_path: Path) -> None:
    """Nothing of the first try stays, and the message is not settled by it."""
    shop = Shop(tmp_path)
    shop.faults = [RuntimeError("the shelf fell down")]

    async def main() -> None:
        async with serving(server, shop, "again") as sending:
            await sending.publish([event("again.reserve")])
            await until(lambda: is_settled(server, "again-reserve"))

    asyncio.run(main())
    assert len(shop.calls) == 2
    assert asyncio.run(shop.rows()) == [("apple", 3)]


def test_what_fails_too_often_is_rejected(server: NatsServer, tmp_path: Path) -> None:
    """After `attempts_max` failures, which are counted in the database and not in this process."""
    shop = Shop(tmp_path)
    shop.faults = [RuntimeError("the shelf fell down")] * 10

    async def main() -> None:
        async with serving(server, shop, "poison") as sending:
            await sending.publish([event("poison.reserve")])
            await until(lambda: is_settled(server, "poison-reserve"))

    asyncio.run(main())
    assert len(shop.calls) == 3
    assert asyncio.run(shop.rows()) == []


def test_the_message_is_settled_after_the_commit(server: NatsServer, tmp_path: Path) -> None:
    """A commit that fails leaves the message with the broker: no acknowledgement went before it."""
    shop = Shop(tmp_path)
    inner = shop.transaction
    failing = [True]

    @asynccontextmanager
    async def transaction() -> AsyncGenerator[Any]:
        async with inner() as connection:
            yield connection
            if failing and shop.calls:
                failing.clear()
                raise OSError("the connection was lost in the commit")

    shop.middleware = SagaMiddleware(transaction, consumer="inventory")

    async def main() -> None:
        async with serving(server, shop, "commit") as sending:
            await sending.publish([event("commit.reserve")])
            await until(lambda: is_settled(server, "commit-reserve"))

    asyncio.run(main())
    assert len(shop.calls) == 2
    assert asyncio.run(shop.rows()) == [("apple", 3)]


def test_a_command_is_answered_through_the_outbox(server: NatsServer, tmp_path: Path) -> None:
    """The answer carries the command's saga, step and attempt; a second attempt has the first one's answer."""
    shop = Shop(tmp_path)

    async def main() -> list[Message]:
        async with serving(server, shop, "command") as sending:
            for attempt in (1, 2):
                await sending.publish([command("command.reserve", attempt=attempt)])
                await until(lambda: is_settled(server, "command-reserve"))
            return [*await shop.replies(), *await shop.replies()]

    sent = asyncio.run(main())
    assert len(shop.calls) == 1
    assert shop.calls[0][1].idempotency_key == "key of action on command.reserve"
    reply = read_reply(sent[0])
    assert (reply.saga_id, reply.step, reply.attempt, reply.succeeded) == ("order-1", "reserve", 1, True)
    assert json.loads(reply.body) == {"left": 7}
    assert sent[0].topic == "replies"
    assert asyncio.run(shop.rows()) == [("apple", 3)]
    assert asyncio.run(shop.rows("SELECT count(*) FROM atone_outbox")) == [(2,)]


def test_a_refusal_is_answered_and_leaves_nothing(server: NatsServer, tmp_path: Path) -> None:
    """What the handler had written is rolled back; the answer is not."""
    shop = Shop(tmp_path)
    shop.faults = [Reject("sold out")]

    async def main() -> list[Message]:
        async with serving(server, shop, "refuse") as sending:
            await sending.publish([command("refuse.reserve")])
            await until(lambda: is_settled(server, "refuse-reserve"))
            return await shop.replies()

    (sent,) = asyncio.run(main())
    reply = read_reply(sent)
    assert not reply.succeeded
    assert reason_of(reply.body) == "sold out"
    assert asyncio.run(shop.rows()) == []


def test_a_compensation_undoes_what_its_action_did(server: NatsServer, tmp_path: Path) -> None:
    """The handler is told the action's key and result; and an action that comes after it is refused."""
    shop = Shop(tmp_path)

    async def main() -> list[Message]:
        async with serving(server, shop, "undo") as sending:
            await sending.publish([command("undo.reserve")])
            await until(lambda: is_settled(server, "undo-reserve"))
            undo = command("undo.release", headers.COMPENSATION, action_key="key of action on undo.reserve")
            await sending.publish([undo])
            await until(lambda: is_settled(server, "undo-release"))
            await sending.publish([command("undo.reserve", attempt=2)])
            await until(lambda: is_settled(server, "undo-reserve"))
            return await _all(shop)

    sent = asyncio.run(main())
    (_, (what, call)) = shop.calls
    assert (what, call.action_key, call.tried) == ("release", "key of action on undo.reserve", {"left": 7})
    assert [read_reply(one).succeeded for one in sent] == [True, True, False]
    assert asyncio.run(shop.rows()) == []


async def _all(shop: Shop) -> list[Message]:
    rows = await shop.rows("SELECT id, topic, key, body, headers FROM atone_outbox ORDER BY ref")
    return [Message(*row[:4], json.loads(row[4])) for row in rows]


# -- other brokers' messages, as FastStream shows them


def shown(raw: Any, body: bytes = b"{}", **said: Any) -> StreamMessage[Any]:
    return StreamMessage(raw, body, **said)


class Record:
    """What these tests need of a Kafka record or an AMQP message."""

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)


def test_messages_of_kafka_and_rabbitmq_are_read() -> None:
    """Their own ids, keys and topics; headers in lower case, without those of the adapters."""
    kafka = Record(topic="stock", partition=2, offset=41, key=b"order-1")
    assert read_message(shown(kafka, headers={"Atone-Id": "m1", "atone-kind": "event"})) == Message(
        "m1", "stock", "order-1", b"{}", {"atone-kind": "event"}
    )
    assert read_message(shown(kafka)).id == "stock-2-41"
    amqp = Record(message_id="m2", routing_key="queue")
    assert read_message(shown(amqp, headers={"x-atone-key": "order-2", "x-atone-topic": "stock"}))[:3] == (
        "m2", "stock", "order-2",
    )  # fmt: skip


def test_an_entry_of_a_redis_stream_is_read() -> None:
    """One of Atone's has its own fields, and the handler is shown its body."""
    fields = {b"id": b"m3", b"key": b"order-3", b"body": b'{"sku": 1}', b"h:atone-kind": b"event"}
    entry = {"type": "stream", "channel": "atone:topic:stock", "data": fields, "message_ids": [b"1-0"]}
    given = shown(entry, b"something else")
    assert read_message(given) == Message("m3", "stock", "order-3", b'{"sku": 1}', {"atone-kind": "event"})
    assert given.body == b'{"sku": 1}'
    foreign = {"type": "stream", "channel": "stock", "data": {b"__data__": b"{}"}, "message_ids": [b"1-1"]}
    assert read_message(shown(foreign)).id == "1-1"


def test_a_message_without_a_lasting_id_is_refused() -> None:
    """An id that is new at every delivery would let everything in twice."""
    with pytest.raises(MessageError, match="Atone-Id"):
        read_message(shown(Record(subject="stock")))


def test_without_faststream_the_import_says_what_to_install() -> None:
    """The extra is named; nothing else of Atone needs it."""
    code = "import sys; sys.modules['faststream'] = None; import atone.integrations.faststream"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert 'pip install "atone[faststream]"' in done.stderr


@pytest.mark.parametrize("fault", [RuntimeError("down"), Reject("none left")], ids=["raises", "refuses"])
def test_a_handler_that_commits_and_then_fails_has_its_message_refused_and_not_forgotten(
    server: NatsServer, tmp_path: Path, fault: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """Half of it stands: it is not called again, nothing is answered, and no repeat passes for a duplicate."""
    shop, name = Shop(tmp_path), f"half{type(fault).__name__}"
    shop.commits = True
    shop.faults.append(fault)

    async def main() -> None:
        async with serving(server, shop, name) as sending:
            await sending.publish([command(f"{name}.reserve")])

            async def is_refused() -> bool:
                return "BarrierMisplaced" in caplog.text and await is_settled(server, f"{name}-reserve")

            await until(is_refused)
        assert len(shop.calls) == 1
        assert await shop.rows("SELECT is_done FROM atone_inbox") == [(2,)]
        assert await shop.replies() == []

    asyncio.run(main())
