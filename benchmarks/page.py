"""The page docs/benchmarks.md: its figures are put in from what was measured, its words are written by hand.

Owns the blocks between the marks `<!-- NAME: from the measured files -->` and `<!-- end -->`, and the plot beside it.
Must not measure unless asked to: `python -m benchmarks.page` writes the page anew, and `--measure compare,waiting`
measures first; `--rounds 5 --seconds 8 --workload order --inflight 100` go on to those that have such options, in place
of their own. A test holds page and files together.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from typing import TypeAlias, cast

from benchmarks import measurements
from benchmarks.chart import Panel, Row, number, plot
from benchmarks.goals import goals
from benchmarks.measurements import COMMANDS, KEPT, Line, Measured, is_kept
from benchmarks.peers.catalogue import CONTENDERS, PEER_BY_NAME, PEERS
from benchmarks.runs import ROOT

PAGE = ROOT / "docs" / "benchmarks.md"
PLOT = KEPT / "compare.svg"
_BLOCK = re.compile(r"(<!-- ([a-z-]+): from the measured files -->\n).*?(<!-- end -->)", re.DOTALL)

Block: TypeAlias = Callable[[], list[str]]


def page(text: str) -> str:
    """Return the page with its blocks made anew; those that nothing was measured for stay as they are."""

    def renewed(found: re.Match[str]) -> str:
        head, name, end = found.groups()
        block = BLOCKS[name]
        # A goal that nothing was measured for is told as such.
        is_there = name == "goals" or is_kept(_file_of(name))
        return f"{head}{chr(10).join(block())}\n{end}" if is_there else found.group(0)

    return _BLOCK.sub(renewed, text)


def _file_of(block: str) -> str:
    return {"peers": "compare", "versions": "compare"}.get(block, block)


def table(head: str, rows: list[list[str]]) -> list[str]:
    """Return the lines of a table; `head` has its columns between bars."""
    columns = [part.strip() for part in head.split("|")]
    return [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", *[f"| {' | '.join(row)} |" for row in rows]]


def _spread(line: Line, name: str, form: Callable[[float], str] = number) -> str:
    return f"{form(line[name])} ({form(line[f'{name}_min'])}-{form(line[f'{name}_max'])})"


def _ratio(value: float) -> str:
    return f"{value:.2f}"


def _commands(measured: Measured) -> list[str]:
    return [*[f"`{command}`" + ("  " if at + 1 < len(measured.commands) else "") for at, command in
              enumerate(measured.commands)], ""]  # fmt: skip


def _throughput(name: str) -> list[str]:
    measured = Measured(name)
    versions = measured.lines[0]
    on = f"PostgreSQL {versions['postgresql']}, asyncpg {versions['asyncpg']}" if "postgresql" in versions else ""
    on = on or f"SQLite {versions['sqlite']}"
    told = f"{versions['cpus']} cores, Python {versions['python']}, {on}; rounds: {versions['rounds']}"
    cost = "server" in str(sorted(versions)) and "wal_bytes_per_saga" in versions
    return [
        *_commands(measured),
        f"{told} of {versions['seconds']:g} s; load {_loads(measured.lines)}. Median (lowest-highest).",
        "",
        *table(
            "workload | in flight | sagas/s | floor/s | ratio | p50 / p99 ms | commits/saga | CPU us/saga (floor)"
            + (" | server CPU us/saga (floor) | WAL bytes/saga (floor)" if cost else ""),
            [_throughput_row(line, cost) for line in measured.lines],
        ),
    ]


def _throughput_row(line: Line, cost: bool) -> list[str]:
    row = [
        str(line["workload"]),
        str(line["inflight"]),
        _spread(line, "sagas_per_second"),
        _spread(line, "floor_per_second"),
        _spread(line, "ratio", _ratio),
        f"{line['p50_ms']:.1f} / {line['p99_ms']:.1f}",
        f"{line['commits_per_saga']:g}",
        f"{line['client_cpu_us_per_saga']:.0f} ({line['floor_client_cpu_us_per_saga']:.0f})",
    ]
    if cost:
        row.append(f"{line['server_cpu_us_per_saga']:.0f} ({line['floor_server_cpu_us_per_saga']:.0f})")
        row.append(f"{line['wal_bytes_per_saga']:,.0f} ({line['floor_wal_bytes_per_saga']:,.0f})")
    return row


def _loads(lines: list[Line]) -> str:
    loads = [float(line["load_average"]) for line in lines]
    return f"{min(loads):.1f} to {max(loads):.1f}"


def _title(contender: str) -> str:
    return {"atone": "**Atone**", "floor": "the floor (no engine)"}.get(contender) or PEER_BY_NAME[contender].title


def _compare() -> list[str]:
    measured = Measured("compare")
    first = measured.lines[0]
    parts = [
        *_commands(measured),
        (
            f"{first['cpus']} cores, {first['system']}, PostgreSQL {first['postgresql']}; rounds: {first['rounds']} of "
            f"{first['seconds']:g} s; load {_loads(measured.lines)}. Median (lowest-highest)."
        ),
        "",
        "![Sagas a second, by contender, on a logarithmic scale](benchmarks/compare.svg)",
    ]
    for workload, inflight in _levels(measured):
        lines = _ranked(measured, workload, inflight)
        parts += [
            "",
            f"`{workload}`, {inflight} in flight:",
            "",
            *table(
                "contender | sagas/s | Atone has times as many | p50 / p99 ms | CPU us/saga, client + server"
                " | WAL bytes/saga | transactions/saga",
                [_compare_row(line) for line in lines],
            ),
        ]
    return parts


def _levels(measured: Measured) -> list[tuple[str, int]]:
    return list(dict.fromkeys((str(line["workload"]), int(line["inflight"])) for line in measured.lines))


def _ranked(measured: Measured, workload: str, inflight: int) -> list[Line]:
    lines = [one for one in measured.lines if (one["workload"], one["inflight"]) == (workload, inflight)]
    return sorted(lines, key=lambda line: -line.get("sagas_per_second", 0.0))


def _compare_row(line: Line) -> list[str]:
    title = _title(line["contender"])
    if "not_measured" in line:
        return [title, f"not measured: {line['not_measured']}", "", "", "", "", ""]
    return [
        title,
        _spread(line, "sagas_per_second"),
        "" if line["contender"] == "atone" or "atone_times" not in line else _spread(line, "atone_times"),
        f"{line['p50_ms']:,.1f} / {line['p99_ms']:,.1f}",
        f"{line['client_cpu_us_per_saga']:,.0f} + {line['server_cpu_us_per_saga']:,.0f}",
        f"{line['wal_bytes_per_saga']:,.0f}" if "wal_bytes_per_saga" in line else "",
        f"{line['transactions_per_saga']:.2f}" if "transactions_per_saga" in line else "",
    ]


def drawing() -> str:
    """Return the plot of the comparison."""
    measured = Measured("compare")
    panels: list[Panel] = []
    for workload, inflight in _levels(measured):
        rows = [_dot(line) for line in _ranked(measured, workload, inflight) if "sagas_per_second" in line]
        words = "third step rejected, two undone" if workload == "compensate" else "three steps"
        panels.append(Panel(f"{inflight} in flight, {words}", tuple(rows)))
    return plot(
        "Sagas a second, client and server on the same machine",
        "logarithmic; a dot is the median of the rounds, its line lowest to highest; the ring is no engine",
        tuple(panels),
    )


def _dot(line: Line) -> Row:
    contender = str(line["contender"])
    kind = {"atone": "own", "floor": "bound"}.get(contender, "peer")
    label = _title(contender).replace("**", "")
    rate = [float(line[f"sagas_per_second{end}"]) for end in ("", "_min", "_max")]
    return Row(label, max(rate[0], 0.1), max(rate[1], 0.1), max(rate[2], 0.1), kind)


def _peers() -> list[str]:
    return [f"- **{peer.title}**: {peer.set_up}." for peer in PEERS]


def _versions() -> list[str]:
    measured = Measured("compare")
    rows: list[list[str]] = []
    for contender in CONTENDERS:
        line = next((one for one in measured.lines if one["contender"] == contender and "versions" in one), None)
        if line is not None:
            told: Mapping[str, str] = line["versions"]
            rows.append([_title(contender), ", ".join(f"{name} {version}" for name, version in told.items())])
    return table("contender | versions", rows)


def _goals() -> list[str]:
    """Return the goals with what was measured for them, held or not."""
    rows = [[one.what, one.wanted, one.measured, "yes" if one.held else "**no**"] for one in goals()]
    return table("goal | wanted | measured | held", rows)


def _profile() -> list[str]:
    measured = Measured("profile")
    line = measured.lines[0]
    calls: Mapping[str, float] = line["calls_per_saga_by_part"]
    parts: Mapping[str, float] = line["cpu_us_per_saga_by_part"]
    rows = [[name, f"{us:.1f}", f"{calls[name]:g}" if name in calls else ""] for name, us in parts.items()]
    return [
        *_commands(measured),
        f"{line['cpu_us_per_saga']:.0f} us of CPU a saga in the client, {line['turns_per_batch']:.0f} turns a batch.",
        "What cProfile lists is kept in [benchmarks/profile.txt](benchmarks/profile.txt).",
        "",
        *table("part | us/saga | calls/saga", rows),
    ]


def _scale() -> list[str]:
    measured = Measured("scale")
    (rate,) = (line for line in measured.lines if line["part"] == "throughput")
    told = f"{rate['cpus']} cores, Python {rate['python']}, PostgreSQL {rate['postgres']}"
    rates = f"{number(rate['sagas_per_second'])} sagas/s, in an empty one {number(rate['empty_sagas_per_second'])}"
    rates += (
        f"; ratio {_spread(rate, 'ratio', _ratio)} in {rate['rounds']} rounds, goal at least {rate['goal_ratio']:g}"
    )
    wal = f"{rate['wal_bytes_per_saga']:,} bytes of WAL a saga ({rate['empty_wal_bytes_per_saga']:,})"
    with_them = f"With {rate['finished_sagas']:,} finished sagas in the store"
    return [
        *_commands(measured),
        f"{told}; load {_loads(measured.lines)}.",
        "",
        f"{with_them}: {rates}; {wal}.",
        "",
        *_latencies([line for line in measured.lines if line["part"] == "latency"]),
        "",
        *_shared([line for line in measured.lines if line["part"] == "workers"]),
        "",
        *(line for one in measured.lines if one["part"] == "waiting" for line in _waiting_rows(one)),
    ]


def _latencies(lines: list[Line]) -> list[str]:
    """Return a row for each call, a column for each size of the store; the empty store beside it was asked in turn."""
    sizes = sorted({int(line["finished_sagas"]) for line in lines})
    rows: list[list[str]] = []
    for call in dict.fromkeys(str(line["call"]) for line in lines):
        by_size = {int(line["finished_sagas"]): line for line in lines if line["call"] == call}
        cells = [
            f"{by_size[size]['p50_ms']:.2f} / {by_size[size]['p99_ms']:.1f} ({by_size[size]['ratio']:.2f})"
            for size in sizes
        ]
        rows.append([call.replace("_", " "), *cells])
    head = "call: p50 / p99 ms (times an empty store) | " + " | ".join(f"{size:,} finished" for size in sizes)
    return table(head, rows)


def _shared(lines: list[Line]) -> list[str]:
    counts = ("started", "completed", "journals_wrong", "steps_called_twice", "steps_missing")
    rows = [
        [str(line["workers"]), *(f"{line[name]:,}" for name in counts), number(line["sagas_per_second"])]
        for line in lines
    ]
    return table(f"worker processes | {' | '.join(counts).replace('_', ' ')} | sagas/s", rows)


def _recovery() -> list[str]:
    measured = Measured("recovery")
    line = measured.lines[0]
    lease = f"{line['after_lease_seconds']:.2f} s ({line['after_lease_min']:.2f}-{line['after_lease_max']:.2f})"
    kill = f"{line['after_kill_seconds']:.1f} s ({line['after_kill_min']:.1f}-{line['after_kill_max']:.1f})"
    repeated = ", ".join(sorted({str(one) for one in line["in_flight_steps_repeated"]}))
    rows = [
        ["from the lease's end to all finished", f"{lease}, goal under {line['goal_seconds']:g} s"],
        [f"from the kill, with leases of {line['lease_seconds']:g} s", kill],
        ["steps in flight that were repeated, each round", repeated],
        ["other steps that were repeated, all rounds", str(line["other_steps_repeated"])],
        ["steps that were never called, all rounds", str(line["steps_missing"])],
    ]
    lead = f"{line['sagas']:,} sagas in flight, {line['rounds']} kills; load {_loads(measured.lines)}."
    return [*_commands(measured), f"{lead} Median (lowest-highest).", "", *table("what | figure", rows)]


def _waiting() -> list[str]:
    line = Measured("waiting").lines[0]
    return [
        f"`{Measured('waiting').commands[0]}`: {line['sagas']:,} sagas wait for an event.",
        "",
        *_waiting_rows(line),
    ]


def _waiting_rows(line: Line) -> list[str]:
    cache = line["sqlite_cache_grown_bytes"] / line["sagas"]
    memory = f"{line['memory_bytes_per_saga']:.0f} bytes (goal: under 1,024)"
    if cache:
        memory += f", of which {cache:.0f} are SQLite's page cache, which is bounded"
    rows = [
        ["sagas that wait", f"{line['sagas']:,}"],
        ["memory per waiting saga", memory],
        ["sagas in memory while they wait", str(line["runners_while_waiting"])],
        ["disk per waiting saga", f"{line['disk_bytes_per_saga']:,} bytes"],
        [
            f"time to wake {line['woken']:,} of them",
            f"{line['wake_seconds']:.2f} s, of which {line['wake_sent_seconds']:.2f} s went into sending the events",
        ],
    ]
    return table("what | figure", rows)


def _import_time() -> list[str]:
    measured = Measured("import-time")
    line = measured.lines[0]
    lead = f"`{measured.commands[0]}`: `import atone` takes {line['import_ms']:.0f} ms more than a bare interpreter "
    return [
        f"{lead}(median of {line['rounds']}; lowest {line['import_min_ms']:.0f}; goal: under {line['goal_ms']:.0f})."
    ]


# What stands on every line and says nothing about one of them.
_ABOUT = {"benchmark", "store", "python", "cpus", "load_average", "postgres", "sqlite", "part"}


def _facts(name: str) -> list[str]:
    """Return tables of all that the lines say, for what has none of its own: lines of one kind as the rows of one."""
    measured = Measured(name)
    lines = _commands(measured)
    kinds: dict[tuple[str, ...], list[Line]] = {}
    for line in measured.lines:
        kinds.setdefault((str(line.get("part")), *line), []).append(line)
    for alike in kinds.values():
        told = [_folded(line) for line in alike]
        if len(told) == 1:
            lines += [*table(f"{alike[0].get('part', name)} | figure", [[*one] for one in told[0].items()]), ""]
            continue
        columns = [key for key in told[0] if len({one[key] for one in told}) > 1]
        lines += [*table(" | ".join(columns), [[one[key] for key in columns] for one in told]), ""]
    return lines[:-1]


def _folded(line: Line) -> dict[str, str]:
    """Return the line's figures as text, each with its lowest and highest if it has them."""
    folded: dict[str, str] = {}
    for key, value in line.items():
        if key in _ABOUT or key.removesuffix("_min").removesuffix("_max") in line.keys() - {key}:
            continue
        ends = [line[f"{key}_{end}"] for end in ("min", "max") if f"{key}_{end}" in line]
        folded[key.replace("_", " ")] = _fact(value) + (f" ({_fact(ends[0])}-{_fact(ends[1])})" if ends[1:] else "")
    return folded


