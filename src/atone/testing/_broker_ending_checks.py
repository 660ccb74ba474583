"""Checks of how a delivery ends: by ack, retry or park, or by nobody, when a member hangs, leaves or dies.

It must not take the server away. Called through `atone.testing.broker_contract`.
"""

from __future__ import annotations

import asyncio
import time

from atone.broker import Message, Parked
from atone.testing._broker_lab import BrokerCheck, Lab, ids
from atone.testing._subject import ContractBroken, holds, same

# Long enough that what is broken shows; what is sound passes however short it is.
_LINGER_SECONDS = 0.3


@BrokerCheck
async def what_is_acked_never_comes_again(lab: Lab) -> None:
    """Not to the same member, nor to one that comes when all others are gone."""
    async with lab.subject.connect() as broker:
        member = await lab.member(broker)
        sent = lab.messages(5)
        await lab.published(broker, *sent)
        await member.hear_all(sent)
        await member.stays_quiet(_LINGER_SECONDS, "what was acked")
        await member.leave()
    other = await lab.broker()
    last = lab.message()
    await lab.published(other, last)
    later = lab.joined(other)
    same(ids(await later.hear_all([last])), [last.id], "what was heard later")
    await later.stays_quiet(_LINGER_SECONDS, "what was acked")


@BrokerCheck
async def what_is_acked_never_comes_again_however_long_one_waits(lab: Lab) -> None:
    """A broker's patience is about what nobody has ended."""
    broker = await lab.hurried()
    member = await lab.member(broker)
    sent = lab.messages(3)
    await lab.published(broker, *sent)
    await member.hear_all(sent)
    await member.stays_quiet(1.5 * lab.subject.patience_seconds, "what was acked")


@BrokerCheck
async def being_given_is_not_being_settled(lab: Lab) -> None:
    """Nothing is acknowledged before `ack`: a member that leaves between delivery and ack loses nothing."""
    async with lab.subject.connect() as broker:
        member = await lab.member(broker)
        sent = lab.messages(10)
        await lab.published(broker, *sent)
        taken = await member.take(4)
        await taken[1].ack()
    later = lab.joined(await lab.broker())
    wanted = [message for message in sent if message.id != taken[1].message.id]
    # What was acked behind one that was not may come too: some brokers settle up to a place, not one by one.
    same(set(ids(wanted)) - set(ids(await later.hear_all(wanted))), set[str](), "what did not come to the next member")


@BrokerCheck
async def an_attempt_is_counted(lab: Lab) -> None:
    """The first is 1; after a retry, and in another member's hands, it is more."""
    broker = await lab.broker()
    member = await lab.member(broker)
    await lab.published(broker, lab.message())
    first = await member.next()
    same(first.attempt, 1, "the first attempt")
    await first.retry()
    second = await member.next()
    if lab.subject.counts_attempts:
        same(second.attempt, 2, "the attempt after a retry")
    holds(second.attempt >= 1, "an attempt below 1")
    await second.retry()
    await member.leave()
    third = await lab.joined(await lab.broker()).next()
    holds(third.attempt >= (3 if lab.subject.counts_attempts else 1), "an attempt was forgotten")


@BrokerCheck
async def what_a_hung_member_holds_comes_to_another(lab: Lab) -> None:
    """Its connection is there, and the broker's patience is over."""
    hung, other = await lab.hurried(), await lab.hurried()
    member = await lab.member(hung, in_flight=3)
    sent = lab.messages(3)
    await lab.published(hung, *sent)
    await member.take(3)
    heard = await lab.joined(other).hear_all(sent)
    same(sorted(set(ids(heard))), sorted(ids(sent)), "what another member was given")


