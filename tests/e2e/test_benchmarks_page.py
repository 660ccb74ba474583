"""The page about benchmarks says what was measured: its tables and its plot are made from the files beside it."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks import measurements, page
from benchmarks.chart import Panel, Row, plot
from benchmarks.goals import goals
from benchmarks.measurements import COMMANDS, Measured, commands_of, is_kept
from benchmarks.order_saga import WORKLOADS
from benchmarks.page import BLOCKS, PAGE, PLOT, drawing
from benchmarks.peers.catalogue import CONTENDERS, PEERS
from benchmarks.peers.environments import LOCKS

SVG = "{http://www.w3.org/2000/svg}"


def test_the_page_is_what_the_files_say() -> None:
    """Nobody edits a figure by hand; `python -m benchmarks.page` writes the page."""
    text = PAGE.read_text(encoding="utf-8")
    assert page.page(text) == text
    assert all(f"<!-- {name}: from the measured files -->" in text for name in BLOCKS)


def test_the_plot_is_what_the_files_say() -> None:
    """The plot beside the page is drawn from the same lines."""
    assert PLOT.read_text(encoding="utf-8") == drawing()


def test_the_plot_shows_every_contender_that_was_measured() -> None:
    """It is well-formed, its text is text, and each label has a dot and a figure."""
    root = ET.fromstring(PLOT.read_text(encoding="utf-8"))
    measured = [line for line in Measured("compare").lines if "sagas_per_second" in line]
    assert len(root.findall(f".//{SVG}circle")) == len(measured)
    assert root.find(f"{SVG}title") is not None
    labels = {str(text.text) for text in root.iter(f"{SVG}text")}
    assert {page._title(line["contender"]).replace("**", "") for line in measured} <= labels


def test_a_figure_that_changes_changes_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks are really made from the files: another rate, another page."""
    for name in COMMANDS:
        if is_kept(name):
            runs = json.loads(measurements.path_of(name).read_text(encoding="utf-8"))
            if name == "compare":
                runs[0]["lines"][0]["sagas_per_second"] = 123_456.7
            (tmp_path / f"{name}.json").write_text(json.dumps(runs), encoding="utf-8")
    monkeypatch.setattr(measurements, "KEPT", tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    assert "123,457" not in text
    assert "123,457" in page.page(text)


def test_a_peer_that_was_not_measured_is_said_to_be_so() -> None:
    """Its row gives the reason, and no figure."""
    row = page._compare_row({"contender": "dbos", "not_measured": "no Python 3.12 or newer was found here"})
    assert row[:2] == ["DBOS", "not measured: no Python 3.12 or newer was found here"]
    assert set(row[2:]) == {""}


def test_rows_lie_where_their_values_are() -> None:
    """On a logarithmic scale ten times as much is always as far away, and the spread lies around the dot."""
    rows = tuple(Row(str(value), value, value / 2, value * 2) for value in (10.0, 100.0, 1000.0))
    root = ET.fromstring(plot("Rates", "a second", (Panel("all", rows),)))
    places = [float(circle.attrib["cx"]) for circle in root.iter(f"{SVG}circle")]
    assert places[1] - places[0] == pytest.approx(places[2] - places[1], abs=0.2)
    spreads = [line for line in root.iter(f"{SVG}line") if line.attrib["class"] == "spread"]
    for at, line in enumerate(spreads):
        assert float(line.attrib["x1"]) < places[at] < float(line.attrib["x2"])


def test_every_contender_is_told_of_and_pinned() -> None:
    """Each peer has a lock with hashes and a sentence about how it is set up, and no lock names a registry."""
    assert {peer.name for peer in PEERS} | {"atone", "floor"} == set(CONTENDERS)
    for peer in PEERS:
        lock = (LOCKS / f"{peer.environment}.txt").read_text(encoding="utf-8")
        assert "--hash=sha256:" in lock
        assert peer.set_up
    for lock_file in LOCKS.rglob("*"):
        if lock_file.is_file():
            assert "://" not in lock_file.read_text(encoding="utf-8"), f"{lock_file} names a place"


def test_lines_of_one_kind_are_the_rows_of_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A figure stands with its lowest and highest, and what is the same on all lines is left out."""
    monkeypatch.setattr(measurements, "KEPT", tmp_path)
    lines = [
        {"telemetry": kind, "rounds": 5, "ratio": ratio, "ratio_min": 0.5, "ratio_max": 1.5, "cpus": 2}
        for kind, ratio in (("none", 1.0), ("otel", 0.9))
    ]
    (tmp_path / "telemetry.json").write_text(
        json.dumps([{"command": "python -m it", "lines": lines}]), encoding="utf-8"
    )
    assert BLOCKS["telemetry"]() == [
        "`python -m it`",
        "",
        "| telemetry | ratio |",
        "|---|---|",
        "| none | 1.0 (0.5-1.5) |",
        "| otel | 0.9 (0.5-1.5) |",
    ]


def _measured(folder: Path, name: str, *lines: dict[str, object]) -> None:
    (folder / f"{name}.json").write_text(json.dumps([{"command": "python -m it", "lines": lines}]), encoding="utf-8")


def _against(contender: str, **more: object) -> dict[str, object]:
    return {"workload": "order", "inflight": 100, "contender": contender, **more}


def test_without_a_measurement_every_goal_is_there_and_none_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list is the same whatever was measured."""
    names = [goal.what for goal in goals()]
    monkeypatch.setattr(measurements, "KEPT", tmp_path)
    assert [goal.what for goal in goals()] == names
    assert {(goal.measured, goal.held) for goal in goals()} == {("not measured", False)}
    for word in ("Restate", "DBOS", "`compensate`", "killed", "starts", "claims", "finished sagas"):
        assert any(word in name for name in names), word


def test_a_goal_against_a_peer_that_was_not_measured_is_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The faster way to set it up might have been the one that is missing."""
    monkeypatch.setattr(measurements, "KEPT", tmp_path)
    rate = {"atone_times": 12.0, "atone_times_min": 11.0, "atone_times_max": 13.0}

    def told() -> tuple[str, bool]:
        goal = next(goal for goal in goals() if "Restate" in goal.what)
        return goal.measured, goal.held

    _measured(tmp_path, "compare", _against("restate", **rate), _against("restate-workers", not_measured="no server"))
    assert told() == ("12.0 (11.0-13.0), Restate; Restate, a worker a core: not measured", False)
    _measured(tmp_path, "compare", _against("restate", **rate), _against("restate-workers", **rate))
    assert told() == ("12.0 (11.0-13.0), Restate", True)
    _measured(
        tmp_path, "compare", _against("restate", not_measured="no"), _against("restate-workers", not_measured="no")
    )
    assert told() == ("not measured", False)


def test_a_goal_for_a_full_store_is_not_held_on_a_smaller_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slowest call on the fullest store counts."""
    monkeypatch.setattr(measurements, "KEPT", tmp_path)

    def told(*ratios: float, sagas: int = 1_000_000) -> tuple[str, bool]:
        lines: list[dict[str, object]] = [
            {"part": "latency", "call": call, "finished_sagas": sagas, "ratio": ratio}
            for call, ratio in zip(("claim_page", "claim_nothing", "start"), ratios, strict=True)
        ]
        _measured(
            tmp_path, "scale", {"part": "latency", "call": "claim_page", "finished_sagas": 0, "ratio": 9.0}, *lines
        )
        goal = next(goal for goal in goals() if "claims" in goal.what)
        return goal.measured, goal.held

    assert told(1.0, 1.1, 3.0) == ("1.10, claim nothing", True)
    assert told(1.3, 1.1, 1.0) == ("1.30, claim page", False)
    assert told(1.0, 1.1, 1.0, sagas=1_000) == ("1.10, claim nothing; with 1,000", False)


def test_given_options_stand_in_place_of_a_commands_own() -> None:
    """What is measured with them is what the page says was run; a command gets only what it knows."""
    given = {"rounds": "3", "workload": "order", "inflight": "100", "only": "atone,floor"}
    assert commands_of("throughput-postgres", given) == [
        "python -m benchmarks.throughput --store postgres --inflight 100 --workload order --json --rounds 3"
    ]
    assert commands_of("compare", given) == [
        "python -m benchmarks.compare --inflight 100 --workload order --json --rounds 3 --only atone,floor"
    ]
    assert commands_of("recovery", given) == list(COMMANDS["recovery"])
    assert commands_of("profile", given) == list(COMMANDS["profile"])
    assert len(commands_of("throughput-postgres", {"workload": "order,compensate"})) == len(WORKLOADS)
    with pytest.raises(ValueError, match="no workload"):
        commands_of("throughput-postgres", {"workload": "another"})
