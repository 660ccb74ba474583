"""Faults on real processes and a real PostgreSQL: small rounds of what the commands beside this do at length."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.crash import fail_over, lost_replies, paused, random_kill, server_restarts
from tests.crash.fleet import Run

Torment = Callable[[Run], dict[str, Any]]


@pytest.fixture
def line_of(tmp_path: Path) -> Callable[[str, Torment], dict[str, Any]]:
    """Return what does a run and gives its last line, when nothing in it is wrong."""

    def done(name: str, torment: Torment) -> dict[str, Any]:
        run = Run(name, tmp_path, seed=7)
        line = torment(run)
        assert run.wrong == []
        assert line["holds"]
        assert line["ends"]["completed"] > 0
        return line

    return done


@pytest.mark.slow
def test_workers_on_one_database_may_be_killed_at_any_moment(line_of: Any) -> None:
    """Others take over what they leave; every saga ends true and nothing happens twice."""
    line = line_of("random_kill", lambda run: random_kill.torment_fleet(run, kills=6, workers=2, feeders=5))
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
    line = line_of("lost_replies", lambda run: lost_replies.torment(run, wanted=5, workers=2, feeders=5))
    assert line["ambiguous_commits"] >= 5


@pytest.mark.slow
def test_a_fail_over_to_a_synchronous_standby_loses_nothing(line_of: Any) -> None:
    """Also when the standby has been silent for so long that workers gave up waiting for their commits."""

    def torment(run: Run) -> dict[str, Any]:
        return fail_over.torment(run, sync=True, rounds=2, workers=2, feeders=4, fsync="off")

    assert line_of("fail_over", torment)["acknowledged_lost"] == 0


@pytest.mark.slow
def test_after_a_fail_over_that_loses_the_last_moments_every_saga_ends_and_nothing_happens_twice(line_of: Any) -> None:
    """An asynchronous standby knows less than was acknowledged; callers make starts that are gone again."""

    def torment(run: Run) -> dict[str, Any]:
        return fail_over.torment(run, sync=False, rounds=1, workers=2, feeders=4, fsync="off")

    line = line_of("fail_over", torment)
    assert (line["stranded"], line["twice"]) == (0, 0)
