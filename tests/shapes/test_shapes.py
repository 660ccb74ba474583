"""Every shape, played through without a fault: it ends as it says, and nothing is wrong with it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from atone import Orchestrator
from atone.brokers.memory import MemoryBroker
from atone.orchestrator import Limits
from atone.stores.memory import MemoryStore
from atone.stores.sqlite import SqliteStore
from atone.testing.invariants import Violation, read_histories
from tests.shapes.catalogue import SHAPES
from tests.shapes.choreographed import DANCES
from tests.shapes.databases import FileDatabases
from tests.shapes.ledger import FileLedger
from tests.shapes.services import no_point
from tests.shapes.shape import Shape, Stage

QUICK = Limits(poll_seconds=0.05, keep_seconds=0.1, lease_seconds=5.0)


async def played(shape: Shape, stage: Stage, store: MemoryStore | SqliteStore) -> list[Violation]:
    async with AsyncExitStack() as stack:
        more: dict[str, Any] = {}
        if shape.serving is not None:
            more["broker"] = await stack.enter_async_context(MemoryBroker(f"memory://{id(stage)}"))
            await stack.enter_async_context(shape.serving(stage, more["broker"]))
        for generation in range(shape.generations):
            async with Orchestrator(store, sagas=shape.make(stage, generation), limits=QUICK, **more) as orchestrator:
                await shape.play(orchestrator, stage, generation=generation)
    async with store:
        return shape.violations(await read_histories(store), stage)


@pytest.mark.parametrize("name", [name for name, shape in SHAPES.items() if not shape.is_long])
def test_a_shape_that_nobody_disturbs_ends_as_it_says(name: str) -> None:
    """In memory, all of them."""
    store = MemoryStore(allow_volatile=True)
    assert asyncio.run(asyncio.wait_for(played(SHAPES[name], Stage(), store), 20)) == []


@pytest.mark.parametrize("name", ["refused", "barrier_refused", "upgraded"])
def test_a_shape_leaves_the_same_in_files(name: str, tmp_path: Path) -> None:
    """What real processes use: a ledger, databases and a store that are files."""
    ledger = FileLedger(tmp_path / "ledger.jsonl")
    stage = Stage(ledger, databases=FileDatabases(tmp_path, point=no_point))
    assert asyncio.run(asyncio.wait_for(played(SHAPES[name], stage, SqliteStore(tmp_path / "sagas.db")), 20)) == []
    assert FileLedger(tmp_path / "ledger.jsonl").book().lines == ledger.book().lines
    ledger.close()


@pytest.mark.parametrize("name", DANCES)
def test_a_choreography_that_nobody_disturbs_leaves_what_it_says(name: str) -> None:
    """Each participant in a database of its own, all on one broker."""
    dance, stage = DANCES[name], Stage()

    async def main() -> None:
        async with AsyncExitStack() as stack:
            broker = await stack.enter_async_context(MemoryBroker(f"memory://{id(stage)}"))
            for role in dance.roles:
                await stack.enter_async_context(dance.service(role, stage, broker))
            dance.begin(stage)
            async with asyncio.timeout(20):
                await stage.until(lambda: dance.is_over(stage))
            await asyncio.sleep(0.1)

    asyncio.run(main())
    assert dance.violations(stage) == []


def test_there_are_shapes_enough() -> None:
    """The goal says 24, choreographies among them."""
    assert len(SHAPES) >= 24
    assert len(DANCES) >= 4
