"""The PostgreSQL store: many workers on one database, each batch of turns one statement and one round trip.

Owns the wiring of the port to statements that live in its private siblings, and the connections: one for commits, a few
for everything else, one in a thread of its own for leases. Made for one event loop at a time. Called through the port,
and by `open_store`. Needs the `postgres` extra.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import NamedTuple, Self, TypeVar, cast

from atone.broker import Relayed
from atone.errors import StoreClosed, StoreError
from atone.store import (
    NO_LIMITS,
    Census,
    Claimed,
    Delivered,
    Delivery,
    Hint,
    Lease,
    Loaded,
    Outstanding,
    Query,
    SetAside,
    StoredPlan,
    Summary,
    Turn,
    TurnResult,
)
from atone.stores import (
    _postgres_claim,
    _postgres_outbox,
    _postgres_read,
    _postgres_requests,
    _postgres_schema,
    _postgres_start,
)
from atone.stores._address import place_of
from atone.stores._messages import is_too_large
from atone.stores._postgres_commit import commit
from atone.stores._postgres_definitions import learn_number
from atone.stores._postgres_dial import Visit, connect, dial
from atone.stores._postgres_errors import of_caller
from atone.stores._postgres_foreign import foreign
from atone.stores._postgres_hints import Hints, Speaking, hints_of
from atone.stores._postgres_line import Connection, Line, Lines, Work
from atone.stores._postgres_place import CLOCK_SQL, Place
from atone.stores._postgres_thread import LineThread
from atone.stores._postgres_views import PostgresViews

T = TypeVar("T")

_QUEUE_STATEMENTS = 10  # so many statements may take their whole time before a caller that waits is sent away
_IDENTITY = "SELECT id FROM atone.identity"


class _Lines(NamedTuple):
    """The connections of a store that is open; `hints` if it is to tell and hear some."""

    commits: Line
    others: Lines
    leases: LineThread
    hints: Hints | None


class PostgresStore:
    """Keep sagas in a schema of a PostgreSQL database, for any number of workers.

    `dsn` may name several hosts (`host1:5432,host2:5432`): the one that takes writes is used. With `migrate=False` the
    tables have to be there. `statement_seconds` is how long a statement may take; keep it below a third of the lease.
    `statement_cache_size=0` is for a pooler that gives each transaction another connection; it leaves the session's
    settings alone too, so set them for the login. `notify` tells other processes when there is something for them, and
    hears them, on a connection of its own; without it, and behind such a pooler, they find it by polling. `clock_sql`
    is an expression for epoch seconds; a test passes its own to move time by hand. A row of more than `row_bytes_max`
    is refused.
    """

    def __init__(
        self,
        dsn: str,
        *,
        schema: str = "atone",
        migrate: bool = True,
        readers: int = 3,
        statement_seconds: float = 3.0,
        statement_cache_size: int = 100,
        notify: bool = True,
        clock_sql: str = CLOCK_SQL,
        row_bytes_max: int = 64 * 1024 * 1024,
    ) -> None:
        self._dsn = dsn
        self._where = place_of(dsn)
        self._place = Place(schema, clock_sql)
        self._migrates = migrate
        self._readers = readers
        self._statement_seconds = statement_seconds
        # A commit waits for no lock for long: all that its neighbours do waits with it.
        self._commit_lock_ms = max(1, int(statement_seconds * 1000 / 6))
        self._statement_cache_size = statement_cache_size
        # A pooler that gives each transaction another connection lets nobody listen.
        self._notifies = notify and statement_cache_size > 0
        self._row_bytes_max = row_bytes_max
        self._identity = ""
        self._lines: _Lines | None = None
        self._entered = False
        # Sagas that were claimed: whoever started them may wait for their end in another process.
        self._from_elsewhere: set[bytes] = set()

    async def __aenter__(self) -> Self:
        if self._entered:
            raise StoreError(f"The store {self._where} is already open; give each orchestrator its own store object.")
        self._entered = True
        try:
            self._lines = await self._opened()
        except BaseException:
            self._entered = False
            raise
        return self

    async def _opened(self) -> _Lines:
        async with Visit(self._dsn, self._where) as connection:
            if self._migrates:
                await _postgres_schema.migrate(connection, self._place, self._where)
            await _postgres_schema.check(connection, self._place, self._where)
            self._identity = str(await connection.fetchval(self._place.sql(_IDENTITY)))
        patient = partial(self._dial, self._statement_seconds / 2)
        lines = _Lines(
            Line(partial(self._dial, self._commit_lock_ms / 1000), self._where),
            Lines(patient, self._where, self._readers, _QUEUE_STATEMENTS * self._statement_seconds),
            LineThread(patient, self._where),
            Hints(self._dial_for_hints, self._place.schema, self._where) if self._notifies else None,
        )
        await lines.leases.open()
        return lines

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        lines, self._lines = self._lines, None
        try:
            if lines is not None:
                await asyncio.gather(lines.commits.close(), lines.others.close(), lines.leases.close())
                if lines.hints is not None:
                    await lines.hints.close()
        finally:
            self._entered = False

    def renew(self, worker: str | None, lease_seconds: float, *, register: Sequence[StoredPlan] | None = None) -> Lease:
        return self._open.leases.do_blocking(
            lambda session: _postgres_claim.renew(session, self._place, worker, lease_seconds, register)
        )

    async def commit(self, worker: str | None, turns: Sequence[Turn]) -> Sequence[TurnResult]:
        opened = self._open
        results = await opened.commits.do(
            lambda session: commit(session, self._place, worker, turns, self._row_bytes_max, self._commit_lock_ms)
        )
        if opened.hints is not None:
            opened.hints.tell(hints_of(turns, self._from_elsewhere))
        return results

    async def start(self, turn: Turn, *, connection: object) -> TurnResult:
        joined = foreign(connection)
        if is_too_large(turn, self._row_bytes_max) or not _postgres_start.is_storable(turn):
            return TurnResult.REFUSED
        assert turn.birth is not None, "it is storable"
        definition = (turn.birth.name, turn.birth.definition_version, turn.birth.plan_hash)
        # On a connection of ours: in the caller's transaction it would hold up every other start of this definition.
        number = await self._open.others.do(lambda session: learn_number(session, self._place, definition))
        try:
            return await _postgres_start.start(turn, joined, self._place, self._identity, number)
        except Exception as error:
            better = of_caller(error, self._where)
            if better is error:
                raise
            raise better from error

    async def load(self, keys: Sequence[bytes], *, after: int = 0, with_plan: bool = False) -> Sequence[Loaded | None]:
        return await self._open.others.do(
            lambda session: _postgres_read.load(session, self._place, keys, after, with_plan)
        )

    async def claim(
        self,
        worker: str,
        *,
        definitions: Collection[tuple[str, int, str]],
        known: Collection[bytes],
        limit: int,
        lease_seconds: float,
        limits: Mapping[str, int] = NO_LIMITS,
    ) -> Claimed:
        wish = _postgres_claim.Wish(worker, sorted({*definitions}), frozenset(known), limit, lease_seconds, limits)
        opened = self._open
        claimed = await opened.others.do(lambda session: _postgres_claim.claim(session, self._place, wish))
        if opened.hints is not None:
            self._from_elsewhere.update(claimed.taken)
        return claimed

    async def deliver(self, delivery: Delivery) -> Delivered:
        opened = self._open
        delivered = await opened.others.do(
            lambda session: _postgres_requests.deliver(session, self._place, delivery, self._statement_seconds)
        )
        if opened.hints is not None and delivered is Delivered.APPENDED:
            opened.hints.tell((Hint.DUE,))
        return delivered

    async def find(self, query: Query) -> Sequence[Summary]:
        return await self._open.others.do(lambda session: _postgres_read.find(session, self._place, query))

    async def relay(
        self, relay: str, *, published: Collection[int], refused: Mapping[int, str], limit: int, lease_seconds: float
    ) -> Relayed:
        wish = _postgres_outbox.Wish(relay, published, refused, limit, lease_seconds)
        return await self._open.others.do(lambda session: _postgres_outbox.relay(session, self._place, wish))

    async def outstanding(self) -> Outstanding:
        """Count what waits to be published and what was set aside."""
        return await self._open.others.do(lambda session: _postgres_outbox.count(session, self._place))

    async def set_aside(self, *, limit: int = 100) -> Sequence[SetAside]:
        """Return what was set aside, oldest first."""
        return await self._open.others.do(lambda session: _postgres_outbox.set_aside(session, self._place, limit))

    async def post_again(self, message_id: str) -> bool:
        """Have a message that was set aside wait once more; see `atone.store.Posting`."""
        return await self._open.others.do(lambda session: _postgres_outbox.post_again(session, self._place, message_id))

    async def drop_set_aside(self, message_id: str) -> bool:
        """Forget a message that was set aside; see `atone.store.Posting`."""
        return await self._open.others.do(lambda session: _postgres_outbox.drop(session, self._place, message_id))

    async def census(self) -> Census:
        """Count the unfinished sagas by name and status."""
        return await self._open.others.do(lambda session: _postgres_read.census(session, self._place))

    def on_hint(self, callback: Callable[[Hint], None]) -> None:
        """Call back when another process has left something; see `atone.store.Hinting`."""
        hints = self._open.hints
        if hints is not None:
            hints.listen(callback)

    @property
    def views(self) -> PostgresViews:
        """Where choreographed sagas are kept; see `atone.store.Viewing`."""
        return PostgresViews(self._do, self._place)

    async def _do(self, work: Work[T]) -> T:
        return await self._open.others.do(work)

    @property
    def _open(self) -> _Lines:
        if self._lines is None:
            raise StoreClosed(f"The store {self._where} is not open. Enter it with `async with` first.")
        return self._lines

    async def _dial_for_hints(self) -> Speaking:
        seconds = self._statement_seconds + 1
        return cast("Speaking", await connect(self._dsn, connect_seconds=seconds, command_timeout=seconds))

    async def _dial(self, lock_seconds: float) -> Connection:
        return await dial(self._dsn, self._statement_seconds, lock_seconds, self._statement_cache_size)


async def migrate(dsn: str, *, schema: str = "atone", post: bool = False, roles: bool = False) -> list[str]:
    """Bring a database to the schema that this code knows, and return the names of the migrations that were applied.

    `post` ones are for when no process with older code runs any more. They are made by the role `atone_owner`, if it is
    there and this user is a member, and followed by the grants. With `roles` the roles are made first.

    Raises:
        StoreSchemaError: The schema is newer than this code, or holds something else. Nothing was changed.
        StoreError: The address is wrong, or this user may not do it. Nothing was changed.
    """
    where = place_of(dsn)
    async with Visit(dsn, where) as connection:
        place = Place(schema)
        if roles:
            await connection.execute(_postgres_schema.roles_sql(place))
        return await _postgres_schema.migrate(connection, place, where, post=post)


def migrate_sql(*, schema: str = "atone", after: int = 0, post: bool = False) -> str:
    """Return the migrations above number `after` as a script for psql."""
    return _postgres_schema.migrate_sql(Place(schema), after=after, post=post)


def roles_sql(*, schema: str = "atone") -> str:
    """Return a script that makes the roles atone_owner, atone_worker and atone_reader; it comes before `migrate`."""
    return _postgres_schema.roles_sql(Place(schema))


def grants_sql(*, schema: str = "atone") -> str:
    """Return a script that says what workers and readers may do; `migrate` does the same if the roles are there."""
    return _postgres_schema.grants_sql(Place(schema))
