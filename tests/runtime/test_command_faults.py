"""Commands when something goes wrong around them: commits without answers, a store that is away, code that raises."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from atone import Compensated, Completed, Context, NeedsAttention, Orchestrator, Saga, command
from atone._messaging import headers
from atone.brokers.memory import MemoryBroker
from atone.codec import Codec
from atone.errors import BrokerUnavailable
from tests.runtime.desk import AT_ONCE, Booked, BookRoom, BookTrip, HastyTrip, a_desk, travelling
from tests.runtime.faulty_store import FaultyStore, answer_held, lost_after, lost_before, passes
from tests.runtime.payloads import Sealer
from tests.runtime.world import Order, World, limits, run, sqlite

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_reply_that_is_there_before_its_sender_knows_that_it_has_sent_counts(tmp_path: Path) -> None:
    """The commit's answer is slow: message, reply and its row overtake it. Nothing of that is lost."""

    async def main() -> None:
        store, gate = FaultyStore(sqlite(tmp_path)), asyncio.Event()
        store.script("commit", passes, answer_held(gate))
        async with a_desk() as desk, travelling(store, desk, BookTrip(World())) as orchestrator:
            saga = await orchestrator.start(BookTrip, Order(), saga_id="1")
            await desk.answers(await desk.hears("hotel.book"), {"ref": "R1"})
            await desk.settled()
            gate.set()
            assert isinstance(await saga.outcome(timeout=20), Completed)
            assert len(desk.heard) == 1

    run(main())


def test_a_commit_that_is_sent_again_sends_its_message_once(tmp_path: Path) -> None:
    """The same commit id, the same message."""

    async def main() -> None:
        store = FaultyStore(sqlite(tmp_path))
        store.script("commit", passes, lost_after, lost_after)
        async with a_desk() as desk, travelling(store, desk, BookTrip(World())) as orchestrator:
            saga = await orchestrator.start(BookTrip, Order(), saga_id="1")
            await desk.answers(await desk.hears("hotel.book"), {"ref": "R1"})
            assert isinstance(await saga.outcome(timeout=20), Completed)
            assert len(desk.heard) == 1

    run(main())


def test_a_reply_is_acknowledged_only_when_it_is_durable(tmp_path: Path) -> None:
    """The store is away when it comes: it is taken in again, and counts once."""

    async def main() -> None:
        world, store = World(), FaultyStore(sqlite(tmp_path))
        store.script("deliver", lost_before, lost_after)
        async with a_desk() as desk, travelling(store, desk, BookTrip(world)) as orchestrator:
            saga = await orchestrator.start(BookTrip, Order(), saga_id="1")
            await desk.answers(await desk.hears("hotel.book"), {"ref": "R1"})
            assert isinstance(await saga.outcome(timeout=20), Completed)
            assert world.names == ["charge"]

    run(main())


def test_a_reply_after_the_end_waits_for_the_store_like_any_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is compared with what the journal says; that the store is away just then is no fault of the reply's."""

    async def main() -> None:
        store = FaultyStore(sqlite(tmp_path))
        async with a_desk() as desk, travelling(store, desk, BookTrip(World())) as orchestrator:
            saga = await orchestrator.start(BookTrip, Order(), saga_id="1")
            command = await desk.hears("hotel.book")
            await desk.answers(command, {"ref": "R1"})
            assert isinstance(await saga.outcome(timeout=20), Completed)
            await desk.settled()
            met: list[str] = []

            async def lost(call: Any) -> Any:
                met.append("lost")
                return await lost_before(call)

            store.script("load", lost)
            await desk.publishes(command)
            await desk.settled()
            assert met == ["lost"]

    run(main())
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


def test_replies_are_heard_again_when_the_broker_is_back(tmp_path: Path) -> None:
    """It was away while the reply was awaited; what it has kept is heard."""

    async def main() -> None:
        async with a_desk() as desk, travelling(sqlite(tmp_path), desk, BookTrip(World())) as orchestrator:
            saga = await orchestrator.start(BookTrip, Order(), saga_id="1")
            sent = await desk.hears("hotel.book")
            assert isinstance(desk.broker, MemoryBroker)
            desk.broker.server.kill()
            with pytest.raises(BrokerUnavailable):
                await desk.answers(sent, {"ref": "R1"})
            desk.broker.server.start()
            await desk.answers(sent, {"ref": "R1"})
            assert isinstance(await saga.outcome(timeout=20), Completed)

    run(main())


