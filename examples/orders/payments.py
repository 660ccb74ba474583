"""The payments service: captures money, and gives it back.

Owns the ledger, in whole cents. A declined card is a rejection; so that anybody can make one, cards that end in 0002
are declined. Only the last four digits of a card number are kept. Nothing here guards against repeats: see `inventory`.
Run as `python -m examples.orders.payments --database FILE`.
"""

from __future__ import annotations

import sqlite3

import msgspec

from examples.orders.domain import CardNumber, Name, Payment, TotalCents
from examples.orders.participant import Rejected
from examples.orders.service import Action, command_line, serve

DECLINED_CARDS_END_IN = "0002"

SCHEMA = """
CREATE TABLE IF NOT EXISTS ledger (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('charge', 'refund')),
    action_key TEXT NOT NULL,
    order_id TEXT NOT NULL,
    card_last_four TEXT NOT NULL,
    amount_cents INTEGER NOT NULL CHECK (amount_cents >= 0)
);
"""


class ChargeForm(msgspec.Struct, frozen=True):
    """Capture this much from this card for this order."""

    order_id: Name
    card: CardNumber
    amount_cents: TotalCents


def charge(connection: sqlite3.Connection, key: str, form: ChargeForm) -> Payment:
    """Capture the money, or reject the card."""
    last_four = form.card[-4:]
    if last_four == DECLINED_CARDS_END_IN:
        raise Rejected(402, f"card declined: ends in {last_four}")
    connection.execute(
        "INSERT INTO ledger (kind, action_key, order_id, card_last_four, amount_cents) VALUES ('charge', ?, ?, ?, ?)",
        (key, form.order_id, last_four, form.amount_cents),
    )
    return Payment(payment_id=f"payment-{form.order_id}")


def refund(connection: sqlite3.Connection, action_key: str) -> None:
    """Give back what was captured under this key."""
    connection.execute(
        "INSERT INTO ledger (kind, action_key, order_id, card_last_four, amount_cents)"
        " SELECT 'refund', action_key, order_id, card_last_four, amount_cents FROM ledger"
        " WHERE kind = 'charge' AND action_key = ?",
        (action_key,),
    )


ACTIONS = (Action("/charges", ChargeForm, charge, "/charges/refund", refund),)


def main() -> None:
    """Serve until told to stop."""
    serve(command_line("The payments service.").parse_args(), SCHEMA, ACTIONS)


if __name__ == "__main__":
    main()
