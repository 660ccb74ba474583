"""Run the tests of the core against one mutant after the other, each in a forked child with the change in it.

Owns one pytest session: it runs every test once, noting which lines each goes through, then forks for each mutant and
runs there, quickest first and up to the first failure, only the tests that go through the changed line. The change is
the code of one live function; what is made at import, and whatever survives, is tried in a fresh interpreter too, for
something that was computed before the fork may hide a mutant. Called by the command beside it.
"""

from __future__ import annotations

import ast
import importlib
import importlib.abc
import importlib.util
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import coverage
import pytest
from _pytest.runner import runtestprotocol

from tests.mutation.operators import Mutant, mutated

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "atone._core"
FOLDER = ROOT / "src/atone/_core"
# The tests of the law, and the pure ones of choreographies. `test_mutants` breaks copies of the core by itself.
TESTS = (
    "tests/core",
    "tests/choreography/test_event_guard.py",
    "tests/choreography/test_event_checks.py",
    "tests/choreography/test_event_view.py",
    "tests/choreography/test_event_map_drawing.py",
    "tests/choreography/test_checked_maps_hold.py",
)
IGNORED = ("tests/core/test_mutants.py",)
# Beside what the tests take: of the processor's time, so a busy machine kills nothing.
EXTRA_SECONDS = 10
# A fresh interpreter leaves out the few tests that take longer: they would be most of its time, and kill little.
ALONE_SECONDS_MAX = 3.0
MEMORY_BYTES = 6 * 1024**3
# How a forked child ends that could not judge its mutant.
FELL = 9
CONTROLS = 20
KILLED, TIMED_OUT, SURVIVED, UNCOVERED = "killed", "timed out", "survived", "not covered"


@dataclass
class Found:
    """What became of one mutant."""

    mutant: Mutant
    verdict: str
    seconds: float = 0.0


