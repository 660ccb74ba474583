"""Checks of what goes in and who hears it: groups, topics, contents, order, limits.

It must not be about how a delivery ends. Called through `atone.testing.broker_contract`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from atone.broker import Broker, Message, Published
from atone.errors import BrokerClosed, BrokerError, BrokerUnavailable
from atone.testing._broker_lab import BrokerCheck, ContractBroken, Lab, NotOffered, ids
from atone.testing._subject import holds, refuses, same

_HEADERS = {
    "atone-kind": "event",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "customer": "Łucja Müller 株式会社 🚚",
    "empty": "",
    "percent": "100 % = 100%25",
    "quoted": "\"a\" = 'b'; c: d",
    "edges": "  kept  ",
    "lines": "one\r\ntwo\ttabbed",
}


@BrokerCheck
async def each_group_hears_each_message(lab: Lab) -> None:
    """Two groups that declared one topic are given everything, each on its own."""
    broker = await lab.broker()
    shipping, billing = await lab.member(broker), await lab.member(broker, group=lab.group("billing"))
    sent = lab.messages(5)
    await lab.published(broker, *sent)
    same(sorted(ids(await shipping.hear_all(sent))), sorted(ids(sent)), "what the first group heard")
    same(sorted(ids(await billing.hear_all(sent))), sorted(ids(sent)), "what the second group heard")


@BrokerCheck
async def members_share_what_a_group_hears(lab: Lab) -> None:
    """Of a group's members one is given a message; only a fault may bring it to another one."""
    one, other = await lab.broker(), await lab.broker()
    members = [await lab.member(one), await lab.member(other)]
    sent = lab.messages(60)
    await lab.published(one, *sent)
    missing, heard = {message.id for message in sent}, 0
    until = asyncio.get_running_loop().time() + lab.subject.deadline_seconds
    while missing:
        for member in members:
            delivery = await member.within(0.02)
            while delivery is not None:
                missing.discard(delivery.message.id)
                heard += 1
                await delivery.ack()
                delivery = await member.within(0.02)
        holds(asyncio.get_running_loop().time() < until, f"{len(missing)} messages came to no member of the group")
    holds(heard < 2 * len(sent), "every member heard every message")


@BrokerCheck
async def another_object_hears_what_the_group_declared(lab: Lab) -> None:
    """What a group hears is the server's to know: a member need not have declared it itself."""
    one, other = await lab.broker(), await lab.broker()
    await one.declare(lab.group(), [lab.topic()])
    member = lab.joined(other)
    (sent,) = lab.messages(1)
    await lab.published(one, sent)
    same(await member.hear(1), [sent], "what was heard")


@BrokerCheck
async def a_message_comes_back_byte_for_byte(lab: Lab) -> None:
    """Id, topic, key, body and headers are what was published, whatever characters are in them."""
    broker = await lab.broker()
    member = await lab.member(broker)
    every_byte = bytes(range(256)) * 3
    sent = [
        Message("evt!#$%&'()*+,-./:;<=>?@[]^_`{|}~", lab.topic(), "order-1", every_byte, _HEADERS),
        Message("i" * 200, lab.topic(), "ключ 🔑 \"q\" 'a' / %2F", b"", {}),
        Message("without-a-key", lab.topic(), "", b"\x00\xff\xfe", {"atone-saga-id": "s" * 500}),
        Message("json", lab.topic(), "k" * 200, '{"name": "Łucja"}'.encode(), {"a": "1", "b": "2"}),
    ]
    await lab.published(broker, *sent)
    heard = {message.id: message for message in await member.hear_all(sent)}
    for message in sent:
        found = heard[message.id]
        same(found._replace(headers=dict(found.headers)), message._replace(headers=dict(message.headers)), "a message")


