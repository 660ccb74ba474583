"""Reads the books of a finished run: the participants' databases and the end of every saga.

Owns where in a run's folder what lies. Only reads, and judges nothing: `books` does. Called by the demo at its end;
`python -m examples.orders.audit FOLDER` looks at a folder that `demo --keep` left behind.
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from atone import Orchestrator
from examples.orders.books import Books, LedgerEntry, Movement, Shelf, check
from examples.orders.display import books_text
from examples.orders.order_file import read_orders

_SAGA_ID_PREFIX = "order-"
_PAGE = 500


def saga_id_of(order_id: str) -> str:
    """Return the id of an order's saga."""
    return _SAGA_ID_PREFIX + order_id


@dataclass(frozen=True, slots=True)
class Folder:
    """The files of one run."""

    path: Path

    @property
    def orders(self) -> Path:
        """The orders as they were given."""
        return self.path / "orders.jsonl"

    @property
    def stock(self) -> Path:
        """The opening stock, JSON."""
        return self.path / "stock.json"

    @property
    def store_url(self) -> str:
        """Atone's store, as a URL."""
        return f"sqlite:///{self.path / 'atone.db'}"

    @property
    def ends(self) -> Path:
        """How the sagas ended, where the store itself was thrown away with its server: JSON, by order."""
        return self.path / "ends.json"

    def write_ends(self, ends: Mapping[str, str]) -> None:
        """Keep how the sagas ended beside the participants' databases."""
        self.ends.write_bytes(msgspec.json.encode(ends))

    def database(self, service: str) -> Path:
        """The database of one participant."""
        return self.path / f"{service}.db"


def read_books(folder: Folder, ends: Mapping[str, str]) -> Books:
    """Read the participants' rows and put them beside the orders and how their sagas ended."""
    return Books(
        orders=read_orders(folder.orders).orders,
        ends=ends,
        shelves=tuple(
            Shelf(*row) for row in _rows(folder.database("inventory"), "SELECT sku, opening, on_hand FROM stock")
        ),
        movements=tuple(
            Movement(*row)
            for row in _rows(folder.database("inventory"), "SELECT kind, order_id, sku, quantity FROM movements")
        ),
        ledger=tuple(
            LedgerEntry(*row)
            for row in _rows(folder.database("payments"), "SELECT kind, order_id, amount_cents FROM ledger")
        ),
        shipments=tuple(
            order_id for (order_id,) in _rows(folder.database("shipping"), "SELECT order_id FROM shipments")
        ),
        confirmations=tuple(
            order_id for (order_id,) in _rows(folder.database("shipping"), "SELECT order_id FROM confirmations")
        ),
    )


def _rows(database: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchall()


async def saga_ends(folder: Folder) -> dict[str, str]:
    """Return the status of each order's saga, by the order's id."""
    if folder.ends.exists():
        return msgspec.json.decode(folder.ends.read_bytes(), type=dict[str, str])
    # No definition is given, so nothing is run here: this only looks.
    async with Orchestrator(folder.store_url, sagas=[]) as orchestrator:
        return await statuses_of_orders(orchestrator)


async def statuses_of_orders(orchestrator: Orchestrator) -> dict[str, str]:
    """Return the same from an orchestrator that is open."""
    statuses: dict[str, str] = {}
    page = await orchestrator.list(limit=_PAGE)
    while page:
        statuses.update((saga.saga_id.removeprefix(_SAGA_ID_PREFIX), saga.status.value) for saga in page)
        page = await orchestrator.list(limit=_PAGE, after=page[-1])
    return statuses


def main() -> int:
    """Look into the books of the folder that the command line names; return 1 if anything is off, 2 without one."""
    parser = argparse.ArgumentParser(description="Look into the books of a finished run.")
    parser.add_argument("folder", type=Path)
    folder = Folder(parser.parse_args().folder)
    if not folder.orders.exists():
        print(f"{folder.path} holds no run. Next: make one with examples.orders.demo --keep FOLDER.", file=sys.stderr)
        return 2
    books = read_books(folder, asyncio.run(saga_ends(folder)))
    mistakes = check(books)
    print(books_text(books, mistakes))
    return 1 if mistakes else 0


if __name__ == "__main__":
    sys.exit(main())
