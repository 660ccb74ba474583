"""The judge itself: a true run passes, and each planted violation is found."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from atone import Orchestrator
from tests.crash.child import Files, run_saga
from tests.crash.definitions import Branching, Pivoted, Script, Straight, all_sagas
from tests.crash.fleet import Run, on_postgres
from tests.crash.participant import Call, Effect, Participant
from tests.crash.random_kill import Plan, report
from tests.crash.server_restarts import seconds_to_first_commit
from tests.crash.verdict import Found, Saga, judge, read
from tests.crash.witness import Notes

SAGAS = {
    "good": (Straight, Script()),
    "undone": (
        Straight,
        Script({"s02": "raise after", "s05": "reject"}, {"s03": "raise before", "s01": "raise after"}),
    ),
    "past": (Pivoted, Script({"s06": "raise after", "s07": "raise before"})),
    "forked": (Branching, Script({"s06": "reject"})),
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """A run without a crash, as read from its files."""
    return asyncio.run(_true_run(Files(tmp_path_factory.mktemp("verdict"))))


async def _true_run(files: Files) -> Found:
    participant, notes = Participant(files.participant), Notes(files.notes)
    async with Orchestrator(f"sqlite:///{files.store}", sagas=all_sagas(participant)) as orchestrator:
        runs = [run_saga(orchestrator, shape, name, script, notes) for name, (shape, script) in SAGAS.items()]
        await asyncio.gather(*runs)
    participant.close()
    notes.close()
    return await read(files)


def test_a_run_in_which_everything_is_true_passes(found: Found) -> None:
    """What the participant did is what the sagas say, so nothing is found."""
    verdict = judge(found)
    assert (verdict.stranded, verdict.untrue, verdict.twice) == ([], [], [])
    assert verdict.ends == {"completed": 2, "compensated": 2}


def _saga(found: Found, saga_id: str, change: Callable[[Saga], Saga]) -> Found:
    return replace(found, sagas=[change(saga) if saga.saga_id == saga_id else saga for saga in found.sagas])


def _effects(found: Found, change: Callable[[list[Effect]], list[Effect]]) -> Found:
    return replace(found, effects=change(list(found.effects)))


def _without(effects: list[Effect], saga: str, step: str, operation: str) -> list[Effect]:
    left = [effect for effect in effects if effect[1:] != (saga, step, operation)]
    assert len(left) == len(effects) - 1
    return left


def _moved(effects: list[Effect], saga: str, step: str, operation: str, to: int) -> list[Effect]:
    return [*_without(effects, saga, step, operation), Effect(to, saga, step, operation)]


def _drop_row(saga: Saga) -> Saga:
    return saga._replace(rows=(*saga.rows[:2], *saga.rows[3:]))


def _repeat_commit_id(saga: Saga) -> Saga:
    return saga._replace(rows=(saga.rows[0], saga.rows[1]._replace(commit_id=saga.rows[0].commit_id), *saga.rows[2:]))


UNTRUE: dict[str, tuple[Callable[[Found], Found], str]] = {
    "a saga called compensated whose effect stands": (
        lambda run: _effects(run, lambda effects: _without(effects, "undone", "s02", "compensation")),
        "undone: it is called compensated, and these effects stand: s02",
    ),
    "a saga called completed whose step was not done": (
        lambda run: _effects(run, lambda effects: _without(effects, "good", "s04", "action")),
        "good: it is called completed; not done: ['s04']",
    ),
    "a saga called completed whose step was undone": (
        lambda run: _effects(run, lambda effects: [*effects, Effect(9999, "good", "s10", "compensation")]),
        "undone: ['s10']",
    ),
    "something undone although the pivot landed": (
        lambda run: _effects(run, lambda effects: [*effects, Effect(9999, "past", "s02", "compensation")]),
        "past: its pivot landed, and these were undone: s02",
    ),
    "an action that took effect after its undo": (
        lambda run: _effects(run, lambda effects: _moved(effects, "undone", "s02", "action", 9999)),
        "undone: s02 was undone before it was done",
    ),
    "an undo out of order": (
        lambda run: _effects(run, lambda effects: _moved(effects, "undone", "s04", "compensation", 9999)),
        "undone: s04 was undone after s01",
    ),
    "a step that began before what it comes after": (
        lambda run: _effects(run, lambda effects: _moved(effects, "good", "s10", "action", 0)),
        "good: s10 was done before s01",
    ),
    "an undo of what was never done": (
        lambda run: _effects(run, lambda effects: _without(effects, "forked", "s01", "action")),
        "forked: s01 was undone and never done",
    ),
    "a journal row that is missing": (
        lambda run: _saga(run, "good", _drop_row),
        "good: its journal can't be folded",
    ),
    "two rows of one commit": (
        lambda run: _saga(run, "good", _repeat_commit_id),
        "good: two journal rows have one commit id",
    ),
    "a row that says something else than the journal": (
        lambda run: _saga(run, "undone", lambda saga: saga._replace(status="completed")),
        "undone: its journal says compensated, its row says completed",
    ),
    "an end that the script does not explain": (
        lambda run: _saga(run, "good", lambda saga: saga._replace(status="failed")),
        "good: it ended failed, its script says completed",
    ),
    "a call without an intent": (
        lambda run: replace(run, calls=[*run.calls, Call("good", "s03", "action", 7, 1)]),
        "good: ('s03', 'action', 7) was called without an intent",
    ),
    "two calls for one intent": (
        lambda run: replace(run, calls=[*run.calls, Call("good", "s03", "action", 1, 1)]),
        "good: ('s03', 'action', 1) was called 2 times for one intent",
    ),
    "an effect of a saga that does not exist": (
        lambda run: _effects(run, lambda effects: [*effects, Effect(9999, "ghost", "s01", "action")]),
        "ghost: was called, but no such saga is in the store",
    ),
    "a start that was acknowledged and is lost": (
        lambda run: replace(run, started=[*run.started, "ghost"]),
        "ghost: its start was acknowledged, and it is not in the store",
    ),
    "a caller who was told another end": (
        lambda run: replace(run, ended=[*run.ended, ("good", "compensated")]),
        "good: its caller was told compensated, and the store says completed",
    ),
}


@pytest.mark.parametrize("violation", UNTRUE)
def test_an_untruth_is_found(found: Found, violation: str) -> None:
    """One thing is changed in a true run, and the judge names it."""
    plant, words = UNTRUE[violation]
    verdict = judge(plant(found))
    assert not verdict.holds
    assert any(words in what for what in verdict.untrue), verdict.untrue


def test_an_effect_that_happened_twice_is_found(found: Found) -> None:
    """The participant's guard was not there, or the key changed from one attempt to the next."""
    verdict = judge(_effects(found, lambda effects: [*effects, Effect(9999, "good", "s01", "action")]))
    assert verdict.twice == ["good s01 action took effect 2 times"]
    assert not verdict.holds


