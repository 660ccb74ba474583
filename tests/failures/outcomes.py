"""Failures of what a step says: no answer, a wrong one, none that helps, or one that can't be stored.

Each function is one failure: it makes it happen, asserts what the page claims, and quotes what was seen.
"""

from __future__ import annotations

import asyncio
from typing import Any

from atone import Context, Reject, Saga, SagaStatus, Tried, pivot, step
from atone.errors import PayloadError
from tests.failures.shop import THRICE, Order
from tests.failures.stage import Stage, failure
from tests.runtime.world import ONCE, World, hangs, lands, lands_and_hangs, lands_and_raises, raises, returns

BY = "--by ada"


@failure("A call times out, and it had its effect", "a call timed out; was the card charged?")
async def a_time_out_whose_charge_landed(at: Stage) -> None:
    at.happens("""
        The payment service charges the card, and its answer does not come within the step's `timeout` (10 s). A
        time-out is not a failure: the outcome is *unknown*, and nothing is undone on a guess. The step is repeated with
        the same key, the service recognises it and answers with what it did the first time.
    """)
    at.world.script("charge", lands_and_hangs)
    at.worker()
    await at.start()
    assert await at.settled() is SagaStatus.COMPLETED
    assert (at.world.count("charge"), at.world.effects["order-1", "charge"]) == (2, 1)
    at.tell_ledger()
    at.journal("An attempt whose outcome is unknown, and the next one after a back-off.")
    assert "outcome unknown" in await at.atone("show order-1")
    at.person("""
        Nothing. A step whose participant can be asked may have a probe (`@charge.probe`); then it is asked first, and a
        step that has landed is not called again.
    """)


@failure("A call times out again and again", "a saga was undone although no participant refused anything")
async def a_step_that_never_answers(at: Stage) -> None:
    at.happens("""
        No attempt of `charge` is answered. When all attempts are used up, the saga turns back. The card may have been
        charged by any of them, so an unknown step is undone too; before that Atone waits for the last attempt's
        deadline and `late_grace`, for a call that is still on its way must not land after its undo.
    """)
    at.world.always("charge", hangs)
    at.worker()
    await at.start()
    assert await at.settled() is SagaStatus.COMPENSATED
    assert at.world.names[-2:] == ["refund", "release"]
    assert at.world.standing("order-1") == set()
    at.tell_ledger()
    at.journal("Three attempts without an answer, the turn, and the undo of what may have been done.")
    assert "backward" in await at.atone("show order-1")
    at.person("Nothing for this saga. An undo of a charge that never was must be harmless: see `Tried.outcome`.")


@failure("A participant refuses", "a saga ended compensated")
async def a_step_that_is_refused(at: Stage) -> None:
    at.happens("""
        The card is declined: the step raises `Reject`, or an exception that is named in `rejects=`. That says that
        there surely was no effect, so it is not tried again and not undone. What was done before it is undone, in
        reverse.
    """)
    at.world.script("charge", raises(Reject("the card was declined")))
    at.worker()
    await at.start()
    assert await at.settled() is SagaStatus.COMPENSATED
    assert at.world.names == ["reserve", "charge", "release"]
    at.tell_ledger()
    at.journal("The reason, the turn, and what was undone.")
    assert "the card was declined" in await at.atone("show order-1")
    at.person("Nothing. `outcome()` gives the caller `Compensated(cause)`.")


@failure("An undo fails, whatever is tried", "a saga needs attention; its undo of a step gave up")
async def an_undo_that_fails_for_ever(at: Stage) -> None:
    at.happens("""
        Shipping is refused, so the card has to be refunded, and the payment service is down for longer than the
        refund's attempts last. The undo gives up, and the others go on. The saga is *not* compensated: a charge stands
        that should not. It needs a person, and it says so.
    """)
    at.world.script("ship", raises(Reject("no van")))
    at.world.always("refund", raises(OSError("the bank is closed")))
    at.worker()
    await at.start()
    assert await at.settled() is SagaStatus.NEEDS_ATTENTION
    assert at.world.standing("order-1") == {"charge"}
    at.tell_ledger()
    at.journal("Every failure of the undo is kept.")
    assert "the bank is closed" in await at.atone("show order-1")
    await at.atone("list --status needs_attention")
    at.person("""
        When the service is back, give the undo another round. If the refund was made by hand instead, say so: `atone
        resolve order-1 charge --landed`. If it is not to be made at all, `atone skip`: then the saga ends failed, with
        your reason.
    """)
    await at.atone("explain order-1")
    at.world.always("refund", lands)
    await at.atone(f'retry order-1 charge --reason "the bank is open again" {BY}')
    assert await at.settled() is SagaStatus.COMPENSATED
    assert at.world.standing("order-1") == set()
    at.tell_ledger()


