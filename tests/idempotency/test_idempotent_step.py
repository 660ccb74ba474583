"""A function behind a claim: called once for each saga, on every kind of store, and honest about what nobody knows."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import create_async_engine

from atone import Landed, NotLanded, Reject, RetryAfter, Succeeded, Tried, Unknown
from atone._core.keys import idempotency_key
from atone.errors import (
    AlreadyCompensated,
    ArgumentsDiffer,
    BarrierMisplaced,
    OutcomeUnknown,
    PayloadError,
    RequestRefused,
)
from atone.idempotency import BlockingIdempotentStep, Claims, IdempotentStep, InProgress, Undo
from tests.servers.postgres import Bench


@dataclass(frozen=True)
class Payment:
    id: str
    cents: int


class Bank:
    """Somebody else's service: no transaction of ours, and a script of what goes wrong."""

    def __init__(self, *troubles: BaseException | None) -> None:
        self.troubles = list(troubles)
        self.charged: list[int] = []
        self.refunded: list[Any] = []
        self.inside = asyncio.Event()
        self.goes_on: asyncio.Event | None = None

    def charge_now(self, cents: int) -> Payment:
        self.charged.append(cents)
        trouble = self.troubles.pop(0) if self.troubles else None
        if trouble is not None:
            raise trouble
        return Payment(f"p-{len(self.charged)}", cents)

    async def charge(self, cents: int) -> Payment:
        self.inside.set()
        if self.goes_on is not None:
            await self.goes_on.wait()
        return self.charge_now(cents)

    async def refund(self, tried: Tried[Payment]) -> None:
        self.refunded.append(tried.outcome)
        trouble = self.troubles.pop(0) if self.troubles else None
        if trouble is not None:
            raise trouble


def charging(claims: Claims, **options: Any) -> IdempotentStep[Payment]:
    return IdempotentStep("charge", claims, returns=Payment, **options)


def run(work: Callable[[Claims], Any], claims: Claims | None = None) -> None:
    async def main() -> None:
        await work(claims or Claims.memory())

    asyncio.run(main())


# The stores


@asynccontextmanager
async def in_a_file(bench: Any, folder: Path) -> AsyncIterator[Claims]:
    yield Claims.sqlite(folder / "claims.db")


@asynccontextmanager
async def in_memory(bench: Any, folder: Path) -> AsyncIterator[Claims]:
    yield Claims.memory()


@asynccontextmanager
async def on_asyncpg(bench: Any, folder: Path) -> AsyncIterator[Claims]:
    async with asyncpg.create_pool(bench().server.url(), min_size=1, max_size=3) as pool:
        yield await made(Claims(pool))


@asynccontextmanager
async def on_psycopg(bench: Any, folder: Path) -> AsyncIterator[Claims]:
    url = bench().server.url()

    @asynccontextmanager
    async def transaction() -> AsyncIterator[Any]:
        async with await psycopg.AsyncConnection.connect(url) as connection:
            yield connection

    yield await made(Claims(transaction))


@asynccontextmanager
async def on_psycopg_sync(bench: Any, folder: Path) -> AsyncIterator[Claims]:
    url = bench().server.url()
    yield await made(Claims(lambda: psycopg.connect(url)))


@asynccontextmanager
async def on_sqlalchemy(bench: Any, folder: Path) -> AsyncIterator[Claims]:
    engine = create_async_engine(bench().server.url().replace("postgresql:", "postgresql+asyncpg:"))
    yield await made(Claims(engine))
    await engine.dispose()


@asynccontextmanager
async def on_sqlalchemy_sync(bench: Any, folder: Path) -> AsyncIterator[Claims]:
    engine = sqlalchemy.create_engine(f"sqlite:///{folder / 'own.db'}")
    yield await made(Claims(engine))
    engine.dispose()


@asynccontextmanager
async def on_sqlite3(bench: Any, folder: Path) -> AsyncIterator[Claims]:
    @contextmanager
    def transaction() -> Iterator[Any]:
        with closing(sqlite3.connect(folder / "own.db", timeout=10)) as connection, connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection

    yield await made(Claims(transaction))


async def made(claims: Claims) -> Claims:
    await claims.create_table()
    await claims.database.run(_emptied)
    return claims


async def _emptied(connection: Any) -> None:
    from atone._connections.face import face_of

    await face_of(connection).run("DELETE FROM atone_claims")


STORES = [in_a_file, in_memory, on_asyncpg, on_psycopg, on_psycopg_sync, on_sqlalchemy, on_sqlalchemy_sync, on_sqlite3]


