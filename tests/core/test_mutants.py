"""Each rule that the design marks "(checked)" is broken once, and its test must fail."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.core.mutants import ROOT, DoesNotFit, environment, mutated
from tests.core.mutations import MUTANTS, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.breaks for mutant in MUTANTS])
def test_a_mutant_still_fits_the_core(mutant: Mutant) -> None:
    """What it changes stands exactly once, and what comes of it is Python."""
    compile(mutated(mutant), mutant.file, "exec")


def test_a_mutant_that_does_not_fit_is_reported() -> None:
    """A list that has fallen behind the core must not pass."""
    with pytest.raises(DoesNotFit, match="0 times"):
        mutated(Mutant("decide.py", "no such text", "", "nothing", "test_intent::nothing"))


def test_no_marked_rule_can_be_broken_unnoticed() -> None:
    """One mutant after the other in one interpreter; `python -m tests.core.mutants` runs the whole list, each alone."""
    command = [sys.executable, "-m", "tests.core.mutants", "--checked"]
    ran = subprocess.run(command, cwd=ROOT, env=environment(ROOT), capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
