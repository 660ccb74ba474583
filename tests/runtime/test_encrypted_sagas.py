"""Payloads at rest: nothing of them is readable in the file, and a wrong key stops a saga without undoing it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from atone import Completed, NeedsAttention, Orchestrator, Saga
from atone.codec import Codec
from atone.errors import ConflictingStart, PayloadError
from tests.runtime.payloads import Sealer
from tests.runtime.test_waits import Paid, PaidOrder
from tests.runtime.world import Order, PlaceOrder, World, crashing, hangs, limits, returns, run, sqlite

SECRET = "4111-1111-1111-1111"


def sealed(path: Path, codec: Codec, *sagas: Saga[Any]) -> Orchestrator:
    return Orchestrator(sqlite(path), sagas=sagas, codec=codec, limits=limits())


def test_a_sealed_saga_runs_like_any_other_and_leaves_no_plain_text(tmp_path: Path) -> None:
    """Inputs, results and events are sealed, over a restart too; a start with the same input finds its saga."""

    async def main() -> None:
        world = World()
        world.always("reserve", returns(f"reserved with {SECRET}"))
        async with sealed(tmp_path, Codec(encryption=Sealer(b"the key")), PaidOrder(world)) as orchestrator:
            await orchestrator.start(PaidOrder, Order(id=SECRET), saga_id="1")
            await world.reached("reserve")
        async with sealed(tmp_path, Codec(encryption=Sealer(b"the key")), PaidOrder(world)) as orchestrator:
            handle = await orchestrator.start(PaidOrder, Order(id=SECRET), saga_id="1")
            with pytest.raises(ConflictingStart):
                await orchestrator.start(PaidOrder, Order(id="another"), saga_id="1")
            await handle.send_event("paid", Paid(41111111))
            done = await handle.outcome(timeout=20)
            assert isinstance(done, Completed)
            assert done[PaidOrder.reserve] == f"reserved with {SECRET}"
            assert done[PaidOrder.paid] == Paid(41111111)
        written = b"".join(file.read_bytes() for file in tmp_path.iterdir())
        assert SECRET.encode() not in written
        assert b"41111111" not in written

    run(main())


def test_a_wrong_key_stops_a_saga_and_the_right_one_lets_it_go_on(tmp_path: Path) -> None:
    """What can't be read is no reason to undo: nothing is called, a person is, and a retry is enough."""

    async def main() -> None:
        world = World()
        world.script("charge", hangs)
        right, wrong = Codec(encryption=Sealer(b"the key")), Codec(encryption=Sealer(b"another key"))
        async with crashing(tmp_path, PlaceOrder(world), codec=right) as (orchestrator, _):
            await orchestrator.start(PlaceOrder, Order(), saga_id="1")
            await world.reached("charge")
        async with sealed(tmp_path, wrong, PlaceOrder(world)) as orchestrator:
            outcome = await orchestrator.outcome(PlaceOrder, "1", timeout=20)
            assert isinstance(outcome, NeedsAttention), outcome
            assert outcome.step == "charge"
            assert "decrypt" in outcome.cause
            assert isinstance(await orchestrator.execute(PlaceOrder, Order(), saga_id="2", timeout=20), Completed)
        async with sealed(tmp_path, right, PlaceOrder(world)) as orchestrator:
            receipt = await orchestrator.retry(PlaceOrder, "1", reason="the key is back")
            assert (await receipt.answer(timeout=20)).applied
            assert isinstance(await orchestrator.outcome(PlaceOrder, "1", timeout=20), Completed)
            other = await orchestrator.outcome(PlaceOrder, "2", timeout=20)
            assert isinstance(other, Completed)
            with pytest.raises(PayloadError, match="decrypt"):
                _ = other[PlaceOrder.charge]
        assert [call.step for call in world.calls if call.saga_id == "1"] == ["reserve", "charge", "charge", "ship"]

    run(main())
