"""The relay: at least once, in order for each key, whatever fails; and it says so once."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, TypeAlias
from uuid import uuid4

import pytest

from atone._messaging import headers, relay
from atone._messaging.posting import Posting
from atone._messaging.relay import Relay
from atone.broker import Message, Published, Relayed
from atone.brokers.memory import MemoryBroker
from atone.errors import BrokerClosed, BrokerError, BrokerUnavailable, StoreClosed, StoreUnavailable
from atone.stores.memory import MemoryStore
from atone.testing._subject import birth_of

DURABLE, NOBODY, REFUSED = Published.DURABLE, Published.NOBODY, Published.REFUSED
Answer: TypeAlias = Callable[[Message], Published]

_numbers = count(1)


def message(key: str = "one", topic: str = "order.placed", kind: str = headers.EVENT) -> Message:
    return Message(f"m-{next(_numbers)}", topic, key, b"{}", {headers.KIND: kind})


class Scripted:
    """A broker that does as told: each publish meets the next fault, then every message its answer."""

    message_bytes_max = 1000

    def __init__(self) -> None:
        self.published: list[Message] = []
        self.batches: list[list[str]] = []
        self.tries = 0
        self.faults: deque[BaseException | Callable[[], Awaitable[None]]] = deque()
        self.answer: Answer = lambda message: DURABLE

    async def publish(self, messages: Sequence[Message]) -> Sequence[Published]:
        self.tries += 1
        fault = self.faults.popleft() if self.faults else None
        if isinstance(fault, BaseException):
            raise fault
        if fault is not None:
            await fault()
        answers = [self.answer(one) for one in messages]
        self.published += [one for one, answer in zip(messages, answers, strict=True) if answer is DURABLE]
        self.batches.append([one.id for one in messages])
        return answers

    @property
    def ids(self) -> list[str]:
        return [one.id for one in self.published]


class Watched(MemoryStore):
    """A memory store whose outbox remembers its calls, and fails as told before or after one."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(allow_volatile=True, clock=clock)
        self.calls: list[dict[str, Any]] = []
        self.faults: deque[Exception] = deque()
        self.lost_answers: deque[Exception] = deque()

    async def relay(
        self, relay: str, *, published: Collection[int], refused: Mapping[int, str], limit: int, lease_seconds: float
    ) -> Relayed:
        self.calls.append({"relay": relay, "published": published, "limit": limit, "lease_seconds": lease_seconds})
        if self.faults:
            raise self.faults.popleft()
        found = await super().relay(
            relay, published=published, refused=refused, limit=limit, lease_seconds=lease_seconds
        )
        if self.lost_answers:
            raise self.lost_answers.popleft()
        return found

    async def post(self, *messages: Message) -> None:
        await self.commit(None, [birth_of(uuid4().bytes, owned=False)._replace(messages=messages)])


class Heard:
    """Counts what a relay tells."""

    def __init__(self) -> None:
        self.told = [0, 0, 0]
        self.failed: list[str] = []

    def relayed(self, published: int, refused: int, unheard: int) -> None:
        self.told = [have + more for have, more in zip(self.told, (published, refused, unheard), strict=True)]

    def relay_failed(self, where: str) -> None:
        self.failed.append(where)


class Scene:
    """A store, a broker and a relay that runs between them."""

    def __init__(self) -> None:
        self.now = 1_750_000_000.0
        self.store = Watched(lambda: self.now)
        self.broker = Scripted()
        self.heard = Heard()

    def relay(self, **options: Any) -> Relay:
        options = {"observer": self.heard, "poll_seconds": 0.01, "poll_seconds_max": 0.02, **options}
        return Relay(self.store, self.broker, **options)

    async def empty(self) -> None:
        await until_async(self._is_empty)

    async def _is_empty(self) -> bool:
        return (await self.store.outstanding()).waiting == 0


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what it waits for has no event
            await asyncio.sleep(0.002)


async def until_async(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.002)


@asynccontextmanager
async def scene(**options: Any) -> AsyncIterator[Scene]:
    made = Scene()
    async with made.store:
        running = made.relay(**options)
        running.start()
        try:
            yield made
        finally:
            await running.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "_FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(relay, "_LONGEST_PAUSE_SECONDS", 0.01)


