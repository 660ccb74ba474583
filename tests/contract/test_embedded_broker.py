"""The embedded broker beside its contract: hints that may be lost, rights, addresses, and what stays in the tables."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import apsw
import pytest

from atone.broker import Delivery, Message, Published
from atone.brokers import _embedded_member, embedded, open_broker
from atone.brokers.embedded import EmbeddedBroker
from atone.errors import BrokerError
from atone.stores import open_store


def message(number: int, key: str = "") -> Message:
    return Message(f"m{number}", "stock.reserved", key, b"%d" % number)


def heard(broker: Any, group: str = "shipping") -> AsyncGenerator[Delivery]:
    return cast("AsyncGenerator[Delivery]", broker.deliveries(group))


@pytest.fixture
def rare_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A member that waits looks again after a minute only, and hears nothing from its own process."""
    monkeypatch.setattr(_embedded_member, "_FIRST_PAUSE_SECONDS", 60.0)
    monkeypatch.setattr(_embedded_member, "_LONGEST_PAUSE_SECONDS", 60.0)
    monkeypatch.setattr(embedded, "tell", lambda place: None)


@contextmanager
def told_of_waits() -> Iterator[asyncio.Event]:
    """Yield an event that is set when a member has looked, found nothing, and begins to wait."""
    begun, wait = asyncio.Event(), _embedded_member.Member._wait

    async def told(self: _embedded_member.Member, seconds: float | None) -> None:
        begun.set()
        await wait(self, seconds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_embedded_member.Member, "_wait", told)
        yield begun


async def publish_to_one_who_waits(url: str) -> bytes:
    async with EmbeddedBroker(url) as one, EmbeddedBroker(url) as other, asyncio.timeout(20):
        await one.declare("shipping", ["stock.reserved"])
        member = heard(one)
        with told_of_waits() as begun:
            waiting = asyncio.ensure_future(anext(member))
            await begun.wait()
        await other.publish([message(1)])
        delivery = await waiting
        await delivery.ack()
        await member.aclose()
        return delivery.message.body


@pytest.mark.usefixtures("rare_looks")
def test_a_change_of_the_file_wakes_who_waits(tmp_path: Path) -> None:
    """Another process is heard long before the next look."""
    assert asyncio.run(publish_to_one_who_waits(f"sqlite:///{tmp_path / 'atone.db'}")) == b"1"


@pytest.mark.usefixtures("rare_looks")
def test_a_notification_wakes_who_waits(postgres_bench: Any) -> None:
    """On PostgreSQL too."""
    place = postgres_bench.place()
    assert asyncio.run(publish_to_one_who_waits(f"{postgres_bench.worker_url}?schema={place.schema}")) == b"1"


def test_without_notifications_looking_is_enough(postgres_bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a pooler nobody listens, and everything comes."""
    monkeypatch.setattr(embedded, "tell", lambda place: None)
    place = postgres_bench.place()
    for option in ("notify=off", "statement_cache_size=0"):
        url = f"{postgres_bench.worker_url}?schema={place.schema}&{option}"
        assert asyncio.run(publish_to_one_who_waits(url)) == b"1"


def test_it_shares_a_file_with_the_store(tmp_path: Path) -> None:
    """Store and broker are open at once, whichever came first."""
    url = f"sqlite:///{tmp_path / 'atone.db'}"

    async def main() -> list[Published]:
        async with open_broker(url) as broker, open_store(url):
            await broker.declare("shipping", ["stock.reserved"])
            return list(await broker.publish([message(1)]))

    assert asyncio.run(main()) == [Published.DURABLE]


def test_what_every_group_has_settled_is_gone(tmp_path: Path) -> None:
    """A message leaves with its last group; one that is parked stays."""
    path = tmp_path / "atone.db"

    async def main() -> None:
        async with EmbeddedBroker(f"sqlite:///{path}") as broker:
            for group in ("shipping", "billing"):
                await broker.declare(group, ["stock.reserved"])
            await broker.publish([message(1), message(2)])
            for group in ("shipping", "billing"):
                member = heard(broker, group)
                await (await anext(member)).ack()
                second = await anext(member)
                await (second.park("no") if group == "billing" else second.ack())
                await member.aclose()

    asyncio.run(main())
    connection = apsw.Connection(str(path))
    assert list(connection.execute("SELECT group_name, id FROM broker_messages")) == [("billing", "m2")]
    connection.close()


def test_of_one_key_nobody_gets_the_second_while_another_has_the_first(tmp_path: Path) -> None:
    """Two members of a group don't overtake each other within a key; a message that is parked holds nobody up."""
    url = f"sqlite:///{tmp_path / 'atone.db'}"

    async def main() -> tuple[list[bytes], bytes]:
        async with EmbeddedBroker(url) as one, EmbeddedBroker(url) as other, asyncio.timeout(20):
            await one.declare("shipping", ["stock.reserved"])
            await one.publish([message(1, "order-1")])
            first, second = heard(one), heard(other)
            holding = await anext(first)
            await one.publish([message(2, "order-1"), message(3, "order-2")])
            await first.aclose()
            passing = await anext(second)
            await holding.park("no")
            following = await anext(second)
            await second.aclose()
            return [passing.message.body, following.message.body], holding.message.body

    assert asyncio.run(main()) == ([b"3", b"2"], b"1")


def test_without_tables_and_rights_it_says_what_to_run(postgres_bench: Any) -> None:
    """A worker may not make tables; whoever may is told how."""
    url = f"{postgres_bench.worker_url}?schema=nobody_made_this"

    async def main() -> None:
        async with EmbeddedBroker(url):
            pass

    with pytest.raises(BrokerError, match="atone_owner") as caught:
        asyncio.run(main())
    assert "wanda" not in str(caught.value)


@pytest.mark.parametrize("url", ["sqlite://x", "sqlite:///:memory:", "sqlite:///a.db?patience_seconds=soon",
                                 "postgresql://u:s3cret@h:1/d?statement_cache_size=x"])  # fmt: skip
def test_an_address_that_is_none_is_refused(url: str) -> None:
    """With the reason and without the password."""
    with pytest.raises(BrokerError) as caught:
        open_broker(url)
    assert "s3cret" not in str(caught.value)
