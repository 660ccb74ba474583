"""Measure how many branches of Atone the tests go through, room by room, child processes included.

`python -m tests.coverage` runs the tests that the measured rooms are for under coverage, in parts, each with a time
limit, joins what all processes saw, and prints a table; exit status 1 if a room with a goal is below it, or a part did
not pass.
`--keep FOLDER` resumes: parts that ended there on the same source are not run again. `--report FOLDER` runs nothing.
A process that ends by SIGKILL takes what it saw with it, so crash tests count for less than they cover.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
GOAL_PERCENT = 95.0
# The rooms that decide and that write; what they share with nobody else is measured with them.
GOALS = ("_core", "_runtime", "stores")
# What exercises them, in parts that fail by themselves. The rest of the suite adds minutes, and hardly a branch.
PARTS: dict[str, tuple[str, ...]] = {
    "runtime": ("tests/runtime",),
    "core": ("tests/core",),
    "choreography": ("tests/choreography",),
    "contract": (
        "tests/contract/test_stores.py",
        "tests/contract/test_found.py",
        "tests/contract/test_views.py",
        "tests/contract/test_open_store.py",
        "tests/contract/test_differential.py",
        "tests/contract/test_contract_bites.py",
    ),
    "sqlite": (
        "tests/contract/test_sqlite_bites.py",
        "tests/contract/test_sqlite_file.py",
        "tests/contract/test_sqlite_group.py",
        "tests/contract/test_sqlite_processes.py",
        "tests/contract/test_sqlite_start.py",
    ),
    "troubles": ("tests/contract/test_postgres_troubles.py", "tests/contract/test_postgres_bites.py"),
    "brokers": (
        "tests/contract/test_broker_parts.py",
        "tests/contract/test_brokers.py",
        "tests/contract/test_embedded_broker.py",
        "tests/contract/test_embedded_claims.py",
    ),
    **{
        path.stem.removeprefix("test_"): (path.relative_to(ROOT).as_posix(),)
        for path in sorted((ROOT / "tests" / "postgres").glob("test_*.py"))
    },
    "definition": ("tests/definition", "tests/idempotency", "tests/barrier"),
    "isolation": ("tests/isolation", "tests/integrations"),
    "simulation": ("tests/simulation",),
    "failures": ("tests/failures",),
    "fuzz": ("tests/fuzz",),
    "testing": ("tests/testing",),
    "caution": (
        "tests/crash/test_poison.py::test_the_fewer_chances_are_left_the_fewer_stand_beside",
        "tests/crash/test_poison.py::test_one_that_does_not_fit_yet_stands_in_line_again",
        "tests/crash/test_poison.py::test_small_ones_that_come_and_go_do_not_keep_a_last_chance_waiting",
        "tests/crash/test_poison.py::test_an_attempt_that_has_no_chance_at_all_is_a_last_one",
    ),
    "crash": ("tests/crash/test_two_processes.py", "tests/crash/test_relays.py", "tests/crash/test_found.py"),
    "command": ("tests/e2e/test_cli_command.py", "tests/e2e/test_worker_command.py"),
}
PART_SECONDS = 900.0
TEST_SECONDS = 200


@dataclass
class Room:
    """What was seen of one part of the package. `missed` names files with the branches that nobody took."""

    name: str
    lines: int = 0
    lines_hit: int = 0
    branches: int = 0
    branches_hit: int = 0
    missed: dict[str, list[tuple[int, int]]] = field(default_factory=dict)

    @property
    def branch_percent(self) -> float:
        """The share of branches taken; a room without any has them all."""
        return 100.0 * self.branches_hit / self.branches if self.branches else 100.0

    @property
    def line_percent(self) -> float:
        """The share of lines run."""
        return 100.0 * self.lines_hit / self.lines if self.lines else 100.0


@dataclass(frozen=True)
class Ended:
    """How one part ended. `source` is the digest of what it measured: on another source it stands for nothing."""

    part: str
    source: str
    status: int
    seconds: float
    words: str


def source_digest() -> str:
    """Return one digest over the package's modules."""
    found = hashlib.sha256()
    for path in sorted((ROOT / "src").rglob("*.py")):
        found.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def rooms_of(report: dict[str, Any]) -> list[Room]:
    """Sum a JSON report of coverage by the first folder below the package, modules beside the folders as one room."""
    rooms: dict[str, Room] = {}
    for name, found in report["files"].items():
        parts = Path(name).parts
        inside = parts[parts.index("atone") + 1 :]
        called = inside[0] if len(inside) > 1 else "(modules)"
        room = rooms.setdefault(called, Room(called))
        summary = found["summary"]
        room.lines += summary["num_statements"]
        room.lines_hit += summary["covered_lines"]
        room.branches += summary["num_branches"]
        room.branches_hit += summary["covered_branches"]
        if summary["missing_branches"]:
            room.missed["/".join(inside)] = [(come, go) for come, go in found["missing_branches"]]
    return sorted(rooms.values(), key=lambda one: (one.name not in GOALS, one.name))


def table(rooms: list[Room], goal: float) -> str:
    """Return the figures as a table, the rooms with a goal first."""
    lines = [f"{'room':<14} {'branches':>9} {'taken':>7} {'branch %':>9} {'line %':>7}  goal"]
    for room in [*rooms, summed("rooms of goals", [one for one in rooms if one.name in GOALS]), summed("all", rooms)]:
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


