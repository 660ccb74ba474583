"""PostgreSQL's statements are held to their rules: with one condition taken out of one of them, the named test fails.

The rules are those that the design has checked by a model; where two transactions have to meet to show that one is
broken, the test is one of `test_postgres_races`.
"""

from __future__ import annotations

import asyncio
import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from atone.errors import AtoneError
from atone.stores import (
    _postgres_claim,
    _postgres_commit,
    _postgres_early,
    _postgres_line,
    _postgres_outbox,
    _postgres_read,
    _postgres_requests,
    _postgres_start,
)
from atone.testing.contracts import STORE_CHECKS, ContractBroken
from tests.servers.postgres import Bench

CHECKS = {check.name: check for check in STORE_CHECKS}
PATIENCE_SECONDS = 3.0

_UNFINISHED = "AND s.status NOT IN ('completed', 'compensated', 'failed')"
_WITHOUT_OWNER = """
SELECT s.key, s.tenant, s.name, s.saga_id, s.version, s.plan_hash, s.status, text 'me', s.wake_at, s.created_at,
"""
_LOCKS_ME = """
    UPDATE atone.workers SET lease_until = greatest(lease_until, clock() + $2)
     WHERE id = $1 AND NOT dead AND lease_until > clock()
    RETURNING id, clock() AS now
"""
_LOOKS_AT_ME = """
    SELECT id, clock() AS now, CAST($2 AS float8) FROM atone.workers
     WHERE id = $1 AND NOT dead AND lease_until > clock()
"""