@pytest.mark.parametrize("store", STORES, ids=lambda store: store.__name__)
def test_on_every_store_a_function_is_called_once_and_undone_once(
    store: Any, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """The whole protocol: new, done, other arguments, compensated, refused; and a tombstone for what never came."""

    def bench() -> Bench:
        found: Bench = request.getfixturevalue("postgres_bench")
        return found

    async def main() -> None:
        bank = Bank()
        async with store(bench, tmp_path) as claims:
            step = charging(claims)
            assert [await step.execute("1", bank.charge, 100) for _ in range(3)] == [Payment("p-1", 100)] * 3
            with pytest.raises(ArgumentsDiffer):
                await step.execute("1", bank.charge, 200)
            assert [await step.compensate("1", bank.refund) for _ in range(2)] == [Undo.UNDONE] * 2
            assert [await step.compensate("2", bank.refund) for _ in range(2)] == [Undo.NOTHING_TO_UNDO] * 2
            for saga_id in ("1", "2"):
                with pytest.raises(AlreadyCompensated):
                    await step.execute(saga_id, bank.charge, 100)
        assert (bank.charged, bank.refunded) == ([100], [Succeeded(Payment("p-1", 100))])

    asyncio.run(main())


# The seed's four flaws


def test_p10_of_many_callers_at_once_one_calls_and_the_others_are_told_to_come_back(tmp_path: Path) -> None:
    """Refutes `get` then `set`: between them two callers both charge. Here the insert decides."""

    async def main() -> None:
        bank, places = Bank(), [Claims.sqlite(tmp_path / "claims.db") for _ in range(4)]
        bank.goes_on = asyncio.Event()
        calls = [asyncio.ensure_future(charging(claims).execute("1", bank.charge, 100)) for claims in places]
        done, pending = await asyncio.wait(calls, return_when=asyncio.FIRST_EXCEPTION)
        while len(done) < 3:
            more, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_EXCEPTION)
            done |= more
        assert {type(call.exception()) for call in done} == {InProgress}
        bank.goes_on.set()
        (winner,) = pending
        assert await winner == Payment("p-1", 100)
        assert bank.charged == [100]

    asyncio.run(main())


def test_p10_on_postgres_too_one_of_many_calls(postgres_bench: Bench, tmp_path: Path) -> None:
    """Each caller has a connection of its own, and the database decides which insert comes first."""

    async def main() -> None:
        bank = Bank()
        async with on_asyncpg(lambda: postgres_bench, tmp_path) as claims:
            calls = [charging(claims).execute("1", bank.charge, 100) for _ in range(12)]
            found = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(one) for one in found} <= {Payment, InProgress}
            assert await charging(claims).execute("1", bank.charge, 100) == Payment("p-1", 100)
        assert bank.charged == [100]

    asyncio.run(main())


def test_a_claim_outside_of_a_transaction_is_refused(tmp_path: Path) -> None:
    """Between its statements somebody else could come; nothing is called."""

    @contextmanager
    def autocommit() -> Iterator[Any]:
        with closing(sqlite3.connect(tmp_path / "own.db", isolation_level=None)) as connection:
            yield connection

    async def main() -> None:
        bank, claims = Bank(), Claims(autocommit)
        await claims.create_table()
        for call in (charging(claims).execute("1", bank.charge, 100), charging(claims).compensate("1", bank.refund)):
            with pytest.raises(BarrierMisplaced, match="Begin one"):
                await call
        assert (bank.charged, bank.refunded) == ([], [])

    asyncio.run(main())


def test_p10_none_and_everything_that_is_false_is_a_result() -> None:
    """Refutes `if existing:`: what returned None, 0 or nothing at all is done like anything else."""

    async def work(claims: Claims) -> None:
        falsies: list[Any] = [None, 0, "", [], {}, False]
        for at, falsy in enumerate(falsies):
            calls: list[Any] = []

            async def act(calls: list[Any] = calls, falsy: Any = falsy) -> Any:
                calls.append(falsy)
                return falsy

            step: IdempotentStep[Any] = IdempotentStep(f"step-{at}", claims)
            assert [await step.execute("1", act), await step.execute("1", act)] == [falsy, falsy]
            assert calls == [falsy]

    run(work)


def test_p11_the_compensation_is_no_repeat_of_the_action() -> None:
    """Refutes one key for both: the refund returned the charge's result and never refunded."""

    async def work(claims: Claims) -> None:
        bank, step = Bank(), charging(claims)
        await step.execute("1", bank.charge, 100)
        assert await step.compensate("1", bank.refund) is Undo.UNDONE
        assert len(bank.refunded) == 1
        assert step.action_key("1") != step.compensation_key("1")

    run(work)


