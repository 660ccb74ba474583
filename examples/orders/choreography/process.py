"""One service of the choreography as a process: a participant, its own database, and a connection to the broker.

Owns the database's transactions, and for the orders' service the placing of orders. Holds nothing that a crash could
lose: started again on the same database it goes on. Run by `run` as `python -m examples.orders.choreography.process`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec

from atone.brokers import open_broker
from atone.serving import Service, serve
from examples.orders.audit import saga_id_of
from examples.orders.children import when_stdin_closes
from examples.orders.choreography.events import OrderPlaced
from examples.orders.choreography.participants import ORDERS, PARTICIPANTS, SCHEMAS, place
from examples.orders.choreography.unruly import Mischief, Unruly, print_for_ever
from examples.orders.inventory import stock_shelves
from examples.orders.order_file import read_orders

_STOP_SECONDS = 10.0
_LOOK_EVERY_SECONDS = 0.02


@contextmanager
def transaction(database: Path) -> Generator[sqlite3.Connection, None, None]:
    """Open the database, begin as a writer, and commit when the block is left."""
    with closing(sqlite3.connect(database, timeout=30, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")


def create(database: Path, service: str, stock: Path | None) -> None:
    """Make the service's own tables, and put the opening stock on the shelves."""
    with closing(sqlite3.connect(database, timeout=30)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(SCHEMAS[service])
    if stock is not None:
        stock_shelves(database, msgspec.json.decode(stock.read_bytes(), type=dict[str, int]))


async def run(settings: argparse.Namespace) -> None:
    """Serve until told to stop; say every now and then what the broker did."""
    _stop_with_stdin()
    database: Path = settings.database
    create(database, settings.service, settings.stock)
    mischief = Mischief(settings.twice, settings.late)
    participant = PARTICIPANTS[settings.service]()
    async with (
        Unruly(open_broker(settings.broker), mischief, settings.seed) as broker,
        serve(ORDERS, participant, database=lambda: transaction(database), broker=broker) as service,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(print_for_ever(broker))
        if settings.orders:
            group.create_task(_place(settings, service))


async def _place(settings: argparse.Namespace, service: Service) -> None:
    """Place every order of the file, at most so many at a time; those that are placed already are left alone."""
    for order in read_orders(settings.orders).orders:
        while _pending(settings.database) >= settings.inflight:  # noqa: ASYNC110 - another transaction's doing
            await asyncio.sleep(_LOOK_EVERY_SECONDS)
        with transaction(settings.database) as connection:
            if place(connection, order):
                await service.start(connection, OrderPlaced(order), saga_id=saga_id_of(order.id))


def _pending(database: Path) -> int:
    with closing(sqlite3.connect(database, timeout=30)) as connection:
        (count,) = connection.execute("SELECT count(*) FROM orders WHERE status = 'pending'").fetchone()
        return int(count)


def _stop_with_stdin() -> None:
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None
    when_stdin_closes(lambda: loop.call_soon_threadsafe(task.cancel), exit_after_seconds=_STOP_SECONDS)


def main() -> None:
    """Serve until standard input closes."""
    parser = argparse.ArgumentParser(description="One service of the choreographed orders.")
    parser.add_argument("--service", choices=sorted(PARTICIPANTS), required=True)
    parser.add_argument("--database", type=Path, required=True)
    parser.add_argument("--broker", required=True, help="a URL")
    parser.add_argument("--stock", type=Path, help="opening stock: a JSON object, article to pieces")
    parser.add_argument("--orders", type=Path, help="orders to place, as JSON Lines")
    parser.add_argument("--inflight", type=int, default=40, help="orders under way at a time")
    parser.add_argument("--twice", type=float, default=0.0, help="share of messages that come twice")
    parser.add_argument("--late", type=float, default=0.0, help="share of messages that come late")
    parser.add_argument("--seed", type=int, default=1)
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
