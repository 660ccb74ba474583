"""What a claim of the embedded broker costs, counted in rows, pages and steps: the same however many messages wait."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self, cast

import apsw
import pytest

from atone.broker import Delivery, Message
from atone.brokers import _embedded_postgres as postgres
from atone.brokers import _embedded_sqlite as sqlite
from atone.brokers._embedded_walk import WOKEN_MAX, Walk, looked_at_for
from atone.brokers.embedded import EmbeddedBroker
from atone.stores._postgres_place import Place

FEW, MANY = 1200, 24_000
LIMIT = 10
AFTER_ALL = 4e9


class Row(NamedTuple):
    """A message of the group: ready unless it says otherwise."""

    key: bytes
    due_at: float | None = 0.0
    holder: str | None = None
    parked_at: float | None = None


def of_one_key(count: int) -> list[Row]:
    return [Row(b"k")] * count


def of_many_keys(count: int) -> list[Row]:
    return [Row(b"k%d" % one) for one in range(count)]


def behind_one_in_other_hands(count: int) -> list[Row]:
    return [Row(b"k", AFTER_ALL, "other"), *of_one_key(count)]


def behind_many_in_other_hands(count: int) -> list[Row]:
    keys = [b"k%d" % one for one in range(count // 2)]
    return [*(Row(key, AFTER_ALL, "other") for key in keys), *(Row(key) for key in keys)]


def behind_many_that_are_mine(count: int) -> list[Row]:
    keys = [b"k%d" % one for one in range(count // 2)]
    return [*(Row(key, AFTER_ALL, "me") for key in keys), *(Row(key) for key in keys)]


def parked(count: int) -> list[Row]:
    return [*(Row(b"k%d" % one, None, None, 1.0) for one in range(count)), Row(b"k")]


def delayed(count: int) -> list[Row]:
    return [*(Row(b"k%d" % one, AFTER_ALL) for one in range(count)), Row(b"k")]


def due_again(count: int) -> list[Row]:
    return [Row(b"k%d" % one, 1.0) for one in range(count)]


def left_by_who_is_dead(count: int) -> list[Row]:
    return [Row(b"k%d" % (one % 7), 1.0, "other") for one in range(count)]


SITUATIONS = (
    of_one_key, of_many_keys, behind_one_in_other_hands, behind_many_in_other_hands, behind_many_that_are_mine, parked,
    delayed, due_again, left_by_who_is_dead,
)  # fmt: skip

_STATEMENTS = {
    "_LOOK": ("text", "'g'"),
    "_WAKE": ("text, bigint", f"'g', {WOKEN_MAX}"),
    "_OLDEST": ("text, text, bigint, bigint", f"'g', 'me', {LIMIT}, {looked_at_for(LIMIT)}"),
    "_KEYS": ("text, text, bytea, bigint", f"'g', 'me', '', {looked_at_for(LIMIT)}"),
    "_OF_KEYS": ("text, bytea[], bigint", f"'g', ARRAY['k', 'k1', 'k2']::bytea[], {LIMIT}"),
    "_TAKE": ("bigint[], text, float8", f"ARRAY{list(range(1, LIMIT + 1))}, 'me', 30"),
    "_EXTEND": ("text, bigint[], float8", "'me', ARRAY[1, 2, 3], 30"),
    "_ACK": ("bigint[]", "ARRAY[1, 2, 3]"),
    "_RETRY": ("bigint[], text[], float8[]", "ARRAY[4], ARRAY['me'], ARRAY[1.0]"),
    "_PARK": ("bigint[], text[], text[]", "ARRAY[5], ARRAY['me'], ARRAY['no']"),
    "_PUBLISH": ("text[], text[], bytea[], bytea[], text[]",
                 "ARRAY['m'], ARRAY['t'], ARRAY['k']::bytea[], ARRAY['b']::bytea[], ARRAY['{}']"),
}  # fmt: skip
_FILL = """
INSERT INTO atone.broker_messages (group_name, id, topic, key, body, headers, due_at, holder, parked_at)
SELECT 'g', 'm', 't', key, '', '{}', due_at, holder, parked_at
  FROM unnest($1::bytea[], $2::float8[], $3::text[], $4::float8[]) AS r (key, due_at, holder, parked_at)
"""


class Cost(NamedTuple):
    """Rows that plans went through, and pages that they looked at."""

    rows: float
    pages: int


def _rows_of(node: dict[str, Any]) -> Iterator[float]:
    skipped = sum(value for name, value in node.items() if name.startswith("Rows Removed by"))
    yield (node["Actual Rows"] + skipped) * node["Actual Loops"]
    for one in node.get("Plans", ()):
        yield from _rows_of(one)


class PostgresCosts:
    """Statements that are planned before there is anything, as a broker's that is there from the beginning."""

    def __init__(self, url: str, place: Place) -> None:
        self._url, self._place = url, place

    async def __aenter__(self) -> Self:
        self.connection = await postgres._dial(self._url, 100)
        for name, (types, values) in _STATEMENTS.items():
            statement = self._place.sql(getattr(postgres, name))
            await self.connection.execute(f"PREPARE p{name} ({types}) AS {statement}")
            await self.connection.execute(f"EXPLAIN EXECUTE p{name} ({values})")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.connection.terminate()

    async def of(self, rows: list[Row]) -> dict[str, Cost]:
        """Return what each statement costs with these rows there."""
        async with self.connection.transaction():
            await self.connection.execute(self._place.sql("DELETE FROM atone.broker_messages"))
        await self.connection.execute(self._place.sql(_FILL), *map(list, zip(*rows, strict=True)))
        return {name: await self._of(name) for name in _STATEMENTS}

    async def _of(self, name: str) -> Cost:
        explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE p{name} ({_STATEMENTS[name][1]})"
        transaction = self.connection.transaction()
        await transaction.start()
        try:
            found = json.loads(await self.connection.fetchval(explain))[0]["Plan"]
        finally:
            await transaction.rollback()
        return Cost(sum(_rows_of(found)), found["Shared Hit Blocks"] + found["Shared Read Blocks"])


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda one: one.__name__)
def test_no_statement_goes_through_what_waits_on_postgresql(
    postgres_bench: Any, situation: Callable[[int], list[Row]]
) -> None:
    """Planned while there was nothing, each goes through as many rows with twenty times as many messages there."""

    async def main() -> list[dict[str, Cost]]:
        found: list[dict[str, Cost]] = []
        for count in (FEW, MANY):
            place = Place(postgres_bench.place().schema)  # nothing dead is in it
            async with PostgresCosts(postgres_bench.worker_url, place) as costs:
                found.append(await costs.of(situation(count)))
        return found

    few, many = asyncio.run(main())
    for name in _STATEMENTS:
        assert many[name].rows <= few[name].rows + LIMIT, name
        assert many[name].pages <= 1.5 * few[name].pages + 100, name


