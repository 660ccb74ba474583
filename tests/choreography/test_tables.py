"""The participant's inbox and outbox on every kind of connection: once, in the caller's transaction, in order."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from atone._connections.face import finish
from atone.broker import Message, Relayed
from atone.errors import BarrierMisplaced
from atone.inbox import Inbox, Tries
from atone.outbox import ServiceOutbox
from tests.barrier.drivers import ON_POSTGRES, ON_SQLITE, Kind, Line
from tests.servers.postgres import Bench

INBOX = Inbox(table="took")
OUTBOX = ServiceOutbox(table="sends")
FAST_LEASE = 0.0  # over as soon as it is given


def message(number: int, key: str = "saga-1") -> Message:
    return Message(f"m-{number}", "order.placed", key, f'{{"n":{number}}}'.encode(), {"atone-kind": "event"})


class Service:
    """A service with its two tables, each call in a connection and a transaction of its own."""

    def __init__(self, url: str, kind: Kind) -> None:
        self.url, self.kind = url, kind
        for table in ("took", "sends"):
            self._run(f"DROP TABLE IF EXISTS {table}")
        self.within(lambda line: INBOX.create_table(line.connection))
        self.within(lambda line: OUTBOX.create_table(line.connection))

    def _run(self, statement: str) -> None:
        if self.url.startswith("postgresql:"):
            with psycopg.connect(self.url, autocommit=True) as connection:
                connection.execute(statement.encode())
            return
        with closing(sqlite3.connect(self.url, isolation_level=None)) as file:
            file.execute(statement)

    def within(self, call: Callable[[Line], Awaitable[Any]], *, commits: bool = True) -> Any:
        async def main() -> Any:
            async with self.kind(self.url) as line:
                await line.begin()
                answer = await call(line)
                await line.end(commits=commits)
                return answer

        return asyncio.run(main())

    def take(self, message_id: str, *, commits: bool = True) -> bool:
        taken: bool = self.within(lambda line: INBOX.take(line.connection, "inventory", message_id), commits=commits)
        return taken

    def count(self, *, deferred: bool) -> Tries:
        """Count in a transaction of its own, as one that was rolled back can't."""
        tries: Tries = self.within(lambda line: INBOX.count(line.connection, "inventory", "m-1", deferred=deferred))
        return tries

    def add(self, *messages: Message, commits: bool = True) -> None:
        self.within(lambda line: OUTBOX.add(line.connection, messages), commits=commits)

    def post_again(self, message_id: str, *, commits: bool = True) -> bool:
        posted: bool = self.within(lambda line: OUTBOX.post_again(line.connection, message_id), commits=commits)
        return posted

    def relay(self, name: str = "r", *, limit: int = 10, lease_seconds: float = 60.0, **done: Any) -> list[str]:
        return [one.message.id for one in self.relayed(name, limit=limit, lease_seconds=lease_seconds, **done).messages]

    def relayed(self, name: str, **options: Any) -> Relayed:
        options = {"published": (), "refused": {}, **options}
        found: Relayed = self.within(lambda line: OUTBOX.relay(line.connection, name, **options))
        return found


PLACES = [("postgresql", kind) for kind in ON_POSTGRES] + [("sqlite", kind) for kind in ON_SQLITE]


@pytest.fixture(params=PLACES, ids=lambda place: f"{place[0]}-{place[1].__name__[3:]}")
def service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Service]:
    dialect, kind = request.param
    if dialect == "sqlite":
        yield Service(str(tmp_path / "service.db"), kind)
        return
    bench: Bench = request.getfixturevalue("postgres_bench")
    yield Service(bench.server.url(), kind)


def test_a_message_is_taken_in_once_and_a_rollback_takes_that_back(service: Service) -> None:
    """What was rolled back is taken in again; what was committed never."""
    assert [service.take("m-1", commits=False), service.take("m-1"), service.take("m-1")] == [True, True, False]


def test_failures_outlive_the_rollback_and_do_not_count_as_taken_in(service: Service) -> None:
    """A message that failed twice and came too early once is still to be taken in, once."""
    service.count(deferred=False)
    service.count(deferred=True)
    assert service.count(deferred=False) == Tries(failures=2, deferrals=1)
    assert [service.take("m-1"), service.take("m-1")] == [True, False]


def test_a_message_goes_out_if_its_transaction_was_committed_and_only_then(service: Service) -> None:
    """A rollback takes the message along with the rows that it tells of."""
    service.add(message(1), commits=False)
    assert service.relay() == []
    service.add(message(2))
    (found,) = service.relayed("r", limit=10, lease_seconds=60).messages
    assert found.message == message(2)