def test_what_waits_is_published_in_order_and_forgotten() -> None:
    """Batch by batch, named to the outbox with the next call."""

    async def main() -> None:
        sent = [message("ab"[number % 2]) for number in range(25)]
        async with scene(batch=10) as at:
            await at.store.post(*sent)
            await at.empty()
            assert at.broker.ids == [one.id for one in sent]
            assert max(map(len, at.broker.batches)) <= 10
            assert at.heard.told == [25, 0, 0]

    asyncio.run(main())


def test_a_nudge_is_heard_long_before_the_poll() -> None:
    """Nobody waits for a timer that another could end."""

    async def main() -> None:
        at = Scene()
        async with at.store:
            running = at.relay(poll_seconds=3600.0, poll_seconds_max=3600.0)
            running.start()
            await until(lambda: len(at.store.calls) == 1)
            await at.store.post(message())
            running.nudge()
            await at.empty()
            await running.close()

    asyncio.run(main())


def test_an_idle_relay_asks_ever_less_often() -> None:
    """Up to a bound, which a nudge takes back to the beginning."""
    waits: list[float] = []

    async def main() -> None:
        at = Scene()
        async with at.store:
            running = at.relay(poll_seconds=0.01, poll_seconds_max=0.05)

            async def rest(seconds: float) -> bool:
                waits.append(seconds)
                await asyncio.sleep(0)
                return len(waits) == 5

            running._rest = rest
            running.start()
            await until(lambda: len(waits) > 8)
            await running.close()
        assert waits[:7] == [0.01, 0.02, 0.04, 0.05, 0.05, 0.01, 0.02]

    asyncio.run(main())


def test_while_the_broker_is_away_the_same_batch_is_published_again(caplog: pytest.LogCaptureFixture) -> None:
    """Its outcome is unknown each time; said once when it begins and once when it ends."""
    caplog.set_level(logging.INFO, "atone.relay")

    async def main() -> None:
        async with scene() as at:
            at.broker.faults.extend(BrokerUnavailable("nobody at host:4222") for _ in range(5))
            first, second = message("a"), message("b")
            await at.store.post(first, second)
            await at.empty()
            assert at.broker.batches == [[first.id, second.id]]
            assert at.heard.failed == ["broker"] * 5

    asyncio.run(main())
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "host:4222" in caplog.records[0].getMessage()


def test_an_answer_of_the_outbox_that_was_lost_is_asked_for_again_under_the_same_name() -> None:
    """So nothing waits for a claim to run out that nobody knows of."""

    async def main() -> None:
        at = Scene()
        await at.store.__aenter__()
        await at.store.post(message(), message())
        at.store.lost_answers.extend(StoreUnavailable("cut off") for _ in range(3))
        running = at.relay()
        running.start()
        await at.empty()
        await running.close()
        names = [call["relay"] for call in at.store.calls]
        assert names[:4] == [names[0]] * 4
        assert names[4] != names[0]
        assert len(at.broker.ids) == 2

    asyncio.run(main())


def test_what_was_published_is_named_until_the_outbox_has_heard_it() -> None:
    """A store that is away meanwhile makes no second delivery."""

    async def main() -> None:
        async with scene() as at:
            await at.store.post(message())
            await until(lambda: len(at.broker.ids) == 1)
            at.store.faults.extend(StoreUnavailable("away") for _ in range(4))
            await at.store.post(message())
            await at.empty()
            assert len({*at.broker.ids}) == len(at.broker.ids) == 2

    asyncio.run(main())


def test_an_event_that_nobody_hears_waits_and_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    """When its claim is over; other keys go on meanwhile, and its own key does not."""

    async def main() -> None:
        async with scene(lease_seconds=5.0) as at:
            at.broker.answer = lambda one: NOBODY if one.topic == "unheard" else DURABLE
            first, other = message("a", "unheard", headers.COMMAND), message("b")
            await at.store.post(first)
            await until(lambda: at.heard.told[2] == 1)
            later = message("a")
            await at.store.post(later, other)
            await until(lambda: at.broker.ids == [other.id])
            at.broker.answer = lambda one: DURABLE
            await asyncio.sleep(0.05)  # nothing can be waited for that must not happen
            assert at.broker.ids == [other.id]
            at.now += 5
            await at.empty()
            assert at.broker.ids == [other.id, first.id, later.id]

    asyncio.run(main())
    assert len([record for record in caplog.records if "unheard" in record.getMessage()]) == 1


