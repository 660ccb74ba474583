"""The whole contract on a PostgreSQL in trouble: time-outs, conflicts and lost answers, all of them real.

Whoever is turned down by the database or the network asks again, as the port says, and what is so afterwards is what is
always so. Each trouble is shown to have happened, and to be more than a store can bear that breaks its rule.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from atone.errors import StoreUnavailable
from atone.stores import _postgres_commit, _postgres_line
from atone.stores.postgres import PostgresStore
from atone.testing.contracts import STORE_CHECKS, Check, ContractBroken, Subject
from tests.contract.insistent import InsistentStore
from tests.servers.postgres import Bench, Place
from tests.servers.proxy import Proxy

SEED = 20_260
_STANDS = "SELECT 1 FROM early_events WHERE commit_id = %s UNION ALL SELECT 1 FROM journal WHERE commit_id = %s"
_TABLES = ("workers", "sagas", "journal", "requests", "early_events", "dead_letters")

# Some statements take so long that the server itself cancels them, others are told that a lock was not to be had.
_SLOW = """
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('application_name') <> 'atone' THEN RETURN NULL; END IF;
    IF random() < 0.01 THEN PERFORM pg_sleep(5); END IF;
    IF random() < 0.04 THEN RAISE EXCEPTION 'an injected lock time-out' USING ERRCODE = '55P03'; END IF;
    RETURN NULL;
END
$$;
"""
_TRIGGER = "CREATE TRIGGER slow AFTER INSERT OR UPDATE OR DELETE ON {} EXECUTE FUNCTION slow();"


class Trouble:
    """A place where something is wrong. `make` makes a store there; `signs` are what the server's log says of it."""

    def __init__(self, place: Place, make: Callable[[], PostgresStore], *signs: str) -> None:
        self.place, self.make, self.signs = place, make, signs
        self._insistent: list[InsistentStore] = []

    def subject(self) -> Subject:
        """Return a store that is asked again until its answer is definite, on empty tables."""
        one = InsistentStore(self.make(), self._dead_letters, self._stands)
        self._insistent.append(one)
        return replace(self._emptied(), store=one)

    def bare(self) -> Subject:
        """Return the store as it is."""
        return replace(self._emptied(), store=self.make())

    def repeats(self) -> int:
        """Return how often a call was made again."""
        return sum(one.repeats for one in self._insistent)

    def said(self) -> list[int]:
        """Return how often each sign stands in the log."""
        return [self.place.bench.server.log.count(sign) for sign in self.signs]

    def _emptied(self) -> Subject:
        self.place.empty()
        return self.place.subject()

    def _dead_letters(self) -> int:
        ((count,),) = self.place.sql("SELECT count(*) FROM dead_letters")
        return int(count)

    def _stands(self, commit_id: bytes) -> bool:
        return bool(self.place.sql(_STANDS, commit_id, commit_id))


@contextmanager
def time_outs(bench: Bench) -> Iterator[Trouble]:
    place = bench.place()
    place.sql(_SLOW + "".join(map(_TRIGGER.format, _TABLES)))
    signs = ("canceling statement due to statement timeout", "an injected lock time-out")
    yield Trouble(place, lambda: place.store(statement_seconds=0.3), *signs)


@contextmanager
def serializable(bench: Bench) -> Iterator[Trouble]:
    """Every transaction is serializable, as in a distributed database, and a rival changes all workers' rows."""
    place = bench.place()
    login = f"strict_{place.schema.lower()}"
    place.sql(f"CREATE ROLE {login} LOGIN PASSWORD 'strict' IN ROLE atone_worker")
    place.sql(f"ALTER ROLE {login} SET default_transaction_isolation = serializable")
    url = bench.server.url(user=login, password="strict")
    with _rival(bench, place):
        yield Trouble(place, lambda: place.store(url, statement_cache_size=0), "could not serialize access")


