"""Command steps end to end: a store, a broker, and a participant that answers when the test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from atone import Compensated, Completed, DefinitionError, Orchestrator, Reject
from atone._messaging import headers
from atone.brokers import open_broker
from atone.stores import open_store
from tests.runtime.desk import REPLIES, BookTrip, Desk, HastyTrip, a_desk, travelling
from tests.runtime.faulty_store import FaultyStore
from tests.runtime.world import Order, World, limits, raises, run, sqlite, until

Opening = Callable[[], Any]


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Opening:
    """Ways to open one real store, again and again."""
    if request.param == "sqlite":
        return lambda: sqlite(tmp_path)
    bench = request.getfixturevalue("postgres_bench")
    place = bench.shared_place()
    return lambda: open_store(f"{bench.worker_url}?schema={place.schema}")


async def _started(orchestrator: Orchestrator, saga: Any = BookTrip) -> Any:
    return await orchestrator.start(saga, Order(), saga_id="1")


def test_a_command_is_sent_and_its_reply_is_the_steps_result(store: Opening) -> None:
    """What goes out says whose it is; what comes back is decoded, and the next step takes it."""

    async def main() -> None:
        world = World()
        async with a_desk() as desk, travelling(store(), desk, BookTrip(world)) as orchestrator:
            saga = await _started(orchestrator)
            sent = await desk.hears("hotel.book")
            assert sent.body == b'{"order":"1","nights":2}'
            assert (sent.headers[headers.SAGA], sent.headers[headers.SAGA_ID]) == ("BookTrip", "1")
            assert (sent.headers[headers.KIND], sent.headers[headers.NAME]) == ("command", "BookRoom")
            assert sent.headers[headers.IDEMPOTENCY_KEY].endswith("4-book.6-action")
            await desk.answers(sent, {"ref": "R1", "unknown": 1})
            done = await saga.outcome(timeout=20)
            assert isinstance(done, Completed)
            assert done[BookTrip.book].ref == "R1"
            assert world.names == ["charge"]

    run(main())


def test_nothing_is_held_while_a_reply_is_awaited(store: Opening) -> None:
    """No runner, no owner: the saga is a row that is due at the command's deadline."""

    async def main() -> None:
        async with a_desk() as desk, travelling(store(), desk, BookTrip(World())) as orchestrator:
            saga = await _started(orchestrator)
            sent = await desk.hears("hotel.book")
            worker: Any = orchestrator._worker
            await until(lambda: not worker.runners)
            (info,) = await orchestrator.list()
            assert (info.worker, info.wake_at is not None) == (None, True)
            await desk.answers(sent, {"ref": "R1"})
            assert isinstance(await saga.outcome(timeout=20), Completed)

    run(main())


def test_a_refused_command_turns_the_saga_back(store: Opening) -> None:
    """A refusal in words, or as the declared type: its reason is the cause; a refused step is not undone."""

    async def main() -> None:
        async with a_desk() as desk, travelling(store(), desk, BookTrip(World())) as orchestrator:
            saga = await _started(orchestrator)
            await desk.refuses(await desk.hears("hotel.book"), "", {"reason": "sold out", "free_from": "May"})
            ended = await saga.outcome(timeout=20)
            assert isinstance(ended, Compensated)
            assert "sold out" in ended.cause
            other = await orchestrator.start(BookTrip, Order("2"), saga_id="2")
            await desk.refuses(await desk.hears("hotel.book"), "closed in winter")
            assert await other.outcome(timeout=20) == Compensated("book: closed in winter")
            assert [message.topic for message in desk.heard] == ["hotel.book"] * 2

    run(main())


def test_a_command_is_undone_by_a_command(store: Opening) -> None:
    """It says which action it undoes, by that action's key, and what is known of its result."""

    async def main() -> None:
        world = World()
        world.script("charge", raises(Reject("no funds")))
        async with a_desk() as desk, travelling(store(), desk, BookTrip(world)) as orchestrator:
            saga = await _started(orchestrator)
            booked = await desk.hears("hotel.book")
            await desk.answers(booked, {"ref": "R1"})
            undo = await desk.hears("hotel.cancel")
            assert undo.body == b'{"order":"1","ref":"R1"}'
            assert undo.headers[headers.ACTION_KEY] == booked.headers[headers.IDEMPOTENCY_KEY]
            assert undo.headers[headers.IDEMPOTENCY_KEY] != booked.headers[headers.IDEMPOTENCY_KEY]
            await desk.answers(undo)
            assert await saga.outcome(timeout=20) == Compensated("charge: no funds")

    run(main())


