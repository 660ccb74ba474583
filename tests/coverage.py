"""Measure how many branches of Atone the tests go through, room by room, child processes included.

`python -m tests.coverage` runs the tests that the measured rooms are for under coverage, joins what all processes saw,
and prints a table; exit status 1 if a room with a goal is below it. `--report FOLDER` reads an earlier run again.
A process that ends by SIGKILL takes what it saw with it, so crash tests count for less than they cover.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
GOAL_PERCENT = 95.0
# The rooms that decide and that write; what they share with nobody else is measured with them.
GOALS = ("_core", "_runtime", "stores")
# What exercises them. The rest of the suite adds processes and minutes, and hardly a branch.
TESTS = (
    "tests/core",
    "tests/runtime",
    "tests/contract",
    "tests/postgres",
    "tests/definition",
    "tests/choreography",
    "tests/barrier",
    "tests/idempotency",
    "tests/isolation",
    "tests/integrations",
    "tests/fuzz",
    "tests/e2e/test_cli_command.py",
    "tests/crash/test_two_processes.py",
)


@dataclass
class Room:
    """What was seen of one part of the package. `missed` names files with branches that nobody took."""

    name: str
    lines: int = 0
    lines_hit: int = 0
    branches: int = 0
    branches_hit: int = 0
    missed: dict[str, int] = field(default_factory=dict)

    @property
    def branch_percent(self) -> float:
        """The share of branches taken; a room without any has them all."""
        return 100.0 * self.branches_hit / self.branches if self.branches else 100.0

    @property
    def line_percent(self) -> float:
        """The share of lines run."""
        return 100.0 * self.lines_hit / self.lines if self.lines else 100.0


def rooms_of(report: dict[str, Any]) -> list[Room]:
    """Sum a JSON report of coverage by the first folder below the package, modules beside the folders as one room."""
    rooms: dict[str, Room] = {}
    for name, found in report["files"].items():
        parts = Path(name).parts
        inside = parts[parts.index("atone") + 1 :]
        room = rooms.setdefault(inside[0] if len(inside) > 1 else "(modules)", Room(""))
        room.name = inside[0] if len(inside) > 1 else "(modules)"
        summary = found["summary"]
        room.lines += summary["num_statements"]
        room.lines_hit += summary["covered_lines"]
        room.branches += summary["num_branches"]
        room.branches_hit += summary["covered_branches"]
        if summary["missing_branches"]:
            room.missed["/".join(inside)] = summary["missing_branches"]
    return sorted(rooms.values(), key=lambda one: (one.name not in GOALS, one.name))


def table(rooms: list[Room], goal: float) -> str:
    """Return the figures as a table, the rooms with a goal first."""
    total = Room("all of src")
    for room in rooms:
        total.lines, total.lines_hit = total.lines + room.lines, total.lines_hit + room.lines_hit
        total.branches, total.branches_hit = total.branches + room.branches, total.branches_hit + room.branches_hit
    lines = [f"{'room':<14} {'branches':>9} {'taken':>7} {'branch %':>9} {'line %':>7}  goal"]
    for room in [*rooms, total]:
        wanted = f"{goal:g}" if room.name in GOALS else "-"
        verdict = " BELOW" if room.name in GOALS and room.branch_percent < goal else ""
        lines.append(
            f"{room.name:<14} {room.branches:>9} {room.branches_hit:>7} {room.branch_percent:>9.2f}"
            f" {room.line_percent:>7.2f}  {wanted}{verdict}"
        )
    return "\n".join(lines)


def below_goal(rooms: list[Room], goal: float) -> list[str]:
    """Return the rooms with a goal that are below it, or of which nothing was seen at all."""
    seen = {room.name: room.branch_percent for room in rooms if room.branches}
    return [name for name in GOALS if seen.get(name, 0.0) < goal]


def measure(folder: Path, tests: list[str]) -> int:
    """Run tests with coverage in this process's children too; return pytest's exit status."""
    environment = {
        **os.environ,
        "COVERAGE_FILE": str(folder / "data"),
        "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
    }
    command = [sys.executable, "-m", "coverage", "run", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["--timeout", "600", *tests]
    ran = subprocess.run(command, cwd=ROOT, env=environment, check=False)
    subprocess.run(
        [sys.executable, "-m", "coverage", "combine", "-q", "--keep"], cwd=ROOT, env=environment, check=False
    )
    return ran.returncode


def read(folder: Path) -> dict[str, Any]:
    """Return what a run has left as coverage's own report."""
    environment = {**os.environ, "COVERAGE_FILE": str(folder / "data")}
    only = ["-i", f"--include={ROOT}/src/*"]  # not the copies that other tests have broken on purpose
    command = [sys.executable, "-m", "coverage", "json", "-q", *only, "-o", str(folder / "report.json")]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    found: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return found


def main() -> int:
    """Run, print, and compare with the goal."""
    parser = argparse.ArgumentParser(prog="python -m tests.coverage", description=__doc__)
    parser.add_argument("tests", nargs="*", default=[*TESTS], help="what to run; default: what the rooms are for")
    parser.add_argument("--keep", type=Path, help="a folder for the data, to be read again with --report")
    parser.add_argument("--report", type=Path, help="run nothing, read this folder")
    parser.add_argument("--goal", type=float, default=GOAL_PERCENT, help=f"percent of branches ({GOAL_PERCENT:g})")
    parser.add_argument("--missed", action="store_true", help="name the files whose branches were missed")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="atone-coverage-") as made:
        folder = (given.report or given.keep or Path(made)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        failed = (
            0 if given.report else measure(folder, [one for one in given.tests if (ROOT / one.split("::")[0]).exists()])
        )
        rooms = rooms_of(read(folder))
    print(table(rooms, given.goal))
    if given.missed:
        for room in rooms:
            for name, count in sorted(room.missed.items(), key=lambda one: -one[1]):
                print(f"  {count:>4} {name}")
    below = below_goal(rooms, given.goal)
    if failed:
        print(f"the tests did not pass (pytest {failed}), so the figures stand for less than they say")
    return 1 if below or failed else 0


if __name__ == "__main__":
    sys.exit(main())
