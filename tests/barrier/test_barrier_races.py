"""Two transactions on one key at the same time: the second waits for what becomes of the first, and never guesses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
import pytest

from atone.barrier import AlreadyCompensated, Barrier, Undo
from tests.servers.postgres import Bench

BARRIER = Barrier(table="race_guard")


@asynccontextmanager
async def two_lines(bench: Bench) -> AsyncIterator[tuple[Any, Any, Any]]:
    async with AsyncExitStack() as stack:
        lines = [await asyncpg.connect(bench.server.url()) for _ in range(3)]
        for line in lines:
            stack.push_async_callback(line.close)
        first, second, look = lines
        await look.execute("DROP TABLE IF EXISTS race_guard, race_effects; CREATE TABLE race_effects (name text)")
        await BARRIER.create_table(look)
        await first.execute("BEGIN")
        await second.execute("BEGIN")
        yield first, second, look


async def charge(connection: Any) -> str:
    await connection.execute("INSERT INTO race_effects VALUES ('charged')")
    return "paid"


async def refund(connection: Any, result: str) -> None:
    await connection.execute("INSERT INTO race_effects VALUES ('refunded')")


async def until_it_waits(second: Any, look: Any) -> None:
    """Return when the other connection waits for a lock, which only the database can tell."""
    waiting = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $1"
    while not await look.fetchval(waiting, second.get_server_pid()):  # noqa: ASYNC110 - there is no event of it here
        await asyncio.sleep(0.005)


async def overlap(
    bench: Bench, one: Callable[[Any], Awaitable[Any]], other: Callable[[Any], Awaitable[Any]], *, commits: bool
) -> tuple[Any, list[str]]:
    """Let `one` stand uncommitted until `other` waits for it; return what `other` came to, and the effects."""
    async with two_lines(bench) as (first, second, look):
        await one(first)
        waiting = asyncio.ensure_future(other(second))
        await until_it_waits(second, look)
        await first.execute("COMMIT" if commits else "ROLLBACK")
        (answer,) = await asyncio.gather(waiting, return_exceptions=True)
        await second.execute("ROLLBACK" if isinstance(answer, BaseException) else "COMMIT")
        return answer, [row["name"] for row in await look.fetch("SELECT name FROM race_effects")]


def act(line: Any) -> Awaitable[Any]:
    return BARRIER.action(line, "a", charge)


def undo(line: Any) -> Awaitable[Any]:
    return BARRIER.compensation(line, "u", refund, action_key="a")


def test_a_duplicate_waits_for_the_first_and_takes_its_result(postgres_bench: Bench) -> None:
    """Get-then-set would let both charge."""
    assert asyncio.run(overlap(postgres_bench, act, act, commits=True)) == ("paid", ["charged"])


def test_a_duplicate_of_what_is_rolled_back_does_the_work(postgres_bench: Bench) -> None:
    """The first one came to nothing, so the second is the first."""
    assert asyncio.run(overlap(postgres_bench, act, act, commits=False)) == ("paid", ["charged"])


def test_a_compensation_waits_for_the_action_and_undoes_it(postgres_bench: Bench) -> None:
    """Not seeing an action that is about to commit is no reason to call it nothing."""
    assert asyncio.run(overlap(postgres_bench, act, undo, commits=True)) == (Undo.UNDONE, ["charged", "refunded"])


def test_a_compensation_of_what_is_rolled_back_leaves_a_tombstone(postgres_bench: Bench) -> None:
    """The action that it waited for has had no effect."""
    assert asyncio.run(overlap(postgres_bench, act, undo, commits=False)) == (Undo.NOTHING_TO_UNDO, [])


def test_an_action_waits_for_a_compensation_and_is_refused(postgres_bench: Bench) -> None:
    """The tombstone is not committed yet, and yet nobody gets past it."""
    answer, effects = asyncio.run(overlap(postgres_bench, undo, act, commits=True))
    assert isinstance(answer, AlreadyCompensated)
    assert effects == []


def test_an_action_after_a_compensation_that_is_rolled_back_does_the_work(postgres_bench: Bench) -> None:
    """A tombstone that was taken back guards nothing."""
    assert asyncio.run(overlap(postgres_bench, undo, act, commits=False)) == ("paid", ["charged"])


def test_two_compensations_undo_once(postgres_bench: Bench) -> None:
    """Both find the action done; the second finds it undone when its turn comes."""

    async def main() -> tuple[Any, list[str]]:
        async with two_lines(postgres_bench) as (first, second, look):
            await act(first)
            await first.execute("COMMIT; BEGIN")
            await undo(first)
            waiting = asyncio.ensure_future(undo(second))
            await until_it_waits(second, look)
            await first.execute("COMMIT")
            answer = await waiting
            await second.execute("COMMIT")
            return answer, [row["name"] for row in await look.fetch("SELECT name FROM race_effects")]

    assert asyncio.run(main()) == (Undo.UNDONE, ["charged", "refunded"])


@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
def test_under_a_stricter_isolation_nothing_is_done_twice(postgres_bench: Bench, isolation: str) -> None:
    """The database refuses the second one, which the caller repeats; it never charges again."""

    async def main() -> list[str]:
        async with two_lines(postgres_bench) as (first, second, look):
            for line in (first, second):
                await line.execute(f"ROLLBACK; BEGIN ISOLATION LEVEL {isolation}; SELECT 1 FROM race_guard")
            await act(first)
            waiting = asyncio.ensure_future(act(second))
            await until_it_waits(second, look)
            await first.execute("COMMIT")
            with pytest.raises(asyncpg.SerializationError):
                await waiting
            await second.execute("ROLLBACK; BEGIN")
            assert await act(second) == "paid"
            await second.execute("COMMIT")
            return [row["name"] for row in await look.fetch("SELECT name FROM race_effects")]

    assert asyncio.run(main()) == ["charged"]
