"""Idempotency for functions that are no participant of Atone's: called once for each key, and remembered.

Owns the claim around a call: taken in one transaction, ended in another, with the call between the two. So it promises
less than the barrier does: after a crash between the effect and its record, the function is called again with the same
key, or not at all (`at_most_once`). Must not retry or wait. Called by steps, or by services without a transaction.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import AbstractContextManager, closing, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar, cast
from weakref import finalize

import msgspec

from atone._connections.face import Dialect, awaited
from atone._core.keys import idempotency_key
from atone._define.values import Landed, NotLanded, Succeeded, Tried, Unknown
from atone._participant.claims import Claim, ClaimTable, Said, Wanted
from atone._participant.database import Database, Work
from atone.barrier import Undo
from atone.codec import Codec
from atone.errors import (
    AlreadyCompensated,
    ArgumentsDiffer,
    InProgress,
    OutcomeUnknown,
    PayloadError,
    Reject,
    RequestRefused,
)
from atone.machine import machine, new_name

__all__ = ["BlockingIdempotentStep", "Claims", "IdempotentStep", "InProgress", "OutcomeUnknown", "Undo"]

R = TypeVar("R")
T = TypeVar("T")

_PART_LENGTH_MAX = 300
_PART_BYTES_MAX = 500  # of all parts together no more than PostgreSQL's index takes of one row
_BUSY_SECONDS = 10.0


class Claims:
    """Where claims are kept: a table of their own, in PostgreSQL or SQLite.

    `database` is an engine or a pool (SQLAlchemy, asyncpg, psycopg), or a function that returns a context manager which
    yields a connection in a transaction and commits when it is left. At READ COMMITTED, the default of PostgreSQL. The
    table is made by `create_table`, or by your migrations from `table_sql`.
    """

    def __init__(self, database: Any, *, table: str = "atone_claims") -> None:
        self.table = ClaimTable(table)
        self.database = Database(database)

    @classmethod
    def sqlite(cls, path: str | Path, *, table: str = "atone_claims") -> Claims:
        """Keep them in an SQLite file, made with its table if it is not there."""
        claims = cls(lambda: _of_file(Path(path)), table=table)
        claims.database.run_here(claims.table.create)
        return claims

    @classmethod
    def memory(cls) -> Claims:
        """Keep them until the process ends, which is what an idempotency key must outlive: for tests only."""
        connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        lock = threading.Lock()
        claims = cls(lambda: _of_memory(connection, lock))
        finalize(claims.database, connection.close)
        claims.database.run_here(claims.table.create)
        return claims

    def table_sql(self, dialect: Dialect) -> str:
        """Return the statement that makes the table, for your own migrations."""
        return self.table.create_sql(dialect)

    async def create_table(self) -> None:
        """Make the table, if it is not there."""
        await self.database.run(self.table.create)

    async def purge(self, *, older_than_days: float, limit: int = 10_000) -> int:
        """Delete at most `limit` old rows and return how many; keep them longer than any saga runs.

        What is in progress or unknown stays, however old it is.
        """
        if older_than_days < 1:
            raise ValueError("older_than_days= is at least 1: a purged key is a new one.")
        seconds = older_than_days * 86_400.0
        return await self.database.run(lambda connection: self.table.purge(connection, seconds=seconds, most=limit))


class _Call(NamedTuple):
    """One call: whose claim it needs, and what its arguments are known by."""

    wanted: Wanted
    print_of: bytes


class _Step(Generic[R]):
    """What both colours share: keys, the turns of the protocol, and what each answer means."""

    def __init__(
        self,
        name: str,
        claims: Claims,
        *,
        returns: type[R] | None = None,
        saga: str = "",
        tenant: str = "default",
        at_most_once: bool = False,
        lease_seconds: float = 60.0,
        codec: Codec | None = None,
    ) -> None:
        if not lease_seconds > 0:
            raise ValueError("lease_seconds= is above 0, and longer than any call takes.")
        self._names = (_part("tenant", tenant, 0), _part("saga", saga, 0), _part("name", name, 1))
        self._database, self._table = claims.database, claims.table
        self._codec = codec or Codec()
        self._schema = self._codec.schema(Any if returns is None else returns)
        self._at_most_once, self._lease_seconds = at_most_once, float(lease_seconds)

    def action_key(self, saga_id: str) -> str:
        """Return the action's key, the same at each repeat, to be passed on by the function.

        It is `ctx.idempotency_key` of a step with the same tenant, saga and name.
        """
        return self._key(saga_id, "action")

    def compensation_key(self, saga_id: str) -> str:
        """Return the compensation's own key."""
        return self._key(saga_id, "compensation")

    def _key(self, saga_id: str, operation: str) -> str:
        tenant, saga, name = self._names
        return idempotency_key(tenant, saga, _part("saga_id", saga_id, 1), name, operation)

    def _wanted(self, saga_id: str) -> Wanted:
        return Wanted(self.action_key(saga_id), new_name(), self._lease_seconds)

    def _call_of(self, saga_id: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> _Call:
        encoded = msgspec.json.encode((arguments, named), order="sorted")
        self._codec.check_limits(encoded)
        return _Call(self._wanted(saga_id), sha256(encoded).digest())

    def _claims(self, call: _Call) -> Work[Claim]:
        return lambda at: self._table.claim(at, call.wanted, call.print_of, repeats=not self._at_most_once)

    def _claims_undo(self, saga_id: str, wanted: Wanted) -> Work[Claim]:
        return lambda at: self._table.claim_undo(at, wanted, self.compensation_key(saga_id))

    def _ends(self, wanted: Wanted, state: str, result: bytes | None = None) -> Work[bool]:
        return lambda at: self._table.end(at, wanted, state, result)

    def _uncalled(self, wanted: Wanted) -> Work[Any]:
        return lambda at: self._table.forget(at, wanted)

    def _after(self, wanted: Wanted, error: BaseException) -> Work[Any]:
        """Return what becomes of a claim whose action raised: free only if it surely had no effect."""
        if isinstance(error, Reject):
            return self._uncalled(wanted)
        return self._ends(wanted, "lost")

    def _known(self, claim: Claim, key: str) -> R:
        """Return the result of what is done; raise for everything else that is not mine to do."""
        match claim.said:
            case Said.DONE:
                return cast("R", self._schema.decode(claim.result or b"null"))
            case Said.COMPENSATED:
                raise AlreadyCompensated(
                    f"The action with key {key!r} was compensated before this call came; it was not called."
                )
            case Said.MISMATCH:
                raise ArgumentsDiffer(
                    f"The key {key!r} was used with other arguments; nothing was called. "
                    "Send the same arguments with the same key, or another key."
                )
            case Said.IN_PROGRESS:
                raise self._in_progress(claim.seconds)
            case _:
                raise OutcomeUnknown(
                    f"The action with key {key!r} was begun, may be called at most once, and nobody knows what came "
                    "of it. Find out, then say so with `resolve`."
                )

    def _in_progress(self, seconds: float) -> InProgress:
        return InProgress(max(0.05, seconds), "somebody else works under this key; ask again later")

    def _overtaken(self, key: str) -> OutcomeUnknown:
        return OutcomeUnknown(
            f"The call with key {key!r} took longer than its lease of {self._lease_seconds:g} s, and meanwhile "
            "somebody else was given the key. Its effect may stand twice, or after its compensation: look after it. "
            "Then give it a lease that is longer than any call takes."
        )

    def _undone(self, claim: Claim) -> Undo:
        if claim.said is Said.IN_PROGRESS:
            raise self._in_progress(claim.seconds)
        return Undo.UNDONE if claim.said is Said.COMPENSATED else Undo.NOTHING_TO_UNDO

    def _tried(self, wanted: Wanted, claim: Claim) -> Tried[R]:
        if claim.result is None:
            return Tried(wanted.key, Unknown())
        return Tried(wanted.key, Succeeded(cast("R", self._schema.decode(claim.result))))

    def _settles(self, saga_id: str, found: Landed[R] | NotLanded) -> Work[bool]:
        key, stored = self.action_key(saga_id), None
        if isinstance(found, Landed):
            stored = self._schema.encode(found.result)
        return lambda at: self._table.settle(at, key, stored)

    def _not_lost(self, saga_id: str) -> RequestRefused:
        return RequestRefused(
            f"The action with key {self.action_key(saga_id)!r} is not lost, so there is nothing to resolve: it was "
            "never begun, is in progress, is done, or was compensated. Call `execute`, which tells which."
        )


class IdempotentStep(_Step[R]):
    """Call a function once for each saga, and return its result then and ever after; for coroutine functions.

    `returns` is the type that a stored result is read as; None: plain JSON. A call that raises `Reject` surely had no
    effect, and frees its key. After anything else nobody knows: the next call repeats it with the same key, or with
    `at_most_once` raises `OutcomeUnknown` until `resolve`. A call is cancelled when its lease is over. With `saga` and
    `tenant`, keys are those that the saga's own step has. For plain functions there is `BlockingIdempotentStep`.
    """

    async def execute(self, saga_id: str, do: Callable[..., Awaitable[R]], /, *arguments: Any, **named: Any) -> R:
        """Call `do(*arguments, **named)`, unless it was done for this saga; return the result.

        Raises:
            InProgress: Somebody else is calling it; a `RetryAfter`, so a step need not catch it.
            ArgumentsDiffer: It was called with other arguments for this saga. Nothing was called.
            AlreadyCompensated: Its compensation was here first. Nothing was called.
            OutcomeUnknown: See the class.
            PayloadError: Arguments or result can't be stored; after a call, its effect stands.
        """
        call, until = self._call_of(saga_id, arguments, named), machine().monotonic() + self._lease_seconds
        claim = await self._claimed(self._claims(call), self._uncalled(call.wanted))
        if claim.said is not Said.NEW:
            return self._known(claim, call.wanted.key)
        try:
            async with asyncio.timeout(until - machine().monotonic()):
                result: R = await awaited(do(*arguments, **named))
            stored = self._schema.encode(result)
        except BaseException as error:
            await self._give_back(self._database.run(self._after(call.wanted, error)), error)
            raise
        # A task that is cancelled now was called all the same, and what it did has to be known.
        if await asyncio.shield(asyncio.ensure_future(self._database.run(self._ends(call.wanted, "done", stored)))):
            return result
        raise self._overtaken(call.wanted.key)

    async def compensate(
        self, saga_id: str, undo: Callable[..., Awaitable[object]], /, *arguments: Any, **named: Any
    ) -> Undo:
        """Call `undo(tried, *arguments, **named)` once, if the action was begun; from now on the action is refused.

        `tried` says what is known of the action: its result, or that nobody knows. An undo that raises is called again
        by the next call.

        Raises:
            InProgress: The action or the compensation is being called.
            OutcomeUnknown: It took longer than its lease, so somebody else may have undone it too.
        """
        wanted, until = self._wanted(saga_id), machine().monotonic() + self._lease_seconds
        claim = await self._claimed(self._claims_undo(saga_id, wanted), self._ends(wanted, "undoing"))
        if claim.said is not Said.NEW:
            return self._undone(claim)
        try:
            async with asyncio.timeout(until - machine().monotonic()):
                await awaited(undo(self._tried(wanted, claim), *arguments, **named))
        except BaseException as error:
            await self._give_back(self._database.run(self._ends(wanted, "undoing")), error)
            raise
        if await asyncio.shield(asyncio.ensure_future(self._database.run(self._ends(wanted, "undone")))):
            return Undo.UNDONE
        raise self._overtaken(wanted.key)

    async def resolve(self, saga_id: str, found: Landed[R] | NotLanded) -> None:
        """Write down what a person or a probe found out about an attempt that was lost.

        Raises:
            RequestRefused: It is not lost: never begun, in progress, done or compensated. Nothing was written.
        """
        if not await self._database.run(self._settles(saga_id, found)):
            raise self._not_lost(saga_id)

    async def _claimed(self, claims: Work[Claim], frees: Work[Any]) -> Claim:
        """Claim the key; a task that is cancelled meanwhile has called nothing, so it frees what it was given."""
        claiming = asyncio.ensure_future(self._database.run(claims))
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError as error:
            await self._give_back(self._freed(claiming, frees), error)
            raise

    async def _freed(self, claiming: Awaitable[Claim], frees: Work[Any]) -> None:
        if (await claiming).said is Said.NEW:
            await self._database.run(frees)

    async def _give_back(self, giving: Coroutine[Any, Any, Any], error: BaseException) -> None:
        # Also when this task was cancelled: else the key would be held until the lease is over.
        try:
            await asyncio.shield(asyncio.ensure_future(giving))
        except Exception as failed:  # noqa: BLE001 - a driver's; the first error is the one to tell
            error.add_note(f"Its claim could not be given back ({type(failed).__qualname__}); its lease will end.")


class BlockingIdempotentStep(_Step[R]):
    """The same for plain functions, with synchronous connections. Nothing stops a call whose lease is over."""

    def execute(self, saga_id: str, do: Callable[..., R], /, *arguments: Any, **named: Any) -> R:
        """Call `do(*arguments, **named)`, unless it was done for this saga; see `IdempotentStep.execute`."""
        call = self._call_of(saga_id, arguments, named)
        claim = self._database.run_here(self._claims(call))
        if claim.said is not Said.NEW:
            return self._known(claim, call.wanted.key)
        try:
            result = do(*arguments, **named)
            stored = self._schema.encode(result)
        except BaseException as error:
            self._give_back(self._after(call.wanted, error), error)
            raise
        if self._database.run_here(self._ends(call.wanted, "done", stored)):
            return result
        raise self._overtaken(call.wanted.key)

    def compensate(self, saga_id: str, undo: Callable[..., object], /, *arguments: Any, **named: Any) -> Undo:
        """Call `undo(tried, *arguments, **named)` once, if the action was begun; see `IdempotentStep.compensate`."""
        wanted = self._wanted(saga_id)
        claim = self._database.run_here(self._claims_undo(saga_id, wanted))
        if claim.said is not Said.NEW:
            return self._undone(claim)
        try:
            undo(self._tried(wanted, claim), *arguments, **named)
        except BaseException as error:
            self._give_back(self._ends(wanted, "undoing"), error)
            raise
        if self._database.run_here(self._ends(wanted, "undone")):
            return Undo.UNDONE
        raise self._overtaken(wanted.key)

    def resolve(self, saga_id: str, found: Landed[R] | NotLanded) -> None:
        """Write down what was found out about a lost attempt; see `IdempotentStep.resolve`."""
        if not self._database.run_here(self._settles(saga_id, found)):
            raise self._not_lost(saga_id)

    def _give_back(self, work: Work[Any], error: BaseException) -> None:
        try:
            self._database.run_here(work)
        except Exception as failed:  # noqa: BLE001 - a driver's; the first error is the one to tell
            error.add_note(f"Its claim could not be given back ({type(failed).__qualname__}); its lease will end.")


def _part(what: str, text: object, length_min: int) -> str:
    if type(text) is not str or not length_min <= len(text) <= _PART_LENGTH_MAX or "\0" in text:
        raise PayloadError(f"{what} is a text of {length_min} to {_PART_LENGTH_MAX} characters without NUL; give one.")
    if len(text.encode(errors="surrogatepass")) > _PART_BYTES_MAX:
        raise PayloadError(f"{what} has at most {_PART_BYTES_MAX} bytes in UTF-8; give a shorter one.")
    return text


@contextmanager
def _of_file(path: Path) -> Generator[Any, None, None]:
    # Without a write-ahead log: the one of the system's SQLite may be of a version that can lose what it acknowledged.
    with closing(sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = FULL")
        with _transaction(connection):
            yield connection


@contextmanager
def _of_memory(connection: sqlite3.Connection, lock: AbstractContextManager[Any]) -> Generator[Any, None, None]:
    with lock, _transaction(connection):
        yield connection


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Generator[None, None, None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
