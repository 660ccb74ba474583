"""Write the golden histories anew: `python -m tests.core.record [name ...]`. Never run by a test.

A history that changes is a change of the law: read the difference before you keep it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from atone._core.commands import Decision
from atone._core.journal import RequestReceived
from atone._core.state import Request
from tests.core.driver import Story
from tests.core.readable import to_json
from tests.core.stories import STORIES

HISTORIES = Path(__file__).resolve().parents[1] / "histories"


def history(story: Story, title: str) -> dict[str, Any]:
    """Return a story as data: the plan, then each turn with what was told and what followed."""
    decisions = iter(story.decisions)
    turns: list[dict[str, Any]] = []
    for number, (at, told) in enumerate(story.told):
        turn: dict[str, Any] = {"at": at, "told": to_json(told)}
        turn |= {"may_start": False} if number in story.drained else {}
        if isinstance(told, Request):
            turns.append(turn | {"entries": [to_json(RequestReceived(told))]})
        else:
            turns.append(turn | followed(next(decisions)))
    ended = {step.name: str(state.status) for step, state in zip(story.plan.steps, story.saga.steps, strict=True)}
    end = {"status": str(story.saga.status), "steps": ended}
    return {"title": title, "plan": json.loads(story.plan.to_json()), "turns": turns, "end": end}


def followed(decision: Decision) -> dict[str, Any]:
    """Return a decision as data."""
    return {
        "entries": [to_json(entry) for entry in decision.entries],
        "commands": [_command(command) for command in decision.commands],
        "status": str(decision.saga.status),
        "wake_at": decision.wake_at,
        "idle": decision.idle,
    }


def _command(command: Any) -> str:
    words = [type(command).__name__, getattr(command, "operation", ""), getattr(command, "step", "")]
    return " ".join(str(word) for word in words if word)


def main(names: list[str]) -> int:
    """Record the stories named, or all of them."""
    HISTORIES.mkdir(exist_ok=True)
    for name in names or STORIES:
        told = STORIES[name]
        text = json.dumps(history(told(), (told.__doc__ or "").strip()), indent=1, ensure_ascii=False)
        (HISTORIES / f"{name}.json").write_text(text + "\n", encoding="utf-8")
        print(name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
