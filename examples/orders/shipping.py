"""The shipping service: sends parcels, and tells customers so.

Owns shipments and confirmations. A parcel on its way cannot be called back, so neither has an undo; and because there
is no way back, nothing is rejected here: what can be refused is refused before. Nothing here guards against repeats
(see `inventory`). Run as `python -m examples.orders.shipping --database FILE`.
"""

from __future__ import annotations

import sqlite3

import msgspec

from examples.orders.domain import Name, Shipment
from examples.orders.service import Action, command_line, serve

SCHEMA = """
CREATE TABLE IF NOT EXISTS shipments (
    id INTEGER PRIMARY KEY,
    action_key TEXT NOT NULL,
    order_id TEXT NOT NULL,
    reservation_id TEXT NOT NULL,
    payment_id TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS confirmations (
    id INTEGER PRIMARY KEY,
    action_key TEXT NOT NULL,
    order_id TEXT NOT NULL,
    shipment_id TEXT NOT NULL,
    customer TEXT NOT NULL
);
"""


class ShipForm(msgspec.Struct, frozen=True):
    """Send what was reserved and paid for."""

    order_id: Name
    reservation_id: str
    payment_id: str


class ConfirmForm(msgspec.Struct, frozen=True):
    """Tell the customer that the parcel is on its way."""

    order_id: Name
    shipment_id: str
    customer: str


class Sent(msgspec.Struct, frozen=True):
    """The customer was told."""

    confirmation_id: str


def ship(connection: sqlite3.Connection, key: str, form: ShipForm) -> Shipment:
    """Hand the parcel to the carrier."""
    connection.execute(
        "INSERT INTO shipments (action_key, order_id, reservation_id, payment_id) VALUES (?, ?, ?, ?)",
        (key, form.order_id, form.reservation_id, form.payment_id),
    )
    return Shipment(shipment_id=f"shipment-{form.order_id}")


def confirm(connection: sqlite3.Connection, key: str, form: ConfirmForm) -> Sent:
    """Write to the customer."""
    connection.execute(
        "INSERT INTO confirmations (action_key, order_id, shipment_id, customer) VALUES (?, ?, ?, ?)",
        (key, form.order_id, form.shipment_id, form.customer),
    )
    return Sent(confirmation_id=f"confirmation-{form.order_id}")


ACTIONS = (Action("/shipments", ShipForm, ship), Action("/confirmations", ConfirmForm, confirm))


def main() -> None:
    """Serve until told to stop."""
    serve(command_line("The shipping service.").parse_args(), SCHEMA, ACTIONS)


if __name__ == "__main__":
    main()
