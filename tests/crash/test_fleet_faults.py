"""Faults on real processes and a real PostgreSQL: small rounds of what the commands beside this do at length."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.crash import clock_jumps, fail_over, lost_replies, paused, random_kill, server_restarts
from tests.crash.fleet import Run
from tests.crash.processes import ROOT
from tests.servers.clock_shift import NoShim

Torment = Callable[[Run], dict[str, Any]]


@pytest.fixture
def line_of(tmp_path: Path) -> Callable[[str, Torment], dict[str, Any]]:
    """Return what does a run and gives its last line, when nothing in it is wrong."""

    def done(name: str, torment: Torment) -> dict[str, Any]:
        impatient = {"lease_seconds": 1.2, "statement_seconds": 0.35}
        run = Run(name, tmp_path, seed=7, settings={"fsync": "off"}, **impatient)
        line = torment(run)
        assert run.wrong == []
        assert line["holds"]
        assert line["ends"]["completed"] > 0
        return line

    return done


@pytest.mark.slow
def test_workers_on_one_database_may_be_killed_at_any_moment(line_of: Any) -> None:
    """Others take over what they leave; every saga ends true and nothing happens twice."""
    line = line_of("random_kill", lambda run: random_kill.torment_fleet(run, kills=4, workers=2, feeders=4))
    assert line["attempts_lost"] > 0


@pytest.mark.slow
def test_the_server_may_be_restarted_in_any_way_under_load(line_of: Any) -> None:
    """What was acknowledged is there afterwards, and the sagas go on by themselves."""
    line = line_of(
        "server_restarts",
        lambda run: server_restarts.torment(run, restarts=3, workers=2, feeders=5, outage_seconds=0.0),
    )
    assert line["commits_in_doubt"] > 0


@pytest.mark.slow
def test_nobody_hears_a_worker_that_wakes_up_after_its_lease(line_of: Any) -> None:
    """Stopped in the middle of calls and inside a transaction; what it writes on waking is refused."""
    line = line_of("paused", lambda run: paused.torment(run, pauses=1, in_transaction=1, workers=2, feeders=3))
    assert line["stale_writes_applied"] == 0
    assert line["stale_commits_refused"] > 0


@pytest.mark.slow
def test_commits_whose_answer_is_lost_are_made_once(line_of: Any) -> None:
    """The network resets, swallows, delays and holds back, between each worker and the server."""
    line = line_of("lost_replies", lambda run: lost_replies.torment(run, wanted=3, workers=2, feeders=4))
    assert line["ambiguous_commits"] >= 3


@pytest.mark.slow
def test_a_fail_over_to_a_synchronous_standby_loses_nothing(line_of: Any) -> None:
    """Also when the standby has been silent for so long that workers gave up waiting for their commits."""

    def torment(run: Run) -> dict[str, Any]:
        return fail_over.torment(run, sync=True, rounds=1, workers=2, feeders=4, silent_seconds=2.5)

    assert line_of("fail_over", torment)["acknowledged_lost"] == 0


@pytest.mark.slow
def test_after_a_fail_over_that_loses_the_last_moments_every_saga_ends_and_nothing_happens_twice(line_of: Any) -> None:
    """An asynchronous standby knows less than was acknowledged; callers make starts that are gone again."""

    def torment(run: Run) -> dict[str, Any]:
        return fail_over.torment(run, sync=False, rounds=1, workers=2, feeders=4)

    line = line_of("fail_over", torment)
    assert (line["stranded"], line["twice"]) == (0, 0)


@pytest.mark.slow
def test_full_disks_stop_sagas_only_for_as_long_as_they_are_full() -> None:
    """First the data's, which is an error to each commit, then the log's, which ends the server."""
    command = ["tests.crash.disk_full", "--rounds", "1", "--workers", "2", "--feeders", "3", "--seed", "7", "--json"]
    # In a process of its own: it leaves the mounts that everybody sees.
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 3:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout)
    assert line["panics"] > 0
    assert line["commits_turned_away_53100"] > 0


@pytest.mark.slow
def test_a_workers_wall_clock_matters_to_nobody(line_of: Any) -> None:
    """It jumps by hours and months, there and back; no lease ends for it and no attempt is lost."""
    try:
        line = line_of("clock_jumps", lambda run: clock_jumps.torment_workers(run, jumps=8, workers=2, feeders=3))
    except NoShim as why:
        pytest.skip(f"the clock of a single process can't be moved here: {why}")
    assert (line["declared_dead"], line["attempts_lost"]) == (0, 0)


@pytest.mark.slow
def test_a_jump_of_the_servers_clock_ends_leases_and_loses_nothing(line_of: Any) -> None:
    """Workers come back under new ids, and their sagas go on."""
    try:
        line = line_of("clock_jumps", lambda run: clock_jumps.torment_server(run, workers=2, feeders=3, seconds=0.7))
    except NoShim as why:
        pytest.skip(f"the clock of a single process can't be moved here: {why}")
    assert line["declared_dead"] > 0