class Building(Saga[Order]):
    """A command whose message can be built once its code is mended."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error

    @command(reply=Booked, to="hotel.book", retry=AT_ONCE, no_compensation="a test")
    def book(self, ctx: Context[Order]) -> BookRoom:
        if self.error is not None:
            raise self.error
        return BookRoom(ctx.idempotency_key, ctx.attempt)


def test_code_that_cannot_build_its_message_calls_a_person_and_sends_nothing(tmp_path: Path) -> None:
    """Whatever it raises; mended, a retry sends it."""

    async def main() -> None:
        building = Building(SystemExit("no price"))
        async with a_desk() as desk, travelling(sqlite(tmp_path), desk, building) as orchestrator:
            saga = await orchestrator.start(Building, Order(), saga_id="1")
            stuck = await saga.outcome(timeout=20)
            assert isinstance(stuck, NeedsAttention)
            assert "its command can't be sent: SystemExit: no price" in stuck.cause
            assert desk.heard == []
            building.error = None
            await orchestrator.retry(Building, "1", reason="mended")
            sent = await desk.hears("hotel.book")
            assert b'"nights":1' in sent.body
            await desk.answers(sent, {"ref": "R1"})
            assert isinstance(await saga.outcome(timeout=20), Completed)

    run(main())


def test_a_message_that_the_store_refuses_calls_a_person(tmp_path: Path) -> None:
    """It is too large, say: nothing was sent, and the saga does not vanish."""

    async def main() -> None:
        store = FaultyStore(sqlite(tmp_path))
        store.refuses = lambda turn: bool(turn.messages)
        async with a_desk() as desk, travelling(store, desk, BookTrip(World())) as orchestrator:
            saga = await orchestrator.start(BookTrip, Order(), saga_id="1")
            stuck = await saga.outcome(timeout=20)
            assert isinstance(stuck, NeedsAttention)
            assert (stuck.step, desk.heard) == ("book", [])

    run(main())


class TwoAtOnce(Saga[Order]):
    """Two commands that go out in one turn; one of them is large."""

    @command(reply=str, to="hotel.book", no_compensation="a test")
    def small(self, ctx: Context[Order]) -> BookRoom:
        return BookRoom(ctx.input.id, 2)

    @command(reply=str, to="hotel.book", no_compensation="a test", after=())
    def large(self, ctx: Context[Order]) -> BookRoom:
        return BookRoom("x" * 10_000, 2)


def test_of_two_messages_that_the_store_refuses_together_the_large_one_is_named(tmp_path: Path) -> None:
    """A person who was sent to the other would find nothing wrong with it."""

    async def main() -> None:
        store = FaultyStore(sqlite(tmp_path))
        store.refuses = lambda turn: sum(len(one.body) for one in turn.messages) > 10_000
        async with a_desk() as desk, travelling(store, desk, TwoAtOnce()) as orchestrator:
            saga = await orchestrator.start(TwoAtOnce, Order(), saga_id="1")
            stuck = await saga.outcome(timeout=20)
            assert isinstance(stuck, NeedsAttention)
            assert stuck.step == "large"

    run(main())


def test_a_cancel_waits_for_the_reply_and_then_undoes(tmp_path: Path) -> None:
    """What was sent may land, so its answer is awaited as a call's would be."""

    async def main() -> None:
        async with a_desk() as desk, travelling(sqlite(tmp_path), desk, BookTrip(World())) as orchestrator:
            saga = await orchestrator.start(BookTrip, Order(), saga_id="1")
            sent = await desk.hears("hotel.book")
            assert (await (await saga.cancel(reason="enough")).answer(timeout=20)).applied
            assert len(desk.heard) == 1
            await desk.answers(sent, {"ref": "R1"})
            undo = await desk.hears("hotel.cancel")
            assert b'"ref":"R1"' in undo.body
            await desk.answers(undo)
            assert isinstance(await saga.outcome(timeout=20), Compensated)

    run(main())


def test_the_starters_trace_goes_with_each_command(tmp_path: Path) -> None:
    """In the headers that every tracer reads."""

    async def main() -> None:
        async with a_desk() as desk, travelling(sqlite(tmp_path), desk, BookTrip(World())) as orchestrator:
            trace = {"traceparent": TRACE, "tracestate": "a=1"}
            await orchestrator.start(BookTrip, Order(), saga_id="1", trace=trace)
            sent = await desk.hears("hotel.book")
            assert (sent.headers[headers.TRACEPARENT], sent.headers[headers.TRACESTATE]) == (TRACE, "a=1")

    run(main())


def test_what_a_participant_says_is_sealed_in_the_store_and_plain_on_its_way(tmp_path: Path) -> None:
    """It has no key; the journal is read by others."""

    async def main() -> None:
        codec = Codec(encryption=Sealer(b"the key"))
        async with a_desk() as desk:
            parts: dict[str, Any] = {"codec": codec, "limits": limits(), "broker": MemoryBroker(desk.address)}
            async with Orchestrator(sqlite(tmp_path), sagas=[BookTrip(World())], **parts) as orchestrator:
                saga = await orchestrator.start(BookTrip, Order(), saga_id="1")
                sent = await desk.hears("hotel.book")
                assert b'"nights":2' in sent.body
                await desk.answers(sent, {"ref": "ROOM-4711"})
                done = await saga.outcome(timeout=20)
                assert isinstance(done, Completed)
                assert done[BookTrip.book] == Booked("ROOM-4711")
        assert b"ROOM-4711" not in b"".join(file.read_bytes() for file in tmp_path.iterdir())

    run(main())


