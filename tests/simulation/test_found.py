"""What the simulation has found: each schedule as it was drawn then, and a sentence about what was wrong.

They are kept as data, because another draw would give the seed another meaning. What could be said more shortly by a
test of the runtime is kept there.
"""

from __future__ import annotations

import pytest

from tests.simulation.scenario import Blow, Play, Scenario, Strike
from tests.simulation.schedule import run_scenario

FOUND = {
    "a saga ended with an owner, because a fact still waited when its last turn was decided": Scenario(
        seed=2381,
        nodes=1,
        starters=frozenset(),
        plays=(
            Play(shape="idempotent_step", saga_id="s0", nodes=(0,)),
            Play(shape="drawn 2", saga_id="s1", nodes=(0,)),
        ),
        blows=(
            Blow(what=Strike.KILL, node=0, life=2, point=8, seconds=0.6915870405926392),
            Blow(what=Strike.KILL, node=0, life=0, point=158, seconds=5.425350927525883),
            Blow(what=Strike.OUTAGE, node=0, life=0, point=263, seconds=3.04976582906446),
        ),
        shares={},
        badly=False,
        slow_seconds=0.0,
        strict=True,
        ordered=False,
        skews=(0.0,),
        servings=(),
        told=False,
        thread_seconds=0.0,
    ),
}


@pytest.mark.parametrize("what", FOUND)
def test_what_was_found_is_mended(what: str) -> None:
    """The same schedule, faults and all, breaks nothing any more."""
    assert run_scenario(FOUND[what]).wrong == ()