@dataclass
class Seen:
    """What one run of all tests has shown: which go through a line, and how long each takes."""

    tests_of: dict[str, dict[int, set[str]]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def tests(self, mutant: Mutant, lines: Sequence[int]) -> list[str]:
        """Return the tests that go through any of the lines, quickest first."""
        known = self.tests_of.get(mutant.file, {})
        names = {name for line in lines for name in known.get(line, ())}
        return sorted(names, key=lambda name: (self.seconds[name], name))


def quiet_hypothesis() -> None:
    """Draw the same examples every time, keep nothing, and don't shrink: a failure is all that is asked for."""
    import hypothesis  # pytest has to be first, to rewrite what comes with it

    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile("mutation", derandomize=True, database=None, phases=phases, deadline=None)
    hypothesis.settings.load_profile("mutation")


def pytest_arguments(tests: Sequence[str]) -> list[str]:
    """Return what pytest is called with."""
    ignored = [f"--ignore={one}" for one in IGNORED]
    quiet = ["-p", "no:cacheprovider", "-p", "no:terminal", "-o", "timeout=0", "-o", "addopts="]
    return ["-x", "--import-mode=importlib", *quiet, *ignored, *tests]


# -- changing live code


def lines_of(source: str, mutant: Mutant) -> list[int]:
    """Return the lines that stand for a mutant: of its node, and of the beginning of its statement."""
    tree = ast.parse(source)
    node = list(ast.walk(tree))[mutant.at]
    last = getattr(node, "end_lineno", None) or mutant.line
    lines = list(range(mutant.line, last + 1))
    around = [
        one
        for one in ast.walk(tree)
        if isinstance(one, ast.stmt) and one.lineno <= mutant.line <= (one.end_lineno or one.lineno)
    ]
    innermost = max(around, key=lambda one: one.lineno, default=None)
    if innermost is not None and not isinstance(innermost, ast.FunctionDef | ast.ClassDef | ast.Match):
        lines.append(innermost.lineno)
    return lines


def swap(mutant: Mutant, source: str) -> bool:
    """Give the live function the changed code; False if the change is made at import, or is cached."""
    module = importlib.import_module(f"{PACKAGE}.{mutant.file.removesuffix('.py')}")
    function = _live(module, mutant.place.split("."))
    if function is None:
        return False
    whole = compile(mutated(source, mutant), str(FOLDER / mutant.file), "exec")
    code = next((one for one in _codes(whole) if _same_place(one, function.__code__)), None)
    if code is None or code.co_freevars != function.__code__.co_freevars or code == function.__code__:
        return False  # equal code: the change is in a default value, which is made with the function
    function.__code__ = code
    return True


def _live(module: ModuleType, names: list[str]) -> FunctionType | None:
    found: Any = vars(module).get(names[0])
    for name in names[1:]:
        if not isinstance(found, type):
            break
        found = vars(found).get(name)
    if isinstance(found, property):
        found = found.fget
    if isinstance(found, staticmethod | classmethod):
        found = found.__func__
    if isinstance(found, cached_property):
        return None
    return found if isinstance(found, FunctionType) and found.__module__ == module.__name__ else None


def _codes(code: CodeType) -> Iterator[CodeType]:
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield one
            yield from _codes(one)


def _same_place(one: CodeType, other: CodeType) -> bool:
    return (one.co_qualname, one.co_firstlineno) == (other.co_qualname, other.co_firstlineno)


class Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Import one module of the core with a mutant in it."""

    def __init__(self, mutant: Mutant, source: str) -> None:
        self._name = f"{PACKAGE}.{mutant.file.removesuffix('.py')}"
        self._path = FOLDER / mutant.file
        self._tree = mutated(source, mutant)

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        """See `importlib`."""
        return importlib.util.spec_from_loader(fullname, self) if fullname == self._name else None

    def exec_module(self, module: ModuleType) -> None:
        """See `importlib`."""
        exec(compile(self._tree, str(self._path), "exec"), vars(module))


# -- the session


class Session:
    """A plugin that takes over from pytest once the tests are collected."""

    def __init__(self, mutants: Sequence[Mutant], processes: int, tell: Any) -> None:
        self._mutants, self._processes, self._tell = mutants, processes, tell
        self._sources = {one.file: (FOLDER / one.file).read_text(encoding="utf-8") for one in mutants}
        self._measure = coverage.Coverage(
            data_file=None, source_pkgs=[PACKAGE], branch=False, config_file=False, messages=False
        )
        self.seen = Seen()
        self.found: list[Found] = []

    def pytest_configure(self) -> None:
        """See pytest."""
        quiet_hypothesis()

    def start(self) -> None:
        """Begin to measure; the core must not have been imported."""
        self._measure.start()

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run all tests once, then the mutants."""
        if session.testsfailed:
            raise pytest.UsageError("the tests could not be collected")
        self._items = {item.nodeid: item for item in session.items}
        for item in session.items:
            self._measure.switch_context(item.nodeid)
            begun = time.process_time()
            if not _passes(item):
                raise pytest.UsageError(f"{item.nodeid} fails without any change; mend that first")
            self.seen.seconds[item.nodeid] = time.process_time() - begun
        self._measure.stop()
        data = self._measure.get_data()
        for file in data.measured_files():
            tests = {line: {one for one in names if one} for line, names in data.contexts_by_lineno(file).items()}
            self.seen.tests_of[Path(file).name] = tests
        quickest = sorted(self.seen.seconds, key=lambda name: self.seen.seconds[name])[:CONTROLS]
        if self._mutants and alone(None, quickest, EXTRA_SECONDS) != 0:
            raise pytest.UsageError("a fresh interpreter fails without any change, so there all would count as killed")
        self._judge_all()
        return True

    def _judge_all(self) -> None:
        running: dict[int, tuple[Mutant, float]] = {}
        waiting = list(reversed(self._mutants))
        while waiting or running:
            while waiting and len(running) < self._processes:
                mutant = waiting.pop()
                running[self._fork(mutant)] = (mutant, time.monotonic())
            pid, status = os.wait()
            if pid not in running:
                continue
            mutant, begun = running.pop(pid)
            found = Found(mutant, _verdict(status), time.monotonic() - begun)
            self.found.append(found)
            self._tell(len(self.found), found)

    def _fork(self, mutant: Mutant) -> int:
        pid = os.fork()
        if pid:
            return pid
        status = FELL
        try:
            nothing = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(nothing, stream)
            status = self._judged(mutant)
        finally:
            os._exit(status)

    def _judged(self, mutant: Mutant) -> int:
        source = self._sources[mutant.file]
        names = self.seen.tests(mutant, lines_of(source, mutant))
        at_import = "." not in mutant.place and mutant.place == "<module>"
        limit(EXTRA_SECONDS + 3 * sum(self.seen.seconds[name] for name in names))
        if swap(mutant, source):
            if not names:
                return 4
            if not all(_passes(self._items[name]) for name in names):
                return 1
        elif not names or at_import:
            names = sorted(self.seen.seconds, key=lambda name: self.seen.seconds[name])
        names = [name for name in names if self.seen.seconds[name] <= ALONE_SECONDS_MAX]
        if not names:
            return 0  # all that go through it were run, and are too slow to be run again
        return alone(mutant, names, EXTRA_SECONDS + 3 * sum(self.seen.seconds[name] for name in names))


def _passes(item: pytest.Item) -> bool:
    return not any(report.failed for report in runtestprotocol(item, nextitem=None, log=False))


def _verdict(status: int) -> str:
    if os.WIFSIGNALED(status):
        return TIMED_OUT if os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGALRM) else KILLED
    # A child that fell by itself has shown nothing, and is no kill.
    return {0: SURVIVED, FELL: SURVIVED, 4: UNCOVERED, 5: TIMED_OUT}.get(os.WEXITSTATUS(status), KILLED)


