"""What `verify` says to who holds it wrong: a green report of a saga that was never tried would be the worst of all."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from atone import Context, Reject, Saga, step
from atone.testing import FakeParticipant, Report, verify

Body = Callable[[FakeParticipant, str], Awaitable[int]]


def _saga(body: Body) -> Callable[[FakeParticipant], Saga[int]]:
    class Pay(Saga[int]):
        def __init__(self, card: FakeParticipant) -> None:
            self.card = card

        @step(timeout=5)
        async def charge(self, ctx: Context[int]) -> int:
            return await body(self.card, ctx.idempotency_key)

        @charge.compensation
        async def refund(self, ctx: Context[int], tried: object) -> None:
            await self.card.undo("cents", of=ctx.idempotency_key, key=ctx.idempotency_key)

    return Pay


async def _charges(card: FakeParticipant, key: str) -> int:
    return await card.act("cents", 7, key=key, result=7)


PAY = _saga(_charges)
_CARD = FakeParticipant()


def _ledger(card: FakeParticipant) -> dict[str, int]:
    return card.ledger


def _verify(body: Body, participants: Callable[[], FakeParticipant] = FakeParticipant) -> Report:
    return verify(_saga(body), 7, participants=participants, ledger=_ledger, runs_max=30)


async def _mistyped(card: FakeParticipant, key: str) -> int:
    raise AttributeError("'FakeParticipant' object has no attribute 'chrage'")


async def _waits_for_ever(card: FakeParticipant, key: str) -> int:
    await asyncio.Event().wait()
    return 7


async def _opens_a_socket(card: FakeParticipant, key: str) -> int:
    await asyncio.open_connection("127.0.0.1", 9)
    return 7


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (_mistyped, "no attribute 'chrage'"),
        (_waits_for_ever, "no answer within the attempt's time-out"),
        (_opens_a_socket, "no sockets"),
    ],
)
def test_a_step_that_can_not_succeed_is_told_and_not_taken_for_undone(body: Body, why: str) -> None:
    """Every run of it would end compensated with an untouched ledger, and so prove nothing."""
    report = _verify(body)

    (finding,) = report.findings
    assert finding.replay == "no-fault"
    assert finding.causes[0].startswith("without any fault it is undone, for charge ended with")
    assert why in finding.causes[0]


def test_a_saga_that_is_refused_is_still_verified() -> None:
    """A Reject is an answer: every run has to be undone, and no finding is made of it."""

    async def refused(card: FakeParticipant, key: str) -> int:
        raise Reject("over the limit")

    report = _verify(refused)
    assert report
    assert report.runs > 10


def test_a_step_that_goes_round_without_time_passing_is_told() -> None:
    """Virtual time stands still for it, so no time-out comes; the run is bounded by its steps."""

    async def spins(card: FakeParticipant, key: str) -> int:
        while True:  # noqa: ASYNC110 - the mistake
            await asyncio.sleep(0)

    (finding,) = _verify(spins).findings
    assert "a step goes round and round" in finding.causes[0]
    assert not any("ContextVar" in line for line in finding.timeline)


def test_participants_that_outlive_a_run_are_told() -> None:
    """Each run has the same keys: a service of a module would take the second run for a repeat, and do nothing."""
    shared = FakeParticipant()

    (finding,) = _verify(_charges, lambda: shared).findings
    assert "participants= has to make all that they hold anew for each run" in finding.causes[0]


def test_a_ledger_that_differs_by_itself_is_told_once() -> None:
    """Amounts that are drawn anew each time are no twenty findings about money."""

    async def draws(card: FakeParticipant, key: str) -> int:
        return await card.act("cents", random.randrange(10**12), key=key, result=7)

    (finding,) = _verify(draws).findings
    assert "Leave out of the ledger what is drawn anew each time" in finding.causes[0]


def _yields(*_: object) -> Iterator[int]:
    yield 0


async def _async_ledger(card: FakeParticipant) -> int:
    return 0


@pytest.mark.parametrize(
    ("changed", "error", "says"),
    [
        ({"saga": PAY(_CARD)}, TypeError, "lambda participants: Pay"),
        ({"saga": lambda card: None}, TypeError, "gave a NoneType"),
        ({"participants": FakeParticipant()}, TypeError, "Give a class or a function that makes them"),
        ({"participants": _yields}, TypeError, "@contextmanager"),
        ({"participants": lambda: asyncio.sleep(0)}, TypeError, "@asynccontextmanager"),
        ({"ledger": None}, TypeError, "Give a function that reads the participants"),
        ({"ledger": _async_ledger}, TypeError, "Give a plain function"),
        ({"ledger": lambda card: object()}, TypeError, "not equal to its own copy"),
        ({"ledger": _yields}, TypeError, "Return plain values"),
        ({"only": "chrage:fails"}, ValueError, "no step 'chrage'"),
        ({"only": "charge:explodes"}, ValueError, "Copy `only=` from a report"),
        ({"runs_max": 0}, ValueError, "Give 1 or more"),
        ({"findings_max": 0}, ValueError, "Give 1 or more"),
        ({"schedules": -1}, ValueError, "Give 0 or more"),
    ],
)
def test_an_argument_that_makes_no_sense_is_refused(changed: dict[str, Any], error: type[Exception], says: str) -> None:
    """With the next move, before any run."""
    arguments: dict[str, Any] = {"saga": PAY, "participants": FakeParticipant, "ledger": _ledger, **changed}
    with pytest.raises(error, match=says):
        verify(arguments.pop("saga"), 7, **arguments)
