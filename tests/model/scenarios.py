"""What is searched: each shape of the law with so many faults in it, and how large that is.

Owns the lists: `LARGE` is what `python -m tests.model` goes through, to the end of each; `DEEP` takes more faults, or
three workers. A cancel, a drain and an event that somebody asks for count as faults too.
"""

from __future__ import annotations

from typing import NamedTuple

from tests.core.plans import PLANS
from tests.model.moves import Moves
from tests.model.rules import ATONE, Rules

ALL = ("cancel", "drain", "event")


class Scenario(NamedTuple):
    """One search: a plan, how many faults, what people ask for, how many workers."""

    plan: str
    faults: int
    asks: tuple[str, ...] = ALL
    workers: int = 2

    @property
    def name(self) -> str:
        """What the report calls it."""
        return f"{self.plan}/{self.faults}" + (f"x{self.workers}" if self.workers != 2 else "")

    def moves(self, rules: Rules = ATONE) -> Moves:
        """Return the moves of this scenario."""
        return Moves(PLANS[self.plan], budget=self.faults, workers=self.workers, asks=self.asks, rules=rules)


_ROWS = ("linear", "barrier", "pivot", "probe", "once", "once_probed", "once_back", "irreversible")
_WAITS = ("when", "delay", "event", "rollback_deadline")
_COMMANDS = ("command", "command_pivot", "command_bare")
_ONCE = (
    "fan",
    "fan_probe",
    "fan_halt",
    "fan_pivot",
    "fan_after",
    "fan_command",
    "deadline",
    "command_once",
    "step_deadline",
)
# The longest first, so that all processes end at about the same time.
LARGE = (
    *(Scenario(plan, 2) for plan in ("probed_pivot", "when", "probe")),
    *(Scenario(plan, 2) for plan in (*_ROWS, *_WAITS, *_COMMANDS) if plan not in ("when", "probe")),
    *(Scenario(plan, 1) for plan in _ONCE),
)
DEEP = (
    *(Scenario(plan, 3) for plan in ("once", "command_bare")),
    *(Scenario(plan, 2, workers=3) for plan in (*_ROWS, "probed_pivot", *_WAITS, *_COMMANDS)),
    *(Scenario(plan, 2) for plan in _ONCE),
)


def chosen(plans: list[str] | None, faults: int | None, *, deep: bool) -> list[Scenario]:
    """Return the searches that were asked for: of all plans or of some, with as many faults as listed or as said."""
    listed = [one for one in (DEEP if deep else LARGE) if plans is None or one.plan in plans]
    names = [one.plan for one in listed]
    listed += [Scenario(plan, 1) for plan in plans or () if plan not in names]
    return listed if faults is None else sorted({one._replace(faults=faults) for one in listed})
