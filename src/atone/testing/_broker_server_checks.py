"""Checks with a server that is killed and comes back, under brokers that stay open.

Each leaves the server running. Called through `atone.testing.broker_contract`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from atone.broker import Delivery
from atone.errors import BrokerError, BrokerUnavailable
from atone.testing._broker_lab import BrokerCheck, Lab, ids
from atone.testing._subject import refuses, same


@asynccontextmanager
async def _down(lab: Lab) -> AsyncGenerator[None]:
    await lab.server.kill()
    try:
        yield
    finally:
        await lab.server.start()


@BrokerCheck
async def what_was_confirmed_survives_the_server(lab: Lab) -> None:
    """DURABLE means that kill -9 takes nothing of it, nor what groups have declared."""
    lab.needs_a_server()
    async with lab.subject.connect() as broker:
        await broker.declare(lab.group(), [lab.topic()])
        sent = lab.messages(50)
        await lab.published(broker, *sent)
        async with _down(lab):
            pass
    heard = await lab.joined(await lab.broker()).hear_all(sent)
    same(sorted(set(ids(heard))), sorted(ids(sent)), "what was heard after the server was killed")


@BrokerCheck
async def publishing_to_a_server_that_is_gone_is_unavailable(lab: Lab) -> None:
    """BrokerUnavailable, in bounded time; and the same object publishes when the server is back."""
    lab.needs_a_server()
    broker = await lab.broker()
    member = await lab.member(broker)
    message = lab.message()
    async with _down(lab):
        await lab.in_time(refuses(BrokerUnavailable, broker.publish([message]), "publishing"), "publishing")
    await lab.published_in_the_end(broker, message)
    same(set(ids(await member.hear_all([message]))), {message.id}, "what was heard when it was back")


@BrokerCheck
async def a_member_hears_on_when_the_server_is_back(lab: Lab) -> None:
    """It waits through the fault; neither it nor its broker is made anew."""
    lab.needs_a_server()
    broker = await lab.broker()
    member = await lab.member(broker)
    before, after = lab.messages(2)
    await lab.published(broker, before)
    await member.hear_all([before])
    async with _down(lab):
        await member.stays_quiet(0.2, "what nobody could publish")
    await lab.published_in_the_end(broker, after)
    heard = set(ids(await member.hear_all([after])))
    same(heard - {before.id}, {after.id}, "what was heard when it was back")


@BrokerCheck
async def what_was_not_ended_comes_again_from_a_server_that_was_killed(lab: Lab) -> None:
    """Also when its ending was tried while the server was gone."""
    lab.needs_a_server()
    broker = await lab.broker()
    member = await lab.member(broker)
    sent = lab.messages(6)
    await lab.published(broker, *sent)
    held = await member.take(6)
    await asyncio.gather(*(one.ack() for one in held[:2]))
    async with _down(lab):
        await lab.in_time(_fails_or_does_nothing(held[2]), "acknowledging without a server")
    await broker.__aexit__(None, None, None)
    later = lab.joined(await lab.broker())
    wanted = [one.message for one in held[3:]]
    same(set(ids(wanted)) - set(ids(await later.hear_all(wanted))), set[str](), "what is missing")


async def _fails_or_does_nothing(held: Delivery) -> None:
    try:
        await held.ack()
    except BrokerError:
        pass


@BrokerCheck
async def what_is_parked_survives_the_server(lab: Lab) -> None:
    """A dead-letter place is as durable as the rest."""
    lab.needs_a_server()
    broker = await lab.broker()
    member = await lab.member(broker)
    sent = lab.message()
    await lab.published(broker, sent)
    await (await member.next()).park("no such article")
    async with _down(lab):
        pass
    found: list[tuple[str, str]] = []

    async def look() -> None:
        found[:] = [(one.message.id, one.reason) for one in await broker.parked(lab.group())]

    await lab.in_the_end(look, "looking at what is parked")
    same(found, [(sent.id, "no such article")], "what is parked")


CHECKS = tuple(check for check in list(globals().values()) if isinstance(check, BrokerCheck))