@contextmanager
def _rival(bench: Bench, place: Place) -> Iterator[None]:
    over = threading.Event()

    def quarrel() -> None:
        with psycopg.connect(bench.server.url(), autocommit=True) as connection:
            connection.execute(f'SET search_path TO "{place.schema}"')
            while not over.wait(0.004):
                try:
                    with connection.transaction():
                        connection.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
                        connection.execute("SELECT count(*) FROM workers, sagas")
                        connection.execute("UPDATE workers SET lease_until = lease_until")
                        over.wait(0.002)
                except psycopg.errors.OperationalError:
                    pass  # this time the other side was first

    thread = threading.Thread(target=quarrel)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def lost_answers(bench: Bench) -> Iterator[Trouble]:
    """Every connection goes through a proxy that loses one answer in twenty, and the connection with it."""
    place = bench.place()
    with Proxy(bench.server.port, seed=SEED) as proxy:
        proxy.losses = 0.05
        url = bench.worker_url.replace(f":{bench.server.port}/", f":{proxy.port}/")
        yield Trouble(place, lambda: place.store(url))


TROUBLES = [time_outs, serializable, lost_answers]
RUNS = [(kind, check) for kind in TROUBLES for check in STORE_CHECKS]


@pytest.fixture(scope="module")
def trouble_of(postgres_bench: Bench) -> Iterator[Callable[[Any], Trouble]]:
    """Return each trouble, which lasts as long as this module's tests."""
    running: dict[Any, Trouble] = {}
    with ExitStack() as stack:

        def begun(kind: Any) -> Trouble:
            if kind not in running:
                running[kind] = stack.enter_context(kind(postgres_bench))
            return running[kind]

        yield begun


@pytest.mark.parametrize(("kind", "check"), RUNS, ids=[f"{kind.__name__}-{check}" for kind, check in RUNS])
def test_store_on_a_postgres_in_trouble(kind: Any, check: Check, trouble_of: Callable[[Any], Trouble]) -> None:
    """One sentence of the contract holds whatever goes wrong, if one asks again."""
    asyncio.run(check(trouble_of(kind).subject))


@pytest.mark.parametrize("kind", TROUBLES, ids=lambda kind: kind.__name__)
def test_the_trouble_is_real(kind: Any, trouble_of: Callable[[Any], Trouble]) -> None:
    """The server says so, or calls had to be made again: the tests above did not pass for want of trouble."""
    trouble = trouble_of(kind)
    while not all(trouble.said()) or (kind is not serializable and not trouble.repeats()):
        for check in STORE_CHECKS[:10]:
            asyncio.run(check(trouble.subject))


def fails(trouble: Trouble, make: Callable[[], Subject], *errors: type[Exception]) -> None:
    """Complain unless a check fails sooner or later."""
    with pytest.raises(errors):
        for _ in range(5):
            for check in STORE_CHECKS:
                asyncio.run(check(make))


@pytest.mark.parametrize("kind", [time_outs, lost_answers], ids=lambda kind: kind.__name__)
def test_whoever_does_not_ask_again_is_told_that_nothing_is_sure(
    kind: Any, trouble_of: Callable[[Any], Trouble]
) -> None:
    """The store itself does not repeat what may have been written, or what took too long."""
    trouble = trouble_of(kind)
    fails(trouble, trouble.bare, StoreUnavailable)


def test_without_repeats_of_conflicts_the_contract_fails(
    trouble_of: Callable[[Any], Trouble], postgres_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """40001 and 40P01 are repeated by the store; leave that out and callers hear of them."""
    trouble = trouble_of(serializable)
    monkeypatch.setattr(_postgres_line, "is_repeatable", lambda error: False)
    fails(trouble, trouble.bare, StoreUnavailable)
    fails(trouble, postgres_bench.stormy_place().subject, StoreUnavailable)


def test_without_the_commit_id_a_lost_answer_is_taken_for_a_conflict(
    trouble_of: Callable[[Any], Trouble], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A turn that stands there with my commit id is mine; leave that out and the contract fails."""
    forgetful = _postgres_commit._JUDGE.replace("AND j.commit_id = t.commit_id", "AND t.commit_id IS NULL")
    assert forgetful != _postgres_commit._JUDGE
    monkeypatch.setattr(_postgres_commit, "_JUDGE", forgetful)
    trouble = trouble_of(lost_answers)
    fails(trouble, trouble.subject, ContractBroken)