def test_a_command_that_nobody_answers_is_sent_again_with_the_same_key(store: Opening) -> None:
    """In a message of its own; an answer to the first one still counts."""

    async def main() -> None:
        async with a_desk() as desk, travelling(store(), desk, HastyTrip(World())) as orchestrator:
            saga = await _started(orchestrator, HastyTrip)
            first, second = await desk.hears("hotel.book"), await desk.hears("hotel.book")
            assert first.id != second.id
            assert first.headers[headers.IDEMPOTENCY_KEY] == second.headers[headers.IDEMPOTENCY_KEY]
            assert (first.headers[headers.ATTEMPT], second.headers[headers.ATTEMPT]) == ("1", "2")
            await desk.answers(first, {"ref": "R1"})
            assert isinstance(await saga.outcome(timeout=20), Completed)

    run(main())


def test_replies_that_come_twice_count_once(store: Opening) -> None:
    """The same message again, and another message that says the same."""

    async def main() -> None:
        world = World()
        async with a_desk() as desk, travelling(store(), desk, BookTrip(world)) as orchestrator:
            saga = await _started(orchestrator)
            sent = await desk.hears("hotel.book")
            for _ in range(2):
                await desk.answers(sent, {"ref": "R1"}, twice=True)
            assert isinstance(await saga.outcome(timeout=20), Completed)
            await desk.answers(sent, {"ref": "R1"})
            await desk.publishes(sent)
            await desk.settled()
            assert world.names == ["charge"]
            assert await desk.broker.parked(REPLIES) == []

    run(main())


def test_a_late_reply_joins_what_is_undone(store: Opening) -> None:
    """Given up, turned back, being undone: then the answer to the first attempt comes. The undo settles it."""

    async def main() -> None:
        async with a_desk() as desk, travelling(store(), desk, HastyTrip(World())) as orchestrator:
            saga = await _started(orchestrator, HastyTrip)
            first = await desk.hears("hotel.book")
            undo = await desk.hears("hotel.cancel")
            assert undo.body == b'{"order":"1","ref":null}'
            await desk.answers(first, {"ref": "R1"})
            await desk.settled()
            assert await saga.status() == "compensating"
            await desk.answers(undo)
            assert isinstance(await saga.outcome(timeout=20), Compensated)

    run(main())


def test_a_success_after_the_end_is_set_aside_for_a_person(store: Opening) -> None:
    """The saga was compensated and never knew of it: it is applied to nothing, and it is not lost."""

    async def main() -> None:
        async with a_desk() as desk, travelling(store(), desk, HastyTrip(World())) as orchestrator:
            saga = await _started(orchestrator, HastyTrip)
            first = await desk.hears("hotel.book")
            await desk.answers(await desk.hears("hotel.cancel"))
            assert isinstance(await saga.outcome(timeout=20), Compensated)
            await desk.answers(first, {"ref": "R1"})
            (parked,) = await desk.parked()
            assert parked.reason == "book has landed, and the saga was over: compensated"
            await desk.refuses(first, "too late")
            await desk.settled()
            assert len(await desk.broker.parked(REPLIES)) == 1

    run(main())


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"body": b'{"ref":7}'}, "body does not fit"),
        ({"body": b"\xff\x00"}, "body does not fit"),
        ({"said": {headers.KIND: None}}, "is no reply"),
        ({"said": {headers.OUTCOME: "maybe"}}, "succeeded or rejected"),
        ({"said": {headers.OPERATION: "probe"}}, "action or compensation"),
        ({"said": {headers.ATTEMPT: "first"}}, "no number"),
        ({"said": {headers.STEP: "fly"}}, "sends no action"),
        ({"said": {headers.STEP: "charge"}}, "sends no action"),
        ({"said": {headers.SAGA_ID: "nobody"}}, "There is no BookTrip saga 'nobody'"),
        ({"said": {headers.SAGA: "Unheard"}}, "There is no Unheard saga '1'"),
        ({"said": {headers.SAGA_ID: "x" * 400}}, "saga_id must be a valid text"),
        ({"said": {headers.STEP: "a\x00b"}}, "step must be a valid text"),
        ({"said": {headers.TENANT: "another"}}, "There is no BookTrip saga '1'"),
        ({"said": {headers.OUTCOME: "rejected"}, "body": b"[]"}, "is no rejection"),
    ],
)
def test_what_is_no_reply_is_set_aside_with_the_reason(tmp_path: Path, changed: Any, reason: str) -> None:
    """And those behind it are heard."""

    async def main() -> None:
        async with a_desk() as desk, travelling(sqlite(tmp_path), desk, BookTrip(World())) as orchestrator:
            saga = await _started(orchestrator)
            sent = await desk.hears("hotel.book")
            await desk.publishes(sent, **changed)
            (parked,) = await desk.parked()
            assert reason in parked.reason
            await desk.publishes(sent, said={"x-unknown": "1"})
            assert isinstance(await saga.outcome(timeout=20), Completed)

    run(main())


