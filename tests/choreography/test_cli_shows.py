"""`atone list` and `atone show` of choreographed sagas: beside the orchestrated ones, and like them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from atone._core.state import SagaStatus
from atone.cli.commands import run
from tests.choreography.test_saga_view import seen, until


@pytest.fixture
def store(tmp_path: Path) -> str:
    """Return the URL of a store with a saga that was completed and one that was undone."""

    async def main() -> None:
        async with seen(tmp_path) as (shop, view, _):
            await shop.place("o-1")
            await until(view, "o-1", SagaStatus.COMPLETED)
            await shop.place("o-2", "payments")
            await until(view, "o-2", SagaStatus.COMPENSATED)

    asyncio.run(main())
    return f"sqlite:///{tmp_path}/view.db"


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(list(arguments)) == 0
    return capsys.readouterr().out


def test_choreographed_sagas_are_listed_and_marked(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A line each, with the status that the events tell; a filter by status is theirs too."""
    assert [line.split()[:3] for line in said(capsys, "list", "--store", store).splitlines()[1:]] == [
        ["o-1", "orders", "completed"],
        ["o-2", "orders", "compensated"],
    ]
    listed = said(capsys, "list", "--store", store, "--json", "--status", "compensated")
    found: dict[str, Any] = json.loads(listed)
    assert (found["saga_id"], found["style"], found["worker"]) == ("o-2", "choreographed", None)
    assert json.loads(said(capsys, "list", "--store", store, "--json", "--after", "o-1"))["saga_id"] == "o-2"


def test_a_choreographed_saga_is_shown_with_its_events(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each event with who published it, in the order of their times; bodies only if they are asked for."""
    text = said(capsys, "show", "o-2", "--store", store)
    shown = [line.split()[-2:] for line in text.splitlines() if "+" in line]
    assert shown == [
        ["order.placed", "-"],
        ["stock.reserved", "inventory"],
        ["payment.declined", "payments"],
        ["stock.released", "inventory"],
        ["order.cancelled", "orders"],
    ]
    assert "no money" not in text
    assert "no money" in said(capsys, "show", "o-2", "--store", store, "--payloads")
    document = json.loads(said(capsys, "show", "o-2", "--store", store, "--json"))
    assert (document["saga"]["status"], document["missing"], document["trouble"]) == ("compensated", [], None)
    bodies = {one["name"]: one["body"] for one in document["events"]}
    assert bodies["payment.declined"] == {"payload": "hidden", "bytes": len('{"why":"no money"}')}


def test_nobody_can_be_asked_to_act_for_a_choreographed_saga(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A cancel is refused with the reason, and says where to look."""
    assert run(["cancel", "o-1", "--store", store, "--reason", "no"]) == 1
    assert "its services act by themselves" in capsys.readouterr().err
