"""The books of the order example: each kind of mistake, planted by hand, is found and named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from examples.orders.books import COMPENSATED, COMPLETED, Books, LedgerEntry, Movement, Shelf, check
from examples.orders.domain import Line, Order

SHIPPED = Order("1", "Ada", "4000000000001234", (Line("CUP", 2, 500), Line("RUG", 1, 9000)), 10_000)
UNDONE = Order("2", "Bo", "4000000000001234", (Line("CUP", 3, 500),), 1_500)
DECLINED = Order("3", "Jun", "4000000000000002", (Line("RUG", 1, 9000),), 9_000)

RIGHT = Books(
    orders=(SHIPPED, UNDONE, DECLINED),
    ends={"1": COMPLETED, "2": COMPENSATED, "3": COMPENSATED},
    shelves=(Shelf("CUP", 10, 8), Shelf("RUG", 5, 4)),
    movements=(
        Movement("reserve", "1", "CUP", 2),
        Movement("reserve", "1", "RUG", 1),
        Movement("reserve", "2", "CUP", 3),
        Movement("reserve", "3", "RUG", 1),
        Movement("release", "3", "RUG", 1),
        Movement("release", "2", "CUP", 3),
    ),
    ledger=(LedgerEntry("charge", "1", 10_000), LedgerEntry("charge", "2", 1_500), LedgerEntry("refund", "2", 1_500)),
    shipments=("1",),
    confirmations=("1",),
)


def test_right_books_have_no_mistake() -> None:
    """Two undone orders and a shipped one, every row in its place: nothing is off."""
    assert check(RIGHT) == []


def _ledger(*entries: LedgerEntry) -> Books:
    return replace(RIGHT, ledger=entries)


_CHARGED, _OTHER_CHARGED, _REFUNDED = RIGHT.ledger
_TAKEN, *_OTHER_MOVES = RIGHT.movements

PLANTED = {
    "a cent too little is kept": (
        lambda: _ledger(replace(_CHARGED, amount_cents=9_999), _OTHER_CHARGED, _REFUNDED),
        ["order 1, cents kept: expected 10000, found 9999"],
    ),
    "a charge is missing": (
        lambda: _ledger(_OTHER_CHARGED, _REFUNDED),
        ["order 1, cents kept: expected 10000, found 0"],
    ),
    "a refund is missing": (
        lambda: _ledger(_CHARGED, _OTHER_CHARGED),
        ["order 2, cents kept: expected 0, found 1500"],
    ),
    "a refund came twice": (
        lambda: _ledger(*RIGHT.ledger, _REFUNDED),
        ["order 2, cents kept: expected 0, found -1500", "ledger entry refund 2, times: expected 1, found 2"],
    ),
    "a charge and its refund came twice, so that the sum is right": (
        lambda: _ledger(*RIGHT.ledger, _OTHER_CHARGED, _REFUNDED),
        [
            "ledger entry charge 2, times: expected 1, found 2",
            "ledger entry refund 2, times: expected 1, found 2",
        ],
    ),
    "two mistakes cancel out over two orders": (
        lambda: _ledger(replace(_CHARGED, amount_cents=9_999), replace(_OTHER_CHARGED, amount_cents=1_501), _REFUNDED),
        ["order 1, cents kept: expected 10000, found 9999", "order 2, cents kept: expected 0, found 1"],
    ),
    "an order nobody placed was charged": (
        lambda: _ledger(*RIGHT.ledger, LedgerEntry("charge", "9", 1)),
        ["order 9, cents kept: expected 0, found 1"],
    ),
    "pieces were taken twice": (
        lambda: replace(RIGHT, movements=(*RIGHT.movements, _TAKEN), shelves=(Shelf("CUP", 10, 6), RIGHT.shelves[1])),
        [
            "CUP, pieces on hand: expected 8, found 6",
            "order 1, pieces of CUP taken: expected 2, found 4",
            "movement reserve 1 CUP, times: expected 1, found 2",
        ],
    ),
    "pieces of an undone order were never put back": (
        lambda: replace(RIGHT, movements=RIGHT.movements[:-1]),
        ["order 2, pieces of CUP taken: expected 0, found 3"],
    ),
    "a piece is gone from the shelf without a movement": (
        lambda: replace(RIGHT, shelves=(Shelf("CUP", 10, 8), Shelf("RUG", 5, 3))),
        ["RUG, pieces on hand: expected 4, found 3"],
    ),
    "an article that was sold has no shelf": (
        lambda: replace(RIGHT, shelves=RIGHT.shelves[:1]),
        ["RUG, its shelf: expected one, found none"],
    ),
    "an undone order was shipped": (
        lambda: replace(RIGHT, shipments=("1", "2")),
        ["order 2, shipments: expected 0, found 1"],
    ),
    "an order was shipped twice": (
        lambda: replace(RIGHT, shipments=("1", "1")),
        ["order 1, shipments: expected 1, found 2"],
    ),
    "a completed order was never shipped": (
        lambda: replace(RIGHT, shipments=()),
        ["order 1, shipments: expected 1, found 0"],
    ),
    "a customer was told twice": (
        lambda: replace(RIGHT, confirmations=("1", "1")),
        ["order 1, confirmations: expected 1, found 2"],
    ),
    "a saga has not ended": (
        lambda: replace(RIGHT, ends={**RIGHT.ends, "3": "needs_attention"}),
        ["order 3, its saga: expected completed or compensated, found needs_attention"],
    ),
    "an order has no saga": (
        lambda: replace(RIGHT, ends={"1": COMPLETED, "2": COMPENSATED}),
        ["order 3, its saga: expected completed or compensated, found no saga"],
    ),
    "a saga has no order": (
        lambda: replace(RIGHT, ends={**RIGHT.ends, "9": COMPENSATED}),
        ["order 9, its saga: expected no such order, found compensated"],
    ),
    "a saga says compensated, but the order went through": (
        lambda: replace(RIGHT, ends={**RIGHT.ends, "1": COMPENSATED}),
        [
            "CUP, pieces on hand: expected 10, found 8",
            "RUG, pieces on hand: expected 5, found 4",
            "order 1, pieces of CUP taken: expected 0, found 2",
            "order 1, pieces of RUG taken: expected 0, found 1",
            "order 1, cents kept: expected 0, found 10000",
            "order 1, shipments: expected 0, found 1",
            "order 1, confirmations: expected 0, found 1",
        ],
    ),
}


@pytest.mark.parametrize(("plant", "mistakes"), PLANTED.values(), ids=PLANTED.keys())
def test_a_planted_mistake_is_found_and_named(plant: Callable[[], Books], mistakes: list[str]) -> None:
    """Exactly what was planted is reported, with what should be there and what is."""
    assert [str(mistake) for mistake in check(plant())] == mistakes
