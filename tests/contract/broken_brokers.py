"""Brokers that are broken on purpose: each has one rule of the port taken out.

They are the memory broker with one method changed, or its server. Used by test_broker_contract_bites.py, which shows
that each check of the contract turns one of them down.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Collection, Sequence
from math import inf
from types import TracebackType
from typing import Any
from uuid import uuid4

from atone.broker import Delivery, Message, Parked, Published
from atone.brokers.memory import Group, Item, MemoryBroker, Server
from atone.errors import BrokerError

# -- what goes in, and who hears it


class OneGroupHears(MemoryBroker):
    def _publish(self, message: Message) -> Published:
        for group in self.server.groups.values():
            if message.topic in group.topics:
                number = next(self.server.numbers)
                group.items[number] = Item(number, message)
                self.server.wake()
                return Published.DURABLE
        return Published.NOBODY


class EveryMemberHears(MemoryBroker):
    def _claim(self, hands: Any) -> list[Item]:
        seen: set[int] = hands.__dict__.setdefault("seen", set())
        new = [item for item in self.group_of(hands.group).items.values() if item.number not in seen]
        seen.update(item.number for item in new)
        return new

    def settle(self, hands: Any, item: Item) -> None:
        return


class OnlyTheDeclarerHears(MemoryBroker):
    async def declare(self, group: str, topics: Collection[str]) -> None:
        self.__dict__.setdefault("mine", set()).add(group)
        await super().declare(group, topics)

    def group_of(self, name: str) -> Group:
        return super().group_of(name) if name in self.__dict__.get("mine", ()) else Group()


class HeadersAreTrimmed(MemoryBroker):
    def _publish(self, message: Message) -> Published:
        return super()._publish(
            message._replace(headers={name: text.strip() for name, text in message.headers.items()})
        )


class TheLimitIsTooLarge(MemoryBroker):
    def _publish(self, message: Message) -> Published:
        large = len(message.body) >= self.message_bytes_max
        return Published.REFUSED if large else super()._publish(message)


class OneTooLargeSpoilsAll(MemoryBroker):
    async def publish(self, messages: Sequence[Message]) -> Sequence[Published]:
        if any(len(message.body) > self.message_bytes_max for message in messages):
            return [Published.REFUSED] * len(messages)
        return await super().publish(messages)


class NobodyIsSomebody(MemoryBroker):
    def _publish(self, message: Message) -> Published:
        super()._publish(message)
        return Published.DURABLE


class TopicsMatchByTheirBeginning(MemoryBroker):
    def _publish(self, message: Message) -> Published:
        for topic in {topic for group in self.server.groups.values() for topic in group.topics}:
            if message.topic.startswith(topic):
                self.server.put(message._replace(topic=topic))
        return Published.DURABLE


class DeclaringReplaces(MemoryBroker):
    async def declare(self, group: str, topics: Collection[str]) -> None:
        self.server.groups.setdefault(group, Group()).topics.clear()
        await super().declare(group, topics)


class OnlyTheFirstDeclarationCounts(MemoryBroker):
    async def declare(self, group: str, topics: Collection[str]) -> None:
        if group not in self.server.groups:
            await super().declare(group, topics)


class StrangersWait(MemoryBroker):
    async def deliveries(self, group: str, *, in_flight: int = 100) -> AsyncIterator[Delivery]:
        self.server.groups.setdefault(group, Group())
        async for delivery in super().deliveries(group, in_flight=in_flight):
            yield delivery


class OnlyWhoIsThereHears(MemoryBroker):
    def _publish(self, message: Message) -> Published:
        return super()._publish(message) if self.server.__dict__["_waiting"] else Published.DURABLE


class NewestFirst(MemoryBroker):
    def _claim(self, hands: Any) -> list[Item]:
        return super()._claim(hands)[::-1]


class EverythingComesThrice(MemoryBroker):
    def _publish(self, message: Message) -> Published:
        super()._publish(message)
        super()._publish(message)
        return super()._publish(message)


class CallsShareOneSlot(MemoryBroker):
    async def publish(self, messages: Sequence[Message]) -> Sequence[Published]:
        self.__dict__["slot"] = messages
        await asyncio.sleep(0)
        return await super().publish(self.__dict__["slot"])


class NothingIsTooLittle(MemoryBroker):
    async def publish(self, messages: Sequence[Message]) -> Sequence[Published]:
        if not messages:
            raise BrokerError("nothing to publish")
        return await super().publish(messages)


class ForeignIdsChange(MemoryBroker):
    def _claim(self, hands: Any) -> list[Item]:
        taken = super()._claim(hands)
        for item in taken:
            if item.attempts > 1 and item.message.id.startswith("foreign"):
                item.message = item.message._replace(id=uuid4().hex)
        return taken


class NeverClosed(MemoryBroker):
    def reach(self) -> None:
        return


class CanNotBeLeft(MemoryBroker):
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return


# -- how a delivery ends


class AckDoesNothing(MemoryBroker):
    def settle(self, hands: Any, item: Item) -> None:
        item.due = min(item.due, self._clock() + 0.1)


class GivenIsSettled(MemoryBroker):
    def _claim(self, hands: Any) -> list[Item]:
        taken = super()._claim(hands)
        for item in taken:
            self.settle(hands, item)
        return taken


class AttemptsAreForgotten(MemoryBroker):
    def put_back(self, hands: Any, item: Item, after_seconds: float) -> None:
        super().put_back(hands, item, after_seconds)
        item.attempts = 0


class PatienceWithoutEnd(MemoryBroker):
    def _claim(self, hands: Any) -> list[Item]:
        taken = super()._claim(hands)
        for item in taken:
            item.due = inf
        return taken


class RetriesComeAtOnce(MemoryBroker):
    def put_back(self, hands: Any, item: Item, after_seconds: float) -> None:
        super().put_back(hands, item, 0)


class RetriesGoWithTheirMember(MemoryBroker):
    def put_back(self, hands: Any, item: Item, after_seconds: float) -> None:
        super().put_back(hands, item, after_seconds)
        self.__dict__.setdefault("waiting", []).append((hands.group, item.number))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for group, number in self.__dict__.get("waiting", ()):
            self.group_of(group).items.pop(number, None)
        await super().__aexit__(kind, error, trace)


class ReasonsAreCut(MemoryBroker):
    def set_aside(self, hands: Any, item: Item, reason: str) -> None:
        super().set_aside(hands, item, reason.splitlines()[0])


class ParkedForAll(MemoryBroker):
    def set_aside(self, hands: Any, item: Item, reason: str) -> None:
        super().set_aside(hands, item, reason)
        for group in self.server.groups.values():
            for other in [one for one in group.items.values() if one.message.id == item.message.id]:
                del group.items[other.number]


class NewestParkedFirst(MemoryBroker):
    async def parked(self, group: str, *, limit: int = 100) -> Sequence[Parked]:
        return (await super().parked(group, limit=1000))[::-1][:limit]


class UnparkingForgets(MemoryBroker):
    async def unpark(self, group: str, message_id: str) -> bool:
        found = await super().unpark(group, message_id)
        items = self.group_of(group).items
        for item in [one for one in items.values() if one.message.id == message_id]:
            del items[item.number]
        return found


class AnyNumberInFlight(MemoryBroker):
    def _claim(self, hands: Any) -> list[Item]:
        hands.in_flight = 10**6
        return super()._claim(hands)


class WhatIsAheadIsKept(MemoryBroker):
    def _take_back(self, item: Item, hands: Any) -> None:
        return


class LeaversTakeItWithThem(MemoryBroker):
    async def deliveries(self, group: str, *, in_flight: int = 100) -> AsyncIterator[Delivery]:
        try:
            async for delivery in super().deliveries(group, in_flight=in_flight):
                yield delivery
        finally:
            await asyncio.sleep(0)
            for item in self.group_of(group).items.values():
                item.due = inf


# -- a server that is taken away


class PublishesToNobodyThere(MemoryBroker):
    def reach(self) -> None:
        if self._is_open and not self.server.is_up:
            return
        super().reach()


class EndsWhenTheServerIsGone(MemoryBroker):
    async def deliveries(self, group: str, *, in_flight: int = 100) -> AsyncIterator[Delivery]:
        inner = super().deliveries(group, in_flight=in_flight)
        waiting = asyncio.ensure_future(anext(inner))
        while self.server.is_up:
            done, _ = await asyncio.wait({waiting}, timeout=0.01)
            if done:
                yield waiting.result()
                waiting = asyncio.ensure_future(anext(inner))
        waiting.cancel()


class ForgetsWhenKilled(Server):
    def kill(self) -> None:
        for group in self.groups.values():
            group.items.clear()
            group.parked.clear()
        super().kill()


class SettlesWhenKilled(Server):
    def kill(self) -> None:
        for group in self.groups.values():
            group.items = {number: item for number, item in group.items.items() if item.holder is None}
        super().kill()


# -- many at once


class LosesOneOfMany(MemoryBroker):
    chance = random.Random(1)

    def _publish(self, message: Message) -> Published:
        return Published.DURABLE if self.chance.random() < 0.002 else super()._publish(message)


# The name of a check -> what it turns down.
BROKEN: dict[str, type[MemoryBroker | Server]] = {
    "each_group_hears_each_message": OneGroupHears,
    "members_share_what_a_group_hears": EveryMemberHears,
    "another_object_hears_what_the_group_declared": OnlyTheDeclarerHears,
    "a_message_comes_back_byte_for_byte": HeadersAreTrimmed,
    "a_body_of_just_the_limit_passes": TheLimitIsTooLarge,
    "one_that_is_too_large_is_refused_and_no_other": OneTooLargeSpoilsAll,
    "what_nobody_has_declared_is_kept_or_said_to_be_gone": NobodyIsSomebody,
    "a_group_hears_only_what_it_has_declared": TopicsMatchByTheirBeginning,
    "declaring_adds_and_repeating_is_harmless": DeclaringReplaces,
    "a_topic_declared_later_reaches_a_member_that_is_there": OnlyTheFirstDeclarationCounts,
    "a_group_that_declared_nothing_hears_an_error": StrangersWait,
    "what_is_published_while_no_member_is_there_waits": OnlyWhoIsThereHears,
    "one_key_is_heard_in_the_order_of_its_publisher": NewestFirst,
    "a_message_published_twice_is_heard": EverythingComesThrice,
    "many_may_publish_at_once": CallsShareOneSlot,
    "nothing_to_publish_is_no_error": NothingIsTooLittle,
    "a_foreign_message_has_an_id_of_its_own": ForeignIdsChange,
    "a_broker_that_is_not_open_says_so": NeverClosed,
    "a_member_ends_when_its_broker_is_left": CanNotBeLeft,
    "what_is_acked_never_comes_again": AckDoesNothing,
    "what_is_acked_never_comes_again_however_long_one_waits": AckDoesNothing,
    "being_given_is_not_being_settled": GivenIsSettled,
    "an_attempt_is_counted": AttemptsAreForgotten,
    "what_a_hung_member_holds_comes_to_another": PatienceWithoutEnd,
    "a_retry_comes_again_not_before_its_time": RetriesComeAtOnce,
    "a_retry_comes_though_its_member_leaves": RetriesGoWithTheirMember,
    "what_is_parked_is_kept_with_its_reason": ReasonsAreCut,
    "parking_is_for_one_group": ParkedForAll,
    "parked_ones_are_listed_oldest_first": NewestParkedFirst,
    "what_is_unparked_is_given_again": UnparkingForgets,
    "no_more_are_given_than_may_be_in_flight": AnyNumberInFlight,
    "what_was_taken_ahead_is_given_back": WhatIsAheadIsKept,
    "who_stops_waiting_loses_nothing": LeaversTakeItWithThem,
    "what_was_confirmed_survives_the_server": ForgetsWhenKilled,
    "publishing_to_a_server_that_is_gone_is_unavailable": PublishesToNobodyThere,
    "a_member_hears_on_when_the_server_is_back": EndsWhenTheServerIsGone,
    "what_was_not_ended_comes_again_from_a_server_that_was_killed": SettlesWhenKilled,
    "what_is_parked_survives_the_server": ForgetsWhenKilled,
    "of_two_thousand_messages_none_is_lost": LosesOneOfMany,
}
