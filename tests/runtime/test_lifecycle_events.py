"""What an orchestrator tells the world of its sagas: with each turn or not at all, in order, without a secret in it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import apsw
import pytest
from prometheus_client import CollectorRegistry

from atone import Orchestrator, Reject
from atone._core.events import NAMES
from atone._messaging import headers
from atone._runtime import messaging
from atone.broker import Message
from atone.brokers import open_broker
from atone.brokers.memory import MemoryBroker
from atone.errors import BrokerError, BrokerUnavailable, DefinitionError
from atone.integrations.prometheus import Prometheus
from atone.outcome import Compensated, Completed
from atone.store import Query
from atone.stores.memory import MemoryStore
from tests.runtime.faulty_store import FaultyStore, lost_after
from tests.runtime.world import Order, PlaceOrder, World, crashing, limits, raises, run, sqlite, until

TOPICS = [f"atone.{name}" for name in NAMES]
STRAIGHT = ["saga.started", *["step.succeeded"] * 3, "saga.completed"]
UNDONE = [
    "saga.started",
    "step.succeeded",
    "step.succeeded",
    "step.failed",
    "saga.compensating",
    "step.compensated",
    "step.compensated",
    "saga.compensated",
]
_places = count(1)


@asynccontextmanager
async def listening() -> AsyncIterator[MemoryBroker]:
    """Give a broker object that nobody has entered, on a server where a group hears all events."""
    broker = MemoryBroker(f"memory://events-{next(_places)}")
    async with MemoryBroker(broker._url) as other:
        await other.declare("group", TOPICS)
    yield broker


def opened(store: Any, *sagas: Any, **options: Any) -> Orchestrator:
    settled: dict[str, Any] = {"limits": limits(grace_seconds=2.0), "allow_volatile": True}
    return Orchestrator(store, sagas=list(sagas), **{**settled, **options})


async def heard(broker: MemoryBroker, number: int) -> list[Message]:
    """Return so many messages in the order in which the group gets them."""
    found: list[Message] = []
    async with MemoryBroker(broker._url) as ear, asyncio.timeout(20):
        async for delivery in ear.deliveries("group"):
            found.append(delivery.message)
            await delivery.ack()
            if len(found) == number:
                break
    return found


def names(messages: list[Message], saga_id: str = "1") -> list[str]:
    return [one.headers[headers.NAME] for one in messages if one.headers[headers.SAGA_ID] == saga_id]


def test_a_saga_tells_its_life_in_order(tmp_path: Path) -> None:
    """As the journal has it; each message names the saga and the row, and no two share an id."""
    world = World()

    async def main() -> None:
        async with listening() as broker:
            async with opened(sqlite(tmp_path), PlaceOrder(world), broker=broker, events=True) as orchestrator:
                assert isinstance(await orchestrator.execute(PlaceOrder, Order(), saga_id="1"), Completed)
                world.script("ship", raises(Reject("no carrier")))
                assert isinstance(await orchestrator.execute(PlaceOrder, Order(), saga_id="2"), Compensated)
            messages = await heard(broker, len(STRAIGHT) + len(UNDONE))
            assert names(messages) == STRAIGHT
            assert names(messages, "2") == UNDONE
            assert len({one.id for one in messages}) == len(messages)
            for one in messages:
                told = json.loads(one.body)
                assert one.topic == f"atone.{told['event']}"
                assert one.headers[headers.KIND] == headers.LIFECYCLE
                assert (told["saga"], told["tenant"], told["definition_version"]) == ("PlaceOrder", "default", 1)
                assert one.id.split("-")[1] == str(told["version"])
            assert [json.loads(one.body)["trigger"] for one in messages if "saga.compensating" in one.topic] == [
                "failure"
            ]
            assert len({one.key for one in messages}) == 2

    run(main())


@pytest.mark.parametrize("with_broker", [True, False])
def test_nothing_is_told_unless_it_is_asked_for(with_broker: bool, tmp_path: Path) -> None:
    """No turn carries a message then, broker or not."""
    store = FaultyStore(sqlite(tmp_path))

    async def main() -> None:
        async with listening() as broker:
            options = {"broker": broker} if with_broker else {}
            async with opened(store, PlaceOrder(World()), **options) as orchestrator:
                await orchestrator.execute(PlaceOrder, Order(), saga_id="1")
                assert (await store.outstanding()).waiting == 0
        assert [turn for turn in store.turns if turn.messages] == []

    run(main())


def test_topics_begin_as_they_are_told_to(tmp_path: Path) -> None:
    """With several words, if need be."""

    async def main() -> None:
        broker = MemoryBroker(f"memory://events-{next(_places)}")
        async with MemoryBroker(broker._url) as other:
            await other.declare("group", ["shop.orders.saga.completed"])
        options = {"broker": broker, "events": True, "topic_prefix": "shop.orders"}
        async with opened(sqlite(tmp_path), PlaceOrder(World()), **options) as orchestrator:
            await orchestrator.execute(PlaceOrder, Order(), saga_id="1")
        (only,) = await heard(broker, 1)
        assert only.topic == "shop.orders.saga.completed"

    run(main())


def test_what_was_durable_and_not_published_is_published_by_the_next_one(tmp_path: Path) -> None:
    """The process dies between the commit and the broker: the same ids come, nothing is missing."""
    world = World()

    async def main() -> None:
        async with listening() as broker:
            broker.server.kill()  # so that nothing leaves the store before the crash
            store = FaultyStore(sqlite(tmp_path))
            async with opened(store, PlaceOrder(world), broker=broker, events=True) as orchestrator:
                await orchestrator.execute(PlaceOrder, Order(), saga_id="1")
                store.unplug()
            broker.server.start()
            ids = [message.id for turn in store.turns for message in turn.messages]
            async with opened(sqlite(tmp_path), PlaceOrder(world), broker=MemoryBroker(broker._url)):
                messages = await heard(broker, len(STRAIGHT))
            assert names(messages) == STRAIGHT
            assert [one.id for one in messages] == ids

    run(main())


def test_a_commit_that_was_sent_again_tells_once(tmp_path: Path) -> None:
    """Its answer was lost; its messages were not doubled."""
    store = FaultyStore(sqlite(tmp_path))

    async def main() -> None:
        async with listening() as broker:
            async with opened(store, PlaceOrder(World()), broker=broker, events=True) as orchestrator:
                store.script("commit", lost_after, lost_after)
                await orchestrator.execute(PlaceOrder, Order(), saga_id="1")
            messages = await heard(broker, len(STRAIGHT))
            assert names(messages) == STRAIGHT
            async with sqlite(tmp_path) as left:
                assert (await left.outstanding()).waiting == 0

    run(main())


def test_a_turn_that_meets_a_cancel_tells_only_what_stands(tmp_path: Path) -> None:
    """What was decided on an older version was never written, and so never told."""
    world = World()

    async def main() -> None:
        gate = asyncio.Event()

        async def slow(at: Any) -> Any:
            await gate.wait()
            return at.land()

        async with listening() as broker:
            world.script("charge", slow)
            async with opened(sqlite(tmp_path), PlaceOrder(world), broker=broker, events=True) as orchestrator:
                handle = await orchestrator.start(PlaceOrder, Order(), saga_id="1")
                await world.reached("charge")
                await handle.cancel(reason="SECRET reason")
                gate.set()
                assert isinstance(await handle.outcome(), Compensated)
            async with sqlite(tmp_path) as store:
                (found,) = await store.find(Query(saga_id="1"))
                (loaded,) = await store.load([found.key])
                assert loaded is not None
                versions = {row.version for row in loaded.rows}
            messages = await heard(broker, 7)
            told = names(messages)
            assert (told[0], told[-1]) == ("saga.started", "saga.compensated")
            # Whether the call or the cancel came first is theirs to say; either is told once.
            assert sorted(told[1:-1]) == ["saga.compensating", *["step.compensated"] * 2, *["step.succeeded"] * 2]
            assert {json.loads(one.body)["version"] for one in messages} <= versions

    run(main())


def test_no_message_holds_an_input_a_result_or_a_reason(tmp_path: Path) -> None:
    """Whoever may read the broker need not be allowed to read the journal."""
    world = World()
    secret = "4111-1111"

    async def main() -> None:
        async with listening() as broker:
            world.script("charge", raises(ConnectionError(f"card {secret}")))
            world.script("ship", raises(Reject(f"no carrier for {secret}")))
            async with opened(sqlite(tmp_path), PlaceOrder(world), broker=broker, events=True) as orchestrator:
                await orchestrator.execute(PlaceOrder, Order(id=secret), saga_id="1")
            messages = await heard(broker, len(UNDONE) + 1)
            assert "step.unknown" in names(messages)
            assert secret not in repr(messages)

    run(main())


def test_the_starters_trace_goes_with_each_event(tmp_path: Path) -> None:
    """As headers that any client reads."""
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    async def main() -> None:
        async with listening() as broker:
            async with opened(sqlite(tmp_path), PlaceOrder(World()), broker=broker, events=True) as orchestrator:
                await orchestrator.execute(PlaceOrder, Order(), saga_id="1", trace={"traceparent": parent})
            messages = await heard(broker, len(STRAIGHT))
            assert {one.headers["traceparent"] for one in messages} == {parent}

    run(main())


def test_a_process_that_only_starts_sagas_tells_that_they_started(tmp_path: Path) -> None:
    """It needs no broker of its own; a worker's relay takes its messages along, and order is kept."""

    async def main() -> None:
        async with listening() as broker:
            async with opened(sqlite(tmp_path), PlaceOrder(World()), runs=False, events=True) as starter:
                handle = await starter.start(PlaceOrder, Order(), saga_id="1")
                async with opened(sqlite(tmp_path), PlaceOrder(World()), broker=broker, events=True):
                    await handle.outcome()
            assert names(await heard(broker, len(STRAIGHT))) == STRAIGHT

    run(main())


