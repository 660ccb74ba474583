"""From an outbox to an inbox, while the broker and both sides are killed: one effect each, and else it is seen."""

from __future__ import annotations

import pytest

from tests.crash.brokers import Plan, torment


@pytest.mark.parametrize(("broker", "kills"), [("nats", 2), ("embedded-sqlite", 1), ("chaotic", 1)])
def test_each_message_has_one_effect_whoever_is_killed(broker: str, kills: int) -> None:
    """Nothing is lost, doubled, left or parked; and duplicates did come."""
    verdict = torment(Plan(broker, messages=600, kills=kills, linger_seconds=0.5))
    assert verdict.holds, verdict
    assert verdict.process_kills == kills
    assert verdict.duplicates_refused > 600


def test_a_consumer_without_an_inbox_is_found() -> None:
    """Duplicates have their effect twice, and the verdict says so."""
    verdict = torment(Plan("memory", messages=300, break_inbox=True, linger_seconds=0.1))
    assert verdict.effects_twice > 0
    assert not verdict.holds


def test_a_consumer_that_acknowledges_before_its_commit_is_found() -> None:
    """What it had acknowledged and not committed when it was killed is lost, and the verdict says so."""
    verdict = torment(Plan("memory", messages=600, kills=3, ack_early=True, linger_seconds=0.1, stalled_seconds=4))
    assert verdict.lost > 0
    assert not verdict.holds
