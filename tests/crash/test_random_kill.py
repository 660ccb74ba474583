"""Orchestrators that are killed at random moments: a small round of what `random_kill` does at length."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.crash.child import Files
from tests.crash.random_kill import Plan, torment
from tests.crash.verdict import judge, read


@pytest.mark.slow
def test_after_eight_kills_every_saga_ends_true_and_nothing_happened_twice(tmp_path: Path) -> None:
    """Effects are read from the participant's own database, which the kills do not touch."""
    files = Files(tmp_path)
    assert torment(files, Plan(kills=8, seed=20)), files.errors.read_text()
    verdict = judge(asyncio.run(read(files)))
    assert (verdict.stranded, verdict.untrue, verdict.twice) == ([], [], [])
    assert verdict.ends["completed"] > 0
    assert verdict.ends["compensated"] > 0
