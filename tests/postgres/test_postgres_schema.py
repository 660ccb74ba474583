"""Opening a store on PostgreSQL: its tables, its roles, and what is said when something is not as it should be."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from atone.errors import StoreError, StoreSchemaError, StoreUnavailable
from atone.store import Query, TurnResult
from atone.stores._postgres_schema import migrations
from atone.stores.postgres import PostgresStore, grants_sql, migrate, migrate_sql, roles_sql
from atone.testing._subject import birth_of, request_for, turn_of
from tests.servers.postgres import WORKER, Bench, until

NEWEST = migrations()[-1].number
COLUMNS = """
SELECT table_name, column_name, data_type, is_nullable, collation_name, column_default
  FROM information_schema.columns WHERE table_schema = %s ORDER BY 1, ordinal_position
"""
INDEXES = "SELECT indexdef FROM pg_indexes WHERE schemaname = %s ORDER BY 1"
GRANTS = """
SELECT grantee, table_name, privilege_type FROM information_schema.role_table_grants
 WHERE table_schema = %s AND grantee LIKE 'atone\\_%%' AND grantee <> 'atone_owner' ORDER BY 1, 2, 3
"""


@pytest.fixture
def schema(postgres_bench: Bench) -> Iterator[str]:
    """Return the name of a schema that does not exist, and that is gone afterwards."""
    name = f"S_{uuid4().hex[:8]}"
    yield name
    postgres_bench.admin.execute(f'DROP SCHEMA IF EXISTS "{name}" CASCADE')


def look(bench: Bench, query: str, schema: str) -> list[str]:
    rows = bench.admin.execute(query, [schema]).fetchall()
    return [" ".join(map(str, row)).replace(schema, "atone") for row in rows]


def opened(dsn: str, **options: Any) -> None:
    """Open a store and do a little in it."""

    async def main() -> None:
        async with PostgresStore(dsn, **options) as store:
            worker = uuid4().hex
            store.renew(worker, 10, register=())
            first = birth_of(uuid4().bytes)
            assert await store.commit(worker, [first]) == [TurnResult.APPLIED]
            assert [one.key for one in await store.find(Query(keys=(first.key,)))] == [first.key]

    asyncio.run(main())


def refused(kind: type[StoreError], says: str, dsn: str, **options: Any) -> None:
    with pytest.raises(kind, match=says) as caught:
        opened(dsn, **options)
    assert "secret" not in str(caught.value)


def test_opening_makes_the_tables_once(postgres_bench: Bench, schema: str) -> None:
    """The first opening migrates, the second finds everything there."""
    url = postgres_bench.server.url()
    opened(url, schema=schema)
    opened(url, schema=schema)
    assert asyncio.run(migrate(url, schema=schema)) == []


def test_many_that_open_at_once_make_the_tables_once(postgres_bench: Bench, schema: str) -> None:
    """A fleet that starts on an empty database: one migrates, the others wait for it."""

    async def main() -> list[list[str]]:
        url = postgres_bench.server.url()
        return await asyncio.gather(*(migrate(url, schema=schema) for _ in range(6)))

    done = asyncio.run(main())
    assert sorted(map(len, done)) == [0, 0, 0, 0, 0, len(migrations())]


def test_a_script_makes_the_same_tables(postgres_bench: Bench, schema: str) -> None:
    """What is printed for a careful administrator is what `migrate` does; both may be run again."""
    by_code = postgres_bench.place()
    by_code.sql("DROP TABLE clock")
    for _ in range(2):
        postgres_bench.script(roles_sql(schema=schema))
    postgres_bench.script(migrate_sql(schema=schema))
    for _ in range(2):
        postgres_bench.script(grants_sql(schema=schema))
    for query in (COLUMNS, INDEXES, GRANTS):
        assert look(postgres_bench, query, schema) == look(postgres_bench, query, by_code.schema) != []
    assert asyncio.run(migrate(postgres_bench.server.url(), schema=schema)) == []
    opened(postgres_bench.worker_url, schema=schema, migrate=False)
    assert "CREATE TABLE" not in migrate_sql(after=NEWEST).replace("CREATE TABLE IF NOT EXISTS", "")


def test_tables_that_are_missing_are_made_only_when_asked(postgres_bench: Bench, schema: str) -> None:
    """`migrate=False` complains with the next move, and makes nothing."""
    refused(StoreSchemaError, "Run the migrations", postgres_bench.server.url(), schema=schema, migrate=False)
    assert look(postgres_bench, COLUMNS, schema) == []


def test_a_schema_from_the_future_is_refused_unless_it_is_made_for_us_too(postgres_bench: Bench) -> None:
    """A newer pre migration leaves this code able to run, as a rolling update needs; any other does not."""
    place = postgres_bench.place()
    note = "INSERT INTO migrations (number, name) VALUES (%s, %s)"
    place.sql(note, NEWEST + 1, f"{NEWEST + 1:04}_pre_more_columns")
    for migrates in (True, False):
        opened(postgres_bench.worker_url, schema=place.schema, migrate=migrates)
    for number, name in enumerate(("post_fewer_columns", "whatever"), start=NEWEST + 2):
        place.sql(note, number, f"{number:04}_{name}")
        for migrates in (True, False):
            refused(StoreSchemaError, "Upgrade Atone", postgres_bench.worker_url, schema=place.schema, migrate=migrates)
        place.sql("DELETE FROM migrations WHERE number = %s", number)


def test_somebody_elses_schema_is_left_alone(postgres_bench: Bench, schema: str) -> None:
    """Tables with a name that Atone uses may be another program's."""
    postgres_bench.admin.execute(f'CREATE SCHEMA "{schema}"')
    postgres_bench.admin.execute(f'CREATE TABLE "{schema}".journal (page int)')
    before = look(postgres_bench, COLUMNS, schema)
    refused(StoreSchemaError, "something else", postgres_bench.server.url(), schema=schema)
    assert look(postgres_bench, COLUMNS, schema) == before


