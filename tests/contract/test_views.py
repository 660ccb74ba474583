"""Where choreographed sagas are kept: memory, SQLite and PostgreSQL do the same with what a view observes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from atone.store import Marked, Observed, Query, Store, StoredPlan, Viewing, Views
from atone.stores.memory import MemoryStore
from atone.stores.sqlite import SqliteStore
from tests.servers.postgres import Bench, until

WAITS = "SELECT count(*) FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid))"


def event(number: int, saga_id: str = "o-1", **other: Any) -> Observed:
    seen = Observed("default", "orders", 1, "hash", saga_id, f"e-{number}", 100.0 + number, b'{"n":%d}' % number)
    return seen._replace(**other)


Scene = Callable[[Callable[[Views], Awaitable[None]]], None]


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Scene:
    if request.param == "memory":
        store: Any = MemoryStore(allow_volatile=True)
    elif request.param == "sqlite":
        store = SqliteStore(tmp_path / "views.db")
    else:
        bench: Bench = request.getfixturevalue("postgres_bench")
        store = bench.place().store(real_clock=True)

    def play(story: Callable[[Views], Awaitable[None]]) -> None:
        async def main() -> None:
            async with store:
                assert isinstance(store, Viewing)
                views = store.views
                cast("Store", store).renew(None, 0, register=[StoredPlan("orders", 1, "hash", "{}")])
                await story(views)

        asyncio.run(main())

    return play


def test_an_event_is_kept_once_and_in_the_order_of_its_coming(scene: Scene) -> None:
    """Whatever comes twice, in one call or several, has one row; a saga's rows are numbered without a gap."""

    async def story(views: Views) -> None:
        first, other, again = await views.observe([event(2), event(7, "o-2"), event(2)])
        assert first == again != other
        assert await views.observe([event(1), event(2), event(3)]) == [first] * 3
        (loaded,) = await views.load([first])
        assert loaded is not None
        assert loaded.plan == "{}"
        kept = [(row.version, row.at, row.commit_id, row.entries) for row in loaded.rows]
        assert kept == [(1, 102.0, b"e-2", b'{"n":2}'), (2, 101.0, b"e-1", b'{"n":1}'), (3, 103.0, b"e-3", b'{"n":3}')]

    scene(story)


def test_a_mark_made_of_fewer_events_never_replaces_one_of_more(scene: Scene) -> None:
    """Two views of one choreography may fold at the same time; the one that knew more is right."""

    async def story(views: Views) -> None:
        (key,) = await views.observe([event(1)])
        await views.mark([Marked(key, 2, "completed", None)])
        await views.mark([Marked(key, 1, "running", 5.0)])
        (summary,) = await views.find(Query())
        assert (summary.status, summary.wake_at, summary.owner) == ("completed", None, None)
        assert (summary.name, summary.saga_id, summary.definition_version) == ("orders", "o-1", 1)
        await views.mark([Marked(key, 2, "needs_attention", 9.0)])
        assert [one.status for one in await views.find(Query())] == ["needs_attention"]

    scene(story)


def test_sagas_are_found_in_pages_and_by_what_is_asked(scene: Scene) -> None:
    """As `find` of the store does it for orchestrated ones, and in the order of keys."""

    async def story(views: Views) -> None:
        keys = sorted([(await views.observe([event(at, f"o-{at}")]))[0] for at in range(5)])
        await views.observe([event(9, "o-1", name="returns")])
        await views.mark([Marked(key, 1, "running" if at % 2 else "completed", None) for at, key in enumerate(keys)])
        assert [one.key for one in await views.find(Query(name="orders", limit=3))] == keys[:3]
        assert [one.key for one in await views.find(Query(name="orders", after=keys[2]))] == keys[3:]
        running = await views.find(Query(name="orders", statuses=frozenset({"running"})))
        assert [one.key for one in running] == [keys[1], keys[3]]
        assert sorted(one.name for one in await views.find(Query(saga_id="o-1"))) == ["orders", "returns"]
        assert await views.find(Query(tenant="nobody")) == []
        assert [one.key for one in await views.find(Query(keys=(keys[4], keys[0])))] == [keys[0], keys[4]]
        assert await views.load([b"nobody"]) == [None]

    scene(story)


