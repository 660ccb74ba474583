"""The participant's guard on every kind of connection: once, in one transaction, and never after its compensation."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from atone.barrier import AlreadyCompensated, ArgumentsDiffer, Barrier, BarrierMisplaced, BlockingBarrier, Undo
from atone.errors import PayloadError
from tests.barrier.drivers import ON_POSTGRES, ON_SQLITE, Kind, Line
from tests.servers.postgres import Bench


@dataclass(frozen=True)
class Payment:
    id: str
    cents: int


PAID = Payment("p-1", 129_900)


class Service:
    """A participant with a database of its own, and a look at what stands in it."""

    def __init__(self, url: str, kind: Kind) -> None:
        self.url, self.kind = url, kind
        for statement in (
            "DROP TABLE IF EXISTS effects",
            "DROP TABLE IF EXISTS guard",
            "CREATE TABLE effects (name text)",
        ):
            self._run(statement)
        self._run(BlockingBarrier(table="guard").table_sql("postgresql" if self.is_postgres else "sqlite"))

    @property
    def is_postgres(self) -> bool:
        return self.url.startswith("postgresql:")

    def effects(self) -> list[str]:
        """What the participant did, durably."""
        return [name for (name,) in self._run("SELECT name FROM effects")]

    def guard(self) -> list[tuple[str, str]]:
        """What the barrier holds, durably."""
        return [tuple(row) for row in self._run("SELECT key, state FROM guard ORDER BY key")]

    def _run(self, statement: str) -> list[Any]:
        if self.is_postgres:
            with psycopg.connect(self.url, autocommit=True) as connection:
                cursor = connection.execute(statement.encode())
                return cursor.fetchall() if cursor.description else []
        with closing(sqlite3.connect(self.url, isolation_level=None)) as file:
            return file.execute(statement).fetchall()

    def serve(self, call: Callable[[Line], Awaitable[Any]], *, commits: bool = True) -> Any:
        """Serve one call of a saga, in a connection and a transaction of its own."""

        async def main() -> Any:
            async with self.kind(self.url) as line:
                await line.begin()
                try:
                    answer = await call(line)
                except BaseException:
                    await line.end(commits=False)
                    raise
                await line.end(commits=commits)
                return answer

        return asyncio.run(main())

    def charge(self, key: str = "a", *arguments: Any, result: Any = PAID, **options: Any) -> Any:
        """Serve an action."""
        options = {"returns": Payment, **options}
        return self.serve(lambda line: line.action(key, line.effect("charged", result), *arguments, **options))

    def refund(self, key: str = "u", of: str = "a", *arguments: Any, **options: Any) -> Undo:
        """Serve its compensation."""
        options = {"returns": Payment, "action_key": of, **options}
        done: Undo = self.serve(lambda line: line.compensation(key, line.effect("refunded"), *arguments, **options))
        return done


PLACES = [("postgresql", kind) for kind in ON_POSTGRES] + [("sqlite", kind) for kind in ON_SQLITE]


@pytest.fixture(params=PLACES, ids=lambda place: f"{place[0]}-{place[1].__name__[3:]}")
def service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Service]:
    dialect, kind = request.param
    if dialect == "sqlite":
        yield Service(str(tmp_path / "service.db"), kind)
        return
    bench: Bench = request.getfixturevalue("postgres_bench")
    yield Service(bench.server.url(), kind)


def test_a_duplicate_returns_the_stored_result_without_a_second_effect(service: Service) -> None:
    """The second and third call of an action return what the first one returned; one row is written."""
    assert [service.charge(), service.charge(), service.charge()] == [PAID, PAID, PAID]
    assert service.effects() == ["charged"]


def test_none_is_a_result(service: Service) -> None:
    """An action that returns None is done; it is not called again to see whether it returns more."""
    for _ in range(2):
        assert service.charge(result=None, returns=None) is None
    assert service.effects() == ["charged"]


def test_a_compensation_undoes_once_and_is_told_what_the_action_returned(service: Service) -> None:
    """Twice asked, undone once; the undo hears the action's own result."""
    heard: list[Any] = []

    def heard_by(line: Line) -> Callable[..., Any]:
        effect = line.effect("refunded")

        def undo(connection: Any, result: Payment) -> Any:
            heard.append(result)
            return effect(connection)

        return undo

    service.charge()
    for _ in range(2):
        assert (
            service.serve(lambda line: line.compensation("u", heard_by(line), action_key="a", returns=Payment))
            is Undo.UNDONE
        )
    assert service.effects() == ["charged", "refunded"]
    assert heard == [PAID]


def test_a_compensation_of_nothing_leaves_a_tombstone_and_the_late_action_is_refused(service: Service) -> None:
    """The undo overtakes the action: nothing is undone, and the action that comes later has no effect, ever."""
    assert [service.refund(), service.refund()] == [Undo.NOTHING_TO_UNDO, Undo.NOTHING_TO_UNDO]
    for _ in range(2):
        with pytest.raises(AlreadyCompensated):
            service.charge()
    assert service.effects() == []
    assert service.guard() == [("a", "nothing")]


