"""`atone check`: sagas and choreographies of a module, their findings, and an exit status that a pipeline can use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from atone.cli import main
from tests.choreography.test_seed_sample import FIVE

SEED = "tests.choreography.seed_sample"


def checked(capsys: pytest.CaptureFixture[str], *targets: str) -> tuple[int, Any]:
    """Run the check in JSON, and return its status and document."""
    status = main(["check", *targets, "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_what_can_work_passes(capsys: pytest.CaptureFixture[str]) -> None:
    """A choreography and a saga definition, found in their modules, with nothing to say about them."""
    status, told = checked(capsys, "tests.choreography.order_events", "tests.definition.shop")

    assert status == 0
    assert told["ok"] is True
    assert [(one["kind"], one["name"], one["findings"]) for one in told["checked"]] == [
        ("choreography", "orders", []),
        ("saga", "PlaceOrder", []),
    ]


@pytest.mark.parametrize("target", [SEED, f"{SEED}:sample", "tests.choreography.broken_module"])
def test_the_seed_s_sample_fails_the_check(capsys: pytest.CaptureFixture[str], target: str) -> None:
    """Its five findings are told whether it can be imported or not, and the status says so."""
    status, told = checked(capsys, target)

    assert (status, told["ok"]) == (1, False)
    assert [(one["code"], one["where"]) for one in told["checked"][0]["findings"]] == FIVE


def test_people_read_each_finding_with_the_line_to_add(capsys: pytest.CaptureFixture[str]) -> None:
    """One line says what was found where, the next what to do."""
    assert main(["check", SEED]) == 1

    said = " ".join(capsys.readouterr().out.split())
    assert "orders (choreography, version 1): 5 findings" in said
    assert "- nobody_emits shipment.created" in said
    assert "Add: emits=(ShipmentCreated,) to the reaction that should" in said


def test_a_wrong_saga_is_found(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A saga whose annotations contradict each other is told, though it was imported without complaint."""
    (tmp_path / "wrong_saga.py").write_text(
        "from atone import Context, Saga, step\n"
        "class Pay(Saga[int]):\n"
        "    @step(no_compensation='sample')\n"
        "    def charge(self, ctx: Context[str]) -> int: ...\n"
        "def of_no_interest() -> None: ...\n"
    )
    monkeypatch.chdir(tmp_path)
    status, told = checked(capsys, "wrong_saga")

    assert status == 1
    (one,) = told["checked"][0]["findings"]
    assert one["code"] == "definition"
    assert "Context[int]" in one["message"]


def test_a_lonely_participant_s_annotations_are_checked(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that keeps its participant apart from the whole learns what is wrong with that alone."""
    (tmp_path / "lonely.py").write_text(
        "from tests.choreography.seed_sample import OrderCreated, ShipmentCreated\n"
        "from atone.choreography import Participant, Reaction, reacts\n"
        "class Watch(Participant, name='watch'):\n"
        "    @reacts(OrderCreated)\n"
        "    def note(self, ctx: Reaction[ShipmentCreated]) -> None: ...\n"
    )
    monkeypatch.chdir(tmp_path)
    status, told = checked(capsys, "lonely")

    assert status == 1
    assert told["checked"][0]["kind"] == "participant"
    assert "Reaction[OrderCreated]" in told["checked"][0]["findings"][0]["message"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "Say what to check"),
        (("json",), "has no saga, choreography or participant of its own"),
        (("nowhere.at.all",), "There is no module"),
        ((f"{SEED}:FIVE",), "has no 'FIVE'"),
        ((f"{SEED}:dataclass",), "is no saga, choreography or participant"),
    ],
)
def test_a_target_that_names_nothing_is_a_usage_error(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], says: str
) -> None:
    """Nothing to check is not the same as nothing found."""
    assert main(["check", *arguments]) == 2
    assert says in capsys.readouterr().err