def test_a_reply_to_an_attempt_that_was_never_sent_is_refused(tmp_path: Path) -> None:
    """The journal holds it with the reason; the saga goes on waiting."""

    async def main() -> None:
        async with a_desk() as desk, travelling(sqlite(tmp_path), desk, BookTrip(World())) as orchestrator:
            saga = await _started(orchestrator)
            sent = await desk.hears("hotel.book")
            await desk.publishes(sent, said={headers.ATTEMPT: "7"})
            await desk.publishes(sent, said={headers.OPERATION: "compensation"}, body=b"null")
            await desk.settled()
            assert await saga.status() == "running"
            await desk.answers(sent, {"ref": "R1"})
            assert isinstance(await saga.outcome(timeout=20), Completed)

    run(main())


def test_a_worker_that_dies_while_a_reply_is_awaited_loses_nothing(tmp_path: Path) -> None:
    """It held the saga when it died; who takes it over awaits the same reply, and sends nothing again."""

    async def main() -> None:
        world, first = World(), FaultyStore(sqlite(tmp_path))
        crash = {"lease_seconds": 0.5, "grace_seconds": 0.0}
        async with a_desk() as desk:
            async with travelling(first, desk, BookTrip(world), keep_seconds=60.0, **crash) as orchestrator:
                await _started(orchestrator)
                sent = await desk.hears("hotel.book")
                first.unplug()
            async with travelling(sqlite(tmp_path), desk, BookTrip(world), keep_seconds=60.0) as other:
                worker: Any = other._worker
                await until(lambda: bool(worker.runners))
                await desk.answers(sent, {"ref": "R1"})
                handle = await other.get(BookTrip, "1")
                assert isinstance(await handle.outcome(timeout=20), Completed)
                (loaded,) = await other._store.load([handle.key])
                assert loaded is not None
                journal = b"".join(row.entries for row in loaded.rows)
                assert (journal.count(b"attempt_started"), b"attempt_lost" in journal) == (2, False)
            assert [message.id for message in desk.heard] == [sent.id]

    run(main())


def test_an_orchestrator_that_was_away_hears_what_came_meanwhile(store: Opening) -> None:
    """Closed after the command went out; the reply waits in the broker for the next one."""

    async def main() -> None:
        world = World()
        async with a_desk() as desk:
            async with travelling(store(), desk, BookTrip(world)) as orchestrator:
                await _started(orchestrator)
                sent = await desk.hears("hotel.book")
            await desk.answers(sent, {"ref": "R1"})
            async with travelling(store(), desk, BookTrip(world)) as orchestrator:
                done = await (await orchestrator.get(BookTrip, "1")).outcome(timeout=20)
                assert isinstance(done, Completed)
            assert len(desk.heard) == 1

    run(main())


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_the_store_itself_carries_commands_and_replies(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """No server is needed: the embedded broker lives in the database of the sagas."""
    url = f"sqlite:///{tmp_path}/sagas.db"
    if kind == "postgres":
        bench = request.getfixturevalue("postgres_bench")
        url = f"{bench.worker_url}?schema={bench.place().schema}"

    async def main() -> None:
        world = World()
        world.script("charge", raises(Reject("no funds")))
        async with open_broker(url) as broker:
            await broker.declare("desk", ["hotel.book", "hotel.cancel"])
            desk = Desk(url, broker)
            listening = asyncio.create_task(desk.listens())
            async with Orchestrator(url, sagas=[BookTrip(world)], broker=url, limits=limits()) as orchestrator:
                saga = await _started(orchestrator)
                await desk.answers(await desk.hears("hotel.book"), {"ref": "R1"})
                await desk.answers(await desk.hears("hotel.cancel"))
                assert isinstance(await saga.outcome(timeout=20), Compensated)
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    run(main())


def test_commands_without_a_broker_are_refused_when_the_orchestrator_is_built(tmp_path: Path) -> None:
    """With what to give it; one that runs nothing needs none."""
    with pytest.raises(DefinitionError, match=r"BookTrip sends commands.*broker="):
        Orchestrator(sqlite(tmp_path), sagas=[BookTrip(World())])
    Orchestrator(sqlite(tmp_path), sagas=[BookTrip(World())], runs=False)
