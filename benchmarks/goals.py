"""The goals, a fixed list, each beside what was measured for it: one that was not measured does not hold.

Owns the list and what counts as held. Must not leave a goal out because a file or a contender is not there. Used by
`page`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.measurements import Line, Measured, is_kept
from benchmarks.peers.catalogue import PEER_BY_NAME

NOT_MEASURED = "not measured"
SAGAS = 1_000_000
# A median of a call on a full store, over the one on an empty store, above which it is not called flat.
FLAT = 1.25
WORKERS = (1, 2, 4)


@dataclass(frozen=True)
class Goal:
    """One goal: what is looked at, what it has to be, what was found, and whether that will do."""

    what: str
    wanted: str
    measured: str = NOT_MEASURED
    held: bool = False


def goals() -> list[Goal]:
    """Return all of them."""
    return [
        _of_the_floor("order", 100, 0.5),
        _of_the_floor("order", 1, 0.8),
        _of_the_floor("compensate", 100, 0.5),
        _times(10, "Restate", ("restate", "restate-workers")),
        _times(50, "DBOS", ("dbos", "dbos-threads")),
        _throughput_at_scale(),
        _flat("starts", ("start",)),
        _flat("looks and lists", ("look", "list")),
        _flat("claims", ("claim",)),
        _shared(),
        _recovery(),
        _repeated(),
        _below(_waiting(), "memory per waiting saga", "memory_bytes_per_saga", 1024, "bytes"),
        _below(_lines("import-time"), "`import atone` over a bare interpreter", "import_ms", 100, "ms"),
    ]


def _lines(name: str, **wanted: object) -> list[Line]:
    if not is_kept(name):
        return []
    return [line for line in Measured(name).lines if all(line.get(key) == one for key, one in wanted.items())]


def _spread(line: Line, name: str, digits: int = 2) -> str:
    value, low, high = (f"{line[one]:,.{digits}f}" for one in (name, f"{name}_min", f"{name}_max"))
    return f"{value} ({low}-{high})"


def _of_the_floor(workload: str, inflight: int, least: float) -> Goal:
    what, wanted = f"share of the floor, `{workload}`, {inflight} in flight", f"at least {least:g}"
    for line in _lines("throughput-postgres", workload=workload, inflight=inflight):
        return Goal(what, wanted, _spread(line, "ratio"), line["ratio"] >= least)
    return Goal(what, wanted)


def _times(least: int, title: str, names: Sequence[str]) -> Goal:
    """Return the goal against the fastest way to set a peer up: that is known only when all were measured."""
    what, wanted = f"times {title}, `order`, 100 in flight", f"at least {least}"
    lines = {name: line for name in names for line in _lines("compare", workload="order", inflight=100, contender=name)}
    rated = [line for line in lines.values() if "atone_times" in line]
    missing = [PEER_BY_NAME[name].title for name in names if "atone_times" not in lines.get(name, {})]
    if not rated:
        return Goal(what, wanted)
    least_of = min(rated, key=lambda line: line["atone_times"])
    told = f"{_spread(least_of, 'atone_times', 1)}, {PEER_BY_NAME[least_of['contender']].title}"
    told += "".join(f"; {one}: {NOT_MEASURED}" for one in missing)
    return Goal(what, wanted, told, not missing and least_of["atone_times"] >= least)


def _throughput_at_scale() -> Goal:
    what = f"throughput with {SAGAS:,} finished sagas, times an empty store's"
    for line in _lines("scale", part="throughput"):
        measured = _spread(line, "ratio") + _fewer(int(line["finished_sagas"]))
        held = line["ratio"] >= line["goal_ratio"] and line["finished_sagas"] >= SAGAS
        return Goal(what, f"at least {line['goal_ratio']:g}", measured, held)
    return Goal(what, "at least 0.9")


def _flat(what: str, kinds: Sequence[str]) -> Goal:
    """Return whether the slowest of some calls takes as long on a full store as on the empty one beside it."""
    what = f"slowest of {what} with {SAGAS:,} finished sagas, median times an empty store's"
    lines = [line for line in _lines("scale", part="latency") if str(line["call"]).partition("_")[0] in kinds]
    if not lines:
        return Goal(what, f"at most {FLAT:g}")
    sagas = max(int(line["finished_sagas"]) for line in lines)
    worst = max((line for line in lines if line["finished_sagas"] == sagas), key=lambda line: line["ratio"])
    measured = f"{worst['ratio']:.2f}, {str(worst['call']).replace('_', ' ')}{_fewer(sagas)}"
    return Goal(what, f"at most {FLAT:g}", measured, worst["ratio"] <= FLAT and sagas >= SAGAS)


def _fewer(sagas: int) -> str:
    return f"; with {sagas:,}" if sagas < SAGAS else ""


def _shared() -> Goal:
    what = f"sagas lost, steps done twice or missing, {', '.join(map(str, WORKERS))} worker processes"
    lines = [line for workers in WORKERS for line in _lines("scale", part="workers", workers=workers)]
    if len(lines) < len(WORKERS):
        return Goal(what, "0")
    wrong = sum(
        line["started"] - line["completed"] + line["journals_wrong"] + line["steps_called_twice"]
        + line["steps_missing"]
        for line in lines
    )  # fmt: skip
    return Goal(what, "0", str(wrong), wrong == 0)


def _recovery() -> Goal:
    what = "from a killed worker's lease's end to all of its 500 sagas finished"
    for line in _lines("recovery", sagas=500):
        low, high = line["after_lease_min"], line["after_lease_max"]
        measured = f"{line['after_lease_seconds']:.2f} s ({low:.2f}-{high:.2f})"
        return Goal(what, "under 1 s", measured, line["after_lease_seconds"] < 1)
    return Goal(what, "under 1 s")


def _repeated() -> Goal:
    what = "steps repeated that were not in flight, or never called, after these kills"
    for line in _lines("recovery", sagas=500):
        wrong = int(line["other_steps_repeated"]) + int(line["steps_missing"])
        return Goal(what, "0", str(wrong), wrong == 0)
    return Goal(what, "0")


def _waiting() -> list[Line]:
    return _lines("scale", part="waiting") + _lines("waiting")


def _below(lines: Sequence[Line], what: str, figure: str, most: int, unit: str) -> Goal:
    wanted = f"under {most:,} {unit}"
    for line in lines[:1]:
        return Goal(what, wanted, f"{line[figure]:,.0f} {unit}", line[figure] < most)
    return Goal(what, wanted)