def test_what_should_be_looked_at_again_is_found_when_its_time_has_come(scene: Scene) -> None:
    """The longest due first, of one choreography, and within a bound."""

    async def story(views: Views) -> None:
        keys = [(await views.observe([event(at, f"o-{at}")]))[0] for at in range(3)]
        await views.mark([Marked(key, 1, "running", wake) for key, wake in zip(keys, (30.0, 10.0, 20.0), strict=True)])
        assert await views.due("orders", 20.0) == [keys[1], keys[2]]
        assert await views.due("orders", 20.0, limit=1) == [keys[1]]
        assert await views.due("returns", 20.0) == []

    scene(story)


def test_what_is_over_and_old_is_forgotten_and_nothing_else(scene: Scene) -> None:
    """What goes on, needs a person, was heard of lately or belongs to another choreography stays."""

    async def story(views: Views) -> None:
        statuses = ["completed", "compensated", "running", "needs_attention", "pending", "completed"]
        keys = [(await views.observe([event(1, f"o-{at}")]))[0] for at in range(len(statuses))]
        await views.observe([event(9, "o-5")])
        (other,) = await views.observe([event(1, "o-0", name="returns")])
        marks = [Marked(key, 1, status, None) for key, status in zip(keys, statuses, strict=True)]
        await views.mark([*marks, Marked(other, 1, "completed", None)])
        assert await views.purge("orders", 101.0) == 0
        assert await views.purge("orders", 109.0) == 2
        assert await views.load(keys[:2]) == [None, None]
        left = {one.key for one in await views.find(Query())}
        assert left == {*keys[2:], other}
        assert [len(one.rows) for one in await views.load([keys[5]]) if one] == [2]

    scene(story)


def test_what_is_forgotten_at_once_is_bounded(scene: Scene) -> None:
    """A purge of a large table goes in steps, until nothing is left."""

    async def story(views: Views) -> None:
        keys = [(await views.observe([event(1, f"o-{at}")]))[0] for at in range(5)]
        await views.mark([Marked(key, 1, "completed", None) for key in keys])
        assert [await views.purge("orders", 200.0, limit=3) for _ in range(3)] == [3, 2, 0]

    scene(story)


def test_a_saga_that_was_forgotten_begins_anew_with_what_is_heard_next(scene: Scene) -> None:
    """No event of before is left behind, and a mark that was made before the purge changes nothing."""

    async def story(views: Views) -> None:
        (key,) = await views.observe([event(1)])
        await views.observe([event(2)])
        await views.mark([Marked(key, 2, "completed", None)])
        assert await views.purge("orders", 200.0) == 1
        await views.mark([Marked(key, 3, "running", 5.0)])
        assert await views.find(Query()) == []
        (again,) = await views.observe([event(2)])
        (loaded,) = await views.load([again])
        assert loaded is not None
        assert [(row.version, row.commit_id) for row in loaded.rows] == [(1, b"e-2")]

    scene(story)


def test_an_event_that_waits_for_a_purge_is_kept_all_the_same(postgres_bench: Bench) -> None:
    """Its saga's row was there when it came, and is gone when it may be written: it is made again."""
    place = postgres_bench.place()

    async def main() -> None:
        async with place.store(real_clock=True) as store:
            await asyncio.to_thread(store.renew, None, 0, register=[StoredPlan("orders", 1, "hash", "{}")])
            (key,) = await store.views.observe([event(1)])
            with psycopg.connect(postgres_bench.server.url()) as purging:
                purging.execute(SQL("SET search_path TO {}").format(Identifier(place.schema)))
                purging.execute("SELECT key FROM views FOR UPDATE")
                waiting = asyncio.create_task(store.views.observe([event(2)]))
                await until(lambda: place.sql(WAITS, purging.info.backend_pid) == [(1,)])
                purging.execute("DELETE FROM views")
                purging.execute("DELETE FROM view_events")
                purging.commit()
                (again,) = await waiting
            assert again != key
            assert [one.saga_id for one in await store.views.find(Query())] == ["o-1"]

    asyncio.run(main())