@pytest.mark.parametrize("chokes", [False, True], ids=["together", "each alone"])
def test_what_was_claimed_behind_an_event_that_nobody_hears_waits_with_it(chokes: bool) -> None:
    """Whoever declares the topic later would hear them turned round; this also if the adapter fails on the claim."""

    async def main() -> None:
        async with scene(lease_seconds=5.0) as at:
            is_declared, poison = chokes, message("c", "poison")

            def answer(one: Message) -> Published:
                if one.id == poison.id and chokes:
                    raise ValueError
                return NOBODY if one.topic == "unheard" and not is_declared else DURABLE

            at.broker.answer = answer
            if chokes:  # alone they are careful also with a topic that was heard
                await at.store.post(message("d", "unheard"), message("d"), message("d", "another"))
                await at.empty()
                is_declared = False
            first, behind, last = message("a", "unheard"), message("a"), message("a", "another")
            other = message("b")
            await at.store.post(first, behind, last, other, poison)
            await until(lambda: other.id in at.broker.ids and len(at.store.calls) > 2)
            assert not {first.id, behind.id, last.id} & {*at.broker.ids}
            is_declared = True
            at.now += 5
            await at.empty()
            assert [one.id for one in at.broker.published if one.key == "a"] == [first.id, behind.id, last.id]
            assert len({*at.broker.ids}) == len(at.broker.ids)

    asyncio.run(main())


def test_what_is_heard_goes_in_one_call_for_each_claim() -> None:
    """Only the first of a topic is waited for by what comes behind it, and a lifecycle event by nothing."""

    async def main() -> None:
        async with scene() as at:
            await at.store.post(message(), message(topic="order.paid"))
            await at.empty()
            assert [len(batch) for batch in at.broker.batches] == [1, 1]
            at.broker.answer = lambda one: NOBODY if one.topic == "told" else DURABLE
            told = [message(topic="told", kind=headers.LIFECYCLE) for _ in range(5)]
            sent = [message("ab"[number % 2], ("order.placed", "order.paid")[number % 3 > 0]) for number in range(20)]
            await at.store.post(*told, *sent, *told)
            await at.empty()
            assert [len(batch) for batch in at.broker.batches] == [1, 1, 30]

    asyncio.run(main())


def test_a_topic_that_is_not_heard_any_more_holds_up_its_key_again() -> None:
    """What was learned of a topic is unlearned."""

    async def main() -> None:
        async with scene() as at:
            await at.store.post(message())
            await at.empty()
            at.broker.answer = lambda one: NOBODY if one.topic == "order.placed" else DURABLE
            await at.store.post(message())
            await until(lambda: at.heard.told[2] == 1)
            await at.store.post(message("b"), message("b", "order.paid"))
            await until(lambda: at.heard.told[2] == 2)
            assert len(at.broker.ids) == 1
            assert [len(batch) for batch in at.broker.batches] == [1, 1, 1]

    asyncio.run(main())


def test_a_lifecycle_event_that_nobody_hears_is_gone() -> None:
    """It is for whoever happens to listen."""

    async def main() -> None:
        async with scene() as at:
            at.broker.answer = lambda one: NOBODY
            await at.store.post(message(kind=headers.LIFECYCLE))
            await at.empty()
            assert at.heard.told == [1, 0, 0]

    asyncio.run(main())


def test_a_message_that_is_too_large_is_set_aside_and_its_key_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """With the sizes, and said once."""

    async def main() -> None:
        async with scene() as at:
            large, small = message(), message()
            at.broker.answer = lambda one: REFUSED if one.id == large.id else DURABLE
            await at.store.post(large, small)
            await at.empty()
            (aside,) = await at.store.set_aside()
            assert aside.message == large
            assert "2 bytes, and it takes 1000" in aside.why
            assert at.broker.ids == [small.id]

    asyncio.run(main())
    assert "set aside" in caplog.text


def test_a_message_that_chokes_the_adapter_is_set_aside_and_holds_up_nobody() -> None:
    """Found by publishing each of the batch alone, in order."""

    async def main() -> None:
        async with scene() as at:
            poison = message()

            def answer(one: Message) -> Published:
                if one.id == poison.id:
                    raise ValueError("secret: this text may quote a body")
                return DURABLE

            at.broker.answer = answer
            fine = [message(), message()]
            await at.store.post(fine[0], poison, fine[1])
            await at.empty()
            assert at.broker.ids == [one.id for one in fine]
            (aside,) = await at.store.set_aside()
            assert aside.message.id == poison.id
            assert "ValueError" in aside.why
            assert "secret" not in aside.why

    asyncio.run(main())


