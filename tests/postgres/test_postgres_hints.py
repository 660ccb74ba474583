"""Hints by NOTIFY: with them nobody waits for a poll, and without them, or when they are lost, nothing is missing.

Polls that are to be shown not to matter come once an hour, so a test that needed one would run into its time limit.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import psycopg
import pytest

from atone import Compensated, Completed
from tests.postgres.site import LEFT, Site
from tests.runtime.world import run
from tests.servers.deliveries import Deliver, Fetch, Parcel, calls, steps
from tests.servers.postgres import Bench, until
from tests.servers.workers import atone

HOURLY = 3600.0
LISTENERS = "SELECT pid FROM pg_stat_activity WHERE application_name = 'atone hints' AND query LIKE 'LISTEN%%'"
KILL = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'atone hints'"
ANY = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'atone hints'"


@pytest.fixture
def site(postgres_bench: Bench, tmp_path: Path) -> Site:
    return Site(postgres_bench.place(), tmp_path)


def listeners(site: Site) -> set[int]:
    """Return the connections that listen and have not told anything yet."""
    return {pid for (pid,) in site.place.sql(LISTENERS)}


def test_nobody_waits_for_a_poll(site: Site) -> None:
    """A start, a cancel and an end in one process are heard in the other, long before anybody's next look."""

    async def main() -> None:
        with site.worker(poll=HOURLY):
            await until(lambda: bool(listeners(site)))
            async with site.starter(poll=HOURLY) as starter:
                assert isinstance(await starter.execute(Fetch, Parcel(), saga_id="1", timeout=50), Completed)
                saga = await starter.start(Deliver, Parcel("go", "carry"), saga_id="2")
                await site.called("2", "carry")
                receipt = await saga.cancel(reason="changed my mind")
                site.open("go")
                assert isinstance(await saga.outcome(timeout=50), Compensated)
                assert (await receipt.answer(timeout=50)).verdict == "applied"

    run(main())


def test_the_command_line_is_heard_at_once(site: Site) -> None:
    """A cancel by a person does not wait for the worker's next look."""

    async def main() -> None:
        with site.worker(poll=HOURLY):
            await until(lambda: bool(listeners(site)))
            async with site.starter(poll=HOURLY) as starter:
                saga = await starter.start(Deliver, Parcel("go", "carry"), saga_id="1")
                await site.called("1", "carry")
                cancel = ("cancel", "1", "--reason", "no", "--wait", "30", "--store", site.url)
                asked = await asyncio.to_thread(atone, site.folder, *cancel)
                assert (asked.returncode, asked.stdout.splitlines()[0]) == (0, "cancel: applied.")
                site.open("go")
                assert isinstance(await saga.outcome(timeout=50), Compensated)

    run(main())


def test_what_a_drained_worker_hands_back_is_taken_at_once(site: Site) -> None:
    """The other worker hears of it from the one that leaves."""

    async def main() -> None:
        with site.worker(poll=HOURLY) as one:
            async with site.starter(poll=HOURLY) as starter:
                saga = await starter.start(Deliver, Parcel("go", "carry"), saga_id="1")
                await site.called("1", "carry")
                with site.worker(poll=HOURLY) as two:
                    await until(lambda: len(listeners(site)) >= 2)
                    one.signal()
                    one.said("draining")
                    site.open("go")
                    assert isinstance(await saga.outcome(timeout=50), Completed)
                    assert calls(site.folder, "1") == [("pack", one.pid), ("carry", one.pid), ("hand_over", two.pid)]

    run(main())


@pytest.mark.parametrize("how", ["parameter", "option"])
def test_switched_off_nothing_is_told_and_polling_does_it_all(site: Site, how: str) -> None:
    """No connection for hints is made; starts, requests, hand-backs and ends are found all the same."""
    options: dict[str, Any] = {}
    if how == "parameter":
        site.url += "&notify=off"
        arguments = []
    else:
        arguments = ["--no-notify"]

    async def main() -> None:
        async with site.starter(parameters="" if how == "parameter" else "&notify=off") as starter:
            with site.worker(*arguments, **options) as one:
                assert isinstance(await starter.execute(Fetch, Parcel(), saga_id="1", timeout=50), Completed)
                saga = await starter.start(Deliver, Parcel("go", "carry"), saga_id="2")
                await site.called("2", "carry")
                assert site.place.sql(ANY) == [(0,)]
                one.signal()
                one.said("draining")
                site.open("go")
                assert one.ended() == 0
            assert site.place.sql(LEFT, "2") == [("running", None, True)]
            with site.worker(*arguments, **options):
                assert isinstance(await saga.outcome(timeout=50), Completed)
        assert steps(site.folder, "2") == ["pack", "carry", "hand_over"]

    run(main())


def test_a_pooler_that_shares_connections_has_no_listeners(site: Site) -> None:
    """Where each transaction may get another connection, none is made to listen."""

    async def main() -> None:
        site.url += "&statement_cache_size=0"
        async with site.starter() as starter:
            with site.worker():
                assert isinstance(await starter.execute(Fetch, Parcel(), saga_id="1", timeout=50), Completed)
                assert site.place.sql(ANY) == [(0,)]

    run(main())


def test_lost_hints_are_no_loss(site: Site) -> None:
    """Every connection that tells or listens is killed, again and again; polls find everything."""

    async def main() -> None:
        with site.worker() as one:
            async with site.starter() as starter:
                for number in range(6):
                    site.place.sql(KILL)
                    saga = await starter.start(Deliver, Parcel(), saga_id=str(number))
                    site.place.sql(KILL)
                    assert isinstance(await saga.outcome(timeout=50), Completed)
            assert one.stopped() == 0

    run(main())


def test_a_listener_that_was_killed_listens_again(site: Site) -> None:
    """And looks once, for what it has missed; after that it hears again."""

    async def main() -> None:
        with site.worker(poll=HOURLY):
            await until(lambda: bool(listeners(site)))
            async with site.starter(poll=0.1, parameters="&notify=off") as silent, site.starter(poll=0.1) as starter:
                for number in range(3):
                    missed = await silent.start(Fetch, Parcel(), saga_id=f"missed {number}")
                    site.place.sql(KILL)
                    assert isinstance(await missed.outcome(timeout=50), Completed)
                    await until(lambda: bool(listeners(site)))
                    saga_id = str(number)
                    assert isinstance(await starter.execute(Fetch, Parcel(), saga_id=saga_id, timeout=50), Completed)

    run(main())


def test_a_commit_does_not_wait_for_listeners(site: Site) -> None:
    """Somebody who listens and never reads, or a lock on what NOTIFY needs, holds up hints and nothing else."""

    async def main() -> None:
        with psycopg.connect(site.place.bench.server.url()) as blocker, site.worker():
            blocker.execute("LISTEN something")  # takes part in the queue, within a transaction that stays open
            blocker.execute("NOTIFY something")
            async with site.starter() as starter:
                assert isinstance(await starter.execute(Deliver, Parcel(), saga_id="1", timeout=50), Completed)

    run(main())
