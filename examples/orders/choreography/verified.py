"""The order saga by commands, verified: the services that answer them in this process, each with its own database.

Owns how these services are put together without processes and files; what of their books counts is the same as for the
orchestrated style. Run as `python -m examples.orders.choreography.verified`; the suite does the same.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from types import TracebackType
from typing import Any, Self

from atone.broker import Broker
from atone.serving import serve
from atone.testing import Report, verify
from examples.orders.choreography.commanding import CommandOrder
from examples.orders.choreography.participants import ORDERS, PARTICIPANTS, SCHEMAS
from examples.orders.verified import BOOKS, ORDER, STOCK

SERVICES = ("inventory", "payments", "shipping")


class Databases:
    """One database in memory for each service."""

    def __init__(self) -> None:
        self.connections = {
            name: sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False) for name in SERVICES
        }
        for name, connection in self.connections.items():
            connection.executescript(SCHEMAS[name] + (STOCK if name == "inventory" else ""))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for connection in self.connections.values():
            connection.close()

    @contextmanager
    def transaction(self, name: str) -> Generator[sqlite3.Connection, None, None]:
        """Begin on a service's database, and commit when the block is left."""
        connection = self.connections[name]
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    def books(self) -> dict[str, list[tuple[Any, ...]]]:
        """Return what counts in the end; nothing captured and all given back are the same."""
        found = {what: self.connections[name].execute(query).fetchall() for what, (name, query) in BOOKS.items()}
        return found | {"cents": [(found["cents"][0][0] or 0,)]}


@asynccontextmanager
async def serving(databases: Databases, broker: Broker) -> AsyncGenerator[None, None]:
    """Serve all three while the block lasts."""
    async with AsyncExitStack() as stack:
        for name in SERVICES:
            database = partial(databases.transaction, name)
            participant = PARTICIPANTS[name]()
            # Time is virtual, and a look takes real work: what is committed is sent at once, so it need not look often.
            service = serve(ORDERS, participant, database=database, broker=broker, poll_seconds=60)
            await stack.enter_async_context(service)
        yield


def _saga(_: Databases) -> CommandOrder:
    return CommandOrder()  # it calls nobody


def verified(helper: Callable[..., Report] = verify, **options: Any) -> Report:
    """Run the saga through all that can happen to it."""
    return helper(_saga, ORDER, participants=Databases, ledger=Databases.books, serving=serving, **options)


def main() -> None:
    """Print what was covered and found."""
    logging.disable(logging.CRITICAL)
    print(verified())


if __name__ == "__main__":
    main()
