"""The order example keeps its books whatever happens: its real services, verified in this process."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from atone.testing import crash_everywhere, fail_each_step, repeat_every_action
from examples.orders.choreography import verified as by_commands
from examples.orders.participant import Participant
from examples.orders.verified import ORDER, verified


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


def test_the_order_saga_is_verified() -> None:
    """Every failure, repeat and late call of every step, and kills: stock, money and parcels are right in the end."""
    report = verified(runs_max=250).raise_if_found()

    assert report.runs == 250
    assert not [one for one in report.uncovered if "never" in one.why]


def test_an_order_that_is_declined_leaves_nothing_behind_wherever_the_worker_is_killed() -> None:
    """The card is refused by the service itself; what was reserved beside it is put back."""
    report = verified(crash_everywhere, replace(ORDER, card="4111111111110002")).raise_if_found()

    assert {end for row in report.rows for end, _ in row.ends} == {"compensated"}


def test_the_verification_bites(monkeypatch: pytest.MonkeyPatch) -> None:
    """Services that take an action after its undo are found out."""
    monkeypatch.setattr(Participant, "_is_undone", lambda self, key: False)

    report = verified(fail_each_step, findings_max=1)

    assert [finding.replay for finding in report.findings] == ["reserve_inventory:lands-after-the-end*"]


def test_the_order_saga_by_commands_is_verified() -> None:
    """Commands and replies that are lost, doubled, late or refused, and kills, with a database for each service."""
    for helper in (crash_everywhere, repeat_every_action):
        report = by_commands.verified(helper).raise_if_found()
        assert not [one for one in report.uncovered if "never" in one.why]
        assert {end for row in report.rows for end, _ in row.ends} == {"completed", "compensated"}


def test_a_lost_command_and_a_late_one_are_sent_again_under_the_same_key() -> None:
    """Each by itself, by its name: what a report's `replay` line does."""
    for only in ("process_payment:fails", "process_payment:lands-after-the-end", "send_parcel:reply-lost"):
        report = by_commands.verified(only=only).raise_if_found()
        assert report.rows[-1].ends == (("completed", 1),)