def test_of_one_key_only_the_first_is_given_until_it_is_published(service: Service) -> None:
    """Order per saga: the second is not to be seen while the first is under way, whoever asks."""
    service.add(message(1), message(2), message(3, key="saga-2"), message(4, key=""), message(5, key=""))
    first = service.relayed("r", limit=10, lease_seconds=60)
    assert [one.message.id for one in first.messages] == ["m-1", "m-3", "m-4", "m-5"]
    assert service.relay("other") == []
    assert service.relay(published=[one.ref for one in first.messages]) == ["m-2"]


def test_what_a_relay_left_is_given_to_another_once_its_time_is_over(service: Service) -> None:
    """A relay that was killed leaves nothing behind that nobody may send."""
    service.add(message(1))
    assert service.relay("killed", lease_seconds=FAST_LEASE) == ["m-1"]
    assert service.relay("other") == ["m-1"]


def test_what_is_refused_is_set_aside_and_blocks_nothing(service: Service) -> None:
    """A message that is too large for the broker stays, with the reason; the next one of its saga goes out."""
    service.add(message(1), message(2))
    (first,) = service.relayed("r", limit=10, lease_seconds=60).messages
    assert service.relay(refused={first.ref: "too large"}) == ["m-2"]
    aside = service.within(lambda line: OUTBOX.set_aside(line.connection))
    assert [tuple(one) for one in aside] == [("m-1", "order.placed", "too large")]


def test_what_was_set_aside_is_posted_again_behind_what_waits(service: Service) -> None:
    """Once, as it was, if its transaction is committed; what waits is left alone."""
    sent = message(1)
    service.add(sent, message(2), message(3, key="saga-2"))
    first, other = service.relayed("r", limit=10, lease_seconds=60).messages
    service.relay(refused={first.ref: "too large", other.ref: "too large"}, limit=0)
    assert service.post_again("m-1", commits=False)
    assert [service.post_again(one) for one in ("m-1", "m-1", "m-2", "m-9")] == [True, False, False, False]
    assert service.relay(published=[first.ref]) == ["m-2"]
    (last,) = service.relayed("r", published=[first.ref + 1], limit=10, lease_seconds=60).messages
    assert last.message == sent


def test_what_was_set_aside_is_dropped_and_what_waits_is_not(service: Service) -> None:
    """That message alone, and once."""
    service.add(message(1), message(2))
    (first,) = service.relayed("r", limit=10, lease_seconds=60).messages
    service.relay(refused={first.ref: "too large"}, limit=0)
    dropped = [
        service.within(lambda line, one=one: OUTBOX.drop_set_aside(line.connection, one))
        for one in ("m-1", "m-1", "m-2")
    ]
    assert dropped == [True, False, False]
    assert service.within(lambda line: OUTBOX.set_aside(line.connection)) == []
    assert service.relay() == ["m-2"]


def test_a_message_is_in_the_outbox_once(service: Service) -> None:
    """Adding the same message again while it waits changes nothing."""
    service.add(message(1))
    service.add(message(1))
    assert service.relay() == ["m-1"]


def test_outside_of_a_transaction_nothing_is_written(tmp_path: Path) -> None:
    """A connection that commits each statement by itself is refused, for it ties nothing to anything."""
    with closing(sqlite3.connect(str(tmp_path / "a.db"), isolation_level=None)) as file:
        finish(INBOX.create_table(file))
        finish(OUTBOX.create_table(file))
        for call in (
            INBOX.take(file, "inventory", "m-1"),
            OUTBOX.add(file, [message(1)]),
            OUTBOX.post_again(file, "m-1"),
            OUTBOX.drop_set_aside(file, "m-1"),
        ):
            with pytest.raises(BarrierMisplaced, match="in no transaction"):
                finish(call)


def test_the_inbox_is_purged_by_age_and_within_a_bound(tmp_path: Path) -> None:
    """Only older rows go, and no more at once than was asked for."""
    with closing(sqlite3.connect(str(tmp_path / "a.db"))) as file:
        finish(INBOX.create_table(file))
        for number in range(5):
            finish(INBOX.take(file, "inventory", f"m-{number}"))
        file.execute("UPDATE took SET at = at - 200000 WHERE message <> 'm-4'")
        assert [finish(INBOX.purge(file, older_than_days=2, limit=3)) for _ in range(3)] == [3, 1, 0]
        assert [row[0] for row in file.execute("SELECT message FROM took")] == ["m-4"]