FAULTS: list[tuple[ModuleType, str, str, str, str]] = [
    # The commit: lease, owner and version are checked with the write.
    (_postgres_commit, "_WRITE", "AND NOT dead", "", "dead_is_for_ever_even_if_the_clock_goes_back"),
    (_postgres_commit, "_WRITE", "AND lease_until > clock() FOR", "FOR", "a_worker_whose_lease_is_over_writes_nothing"),
    (_postgres_commit, "_WRITE", "s.owner = $1\n       AND", "$1 <> ''\n       AND", "a_reload_tells_whose_a_saga_is"),
    (_postgres_commit, "_WRITE", "j.version = t.version - 1", "true", "a_version_is_never_skipped"),
    (
        _postgres_commit,
        "_WRITE",
        "ORDER BY key)\n    RETURNING 1",
        "ORDER BY key) ON CONFLICT DO NOTHING RETURNING 1",
        "a_turn_that_has_not_seen_a_request_conflicts",
    ),
    (_postgres_commit, "_WRITE", "asked = false", "asked = s.asked", "a_row_above_ends_the_news_with_hot_and_without"),
    (_postgres_commit, "_JUDGE", "AND j.commit_id = t.commit_id", "", "two_turns_at_one_version_never_both_succeed"),
    (
        _postgres_commit,
        "_JUDGE",
        "j.commit_id = t.commit_id",
        "t.commit_id IS NULL",
        "a_turn_that_is_sent_again_is_applied_once",
    ),
    # Leases: dead is for ever.
    (_postgres_claim, "_RENEW", "AND NOT dead", "", "dead_is_for_ever"),
    (_postgres_claim, "_REGISTER", "DO NOTHING", "(id) DO UPDATE SET dead = false", "a_worker_id_is_never_used_again"),
    (
        _postgres_claim,
        "_DECLARE_DEAD",
        "lease_until <= clock()",
        "lease_until < clock() - 5",
        "a_dead_owners_sagas_can_be_taken_bit_by_bit",
    ),
    (
        _postgres_claim,
        "_DECLARE_DEAD",
        "lease_until <= clock()",
        "lease_until < clock() + 1",
        "a_lease_holds_until_its_last_moment",
    ),
    # Claims: what the dead left, what is due, what is mine without my knowing, what is newer than I know.
    (
        _postgres_claim,
        "_LOOK",
        "WHERE owner = $1 AND status",
        "WHERE owner = $1 || 'x' AND status",
        "what_is_mine_but_not_known_is_taken_again",
    ),
    (
        _postgres_claim,
        "_LOOK",
        "AND asked AND",
        "AND NOT asked AND",
        "the_owner_hears_of_a_request_until_it_has_written_a_row_above",
    ),
    (
        _postgres_claim,
        "_LOOK",
        "WHERE holds AND dead",
        "WHERE holds AND dead AND false",
        "the_unfinished_sagas_of_a_dead_owner_are_taken",
    ),
    (
        _postgres_claim,
        "_FORGET_EMPTY_HANDED",
        "AND NOT EXISTS",
        "AND true OR NOT EXISTS",
        "a_dead_owners_sagas_can_be_taken_bit_by_bit",
    ),
    # Requests, early events, starts within the caller's transaction, reloads.
    (
        _postgres_requests,
        "_APPEND",
        "SET asked = true,",
        "SET asked = s.asked,",
        "the_owner_hears_of_a_request_until_it_has_written_a_row_above",
    ),
    (_postgres_requests, "_APPEND", "THEN a.at", "THEN s.wake_at", "a_request_wakes_a_saga_that_waits"),
    (
        _postgres_early,
        "TAKE_EARLY",
        "AND e.expires_at > s.created_at",
        "",
        "an_event_that_has_run_out_is_not_delivered",
    ),
    (
        _postgres_start,
        "_INSERT",
        "coalesce(CAST(:wake_at AS float8), clock())",
        "CAST(:wake_at AS float8)",
        "a_start_inside_a_transaction_is_due_unless_it_says_when",
    ),
    # The outbox: a message goes with its turn, a head is claimed with its key, for a while.
    (
        _postgres_outbox,
        "_ALSO_POSTED",
        "OR EXISTS (SELECT FROM fit AS f",
        "OR true OR EXISTS (SELECT FROM fit AS f",
        "a_turn_that_is_not_applied_posts_nothing",
    ),
    (
        _postgres_outbox,
        "_ALSO_POSTED",
        "WHERE EXISTS (SELECT FROM birth AS b WHERE b.key = m.saga) OR",
        "WHERE",
        "messages_wait_in_the_order_of_their_turns",
    ),
    (
        _postgres_outbox,
        "_ALSO_POSTED",
        "ORDER BY m.place",
        "ORDER BY m.place DESC",
        "messages_wait_in_the_order_of_their_turns",
    ),
    (
        _postgres_outbox,
        "_CLAIM",
        "AND e.ref < o.ref",
        "AND e.ref < o.ref AND false",
        "what_is_claimed_holds_up_its_key_and_no_other",
    ),
    (_postgres_outbox, "_CLAIM", "o.claimed_until <= clock() OR", "true OR", "a_claim_ends_with_its_time"),
    (_postgres_outbox, "_CLAIM", "OR o.claimed_by = $1", "", "a_claim_is_given_again_under_its_own_name"),
    (
        _postgres_outbox,
        "_CLAIM",
        "ORDER BY f.ref LIMIT $2",
        "ORDER BY f.ref",
        "a_limit_cuts_keys_behind_and_never_in_between",
    ),
    (
        _postgres_outbox,
        "_CLAIM",
        "EXISTS (SELECT FROM beyond)",
        "EXISTS (SELECT FROM beyond WHERE ref < 0)",
        "what_waits_behind_a_long_queue_is_found",
    ),
    (
        _postgres_outbox,
        "_SETTLE",
        " || $2::bigint[]",
        "",
        "what_is_refused_is_set_aside_and_its_key_goes_on",
    ),
    (_postgres_outbox, "_POST_AGAIN", "WHERE s.id = $1", "WHERE $1 <> ''", "what_was_set_aside_is_posted_again_once"),
    (_postgres_outbox, "_DROP", "WHERE s.id = $1", "WHERE $1 <> ''", "what_was_set_aside_is_dropped_for_good"),
    (_postgres_read, "_LOAD", "j.version > $2", "(j.version > $2) IS NOT NULL", "rows_are_loaded_above_a_version"),
    (_postgres_read, "_LOAD", "SELECT s.*, ", _WITHOUT_OWNER, "a_reload_tells_whose_a_saga_is"),
]


def without(change: pytest.MonkeyPatch, module: ModuleType, name: str, old: str, new: str) -> None:
    """Take something out of a statement; it has to be there."""
    whole = getattr(module, name)
    assert old in whole, f"{module.__name__}.{name} has no {old!r} any more; name the rule's new words"
    change.setattr(module, name, whole.replace(old, new))


