"""Break a rule on purpose, and see that the model check notices: which rule, in which search, after how many worlds.

Owns the list. Rules of the store, of a worker's order and of participants are those of `rules.py`; rules of the core
are changes to its source, shared with `tests/core/mutations.py`. Each runs in an interpreter of its own. Called by
`python -m tests.model --mutants` and by the suite.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from tests.core.mutants import ROOT, environment, lay_out
from tests.core.mutations import MUTANTS, Mutant

STATES_MAX = 60_000


class Planted(NamedTuple):
    """One broken rule, and the search that must notice: the smallest that does.

    `rule` is one of `rules.py`, or else `breaks` names a change to the core. `quick` ones are run by every suite.
    """

    breaks: str
    plan: str
    faults: int = 1
    rule: str | None = None
    quick: bool = False

    @property
    def where(self) -> str:
        """Whose rule it is."""
        return "core" if self.rule is None else _WHOSE[self.rule]

    @property
    def change(self) -> Mutant | None:
        """The change to the core's source, if that is what it is."""
        if self.rule is not None:
            return None
        (found,) = [one for one in MUTANTS if one.breaks == self.breaks]
        return found


class Judged(NamedTuple):
    """What became of a mutant: how many worlds it took to notice, and what broke there; None if it survives."""

    planted: Planted
    states: int
    seconds: float
    broken: str | None

    def __str__(self) -> str:
        one = self.planted
        how = "SURVIVES" if self.broken is None else "killed  "
        search = f"{one.plan}/{one.faults}"
        seen = f"{self.states:>6,} states {self.seconds:>5.1f} s"
        what = "" if self.broken is None else f"  <- {self.broken.partition(': SagaState')[0][:70]}"
        return f"{how} {one.where:11} {one.breaks:66} {search:16} {seen}{what}"


_WHOSE = {
    "compare_and_swap": "store",
    "fence": "store",
    "commit_id": "store",
    "finds_my_own": "store",
    "takes_from_the_dead": "store",
    "wakes_on_request": "store",
    "refuses_after_end": "store",
    "commit_first": "worker",
    "sends_with_the_turn": "worker",
    "sends_again": "worker",
    "keeps_the_fact": "worker",
    "reads_after_conflict": "worker",
    "tells_lost": "worker",
    "live_stay_live": "worker",
    "nothing_begins_late": "worker",
    "gives_up_what_is_over": "worker",
    "keys": "participant",
    "barrier": "participant",
    "grace": "participant",
}