def test_a_reply_is_taken_in_by_who_does_not_have_its_definition(tmp_path: Path) -> None:
    """All orchestrators on a store hear for each other; whether it fits is then its owner's to see."""

    async def main() -> None:
        world = World()
        async with a_desk() as desk:
            async with travelling(sqlite(tmp_path), desk, BookTrip(world)) as orchestrator:
                await orchestrator.start(BookTrip, Order(), saga_id="1")
                sent = await desk.hears("hotel.book")
            async with travelling(sqlite(tmp_path), desk, HastyTrip(world)):
                await desk.publishes(sent, body=b'{"ref":7}')
                await desk.publishes(sent, body=b'{"ref":8}')
                await desk.settled()
            async with travelling(sqlite(tmp_path), desk, BookTrip(world)) as orchestrator:
                saga = await orchestrator.get(BookTrip, "1")
                await desk.answers(sent, {"ref": "R1"})
                assert isinstance(await saga.outcome(timeout=20), Completed)
            assert world.names == ["charge"]

    run(main())


class Newer(Saga[Order], name="Versions", version=2):
    """Its reply is a list."""

    @command(reply=list[str], to="hotel.book", no_compensation="a test")
    def book(self, ctx: Context[Order]) -> BookRoom:
        return BookRoom(ctx.input.id, 2)


class Older(Saga[Order], name="Versions"):
    """Its reply was one text."""

    @command(reply=str, to="hotel.book", no_compensation="a test")
    def book(self, ctx: Context[Order]) -> BookRoom:
        return BookRoom(ctx.input.id, 1)


def test_a_reply_is_read_as_its_sagas_own_version_says(tmp_path: Path) -> None:
    """Both run side by side; the name alone does not tell them apart."""

    async def main() -> None:
        async with a_desk() as desk, travelling(sqlite(tmp_path), desk, Newer(), Older()) as orchestrator:
            old = await orchestrator.start(Older, Order(), saga_id="old")
            new = await orchestrator.start(Newer, Order(), saga_id="new")
            answers: dict[str, object] = {"old": "one", "new": ["one", "two"]}
            for _ in range(2):
                sent = await desk.hears("hotel.book")
                await desk.answers(sent, answers[sent.headers[headers.SAGA_ID]])
            ends: Sequence[Any] = await asyncio.gather(old.outcome(timeout=20), new.outcome(timeout=20))
            assert ends[0][Older.book] == "one"
            assert ends[1][Newer.book] == ["one", "two"]

    run(main())


def test_a_reply_to_a_version_that_is_not_here_is_left_to_its_owner(tmp_path: Path) -> None:
    """While a fleet is updated, who has the new version alone hears for the old one too; its types say nothing then."""

    async def main() -> None:
        async with a_desk() as desk:
            async with travelling(sqlite(tmp_path), desk, Older()) as orchestrator:
                await orchestrator.start(Older, Order(), saga_id="old")
                sent = await desk.hears("hotel.book")
            async with travelling(sqlite(tmp_path), desk, Newer()):
                await desk.answers(sent, "one")
                await desk.settled()
                assert not await desk.broker.parked("atone.replies")
            async with travelling(sqlite(tmp_path), desk, Older()) as orchestrator:
                saga = await orchestrator.get(Older, "old")
                end = await saga.outcome(timeout=20)
                assert isinstance(end, Completed)
                assert end[Older.book] == "one"

    run(main())


def test_a_declared_refusal_is_taken_in_by_who_does_not_have_its_definition(tmp_path: Path) -> None:
    """It need not have a `reason`, and who can't know its type must not lose that the command was refused."""

    async def main() -> None:
        world = World()
        async with a_desk() as desk:
            async with travelling(sqlite(tmp_path), desk, BookTrip(world)) as orchestrator:
                await orchestrator.start(BookTrip, Order(), saga_id="1")
                sent = await desk.hears("hotel.book")
            async with travelling(sqlite(tmp_path), desk, HastyTrip(world)):
                await desk.refuses(sent, "", body={"code": 17})
                await desk.settled()
                assert not await desk.broker.parked("atone.replies")
            async with travelling(sqlite(tmp_path), desk, BookTrip(world)) as orchestrator:
                saga = await orchestrator.get(BookTrip, "1")
                assert isinstance(await saga.outcome(timeout=20), Compensated)

    run(main())
