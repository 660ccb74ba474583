"""What the differential machine found in the stores: the shortest calls that showed it, kept."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from atone.broker import Message
from atone.errors import WorkerDead
from atone.store import Hot, Posting, StoredPlan, TurnResult
from atone.testing._subject import Lab, birth_of, refuses, refuses_at_once, same, turn_of
from atone.testing.contracts import Subject
from tests.contract.test_stores import memory_subject, sqlite_subject
from tests.servers.postgres import Bench

Story = Callable[[Lab], Awaitable[None]]


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def tell(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Story], None]:
    """Run a story on a store."""

    def subject() -> Subject:
        if request.param == "postgres":
            bench: Bench = request.getfixturevalue("postgres_bench")
            return bench.shared_place().subject()
        return memory_subject(tmp_path) if request.param == "memory" else sqlite_subject(tmp_path)

    def told(story: Story) -> None:
        async def main() -> None:
            made = subject()
            async with made.store:
                await story(Lab(made))

        asyncio.run(main())

    return told


def test_a_dead_worker_that_registers_leaves_no_plan(tell: Callable[[Story], None]) -> None:
    """WorkerDead means that nothing was written; the memory store had kept the plans."""

    async def story(lab: Lab) -> None:
        worker = lab.worker()
        lab.store.renew(worker, 0)
        plans = [StoredPlan("Order", 1, "hash", "{}")]
        refuses_at_once(WorkerDead, lambda: lab.store.renew(worker, 10, register=plans), "registering a dead one")
        key = await lab.born(lab.worker())
        (loaded,) = await lab.store.load([key], with_plan=True)
        assert loaded is not None
        same(loaded.plan, None, "the plan")

    tell(story)


def test_a_turn_that_is_too_large_is_refused_whatever_else_is_wrong(tell: Callable[[Story], None]) -> None:
    """Who sends it again elsewhere, or later, is told the same; SQLite had said NOT_MINE, CONFLICT or TAKEN."""

    async def story(lab: Lab) -> None:
        worker, large = lab.worker(), b"x" * (lab.subject.row_bytes_max + 1)
        key = await lab.born(worker, saga_id="one")
        stale = turn_of(key, 1, entries=large)
        stranger = turn_of(lab.key(), 2, entries=large)
        taken = birth_of(lab.key(), saga_id="one", entries=large)
        for turn in (stale, stranger, taken):
            same(await lab.commit(worker, turn), [TurnResult.REFUSED], "the result")

    tell(story)


def test_a_saga_that_is_born_final_takes_no_event_along(tell: Callable[[Story], None]) -> None:
    """A final saga never changes; memory and SQLite had appended the early event, and made the saga due."""

    async def story(lab: Lab) -> None:
        await lab.deliver(saga_id="one", keep_seconds=5.0)
        birth = birth_of(lab.key(), saga_id="one", status="compensated", owned=False)
        birth = birth._replace(hot=Hot("compensated", False, 1.0))
        same(await lab.commit(lab.worker(), birth), [TurnResult.APPLIED], "the birth")
        same(len(await lab.rows(birth.key)), 1, "number of rows")
        same((await lab.summary(birth.key)).wake_at, 1.0, "the time to wake")
        lab.advance(6.0)
        same((await lab.claim(lab.worker())).dead_letters, 1, "events given up")

    tell(story)


def test_a_claim_that_has_no_room_for_what_is_due_does_not_prolong_the_lease(tell: Callable[[Story], None]) -> None:
    """It takes nothing, so it writes nothing; on PostgreSQL each such poll wrote the worker's row."""

    async def story(lab: Lab) -> None:
        await lab.commit(None, birth_of(lab.key(), name="Order"))
        worker = lab.worker(10)
        both = [("Order", 1, "hash"), ("Refund", 1, "hash")]
        claimed = await lab.claim(worker, definitions=both, limits={"Order": 0}, lease_seconds=100.0)
        same(claimed.taken, (), "taken")
        lab.advance(10)
        await refuses(WorkerDead, lab.commit(worker), "a commit after the lease")

    tell(story)


def test_what_was_set_aside_comes_in_the_order_in_which_it_was_written(tell: Callable[[Story], None]) -> None:
    """Oldest first is the order of the messages; the memory store had gone by when each was set aside."""

    async def story(lab: Lab) -> None:
        messages = tuple(Message(f"m-{number}", "orders.told", str(number), b"body") for number in range(3))
        await lab.applied(lab.worker(), birth_of(lab.key())._replace(messages=messages))
        told = {"published": (), "limit": 10, "lease_seconds": 5.0}
        first, second, third = [one.ref for one in (await lab.store.relay("one", refused={}, **told)).messages]
        await lab.store.relay("one", refused={third: "no", second: "no"}, **told)
        await lab.store.relay("one", refused={first: "no"}, **told)
        assert isinstance(lab.store, Posting)
        same([one.message.id for one in await lab.store.set_aside()], ["m-0", "m-1", "m-2"], "what was set aside")

    tell(story)