def test_statistics_of_another_time_do_no_harm(postgres_bench: Any) -> None:
    """A plan made when the statistics said that next to nothing waits takes no more of what waits than it is to."""
    place = Place(postgres_bench.place().schema)
    scattered = [Row(b"k%d" % one, 1.0 + one * 7919 % MANY) for one in range(MANY)]

    async def main() -> dict[str, Cost]:
        async with PostgresCosts(postgres_bench.server.url(), place) as costs:
            await costs.of([*scattered[:200], *([Row(b"k", None, None, 1.0)] * MANY)])
            await costs.connection.execute(place.sql("ANALYZE atone.broker_messages"))
            for name, (_, values) in _STATEMENTS.items():
                await costs.connection.execute(f"EXPLAIN EXECUTE p{name} ({values})")
            return await costs.of(scattered)

    for name, cost in asyncio.run(main()).items():
        assert cost.rows <= 5 * WOKEN_MAX, name


def _steps(folder: Path, rows: list[Row]) -> int:
    """Return how many steps SQLite takes for a look and a claim."""
    path = str(folder / f"{len(rows)}.db")

    async def prepare() -> None:
        async with EmbeddedBroker(f"sqlite:///{path}") as broker:
            await broker.declare("g", ["t"])

    asyncio.run(prepare())
    connection = sqlite.open_file(path, 3.0)
    ticks = [0]

    def tick() -> bool:
        ticks[0] += 1
        return False

    try:
        with connection:
            connection.executemany(
                "INSERT INTO broker_messages (group_name, id, topic, key, body, headers, due_at, holder, parked_at) "
                "VALUES ('g', 'm', 't', ?, x'', '{}', ?, ?, ?)", rows)  # fmt: skip
        cast("apsw.Connection", connection).set_progress_handler(tick, 1)
        messages = sqlite.SqliteMessages(path)
        connection.execute(sqlite._LOOK, ("g",)).fetchall()
        with connection:
            messages._claim(connection, "g", "me", LIMIT, 30.0)
            sqlite._end(connection, [])
    finally:
        cast("apsw.Connection", connection).set_progress_handler(None)
        connection.close()
    return ticks[0]


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda one: one.__name__)
def test_no_claim_goes_through_what_waits_on_sqlite(tmp_path: Path, situation: Callable[[int], list[Row]]) -> None:
    """It takes about as many steps with twenty times as many messages there."""
    few, many = _steps(tmp_path, situation(FEW)), _steps(tmp_path, situation(MANY))
    assert few > LIMIT, "steps are counted"
    assert many <= 1.2 * few + 100


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'atone.db'}"
    bench = request.getfixturevalue("postgres_bench")
    return f"{bench.worker_url}?schema={bench.place().schema}"


def heard(broker: EmbeddedBroker, in_flight: int = LIMIT) -> AsyncGenerator[Delivery]:
    return cast("AsyncGenerator[Delivery]", broker.deliveries("shipping", in_flight=in_flight))


def message(number: int, key: str) -> Message:
    return Message(f"m{number}", "stock.reserved", key, b"%d" % number)


@pytest.mark.parametrize("free_key", ["", "zebra"])
def test_what_is_free_is_found_behind_any_number_that_is_not(url: str, free_key: str) -> None:
    """More keys are in another's hands, with more waiting behind them, than one look reaches; the free one is got."""
    keys = [f"k{one:03}" for one in range(3 * looked_at_for(1))]

    async def main() -> bytes:
        async with EmbeddedBroker(url) as one, EmbeddedBroker(url) as other, asyncio.timeout(20):
            await one.declare("shipping", ["stock.reserved"])
            await one.publish([message(number, key) for number, key in enumerate(keys)])
            holding = heard(one, len(keys))
            for _ in keys:
                await anext(holding)
            await one.publish([message(number, key) for number, key in enumerate(keys)])
            await one.publish([Message("free", "stock.reserved", free_key, b"free")])
            passing = heard(other, 1)
            found = await anext(passing)
            await passing.aclose()
            await holding.aclose()
            return found.message.body

    assert asyncio.run(main()) == b"free"


def test_a_walk_goes_round_all_keys() -> None:
    """Where a stretch was full the next one follows it; after the last one it begins again."""
    walk = Walk()
    assert (walk.begin("g"), walk.pause("g")) == (b"", None)
    walk.went("g", [b"a", b"b"], 2)
    assert (walk.begin("g"), walk.pause("g"), walk.begin("other")) == (b"b\x00", 0.0, b"")
    walk.went("g", [b"c"], 2)
    assert (walk.begin("g"), walk.pause("g")) == (b"", None)
