"""Memory, SQLite and PostgreSQL answer the same calls alike, and as a model of the port says; broken stores don't."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.contract.differential import run
from tests.contract.twins import MemoryBed, PostgresBed, SqliteBed, opened
from tests.servers.postgres import Bench


@pytest.mark.timeout(900)  # a machine that is busy with other tests is slow at this
def test_three_stores_and_the_model_of_the_port_agree(postgres_bench: Bench, tmp_path: Path) -> None:
    """Whatever is called, in whatever order, all answers are the same and as the port says."""
    stores = (MemoryBed(), SqliteBed(tmp_path), PostgresBed(postgres_bench))
    with asyncio.Runner() as runner, opened(runner, *stores) as beds:
        run(beds, runner, examples=60, number=None)
