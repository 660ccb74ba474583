"""One search in an interpreter of its own, for whoever has laid out a broken core for it.

`python -m tests.model.alone '{"plan": "linear", "faults": 1}'` prints what it found as one line of JSON; `rule` names
one of `rules.py` to break, `states` is where it stops. Called by `mutants.py`.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Any

from tests.model.rules import ATONE
from tests.model.scenarios import Scenario
from tests.model.search import Found, Search


def search(plan: str, faults: int, *, rule: str | None = None, states: int = 300_000, **more: Any) -> Found:
    """Search one scenario, with one rule broken if it is named."""
    rules = ATONE if rule is None else ATONE._replace(**{rule: False})
    if "asks" in more:
        more["asks"] = tuple(more["asks"])
    scenario = Scenario(plan, faults, **more)
    return Search(scenario.name, scenario.moves(rules), states).run()


if __name__ == "__main__":
    print(json.dumps(dataclasses.asdict(search(**json.loads(sys.argv[1])))))
