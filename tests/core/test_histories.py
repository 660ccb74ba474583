"""Golden histories: the same facts give the same journal, row by row, in every release."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from atone._core.decide import decide
from atone._core.fold import fold
from atone._core.journal import RequestReceived
from atone._core.plan import Plan
from atone._core.state import Request, SagaState
from tests.core.readable import entry_from, fact_from, to_json
from tests.core.record import HISTORIES, followed
from tests.core.stories import STORIES

FILES = sorted(HISTORIES.glob("*.json"))


def _read(path: Path) -> tuple[Plan, list[dict[str, Any]], dict[str, Any]]:
    found = json.loads(path.read_text(encoding="utf-8"))
    return Plan.from_json(json.dumps(found["plan"])), found["turns"], found["end"]


def _shown(plan: Plan, saga: SagaState) -> dict[str, Any]:
    steps = {step.name: str(state.status) for step, state in zip(plan.steps, saga.steps, strict=True)}
    return {"status": str(saga.status), "steps": steps}


def test_every_story_has_its_history() -> None:
    """And every history its story: nothing is recorded that nobody can record again."""
    assert {path.stem for path in FILES} == set(STORIES)
    assert len(FILES) >= 12


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_a_history_repeats_itself(path: Path) -> None:
    """Told the same facts at the same times, `decide` writes the same entries and asks for the same."""
    plan, turns, end = _read(path)
    saga: SagaState | None = None
    for number, turn in enumerate(turns):
        told = fact_from(turn["told"])
        if isinstance(told, Request):
            assert turn["entries"] == [to_json(RequestReceived(told))]
            saga = fold(plan, saga, (RequestReceived(told),))
            continue
        decision = decide(plan, saga, told, turn["at"], may_start=turn.get("may_start", True))
        expected = {key: turn[key] for key in ("entries", "commands", "status", "wake_at", "idle")}
        assert followed(decision) == expected, f"turn {number}: {turn['told']}"
        saga = decision.saga
    assert saga is not None
    assert _shown(plan, saga) == end


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_the_entries_of_a_history_still_fold(path: Path) -> None:
    """A journal of an older release gives the same saga: entries are a stored format."""
    plan, turns, end = _read(path)
    saga: SagaState | None = None
    for turn in turns:
        if turn["entries"]:
            saga = fold(plan, saga, [entry_from(entry) for entry in turn["entries"]])
    assert saga is not None
    assert _shown(plan, saga) == end