@pytest.mark.parametrize(
    "name", ["", "pg_toast", "PG_x", "a b", 'a"b', "a.b", "ä", "x" * 64, "1a", "a;--", "a%b", "a:b"]
)
def test_a_schema_has_a_plain_name(name: str) -> None:
    """It is put into the text of statements, so nothing else may be."""
    with pytest.raises(StoreError, match="letters, digits and _"):
        PostgresStore("postgresql://host/db", schema=name)


WORKERS_MAY = ["SELECT entries FROM journal", "SELECT * FROM dead_letters"]
WORKERS_MAY_NOT = [
    "DELETE FROM journal", "UPDATE journal SET entries = ''", "DELETE FROM sagas", "DELETE FROM workers",
    "DELETE FROM requests", "TRUNCATE journal", "DROP TABLE requests", "CREATE TABLE more (x int)",
    "INSERT INTO migrations VALUES (99, 'x')", "UPDATE identity SET id = 'x'",
]  # fmt: skip
READERS_MAY = ["SELECT * FROM summaries", "SELECT * FROM journal_sizes"]
READERS_MAY_NOT = [
    "SELECT entries FROM journal", "SELECT * FROM early_events", "SELECT * FROM dead_letters", "SELECT * FROM sagas",
    "SELECT * FROM requests", "UPDATE workers SET dead = true",
]  # fmt: skip


def test_each_role_may_do_its_own_and_no_more(postgres_bench: Bench, schema: str) -> None:
    """Owners migrate, and their tables are the role's; workers run sagas; readers see no payload."""
    for login, role in (("olga", "atone_owner"), ("rita", "atone_reader")):
        postgres_bench.admin.execute(f"CREATE ROLE {login} LOGIN PASSWORD '{login}' IN ROLE {role}")
    server = postgres_bench.server
    refused(StoreError, "atone_owner", postgres_bench.worker_url, schema=schema)
    assert asyncio.run(migrate(server.url(user="olga", password="olga"), schema=schema))
    owners = "SELECT DISTINCT tableowner, %s FROM pg_tables WHERE schemaname = %s"
    assert postgres_bench.admin.execute(owners, [0, schema]).fetchall() == [("atone_owner", 0)]
    opened(postgres_bench.worker_url, schema=schema)
    reader = server.url(user="rita", password="rita")
    _check_rights(postgres_bench.worker_url, schema, WORKERS_MAY, WORKERS_MAY_NOT)
    _check_rights(reader, schema, READERS_MAY, READERS_MAY_NOT)

    async def look_as_reader() -> None:
        async with PostgresStore(reader, schema=schema, migrate=False) as store:
            (found,) = await store.find(Query())
            with pytest.raises(StoreError, match="may not do that"):
                await store.load([found.key])

    asyncio.run(look_as_reader())