class ShipOnce(Saga[Order], name="ShipOnce", late_grace=5):
    """An order whose carrier honours no key: the pivot is called at most once."""

    def __init__(self, world: World) -> None:
        self.world = world

    @step(retry=THRICE, timeout=10)
    async def charge(self, ctx: Context[Order]) -> str:
        return await self.world.act("charge", ctx)

    @charge.compensation(retry=THRICE)
    async def refund(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.world.act("refund", ctx, tried)

    @pivot(charge, timeout=10, retry=ONCE, at_most_once=True)
    async def ship(self, ctx: Context[Order], payment: str) -> str:
        return await self.world.act("ship", ctx)


@failure("Nobody knows whether the point of no return was passed", "a saga needs attention; its pivot is unknown")
async def a_pivot_whose_outcome_is_unknown(at: Stage) -> None:
    at.happens("""
        The carrier did not answer, and it may not be asked twice (`at_most_once=True`). If the parcel is on its way,
        undoing the charge would be wrong; if it is not, so would be keeping it. Atone never guesses this.
    """)
    at.world.script("ship", lands_and_raises(ConnectionError("no answer from the carrier")))
    at.worker(ShipOnce(at.world))
    await at.start(saga=ShipOnce(at.world))
    assert await at.settled() is SagaStatus.NEEDS_ATTENTION
    assert at.world.names == ["charge", "ship"]
    at.tell_ledger()
    at.journal("Which step it is, and what was said last.")
    assert "no answer from the carrier" in await at.atone("show order-1")
    at.person("Ask the carrier, and vouch for what you have learnt; who said so and why stays in the journal.")
    await at.atone("explain order-1")
    result = "--result '\"parcel 7\"'"
    await at.atone(f'resolve order-1 ship --landed {result} --reason "the carrier has parcel 7" {BY}')
    assert await at.settled() is SagaStatus.COMPLETED
    assert at.world.standing("order-1") == {"charge", "ship"}


@failure(
    "What comes after the point of no return fails", "a saga runs for hours, and one step is tried again and again"
)
async def a_step_after_the_pivot_that_fails(at: Stage) -> None:
    at.happens("""
        The parcel is on its way, and the receipt can't be sent. There is no way back, so a retriable step is repeated
        for ever, with growing pauses up to its `maximum` (a minute here). The saga is not stuck, and needs nobody yet.
    """)
    at.world.script("send_receipt", *[raises(OSError("the mail is down"))] * 8)
    at.worker()
    await at.start()
    while at.world.count("send_receipt") < 8:  # noqa: ASYNC110 - minutes of virtual time
        await asyncio.sleep(1)
    at.tell_ledger()
    at.journal("The failures, and when the next attempt is due.")
    said = await at.atone("show order-1")
    assert "the mail is down" in said
    assert await at.status() is SagaStatus.RUNNING
    at.person("""
        Mend the mail. The next attempt comes by itself, or at once if you ask for it.
    """)
    await at.atone(f'retry order-1 send_receipt --reason "the mail is back" {BY}')
    assert await at.settled() is SagaStatus.COMPLETED


@failure("A step returns what can't be stored", "a saga needs attention, or was undone, because of a step's own result")
async def a_result_that_can_not_be_stored(at: Stage) -> None:
    at.happens("""
        `charge` is declared to return a `str` and returns a number, or something larger than a payload may be. A result
        is encoded and checked *before* success is journalled, so what is in the journal can be read. The card is
        charged, and the outcome can't be kept: that is no success. It may have had its effect, so it is treated as
        unknown.
    """)
    at.world.always("charge", returns(7))
    at.worker()
    await at.start()
    status = await at.settled()
    at.tell_ledger()
    at.journal("What was wrong, and where.")
    await at.atone("show order-1")
    assert status is SagaStatus.COMPENSATED, status
    assert at.world.standing("order-1") == set()
    at.person("Nothing for this saga. Mend the step; `mypy --strict` finds it before it runs.")


@failure("An input can't be stored", "`PayloadError` at a caller that starts a saga")
async def an_input_that_can_not_be_stored(at: Stage) -> None:
    at.happens("""
        A start is given an input that is not of the declared type, is too large, or is nested too deep. It is encoded
        and checked before anything is written, so no saga begins that no worker could ever read.
    """)
    at.worker()
    wrong: Any = 7
    try:
        await at.start(item=wrong)
    except PayloadError as error:
        at.quote(f"{type(error).__name__}: {error}")
    else:
        raise AssertionError("it was not refused")
    await asyncio.sleep(10)
    assert at.world.calls == []
    at.journal("There is none.")
    await at.atone("show order-1", status=1)
    at.person("Mend the caller. What is too large belongs into a store of its own, and its address into the input.")


class CheckedOrder(Saga[Order], name="CheckedOrder"):
    """An order with a step that is skipped under a condition."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.knows_gifts = False

    @step(no_compensation="only a note")
    async def note(self, ctx: Context[Order]) -> None:
        await self.world.act("note", ctx)

    @step(no_compensation="only a gift")
    async def wrap(self, ctx: Context[Order]) -> None:
        await self.world.act("wrap", ctx)

    @wrap.when
    def is_gift(self, ctx: Context[Order]) -> bool:
        if not self.knows_gifts:
            raise KeyError("gift")
        return True


@failure("A condition raises", "a saga needs attention, and no call of it has failed")
async def a_condition_that_raises(at: Stage) -> None:
    at.happens("""
        Whether a step runs is asked of a function (`@wrap.when`). It raises. To run the step would be a guess, and so
        would be to skip it; and it is no participant's failure, so nothing is undone for it.
    """)
    wrong = CheckedOrder(at.world)
    at.worker(wrong)
    await at.start(saga=wrong)
    assert await at.settled() is SagaStatus.NEEDS_ATTENTION
    at.tell_ledger()
    at.journal("The condition and its exception.")
    assert "KeyError" in await at.atone("show order-1")
    at.person("Mend the condition, deploy it, and have it asked again.")
    await at.atone("explain order-1")
    wrong.knows_gifts = True
    await at.atone(f'retry order-1 wrap --reason "is_gift is mended" {BY}')
    assert await at.settled() is SagaStatus.COMPLETED
