"""`verify` on other shapes of sagas: delays, events, conditions, steps that may not be repeated, open participants."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from atone import Context, Retry, Saga, Tried, delay, pivot, retriable, step, wait_for_event
from atone.errors import DefinitionError
from atone.testing import FakeParticipant, crash_everywhere, fail_each_step, repeat_every_action, verify
from tests.shapes.choreographed import CHAIN

ONCE = Retry(attempts=1)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


class Subscribe(Saga[int]):
    """Charge, wait a day, wait for the customer's word, then send."""

    def __init__(self, shop: FakeParticipant) -> None:
        self.shop = shop

    @step()
    async def charge(self, ctx: Context[int]) -> None:
        await self.shop.act("cents", ctx.input, key=ctx.idempotency_key)

    @charge.compensation
    async def refund(self, ctx: Context[int], tried: Tried[None]) -> None:
        await self.shop.undo("cents", of=tried.idempotency_key, key=ctx.idempotency_key)

    cooling_off = delay(timedelta(days=1))
    said_yes = wait_for_event("yes", str, timeout=timedelta(days=7))

    @pivot(said_yes)
    async def send(self, ctx: Context[int], word: str) -> None:
        await self.shop.act("parcels", key=ctx.idempotency_key)

    @retriable()
    async def thank(self, ctx: Context[int]) -> None:
        await self.shop.act("letters", key=ctx.idempotency_key)

    @thank.when
    async def is_worth_a_letter(self, ctx: Context[int]) -> bool:
        return ctx.input > 10


def test_days_of_waiting_and_an_event_are_run_in_no_time() -> None:
    """The event comes, comes early, twice, or never; a day passes; the worker is killed meanwhile."""
    report = verify(
        Subscribe, 42, participants=FakeParticipant, ledger=_ledger, events={"yes": "please"}, runs_max=170, schedules=5
    ).raise_if_found()

    ends = {(row.step, row.fault): dict(row.ends) for row in report.rows}
    assert ends["said_yes", "event never comes"] == {"compensated": 1}
    assert ends["said_yes", "event comes early"] == {"completed": 1}
    assert ends["said_yes", "event twice"] == {"completed": 1}
    assert ends["thank", "when fails"] == {"attention, then completed": 1}
    assert ("(saga)", "two faults, a kill, another order, by seeds") in ends
    assert report.runs == 170


def test_without_the_event_the_saga_is_verified_as_it_is_then_and_the_report_says_so() -> None:
    """Nobody says yes, so it is compensated in every run; the table says what to give."""
    report = crash_everywhere(Subscribe, 42, participants=FakeParticipant, ledger=_ledger).raise_if_found()

    assert {end for row in report.rows for end, _ in row.ends} == {"compensated"}
    assert any("events={'yes': ...}" in one.why for one in report.uncovered)


class Once(Saga[int]):
    """One step that nobody may repeat."""

    def __init__(self, shop: FakeParticipant) -> None:
        self.shop = shop

    @step(at_most_once=True, no_compensation="a test")
    async def charge(self, ctx: Context[int]) -> None:
        await self.shop.act("cents", ctx.input, key=ctx.idempotency_key)


def _keyless() -> FakeParticipant:
    return FakeParticipant(honours_keys=False)


def test_a_step_that_may_not_be_repeated_is_not() -> None:
    """A person says what became of it, truthfully; no run repeats it, and the report says that none did."""
    report = repeat_every_action(Once, 42, participants=_keyless, ledger=_ledger).raise_if_found()
    assert ("charge", "twice") in {(one.step, one.what) for one in report.uncovered}

    report = crash_everywhere(Once, 42, participants=_keyless, ledger=_ledger).raise_if_found()
    assert {end for row in report.rows for end, _ in row.ends} >= {"completed", "attention, then completed"}


def test_participants_may_be_opened_and_closed() -> None:
    """What is a context manager is entered before a run, and left after it."""
    opened: list[FakeParticipant] = []
    closed: list[FakeParticipant] = []

    @asynccontextmanager
    async def shop() -> AsyncGenerator[FakeParticipant, None]:
        made = FakeParticipant()
        opened.append(made)
        yield made
        closed.append(made)

    report = crash_everywhere(Subscribe, 42, participants=shop, ledger=_ledger, events={"yes": ""}).raise_if_found()

    assert opened == closed
    assert len(opened) == report.runs + 2  # one to see what it is, and the run without faults once more


def test_a_ledger_that_complains_is_a_finding() -> None:
    """It may compare by itself, and raise."""

    def ledger(shop: FakeParticipant) -> object:
        assert shop.balances["parcels"] < 1, "no parcel was ordered"
        return None

    report = fail_each_step(
        Subscribe, 42, participants=FakeParticipant, ledger=ledger, events={"yes": ""}, findings_max=1
    )
    assert report.findings[0].causes[0].startswith("the ledger complains (AssertionError): no parcel was ordered")


def test_an_input_with_which_it_never_ends_well_is_told_at_once() -> None:
    """A shop that fails whatever happens is no base to compare with."""

    def broken() -> FakeParticipant:
        shop = FakeParticipant()
        shop.script("parcels", *[ValueError("no van")] * 100)
        return shop

    report = verify(Subscribe, 42, participants=broken, ledger=_ledger, events={"yes": ""})

    assert report.runs == 1
    assert "without any fault it ends" in report.findings[0].causes[0]


def test_arguments_that_make_no_sense_are_refused() -> None:
    """An event that nobody waits for, a name that is no run's, a choreography."""
    given: Any = {"participants": FakeParticipant, "ledger": _ledger}
    with pytest.raises(ValueError, match="waits for no event 'no'"):
        verify(Subscribe, 42, events={"no": ""}, **given)
    with pytest.raises(ValueError, match="Copy `only=` from a report"):
        verify(Subscribe, 42, only="charge:explodes", **given)
    with pytest.raises(DefinitionError, match="is a choreography"):
        verify(CHAIN, 42, **given)  # type: ignore[arg-type]


def _ledger(shop: FakeParticipant) -> object:
    return shop.ledger