def test_p12_other_arguments_are_an_error_however_they_are_given() -> None:
    """Refutes `return existing["result"]` for whatever was asked; the order of named ones makes no difference."""

    async def work(claims: Claims) -> None:
        calls: list[Any] = []

        async def act(*arguments: Any, **named: Any) -> int:
            calls.append((arguments, named))
            return len(calls)

        step: IdempotentStep[int] = IdempotentStep("act", claims)
        assert await step.execute("1", act, 1, a=1, b={"x": 1, "y": 2}) == 1
        assert await step.execute("1", act, 1, b={"y": 2, "x": 1}, a=1) == 1
        for arguments, named in (((1,), {}), ((2,), {"a": 1, "b": {"x": 1, "y": 2}}), ((), {"a": 1})):
            with pytest.raises(ArgumentsDiffer, match="another key"):
                await step.execute("1", act, *arguments, **named)
        assert len(calls) == 1

    run(work)


def test_p13_no_two_names_join_to_one_key() -> None:
    """Refutes `f"{saga_id}:{step_name}"`: a:b and c gave the key of a and b:c."""

    async def work(claims: Claims) -> None:
        names = ["a", "b", "a:b", "b:c", "c", "1-a", "a.1-b"]
        keys = {
            IdempotentStep[Any](step, claims, saga=saga, tenant=tenant).action_key(saga_id)
            for step in names
            for saga in names
            for tenant in names
            for saga_id in names
        }
        assert len(keys) == len(names) ** 4

    run(work)


def test_the_key_is_the_one_that_the_saga_s_own_step_has() -> None:
    """So what the function passes on is known to the participant, whichever of the two called."""
    step = IdempotentStep[Any]("charge", Claims.memory(), saga="PlaceOrder", tenant="shop")
    assert step.action_key("1") == idempotency_key("shop", "PlaceOrder", "1", "charge", "action")
    assert step.compensation_key("1") == idempotency_key("shop", "PlaceOrder", "1", "charge", "compensation")


# What nobody knows


def test_after_an_error_the_function_is_called_again_and_after_a_crash_once_the_lease_is_over(tmp_path: Path) -> None:
    """Nobody knows what an error or a crash came to, so the same key is tried again; other arguments are refused."""

    async def work(claims: Claims) -> None:
        bank = Bank(OSError("no answer"))
        with pytest.raises(OSError, match="no answer"):
            await charging(claims).execute("1", bank.charge, 100)
        with pytest.raises(ArgumentsDiffer):
            await charging(claims).execute("1", bank.charge, 999)
        hung = Bank()
        hung.goes_on = asyncio.Event()
        crashed = asyncio.ensure_future(charging(claims).execute("1", hung.charge, 100))
        await hung.inside.wait()
        with pytest.raises(InProgress) as told:
            await charging(claims).execute("1", bank.charge, 100)
        assert 0 < told.value.seconds <= 60
        assert isinstance(told.value, RetryAfter)
        await claims.database.run(as_if_the_lease_were_over)
        assert await charging(claims).execute("1", bank.charge, 100) == Payment("p-2", 100)
        crashed.cancel()

    run(work, Claims.sqlite(tmp_path / "claims.db"))


async def hanging(*_: Any) -> Any:
    await asyncio.Event().wait()


async def as_if_the_lease_were_over(connection: Any) -> None:
    connection.execute("UPDATE atone_claims SET lease_until = 0")


async def rows(claims: Claims) -> list[Any]:
    async def read(connection: Any) -> list[Any]:
        found: list[Any] = connection.execute("SELECT key, state, lost FROM atone_claims").fetchall()
        return found

    return await claims.database.run(read)


def test_at_most_once_an_action_without_an_answer_is_not_called_again_until_somebody_says_so() -> None:
    """It waits for a person or a probe; what they say is the result, or permits a call."""

    async def work(claims: Claims) -> None:
        bank, step = Bank(OSError(), OSError()), charging(claims, at_most_once=True)
        for saga_id in ("1", "2"):
            with pytest.raises(OSError):
                await step.execute(saga_id, bank.charge, 100)
            for _ in range(2):
                with pytest.raises(OutcomeUnknown, match="resolve"):
                    await step.execute(saga_id, bank.charge, 100)
        await step.resolve("1", Landed(Payment("found", 100)))
        await step.resolve("2", NotLanded())
        assert await step.execute("1", bank.charge, 100) == Payment("found", 100)
        assert await step.execute("2", bank.charge, 100) == Payment("p-3", 100)
        for saga_id in ("1", "2", "3"):
            for found in (NotLanded(), Landed(Payment("invented", 1))):
                with pytest.raises(RequestRefused, match="not lost"):
                    await step.resolve(saga_id, found)
        assert bank.charged == [100] * 3

    run(work)


