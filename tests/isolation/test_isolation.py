"""What keeps sagas apart, on PostgreSQL and SQLite: locks that outlive transactions, rereading, and what commutes."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import aiosqlite
import asyncpg
import psycopg
import pytest

from atone import Reject, RetryAfter
from atone._connections.face import face_of
from atone._messaging import headers
from atone.broker import Message
from atone.errors import BarrierMisplaced, DefinitionError, PayloadError
from atone.isolation import (
    BlockingSemanticLocks,
    Changed,
    DeadlockFound,
    Locked,
    SemanticLocks,
    blocking_reread,
    commutative,
    reread,
)
from atone.testing.commutative import NotCommutative, check_commutative, check_commutative_blocking
from tests.servers.postgres import Bench

TABLES = (
    "DROP TABLE IF EXISTS atone_locks",
    "DROP TABLE IF EXISTS atone_locks_waits",
    "DROP TABLE IF EXISTS accounts",
    "CREATE TABLE accounts (id text PRIMARY KEY, cents integer NOT NULL, note text)",
    "INSERT INTO accounts VALUES ('a', 100, NULL)",
    "INSERT INTO accounts VALUES ('b', 100, 'x')",
)

Database = Callable[[], Any]


@pytest.fixture(params=["asyncpg", "aiosqlite"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """Return what begins a transaction in a service's database, with two accounts in it."""
    if request.param == "aiosqlite":
        path = tmp_path / "service.db"
        with closing(sqlite3.connect(path)) as connection, connection:
            for statement in TABLES:
                connection.execute(statement)
        return lambda: _of_sqlite(path)
    bench: Bench = request.getfixturevalue("postgres_bench")
    url = bench.server.url()
    with psycopg.connect(url) as line:
        for statement in TABLES:
            line.execute(statement.encode())
    return lambda: _of_postgres(url)


@asynccontextmanager
async def _of_sqlite(path: Path) -> AsyncIterator[Any]:
    async with aiosqlite.connect(path, isolation_level=None, timeout=20) as connection:
        await connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            await connection.rollback()
            raise
        await connection.commit()


