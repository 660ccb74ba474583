"""A journal that was edited by hand: its saga is parked with the reason, its neighbours go on, `retry` mends it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atone import Compensated, Completed, NeedsAttention, Reject, SagaStatus
from atone._runtime.reader import fold_rows
from atone.errors import CorruptJournal
from atone.store import Row
from atone.stores.memory import MemoryStore
from tests.runtime.faulty_store import FaultyStore
from tests.runtime.world import Order, PlaceOrder, World, crashing, hangs, opened, raises, run, sqlite


def edit(path: Path, statement: str, *values: Any) -> None:
    """Do what nobody should, while nobody else has the file open."""
    with apsw.Connection(str(path / "sagas.db")) as file:
        file.execute(statement, values)


EDITS = {
    "not JSON": "UPDATE journal SET entries = x'00ff' WHERE saga = ? AND version = 2",
    "empty": "UPDATE journal SET entries = x'' WHERE saga = ? AND version = 2",
    "not an array": "UPDATE journal SET entries = CAST('{}' AS BLOB) WHERE saga = ? AND version = 2",
    "an entry nobody knows": """
        UPDATE journal SET entries = CAST('[{"type":"miracle"}]' AS BLOB) WHERE saga = ? AND version = 2""",
    "a step that is not there": """
        UPDATE journal SET entries = CAST('[{"type":"step_gave_up","step":"nosuch"}]' AS BLOB)
         WHERE saga = ? AND version = 2""",
    "a missing row": "DELETE FROM journal WHERE saga = ? AND version = 2",
    "a missing first row": "DELETE FROM journal WHERE saga = ? AND version = 1",
    "no row at all": "DELETE FROM journal WHERE saga = ?",
    "another saga's row": """
        UPDATE journal SET entries = (SELECT entries FROM journal AS other WHERE other.saga <> journal.saga
                                       AND other.version = 1 LIMIT 1) WHERE saga = ? AND version = 1""",
}
EDITS["a number of the wrong type"] = """
    UPDATE journal SET entries = CAST(replace(CAST(entries AS TEXT), '"deadline":', '"deadline":"soon","was":') AS BLOB)
     WHERE saga = ? AND version = 2"""


@pytest.mark.parametrize("statement", EDITS.values(), ids=EDITS.keys())
def test_a_damaged_saga_is_parked_and_its_neighbour_goes_on(tmp_path: Path, statement: str) -> None:
    """It waits for a person with the reason, is listed as such, and nothing of it is called."""

    async def main() -> None:
        world = World()
        world.always("ship", hangs)
        async with crashing(tmp_path, PlaceOrder(world)) as (orchestrator, _):
            broken = await orchestrator.start(PlaceOrder, Order(), saga_id="broken")
            await orchestrator.start(PlaceOrder, Order(), saga_id="sound")
            await world.reached("ship", 2)
        edit(tmp_path, statement, broken.key)
        world = World()
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            assert isinstance(await orchestrator.outcome(PlaceOrder, "sound", timeout=20), Completed)
            outcome = await orchestrator.outcome(PlaceOrder, "broken", timeout=20)
            assert isinstance(outcome, NeedsAttention), outcome
            assert "ournal" in outcome.cause
            assert outcome.cause.endswith((".", "saga."))
            (info,) = await orchestrator.list(status=SagaStatus.NEEDS_ATTENTION)
            assert info.saga_id == "broken"
            assert info.worker is None
        assert {call.saga_id for call in world.calls} == {"sound"}

    run(main())


def test_a_saga_whose_row_was_restored_goes_on_after_a_retry(tmp_path: Path) -> None:
    """The rows that say so were parked with it; the attempt that was under way is in doubt, and repeated."""

    async def main() -> None:
        world = World()
        world.script("charge", hangs)
        async with crashing(tmp_path, PlaceOrder(world)) as (orchestrator, _):
            handle = await orchestrator.start(PlaceOrder, Order(), saga_id="1")
            await world.reached("charge")
        with apsw.Connection(str(tmp_path / "sagas.db")) as file:
            copy = file.execute("SELECT entries FROM journal WHERE version = 2").get
        edit(tmp_path, "UPDATE journal SET entries = x'00' WHERE saga = ? AND version = 2", handle.key)
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            assert isinstance(await orchestrator.outcome(PlaceOrder, "1", timeout=20), NeedsAttention)
            # A retry before the repair changes nothing; it is answered after it.
            early = await orchestrator.retry(PlaceOrder, "1", reason="perhaps it works now")
        edit(tmp_path, "UPDATE journal SET entries = ? WHERE saga = ? AND version = 2", copy, handle.key)
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            receipt = await orchestrator.retry(PlaceOrder, "1", reason="the row is back")
            assert (await receipt.answer(timeout=20)).verdict in {"applied", "refused"}
            assert isinstance(await orchestrator.outcome(PlaceOrder, "1", timeout=20), Completed)
        assert early.key == handle.key
        assert world.names == ["reserve", "charge", "charge", "ship"]

    run(main())


def test_a_damaged_saga_that_is_over_is_told_as_damaged(tmp_path: Path) -> None:
    """It needs nobody, so it is not called in need of attention; but nobody can say what it did."""

    async def main() -> None:
        async with opened(sqlite(tmp_path), PlaceOrder(World())) as orchestrator:
            handle = await orchestrator.start(PlaceOrder, Order(), saga_id="1")
            await handle.outcome(timeout=20)
        edit(tmp_path, "UPDATE journal SET entries = x'00' WHERE saga = ? AND version = 2", handle.key)
        async with opened(sqlite(tmp_path), PlaceOrder(World())) as orchestrator:
            with pytest.raises(CorruptJournal, match="row 2"):
                await orchestrator.outcome(PlaceOrder, "1", timeout=20)
            (info,) = await orchestrator.list()
            assert info.status is SagaStatus.COMPLETED

    run(main())


def test_damage_under_a_running_saga_is_found_at_the_next_reading(tmp_path: Path) -> None:
    """The worker that runs it reads it again when somebody asks something of it."""

    async def main() -> None:
        world, store = World(), MemoryStore(allow_volatile=True)
        world.always("charge", hangs)
        async with opened(store, PlaceOrder(world)) as orchestrator:
            handle = await orchestrator.start(PlaceOrder, Order(), saga_id="1")
            await world.reached("charge")
            rows = store._sagas[handle.key].rows
            rows[0] = rows[0]._replace(entries=b"[]")
            await handle.cancel(reason="it takes too long")
            outcome = await handle.outcome(timeout=20)
            assert isinstance(outcome, NeedsAttention), outcome
        assert world.names == ["reserve", "charge"]

    run(main())


def test_a_missing_plan_is_damage_too(tmp_path: Path) -> None:
    """What needs the stored plan says so; the worker that has the definition runs the saga all the same."""

    async def main() -> None:
        world = World()
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            await orchestrator.execute(PlaceOrder, Order(), saga_id="1")
        edit(tmp_path, "UPDATE definitions SET plan = '{'")
        async with sqlite(tmp_path) as store:
            from atone._runtime.reader import find_one, read

            found = await find_one(store, "default", "PlaceOrder", "1")
            assert found is not None
            with pytest.raises(CorruptJournal):
                await read(store, found.key)

    run(main())


def history() -> list[Row]:
    """Return the rows of a saga that went forward, failed, and came back."""

    async def main() -> list[Row]:
        world = World()
        world.script("charge", raises(OSError("no answer")))
        world.script("ship", raises(Reject("no van")))
        world.script("refund", raises(OSError("no answer")))
        store = FaultyStore(MemoryStore(allow_volatile=True))
        async with opened(store, PlaceOrder(world)) as orchestrator:
            assert isinstance(await orchestrator.execute(PlaceOrder, Order(), saga_id="1"), Compensated)
        return [Row(turn.version, 0.0, turn.commit_id, turn.entries) for turn in store.turns]

    return asyncio.run(main())


HISTORY = history()
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5))
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner))


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_any_edit_of_a_row_is_a_saga_or_a_corrupt_journal(data: st.DataObject) -> None:
    """Folding a damaged journal never fails in another way, whatever was changed in it."""
    rows = list(HISTORY)
    at = data.draw(st.integers(0, len(rows) - 1))
    entries = json.loads(rows[at].entries)
    entry = data.draw(st.sampled_from(entries))
    match data.draw(st.sampled_from(["value", "drop", "type", "step"])):
        case "value":
            entry[data.draw(st.sampled_from(sorted(entry)))] = data.draw(VALUES)
        case "drop":
            del entry[data.draw(st.sampled_from(sorted(entry)))]
        case "type":
            known = sorted({one["type"] for row in HISTORY for one in json.loads(row.entries)})
            entry["type"] = data.draw(st.sampled_from(known))
        case _:
            entry["step"] = data.draw(st.sampled_from(["reserve", "charge", "ship", "nosuch"]))
    rows[at] = rows[at]._replace(entries=json.dumps(entries).encode())
    with contextlib.suppress(CorruptJournal):
        fold_rows(PlaceOrder.plan(), rows)