def test_an_action_repeated_after_its_compensation_is_refused(service: Service) -> None:
    """A delayed duplicate of an action that was undone does not charge again, nor say that it is paid."""
    service.charge()
    service.refund()
    with pytest.raises(AlreadyCompensated):
        service.charge()
    assert service.effects() == ["charged", "refunded"]


def test_other_arguments_under_one_key_are_an_error(service: Service) -> None:
    """The stored result answers another question, so it is not given."""
    service.charge("a", {"cents": 100, "card": "x"})
    assert service.charge("a", {"card": "x", "cents": 100}) == PAID
    with pytest.raises(ArgumentsDiffer):
        service.charge("a", {"cents": 200, "card": "x"})
    assert service.effects() == ["charged"]


def test_keys_that_look_alike_are_different_keys(service: Service) -> None:
    """No key is taken apart, joined or shortened."""
    wide = "".join(chr(0x4E00 + at * 7919 % 20_000) for at in range(830))  # hardly compressible, three bytes each
    keys = ["a:b", "a", "a:b:", "A", "ä", "x" * 1500, "x" * 1499 + "y", wide]
    for key in keys:
        service.charge(key)
    assert len(service.effects()) == len(keys)


def test_what_raises_leaves_the_key_free_even_if_the_caller_commits(service: Service) -> None:
    """A failed action takes its row and its half-written effect back; the next call with the key does the work."""

    async def swallowed(line: Line) -> None:
        effect = line.effect("half")

        def plain(connection: Any) -> None:
            effect(connection)
            raise LookupError

        async def awaiting(connection: Any) -> None:
            await effect(connection)
            raise LookupError

        do = awaiting if isinstance(line.barrier, Barrier) else plain
        with pytest.raises(LookupError):
            await line.action("a", do)

    service.serve(swallowed)
    assert (service.effects(), service.guard()) == ([], [])
    assert service.charge() == PAID
    assert service.effects() == ["charged"]


def test_a_call_that_is_rolled_back_was_never_made(service: Service) -> None:
    """The barrier's row shares the fate of the effect's row."""
    service.serve(lambda line: line.action("a", line.effect("charged", 1)), commits=False)
    assert (service.effects(), service.guard()) == ([], [])
    service.charge()
    service.serve(lambda line: line.compensation("u", line.effect("refunded"), action_key="a"), commits=False)
    assert service.guard() == [("a", "done")]
    assert service.refund() is Undo.UNDONE


def test_a_function_that_writes_elsewhere_is_found_out(service: Service, tmp_path: Path) -> None:
    """Rows on another connection are not guarded: the call fails, says so, and leaves no row of the barrier."""
    line_of_its_own = sqlite3.connect(tmp_path / "elsewhere.db")
    line_of_its_own.execute("CREATE TABLE effects (name text)")

    def plain(connection: Any) -> None:
        line_of_its_own.execute("INSERT INTO effects VALUES ('charged')")

    async def awaiting(connection: Any) -> None:
        plain(connection)

    async def call(line: Line) -> None:
        do = awaiting if isinstance(line.barrier, Barrier) else plain
        with pytest.raises(BarrierMisplaced, match="changed no row"):
            await line.action("a", do)
        assert await line.action("b", do, writes=False) is None

    service.serve(call)
    line_of_its_own.close()
    assert service.guard() == [("b", "done")]


def test_a_result_that_can_not_be_stored_undoes_the_call(service: Service) -> None:
    """What would be answered to a duplicate has to be known before the effect stands."""
    for result in (object(), {"not": "a Payment"}):
        with pytest.raises(PayloadError):
            service.charge(result=result)
    assert (service.effects(), service.guard()) == ([], [])


@pytest.mark.parametrize("key", ["", "x" * 1501, "nul \0", 7, None])
def test_a_key_that_can_not_be_one_is_refused(tmp_path: Path, key: Any) -> None:
    """A key is bounded text; nothing is written for another one."""
    with closing(sqlite3.connect(tmp_path / "s.db")) as connection:
        barrier = BlockingBarrier()
        barrier.create_table(connection)
        with pytest.raises(PayloadError, match="key is a text"):
            barrier.action(connection, key, lambda connection: 1, writes=False)
        with pytest.raises(PayloadError, match="bytes in UTF-8"):
            barrier.action(connection, chr(0x20000) * 700, lambda connection: 1, writes=False)


def test_old_rows_can_be_purged_and_not_by_mistake(service: Service) -> None:
    """Only what is older goes; a time that would take the guard off fresh keys is refused."""
    service.charge()

    async def purge(line: Line) -> None:
        for days in (0.0, 0.5):
            with pytest.raises(ValueError, match="at least 1"):
                await _maybe(line.barrier.purge(line.connection, older_than_days=days))
        await _maybe(line.barrier.purge(line.connection, older_than_days=1))

    service.serve(purge)
    assert service.guard() == [("a", "done")]
    old = "at - interval '2 days'" if service.is_postgres else "datetime(at, '-2 days')"
    service.serve(lambda line: line.write(f"UPDATE guard SET at = {old}"))
    service.serve(purge)
    assert service.guard() == []


async def _maybe(given: Any) -> None:
    if asyncio.iscoroutine(given):
        await given