def test_what_is_published_is_reached_behind_more_that_nobody_hears_than_a_claim_lasts_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each publish takes a second, so with claims of five seconds the oldest five would come again and again."""

    async def main() -> None:
        async with scene(lease_seconds=5.0, batch=1) as at:
            monkeypatch.setattr(relay, "monotonic", lambda: at.now)

            def answer(one: Message) -> Published:
                at.now += 1
                return NOBODY if one.topic == "unheard" else DURABLE

            at.broker.answer = answer
            heard = message("heard")
            await at.store.post(*[message(f"key {number}", "unheard") for number in range(30)], heard)
            await until(lambda: at.broker.ids == [heard.id])

    asyncio.run(main())


def test_a_topic_that_the_broker_can_not_take_for_now_holds_up_its_keys_only(caplog: pytest.LogCaptureFixture) -> None:
    """It waits, since somebody may mend it; what comes behind it with its key waits too."""

    async def main() -> None:
        async with scene(lease_seconds=5.0) as at:
            is_mended = False

            def answer(one: Message) -> Published:
                if one.topic == "forbidden" and not is_mended:
                    raise BrokerError("The topic is not made. Make it yourself.")
                return DURABLE

            at.broker.answer = answer
            first, behind, other = message("a", "forbidden"), message("a"), message("b")
            await at.store.post(first, behind, other)
            await until(lambda: at.broker.ids == [other.id] and len(at.store.calls) > 2)
            assert at.broker.ids == [other.id]
            is_mended = True
            at.now += 5
            await at.empty()
            assert at.broker.ids == [other.id, first.id, behind.id]
            assert await at.store.set_aside() == []

    asyncio.run(main())
    assert len([record for record in caplog.records if "forbidden" in record.getMessage()]) == 1


def test_a_cancellation_that_is_the_adapters_own_does_not_end_the_relay() -> None:
    """Clients cancel what waits for a connection that they have lost."""

    async def main() -> None:
        async with scene() as at:
            at.broker.faults.append(asyncio.CancelledError())
            await at.store.post(message())
            await at.empty()
            assert at.heard.failed == ["broker"]

    asyncio.run(main())


def test_a_batch_that_could_not_be_published_in_time_is_left_to_whoever_claims_it() -> None:
    """Its claim is over, so this relay names nothing of it; it is claimed anew."""

    async def main() -> None:
        async with scene(lease_seconds=0.02, batch=1) as at:
            at.broker.faults.extend(BrokerUnavailable("away") for _ in range(10_000))
            await at.store.post(message())
            await until(lambda: at.broker.tries > 0)
            calls = len(at.store.calls)
            await until(lambda: len(at.store.calls) > calls)  # so it has given the batch up
            assert at.broker.ids == []
            at.broker.faults.clear()
            at.now += 1
            await at.empty()
            assert len(at.broker.ids) == 1
            assert {call["lease_seconds"] for call in at.store.calls} == {
                0.02
            }  # an outage is no reason for longer ones

    asyncio.run(main())


def test_a_relay_that_closes_publishes_what_waits_and_says_so() -> None:
    """Nothing is left claimed by nobody."""

    async def main() -> None:
        at = Scene()
        async with at.store:
            running = at.relay(poll_seconds=3600.0, poll_seconds_max=3600.0, batch=2)
            running.start()
            await until(lambda: len(at.store.calls) == 1)
            await at.store.post(*(message() for _ in range(5)))
            await running.close()
            assert len(at.broker.ids) == 5
            assert (await at.store.outstanding()).waiting == 0

    asyncio.run(main())


def test_a_relay_closes_though_the_broker_is_away() -> None:
    """At once: what waits is safe where it is."""

    async def main() -> None:
        at = Scene()
        at.broker.faults.extend(BrokerUnavailable("away") for _ in range(10_000))
        async with at.store:
            running = at.relay()
            running.start()
            await at.store.post(message())
            await until(lambda: at.broker.tries > 2)
            await running.close(grace_seconds=30)
            assert (await at.store.outstanding()).waiting == 1

    asyncio.run(main())


def test_a_relay_does_not_wait_for_a_broker_that_never_answers() -> None:
    """Longer than it is given."""

    async def main() -> None:
        at, forever = Scene(), asyncio.Event()

        async def hang() -> None:
            await forever.wait()

        at.broker.faults.append(hang)
        async with at.store:
            running = at.relay()
            running.start()
            await at.store.post(message())
            await until(lambda: at.broker.tries == 1)
            await running.close(grace_seconds=0.05)
            assert (await at.store.outstanding()).waiting == 1

    asyncio.run(main())


@pytest.mark.parametrize("closed", ["store", "broker"])
def test_a_relay_ends_when_what_it_stands_on_is_closed(closed: str, caplog: pytest.LogCaptureFixture) -> None:
    """Trying again would change nothing; it says so."""

    async def main() -> None:
        async with scene() as at:
            if closed == "store":
                at.store.faults.append(StoreClosed("closed"))
            else:
                at.broker.faults.append(BrokerClosed("closed"))
                await at.store.post(message())
            await until(lambda: "the relay ends" in caplog.text)

    asyncio.run(main())


def test_an_unexpected_error_of_the_store_does_not_end_the_relay(caplog: pytest.LogCaptureFixture) -> None:
    """What waits must not wait for a restart; the error is told by its type alone."""

    async def main() -> None:
        async with scene() as at:
            at.store.faults.append(RuntimeError("secret"))
            await at.store.post(message())
            await at.empty()

    asyncio.run(main())
    assert "RuntimeError" in caplog.text
    assert "secret" not in caplog.text


def test_an_observer_that_raises_holds_up_no_message(caplog: pytest.LogCaptureFixture) -> None:
    """It is told once, by its type; each message is published once, for what was published is remembered."""

    class Raises(Heard):
        def relayed(self, published: int, refused: int, unheard: int) -> None:
            raise KeyError("secret")

        def relay_failed(self, where: str) -> None:
            raise KeyError("secret")

    async def main() -> None:
        async with scene(observer=Raises()) as at:
            at.broker.faults.append(BrokerUnavailable("away"))
            sent = [message(), message()]
            for one in sent:
                await at.store.post(one)
                await at.empty()
            assert at.broker.ids == [one.id for one in sent]

    asyncio.run(main())
    assert caplog.text.count("the relay's observer fails; mend it: KeyError") == 1
    assert "secret" not in caplog.text


def test_a_mistake_of_its_own_does_not_end_the_relay_in_silence(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told as an error and counted; what was in its hands is published again, and then it is told to be well."""
    report = Posting.report
    faults = [KeyError("secret")]

    def wrong(self: Posting, outgoing: Any, outcomes: Any) -> Any:
        if faults:
            raise faults.pop()
        return report(self, outgoing, outcomes)

    monkeypatch.setattr(Posting, "report", wrong)

    async def main() -> None:
        async with scene(lease_seconds=0.1) as at:
            one = message()
            await at.store.post(one)
            await until(lambda: "own work" in at.heard.failed)
            at.now += 1
            await at.empty()
            assert at.broker.ids == [one.id] * 2
            await until(lambda: "works again" in caplog.text)

    with caplog.at_level(logging.INFO, "atone.relay"):
        asyncio.run(main())
    (error,) = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert error.getMessage() == "the relay's own work fails; messages wait, and it is tried again: KeyError"


