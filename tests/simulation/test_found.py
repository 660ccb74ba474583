"""What the simulation has found: each schedule as it was drawn then, and a sentence about what was wrong.

They are kept as data, because another draw would give the seed another meaning.
"""

from __future__ import annotations

import pytest

from tests.simulation.scenario import Blow, Play, Scenario, Serving, Strike
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
    "a reply to a saga that is over was set aside because the store was away while it was judged": Scenario(
        seed=2212,
        nodes=2,
        starters=frozenset(),
        plays=(Play(shape="commands", saga_id="c0", nodes=(0,)),),
        blows=(
            Blow(what=Strike.LEAVE, node=2, life=2, point=1, seconds=2.7753906318970807),
            Blow(what=Strike.KILL, node=2, life=2, point=129, seconds=4.690367738106817),
            Blow(what=Strike.KILL, node=2, life=0, point=131, seconds=2.6621611446775906),
        ),
        shares={
            "unsent": 0.026878798616251198,
            "unheard": 0.031354953647053894,
            "late": 0.01731646565737951,
            "slow": 0.040616854515767936,
            "slow_seconds": 1.0,
            "late_seconds": 30.0,
            "travel_seconds": 0.0,
        },
        badly=True,
        slow_seconds=0.5,
        strict=False,
        ordered=False,
        skews=(0.0, 0.0, 3600.0),
        servings=(Serving(shape="commands", dance="", roles=()),),
        told=True,
    ),
}


@pytest.mark.parametrize("what", FOUND)
def test_what_was_found_is_mended(what: str) -> None:
    """The same schedule, faults and all, breaks nothing any more."""
    assert run_scenario(FOUND[what]).wrong == ()