@pytest.mark.parametrize("at_most_once", [False, True])
def test_a_rejection_frees_the_key_unless_an_earlier_attempt_is_in_doubt(at_most_once: bool) -> None:
    """Surely no effect: other arguments may come. But "no" to the second attempt proves nothing about the first."""

    async def work(claims: Claims) -> None:
        bank, step = Bank(Reject("declined"), None, OSError(), Reject("declined")), charging(claims)
        with pytest.raises(Reject):
            await step.execute("1", bank.charge, 100)
        assert await step.execute("1", bank.charge, 50) == Payment("p-2", 50)
        for error in (OSError, Reject):
            with pytest.raises(error):
                await step.execute("2", bank.charge, 100)
        with pytest.raises(ArgumentsDiffer):
            await step.execute("2", bank.charge, 50)
        assert await charging(claims, at_most_once=at_most_once).compensate("2", bank.refund) is Undo.UNDONE
        assert bank.refunded == [Unknown()]

    run(work)


def test_an_undo_of_what_nobody_knows_is_called_and_told_so_and_called_again_if_it_fails() -> None:
    """The action may have had its effect; and an undo that raised has not happened."""

    async def work(claims: Claims) -> None:
        bank, step = Bank(OSError(), OSError()), charging(claims, at_most_once=True)
        with pytest.raises(OSError):
            await step.execute("1", bank.charge, 100)
        with pytest.raises(OSError):
            await step.compensate("1", bank.refund)
        with pytest.raises(AlreadyCompensated):
            await step.execute("1", bank.charge, 100)
        assert [await step.compensate("1", bank.refund) for _ in range(2)] == [Undo.UNDONE] * 2
        assert bank.refunded == [Unknown(), Unknown()]

    run(work)


def test_an_undo_that_is_called_again_hears_the_result_again() -> None:
    """What the action returned is not forgotten when the first undo fails."""

    async def work(claims: Claims) -> None:
        bank, step = Bank(None, OSError()), charging(claims)
        await step.execute("1", bank.charge, 100)
        with pytest.raises(OSError):
            await step.compensate("1", bank.refund)
        assert await step.compensate("1", bank.refund) is Undo.UNDONE
        assert bank.refunded == [Succeeded(Payment("p-1", 100))] * 2

    run(work)


def test_nothing_is_undone_while_the_action_is_being_called() -> None:
    """Its effect may land after the undo; so the undo waits until the action is over, or its lease."""

    async def work(claims: Claims) -> None:
        bank, step = Bank(), charging(claims)
        bank.goes_on = asyncio.Event()
        charge = asyncio.ensure_future(step.execute("1", bank.charge, 100))
        await bank.inside.wait()
        with pytest.raises(InProgress):
            await step.compensate("1", bank.refund)
        bank.goes_on.set()
        await charge
        assert await step.compensate("1", bank.refund) is Undo.UNDONE

    run(work)


def test_a_call_ends_with_its_lease_and_a_cancelled_one_gives_its_claim_back() -> None:
    """Whoever is given the key after that is alone with it; nobody waits for a lease that nobody holds."""

    async def work(claims: Claims) -> None:
        bank = Bank()
        with pytest.raises(TimeoutError):
            await charging(claims, lease_seconds=0.05).execute("1", hanging, 100)
        hung = Bank()
        hung.goes_on = asyncio.Event()
        cancelled = asyncio.ensure_future(charging(claims).execute("2", hung.charge, 100))
        await hung.inside.wait()
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        for saga_id in ("1", "2"):
            assert (await charging(claims).execute(saga_id, bank.charge, 100)).cents == 100

    run(work)