@pytest.mark.parametrize("commits", [True, False])
def test_a_start_within_a_transaction_tells_when_that_commits(commits: bool, tmp_path: Path) -> None:
    """And nothing if it is rolled back."""

    async def main() -> None:
        async with listening() as broker:
            async with opened(sqlite(tmp_path), PlaceOrder(World()), broker=broker, events=True) as orchestrator:
                connection = apsw.Connection(str(tmp_path / "sagas.db"))
                connection.execute("BEGIN IMMEDIATE")
                handle = await orchestrator.start(PlaceOrder, Order(), saga_id="1", connection=connection)
                connection.execute("COMMIT" if commits else "ROLLBACK")
                connection.close()
                if commits:
                    await handle.outcome()
                else:
                    await orchestrator.execute(PlaceOrder, Order(), saga_id="2")
            expected = STRAIGHT if commits else []
            assert names(await heard(broker, len(STRAIGHT))) == expected

    run(main())


def test_a_broker_that_is_away_at_the_start_stops_no_saga(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is said once; what was to be published waits until the broker is there."""
    caplog.set_level(logging.INFO, "atone.broker")

    async def main() -> None:
        async with listening() as broker:
            broker.server.kill()
            async with opened(sqlite(tmp_path), PlaceOrder(World()), broker=broker, events=True) as orchestrator:
                await orchestrator.execute(PlaceOrder, Order(), saga_id="1")
                broker.server.start()
                assert names(await heard(broker, len(STRAIGHT))) == STRAIGHT

    run(main())
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


class Wrong(MemoryBroker):
    """A broker whose address is wrong, or that hangs while one connects."""

    error: Exception | None = BrokerError("there is no such vhost")
    left = 0

    async def __aenter__(self) -> Any:
        if self.error is not None:
            raise self.error
        await asyncio.Event().wait()

    async def __aexit__(self, *error: object) -> None:
        self.left += 1


def test_a_broker_that_can_never_be_used_is_told_at_once(tmp_path: Path) -> None:
    """Opening fails, and leaves nothing open behind it."""

    async def main() -> None:
        store = sqlite(tmp_path)
        with pytest.raises(BrokerError, match="no such vhost"):
            await opened(store, PlaceOrder(World()), broker=Wrong("memory://wrong")).__aenter__()
        async with store:
            pass

    run(main())


def test_a_broker_that_hangs_while_one_connects_delays_the_start_no_longer_than_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And can be given up at the end."""
    monkeypatch.setattr(messaging, "_OPENING_SECONDS", 0.05)
    broker = Wrong("memory://hanging")
    broker.error = None

    async def main() -> None:
        options = {"broker": broker, "limits": limits()}
        async with opened(sqlite(tmp_path), PlaceOrder(World()), **options) as orchestrator:
            assert isinstance(await orchestrator.execute(PlaceOrder, Order(), saga_id="1"), Completed)

    run(main())


def test_messages_that_wait_for_nobody_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Once, by an orchestrator without a broker on a store where some wait."""

    async def main() -> None:
        async with opened(sqlite(tmp_path), PlaceOrder(World()), runs=False, events=True) as starter:
            await starter.start(PlaceOrder, Order(), saga_id="1")
        async with opened(sqlite(tmp_path), PlaceOrder(World())) as orchestrator:
            await (await orchestrator.get(PlaceOrder, "1")).outcome()
            await until(lambda: "1 messages wait in the outbox" in caplog.text)
        assert caplog.text.count("wait in the outbox") == 1

    run(main())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"events": True}, "needs a broker"),
        ({"broker": MemoryBroker(), "events": True, "topic_prefix": "Shop"}, "begins no topic"),
        ({"broker": MemoryBroker(), "topic_prefix": ""}, "begins no topic"),
        ({"broker": MemoryBroker(), "topic_prefix": "a." * 60 + "b"}, "begins no topic"),
    ],
)
def test_what_can_not_be_sent_is_refused_when_it_is_declared(options: dict[str, Any], said: str) -> None:
    """Not when the first saga ends."""
    with pytest.raises(DefinitionError, match=said):
        opened(MemoryStore(allow_volatile=True), PlaceOrder(World()), **options)


def test_what_the_relay_does_and_what_waits_is_measured(tmp_path: Path) -> None:
    """Counters of messages and failures; gauges of what waits and for how long."""
    registry = CollectorRegistry()
    telemetry = Prometheus(registry=registry, census_seconds=0.05)

    def value(name: str, **labels: str) -> float:
        return registry.get_sample_value(name, labels) or 0.0

    async def main() -> None:
        async with listening() as broker:
            options = {"broker": broker, "events": True, "telemetry": telemetry}
            async with opened(sqlite(tmp_path), PlaceOrder(World()), **options) as orchestrator:
                await orchestrator.execute(PlaceOrder, Order(), saga_id="1")
                await until(lambda: value("atone_outbox_published_total") == len(STRAIGHT))
                await until(lambda: registry.get_sample_value("atone_outbox_waiting") == 0)
                broker.server.kill()
                await orchestrator.execute(PlaceOrder, Order(), saga_id="2")
                await until(lambda: value("atone_outbox_waiting") == len(STRAIGHT))
                await until(lambda: value("atone_outbox_oldest_age_seconds") > 0.0)
                await until(lambda: value("atone_outbox_failures_total", where="broker") > 0)
                broker.server.start()
                await until(lambda: value("atone_outbox_published_total") == 2 * len(STRAIGHT))

    run(main())


def test_a_saga_of_a_worker_that_crashed_goes_on_telling(tmp_path: Path) -> None:
    """The next worker's events follow the first one's, and none of either is missing."""
    world = World()

    async def main() -> None:
        async with listening() as broker:
            gate = asyncio.Event()

            async def hang(at: Any) -> Any:
                at.land()
                await gate.wait()

            world.script("charge", hang)
            async with crashing(tmp_path, PlaceOrder(world)) as (orchestrator, _):
                # This one has no broker and tells nothing; its successor tells of what it does itself.
                await orchestrator.start(PlaceOrder, Order(), saga_id="1")
                await world.reached("charge")
            async with opened(sqlite(tmp_path), PlaceOrder(world), broker=broker, events=True) as successor:
                await (await successor.get(PlaceOrder, "1")).outcome()
            assert names(await heard(broker, 4)) == ["step.unknown", *["step.succeeded"] * 2, "saga.completed"]

    run(main())


def test_a_broker_may_be_named_by_its_url(tmp_path: Path) -> None:
    """The store's own file is one that needs no server."""

    async def main() -> None:
        url = f"sqlite:///{tmp_path}/sagas.db"
        async with open_broker(url) as ear:
            await ear.declare("group", TOPICS)
            async with opened(url, PlaceOrder(World()), broker=url, events=True) as orchestrator:
                await orchestrator.execute(PlaceOrder, Order(), saga_id="1")
            found: list[str] = []
            async with asyncio.timeout(20):
                async for delivery in ear.deliveries("group"):
                    found.append(delivery.message.headers[headers.NAME])
                    await delivery.ack()
                    if len(found) == len(STRAIGHT):
                        break
            assert found == STRAIGHT

    run(main())


def test_an_error_of_the_connection_is_no_reason_to_give_up(tmp_path: Path) -> None:
    """`BrokerUnavailable` is tried again for as long as it takes."""

    async def main() -> None:
        async with listening() as broker:
            tries = count(1)

            class Flaky(MemoryBroker):
                async def __aenter__(self) -> Any:
                    if next(tries) < 4:
                        raise BrokerUnavailable("not yet")
                    return await super().__aenter__()

            flaky = Flaky(broker._url)
            async with opened(sqlite(tmp_path), PlaceOrder(World()), broker=flaky, events=True) as orchestrator:
                await orchestrator.execute(PlaceOrder, Order(), saga_id="1")
                assert names(await heard(broker, len(STRAIGHT))) == STRAIGHT

    run(main())