def _fact(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(_fact(one) for one in cast("list[object]", value))
    return f"{value:,}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


BLOCKS: dict[str, Block] = {
    "throughput-sqlite": lambda: _throughput("throughput-sqlite"),
    "throughput-postgres": lambda: _throughput("throughput-postgres"),
    "compare": _compare,
    "peers": _peers,
    "versions": _versions,
    "goals": _goals,
    "profile": _profile,
    "scale": _scale,
    "recovery": _recovery,
    "waiting": _waiting,
    "import-time": _import_time,
    "telemetry": lambda: _facts("telemetry"),
    "choreography": lambda: _facts("choreography"),
}


def _options() -> tuple[list[str], dict[str, str]]:
    """Return what to measure, and the options for it."""
    parser = argparse.ArgumentParser(description="Write docs/benchmarks.md anew from what was measured.")
    parser.add_argument("--measure", default="", help=f"measure first: some of {','.join(COMMANDS)}, or all")
    for name in measurements.OPTIONS:
        parser.add_argument(f"--{name}", help="goes on to those that have it, in place of their own")
    options = parser.parse_args()
    given = {name: one for name in measurements.OPTIONS if (one := getattr(options, name)) is not None}
    wanted: list[str] = []
    if options.measure:
        try:
            wanted = list(COMMANDS) if options.measure == "all" else measurements.names(options.measure)
            for name in wanted:
                measurements.commands_of(name, given)
        except ValueError as error:
            parser.error(str(error))
    return wanted, given


def main() -> None:
    wanted, options = _options()
    try:
        for name in wanted:
            measurements.measure(name, options)
    finally:  # what was kept before something went wrong stands on the page
        PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
        if is_kept("compare"):
            PLOT.write_text(drawing(), encoding="utf-8")


if __name__ == "__main__":
    main()