@pytest.mark.parametrize("turn", [1, 2])
def test_a_task_that_is_cancelled_beside_the_call_neither_holds_the_key_nor_forgets_the_effect(
    turn: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it claims, nothing was called, so the key is free; while it writes down the result, that is written."""

    async def work(claims: Claims) -> None:
        bank, turns, reached, goes_on, written = Bank(), 0, asyncio.Event(), asyncio.Event(), asyncio.Event()
        runs = claims.database.run

        async def run_slowly(asked: Any) -> Any:
            nonlocal turns
            turns += 1
            found = await runs(asked) if turns == 1 else None
            if turns == turn:
                reached.set()
                await goes_on.wait()
            found = found or await runs(asked)
            written.set()
            return found

        monkeypatch.setattr(claims.database, "run", run_slowly)
        step = charging(claims, at_most_once=True)
        cancelled = asyncio.ensure_future(step.execute("1", bank.charge, 100))
        await reached.wait()
        written.clear()
        cancelled.cancel()
        goes_on.set()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        await asyncio.wait_for(written.wait(), 20)
        monkeypatch.undo()
        assert (await step.execute("1", bank.charge, 100)).cents == 100
        assert bank.charged == [100]

    run(work)


@pytest.mark.parametrize("compensates", [False, True])
def test_a_call_that_outlived_its_lease_says_that_its_effect_may_stand_twice(compensates: bool) -> None:
    """A plain function can't be stopped. Its success is no success if somebody else was given the key meanwhile."""
    claims, bank = Claims.memory(), Bank()
    step = BlockingIdempotentStep("charge", claims, returns=Payment)

    def slow(cents: int) -> Payment:
        claims.database.run_here(as_if_the_lease_were_over)
        if compensates:
            assert step.compensate("1", bank.refunded.append) is Undo.UNDONE
        else:
            step.execute("1", bank.charge_now, 100)
        return bank.charge_now(cents)

    with pytest.raises(OutcomeUnknown, match="may stand twice"):
        step.execute("1", slow, 100)


def test_plain_functions_are_called_once_as_well() -> None:
    """The same protocol without an event loop."""
    claims, bank = Claims.memory(), Bank(OSError())
    step = BlockingIdempotentStep("charge", claims, returns=Payment, at_most_once=True)
    with pytest.raises(OSError):
        step.execute("1", bank.charge_now, 100)
    with pytest.raises(OutcomeUnknown):
        step.execute("1", bank.charge_now, 100)
    step.resolve("1", NotLanded())
    assert [step.execute("1", bank.charge_now, 100) for _ in range(2)] == [Payment("p-2", 100)] * 2
    undone: list[Tried[Payment]] = []
    assert [step.compensate("1", undone.append) for _ in range(2)] == [Undo.UNDONE] * 2
    assert undone == [Tried(step.action_key("1"), Succeeded(Payment("p-2", 100)))]
    with pytest.raises(RequestRefused):
        step.resolve("1", NotLanded())
    with pytest.raises(AlreadyCompensated):
        step.execute("1", bank.charge_now, 100)


def test_claims_in_memory_last_as_long_as_the_step_that_has_them() -> None:
    """Nobody else need hold them."""
    step = BlockingIdempotentStep("charge", Claims.memory(), returns=Payment)
    bank = Bank()
    gc.collect()
    assert [step.execute("1", bank.charge_now, 100) for _ in range(2)] == [Payment("p-1", 100)] * 2


def test_a_result_that_can_not_be_stored_leaves_an_unknown_outcome() -> None:
    """The effect has landed; that its result is lost doesn't make the call repeatable."""

    async def work(claims: Claims) -> None:
        calls: list[int] = []

        async def act() -> Any:
            calls.append(1)
            return object()

        step: IdempotentStep[Any] = IdempotentStep("act", claims, at_most_once=True)
        with pytest.raises(PayloadError):
            await step.execute("1", act)
        with pytest.raises(OutcomeUnknown):
            await step.execute("1", act)
        assert calls == [1]

    run(work)


def test_what_is_old_and_over_can_be_purged_and_what_is_unknown_stays() -> None:
    """A key that nobody needs goes; one whose outcome nobody knows waits for a person."""

    async def work(claims: Claims) -> None:
        bank = Bank(None, OSError())
        await charging(claims).execute("done", bank.charge, 1)
        with pytest.raises(OSError):
            await charging(claims).execute("lost", bank.charge, 1)

        async def grown_old(connection: Any) -> None:
            connection.execute("UPDATE atone_claims SET at = at - 86400 * 3")

        with pytest.raises(ValueError, match="at least 1"):
            await claims.purge(older_than_days=0.5)
        assert await claims.purge(older_than_days=1) == 0
        await claims.database.run(grown_old)
        assert await claims.purge(older_than_days=2) == 1
        assert [state for _, state, _ in await rows(claims)] == ["lost"]

    run(work)


@pytest.mark.parametrize("bad", ["", "x" * 301, "nul\0", 7, None])
def test_a_saga_id_that_can_not_be_one_is_refused(bad: Any) -> None:
    """A key is bounded text."""
    with pytest.raises(PayloadError, match="saga_id is a text"):
        charging(Claims.memory()).action_key(bad)
    with pytest.raises(ValueError, match="lease_seconds"):
        charging(Claims.memory(), lease_seconds=0)
