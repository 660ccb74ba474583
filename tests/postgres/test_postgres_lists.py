"""Lists read what they show, not what there is: counted in rows that the server had to fetch, not in seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from uuid import uuid4

import pytest

from atone.store import Query
from tests.servers.postgres import TESTED, WORKER, Bench, Place, until

SAGAS = 20_000
READ_AT_MOST = 500
# Many of one kind that are over, a few of each other kind, at the end and so the last ones to be met.
_MANY = f"""
INSERT INTO sagas (key, tenant, name, saga_id, definition, status, created_at)
SELECT int8send(n) || int8send(0), 'acme', 'Order', 'order-' || n, 1, 'completed', 0
  FROM generate_series(1, {SAGAS}) AS n
"""
_FEW = """
INSERT INTO sagas (key, tenant, name, saga_id, definition, status, owner, created_at)
SELECT int8send(1000000 + n) || sha256(convert_to($1 || $2 || $3, 'UTF8')),
       $1, $2, $1 || '-' || $2 || '-' || $3 || n, 1, $3, CASE WHEN $3 = 'running' THEN 'somebody' END, 0
  FROM generate_series(1, 5) AS n
"""
_READ = "SELECT idx_tup_fetch + seq_tup_read FROM pg_stat_user_tables WHERE schemaname = %s AND relname = 'sagas'"


@pytest.fixture(scope="module", params=TESTED)
def place(request: pytest.FixtureRequest, postgres_bench_of: Callable[[str], Bench]) -> Place:
    place = postgres_bench_of(request.param).place()
    place.sql("INSERT INTO definitions (name, version, plan_hash) VALUES ('Order', 1, 'hash'), ('Refund', 1, 'hash')")
    place.sql(_MANY)
    kinds = [("acme", "Refund", "completed"), ("zoo", "Order", "completed")]
    kinds += [("acme", "Order", status) for status in ("failed", "compensated", "running", "needs_attention")]
    for tenant, name, status in kinds:
        text = _FEW.replace("$1", f"text '{tenant}'").replace("$2", f"text '{name}'").replace("$3", f"text '{status}'")
        place.sql(text)
    place.sql("VACUUM ANALYZE sagas")
    return place


def _of(*statuses: str) -> Query:
    return Query(tenant="acme", statuses=frozenset(statuses), limit=20)


LISTS = {
    "all": (Query(tenant="acme", limit=20), 20),
    "a later page": (Query(tenant="acme", limit=20, after=(SAGAS // 2).to_bytes(8, "big")), 20),
    "one by its id alone": (Query(tenant="acme", saga_id="order-777", limit=20), 1),
    "of a common name": (Query(tenant="acme", name="Order", limit=20), 20),
    "of a rare name": (Query(tenant="acme", name="Refund", limit=20), 5),
    "of a small tenant": (Query(tenant="zoo", limit=20), 5),
    "completed": (_of("completed"), 20),
    "failed": (_of("failed"), 5),
    "undone": (_of("failed", "compensated"), 10),
    "running": (_of("running"), 5),
    "in need": (_of("needs_attention"), 5),
    "not completed": (_of("failed", "compensated", "running", "needs_attention"), 20),
    "running under another plan": (_of("running")._replace(name="Order", other_hash_than="hash"), 0),
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_reads_little_more_than_it_shows(name: str, place: Place) -> None:
    """However many sagas there are of other kinds, and wherever those that are wanted lie among them."""
    query, wanted = LISTS[name]

    def read() -> int:
        ((rows,),) = place.sql(_READ, place.schema)
        return int(rows)

    async def gone() -> None:
        await until(lambda: place.sql("SELECT 1 FROM pg_stat_activity WHERE usename = %s", WORKER) == [])

    async def main() -> tuple[int, int]:
        await gone()
        before = read()
        async with place.store(real_clock=True, notify=False, readers=1) as store:
            found = await store.find(query)
        await gone()  # a session tells what it has read at its end at the latest
        return len(found), read() - before

    shown, rows = asyncio.run(main())
    assert shown == wanted
    assert shown <= rows <= READ_AT_MOST, f"{rows} rows were read to show {shown}"


def test_rows_that_are_read_are_counted(place: Place) -> None:
    """The measure itself can fail: whoever reads all rows is found out."""
    before = place.sql(_READ, place.schema)[0][0]
    place.sql(f'SET search_path TO "{place.schema}"; SELECT count(saga_id || {uuid4().int % 9}) FROM sagas')
    place.bench.reconnect()
    assert place.sql(_READ, place.schema)[0][0] - before > SAGAS
