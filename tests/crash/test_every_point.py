"""Crash points of every shape: a few in the suite, and what the proof would find if the runtime were worse."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from atone._core import fold
from atone._core.journal import AttemptLost
from atone._runtime.runner import Runner
from atone.brokers.memory import MemoryBroker
from atone.store import Claimed, Lease, StoredPlan, Turn, TurnResult
from atone.stores.memory import MemoryStore
from atone.testing.invariants import Rule
from tests.crash.every_point import ALL, Explorer, Job, Tally, explore, jobs_of, main
from tests.crash.points import Faults, Parts, Ran, run


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Processes that die by the hundred have much to say."""
    yield
    logging.disable(logging.NOTSET)


def test_all_points_and_pairs_of_a_small_shape_hold() -> None:
    """The same as the command does for all of them."""
    tally = explore(Job("one_step", "worker", pairs=True))
    assert tally.told == []
    assert tally.singles == tally.points > 40
    assert tally.pairs > 2_000
    assert tally.lost > 5


def test_all_points_of_a_participant_hold() -> None:
    """The only process of a choreography that is served dies at each of its points."""
    tally = explore(Job("dance_time_out", "tables", pairs=False))
    assert tally.told == []
    assert tally.singles == tally.points > 40


def test_the_command_prints_one_line_and_a_way_back_to_each_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It exits with 0, and one run can be seen again with its timeline."""
    command = ["every_point", "--shape", "one_step", "--processes", "1"]
    monkeypatch.setattr(sys, "argv", [*command, "--singles"])
    assert main() == 0
    line = capsys.readouterr().out
    assert re.fullmatch(r"every_point: shapes 1, points 57, singles 57, lost 8, pairs 0, .*violations 0, .*\n", line)
    monkeypatch.setattr(sys, "argv", [*command, "--role", "worker", "--deaths", "20,40"])
    assert main() == 0
    timeline = capsys.readouterr().out
    assert "one_step: worker dies at point 20, then worker dies at point 40\n" in timeline
    assert timeline.count("  died at: worker: ") == 2


def test_every_shape_is_gone_through_and_only_what_is_short_in_pairs() -> None:
    """Nothing is left out by the list of jobs, and each process of a shape dies in turn."""
    jobs = jobs_of(list(ALL), "short")
    assert {job.shape for job in jobs} == set(ALL)
    assert [job.role for job in jobs if job.shape == "dance_linear"] == ["stock", "money", "vans", "desk"]
    in_pairs = {job.shape for job in jobs if job.pairs}
    assert len(in_pairs) >= 24
    assert in_pairs.isdisjoint({"eight_steps", "fan_out_4", "dance_linear", "long_delay"})


# -- two deaths that leave the same are one


def _after_death(ran: Ran) -> list[str]:
    """Return what was done after the first death; calls are numbered over the whole run, so without their numbers."""
    at = next(number for number, line in enumerate(ran.trace) if "is killed" in line)
    return [re.sub(r"call \d+", "call", line) for line in ran.trace[at + 1 :]]


@pytest.mark.parametrize("name", ["two_steps", "barrier_refused", "dance_linear"])
def test_deaths_that_leave_the_same_have_the_same_future(name: str) -> None:
    """Of each kind the first and the last point: from the death on, both runs do the same at the same times."""
    shape = ALL[name]
    role = "money" if name == "dance_linear" else "worker"
    whole = run(shape, Faults(role))
    first = {state: at for at, state in reversed(list(enumerate(whole.states, start=1)))}
    last = {state: at for at, state in enumerate(whole.states, start=1)}
    kinds = [(first[state], last[state]) for state in first if first[state] != last[state]]
    assert len(kinds) > 5
    for one, other in kinds[:: 1 + (role == "money") * 4]:  # a run of several processes takes longer
        futures = [_after_death(run(shape, Faults(role, (at,)))) for at in (one, other)]
        assert futures[0] == futures[1]


def test_without_merging_every_point_is_run() -> None:
    """The same verdict, for more work."""
    merged = explore(Job("one_step", "worker", pairs=False))
    each = explore(Job("one_step", "worker", pairs=False, merges=False))
    assert each.points == merged.points
    assert each.runs == 1 + each.points + each.lost > merged.runs
    assert each.violations == merged.violations == 0


# -- what it would find


def broken(name: str, parts: Parts = Parts(), *, role: str = "worker") -> Tally:  # noqa: B008 - it is frozen
    """Go through the single points of a shape that something is wrong with."""
    tally = Explorer(Job(name, role, pairs=False, parts=parts)).go()
    assert tally.violations, "nothing was found"
    assert f"again: python -m tests.crash.every_point --shape {name} --role {role}" in tally.told[0]
    return tally


def rules_in(tally: Tally) -> set[Rule]:
    return {rule for rule in Rule if any(f"\n  {rule} " in told for told in tally.told)}


def test_a_runtime_that_calls_before_its_intent_is_durable_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between the call and the commit, it leaves an effect that no journal knows of."""
    write, perform = Runner._write, Runner._perform

    def eager(self: Runner, fact: Any, decision: Any, released: bool, birth: Any = None) -> None:
        if not released:
            perform(self, decision)
        write(self, fact, decision, released, birth)

    monkeypatch.setattr(Runner, "_write", eager)
    monkeypatch.setattr(Runner, "_perform", lambda self, decision: None)
    assert Rule.JOURNAL in rules_in(broken("two_steps"))