def limit(seconds: float) -> None:
    """End this process after so many seconds of the processor, or if it wants too much memory."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    used = resource.getrusage(resource.RUSAGE_SELF)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime + seconds) + 1, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    signal.alarm(int(60 + 20 * seconds))


# -- a mutant in an interpreter of its own


def alone(mutant: Mutant | None, names: Sequence[str], seconds: float) -> int:
    """Run tests against a mutant or none in a fresh interpreter: 0 if they pass, 1 if not, 5 if that takes too long."""
    with tempfile.TemporaryDirectory(prefix="atone-mutant-") as folder:
        task = Path(folder) / "task.json"
        task.write_text(json.dumps({"mutant": mutant and vars(mutant), "names": list(names), "seconds": seconds}))
        command = [sys.executable, "-m", "tests.mutation", "--alone", str(task)]
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if ran.returncode < 0:
        return 5 if -ran.returncode in (signal.SIGXCPU, signal.SIGALRM) else 1
    return 0 if ran.returncode == 0 else 1


class Chosen:
    """A plugin that leaves only the named tests, in their order."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = {name: at for at, name in enumerate(names)}

    def pytest_configure(self) -> None:
        """See pytest."""
        quiet_hypothesis()

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """See pytest."""
        items[:] = sorted((one for one in items if one.nodeid in self._names), key=lambda one: self._names[one.nodeid])


def run_alone(task: Path) -> int:
    """Do what `alone` asks for."""
    told = json.loads(task.read_text())
    limit(told["seconds"] + 10)
    if told["mutant"] is not None:
        mutant = Mutant(**told["mutant"])
        sys.meta_path.insert(0, Changed(mutant, (FOLDER / mutant.file).read_text(encoding="utf-8")))
    files = sorted({name.partition("::")[0] for name in told["names"]})
    return int(pytest.main(pytest_arguments(files), plugins=[Chosen(told["names"])]))
