"""Group commit on SQLite: what is queued together is written together, in order, and hurts nobody."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from atone.errors import StoreError, WorkerDead
from atone.store import Delivered, Hot, TurnResult
from atone.stores import _sqlite_group
from atone.stores.sqlite import SqliteStore
from atone.testing._subject import birth_of, request_for, turn_of
from tests.contract.scene import ROW_BYTES_MAX, Held, on_writer, opened


def count_commits(commits: list[int]) -> Any:
    def watch(connection: Any) -> None:
        def note() -> bool:
            commits.append(1)
            return False

        connection.set_commit_hook(note)

    return watch


def test_what_is_queued_shares_one_transaction(tmp_path: Path) -> None:
    """Fifty commits, a renewal, a claim and a request cost one flush of the log."""

    async def use() -> int:
        async with opened(tmp_path / "a.db") as lab:
            worker = lab.worker()
            key = await lab.born(worker)
            commits: list[int] = []
            async with Held(lab) as held:
                calls = [asyncio.ensure_future(lab.applied(worker, birth_of(lab.key()))) for _ in range(50)]
                renewal = asyncio.create_task(asyncio.to_thread(lab.store.renew, worker, 10))
                claim = asyncio.ensure_future(lab.claim(worker, known=[key]))
                request = asyncio.ensure_future(lab.deliver(saga_id=key.hex()))
                await held.until(53)
                writer = cast("SqliteStore", lab.store)._writer
                writer._work, work = watched(writer._work, commits), writer._work
            await asyncio.gather(*calls, renewal, claim)
            writer._work = work
            assert await request is Delivered.APPENDED
            assert len(await lab.find()) == 51
            return len(commits)

    def watched(work: Any, commits: list[int]) -> Any:
        def instead(connection: Any, group: Any) -> None:
            count_commits(commits)(connection)
            work(connection, group)

        return instead

    assert asyncio.run(use()) == 1


def test_a_turn_that_does_not_fit_hurts_no_other_call_of_its_group(tmp_path: Path) -> None:
    """Each call gets its own results; a request that is too large, and a dead worker, are told alone."""

    async def use() -> None:
        async with opened(tmp_path / "a.db") as lab:
            worker, retired = lab.worker(), lab.worker()
            lab.store.renew(retired, 0)
            key = await lab.born(worker)
            large = b"x" * (ROW_BYTES_MAX + 1)
            async with Held(lab):
                good = asyncio.ensure_future(lab.commit(worker, birth_of(lab.key())))
                stale = asyncio.ensure_future(lab.commit(worker, turn_of(key, 1)))
                dead = asyncio.ensure_future(lab.commit(retired, birth_of(lab.key())))
                monster = asyncio.ensure_future(lab.store.deliver(request_for(key.hex(), entries=large)))
                refused = asyncio.ensure_future(lab.commit(worker, turn_of(key, 2, entries=large)))
                request = asyncio.ensure_future(lab.deliver(saga_id=key.hex()))
            assert await good == [TurnResult.APPLIED]
            assert await stale == [TurnResult.CONFLICT]
            with pytest.raises(WorkerDead):
                await dead
            with pytest.raises(StoreError, match="too large"):
                await monster
            assert await refused == [TurnResult.REFUSED]
            assert await request is Delivered.APPENDED
            assert len(await lab.rows(key)) == 2

    asyncio.run(use())


def test_calls_of_a_group_are_done_in_the_order_in_which_they_were_made(tmp_path: Path) -> None:
    """A claim sees what was called before it and nothing that came later: no saga is reported that I just started."""

    async def use() -> None:
        async with opened(tmp_path / "a.db") as lab:
            worker = lab.worker()
            early, late = birth_of(lab.key()), birth_of(lab.key())
            async with Held(lab) as held:
                first = asyncio.ensure_future(lab.commit(worker, early))
                claim = asyncio.ensure_future(lab.claim(worker, known=[early.key]))
                second = asyncio.ensure_future(lab.commit(worker, late))
                retired = asyncio.create_task(asyncio.to_thread(lab.store.renew, worker, 0))
                await held.until(4)
                third = asyncio.ensure_future(lab.commit(worker, turn_of(early.key, 2)))
            assert [await first, await second] == [[TurnResult.APPLIED]] * 2
            assert (await claim).taken == ()
            await retired
            with pytest.raises(WorkerDead):
                await third

    asyncio.run(use())


def test_a_waiter_that_was_cancelled_takes_nothing_back(tmp_path: Path) -> None:
    """The turn is on its way; whoever sends it again is told that it stands."""

    async def use() -> None:
        async with opened(tmp_path / "a.db") as lab:
            worker = lab.worker()
            first, other = birth_of(lab.key()), birth_of(lab.key())
            async with Held(lab):
                waiter = asyncio.ensure_future(lab.commit(worker, first))
                patient = asyncio.ensure_future(lab.commit(worker, other))
                await asyncio.sleep(0)
                waiter.cancel()
            assert await patient == [TurnResult.APPLIED]
            await lab.applied(worker, first)
            assert len(await lab.rows(first.key)) == 1

    asyncio.run(use())


def test_two_event_loops_share_one_store(tmp_path: Path) -> None:
    """Answers go to the loop that asked."""

    async def use() -> None:
        async with opened(tmp_path / "a.db") as lab:
            worker = lab.worker()

            async def elsewhere() -> list[TurnResult]:
                return await lab.commit(worker, birth_of(lab.key()))

            async with Held(lab) as held:
                here = asyncio.ensure_future(elsewhere())
                there = asyncio.create_task(asyncio.to_thread(asyncio.run, elsewhere()))
                await held.until(2)
            assert await here == await there == [TurnResult.APPLIED]

    asyncio.run(use())


def test_turns_that_fit_are_not_written_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Births, plain turns, and turns that end a saga or answer a request all take the short way."""
    alone: list[object] = []
    judge = _sqlite_group.write_turn

    def noted(*turn: Any) -> TurnResult:
        alone.append(turn)
        return judge(*turn)

    monkeypatch.setattr(_sqlite_group, "write_turn", noted)

    async def use() -> None:
        async with opened(tmp_path / "a.db") as lab:
            worker = lab.worker()
            await lab.deliver(saga_id="early", keep_seconds=60)
            one, other, asked = [await lab.born(worker) for _ in range(3)]
            await lab.deliver(saga_id=asked.hex())
            batch = [
                turn_of(one, 2),
                turn_of(other, 2, Hot("completed", False, None)),
                turn_of(asked, 3),
                birth_of(lab.key(), saga_id="early"),
            ]
            await lab.applied(worker, *batch)
            assert alone == []
            assert (await lab.claim(worker, known=[one, asked])).newer == ()
            assert await lab.commit(worker, turn_of(one, 2)) == [TurnResult.CONFLICT]
            assert len(alone) == 1

    asyncio.run(use())