def test_a_runtime_that_takes_unknown_for_failed_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that was lost with its process is not undone, and stands."""

    def clears(step: Any, entry: AttemptLost, backward: bool) -> Any:
        return fold._on_lost(step, entry, backward)._replace(doubt=False)

    monkeypatch.setitem(fold._ON_STEP, AttemptLost, clears)
    assert Rule.ENDS in rules_in(broken("cancel_race"))


def test_a_participant_that_ignores_keys_is_found() -> None:
    """Killed between the effect and its outcome, it has the effect again."""
    assert Rule.ONCE in rules_in(broken("two_steps", Parts(ignores_keys=True)))


class Forgetful(MemoryStore):
    """Loses the last row of every saga when its process has died, as a disk that does not sync."""

    def renew(self, worker: str | None, lease_seconds: float, *, register: Any = None) -> Lease:
        if register is not None and any(self._workers):
            for saga in self._sagas.values():
                del saga.rows[1:][-1:], saga.rows[max(1, len(saga.rows) - 1) :]
        return super().renew(worker, lease_seconds, register=register)


class Idle(MemoryStore):
    """Never has anything for a worker to take over."""

    async def claim(self, worker: str, **wish: Any) -> Claimed:
        return (await super().claim(worker, **wish | {"limit": 0}))._replace(taken=())


class Generous(MemoryStore):
    """Appends a turn that is sent again once more."""

    def _append(self, worker: str | None, turn: Turn, now: float) -> TurnResult:
        saga = self._sagas.get(turn.key)
        if saga is not None and self._stands(saga, turn):
            turn = turn._replace(version=len(saga.rows) + 1, commit_id=bytes(16), birth=None)
        return super()._append(worker, turn, now)


class Untidy(MemoryStore):
    """Keeps no plan of who registers."""

    def renew(
        self,
        worker: str | None,
        lease_seconds: float,
        *,
        register: list[StoredPlan] | None = None,  # type: ignore[override]
    ) -> Lease:
        return super().renew(worker, lease_seconds, register=None if register is None else [])


@pytest.mark.parametrize(
    ("store", "name", "rule"),
    [
        (Forgetful, "four_steps", Rule.JOURNAL),
        (Idle, "two_steps", Rule.LIVENESS),
        (Generous, "two_steps", Rule.JOURNAL),
        (Untidy, "one_step", Rule.JOURNAL),
    ],
)
def test_a_store_that_breaks_its_word_is_found(store: Any, name: str, rule: Rule) -> None:
    """What it forgets, never hands out, or writes twice shows in what sagas leave."""
    assert rule in rules_in(broken(name, Parts(store=store)))


def test_a_broker_that_forgets_what_it_has_handed_out_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The participant dies with the message in its hands, and nobody hears of it again."""
    claim = MemoryBroker._claim

    def hands_out(self: MemoryBroker, hands: Any) -> Any:
        taken = claim(self, hands)
        for item in taken:
            self.group_of(hands.group).items.pop(item.number)
        return taken

    monkeypatch.setattr(MemoryBroker, "_claim", hands_out)
    assert rules_in(broken("dance_linear", role="money")) & {Rule.LIVENESS, Rule.ENDS}