@pytest.mark.parametrize(
    ("module", "name", "old", "new", "check"), FAULTS, ids=[f"{one[1]}-{one[4]}" for one in FAULTS]
)
def test_a_statement_without_this_condition_fails_the_contract(
    module: ModuleType,
    name: str,
    old: str,
    new: str,
    check: str,
    postgres_bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The check that is named turns the broken store down."""
    without(monkeypatch, module, name, old, new)
    with pytest.raises(ContractBroken):
        asyncio.run(CHECKS[check](postgres_bench.shared_place().subject))


def _races(change: pytest.MonkeyPatch, name: str = "test_postgres_races") -> Any:
    """Load the races anew, with an end to their patience: a lock that nobody takes is never waited for."""
    file = Path(__file__).parents[1] / "postgres" / f"{name}.py"
    spec = importlib.util.spec_from_file_location("races_that_must_fail", file)
    assert spec is not None
    assert spec.loader is not None
    races = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(races)

    async def until(condition: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert time.monotonic() < end, "what had to happen did not"
            await asyncio.sleep(0.01)

    change.setattr(races, "until", until, raising=False)
    return races


RACES: list[tuple[ModuleType, str, str, str, str, tuple[Any, ...]]] = [
    (_postgres_commit, "_WRITE", "FOR SHARE", "", "test_a_commit_that_meets_its_workers_death_waits_for_it", (True,)),
    (_postgres_commit, "_WRITE", "FOR SHARE", "", "test_a_worker_is_not_declared_dead_while_it_writes", ()),
    (
        _postgres_claim,
        "_TAKE",
        _LOCKS_ME,
        _LOOKS_AT_ME,
        "test_a_claim_that_meets_its_own_workers_death_takes_nothing",
        (),
    ),
    (
        _postgres_requests,
        "_APPEND",
        _UNFINISHED,
        "",
        "test_a_request_that_meets_the_last_turn_is_before_it_or_is_told_that_all_is_over",
        (),
    ),
]


@pytest.mark.parametrize(
    ("module", "name", "old", "new", "race", "values"), RACES, ids=[f"{one[1]}-{one[4]}" for one in RACES]
)
def test_a_statement_without_this_lock_loses_a_race(
    module: ModuleType,
    name: str,
    old: str,
    new: str,
    race: str,
    values: tuple[Any, ...],
    postgres_bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The race that is named ends otherwise."""
    without(monkeypatch, module, name, old, new)
    races = _races(monkeypatch)
    with pytest.raises((AssertionError, AtoneError)):
        getattr(races, race)(postgres_bench, *values)


def test_a_take_over_in_one_snapshot_forgets_what_was_born_meanwhile(
    postgres_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Declaring dead, looking and taking are statements of their own, each with a new snapshot."""
    claim = _postgres_claim.claim

    async def in_one_snapshot(session: _postgres_line.Session, *values: Any) -> Any:
        connection: Any = session.connection
        async with connection.transaction(isolation="repeatable_read"):
            await connection.execute("SELECT 1")
            return await claim(session, *values)

    monkeypatch.setattr(_postgres_claim, "claim", in_one_snapshot)
    races = _races(monkeypatch)
    with pytest.raises((AssertionError, AtoneError)):
        races.test_a_birth_under_way_when_its_worker_is_declared_dead_is_not_forgotten(postgres_bench)


@pytest.mark.parametrize(
    ("old", "new", "race"),
    [
        (
            "LIMIT $2 FOR UPDATE OF o SKIP LOCKED\n), following",
            "LIMIT $2\n), following",
            "test_a_key_whose_head_another_relay_is_claiming_is_left_out_whole",
        ),
        (
            "AND e.ref < o.ref)",
            "AND e.ref < o.ref AND e.claimed_until > clock())",
            "test_what_follows_a_message_that_is_being_forgotten_waits_for_that",
        ),
        (
            "FOR UPDATE OF o SKIP LOCKED\n), mine",
            "FOR UPDATE OF o NOWAIT\n), mine",
            "test_who_comes_late_with_what_it_published_holds_up_nobody",
        ),
    ],
)
def test_a_claim_of_messages_without_this_loses_a_race(
    old: str, new: str, race: str, postgres_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two relays would have one key at a time, or one would wait for the other."""
    without(monkeypatch, _postgres_outbox, "_CLAIM", old, new)
    races = _races(monkeypatch, "test_outbox_races")
    with pytest.raises((AssertionError, AtoneError)):
        getattr(races, race)(postgres_bench)