STORE = (
    Planted("the journal's key is a compare-and-swap", "linear", 1, "compare_and_swap", quick=True),
    Planted("a worker that was declared dead writes nothing more", "linear", 1, "fence", quick=True),
    Planted("a commit that stands there under its id is applied", "linear", 1, "commit_id", quick=True),
    Planted("a claim finds what is mine without my knowing", "linear", 1, "finds_my_own", quick=True),
    Planted("what the dead have left is taken over", "linear", 1, "takes_from_the_dead", quick=True),
    Planted("a request makes a saga due that nobody owns", "once", 2, "wakes_on_request"),
    Planted("nothing is appended to what is over", "command", 1, "refuses_after_end", quick=True),
)
WORKER = (
    Planted("nothing is performed before it is durable", "linear", 1, "commit_first", quick=True),
    Planted("a message goes with its turn or not at all", "command", 1, "sends_with_the_turn", quick=True),
    Planted("a commit without an answer is sent again, not read", "linear", 1, "sends_again", quick=True),
    Planted("after a conflict the fact is decided again", "linear", 1, "keeps_the_fact", quick=True),
    Planted("after a conflict the saga is read again", "linear", 1, "reads_after_conflict", quick=True),
    Planted("open attempts of a saga that is claimed are lost", "linear", 1, "tells_lost", quick=True),
    Planted("on a reload, what runs here stays live", "linear", 1, "live_stay_live", quick=True),
    Planted("no call begins after its hard deadline", "once", 2, "nothing_begins_late", quick=True),
    Planted("what is over is given up in the row that says so", "command", 1, "gives_up_what_is_over", quick=True),
)
PARTICIPANT = (
    Planted("a key is honoured", "linear", 1, "keys", quick=True),
    Planted("a barrier refuses what comes twice or too late", "once_back", 1, "barrier", quick=True),
    Planted("a call can't land later than deadline and grace", "once", 2, "grace", quick=True),
)
CORE = (
    Planted("going backward, an unknown step is compensated", "once", 2, quick=True),
    Planted("a rejection clears its own attempt only", "linear", 2),
    Planted("not landed spares no compensation", "probe", 2),
    Planted("not landed turns no pivot back", "once_probed"),
    Planted("not landed permits a repeat", "once_probed"),
    Planted("an at-most-once step is not repeated", "once", quick=True),
    Planted("an at-most-once step is probed when nothing can arrive any more", "once_probed"),
    Planted("a lost attempt is unknown", "once_probed", quick=True),
    Planted("never forward again", "once", quick=True),
    Planted("the direction is decided once", "fan", 2),
    Planted("the end of a call decides nothing after the turn", "fan", 2),
    Planted("the list stands in the decision", "once", quick=True),
    Planted("a step that is being probed at the turn is on the list", "probe", 2),
    Planted("a sibling that ends in doubt joins the list", "fan", 2),
    Planted("a late success joins the list", "once", quick=True),
    Planted("running siblings are waited for", "once", quick=True),
    Planted("reverse order", "once", quick=True),
    Planted("a failed compensation is never COMPENSATED", "event"),
    Planted("an unknown step is undone when nothing can land any more", "once", 2),
    Planted("an unknown pivot is never guessed", "pivot", 2),
    Planted("a pivot in doubt that is rejected is not turned back", "pivot", 2),
    Planted("a cancel turns no pivot in doubt back", "pivot", 2),
    Planted("a deadline or a cancel turns no pivot under way back", "pivot"),
    Planted("no pivot starts past a durable cancel", "once"),
    Planted("a deadline before the pivot turns the saga back", "deadline"),
    Planted("no usual turn overtakes a request", "linear"),
    Planted("a saga that undoes is not a usual one", "linear"),
    Planted("a command that nobody answers is given up", "command"),
    Planted("somebody looks when a reply is overdue", "command_bare"),
    Planted("nothing is held while a reply is awaited", "command_bare"),
)
ALL: tuple[Planted, ...] = (*STORE, *WORKER, *PARTICIPANT, *CORE)


def judge(planted: Planted) -> Judged:
    """Run the search that must notice, in an interpreter of its own with the rule broken."""
    asked: dict[str, Any] = {"plan": planted.plan, "faults": planted.faults, "states": STATES_MAX}
    if planted.rule is not None:
        asked["rule"] = planted.rule
    with tempfile.TemporaryDirectory(prefix="atone-model-") as name:
        folder = ROOT if planted.rule is not None else lay_out(Path(name), planted.change, "tests/model")
        command = [sys.executable, "-m", "tests.model.alone", json.dumps(asked)]
        ran = subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        raise RuntimeError(f"the search for {planted.breaks!r} could not run:\n{ran.stderr[-3000:]}")
    found = json.loads(ran.stdout)
    return Judged(planted, found["states"], found["seconds"], found["broken"])


def judge_all(mutants: Iterable[Planted], processes: int) -> Iterator[Judged]:
    """Judge mutants, so many at once, in the order of the list."""
    with ThreadPoolExecutor(processes) as pool:
        yield from pool.map(judge, mutants)


def table(mutants: Iterable[Planted], processes: int) -> int:
    """Print what became of each mutant and return how many survive."""
    judged: list[Judged] = []
    for one in judge_all(mutants, processes):
        judged.append(one)
        print(one, flush=True)
    alive = sum(one.broken is None for one in judged)
    print(f"{len(judged)} mutants, {alive} survive")
    return alive