def test_a_transaction_that_could_not_be_ended_does_not_poison_the_next(tmp_path: Path) -> None:
    """Whatever state the connection was left in, the next group starts afresh."""

    async def use() -> None:
        async with opened(tmp_path / "a.db") as lab:
            worker = lab.worker()
            await on_writer(lab, lambda connection: connection.execute("BEGIN IMMEDIATE"))
            await lab.born(worker)

    asyncio.run(use())


def test_every_way_to_look_has_its_index(tmp_path: Path) -> None:
    """No question that is asked again and again reads all sagas; only an unfiltered list walks them, in order."""
    from atone.stores import _sqlite_claim as claim
    from atone.stores import _sqlite_read as read

    wanted = {
        claim._MINE: "sagas_unfinished (owner=?)",
        claim._ORPHANS: "sagas_unfinished (owner=? AND definition=?)",
        claim._DUE: "sagas_unfinished (owner=? AND definition=? AND wake_at<?)",
        claim._ASKED: "sagas_asked (owner=?)",
        claim._DECLARE_DEAD: "workers_to_watch (dead=?)",
        claim._LEFT: "workers_to_watch (dead=?)",
        claim._GIVE_UP: "early_events_expiry (expires_at<?)",
        _sqlite_group._ASKED: "COVERING INDEX sagas_asked (owner=?)",
        read._BY_NEED: "sagas_in_need (key>?)",
        read._BY_STATUS: "USING INDEX sagas_unfinished",
        read._BY_WALK: "PRIMARY KEY (key>?)",
        read._BY_NAME: "(tenant=? AND name=? AND saga_id=? AND key>?)",
    }

    async def use() -> None:
        async with opened(tmp_path / "a.db") as lab:
            for statement, index in wanted.items():
                found = await on_writer(lab, lambda connection, text=statement: plan(connection, text))
                assert index in found, statement

    def plan(connection: Any, statement: str) -> str:
        names = ("tenant", "name", "saga_id", "statuses", "definition_version", "other_hash_than", "after", "limit")
        numbered = max((at for at in range(1, 5) if f"?{at}" in statement), default=0)
        values: Any = [None] * (numbered or statement.count("?"))
        if ":limit" in statement:
            values = dict.fromkeys(names)
        return " | ".join(row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + statement, values))

    asyncio.run(use())
