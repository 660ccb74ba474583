"""Processes that are killed while they relay: a short round of what `relays` does at length, and faults it finds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.relays import Plan, torment


@pytest.mark.slow
@pytest.mark.parametrize("store", ["sqlite", "postgres"])
def test_no_kill_loses_a_message_or_turns_two_round(store: str, tmp_path: Path) -> None:
    """What the journals say that they told is what came, whoever was killed; some of it twice, with the same id."""
    verdict = torment(Plan(store, kills=3, seed=7), tmp_path)
    assert verdict.holds, verdict
    assert verdict.published_again > 0


@pytest.mark.slow
def test_a_relay_that_tells_before_it_has_published_is_found(tmp_path: Path) -> None:
    """What was in its hands when it was killed is lost."""
    verdict = torment(Plan(kills=2, processes=1, breaks="told_too_early"), tmp_path)
    assert verdict.drained, "it lives, and has told the outbox of everything"
    assert 0 < verdict.published < verdict.messages
    assert verdict.lost


@pytest.mark.slow
def test_relays_that_claim_rows_instead_of_keys_are_found(tmp_path: Path) -> None:
    """Two of them have one saga in hand, and its messages come in another order."""
    verdict = torment(Plan(kills=2, processes=3, breaks="no_heads"), tmp_path)
    assert verdict.drained, "they live, and leave nothing"
    assert verdict.published > 0
    assert verdict.out_of_order
