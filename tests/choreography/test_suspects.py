"""Which deliveries are suspected of having ended their process, and what of a handler is its failure."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from atone._participant.calling import Call, Raised
from atone._participant.consumer import Aside, Done, Ending
from atone._participant.database import Database
from atone._participant.suspects import LOSSES_MAX, Suspects, Unexplained
from atone.broker import Message
from atone.brokers._kafka_member import KafkaDelivery
from atone.brokers._kafka_window import YOUNG_MAX, Window
from atone.inbox import Inbox

GROUP, MESSAGE = "stock.reserve", "m-1"


def suspects(path: Path) -> Suspects:
    """Return those of a process that has just begun."""

    @contextmanager
    def begin() -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")

    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(Inbox().table_sql("sqlite"))
    return Suspects(Inbox(), Database(begin))


def kafka_delivery(window: Window, offset: int) -> KafkaDelivery:
    window.take(offset)
    member: Any = SimpleNamespace(forget=lambda _: True, later=lambda *_: None)
    return KafkaDelivery(member, Message(MESSAGE, "order.placed", "o-1", b"{}"), window, offset)


def test_what_a_member_of_a_kafka_group_is_given_first_is_in_doubt_until_it_gives_it_back(tmp_path: Path) -> None:
    """Kafka counts no deliveries: a member that is gone may have had what follows the committed offset."""
    here, window = suspects(tmp_path / "own.db"), Window()
    first, *_, last = [kafka_delivery(window, offset) for offset in range(YOUNG_MAX)]
    for young in (first, last):
        with pytest.raises(Unexplained):
            here.check(GROUP, MESSAGE, young, 0)
    here.check(GROUP, MESSAGE, kafka_delivery(window, YOUNG_MAX), 0)
    asyncio.run(first.retry())
    here.check(GROUP, MESSAGE, first, 1)


def test_a_delivery_is_explained_by_failures_that_were_counted_and_by_trouble_here(tmp_path: Path) -> None:
    """Beyond these somebody died with it."""
    here = suspects(tmp_path / "own.db")
    third: Any = SimpleNamespace(attempt=3)
    here.check(GROUP, MESSAGE, third, 2)
    with pytest.raises(Unexplained):
        here.check(GROUP, MESSAGE, third, 1)
    here.survived(GROUP, MESSAGE)
    here.check(GROUP, MESSAGE, third, 1)
    with pytest.raises(Unexplained):
        here.check("another", MESSAGE, third, 1)


def test_trouble_of_the_place_is_no_death_however_often_it_comes(tmp_path: Path) -> None:
    """One process begins it again and again and lives, so it is counted once; lives that end are counted each."""
    path, begun = tmp_path / "own.db", list[str]()

    async def away() -> Ending:
        begun.append("away")
        raise ConnectionError

    async def aside(why: str) -> Ending:
        return Aside(why)

    async def one_life(times: int) -> Ending:
        here = suspects(path)
        for _ in range(times):
            try:
                return await here.alone(GROUP, MESSAGE, "order.placed", away, aside)
            except ConnectionError:
                continue
        return Done()

    assert asyncio.run(one_life(3 * LOSSES_MAX)) == Done()
    for _ in range(LOSSES_MAX - 1):
        assert asyncio.run(one_life(1)) == Done()
    ending = asyncio.run(one_life(1))
    assert isinstance(ending, Aside)
    assert "its process ended" in ending.reason
    assert len(begun) == 4 * LOSSES_MAX - 1


class Parked:
    """Awaits something that never comes."""

    def __await__(self) -> Generator[None, None, None]:
        while True:
            yield


def call_of(function: Any) -> Call:
    bound: Any = SimpleNamespace(object=None)
    code: Any = SimpleNamespace(function=function, spec=SimpleNamespace(timeout_seconds=1.0, path="stock.reserve"))
    context: Any = None
    return Call(bound, code, context)


def test_a_handler_whose_coroutine_is_thrown_away_has_not_failed() -> None:
    """Nothing may be awaited any more then, so its end is no failure that anybody counts."""

    async def reserve(*_: object) -> None:
        await Parked()

    running = call_of(reserve)._run()
    running.send(None)
    running.close()


def test_a_handler_that_ends_the_process_by_an_exception_has_failed() -> None:
    """A SystemExit of one handler must not end its neighbours."""

    async def reserve(*_: object) -> None:
        raise SystemExit(3)

    with pytest.raises(Raised):
        call_of(reserve)._run().send(None)
