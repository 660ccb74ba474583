"""The chaotic broker is as bad as it says, and still a broker: what the port promises holds."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from itertools import count
from uuid import uuid4

import pytest

from atone.broker import Broker, Message, Published
from atone.brokers.memory import MemoryBroker
from atone.errors import BrokerUnavailable
from atone.testing.broker_contract import BROKER_CHECKS, BrokerCheck, BrokerSubject
from atone.testing.chaotic_broker import Chaos, ChaoticBroker
from tests.contract.test_brokers import memory_subject, run

DISORDER = Chaos(copies_max=1, window=50, lost=0.0, acks_lost=0.0, unsent=0.0, unheard=0.0)
# These are about order, or count on it.
BOUND_TO_ORDER = {"one_key_is_heard_in_the_order_of_its_publisher", "what_is_parked_is_kept_with_its_reason"}
HARD = Chaos(copies_max=1, window=50, lost=0.1, acks_lost=0.05, unsent=0.05, unheard=0.05)
# Where messages come again after an ack and calls fail at random, a check has to publish and to hear as a relay and an
# inbox do.
FIT_FOR_CHAOS = ("of_two_thousand_messages_none_is_lost",)


def subject(chaos: Chaos) -> BrokerSubject:
    inner = memory_subject()
    seeds = count(1)
    assert inner.hurried is not None
    hurried = inner.hurried
    return replace(
        inner,
        connect=lambda: ChaoticBroker(inner.connect(), next(seeds), chaos),
        hurried=lambda: ChaoticBroker(hurried(), next(seeds), chaos),
    )


@pytest.mark.parametrize("check", [one for one in BROKER_CHECKS if one.name not in BOUND_TO_ORDER], ids=repr)
def test_disorder_alone_breaks_no_promise(check: BrokerCheck) -> None:
    """Any of the fifty that are there may come next, and all sentences but those about order hold."""
    run(check, lambda: subject(DISORDER))


@pytest.mark.parametrize("check", [one for one in BROKER_CHECKS if one.name in FIT_FOR_CHAOS], ids=repr)
def test_in_chaos_nothing_is_lost(check: BrokerCheck) -> None:
    """Of what was confirmed, with losses, lost acknowledgements and failing calls."""
    run(check, lambda: subject(HARD))


class Seen:
    """What came of some messages that were published as a relay does, and heard as an inbox does."""

    def __init__(self) -> None:
        self.deliveries: Counter[str] = Counter()
        self.effects: Counter[str] = Counter()
        self.order: list[int] = []
        self.failures = 0


async def publish_all(broker: Broker, messages: list[Message], seen: Seen) -> None:
    for first in range(0, len(messages), 50):
        while True:
            try:
                assert set(await broker.publish(messages[first : first + 50])) == {Published.DURABLE}
                break
            except BrokerUnavailable:
                seen.failures += 1


async def hear_all(broker: Broker, wanted: int, seen: Seen) -> None:
    async for delivery in broker.deliveries("shipping", in_flight=200):
        number = delivery.message.id
        seen.deliveries[number] += 1
        if number not in seen.effects:
            seen.effects[number] += 1
            seen.order.append(int(delivery.message.body))
        await delivery.ack()
        if len(seen.effects) == wanted:
            return


def walk(total: int, seed: int) -> Seen:
    async def main() -> Seen:
        seen = Seen()
        async with ChaoticBroker(MemoryBroker(f"memory://{uuid4().hex}"), seed) as broker:
            await broker.declare("shipping", ["stock.reserved"])
            messages = [
                Message(f"m{number}", "stock.reserved", f"order-{number % 100}", b"%d" % number)
                for number in range(total)
            ]
            async with asyncio.timeout(120), asyncio.TaskGroup() as tasks:
                tasks.create_task(publish_all(broker, messages, seen))
                tasks.create_task(hear_all(broker, total, seen))
        return seen

    return asyncio.run(main())


def test_all_of_it_happens_and_nothing_is_lost() -> None:
    """Three thousand messages: copies, disorder and failing calls are there, and each has its one effect."""
    seen = walk(3000, seed=7)
    assert len(seen.effects) == 3000
    assert set(seen.effects.values()) == {1}
    assert max(seen.deliveries.values()) >= 3
    assert seen.failures > 0
    assert seen.order != sorted(seen.order)


def test_one_seed_is_one_chaos() -> None:
    """What was found is found again: the same seed fails the same calls."""

    async def failures(seed: int) -> list[bool]:
        found: list[bool] = []
        async with ChaoticBroker(MemoryBroker(f"memory://{uuid4().hex}"), seed) as broker:
            for number in range(200):
                try:
                    await broker.publish([Message(f"m{number}", "nobody", "", b"")])
                    found.append(False)
                except BrokerUnavailable:
                    found.append(True)
        return found

    assert asyncio.run(failures(3)) == asyncio.run(failures(3)) != asyncio.run(failures(4))
