"""The specification of one saga allows what Atone promises, and nothing else: histories by hand, one rule each."""

from __future__ import annotations

from collections.abc import Hashable

import pytest

from tests.linearizability.spec import OneSaga, Seen
from tests.linearizability.wgl import Call, check

Said = tuple[tuple[Hashable, ...], Hashable | None]


def saw(status: str, version: int, *requests: str, taken: str | None = None, shipped: bool = False) -> Said:
    return ("get",), Seen(1, status, version, requests, taken, shipped)


START: Said = (("start", 1), "started")
PAID: Said = (("event", "e1"), "appended")
CANCELLED: Said = (("cancel", "c1"), "appended")
DONE = saw("completed", 7, "e1", taken="e1", shipped=True)

ALLOWED: dict[str, list[Said]] = {
    "started twice with the same input": [START, START],
    "another input is told so": [START, (("start", 2), "conflict")],
    "an event makes it complete": [START, PAID, DONE, DONE],
    "an event that came early counts": [(("event", "e1"), "kept"), (("event", "e1"), "duplicate"), START, DONE],
    "a cancel undoes it": [START, CANCELLED, (("answer", "c1"), "applied"), saw("compensated", 5, "c1")],
    "a cancel after shipping is too late": [
        START, PAID, CANCELLED, (("answer", "c1"), "too_late"),
        saw("completed", 9, "e1", "c1", taken="e1", shipped=True),
    ],
    "the first event counts": [START, PAID, (("event", "e2"), "appended"), saw("running", 4, "e1", "e2", taken="e1")],
    "what is over can't be asked": [START, PAID, DONE, (("event", "e2"), "over"), (("cancel", "c1"), "over")],
    "a start without an answer was made": [(("start", 1), None), saw("running", 1)],
    "a start without an answer was not made": [(("start", 1), None), (("get",), "unknown")],
    "nothing is there yet": [(("get",), "unknown"), (("cancel", "c1"), "unknown"), START],
}  # fmt: skip
FORBIDDEN: dict[str, list[Said]] = {
    "two inputs both start it": [START, (("start", 2), "started")],
    "a conflict with nothing": [(("start", 1), "conflict")],
    "an event is taken twice": [START, PAID, PAID],
    "an event stands in the journal twice": [START, PAID, saw("running", 4, "e1", "e1")],
    "an early event is kept twice": [(("event", "e1"), "kept"), (("event", "e1"), "kept")],
    "an event that was appended is gone": [START, PAID, saw("running", 2)],
    "a cancel that was appended is gone": [START, CANCELLED, saw("running", 2)],
    "a durable cancel, and it ships all the same": [
        START, CANCELLED, PAID, saw("completed", 9, "c1", "e1", taken="e1", shipped=True)
    ],
    "applied and completed": [
        START, PAID, CANCELLED, (("answer", "c1"), "applied"),
        saw("completed", 9, "e1", "c1", taken="e1", shipped=True),
    ],
    "too late and compensated": [
        START, PAID, CANCELLED, (("answer", "c1"), "too_late"), saw("compensated", 9, "e1", "c1")
    ],
    "it turned back without being asked": [START, saw("compensating", 2)],
    "it shipped without being paid": [START, saw("completed", 5, shipped=True)],
    "a final saga runs again": [START, PAID, DONE, saw("running", 7, "e1", taken="e1", shipped=True)],
    "a final saga has another end": [START, PAID, DONE, saw("compensated", 9, "e1", taken="e1")],
    "a final saga grows": [START, PAID, DONE, saw("completed", 8, "e1", taken="e1", shipped=True)],
    "a final saga is asked": [START, PAID, DONE, (("event", "e2"), "appended")],
    "a journal shrinks": [START, saw("running", 3), saw("running", 2)],
    "a saga vanishes": [START, (("get",), "unknown")],
    "it was started with something else": [START, (("get",), Seen(2, "running", 1, (), None, False))],
    "the event that counted changes": [
        START, PAID, (("event", "e2"), "appended"), saw("running", 4, "e1", "e2", taken="e1"),
        saw("running", 5, "e1", "e2", taken="e2"),
    ],
}  # fmt: skip


def one_after_the_other(said: list[Said]) -> list[Call]:
    return [
        Call(asked, answer, float(at)) if answer is None else Call(asked, answer, at, at + 0.5)
        for at, (asked, answer) in enumerate(said)
    ]


@pytest.mark.parametrize("name", ALLOWED)
def test_what_is_promised_is_allowed(name: str) -> None:
    """One client, one call after the other."""
    assert check(OneSaga(), one_after_the_other(ALLOWED[name])).holds


@pytest.mark.parametrize("name", FORBIDDEN)
def test_what_must_not_happen_is_not_explained(name: str) -> None:
    """One client, one call after the other, and the last answer is wrong."""
    history = one_after_the_other(FORBIDDEN[name])
    assert check(OneSaga(), history[:-1]).holds
    assert not check(OneSaga(), history).holds
