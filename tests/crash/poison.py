"""Give poison to workers and to services: each dose is set aside with a reason, and everybody else's work is done.

Owns the supervisor, which starts again whatever has ended and kills whatever does not tick, as a platform would; and
the verdict. Run as `python -m tests.crash.poison`; the exit status is 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import select
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from atone._participant.suspects import Suspects
from atone._runtime.caution import Caution
from atone.testing.postgres import postgres_server
from tests.crash.forks import Broken, Forked, Tell
from tests.crash.kill_lives import make_store
from tests.crash.kills import make_database
from tests.crash.poison_kinds import DEADLY, ENDLESS, EVERYTHING, HARMLESS, RAISED, RETURNED
from tests.crash.poison_lives import NEIGHBOUR, Dose, Farm, Workshop

NEIGHBOURS = 20
STUCK_SECONDS = 3.0
RUN_SECONDS_MAX = 240


@dataclass
class Ward:
    """What a supervisor saw."""

    ended: int = 0
    stuck: int = 0
    alive: int = 0
    told: list[dict[str, Any]] = field(default_factory=list)


def supervise(works: Sequence[Callable[[Tell], None]], watch: Callable[[Tell], None], patience: float) -> Ward:
    """Keep processes at work until the one that watches has seen enough."""
    ward, begun = Ward(), monotonic()
    watcher = Forked(watch, seconds_max=RUN_SECONDS_MAX)
    lives = [Forked(work, seconds_max=RUN_SECONDS_MAX) for work in works]
    heard = [monotonic()] * len(lives)
    try:
        while watcher.status is None:
            for one in select.select([watcher, *lives], [], [], 0.2)[0]:
                one.hear(0.0)
            for at, life in enumerate(lives):
                if life.status is not None:
                    ward.ended += 1
                    lives[at], heard[at] = Forked(works[at], seconds_max=RUN_SECONDS_MAX), monotonic()
                elif life.told:
                    life.told.clear()
                    heard[at] = monotonic()
                elif monotonic() > heard[at] + STUCK_SECONDS:
                    ward.stuck += 1
                    life.signal(signal.SIGKILL)
                    heard[at] = monotonic()
            if monotonic() > begun + patience:
                raise Broken(f"not everything was settled in {patience:.0f} s, and {ward.ended} processes ended")
        if watcher.status != 0:
            raise Broken(f"the watcher ended with {watcher.status}: {watcher.told[-1]['broke']}")
        ward.alive = sum(life.status is None for life in lives)
        ward.told = watcher.told
    finally:
        for one in (watcher, *lives):
            one.close()
    return ward


@dataclass
class Verdict:
    """What came of one run, and what is wrong with it. `reasons` are what a person reads, by dose."""

    name: str
    wrong: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def saw(self, ward: Ward, workers: int, deadly: int) -> None:
        """Note what became of the processes."""
        self.figures |= {"processes_ended": ward.ended, "processes_stuck": ward.stuck}
        if ward.alive != workers:
            self.wrong.append(f"{self.name}: only {ward.alive} of {workers} processes are at work in the end")
        if ward.ended + ward.stuck < deadly:
            self.wrong.append(f"{self.name}: {ward.ended} processes ended, so the deadly doses were not taken")

    def expect(self, dose: str, reason: str | None) -> None:
        """Note the reason for which a dose was set aside."""
        words = EVERYTHING[dose.partition("/")[0]][1]
        if reason is None:
            self.wrong.append(f"{self.name}: {dose} was not set aside")
        elif words not in reason or len(reason) > 4000:
            self.wrong.append(f"{self.name}: {dose} was set aside without {words!r}: {reason[:500]}")
        else:
            self.reasons[dose] = reason[:300]


def sagas(folder: Path, url: str | None, patience: float, workers: int = 3) -> Verdict:
    """Give each dose to a saga, on the event loop and in a thread; a fleet has to finish all the others."""
    verdict, farm = Verdict("sagas on " + ("sqlite" if url is None else "postgres")), Farm(folder, url)
    if url is None:
        with Forked(lambda _tell: make_store(folder / "sagas.db")) as made:
            made.wait()
    doses = {f"{kind}/{place}": Dose(kind, place == "loop") for kind in EVERYTHING for place in ("loop", "thread")}
    del doses["leaks/thread"]
    bitten = list(doses.items())
    around = [(f"{NEIGHBOUR}-{at}", Dose(NEIGHBOUR, on_loop=bool(at % 2))) for at in range(NEIGHBOURS)]
    with Forked(farm.begin([*around[::2], *bitten, *around[1::2]])) as begun:
        begun.wait()
    ward = supervise([farm.work] * workers, farm.watch, patience)
    verdict.saw(ward, workers, deadly=3 * len(DEADLY))
    found = {one["saga"]: one for one in ward.told}
    for dose, given in doses.items():
        one = found[dose]
        if given.kind in HARMLESS:
            if one["status"] != "completed":
                verdict.wrong.append(f"{verdict.name}: {dose} is {one['status']}: {one['told']}")
        else:
            is_aside = one["status"] in ("needs_attention", "compensated") and one["owner"] is None
            verdict.expect(dose, one["told"] if is_aside else None)
    for saga_id, _ in around:
        if found[saga_id]["status"] != "completed":
            verdict.wrong.append(f"{verdict.name}: {saga_id} is {found[saga_id]['status']}")
    verdict.figures |= {"doses": len(doses), "neighbours": len(around), **Counter(o["status"] for o in found.values())}
    return verdict


def handlers(folder: Path, patience: float, *, on_loop: bool, workers: int = 2) -> Verdict:
    """Give each dose to a participant's handler; a handler in a thread that never ends can't be stopped by anybody."""
    verdict = Verdict("handlers " + ("on the loop" if on_loop else "in threads"))
    kinds = {**RAISED, **RETURNED, **DEADLY, **(ENDLESS if on_loop else {}), **(HARMLESS if on_loop else {})}
    shop = Workshop(folder, on_loop)
    around = [(f"{NEIGHBOUR}-{at}", NEIGHBOUR) for at in range(NEIGHBOURS)]
    with Forked(shop.begin([*around[::2], *[(kind, kind) for kind in kinds], *around[1::2]])) as begun:
        begun.wait()
    ward = supervise([shop.work] * workers, shop.watch(len(kinds) + len(around)), patience)
    verdict.saw(ward, workers, deadly=5 * len(DEADLY))  # one death may have been of both
    parked = {one["parked"]: one["reason"] for one in ward.told if "parked" in one}
    did = Counter(one["did"] for one in ward.told if "did" in one)
    for kind in kinds:
        if kind in HARMLESS:
            if did.pop(kind, 0) != 1:
                verdict.wrong.append(f"{verdict.name}: {kind} was not done once")
        else:
            verdict.expect(kind, parked.pop(kind, None))
    if parked or did != Counter(saga_id for saga_id, _ in around):
        verdict.wrong.append(f"{verdict.name}: besides, {parked} were set aside, and {did} were done")
    verdict.figures |= {"doses": len(kinds), "neighbours": len(around), "set_aside": len(verdict.reasons)}
    return verdict


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description="Give poison to workers and services.")
    parser.add_argument("--only", choices=["sqlite", "postgres", "threads", "loop"])
    parser.add_argument("--without", choices=["caution", "suspicion"], help="break what guards the neighbours")
    parser.add_argument("--patience", type=float, default=RUN_SECONDS_MAX, help="seconds until all has to be settled")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    parser.add_argument("--reasons", action="store_true", help="print what a person reads of each dose")
    options = parser.parse_args()
    folder, begun = Path(tempfile.mkdtemp(prefix="atone-poison-")), monotonic()
    gc.freeze()
    if options.without is not None:
        _break(options.without)
    try:
        verdicts = _all(folder, options.only, options.patience)
    except Broken as broken:
        print(f"{broken}\nEverything is kept in {folder}", file=sys.stderr)
        return 2
    for verdict in verdicts:
        for wrong in verdict.wrong:
            print(wrong, file=sys.stderr)
        for dose, reason in verdict.reasons.items() if options.reasons else ():
            print(f"{verdict.name}: {dose}: {reason}")
    is_wrong = any(verdict.wrong for verdict in verdicts)
    if not is_wrong:
        shutil.rmtree(folder)
    line = {"test": "poison", **{verdict.name: verdict.figures for verdict in verdicts}, "holds": not is_wrong}
    line |= {"seconds": round(monotonic() - begun, 1), "python": platform.python_version()}
    print(json.dumps(line) if options.json else ", ".join(f"{name} {value}" for name, value in line.items()))
    return 1 if is_wrong else 0


def _break(what: str) -> None:
    """Take away what guards the neighbours of poison, so that a test can see it missed."""
    anyhow: Any = Caution if what == "caution" else Suspects
    if what == "caution":
        anyhow.admits = lambda *_: True
    else:
        anyhow.check = lambda *_: None


def _all(folder: Path, only: str | None, patience: float) -> list[Verdict]:
    verdicts: list[Verdict] = []
    for name in ("sqlite", "postgres", "threads", "loop"):
        if only not in (None, name):
            continue
        place = folder / name
        place.mkdir()
        if name == "postgres":
            with postgres_server(settings={"fsync": "off"}) as server:
                verdicts.append(sagas(place, make_database(server, "poison"), patience))
        elif name == "sqlite":
            verdicts.append(sagas(place, None, patience))
        else:
            verdicts.append(handlers(place, patience, on_loop=name == "loop"))
    return verdicts


if __name__ == "__main__":
    sys.exit(main())