def _check_rights(url: str, schema: str, may: list[str], may_not: list[str]) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'SET search_path TO "{schema}"')
        for statement in may:
            connection.execute(statement)
        for statement in may_not:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)


def test_a_wrong_address_is_told_what_is_wrong_with_it(postgres_bench: Bench) -> None:
    """Who, where, and which database: each has its own words, and none has the password."""
    url = postgres_bench.server.url(password="secret")
    refused(StoreError, "user and the password", url)
    refused(StoreError, "user and the password", postgres_bench.server.url(user="nobody", password="secret"))
    refused(StoreError, "no such database", postgres_bench.server.url(database="nowhere"))
    refused(StoreUnavailable, "can't be reached", "postgresql://me:secret@127.0.0.1:1/db")
    refused(StoreUnavailable, "can't be reached", "postgresql://me:secret@nowhere.invalid/db")
    refused(StoreError, "no usable address", "postgresql://me:secret@host:port/db")
    refused(StoreError, "no usable address", "https://me:secret@127.0.0.1/db")
    refused(StoreError, "not take a parameter", f"{postgres_bench.server.url()}?secret=1")


def test_one_of_several_hosts_is_enough(postgres_bench: Bench) -> None:
    """The first that is there and takes writes is used."""
    place = postgres_bench.place()
    url = postgres_bench.worker_url.replace("@127.0.0.1", "@127.0.0.1:1,127.0.0.1")
    opened(url, schema=place.schema, migrate=False)


def test_a_server_that_is_down_is_told_at_once_and_found_again(postgres_bench: Bench) -> None:
    """An open store says StoreUnavailable and goes on when the server is back; a new one does not open."""
    place = postgres_bench.place()
    server = postgres_bench.server

    async def main() -> None:
        async with place.store(real_clock=True) as store:
            worker = uuid4().hex
            store.renew(worker, 600, register=())
            first = birth_of(uuid4().bytes)
            await store.commit(worker, [first])
            server.stop("fast")
            calls: list[Callable[[], Any]] = [
                lambda: store.commit(worker, [turn_of(first.key, 2)]),
                lambda: store.load([first.key]),
                lambda: store.find(Query()),
                lambda: store.deliver(request_for("x")),
                lambda: store.claim(worker, definitions=[], known=[], limit=1, lease_seconds=10),
                lambda: asyncio.to_thread(store.renew, worker, 10),
            ]
            for call in [*calls, *calls]:
                with pytest.raises(StoreUnavailable):
                    await call()
            server.start()
            for call in calls:
                await call()

    asyncio.run(main())
    server.stop("fast")
    try:
        refused(StoreUnavailable, "can't be reached", postgres_bench.worker_url, schema=place.schema)
    finally:
        server.start()
        postgres_bench.reconnect()


def test_a_store_that_is_read_only_for_a_while_is_used_again_afterwards(postgres_bench: Bench) -> None:
    """As in a fail-over: the connection to what became a replica is given up, a new one may lead elsewhere."""
    place = postgres_bench.place()

    async def main() -> None:
        async with place.store(real_clock=True) as store:
            worker = uuid4().hex
            store.renew(worker, 600, register=())
            first = birth_of(uuid4().bytes)
            await store.commit(worker, [first])
            place.sql(f"ALTER ROLE {WORKER} SET default_transaction_read_only = on")
            try:
                place.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", WORKER)
                await until(lambda: place.sql("SELECT 1 FROM pg_stat_activity WHERE usename = %s", WORKER) == [])
                for _ in range(2):
                    with pytest.raises(StoreUnavailable):
                        await store.commit(worker, [turn_of(first.key, 2)])
            finally:
                place.sql(f"ALTER ROLE {WORKER} RESET default_transaction_read_only")
            assert await store.commit(worker, [turn_of(first.key, 2)]) == [TurnResult.APPLIED]

    asyncio.run(main())


SHOWN = (
    "statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "synchronous_commit", "plan_cache_mode",
    "default_transaction_isolation", "application_name",
)  # fmt: skip


