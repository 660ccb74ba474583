"""The inventory service: sets pieces aside, and puts them back.

Owns the stock and every movement of it. An order is reserved as a whole or not at all; too little stock is a rejection.
Nothing here guards against repeats: rows are written as often as the guard lets the effect run, so that the books
would show a guard that fails. Run as `python -m examples.orders.inventory --database FILE --stock FILE`.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated

import msgspec

from examples.orders.domain import Name, Order, Quantity, Reservation
from examples.orders.participant import Rejected
from examples.orders.service import Action, command_line, serve

SCHEMA = """
CREATE TABLE IF NOT EXISTS stock (
    sku TEXT PRIMARY KEY,
    opening INTEGER NOT NULL,
    on_hand INTEGER NOT NULL CHECK (on_hand >= 0)
);
CREATE TABLE IF NOT EXISTS movements (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('reserve', 'release')),
    action_key TEXT NOT NULL,
    order_id TEXT NOT NULL,
    sku TEXT NOT NULL,
    quantity INTEGER NOT NULL CHECK (quantity > 0)
);
"""


class Pieces(msgspec.Struct, frozen=True):
    """So many pieces of one article."""

    sku: Name
    quantity: Quantity


class ReserveForm(msgspec.Struct, frozen=True):
    """Set these pieces aside for this order."""

    order_id: Name
    lines: Annotated[tuple[Pieces, ...], msgspec.Meta(min_length=1, max_length=100)]


def reserve(connection: sqlite3.Connection, key: str, form: ReserveForm) -> Reservation:
    """Set every line aside; reject the order as a whole if one article is short."""
    for line in form.lines:
        cursor = connection.execute(
            "UPDATE stock SET on_hand = on_hand - ?1 WHERE sku = ?2 AND on_hand >= ?1", (line.quantity, line.sku)
        )
        if cursor.rowcount == 0:
            raise Rejected(409, f"out of stock: {line.sku}")
        connection.execute(
            "INSERT INTO movements (kind, action_key, order_id, sku, quantity) VALUES ('reserve', ?, ?, ?, ?)",
            (key, form.order_id, line.sku, line.quantity),
        )
    return Reservation(reservation_id=f"reservation-{form.order_id}")


def release(connection: sqlite3.Connection, action_key: str) -> None:
    """Put back what was set aside under this key."""
    reserved = connection.execute(
        "SELECT order_id, sku, quantity FROM movements WHERE kind = 'reserve' AND action_key = ?", (action_key,)
    ).fetchall()
    for order_id, sku, quantity in reserved:
        connection.execute("UPDATE stock SET on_hand = on_hand + ? WHERE sku = ?", (quantity, sku))
        connection.execute(
            "INSERT INTO movements (kind, action_key, order_id, sku, quantity) VALUES ('release', ?, ?, ?, ?)",
            (action_key, order_id, sku, quantity),
        )


ACTIONS = (Action("/reservations", ReserveForm, reserve, "/reservations/release", release),)


def opening_stock(orders: Iterable[Order]) -> dict[str, int]:
    """Return the pieces to have of each article: all that is ordered, but of every fifth a third less."""
    ordered: Counter[str] = Counter()
    for order in orders:
        for line in order.lines:
            ordered[line.sku] += line.quantity
    skus = sorted(ordered)
    return {sku: ordered[sku] * 2 // 3 if skus.index(sku) % 5 == 0 else ordered[sku] for sku in skus}


def stock_shelves(database: Path, stock: Mapping[str, int]) -> None:
    """Write the opening stock; articles that are there already stay as they are."""
    connection = sqlite3.connect(database)
    try:
        connection.executescript(SCHEMA)
        connection.executemany(
            "INSERT INTO stock (sku, opening, on_hand) VALUES (?1, ?2, ?2) ON CONFLICT DO NOTHING", stock.items()
        )
        connection.commit()
    finally:
        connection.close()


def main() -> None:
    """Serve until told to stop."""
    parser = command_line("The inventory service.")
    parser.add_argument("--stock", type=Path, required=True, help="opening stock: a JSON object, article to pieces")
    settings = parser.parse_args()
    stock_shelves(settings.database, msgspec.json.decode(settings.stock.read_bytes(), type=dict[str, int]))
    serve(settings, SCHEMA, ACTIONS)


if __name__ == "__main__":
    main()