def test_two_relays_share_an_outbox_and_a_broker() -> None:
    """Each message goes once while both are well, and each key in order."""

    async def main() -> None:
        async with scene(batch=3) as at:
            second = at.relay(batch=4)
            second.start()
            sent = [message(str(number % 5)) for number in range(100)]
            for one in sent:
                await at.store.post(one)
            await at.empty()
            await second.close()
            for key in "01234":
                assert [one.id for one in at.broker.published if one.key == key] == [
                    one.id for one in sent if one.key == key
                ]
            assert len(at.broker.published) == 100

    asyncio.run(main())


def test_through_a_broker_of_ours_that_goes_away_and_comes_back() -> None:
    """With the broker in memory: everything is delivered, in order, once it is there again."""

    async def main() -> None:
        store = MemoryStore(allow_volatile=True)
        async with store, MemoryBroker("memory://relayed") as broker:
            await broker.declare("group", ["order.placed"])
            heard_of = Heard()
            running = Relay(store, broker, poll_seconds=0.01, observer=heard_of)
            running.start()
            broker.server.kill()
            sent = [message() for _ in range(10)]
            for one in sent:
                await store.commit(None, [birth_of(uuid4().bytes, owned=False)._replace(messages=(one,))])
            await until(lambda: "broker" in heard_of.failed)
            broker.server.start()
            heard: list[str] = []
            async with asyncio.timeout(20):
                async for delivery in broker.deliveries("group"):
                    heard.append(delivery.message.id)
                    await delivery.ack()
                    if len(heard) == len(sent):
                        break
            assert heard == [one.id for one in sent]
            await running.close()
            assert (await store.outstanding()).waiting == 0

    asyncio.run(main())
