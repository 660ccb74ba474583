"""Every shape, played through without a fault: it ends as it says, and nothing is wrong with it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from atone import Orchestrator
from atone.orchestrator import Limits
from atone.stores.memory import MemoryStore
from atone.stores.sqlite import SqliteStore
from atone.testing.invariants import Violation, read_histories
from tests.shapes.catalogue import SHAPES
from tests.shapes.databases import FileDatabases
from tests.shapes.ledger import FileLedger
from tests.shapes.services import no_point
from tests.shapes.shape import Shape, Stage

QUICK = Limits(poll_seconds=0.05, keep_seconds=0.1, lease_seconds=5.0)


async def played(shape: Shape, stage: Stage, store: MemoryStore | SqliteStore) -> list[Violation]:
    for generation in range(shape.generations):
        async with Orchestrator(store, sagas=shape.make(stage, generation), limits=QUICK) as orchestrator:
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


def test_there_are_shapes_enough() -> None:
    """The goal says 24."""
    assert len(SHAPES) >= 24
