"""The contract holds SQLite to its statements: with one condition taken out of one of them, the named check fails."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import ModuleType

import pytest

from atone.errors import WorkerDead
from atone.stores import (
    _sqlite_claim,
    _sqlite_group,
    _sqlite_read,
    _sqlite_requests,
    _sqlite_turn,
)
from atone.testing.contracts import STORE_CHECKS, ContractBroken
from tests.contract.test_stores import sqlite_subject

CHECKS = {check.name: check for check in STORE_CHECKS}

FAULTS: list[tuple[ModuleType, str, str, str, str]] = [
    (_sqlite_group, "_ALIVE", "AND dead = 0", "", "dead_is_for_ever_even_if_the_clock_goes_back"),
    (_sqlite_group, "_ALIVE", "AND lease_until > ?", "AND ? > 0", "a_worker_whose_lease_is_over_writes_nothing"),
    (_sqlite_group, "_APPEND_MINE", "AND owner = ?6", "AND ?6 <> ''", "a_reload_tells_whose_a_saga_is"),
    (_sqlite_group, "_ASKED", "asked = 1", "asked = 2", "a_row_above_ends_the_news_with_hot_and_without"),
    (
        _sqlite_group,
        "_ANY_EARLY",
        "SELECT EXISTS",
        "SELECT 0 AND EXISTS",
        "an_early_event_is_kept_once_and_delivered_once",
    ),
    (_sqlite_turn, "_STANDS", "commit_id = ?", "? IS NULL", "a_turn_that_is_sent_again_is_applied_once"),
    (_sqlite_turn, "_STANDS", "commit_id = ?", "? IS NOT NULL", "two_turns_at_one_version_never_both_succeed"),
    (_sqlite_turn, "_NAMED", "tenant = ?", "? <> ''", "the_same_id_is_free_under_another_tenant_or_name"),
    (_sqlite_turn, "_TAKE_EARLY", "tenant = ?", "? <> ''", "an_early_event_goes_to_its_own_saga_only"),
    (_sqlite_turn, "_TAKE_EARLY", "expires_at > ?", "? > 0", "an_event_that_has_run_out_is_not_delivered"),
    (_sqlite_turn, "_ASK", "asked = 1,", "", "the_owner_hears_of_a_request_until_it_has_written_a_row_above"),
    (_sqlite_turn, "_ASK", "THEN ?", "THEN wake_at + ? * 0", "a_request_wakes_a_saga_that_waits"),
    (_sqlite_claim, "_RENEW", "AND dead = 0", "", "a_retired_worker_is_dead_from_then_on"),
    (
        _sqlite_claim,
        "_REGISTER",
        "ON CONFLICT DO NOTHING",
        "ON CONFLICT DO UPDATE SET dead = 0",
        "a_worker_id_is_never_used_again",
    ),
    (
        _sqlite_claim,
        "_DECLARE_DEAD",
        "lease_until <= ?",
        "lease_until < ? - 1",
        "a_dead_owners_sagas_can_be_taken_bit_by_bit",
    ),
    (_sqlite_claim, "_DECLARE_DEAD", "lease_until <= ?", "lease_until < ? + 1", "a_lease_holds_until_its_last_moment"),
    (_sqlite_claim, "_MINE", "owner = ?", "owner = ? || 'x'", "what_is_mine_but_not_known_is_taken_again"),
    (
        _sqlite_claim,
        "_DUE",
        "wake_at <= ?",
        "wake_at <= ? + 1",
        "an_unowned_saga_is_taken_when_it_is_due_and_not_before",
    ),
    (_sqlite_claim, "_DUE", "wake_at <= ?", "wake_at < ?", "an_unowned_saga_is_taken_when_it_is_due_and_not_before"),
    (_sqlite_claim, "_DUE", "FROM unfinished", "FROM sagas", "a_final_saga_is_never_taken"),
    (_sqlite_claim, "_OWN", "owner = ?", "owner = ? || 'x'", "a_saga_is_never_taken_by_two"),
    (_sqlite_claim, "_HOLDS", "owner = ?", "owner = ? || 'x'", "a_dead_owners_sagas_can_be_taken_bit_by_bit"),
    (_sqlite_claim, "_PROLONG", "max(lease_until, ?)", "?", "what_was_taken_is_mine_for_the_time_that_i_asked_for"),
    (
        _sqlite_claim,
        "_DROP_EARLY",
        "expires_at <= ?1",
        "expires_at < 0",
        "an_early_event_that_waits_too_long_is_a_dead_letter",
    ),
    (_sqlite_requests, "_FIND", "tenant = ?", "? <> ''", "a_request_for_nobody_writes_nothing"),
    (_sqlite_requests, "_KEEP", "WHERE expires_at <= :now", "", "an_early_event_is_kept_once_and_delivered_once"),
    (_sqlite_read, "_ROWS", "version > ?", "version >= ?", "rows_are_loaded_above_a_version"),
    (_sqlite_read, "_BY_WALK", "key > :after", "1", "what_is_found_comes_in_pages"),
    (_sqlite_read, "_BY_STATUS", "+key > :after", "1", "what_is_found_comes_in_pages"),
    (_sqlite_read, "_BY_STATUS", "ORDER BY +key", "", "what_is_found_comes_in_the_order_of_keys"),
    (_sqlite_read, "_BY_NAME", ":definition_version IS NULL", "1", "each_condition_of_a_query_counts"),
]


@pytest.mark.parametrize(("module", "name", "old", "new", "check"), FAULTS)
def test_a_condition_less_is_noticed(
    module: ModuleType, name: str, old: str, new: str, check: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each condition of a statement stands for a sentence of the contract."""
    statement = getattr(module, name)
    assert statement.count(old) == 1
    asyncio.run(CHECKS[check](lambda: sqlite_subject(tmp_path / "sound")))
    monkeypatch.setattr(module, name, statement.replace(old, new))
    with pytest.raises((ContractBroken, WorkerDead)):
        asyncio.run(CHECKS[check](lambda: sqlite_subject(tmp_path / "broken")))