def summed(name: str, rooms: list[Room]) -> Room:
    """Return one room with the figures of several."""
    return Room(
        name,
        sum(one.lines for one in rooms),
        sum(one.lines_hit for one in rooms),
        sum(one.branches for one in rooms),
        sum(one.branches_hit for one in rooms),
    )


def run_part(folder: Path, part: str, tests: tuple[str, ...], seconds_max: float) -> Ended:
    """Run one part's tests with coverage, in their children too; a part that ran out of time is stopped and says so."""
    place = folder / part
    place.mkdir(parents=True, exist_ok=True)
    for left in place.glob("data*"):
        left.unlink()
    paths = f"{ROOT / 'src'}{os.pathsep}{ROOT}"
    environment = {**os.environ, "COVERAGE_FILE": str(place / "data"), "PYTHONPATH": paths}
    command = [sys.executable, "-m", "coverage", "run", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["--timeout", str(TEST_SECONDS), *tests]
    began = time.monotonic()
    with (place / "log").open("w", encoding="utf-8") as log:
        child = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True)
        status = ended_within(child, seconds_max)
    words = ((place / "log").read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no words"])[-1]
    done = Ended(part, source_digest(), status, round(time.monotonic() - began, 1), words)
    (place / "done.json").write_text(json.dumps(asdict(done)), encoding="utf-8")
    return done


def ended_within(child: subprocess.Popen[bytes], seconds_max: float) -> int:
    """Wait for a child; past its time ask it to stop as Ctrl-C does, so that its figures are written, then end it."""
    try:
        return child.wait(seconds_max)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGINT)
    try:
        child.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    return 124


def earlier(folder: Path, part: str) -> Ended | None:
    """Return how a part ended that was run in this folder before, if it was."""
    try:
        return Ended(**json.loads((folder / part / "done.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def measure(folder: Path, parts: list[str], processes: int, seconds_max: float, again: list[str]) -> list[Ended]:
    """Run the parts that have not ended well in this folder on this source; tell of each as it ends."""
    digest = source_digest()

    def one(part: str) -> Ended:
        done = earlier(folder, part)
        if done and done.source == digest and not done.status and part not in again:
            return done
        done = run_part(folder, part, PARTS[part], seconds_max)
        print(f"{part:<14} {done.seconds:>7.1f} s  {done.words}", file=sys.stderr, flush=True)
        return done

    with ThreadPoolExecutor(max_workers=processes) as pool:
        return list(pool.map(one, parts))


def read(folder: Path, parts: list[str]) -> dict[str, Any]:
    """Return what the parts have left as coverage's own report."""
    environment = {**os.environ, "COVERAGE_FILE": str(folder / "data")}  # combine looks for this name
    coverage = [sys.executable, "-m", "coverage"]
    places = [str(folder / part) for part in parts if any((folder / part).glob("data*"))]
    (folder / "data").unlink(missing_ok=True)
    subprocess.run([*coverage, "combine", "-q", "--keep", *places], cwd=ROOT, env=environment, check=True)
    only = ["-i", f"--include={ROOT}/src/*"]  # not the copies that other tests have broken on purpose
    written = folder / "report.json"
    subprocess.run([*coverage, "json", "-q", *only, "-o", str(written)], cwd=ROOT, env=environment, check=True)
    found: dict[str, Any] = json.loads(written.read_text(encoding="utf-8"))
    return found


def arguments() -> argparse.Namespace:
    """Return what the command was given."""
    parser = argparse.ArgumentParser(prog="python -m tests.coverage", description=__doc__)
    parser.add_argument("parts", nargs="*", default=[*PARTS], help=f"which parts; default: all of {', '.join(PARTS)}")
    parser.add_argument("--keep", type=Path, help="a folder for the data: what ended well there is not run again")
    parser.add_argument("--again", action="append", default=[], help="run this part again, ended or not")
    parser.add_argument("--report", type=Path, help="run nothing, read this folder")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="parts beside each other")
    parser.add_argument("--part-seconds", type=float, default=PART_SECONDS, help=f"limit of a part ({PART_SECONDS:g})")
    parser.add_argument("--goal", type=float, default=GOAL_PERCENT, help=f"percent of branches ({GOAL_PERCENT:g})")
    parser.add_argument("--missed", action="store_true", help="name the branches that were missed, file by file")
    given = parser.parse_args()
    if unknown := [one for one in given.parts if one not in PARTS]:
        parser.error(f"no part is called {', '.join(unknown)}; there are {', '.join(PARTS)}")
    return given


def tell_missed(rooms: list[Room]) -> None:
    """Name the branches that were missed, the files with the most of them first."""
    for room in rooms:
        for name, missed in sorted(room.missed.items(), key=lambda one: -len(one[1])):
            print(f"  {len(missed):>4} {name}  {' '.join(f'{come}->{go}' for come, go in missed)}")


def main() -> int:
    """Run, print, and compare with the goal."""
    given = arguments()
    with tempfile.TemporaryDirectory(prefix="atone-coverage-") as made:
        folder = (given.report or given.keep or Path(made)).resolve()
        if given.report:
            ended = [done for part in given.parts if (done := earlier(folder, part))]
        else:
            ended = measure(folder, given.parts, given.processes, given.part_seconds, given.again)
        rooms = rooms_of(read(folder, given.parts))
    print(table(rooms, given.goal))
    if given.missed:
        tell_missed(rooms)
    failed = [done for done in ended if done.status]
    for done in failed:
        print(f"part {done.part} did not pass ({done.status}: {done.words}): the figures may stand for more than holds")
    return 1 if below_goal(rooms, given.goal) or failed else 0


if __name__ == "__main__":
    sys.exit(main())
