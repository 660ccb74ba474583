"""What was measured, kept: the commands, and the lines that they printed, one file for each of them in docs/benchmarks.

Owns the list of these commands and the form of the files. Must not interpret a figure. Used by `page`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.order_saga import WORKLOADS
from benchmarks.runs import ROOT

Line: TypeAlias = dict[str, Any]
KEPT = ROOT / "docs" / "benchmarks"

_THROUGHPUT = "python -m benchmarks.throughput --store {store} --inflight 1,100,1000 --workload {workload} --json"
# By the name of the file; what is given in `OPTIONS` comes in place of what stands here, or behind it.
COMMANDS: dict[str, tuple[str, ...]] = {
    "import-time": ("python -m benchmarks.import_time --json",),
    "throughput-sqlite": tuple(_THROUGHPUT.format(store="sqlite", workload=one) for one in WORKLOADS),
    "throughput-postgres": tuple(_THROUGHPUT.format(store="postgres", workload=one) for one in WORKLOADS),
    "compare": ("python -m benchmarks.compare --inflight 1,100 --workload order,compensate --json",),
    "profile": ("python -m benchmarks.throughput --store postgres --inflight 100 --profile --json",),
    "scale": ("python -m benchmarks.scale --json",),
    "recovery": ("python -m benchmarks.recovery --store postgres --sagas 500 --json",),
    "waiting": ("python -m benchmarks.waiting --sagas 100000 --json",),
    "telemetry": ("python -m benchmarks.telemetry --store postgres --inflight 1,100 --json",),
    "choreography": ("python -m benchmarks.choreography --inflight 1,100 --json",),
}
# Which of the options that may be given each command has; a profile is one run, however the others are made.
OPTIONS = ("rounds", "seconds", "warmup", "workload", "inflight", "only")
_TAKEN: dict[str, Collection[str]] = {
    "benchmarks.throughput": frozenset(OPTIONS) - {"only"},
    "benchmarks.compare": frozenset(OPTIONS),
    "benchmarks.telemetry": frozenset({"rounds", "seconds", "warmup", "inflight"}),
    "benchmarks.choreography": frozenset({"rounds", "seconds", "warmup", "inflight"}),
}
PROFILE = KEPT / "profile.txt"
_PROFILE_COMMAND = "python -m benchmarks.throughput --store postgres --inflight 100 --seconds 4 --profile"


class Measured:
    """One file: what was run, and what it printed."""

    def __init__(self, name: str) -> None:
        self.name = name
        text = (KEPT / f"{name}.json").read_text(encoding="utf-8")
        self.runs: list[dict[str, Any]] = json.loads(text)

    @property
    def commands(self) -> list[str]:
        """The commands, as they were given."""
        return [str(run["command"]) for run in self.runs]

    @property
    def lines(self) -> list[Line]:
        """All that they printed."""
        return [line for run in self.runs for line in run["lines"]]

    def find(self, **wanted: object) -> Line | None:
        """Return the first line that has these values."""
        return next((line for line in self.lines if all(line.get(key) == one for key, one in wanted.items())), None)


def is_kept(name: str) -> bool:
    """Tell whether it was measured."""
    return (KEPT / f"{name}.json").is_file()


def measure(name: str, options: Mapping[str, str]) -> None:
    """Run the commands of a file with these options, by their names, and keep what they print."""
    KEPT.mkdir(exist_ok=True)
    runs: list[str] = []
    for whole in commands_of(name, options):
        lines = ",\n".join(f"  {json.dumps(line)}" for line in _printed(whole))
        runs.append(f'{{"command": {json.dumps(whole)}, "lines": [\n{lines}\n]}}')
    (KEPT / f"{name}.json").write_text("[" + ",\n".join(runs) + "]\n", encoding="utf-8")
    if name == "profile":
        words = "".join(_output(_PROFILE_COMMAND))
        PROFILE.write_text(f"$ {_PROFILE_COMMAND}\n{words.rstrip()}\n", encoding="utf-8")


def commands_of(name: str, options: Mapping[str, str]) -> list[str]:
    """Return the commands of a file with these options; of those for one workload each, the ones that are wanted.

    Raises:
        ValueError: None of them is for such a workload.
    """
    wanted = options.get("workload", ",".join(WORKLOADS)).split(",")
    whole: list[str] = []
    for command in COMMANDS[name]:
        words = command.split()
        has_one = "--workload" in words and "," not in words[words.index("--workload") + 1]
        if has_one and words[words.index("--workload") + 1] not in wanted:
            continue
        whole.append(" ".join(_with_options(words, options, but={"workload"} if has_one else set())))
    if not whole:
        raise ValueError(f"{name} has no workload {options['workload']}: there are {', '.join(WORKLOADS)}.")
    return whole


def _with_options(words: list[str], options: Mapping[str, str], but: Collection[str]) -> list[str]:
    taken = () if "--profile" in words else _TAKEN.get(words[2], ())
    for name, value in options.items():
        flag = f"--{name}"
        if name not in taken or name in but:
            continue
        if flag in words:
            words[words.index(flag) + 1] = value
        else:
            words += [flag, value]
    return words


def _printed(command: str) -> Iterator[Line]:
    yield from (json.loads(line) for line in _output(command))


def _output(command: str) -> Iterator[str]:
    python, *words = command.split()
    assert python == "python", "only our own modules are run"
    print(f"$ {command}", file=sys.stderr, flush=True)
    here = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    with subprocess.Popen([sys.executable, *words], cwd=ROOT, env=here, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None, "it is a pipe"
        yield from process.stdout
    if process.returncode:
        raise SystemExit(f"`{command}` ended with {process.returncode}; nothing of it was kept.")


def names(text: str) -> list[str]:
    """Return the names of files in a comma-separated list."""
    found = text.split(",")
    unknown = sorted(set(found) - set(COMMANDS))
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: there are {', '.join(COMMANDS)}")
    return found


def path_of(name: str) -> Path:
    """Return where a file is kept."""
    return KEPT / f"{name}.json"