@BrokerCheck
async def what_a_dead_process_held_comes_to_another(lab: Lab) -> None:
    """kill -9, between delivery and ack; all of it comes again, and counts as an attempt."""
    broker = await lab.hurried()
    await broker.declare(lab.group(), [lab.topic()])
    sent = lab.messages(4)
    await lab.published(broker, *sent)
    process = await lab.elsewhere(len(sent))
    process.kill()
    member = lab.joined(broker)
    missing = set(ids(sent))
    while missing:
        delivery = await member.next()
        holds(delivery.attempt >= (2 if lab.subject.counts_attempts else 1), "the dead one's attempt was forgotten")
        missing.discard(delivery.message.id)
        await delivery.ack()


@BrokerCheck
async def a_retry_comes_again_not_before_its_time(lab: Lab) -> None:
    """Others come meanwhile; the waiting one is the same message."""
    broker = await lab.broker()
    member = await lab.member(broker)
    for after_seconds in (1.0, 3.0, 9.0):  # on a busy machine publishing alone may take longer than the wait
        first, others = lab.message(), lab.messages(3)
        await lab.published(broker, first)
        delivery = await member.next()
        given_back = time.monotonic()
        await delivery.retry(after_seconds=after_seconds)
        await lab.published(broker, *others)
        came: list[Message] = []
        while len(came) < 4:
            again = await member.next()
            came.append(again.message)
            too_early = again.message.id == first.id and time.monotonic() - given_back < 0.9 * after_seconds
            holds(not too_early, "it came before its time")
            await again.ack()
        same(sorted(ids(came)), sorted(ids([first, *others])), "what came then")
        same(next(one.body for one in came if one.id == first.id), first.body, "its body")
        if came[-1].id == first.id:
            return
    raise ContractBroken("others had to wait with the one that waits")


@BrokerCheck
async def a_retry_comes_though_its_member_leaves(lab: Lab) -> None:
    """Waiting is the broker's, not the member's."""
    async with lab.subject.connect() as broker:
        member = await lab.member(broker)
        sent = lab.messages(2)
        await lab.published(broker, *sent)
        for delivery in await member.take(2):
            await delivery.retry(after_seconds=0.2)
    heard = await lab.joined(await lab.broker()).hear_all(sent)
    same(sorted(set(ids(heard))), sorted(ids(sent)), "what came to another member")


@BrokerCheck
async def what_is_parked_is_kept_with_its_reason(lab: Lab) -> None:
    """Message, reason, attempts and time; to be seen by anybody, and the group is not given it again."""
    reason = "no such article: “Łucja”\nsecond line, 100 % sure"
    async with lab.subject.connect() as broker:
        member = await lab.member(broker)
        poison, good = lab.message(b"\xff\x00", key="order-1"), lab.message()
        await lab.published(broker, poison._replace(headers={"atone-kind": "event", "name": "Ł"}))
        before = time.time()
        await (await member.next()).retry()
        await (await member.next()).park(reason)
        await lab.published(broker, good)
        same(ids(await member.hear(1)), [good.id], "what came after it")
        await member.stays_quiet(_LINGER_SECONDS, "what was parked")
    other = await lab.broker()
    await lab.joined(other).stays_quiet(_LINGER_SECONDS, "what was parked, to another member")
    (parked,) = await other.parked(lab.group())
    same(parked.message._replace(headers={}), poison, "the message")
    same(dict(parked.message.headers), {"atone-kind": "event", "name": "Ł"}, "its headers")
    same(parked.reason, reason, "the reason")
    holds(parked.attempts >= (2 if lab.subject.counts_attempts else 1), f"its attempts: {parked.attempts}")
    holds(before - 5 < parked.at < time.time() + 5, "the time when it was parked")


@BrokerCheck
async def parking_is_for_one_group(lab: Lab) -> None:
    """Another group is given the message all the same, and finds nothing in its own dead-letter place."""
    broker = await lab.broker()
    shipping, billing = await lab.member(broker), await lab.member(broker, group=lab.group("billing"))
    sent = lab.message()
    await lab.published(broker, sent)
    await (await shipping.next()).park("no")
    same(ids(await billing.hear(1)), [sent.id], "what the other group heard")
    same(list(await broker.parked(lab.group("billing"))), list[Parked](), "what the other group has parked")
    same([one.message.id for one in await broker.parked(lab.group())], [sent.id], "what this group has parked")


