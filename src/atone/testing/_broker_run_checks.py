"""A long walk: many messages, members that ack, retry, park and leave by chance, and nothing is lost.

The chance has a seed, so that what was found is found again. Called through `atone.testing.broker_contract`.
"""

from __future__ import annotations

import asyncio
import random

from atone.broker import Broker, Delivery
from atone.errors import BrokerUnavailable
from atone.testing._broker_lab import BrokerCheck, Lab, Member
from atone.testing._subject import holds, same

_MESSAGES = 2000
_MEMBERS = 3
_DEATHS = 12
_SEED = 20250701


@BrokerCheck
async def of_two_thousand_messages_none_is_lost(lab: Lab) -> None:
    """Each is acked or parked in the end, whatever happens to those who are given it."""
    publisher = await lab.broker()
    await publisher.declare(lab.group(), [lab.topic()])
    walk = _Walk(lab)
    sent = [lab.message(b"%d" % number, key=f"order-{number % 200}") for number in range(_MESSAGES)]
    walk.missing = {message.id for message in sent}
    walkers = [asyncio.create_task(walk.live()) for _ in range(_MEMBERS)]
    try:
        for first in range(0, _MESSAGES, 100):
            await lab.published_in_the_end(publisher, *sent[first : first + 100])
        await walk.over()
    finally:
        for walker in walkers:
            walker.cancel()
        ended = await asyncio.gather(*walkers, return_exceptions=True)
    for error in ended:
        if isinstance(error, Exception):
            raise error
    same(len(walk.missing), 0, "messages that came to nobody, or to nobody who ended them")
    parked = {one.message.id for one in await publisher.parked(lab.group(), limit=_MESSAGES)}
    same(walk.parked - parked, set[str](), "parked messages that are not in the dead-letter place")
    holds(parked, "none was parked")


class _Walk:
    """What the members have in common."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._chance = random.Random(_SEED)
        self._deaths = 0
        self._progress = asyncio.Event()
        self.missing: set[str] = set()
        self.parked: set[str] = set()

    async def over(self) -> None:
        """Wait until nothing is missing, for as long as there is progress."""
        while self.missing:
            self._progress.clear()
            try:
                async with asyncio.timeout(self._lab.subject.deadline_seconds):
                    await self._progress.wait()
            except TimeoutError:
                return

    async def live(self) -> None:
        """Be one member after the other."""
        while self.missing:
            async with self._lab.subject.connect() as broker:
                await self._be_a_member(broker)

    async def _be_a_member(self, broker: Broker) -> None:
        member = Member(self._lab, broker, self._lab.group(), in_flight=50)
        try:
            while self.missing:
                delivery = await member.within(self._lab.subject.deadline_seconds)
                if delivery is None:
                    return
                if self._chance.random() < 0.01 and self._deaths < _DEATHS:
                    self._deaths += 1
                    return  # what it holds and what it has taken ahead is given to others
                try:
                    await self._end(delivery)
                except BrokerUnavailable:
                    continue
        finally:
            await member.leave()

    async def _end(self, delivery: Delivery) -> None:
        what = self._chance.random()
        if what < 0.15:
            await delivery.retry(after_seconds=self._chance.choice((0.0, 0.0, 0.02)))
            return
        if what < 0.17:
            await delivery.park("by chance")
            self.parked.add(delivery.message.id)
        else:
            await delivery.ack()
        self.missing.discard(delivery.message.id)
        self._progress.set()


CHECKS = tuple(check for check in list(globals().values()) if isinstance(check, BrokerCheck))
