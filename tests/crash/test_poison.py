"""Poison for workers and services: it is set aside with a reason, and everybody else's work is done."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from atone._runtime.caution import ROOM, Caution

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> tuple[int, dict[str, Any], str]:
    """Do a run and return its status, its figures and what it complains of."""
    command = [sys.executable, "-m", "tests.crash.poison", "--json", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr


@pytest.mark.parametrize("place", ["sqlite", "threads", "loop"])
def test_poison_is_set_aside_and_the_neighbours_go_on(place: str) -> None:
    """Exceptions that can't be told, results that can't be kept, ended processes, loops: the fleet outlives them."""
    status, figures, wrong = run("--only", place)
    assert (status, wrong) == (0, "")
    ((name, found),) = [(name, found) for name, found in figures.items() if isinstance(found, dict)]
    assert name.startswith(("sagas", "handlers"))
    assert found["processes_ended"] > 5


def test_without_caution_the_neighbours_of_a_deadly_saga_are_parked_too() -> None:
    """All were lost as often as it was: the run finds that out."""
    status, _, wrong = run("--only", "sqlite", "--without", "caution")
    assert status == 1
    assert re.search(r"neighbour-\d+ is needs_attention", wrong)


def test_without_suspicion_a_deadly_message_is_never_set_aside() -> None:
    """It comes again for as long as the broker likes: the run finds that out."""
    status, _, wrong = run("--only", "threads", "--without", "suspicion", "--patience", "12")
    assert status == 2
    assert "not everything was settled" in wrong


def test_the_fewer_chances_are_left_the_fewer_stand_beside() -> None:
    """A last chance is had alone, and who waits is asked once there is room."""
    caution, woken = Caution(), list[str]()
    assert all(caution.admits(b"new", chances) for chances in (None, 3, 5))
    caution.hold(b"a", 2)
    assert caution.admits(b"b", 1)
    assert not caution.admits(b"b", 0)
    assert caution.admits(b"a", 0)
    caution.wait(lambda: woken.append("b"))
    caution.hold(b"a", None)
    assert woken == ["b"]
    caution.hold(b"b", 0)
    assert not caution.admits(b"c", 2)
    assert caution.admits(b"c", None)
    for one in range(ROOM):
        caution.hold(b"%d" % one, None)
    assert not caution.admits(b"c", 2)


def test_one_that_does_not_fit_yet_stands_in_line_again() -> None:
    """Nobody is forgotten, and nobody is asked for ever."""
    caution, woken = Caution(), list[str]()
    caution.hold(b"a", 2)
    caution.hold(b"b", 2)

    def last_chance() -> None:
        woken.append("c")
        if caution.admits(b"c", 0):
            caution.hold(b"c", 0)
        else:
            caution.wait(last_chance)

    caution.wait(last_chance)
    caution.hold(b"a", None)
    assert woken == ["c"]
    caution.hold(b"b", None)
    assert woken == ["c", "c"]
    assert not caution.admits(b"d", 2)


def test_small_ones_that_come_and_go_do_not_keep_a_last_chance_waiting() -> None:
    """Who needs the whole room is the next to get in, so nobody begins before; one that gives way lets others in."""
    caution = Caution()
    caution.hold(b"small-0", 2)
    assert not caution.admits(b"last", 0)
    assert caution.admits(b"small-0", 2), "what is under way goes on"
    assert caution.admits(b"new", None), "who was never lost is no concern of it"
    assert not caution.admits(b"small-1", 2)
    caution.hold(b"small-0", None)
    assert not caution.admits(b"small-1", 2)
    assert caution.admits(b"last", 0)
    caution.hold(b"last", 0)
    assert not caution.admits(b"later", 0)
    caution.hold(b"last", None)
    assert not caution.admits(b"small-1", 2)
    caution.hold(b"later", None)
    assert caution.admits(b"small-1", 2)


def test_an_attempt_that_has_no_chance_at_all_is_a_last_one() -> None:
    """A definition may allow fewer losses than it did when they happened."""
    caution = Caution()
    caution.hold(b"a", -1)
    assert not caution.admits(b"b", 2)
