"""The mutator works: it finds places, changes one at a time, and tells a mutant that dies from one that lives."""

from __future__ import annotations

import ast
import os
import subprocess
import sys

import pytest

from tests.coverage import GOALS, Room, below_goal
from tests.mutation.__main__ import all_mutants, interval, summary
from tests.mutation.equivalent import EQUIVALENT
from tests.mutation.operators import mutants_of, mutated
from tests.mutation.runner import FELL, KILLED, ROOT, SURVIVED, UNCOVERED, Found, _verdict, alone

SOURCE = '''"""Words."""
from typing import cast

LIMIT = 3


def is_over(count: int, *, strict: bool = False) -> bool:
    """More words."""
    if strict and not count:
        return False
    print("over", count, sep=" ")
    return cast("bool", count > LIMIT)
'''


def test_a_mutant_is_one_change() -> None:
    """Each compiles, differs from the source, and is there once."""
    found = mutants_of(SOURCE, "sample.py")
    texts = [ast.unparse(mutated(SOURCE, one)) for one in found]
    assert ast.unparse(ast.parse(SOURCE)) not in texts
    assert len(set(texts)) == len(texts)
    kinds = {one.kind for one in found}
    assert {"comparison", "and, or", "not left out", "constant", "text", "returns None", "argument left out"} <= kinds


def test_words_and_types_are_left_alone() -> None:
    """Docstrings, annotations and the type of a cast change nothing that a test could see."""
    befores = {one.before for one in mutants_of(SOURCE, "sample.py")}
    assert not {"'Words.'", "'More words.'", "'bool'", "int"} & befores


def test_the_core_has_thousands_of_mutants() -> None:
    """All of its rooms have some, and an equivalent one that is listed is one of them."""
    found = all_mutants()
    assert len(found) > 4000
    assert EQUIVALENT.keys() <= {one.name for one in found}


def test_an_interval_holds_its_share() -> None:
    """It is narrow for many, wide for few, and never leaves 0 to 100."""
    low, high = interval(850, 1000)
    assert 82 < low < 85 < high < 88
    assert interval(5, 5)[1] <= 100.0
    assert interval(0, 5)[0] >= 0.0


def test_the_score_counts_what_is_alive_and_what_nobody_runs() -> None:
    """And says so when it stands for a sample only."""
    mutants = mutants_of(SOURCE, "sample.py")[:4]
    verdicts = (KILLED, KILLED, SURVIVED, UNCOVERED)
    text, score = summary([Found(one, verdict) for one, verdict in zip(mutants, verdicts, strict=True)], 10, 1.0)
    assert score == 50.0
    assert "a random sample of 4 of 10" in text


def test_a_child_that_fell_by_itself_has_killed_nothing() -> None:
    """Whatever keeps the mutator from judging must not raise the score."""
    assert [_verdict(status << 8) for status in (0, 1, FELL)] == [SURVIVED, KILLED, SURVIVED]


def test_a_room_of_which_nothing_was_seen_is_below_its_goal() -> None:
    """A report without any room must not pass."""
    seen = [Room(name, branches=10, branches_hit=10) for name in GOALS]
    assert below_goal(seen, 95.0) == []
    assert below_goal(seen[1:], 95.0) == [GOALS[0]]
    assert below_goal([], 95.0) == list(GOALS)


def test_a_fresh_interpreter_passes_without_a_change_and_not_without_tests() -> None:
    """Otherwise everything that is tried there would count as killed."""
    name = "tests/core/test_stored_forms.py::"
    assert alone(None, [f"{name}no_such_test"], 30) == 1
    whole = (ROOT / "tests/core/test_stored_forms.py").read_text(encoding="utf-8")
    first = next(line for line in whole.splitlines() if line.startswith("def test_") and "()" in line)
    assert alone(None, [name + first.removeprefix("def ").partition("(")[0]], 30) == 0


@pytest.mark.slow
def test_mutants_of_a_key_die_in_its_tests() -> None:
    """Real ones, in forked children: a key that leaves a part out, or its length, is noticed."""
    command = [
        sys.executable,
        "-m",
        "tests.mutation",
        "--module",
        "keys",
        "--only",
        "part_of",
        "--tests",
        "tests/core/test_stored_forms.py",
    ]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=280)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert " 0 survived" in ran.stdout
