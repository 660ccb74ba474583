"""Break the core on purpose, one rule at a time, and see that the named test notices.

Each mutant is a copy of the package with one change, run against its test in an interpreter of its own.
`python -m tests.core.mutants` prints a table and exits 1 if a mutant survives, or if a change does not fit exactly
once. `--checked` takes one mutant a rule that the design marks, and runs them in one interpreter; the suite does that.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.core.mutations import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[2]
CORE = Path("src/atone/_core")
LAW = CORE.parent / "testing/_law.py"  # what its tests judge journals by


class DoesNotFit(Exception):
    """The text that a mutant changes does not stand exactly once in its file."""


def mutated(mutant: Mutant) -> str:
    """Return the changed source of the mutant's file.

    Raises:
        DoesNotFit: The core has changed; bring the list up to date.
    """
    source = (ROOT / CORE / mutant.file).read_text(encoding="utf-8")
    times = source.count(mutant.old)
    if times != 1:
        raise DoesNotFit(f"{mutant.file}: {mutant.old!r} stands there {times} times, not once ({mutant.breaks})")
    return source.replace(mutant.old, mutant.new)


def lay_out(folder: Path, mutant: Mutant | None, *more: str) -> Path:
    """Copy the core and its tests into a folder, with the change in it; return the folder.

    `more` are other folders of tests. The rest of the package is left out, for the core may not need it and its tests
    need the law's check alone.
    """
    nothing = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(ROOT / CORE, folder / CORE, ignore=nothing)
    (folder / LAW).parent.mkdir()
    shutil.copy(ROOT / LAW, folder / LAW)
    for package in (CORE.parent, LAW.parent):
        (folder / package / "__init__.py").touch()
    for tests in ("tests/core", *more):
        shutil.copytree(ROOT / tests, folder / tests, ignore=nothing)
    shutil.copy(ROOT / "pyproject.toml", folder)
    if mutant is not None:
        (folder / CORE / mutant.file).write_text(mutated(mutant), encoding="utf-8")
    return folder


def environment(folder: Path) -> dict[str, str]:
    """Return an environment in which the folder's package is the one that is imported."""
    return {**os.environ, "PYTHONPATH": f"{folder / 'src'}{os.pathsep}{folder}", "PYTHONDONTWRITEBYTECODE": "1"}


def survives(mutant: Mutant | None, *tests: str) -> bool:
    """Run tests against a copy, in an interpreter of its own; return whether they pass."""
    with tempfile.TemporaryDirectory(prefix="atone-mutant-") as name:
        folder = lay_out(Path(name), mutant)
        paths = [f"tests/core/{module}.py::{test}" for module, test in (one.split("::") for one in tests)]
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *paths]
        ran = subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True, check=False)
    if ran.returncode not in (0, 1):
        raise RuntimeError(f"pytest could not run {tests}:\n{ran.stdout[-3000:]}{ran.stderr[-3000:]}")
    return ran.returncode == 0


def checked() -> list[Mutant]:
    """Return the mutants of the rules that the design marks."""
    return [mutant for mutant in MUTANTS if mutant.checked]


def run_checked() -> list[str]:
    """Run the marked mutants one after the other in this interpreter; return those that survive.

    Called in a process of its own, for it swaps the package under the tests again and again.
    """
    with tempfile.TemporaryDirectory(prefix="atone-mutants-") as name:
        folder = lay_out(Path(name), None)
        sys.path[:0] = [str(folder / "src"), str(folder)]
        failing = [test for test in {one.killed_by for one in checked()} if not _passes(folder, test)]
        if failing:
            raise RuntimeError(f"fails without any mutant: {failing}")
        return [f"{one.breaks} ({one.killed_by})" for one in checked() if _survives_here(folder, one)]


def _survives_here(folder: Path, mutant: Mutant) -> bool:
    path = folder / CORE / mutant.file
    whole = path.read_text(encoding="utf-8")
    path.write_text(mutated(mutant), encoding="utf-8")
    try:
        return _passes(folder, mutant.killed_by)
    finally:
        path.write_text(whole, encoding="utf-8")


def _passes(folder: Path, test: str) -> bool:
    for loaded in [one for one in sys.modules if one.partition(".")[0] in ("atone", "tests")]:
        del sys.modules[loaded]
    importlib.invalidate_caches()
    module, name = test.split("::")
    found = importlib.import_module(f"tests.core.{module}")
    core = importlib.import_module("atone._core.decide")
    assert str(core.__file__).startswith(str(folder)), f"the wrong package was imported: {core.__file__}"
    try:
        _call(getattr(found, name))
    except Exception:
        return False
    return True


def _call(test: object) -> None:
    """Call a test with each of its parameters, as pytest would."""
    assert callable(test)
    marks: list[Any] = [one for one in getattr(test, "pytestmark", []) if one.name == "parametrize"]
    calls: list[dict[str, object]] = [{}]
    for mark in marks:
        names = [one.strip() for one in (mark.args[0].split(",") if isinstance(mark.args[0], str) else mark.args[0])]
        values = [one if len(names) > 1 else (one,) for one in mark.args[1]]
        calls = [{**call, **dict(zip(names, value, strict=True))} for call in calls for value in values]
    for call in calls:
        test(**call)


def _table(mutants: Iterable[Mutant]) -> int:
    alive = 0
    for mutant in mutants:
        lives = survives(mutant, mutant.killed_by)
        alive += lives
        mark = "*" if mutant.checked else " "
        print(
            f"{'SURVIVES' if lives else 'killed  '} {mark} {mutant.file:12} {mutant.breaks}  <- {mutant.killed_by}",
            flush=True,
        )
    return alive


def main(arguments: list[str] | None = None) -> int:
    """Run the mutants and print what became of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.core.mutants", description=__doc__)
    parser.add_argument("--checked", action="store_true", help="only the marked rules, in this one interpreter")
    options = parser.parse_args(arguments)
    if options.checked:
        alive = run_checked()
        print("\n".join(f"SURVIVES {one}" for one in alive) or f"{len(checked())} mutants, none survives")
        return 1 if alive else 0
    for mutant in MUTANTS:
        mutated(mutant)
    named = tuple(sorted({mutant.killed_by for mutant in MUTANTS}))
    if not survives(None, *named):
        print("The named tests fail without any mutant; mend that first.")
        return 1
    alive_count = _table(MUTANTS)
    print(f"{len(MUTANTS)} mutants, {alive_count} survive")
    return 1 if alive_count else 0


if __name__ == "__main__":
    sys.exit(main())