@asynccontextmanager
async def _of_postgres(url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            yield connection
    finally:
        await connection.close()


async def locks_in(database: Database) -> SemanticLocks:
    locks = SemanticLocks(database)
    async with database() as connection:
        await locks.create_table(connection)
        await locks.create_table(connection)
    return locks


async def nothing(connection: Any) -> str:
    return "done"


def run(work: Callable[[], Any]) -> None:
    asyncio.run(asyncio.wait_for(work(), 60))


# Locks


def test_a_lock_is_held_over_transactions_until_its_saga_gives_it_back(database: Database) -> None:
    """The holder takes it again as often as it likes; another saga is told who holds it, and gets it afterwards."""

    async def main() -> None:
        locks = await locks_in(database)
        for _ in range(2):
            assert await locks.run("one", ["order/7"], nothing) == "done"
        with pytest.raises(Locked, match="held by saga 'one'") as told:
            await locks.run("two", ["order/7"], nothing)
        assert (told.value.holder, told.value.resource, told.value.saga) == ("one", "order/7", "two")
        assert isinstance(told.value, RetryAfter)
        assert told.value.seconds == 1
        async with database() as connection:
            (held,) = await locks.held(connection)
            assert (held.resource, held.saga, held.seconds >= 0) == ("order/7", "one", True)
            assert await locks.release_all(connection, "one") == ["order/7"]
        assert await locks.run("two", ["order/7"], nothing) == "done"

    run(main)


def test_who_can_not_have_all_has_none_and_what_rolls_back_holds_nothing(database: Database) -> None:
    """A refusal takes back the locks taken before it, and an effect that raises takes its lock along."""

    async def fails(connection: Any) -> None:
        raise LookupError

    async def main() -> None:
        locks = await locks_in(database)
        await locks.run("one", ["b"], nothing)
        with pytest.raises(Locked):
            await locks.run("two", ["a", "b", "c"], nothing)
        with pytest.raises(LookupError):
            await locks.run("three", ["d"], fails)
        assert await locks.run("four", ["a", "c", "d"], nothing) == "done"

    run(main)


def test_of_many_sagas_at_once_one_holds_each_resource_and_no_transaction_deadlocks(database: Database) -> None:
    """Each wants the same two, named in another order: they are taken in one order, so one of them gets both."""

    async def main() -> None:
        locks = await locks_in(database)
        inside: list[str] = []

        async def wants(saga: str, resources: list[str]) -> bool:
            async def work(connection: Any) -> None:
                inside.append(saga)

            try:
                await locks.run(saga, resources, work)
            except Locked:
                return False
            return True

        sagas = [wants(f"s{at}", ["x", "y"] if at % 2 else ["y", "x"]) for at in range(8)]
        assert sorted(await asyncio.gather(*sagas)) == [False] * 7 + [True]
        assert len(inside) == 1

    run(main)


@asynccontextmanager
async def three_lines(bench: Bench) -> AsyncIterator[list[Any]]:
    async with AsyncExitStack() as stack:
        lines = [await asyncpg.connect(bench.server.url()) for _ in range(3)]
        for line in lines:
            stack.push_async_callback(line.close)
        yield lines


async def until_it_waits(line: Any, look: Any) -> None:
    """Return when a connection waits for a lock, which only the database can tell."""
    waiting = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $1"
    while not await look.fetchval(waiting, line.get_server_pid()):  # noqa: ASYNC110 - there is no event of it here
        await asyncio.sleep(0.005)


def test_a_second_transaction_waits_for_the_first_and_is_told_what_it_came_to(postgres_bench: Bench) -> None:
    """While the lock is being taken nobody knows who will hold it; a rollback leaves it to the other."""

    async def main() -> None:
        locks = SemanticLocks(lambda: _of_postgres(postgres_bench.server.url()))
        async with three_lines(postgres_bench) as (first, second, look):
            await look.execute("DROP TABLE IF EXISTS atone_locks, atone_locks_waits")
            await locks.create_table(look)
            for commits in (False, True):
                await first.execute("BEGIN")
                await second.execute("BEGIN")
                await locks.acquire(first, "one", "r")
                other = asyncio.ensure_future(locks.acquire(second, "two", "r"))
                await until_it_waits(second, look)
                await first.execute("COMMIT" if commits else "ROLLBACK")
                if commits:
                    with pytest.raises(Locked, match="held by saga 'one'"):
                        await other
                else:
                    await other
                await second.execute("ROLLBACK")

    run(main)


def test_locks_are_taken_in_the_order_of_their_names_and_listed_by_their_age(database: Database) -> None:
    """Whoever takes them in another order may meet half-way; the oldest is what something waits for."""

    async def main() -> None:
        locks = await locks_in(database)
        await locks.run("one", ["z"], nothing)
        await locks.run("one", ["y", "x"], nothing)
        async with database() as connection:
            assert [held.resource for held in await locks.held(connection)] == ["z", "x", "y"]
            assert len(await locks.held(connection, limit=2)) == 2

    run(main)


def test_a_deadlock_is_found_and_one_of_the_sagas_turns_back(database: Database) -> None:
    """Each holds what the next one wants. The one that began last gives way, whoever of them looks first."""

    async def main() -> None:
        locks = await locks_in(database)
        for saga, has in (("one", "a"), ("two", "b"), ("three", "c")):
            await locks.run(saga, [has], nothing)
        for _ in range(2):
            for saga, wants in (("three", "a"), ("one", "b"), ("two", "c")):
                with pytest.raises((Locked, DeadlockFound)) as told:
                    await locks.run(saga, [wants], nothing)
                found = told.value
                if isinstance(found, DeadlockFound):
                    assert saga == "three"
                    assert found.sagas == ("three", "one", "two")
                    assert "'three' waits for 'one' waits for 'two' waits for 'three'" in str(found)
                    assert isinstance(found, Reject)
        assert isinstance(await refusal(locks, "three", "a"), DeadlockFound)
        async with database() as connection:
            assert await locks.release_all(connection, "three") == ["c"]
        assert await locks.run("two", ["c"], nothing) == "done"
        assert isinstance(await refusal(locks, "one", "b"), Locked)

    run(main)


async def refusal(locks: SemanticLocks, saga: str, resource: str) -> Exception | None:
    try:
        await locks.run(saga, [resource], nothing)
    except (Locked, DeadlockFound) as error:
        return error
    return None


def test_who_waits_without_a_cycle_waits_on(database: Database) -> None:
    """A chain is no circle: whoever holds nothing, or is behind others that wait for each other, is no part of one."""

    async def main() -> None:
        locks = await locks_in(database)
        await locks.run("one", ["a"], nothing)
        await locks.run("two", ["b"], nothing)
        assert isinstance(await refusal(locks, "two", "a"), Locked)
        for _ in range(2):
            assert isinstance(await refusal(locks, "three", "b"), Locked)
        assert isinstance(await refusal(locks, "one", "b"), Locked)  # closes the circle; "two" is to break it
        await locks.run("four", ["d"], nothing)
        assert isinstance(await refusal(locks, "four", "a"), Locked)
        async with database() as connection:
            await locks.release_all(connection, "one")
        assert await locks.run("two", ["a"], nothing) == "done"
        assert isinstance(await refusal(locks, "four", "a"), Locked)

    run(main)


def test_what_a_saga_waits_for_is_what_it_asked_for_last(database: Database) -> None:
    """Who got something since waits for nothing, and who asked for something else waits for that."""

    async def main() -> None:
        locks = await locks_in(database)
        for saga, has in (("old", "a"), ("young", "b"), ("other", "c")):
            await locks.run(saga, [has], nothing)
        assert isinstance(await refusal(locks, "old", "b"), Locked)
        await locks.run("old", ["d"], nothing)
        assert isinstance(await refusal(locks, "young", "a"), Locked)  # no circle: "old" waits for nothing any more
        for wants in ("c", "b"):
            assert isinstance(await refusal(locks, "old", wants), Locked)
        assert isinstance(await refusal(locks, "young", "a"), DeadlockFound)
        async with database() as connection:
            await locks.release_all(connection, "old")
            assert await face_of(connection).run("SELECT saga FROM atone_locks_waits WHERE saga = 'old'") == []

    run(main)


def test_a_saga_that_ended_gives_back_what_it_holds_when_its_end_is_heard(database: Database) -> None:
    """Only an end, only its own, and as often as it comes."""

    def said(name: str, saga: str, kind: str = headers.LIFECYCLE) -> Message:
        told = {headers.KIND: kind, headers.NAME: name, headers.SAGA_ID: saga}
        return Message("m", "saga.events", saga, b"{}", told)

    async def main() -> None:
        locks = await locks_in(database)
        await locks.run("one", ["a", "b"], nothing)
        async with database() as connection:
            for message in (
                said("saga.started", "one"),
                said("step.succeeded", "one"),
                said("saga.completed", "two"),
                said("saga.completed", "one", headers.EVENT),
                Message("m", "t", "", b""),
            ):
                assert await locks.hear(connection, message) == []
            for name, gives in (("saga.compensated", ["a", "b"]), ("saga.compensated", [])):
                assert await locks.hear(connection, said(name, "one")) == gives

    run(main)


def test_a_saga_that_locked_under_a_longer_name_is_heard_under_it(tmp_path: Path) -> None:
    """Two definitions have a saga with one id: the end of one gives back its own locks, and not the other's."""
    with closing(sqlite3.connect(tmp_path / "service.db")) as connection:
        locks = BlockingSemanticLocks(lambda: connection)
        locks.create_table(connection)
        locks.acquire(connection, "orders/7", "a")
        locks.acquire(connection, "returns/7", "b")
        said = {headers.KIND: headers.LIFECYCLE, headers.NAME: "saga.completed", headers.SAGA_ID: "7"}
        message = Message("m", "t", "", b"", {**said, headers.SAGA: "orders"})
        assert locks.hear(connection, message, saga=f"{message.headers['atone-saga']}/7") == ["a"]
        assert [one.saga for one in locks.held(connection)] == ["returns/7"]


def test_what_can_not_be_locked_is_refused(tmp_path: Path) -> None:
    """Names are bounded, and so is how many a saga takes at once; without a transaction nothing would be held."""
    path = tmp_path / "service.db"

    @contextmanager
    def database() -> Iterator[Any]:
        with closing(sqlite3.connect(path)) as connection, connection:
            yield connection

    locks = BlockingSemanticLocks(database)
    with database() as connection:
        locks.create_table(connection)
        for saga, resource in (("", "a"), ("s", ""), ("s", "x" * 301), ("s\0", "a")):
            with pytest.raises(PayloadError, match="names of 1 to 300"):
                locks.acquire(connection, saga, resource)
        with pytest.raises(PayloadError, match="at most 1000"):
            locks.acquire(connection, "s", *map(str, range(1001)))
    with closing(sqlite3.connect(path, isolation_level=None)) as outside:
        with pytest.raises(BarrierMisplaced):
            locks.acquire(outside, "s", "a")
        with pytest.raises(BarrierMisplaced):
            blocking_reread(outside, "atone_locks", {"resource": "a"}, {"saga": "s"})
        with pytest.raises(BarrierMisplaced):
            check_commutative_blocking(outside, [(add, ("a", 1))] * 2, accounts)


def test_plain_functions_have_locks_as_well(tmp_path: Path) -> None:
    """The whole of it without an event loop."""

    @contextmanager
    def database() -> Iterator[Any]:
        with closing(sqlite3.connect(tmp_path / "service.db")) as connection, connection:
            yield connection

    locks = BlockingSemanticLocks(database, retry_seconds=7)
    with database() as connection:
        locks.create_table(connection)
    for saga, has in (("one", "a"), ("two", "b")):
        assert locks.run(saga, [has], lambda connection: 5) == 5
    with pytest.raises(Locked) as told:
        locks.run("one", ["b"], lambda connection: 5)
    assert told.value.seconds == 7
    with pytest.raises(DeadlockFound, match="'two' waits for 'one' waits for 'two'"):
        locks.run("two", ["a"], lambda connection: 5)
    with database() as connection:
        ended = {headers.KIND: headers.LIFECYCLE, headers.NAME: "saga.failed", headers.SAGA_ID: "one"}
        assert locks.hear(connection, Message("m", "t", "", b"", ended)) == ["a"]
        assert locks.release_all(connection, "two") == ["b"]
        assert locks.held(connection) == []


# Rereading


def test_what_was_seen_must_still_stand_when_it_is_written(database: Database) -> None:
    """A version or a value, null included; another one, or a row that is gone, turns the saga back."""

    async def main() -> None:
        async with database() as connection:
            await reread(connection, "accounts", {"id": "a"}, {"cents": 100, "note": None})
            await reread(connection, "accounts", {"id": "b"}, {"note": "x"})
            for key, seen in (
                ({"id": "a"}, {"cents": 99}),
                ({"id": "a"}, {"cents": 100, "note": "x"}),
                ({"id": "b"}, {"note": None}),
                ({"id": "gone"}, {"cents": 100}),
            ):
                with pytest.raises(Changed, match="accounts") as told:
                    await reread(connection, "accounts", key, seen)
                assert isinstance(told.value, Reject)
            for table, key, seen in (
                ("accounts; DROP TABLE accounts", {"id": "a"}, {"cents": 1}),
                ("accounts", {"id = '' OR 1": "a"}, {"cents": 1}),
                ("accounts", {}, {"cents": 1}),
                ("accounts", {"id": "a"}, {}),
            ):
                with pytest.raises(ValueError, match=r"plain names|give a column"):
                    await reread(connection, table, key, seen)

    run(main)


def test_between_the_rereading_and_the_commit_nobody_else_writes(database: Database) -> None:
    """Of many that read one value and mean to write what they made of it, one does; no update is lost."""

    async def main() -> None:
        async def add_one() -> bool:
            try:
                async with database() as connection:
                    await reread(connection, "accounts", {"id": "a"}, {"cents": 100})
                    await connection.execute("UPDATE accounts SET cents = 101 WHERE id = 'a'")
            except Changed:
                return False
            return True

        assert sorted(await asyncio.gather(*(add_one() for _ in range(8)))) == [False] * 7 + [True]

    run(main)


def test_a_row_that_was_reread_stays_until_the_transaction_is_over(postgres_bench: Bench) -> None:
    """A second transaction waits at the same row, and is then told that it has changed."""

    async def main() -> None:
        key, seen = {"id": "a"}, {"cents": 100}
        async with three_lines(postgres_bench) as (first, second, look):
            for statement in TABLES:
                await look.execute(statement)
            await first.execute("BEGIN")
            await second.execute("BEGIN")
            await reread(first, "accounts", key, seen)
            other = asyncio.ensure_future(reread(second, "accounts", key, seen))
            await until_it_waits(second, look)
            await first.execute("UPDATE accounts SET cents = 101 WHERE id = 'a'")
            await first.execute("COMMIT")
            with pytest.raises(Changed):
                await other

    run(main)


# What commutes


@commutative
def add(connection: Any, account: str, cents: int) -> int:
    return _add(connection, account, cents)


@add.compensation
def take_away(connection: Any, added: int, account: str, cents: int) -> None:
    _add(connection, account, -added)


def _add(connection: Any, account: str, cents: int) -> int:
    connection.execute(f"UPDATE accounts SET cents = cents + {cents} WHERE id = '{account}'")
    return cents


@commutative
def double(connection: Any, account: str) -> None:
    connection.execute(f"UPDATE accounts SET cents = cents * 2 WHERE id = '{account}'")


@double.compensation
def halve(connection: Any, result: None, account: str) -> None:
    connection.execute(f"UPDATE accounts SET cents = cents / 2 WHERE id = '{account}'")


@commutative
def overwrite(connection: Any, account: str, cents: int) -> int:
    before = accounts(connection)[account]
    connection.execute(f"UPDATE accounts SET cents = {before + cents} WHERE id = '{account}'")
    return before


@overwrite.compensation
def write_back(connection: Any, before: int, account: str, cents: int) -> None:
    connection.execute(f"UPDATE accounts SET cents = {before} WHERE id = '{account}'")


@commutative
def untouched(connection: Any, account: str) -> None:
    _add(connection, account, 1)


@untouched.compensation
def forgets(connection: Any, result: None, account: str) -> None: ...


def accounts(connection: Any) -> dict[str, int]:
    return dict(connection.execute("SELECT id, cents FROM accounts").fetchall())


@contextmanager
def scratch(kind: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    if kind == "sqlite3":
        opened: Any = sqlite3.connect(":memory:")
    else:
        opened = psycopg.connect(request.getfixturevalue("postgres_bench").server.url())
    with closing(opened) as connection:
        for statement in TABLES:
            connection.execute(statement)
        yield connection
        connection.rollback()


@pytest.mark.parametrize("kind", ["sqlite3", "psycopg"])
def test_operations_that_commute_do_so_in_every_order_and_leave_nothing(
    kind: str, request: pytest.FixtureRequest
) -> None:
    """Three additions, each undone or not, in all orders; the rows are as they were before."""
    calls = [(add, ("a", 1)), (add, ("a", 20)), (add, ("b", 300))]
    with scratch(kind, request) as connection:
        assert check_commutative_blocking(connection, calls, accounts) == 6 + 3 * 12 + 3 * 30 + 90
        assert accounts(connection) == {"a": 100, "b": 100}


@pytest.mark.parametrize(
    ("calls", "says"),
    [
        ([(add, ("a", 1)), (double, ("a",))], "add('a', 1), double('a',) left"),
        ([(overwrite, ("a", 1)), (overwrite, ("a", 2))], "undo of overwrite"),
        ([(untouched, ("a",)), (add, ("a", 1))], "undo of untouched('a',)"),
    ],
)
def test_operations_that_do_not_commute_are_told_with_the_orders(calls: Any, says: str) -> None:
    """An order that matters, an undo that writes what it has read, and one that leaves something behind."""
    with closing(sqlite3.connect(":memory:")) as connection:
        for statement in TABLES:
            connection.execute(statement)
        with pytest.raises(NotCommutative, match="makes a difference") as told:
            check_commutative_blocking(connection, calls, accounts)
        assert says in str(told.value)
        assert accounts(connection) == {"a": 100, "b": 100}


def test_what_is_not_marked_or_too_much_is_refused(database: Database) -> None:
    """A mark without its undo says nothing; five operations have too many orders."""

    @commutative
    async def alone(connection: Any) -> None: ...

    async def plain(connection: Any) -> None: ...

    async def main() -> None:
        async with database() as connection:
            unfit: list[Any] = [[(alone, ())] * 2, [(plain, ())] * 2, [(add, ("a", 1))], [(add, ("a", 1))] * 5]
            for calls in unfit:
                with pytest.raises(DefinitionError, match=r"Mark the pair|two to four"):
                    await check_commutative(connection, calls, accounts)

    run(main)
    with pytest.raises(DefinitionError, match="Keep one"):
        add.compensation(take_away)
    with pytest.raises(DefinitionError, match="above a function"):
        commutative(Path)


def test_asynchronous_operations_are_checked_as_well(database: Database) -> None:
    """On a connection that awaits."""

    @commutative
    async def put(connection: Any, cents: int) -> None:
        await connection.execute(f"UPDATE accounts SET cents = cents + {cents} WHERE id = 'a'")

    @put.compensation
    async def take(connection: Any, result: None, cents: int) -> None:
        await connection.execute(f"UPDATE accounts SET cents = cents - {cents} WHERE id = 'a'")

    async def stands(connection: Any) -> Any:
        if isinstance(connection, aiosqlite.Connection):
            return [tuple(row) for row in await connection.execute_fetchall("SELECT * FROM accounts ORDER BY id")]
        return [tuple(row) for row in await connection.fetch("SELECT * FROM accounts ORDER BY id")]

    async def main() -> None:
        async with database() as connection:
            assert await check_commutative(connection, [(put, (1,)), (put, (2,))], stands) == 2 + 2 * 3 + 6

    run(main)
