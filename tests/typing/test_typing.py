"""Both type checkers read the samples in their strictest mode, and say exactly what the marks say.

`# E` marks a place that every checker must flag; every other place must pass. A place is a simple statement, the head
of a compound one, or a function's decorators and signature together, because checkers name different lines of it.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SOURCES = HERE.parent.parent / "src"
SAMPLES = (
    "domain.py",
    "good.py",
    "bad.py",
    "good_choreography.py",
    "bad_choreography.py",
    "good_testing.py",
    "bad_testing.py",
)
MARK = "# E"

Flags = Mapping[str, set[int]]
"""For each sample the lines that a checker flagged."""


@pytest.fixture(scope="module", params=["mypy", "pyright"])
def flags(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Flags:
    """What one checker says about the samples; each runs once."""
    checker: str = request.param
    if importlib.util.find_spec(checker) is None:
        pytest.fail(f"{checker} is missing. Install the development tools: make test does it.")
    room = tmp_path_factory.mktemp(checker)
    return _mypy(room) if checker == "mypy" else _pyright(room)


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_checker_flags_every_marked_place_and_no_other(flags: Flags, sample: str) -> None:
    """Right use passes without one complaint, and each wrong use is caught."""
    assert not list(_disagreements((HERE / sample).read_text(), flags[sample]))


def test_a_mark_on_a_right_line_is_noticed(flags: Flags) -> None:
    """The test of the test: no mark of a place that passes goes unseen."""
    lines = (HERE / "good.py").read_text().splitlines()
    at = next(at for at, line in enumerate(lines) if "assert_type(reservation" in line)
    lines[at] += f"  {MARK}"
    assert list(_disagreements("\n".join(lines), flags["good.py"])) == [f"line {at + 1} is marked, but passes"]


def test_a_missing_mark_is_noticed(flags: Flags) -> None:
    """The test of the test: no complaint about a place without a mark goes unseen, wherever the mark is missing."""
    text = (HERE / "bad.py").read_text()
    marks = [found.start() for found in re.finditer(re.escape(MARK), text)]
    for mark in marks:
        without = text[:mark] + text[mark + len(MARK) :]
        assert len(list(_disagreements(without, flags["bad.py"]))) == 1


def test_there_is_a_mark_for_each_kind_of_mistake() -> None:
    """The samples are not emptied by accident: marks are many, and right use has none."""
    assert (HERE / "bad.py").read_text().count(MARK) >= 60
    assert (HERE / "bad_choreography.py").read_text().count(MARK) >= 30
    assert not any(MARK in (HERE / name).read_text() for name in ("good.py", "good_choreography.py"))


@pytest.mark.parametrize(
    ("flaw", "line"),
    [
        ("C1: the amount that inventory was never sent", "return Taken(str(ctx.event.amount))"),
        ("C2: the reservation read from the failure", "return Released(ctx.event.reservation_id)"),
        ("C2: the failure taken for what was done", "async def c2_takes_it_from_the_failure("),
    ],
)
def test_what_the_seed_read_from_the_wrong_event_is_flagged(flags: Flags, flaw: str, line: str) -> None:
    """The seed's handlers read fields that nobody had sent; here the event's class says what there is."""
    lines = (HERE / "bad_choreography.py").read_text().splitlines()
    (at,) = [at for at, text in enumerate(lines, 1) if line in text]
    assert MARK in lines[at - 1], flaw
    places = _places("\n".join(lines))
    assert places[at] in {places.get(one, one) for one in flags["bad_choreography.py"]}, flaw


def test_right_use_builds() -> None:
    """What checkers call right, the definition layer calls right as well."""
    sagas = "good.PlaceOrder, good.PlainFunctions, good.Wide, good.ByCommand"
    code = f"import good; print(*(len(saga.plan().steps) for saga in ({sagas})))\n"
    code += "import good_choreography; print(len(good_choreography.loyal.event_map.handlers))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=HERE, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout == "7 5 9 7\n8\n", done.stderr


def _disagreements(text: str, flagged: set[int]) -> Iterator[str]:
    places = _places(text)
    marked = {at for at, line in enumerate(text.splitlines(), 1) if MARK in line}
    should = {places.get(line, line): line for line in marked}
    does = {places.get(line, line): line for line in sorted(flagged, reverse=True)}
    for place in sorted(should.keys() | does.keys()):
        if place not in does:
            yield f"line {should[place]} is marked, but passes"
        elif place not in should:
            yield f"line {does[place]} is flagged, but has no mark"


def _places(text: str) -> dict[int, int]:
    """For each line the first line of the place it belongs to; inner places win over those around them."""
    places: dict[int, int] = {}
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.stmt | ast.match_case):
            continue
        first = node.pattern.lineno if isinstance(node, ast.match_case) else node.lineno
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        body = getattr(node, "body", None)
        last = max(first, body[0].lineno - 1) if body else getattr(node, "end_lineno", first)
        if body and isinstance(body[0], ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            last = max(first, min([body[0].lineno, *(d.lineno for d in body[0].decorator_list)]) - 1)
        places.update(dict.fromkeys(range(first, last + 1), first))
    return places


def _mypy(room: Path) -> Flags:
    done = _run(
        *("mypy", "--strict", "--config-file=", "--python-version=3.11", "--output=json", "--warn-unreachable"),
        *(f"--cache-dir={room / 'cache'}", f"--python-executable={sys.executable}"),
        *SAMPLES,
    )
    found = [json.loads(line) for line in done.splitlines() if line.startswith("{")]
    return _by_sample((item["file"], item["line"]) for item in found if item["severity"] == "error")


def _pyright(room: Path) -> Flags:
    config = {"typeCheckingMode": "strict", "pythonVersion": "3.11", "extraPaths": [str(SOURCES), str(HERE)]}
    (room / "pyrightconfig.json").write_text(json.dumps(config))
    done = _run(
        *("pyright", "--outputjson", "--project", str(room / "pyrightconfig.json"), "--pythonpath", sys.executable),
        *SAMPLES,
    )
    found = json.loads(done)["generalDiagnostics"]
    return _by_sample(
        (item["file"], item["range"]["start"]["line"] + 1) for item in found if item["severity"] == "error"
    )


def _run(module: str, *arguments: str) -> str:
    environment = os.environ | {
        "MYPYPATH": f"{SOURCES}{os.pathsep}{HERE}",
        "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=HERE,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    # 1 says that there were complaints; anything else is a checker that did not run.
    assert done.returncode in (0, 1), f"{module} failed: {done.stdout}{done.stderr}"
    assert done.stdout.strip(), f"{module} said nothing: {done.stderr}"
    return done.stdout


def _by_sample(found: Iterator[tuple[str, int]]) -> Flags:
    flags: dict[str, set[int]] = {sample: set() for sample in SAMPLES}
    for file, line in found:
        # Mistakes in the package itself are not judged here.
        if Path(HERE, file).parent == HERE:
            flags[Path(file).name].add(line)
    return flags
