"""Schedules hold, replay to the byte, and find what is planted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.campaign import campaign, report, some
from tests.simulation.planted import PLANTED, planted
from tests.simulation.scenario import drawn
from tests.simulation.schedule import run

ROOT = Path(__file__).parents[2]
SMOKE = 200
BITES_WITHIN = 400


def test_a_few_hundred_schedules_break_no_invariant() -> None:
    """The command runs many more; these are for whoever runs the tests only."""
    tally = campaign(0, schedules=SMOKE)
    assert not tally.failed, "\n\n".join(map(report, tally.failed))
    assert tally.schedules == SMOKE
    assert tally.kills > 20
    assert tally.repeated == SMOKE // 100


def test_schedules_of_every_kind_are_drawn() -> None:
    """Commands, choreographies, events on a broker, processes that run nothing, strict ones: all come up."""
    some_drawn = [drawn(seed) for seed in range(600)]
    assert {one.shape for each in some_drawn for one in each.servings} >= {"", "commands", "commands_refused"}
    assert len({one.dance for each in some_drawn for one in each.servings}) >= 4
    assert any(each.told for each in some_drawn)
    assert any(each.starters for each in some_drawn)
    assert any(each.strict for each in some_drawn)
    assert 100 < sum(each.bare for each in some_drawn) < 200


def test_a_seed_does_the_same_in_another_process_with_another_hash_seed() -> None:
    """Nothing depends on addresses, on the order of a set, or on what ran before."""
    seeds = [next(seed for seed in range(1000) if drawn(seed).servings), 3, 5, 7]
    code = f"from tests.simulation.schedule import run; print(*(run(seed).digest for seed in {seeds}))"
    said = [
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            check=True,
            timeout=100,
        ).stdout.split()
        for hash_seed in ("1", "2")
    ]
    assert said[0] == said[1] == [run(seed).digest for seed in seeds]
    assert len(set(said[0])) == len(seeds)


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_found(bug: str) -> None:
    """Each breaks one rule of the runtime or the store; a few hundred schedules see it."""
    with planted(bug):
        found = next((verdict for seed in range(BITES_WITHIN) if (verdict := run(seed)).wrong), None)
    assert found is not None, f"{BITES_WITHIN} schedules did not see that {bug}"
    assert f"--replay {found.seed}" in report(found)


def test_a_bug_that_is_not_there_any_more_is_not_found() -> None:
    """What was planted is gone with its block."""
    with planted("hints only"):
        assert some(range(3)).violations > 0
    assert some(range(3)).violations == 0
