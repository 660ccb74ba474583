"""The sagas that are killed at each of their points: a shape, what happens in it, and how it may end.

Owns the list. Must not know how or when anything dies. Used by `kills` and `zombies`.
"""

from __future__ import annotations

from typing import NamedTuple

from atone import Saga
from tests.crash.definitions import Branching, Graceful, Pivoted, Script, Straight, Waiting


class Case(NamedTuple):
    """One saga to be run, killed and run on."""

    name: str
    shape: type[Saga[Script]]
    script: Script


CASES: tuple[Case, ...] = (
    Case("straight", Straight, Script()),
    Case("straight-rejected", Straight, Script({"s09": "reject"})),
    Case("straight-fails-everywhere", Straight, Script(
        {"s02": "raise before", "s04": "raise after", "s08": "land, then reject"},
        {"s03": "raise before", "s06": "raise after"},
    )),
    Case("pivoted", Pivoted, Script({"s07": "raise after"})),
    Case("pivoted-rejected", Pivoted, Script({"s05": "raise always"})),
    Case("branching", Branching, Script()),
    Case("branching-rejected", Branching, Script({"s07": "reject"}, {"s03": "raise after"})),
    Case("graceful", Graceful, Script({"s05": "land, then reject"})),
    Case("waiting", Waiting, Script(event_after=0.02)),
    Case("cancelled", Straight, Script(cancel_after=0.02)),
)  # fmt: skip
