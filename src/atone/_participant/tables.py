"""A participant's tables together: barrier, inbox, outbox, and what it knows of each saga.

Owns which tables there are and what they are called, so that a service makes them with one call or one migration. Must
not read or write a row. Used by `atone.serving`; what is in the tables belongs to the modules that they come from.
"""

from __future__ import annotations

from atone._connections.face import Dialect, face_of, finish
from atone._participant.ledger import Ledger
from atone.barrier import Barrier
from atone.codec import Codec
from atone.inbox import Inbox
from atone.outbox import ServiceOutbox


class ServiceTables:
    """Name a service's tables, all with one `prefix`, which may begin with a schema: "orders.atone_".

    Make them by `create` when the service starts, or by your migrations from `sql`. Services that share a database
    may share the tables too; two outboxes in one database need two prefixes only if they have two brokers.
    """

    def __init__(self, prefix: str = "atone_", *, codec: Codec | None = None) -> None:
        self.codec = codec or Codec()
        self.barrier = Barrier(table=f"{prefix}barrier", codec=self.codec)
        self.inbox = Inbox(table=f"{prefix}inbox")
        self.outbox = ServiceOutbox(table=f"{prefix}outbox")
        self.ledger = Ledger(progress=f"{prefix}progress", expected=f"{prefix}expected")

    def sql(self, dialect: Dialect) -> str:
        """Return the statements that make the tables, for your own migrations."""
        parts = [self.barrier.table_sql(dialect), self.inbox.table_sql(dialect), self.outbox.table_sql(dialect)]
        return ";\n".join([*parts, *self.ledger.statements(dialect)]) + ";\n"

    async def create(self, connection: object) -> None:
        """Make the tables that are not there."""
        await self.barrier.create_table(connection)
        await self.inbox.create_table(connection)
        await self.outbox.create_table(connection)
        face = face_of(connection)
        for statement in self.ledger.statements(face.dialect):
            await face.run(statement)

    def create_blocking(self, connection: object) -> None:
        """Do the same as `create` on a synchronous connection."""
        finish(self.create(connection))

    async def purge(self, connection: object, *, older_than_days: float, limit: int = 10_000) -> int:
        """Delete at most `limit` rows of each table that are older, and return how many; never what still waits.

        Keep them for longer than any saga runs and any broker repeats itself: what is purged is forgotten.
        """
        if older_than_days < 1:
            raise ValueError("older_than_days= is at least 1: what is purged no longer guards.")
        await self.barrier.purge(connection, older_than_days=older_than_days)
        taken = await self.inbox.purge(connection, older_than_days=older_than_days, limit=limit)
        known = await self.ledger.purge(face_of(connection), seconds=older_than_days * 86_400, most=limit)
        return taken + known