@BrokerCheck
async def parked_ones_are_listed_oldest_first(lab: Lab) -> None:
    """At most `limit` of them."""
    broker = await lab.broker()
    member = await lab.member(broker)
    sent = lab.messages(4, key="order-1")
    for message in sent:
        await lab.published(broker, message)
        await (await member.next()).park(f"reason of {message.id}")
    found = await broker.parked(lab.group())
    same([one.message.id for one in found], ids(sent), "all")
    same([one.reason for one in found], [f"reason of {message.id}" for message in sent], "their reasons")
    same([one.message.id for one in await broker.parked(lab.group(), limit=2)], ids(sent[:2]), "the first two")


@BrokerCheck
async def what_is_unparked_is_given_again(lab: Lab) -> None:
    """To its group alone, as it was; the others stay, and a second time there is nothing to unpark."""
    broker, other = await lab.broker(), await lab.broker()
    member, billing = await lab.member(broker), await lab.member(broker, group=lab.group("billing"))
    sent = lab.messages(2)
    await lab.published(broker, *sent)
    await billing.hear_all(sent)
    for delivery in await member.take(2):
        await delivery.park("no")
    same(await other.unpark(lab.group(), sent[1].id), True, "unparking one")
    same(await member.hear(1), [sent[1]], "what was given again")
    same([one.message.id for one in await other.parked(lab.group())], [sent[0].id], "what is still parked")
    same(await other.unpark(lab.group(), sent[1].id), False, "unparking it again")
    same(await other.unpark(lab.group(), "nobody"), False, "unparking what was never there")
    await billing.stays_quiet(_LINGER_SECONDS, "another group's message that was unparked")


@BrokerCheck
async def no_more_are_given_than_may_be_in_flight(lab: Lab) -> None:
    """One more comes when one is ended, whichever way."""
    broker = await lab.broker()
    member = await lab.member(broker, in_flight=3)
    sent = lab.messages(7)
    await lab.published(broker, *sent)
    held = await member.take(3)
    await member.stays_quiet(_LINGER_SECONDS, "a fourth while three were not ended")
    await held.pop().ack()
    held.append(await member.next())
    await member.stays_quiet(_LINGER_SECONDS, "a fourth while three were not ended")
    await held.pop().park("no")
    held.append(await member.next())
    await held.pop().retry(after_seconds=60)
    held.append(await member.next())
    await member.stays_quiet(_LINGER_SECONDS, "a fourth while three were not ended")


@BrokerCheck
async def what_was_taken_ahead_is_given_back(lab: Lab) -> None:
    """Closing an iterator frees what its user has not seen, at once, though the broker stays open."""
    broker, other = await lab.broker(), await lab.broker()
    member = await lab.member(broker, in_flight=10)
    sent = lab.messages(10)
    await lab.published(broker, *sent)
    held = await member.next()
    await member.leave()
    rest = [message for message in sent if message.id != held.message.id]
    heard = await lab.joined(other).hear_all(rest)
    same(sorted(set(ids(heard)) - {held.message.id}), sorted(ids(rest)), "what came to another member")
    await held.ack()


@BrokerCheck
async def who_stops_waiting_loses_nothing(lab: Lab) -> None:
    """A member that is cancelled while it waits has taken nothing away."""
    broker = await lab.broker()
    await (await lab.member(broker)).leave()
    for _ in range(3):
        member = lab.joined(broker)
        await member.stays_quiet(0.05, "what nobody has published")
        sent = lab.messages(3)
        publishing = asyncio.create_task(lab.published(broker, *sent))
        await member.leave()
        await publishing
        later = lab.joined(broker)
        await later.hear_all(sent)
        await later.leave()  # or it may take ahead what the next turn is about


CHECKS = tuple(check for check in list(globals().values()) if isinstance(check, BrokerCheck))