@pytest.mark.parametrize("status", ["pending", "running", "compensating", "needs_attention"])
def test_a_saga_that_is_not_over_is_stranded(found: Found, status: str) -> None:
    """In these runs nobody is there to attend to a saga, so that counts as well."""
    verdict = judge(_saga(found, "good", lambda saga: saga._replace(status=status)))
    assert verdict.stranded == [f"Straight good is {status}"]
    assert not verdict.holds


def test_a_run_in_which_nobody_was_told_anything_does_not_hold(found: Found) -> None:
    """Nothing lost of nothing says nothing: no saga at all, or none that anybody heard of."""
    assert judge(found).holds
    assert not judge(Found([], [], [])).holds
    assert not judge(replace(found, started=[], ended=[])).holds


def _weighed(found: Found, folder: Path, bites: str | None) -> Run:
    run = Run("run", folder, seed=1)
    run.weigh(found, drained=True, bites=bites)
    return run


def test_a_run_whose_fault_has_reached_nobody_is_wrong(found: Found, tmp_path: Path) -> None:
    """The same sagas are a proof when a commit was in doubt or an attempt lost, and none when that never happened."""
    bitten = replace(found, in_doubt=[(1.0, (b"commit",))])
    run = _weighed(bitten, tmp_path, "commits_in_doubt")
    assert (run.wrong, run.line()["holds"]) == ([], True)
    assert run.done["acknowledged"] == 2 * len(SAGAS)
    for fault in ("commits_in_doubt", "attempts_lost"):
        run = _weighed(found, tmp_path, fault)
        assert run.wrong == [f"{fault} is 0: the run has shown nothing"]
        assert not run.line()["holds"]


def test_a_run_without_sagas_is_wrong(tmp_path: Path) -> None:
    """Whatever the fault was: nothing was acknowledged that could have been lost."""
    run = _weighed(Found([], [], []), tmp_path, None)
    assert run.wrong == ["acknowledged is 0: the run has shown nothing"]
    assert not run.line()["holds"]


def test_a_store_in_which_nobody_writes_again_is_wrong(tmp_path: Path) -> None:
    """Whoever waits for the first commit in vain says so, instead of a figure that looks like any other."""
    run = Run("run", tmp_path, seed=1)
    with on_postgres(run) as (server, _):
        seconds_to_first_commit(run, server, patience_seconds=0.1)
    assert run.wrong == ["nobody has written anything for 0.1 s, although the server was there"]


def test_the_last_line_counts_what_was_found(found: Found) -> None:
    """Whoever reads only the last line sees each kind of violation."""
    broken = _saga(found, "good", lambda saga: saga._replace(status="running"))
    broken = _effects(broken, lambda effects: [*effects, Effect(9999, "past", "s10", "action")])
    verdict = judge(broken)
    line = report(verdict, Plan(kills=3), 1.0, 0)
    assert {"kills", "sagas", "stranded", "untrue", "twice", "seconds"} <= line.keys()
    assert (line["kills"], line["sagas"], line["stranded"], line["twice"]) == (3, 4, 1, 1)
    assert line["untrue"] == len(verdict.untrue) > 0


def test_the_participant_has_an_effect_once_and_none_after_its_undo(tmp_path: Path) -> None:
    """The guard works, or the verdicts of whole runs would say little."""
    participant = Participant(tmp_path / "participant.db")
    participant.act("a", "s01", "key")
    participant.act("a", "s01", "key")
    participant.undo("a", "s01", "undo", "key")
    participant.undo("a", "s01", "undo", "key")
    participant.undo("a", "s02", "undo-2", "key-2")
    with pytest.raises(Exception, match="compensated before"):
        participant.act("a", "s02", "key-2")
    assert [effect[1:] for effect in participant.effects()] == [("a", "s01", "action"), ("a", "s01", "compensation")]
    assert participant.refusals() == 1
    participant.close()
