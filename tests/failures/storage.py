"""Failures of the store and of what stands in it: away, full, without an answer, unreadable, or of another version.

Each function is one failure: it makes it happen, asserts what the page claims, and quotes what was seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from atone import Context, Saga, SagaStatus, Tried, step
from atone.errors import AtoneError, StoreUnavailable
from atone.store import Query
from tests.failures.shop import THRICE, Order, PlaceOrder
from tests.failures.stage import Stage, failure
from tests.failures.steering import slowly
from tests.runtime.faulty_store import lost_after
from tests.runtime.world import World

BY = "--by ada"


def away_until(at: Stage, seconds: float, words: str) -> Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]:
    """Let calls of a store fail until so many seconds from now."""
    back_at = at.sim.clock.monotonic() + seconds

    async def fault(call: Callable[[], Awaitable[Any]]) -> Any:
        if at.sim.clock.monotonic() < back_at:
            raise StoreUnavailable(words)
        return await call()

    return fault


@failure("The store is away", "`StoreUnavailable` at callers, and sagas stand still")
async def the_store_is_away(at: Stage) -> None:
    at.happens("""
        The database is restarted, or the network to it is cut. Nothing is undone for that: what was learnt waits in the
        worker's memory, and its commit is repeated until the lease is over. When the store is back, the saga goes on
        where it was. No step was repeated, for its outcome was not lost.
    """)
    at.world.script("charge", slowly(1))
    at.worker()
    await at.start()
    await at.world.reached("charge")
    for method in ("commit", "claim", "load"):
        at.store.always(method, away_until(at, 6, "connection refused"))
    assert await at.settled() is SagaStatus.COMPLETED
    assert at.world.names == ["reserve", "charge", "ship", "send_receipt"]
    at.tell_ledger()
    at.journal("A gap in the times, and nothing else.")
    await at.atone("show order-1")
    at.journal("In the worker's log:")
    at.log("connection refused")
    at.person("""
        Bring the store back. A start whose caller got `StoreUnavailable` may have been stored: start it again with the
        same id and input.
    """)


async def _passes(call: Callable[[], Awaitable[Any]]) -> Any:
    return await call()


@failure("The answer of a commit is lost", "the log says that a commit is sent again")
async def the_answer_of_a_commit_is_lost(at: Stage) -> None:
    at.happens("""
        The store has written, and the connection breaks before it can say so. To look would settle nothing, for a write
        may still be on its way. So the same entries are sent again with the same commit id, and what stands there
        already is the answer.
    """)
    at.store.script("commit", _passes, lost_after, lost_after)
    at.worker()
    await at.start()
    assert await at.settled() is SagaStatus.COMPLETED
    assert at.world.names == ["reserve", "charge", "ship", "send_receipt"]
    at.tell_ledger()
    at.journal("Each row once.")
    await at.atone("show order-1")
    at.journal("In the worker's log:")
    at.log("sending it again")
    at.person("Nothing.")


@failure("A disk is full", "the store refuses every write, and looks go on")
async def a_disk_is_full(at: Stage) -> None:
    at.happens("""
        The database can't extend its files and says so to every write. To a saga that is the store being away: commits
        are repeated, and no new call begins without its intent in the journal. It was done
        [to a fleet](../failures.md#a-disk-is-full) with a real PostgreSQL on a real full disk.
    """)
    full = away_until(at, 40, "could not extend file: No space left on device")
    at.store.always("commit", full)
    at.store.script("commit", *[_passes] * 2)
    at.worker()
    await at.start()
    await asyncio.sleep(30)
    before = list(at.world.names)
    at.journal("While it lasts: the last that could be written.")
    await at.atone("show order-1")
    assert await at.settled() is SagaStatus.COMPLETED
    at.journal("""
        When there is room again, it went on by itself. The intent of `ship` waited for so long to be written that the
        attempt's time was over: that call was not made, for it might have come after its undo, and the next one was.
        The journal has the words of a shutdown for it; it uses up no attempt.
    """)
    await at.atone("show order-1")
    assert before == at.world.names[: len(before)]
    assert (at.world.count("charge"), at.world.count("ship")) == (1, 1)
    at.tell_ledger()
    at.person("Make room. Nothing else: sagas go on by themselves.")


@failure("A row of the journal can't be read", "a saga is not run by anybody, and `show` names the damage")
async def a_journal_that_can_not_be_read(at: Stage) -> None:
    at.happens("""
        Somebody has edited a row by hand, a disk has lost a sector, a restore was cut off. What can't be decoded is not
        guessed: the saga is set aside with the reason, and every other saga goes on.
    """)
    at.world.script("charge", _never)
    first = at.worker(name="one")
    await at.start()
    await at.world.reached("charge")
    first.kill()
    (summary,) = await at.memory.find(Query(saga_id="order-1"))
    rows = at.memory._sagas[summary.key].rows
    whole = rows[1]
    rows[1] = whole._replace(entries=whole.entries[:-9])
    at.worker(name="two")
    await at.start("order-2")
    assert await at.settled("order-2") is SagaStatus.COMPLETED
    await asyncio.sleep(60)
    at.journal("Which row it is. What comes after it is shown as far as it can be read.")
    await at.atone("show order-1", status=1)
    at.journal("In the worker's log:")
    at.log("order-1")
    at.person("""
        Bring the row back from a backup, then let the saga go on. Until then nobody runs it; what the participants did
        stands, and their own books say what that is.
    """)
    assert await at.status() is SagaStatus.NEEDS_ATTENTION
    rows[1] = whole
    await at.atone(f'retry order-1 --reason "row 2 is back from the backup" {BY}')
    assert await at.settled() is SagaStatus.COMPLETED
    at.tell_ledger()


async def _never(landing: Any) -> Any:
    landing.land()
    await asyncio.Event().wait()


class PlaceOrderAgain(Saga[Order], name="PlaceOrder", version=2):
    """The next version."""

    def __init__(self, world: World) -> None:
        self.world = world

    @step(retry=THRICE, timeout=10, no_compensation="they have it")
    async def reserve(self, ctx: Context[Order]) -> str:
        return await self.world.act("reserve", ctx)


@failure("No worker has the saga's definition", "a saga waits, and no worker takes it")
async def a_version_that_no_worker_has(at: Stage) -> None:
    at.happens("""
        All workers were deployed with version 2 of a definition, and a saga of version 1 is not over. A saga goes on as
        it was begun: a worker without that version does not claim it. It waits, and is counted as unclaimable.
    """)
    await at.start()
    new = PlaceOrderAgain(at.world)
    at.worker(new, name="new")
    await at.start("order-2", saga=new)
    assert await at.settled("order-2") is SagaStatus.COMPLETED
    await asyncio.sleep(60)
    assert await at.status() is SagaStatus.PENDING
    at.journal("It has not begun, or stands where the last worker of its version left it..")
    await at.atone("list")
    await at.atone("show order-1")
    at.journal("In the worker's log:")
    at.log("not registered here")
    at.person("""
        Keep both versions in the workers until the old sagas are over: `Orchestrator(..., sagas=[PlaceOrder(...),
        PlaceOrderAgain(...)])`. Nothing else has to be done.
    """)
    at.worker(PlaceOrder(at.world), new, name="both")
    assert await at.settled() is SagaStatus.COMPLETED
    await at.atone("list")


class PlaceOrderChanged(Saga[Order], name="PlaceOrder"):
    """The same version, and other steps."""

    def __init__(self, world: World) -> None:
        self.world = world

    @step(retry=THRICE, timeout=10)
    async def charge(self, ctx: Context[Order]) -> str:
        return await self.world.act("charge", ctx)

    @charge.compensation(retry=THRICE)
    async def refund(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.world.act("refund", ctx, tried)


@failure("A definition was changed without a new version", "a worker refuses to start")
async def a_definition_that_was_changed(at: Stage) -> None:
    at.happens("""
        The steps of a definition were changed, and its `version` was not. A saga that was begun with the old steps
        can't go on with the new ones: what is done would not be what is to be undone. So long as such a saga is not
        over, the definition is refused when the worker opens, before it can do harm.
    """)
    at.world.script("charge", _never)
    first = at.worker(name="old")
    await at.start()
    await at.world.reached("charge")
    first.kill()
    changed = at.worker(PlaceOrderChanged(at.world), name="changed")
    try:
        await changed.wait()
    except AtoneError as error:
        at.quote(f"{type(error).__name__}: {error}")
    else:
        raise AssertionError("it was not refused")
    at.journal("Nothing of the new definition.")
    await at.atone("show order-1")
    at.person("Give the changed definition the next version, and keep the old one beside it until its sagas are over.")
    at.worker(name="both")
    assert await at.settled() is SagaStatus.COMPLETED
    at.tell_ledger()