@BrokerCheck
async def a_body_of_just_the_limit_passes(lab: Lab) -> None:
    """`message_bytes_max` bytes are not too many."""
    broker = await lab.broker()
    member = await lab.member(broker)
    size = broker.message_bytes_max
    body = (bytes(range(251)) * (size // 251 + 1))[:size]
    await lab.published(broker, lab.message(body))
    (heard,) = await member.hear(1)
    holds(heard.body == body, f"a body of {size} bytes came back as {len(heard.body)} others")


@BrokerCheck
async def one_that_is_too_large_is_refused_and_no_other(lab: Lab) -> None:
    """REFUSED stands in its place; what is before and behind it is published."""
    broker = await lab.broker()
    member = await lab.member(broker)
    before, behind = lab.messages(2)
    large = lab.message(b"x" * (broker.message_bytes_max + 1))
    found = list(await broker.publish([before, large, behind]))
    same(found, [Published.DURABLE, Published.REFUSED, Published.DURABLE], "what became of three messages")
    heard = ids(await member.hear_all([before, behind]))
    holds(large.id not in heard, "a message that was refused was heard")


@BrokerCheck
async def what_nobody_has_declared_is_kept_or_said_to_be_gone(lab: Lab) -> None:
    """A broker that keeps nothing for later groups says NOBODY, for that message alone."""
    broker = await lab.broker()
    member = await lab.member(broker)
    unheard = lab.message(topic=lab.topic("nobody.listens"))
    heard = lab.message()
    found = list(await broker.publish([unheard, heard]))
    alone = Published.DURABLE if lab.subject.keeps else Published.NOBODY
    same(found, [alone, Published.DURABLE], "what became of a message for nobody, and of one for somebody")
    same(ids(await member.hear(1)), [heard.id], "what was heard")


@BrokerCheck
async def a_group_hears_only_what_it_has_declared(lab: Lab) -> None:
    """Topics are compared whole: one that begins the same is another one."""
    broker = await lab.broker()
    await broker.declare(lab.group("other"), [lab.topic("stock.reserved.again"), lab.topic("stock")])
    member = await lab.member(broker)
    other = [lab.message(topic=lab.topic("stock.reserved.again")), lab.message(topic=lab.topic("stock"))]
    last = lab.message()
    await lab.published(broker, *other, last)
    same(ids(await member.hear_all([last])), [last.id], "what was heard")
    await member.stays_quiet(0.2, "a topic that the group has not declared")


@BrokerCheck
async def declaring_adds_and_repeating_is_harmless(lab: Lab) -> None:
    """What was declared before stays, and nothing comes twice because it was declared twice."""
    broker = await lab.broker()
    other = lab.topic("payment.taken")
    await broker.declare(lab.group(), [lab.topic()])
    await broker.declare(lab.group(), [other])
    await broker.declare(lab.group(), [other])
    member = lab.joined(broker)
    sent = [lab.message(), lab.message(topic=other)]
    await lab.published(broker, *sent)
    same(sorted(ids(await member.hear_all(sent))), sorted(ids(sent)), "what was heard")
    await member.stays_quiet(0.2, "a message that had come before")


@BrokerCheck
async def a_topic_declared_later_reaches_a_member_that_is_there(lab: Lab) -> None:
    """A participant that grows need not be restarted everywhere at once."""
    broker, other = await lab.broker(), await lab.broker()
    member = await lab.member(broker)
    first, more = lab.message(), lab.message(topic=lab.topic("payment.taken"))
    await lab.published(broker, first)
    same(ids(await member.hear(1)), [first.id], "what was heard first")
    await other.declare(lab.group(), [lab.topic("payment.taken")])
    await lab.published(other, more)
    heard = await member.hear(1)
    while ids(heard) == [first.id]:  # it may come once more when topics are shared out anew
        heard = await member.hear(1)
    same(ids(heard), [more.id], "what was heard of the new topic")


@BrokerCheck
async def a_group_that_declared_nothing_hears_an_error(lab: Lab) -> None:
    """Waiting for ever for what can't come would be worse."""
    broker = await lab.broker()
    member = lab.joined(broker, group=lab.group("unknown"))
    await refuses(BrokerError, member.within(lab.subject.deadline_seconds), "its deliveries")


@BrokerCheck
async def what_is_published_while_no_member_is_there_waits(lab: Lab) -> None:
    """A group is durable: whoever joins later is given it all."""
    one = lab.subject.connect()
    async with one:
        await one.declare(lab.group(), [lab.topic()])
        sent = lab.messages(10)
        await lab.published(one, *sent)
    member = lab.joined(await lab.broker())
    same(sorted(ids(await member.hear_all(sent))), sorted(ids(sent)), "what was heard later")


@BrokerCheck
async def one_key_is_heard_in_the_order_of_its_publisher(lab: Lab) -> None:
    """Without faults; within a call and from call to call, with other keys in between."""
    broker = await lab.broker()
    member = await lab.member(broker)
    sent: list[Message] = []
    for turn in range(12):
        batch = [lab.message(b"%d" % (turn * 10 + number), key=f"order-{number % 3}") for number in range(10)]
        await lab.published(broker, *batch)
        sent += batch
    heard = await member.hear_all(sent)
    for key in ("order-0", "order-1", "order-2"):
        found = [int(message.body) for message in heard if message.key == key]
        same(list(dict.fromkeys(found)), [int(one.body) for one in sent if one.key == key], f"the order of {key}")


@BrokerCheck
async def a_message_published_twice_is_heard(lab: Lab) -> None:
    """With the same id it may come once or twice; what follows comes too."""
    broker = await lab.broker()
    member = await lab.member(broker)
    twice, last = lab.messages(2, key="order-1")
    await lab.published(broker, twice)
    await lab.published(broker, twice, last)
    heard = await member.hear_all([twice, last])
    holds(1 <= ids(heard).count(twice.id) <= 2, f"it was heard {ids(heard).count(twice.id)} times")


@BrokerCheck
async def many_may_publish_at_once(lab: Lab) -> None:
    """One object serves any number of tasks."""
    broker = await lab.broker()
    member = await lab.member(broker)
    batches = [lab.messages(7) for _ in range(20)]
    await asyncio.gather(*(lab.published(broker, *batch) for batch in batches))
    sent = [message for batch in batches for message in batch]
    same(sorted(set(ids(await member.hear_all(sent)))), sorted(ids(sent)), "what was heard")


@BrokerCheck
async def nothing_to_publish_is_no_error(lab: Lab) -> None:
    """An empty call has no results."""
    broker = await lab.broker()
    same(list(await broker.publish([])), list[Published](), "results")


@BrokerCheck
async def a_foreign_message_has_an_id_of_its_own(lab: Lab) -> None:
    """A plain client's message is heard, by an id that is the same again; the reader goes on with the next."""
    if lab.subject.publish_foreign is None:
        raise NotOffered("no plain client can publish here")
    broker = await lab.broker()
    member = await lab.member(broker)
    await lab.subject.publish_foreign(lab.topic(), b"\xff\x00 no JSON")
    await lab.subject.publish_foreign(lab.topic(), b"another")
    ours = lab.message()
    await lab.published(broker, ours)
    deliveries = await member.take(3)
    foreign = [one for one in deliveries if one.message.id != ours.id]
    same(sorted(one.message.body for one in foreign), [b"another", b"\xff\x00 no JSON"], "bodies of foreign ones")
    same({one.message.topic for one in foreign}, {lab.topic()}, "their topic")
    known = {one.message.body: one.message.id for one in foreign}
    for number in known.values():
        holds(0 < len(number) <= 200 and number.isascii() and number.isprintable(), f"{number!r} is no id")
    holds(len(set(known.values())) == 2, "two foreign messages have one id")
    for one in deliveries:
        await (one.retry() if one in foreign else one.ack())
    again = {message.body: message.id for message in await member.hear(2)}
    same(again, known, "their ids when they came again")


@BrokerCheck
async def a_broker_that_is_not_open_says_so(lab: Lab) -> None:
    """BrokerClosed, before it is entered and after it was left."""
    broker = lab.subject.connect()
    await _is_closed(lab, broker, "before it was entered")
    async with broker:
        await broker.declare(lab.group(), [lab.topic()])
    await _is_closed(lab, broker, "after it was left")


async def _is_closed(lab: Lab, broker: Broker, when: str) -> None:
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: broker.publish([lab.message()]),
        lambda: broker.declare(lab.group(), [lab.topic()]),
        lambda: lab.joined(broker).within(lab.subject.deadline_seconds),
        lambda: broker.parked(lab.group()),
        lambda: broker.unpark(lab.group(), "one"),
    ]
    for call in calls:
        await refuses(BrokerClosed, call(), when)


@BrokerCheck
async def a_member_ends_when_its_broker_is_left(lab: Lab) -> None:
    """Who waits for a delivery is told that there will be none: the iterator ends, or says BrokerClosed."""
    broker = lab.subject.connect()
    async with broker:
        member = await lab.member(broker)
        await member.stays_quiet(0.1, "what nobody has published")
    try:
        found = await member.within(lab.subject.deadline_seconds)
    except (StopAsyncIteration, RuntimeError, BrokerClosed):
        return
    raise ContractBroken("it was given something" if found else "it still waits")


@BrokerCheck
async def who_can_not_be_reached_is_said_without_the_password(lab: Lab) -> None:
    """Entering fails at once rather than later, and says where was looked."""
    if lab.subject.unreachable is None:
        raise NotOffered("this broker is always there")
    broker = lab.subject.unreachable()

    async def enter() -> None:
        try:
            async with broker:
                raise ContractBroken("it was entered where nothing is")
        except BrokerUnavailable as error:
            holds("s3cret" not in _told(error), "the message has the password")

    await lab.in_time(enter(), "entering a broker that is not there")


def _told(error: BaseException | None) -> str:
    """Return all that a traceback would show."""
    told = ""
    while error is not None:
        told += f"{error!r} {error} "
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return told


CHECKS = tuple(check for check in list(globals().values()) if isinstance(check, BrokerCheck))
