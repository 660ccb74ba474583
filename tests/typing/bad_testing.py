"""Wrong use of `atone.testing`: each marked line must be flagged by both checkers, and no other."""

from __future__ import annotations

from domain import Order, Payment
from good_testing import Pay, Shop

from atone.testing import FakeParticipant, remote, verify


def verified(order: Order, payment: Payment) -> None:
    verify(Pay, payment, participants=Shop, ledger=Shop.books)  # E
    verify(Pay, order, participants=Payment, ledger=Shop.books)  # E
    verify(Pay, order, participants=Shop, ledger=order)  # E
    verify(Pay, order, participants=Shop)  # E
    verify(Pay, order, ledger=Shop.books)  # E
    verify(Pay, order, participants=Shop, ledger=Shop.books, only=7)  # E
    print(verify(Pay, order, participants=Shop, ledger=Shop.books).failures)  # E


async def fakes() -> None:
    participant = FakeParticipant(honors_keys=False)  # E
    await participant.act("cents", 1)  # E
    await participant.undo("cents", key="k")  # E
    participant.script("cents", "failed")  # E
    print(remote(FakeParticipant()).charges)  # E