async def _settings(store: PostgresStore, line: str) -> list[str]:
    lines: Any = store._open
    query = "SELECT current_setting(name) FROM unnest($1::text[]) AS s (name)"
    return [row[0] for row in await getattr(lines, line).do(lambda session: session.rows(query, SHOWN))]


def test_each_connection_is_bounded_and_durable(postgres_bench: Bench) -> None:
    """Time-outs below a third of the lease, and no session that acknowledges what is not on disk."""
    place = postgres_bench.place()

    async def main(**options: Any) -> tuple[list[str], list[str]]:
        async with place.store(real_clock=True, **options) as store:
            return await _settings(store, "commits"), await _settings(store, "others")

    place.sql(f"ALTER ROLE {WORKER} SET synchronous_commit = off")
    try:
        commits, others = asyncio.run(main())
        assert commits == ["3s", "500ms", "3s", "on", "force_generic_plan", "read committed", "atone"]
        assert others == ["3s", "1500ms", "3s", "on", "force_generic_plan", "read committed", "atone"]
        pooled, _ = asyncio.run(main(statement_cache_size=0))
        assert pooled == ["0", "0", "0", "off", "auto", "read committed", "atone"]
    finally:
        place.sql(f"ALTER ROLE {WORKER} RESET synchronous_commit")


def test_a_pooler_leaves_no_statement_behind(postgres_bench: Bench) -> None:
    """`statement_cache_size=0`: nothing is prepared under a name that another session would not know."""
    place = postgres_bench.place()

    async def main() -> None:
        async with place.store(real_clock=True, statement_cache_size=0) as store:
            worker = uuid4().hex
            store.renew(worker, 600, register=())
            first = birth_of(uuid4().bytes)
            for turn in (first, turn_of(first.key, 2), turn_of(first.key, 3)):
                assert await store.commit(worker, [turn]) == [TurnResult.APPLIED]
            claimed = await store.claim(worker, definitions=[], known=[], limit=1, lease_seconds=10)
            assert claimed.taken == (first.key,)
            lines: Any = store._open
            left = await lines.commits.do(lambda session: session.rows("SELECT name FROM pg_prepared_statements"))
            assert [name for (name,) in left if name] == []

    asyncio.run(main())


def test_a_store_that_is_not_open_says_so(postgres_bench: Bench) -> None:
    """Before it is entered, and after it was left."""
    place = postgres_bench.place()
    store = place.store(real_clock=True)

    async def closed() -> None:
        with pytest.raises(StoreError, match="async with"):
            await store.load([])
        with pytest.raises(StoreError, match="async with"):
            store.renew("w", 10)

    async def main() -> None:
        await closed()
        for _ in range(2):
            async with store:
                assert await store.load([]) == []
                store.renew(uuid4().hex, 10, register=())
        await closed()

    asyncio.run(main())


def test_a_fork_does_not_use_its_parents_connection(postgres_bench: Bench) -> None:
    """The child would speak into the parent's conversation; it is told to open a store of its own."""
    place = postgres_bench.place()

    async def main() -> int:
        async with place.store(real_clock=True) as store:
            store.renew("parent", 10, register=())
            child = os.fork()
            if child == 0:
                try:
                    store.renew("parent", 10)
                except StoreError as error:
                    os._exit(0 if "after the fork" in str(error) else 2)
                finally:
                    os._exit(3)
            store.renew("parent", 10)
            return os.waitstatus_to_exitcode((await asyncio.to_thread(os.waitpid, child, 0))[1])

    assert asyncio.run(main()) == 0


def test_dead_letters_keep_what_was_given_up(postgres_bench: Bench) -> None:
    """An operator finds the event, whom it was for, and when it was given up."""
    place = postgres_bench.place()

    async def main() -> None:
        async with place.store() as store:
            worker = uuid4().hex
            store.renew(worker, 600, register=())
            event = request_for("7", keep_seconds=10)
            await store.deliver(event)
            place.advance(10)
            claimed = await store.claim(worker, definitions=[], known=[], limit=1, lease_seconds=10)
            assert claimed.dead_letters == 1

    asyncio.run(main())
    found = place.sql("SELECT tenant, name, saga_id, request_id, entries, given_up_at FROM dead_letters")
    assert found == [("acme", "Order", "7", "request-1", b'["asked"]', 1_750_000_010.0)]
