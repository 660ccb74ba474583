"""Time-outs of who waits: one for all of `execute`, and none at all still looks once."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from atone import Completed
from atone.errors import OutcomeTimeout, PayloadError
from tests.runtime.faulty_store import FaultyStore, held
from tests.runtime.world import Order, PlaceOrder, World, opened, run, sqlite, waits


def test_the_timeout_of_execute_covers_the_start_too(tmp_path: Path) -> None:
    """A store that does not answer keeps nobody longer than they said; trying again finds the same saga."""

    async def main() -> None:
        world, gate = World(), asyncio.Event()
        store = FaultyStore(sqlite(tmp_path))
        store.script("commit", held(gate))
        async with opened(store, PlaceOrder(world)) as orchestrator:
            try:
                async with asyncio.timeout(5):
                    with pytest.raises(OutcomeTimeout, match="Try again with the same input"):
                        await orchestrator.execute(PlaceOrder, Order(), saga_id="1", timeout=0.1)
            finally:
                gate.set()
            assert isinstance(await orchestrator.execute(PlaceOrder, Order(), saga_id="1", timeout=20), Completed)
        assert world.names == ["reserve", "charge", "ship"]

    run(main())


def test_what_the_start_took_is_not_given_to_the_wait_again(tmp_path: Path) -> None:
    """Start and wait share one end: after it the saga is not over, and goes on."""

    async def main() -> None:
        world, gate = World(), asyncio.Event()
        world.script("charge", waits(gate))
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            with pytest.raises(OutcomeTimeout, match="goes on"):
                await orchestrator.execute(PlaceOrder, Order(), saga_id="1", timeout=timedelta(seconds=0.5))
            gate.set()
            assert isinstance(await orchestrator.outcome(PlaceOrder, "1", timeout=20), Completed)

    run(main())


@pytest.mark.parametrize("timeout", [0, -1.0, timedelta(0)], ids=repr)
def test_an_outcome_without_time_to_wait_is_looked_for_once(tmp_path: Path, timeout: Any) -> None:
    """What is settled is told, what is not is a time-out at once."""

    async def main() -> None:
        world, gate = World(), asyncio.Event()
        world.script("charge", waits(gate))
        async with opened(sqlite(tmp_path), PlaceOrder(world)) as orchestrator:
            handle = await orchestrator.start(PlaceOrder, Order(), saga_id="1")
            with pytest.raises(OutcomeTimeout, match="not over after 0 s"):
                await handle.outcome(timeout=timeout)
            gate.set()
            await handle.outcome(timeout=20)
            assert isinstance(await handle.outcome(timeout=timeout), Completed)
            assert isinstance(await orchestrator.outcome(PlaceOrder, "1", timeout=timeout), Completed)

    run(main())


@pytest.mark.parametrize("timeout", [float("nan"), "1", True], ids=repr)
def test_a_timeout_that_is_no_length_of_time_is_refused(tmp_path: Path, timeout: Any) -> None:
    """Before anything is started."""

    async def main() -> None:
        async with opened(sqlite(tmp_path), PlaceOrder(World())) as orchestrator:
            with pytest.raises(PayloadError, match="number of seconds"):
                await orchestrator.execute(PlaceOrder, Order(), saga_id="1", timeout=timeout)
            assert await orchestrator.list() == []
            handle = await orchestrator.start(PlaceOrder, Order(), saga_id="1")
            with pytest.raises(PayloadError, match="number of seconds"):
                await handle.outcome(timeout=timeout)
            assert isinstance(await handle.outcome(timeout=float("inf")), Completed)

    run(main())
