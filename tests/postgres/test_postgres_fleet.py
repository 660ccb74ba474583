"""A fleet on one PostgreSQL: real `atone worker` processes, and this process that only starts sagas and waits."""

from __future__ import annotations

import asyncio
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from atone import Completed
from tests.postgres.site import LEFT, Site
from tests.runtime.world import run
from tests.servers.deliveries import Deliver, DeliverFaster, Fetch, Parcel, calls, steps
from tests.servers.postgres import Bench, until


@pytest.fixture
def site(postgres_bench: Bench, tmp_path: Path) -> Site:
    return Site(postgres_bench.place(), tmp_path)


def test_a_process_starts_and_the_fleet_runs(site: Site) -> None:
    """The starter calls no step, has no lease, and hears how each saga ended; both workers take part."""

    async def main() -> None:
        with site.worker("--concurrency", "1") as one, site.worker("--concurrency", "1") as two:
            async with site.starter() as starter:
                held = [await starter.start(Deliver, Parcel("go", "carry"), saga_id=f"held {n}") for n in range(2)]
                for number in range(2):
                    await site.called(f"held {number}", "carry")
                assert site.place.sql("SELECT count(*) FROM workers WHERE NOT dead") == [(2,)]
                site.open("go")
                assert [type(await saga.outcome(timeout=30)) for saga in held] == [Completed] * 2
                assert {pid for n in range(2) for _, pid in calls(site.folder, f"held {n}")} == {one.pid, two.pid}
                names = [str(number) for number in range(40)]
                await asyncio.gather(*(starter.execute(Deliver, Parcel(), saga_id=name, timeout=60) for name in names))
                assert all(steps(site.folder, name) == ["pack", "carry", "hand_over"] for name in names)
            assert (one.stopped(), two.stopped()) == (0, 0)
        assert site.place.sql("SELECT status, count(*) FROM sagas GROUP BY 1") == [("completed", 42)]

    run(main())


def test_a_starter_leaves_plans_and_no_row_of_its_own(site: Site) -> None:
    """However often one comes and goes; a look at the clock leaves none either."""

    async def main() -> None:
        for number in range(2):
            async with site.starter() as starter:
                await starter.start(Fetch, Parcel(), saga_id=str(number))
                starter._worker._looked_at = -1e9
                await starter.start(Fetch, Parcel(), saga_id=f"later {number}")
        assert site.place.sql("SELECT count(*) FROM workers") == [(0,)]
        assert site.place.sql("SELECT count(*) FROM definitions WHERE plan IS NOT NULL") == [(2,)]

    run(main())


def test_a_worker_says_what_it_runs_and_never_the_password(site: Site) -> None:
    """Definitions, bounds, host, pid and store: what an operator looks for first."""
    with site.worker("--concurrency", "7", "--limit", "Fetch=3") as one:
        assert "running Deliver version 1, Fetch version 1; at most 7 sagas at a time, 3 of Fetch" in one.log
        assert f"pid {one.pid}, store postgresql://127.0.0.1:" in one.log
        assert one.stopped() == 0
        assert "wanda" not in one.log


def test_a_drained_worker_hands_its_sagas_back_and_cancels_none(site: Site) -> None:
    """The call under way ends and counts; the saga stands unowned and due, and another worker goes on from there."""

    async def main() -> None:
        async with site.starter() as starter:
            with site.worker() as one:
                saga = await starter.start(Deliver, Parcel("go", "carry"), saga_id="1")
                await site.called("1", "carry")
                one.signal()
                one.said("draining")
                site.open("go")
                assert one.ended() == 0
            assert site.place.sql(LEFT, "1") == [("running", None, True)]
            assert steps(site.folder, "1") == ["pack", "carry"]
            with site.worker() as two:
                assert isinstance(await saga.outcome(timeout=30), Completed)
                assert calls(site.folder, "1")[2:] == [("hand_over", two.pid)]
                assert two.stopped() == 0

    run(main())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_call_that_outlasts_the_grace_is_left_to_another_worker(site: Site, number: signal.Signals) -> None:
    """The drain does not wait for ever: the step is in doubt, so it is called again with the same key."""

    async def main() -> None:
        async with site.starter() as starter:
            with site.worker("--grace", "0.2") as one:
                saga = await starter.start(Deliver, Parcel("go", "carry"), saga_id="1")
                await site.called("1", "carry")
                one.signal(number)
                assert one.ended() == 0
            site.open("go")
            with site.worker():
                assert isinstance(await saga.outcome(timeout=30), Completed)
        assert steps(site.folder, "1") == ["pack", "carry", "carry", "hand_over"]

    run(main())


def test_a_second_signal_ends_at_once_and_others_go_on_after_the_lease(site: Site) -> None:
    """No drain, no hand-back; the saga is taken over all the same."""

    async def main() -> None:
        async with site.starter() as starter:
            with site.worker("--grace", "100", "--lease", "1") as one:
                saga = await starter.start(Deliver, Parcel("go", "carry"), saga_id="1")
                await site.called("1", "carry")
                one.signal()
                one.said("draining")
                one.signal()
                assert one.ended() == 128 + signal.SIGTERM
                assert site.owner_of("1") is not None
            with site.worker():
                site.open("go")
                assert isinstance(await saga.outcome(timeout=30), Completed)

    run(main())


def test_what_a_killed_worker_had_in_flight_is_finished_by_the_others(site: Site) -> None:
    """SIGKILL with twenty sagas under way: each ends, and only the steps that were under way are repeated."""

    async def main() -> None:
        async with site.starter() as starter:
            names = [str(number) for number in range(20)]
            with site.worker("--lease", "1") as one:
                for name in names:
                    await starter.start(Deliver, Parcel("go", "carry"), saga_id=name)
                for name in names:
                    await site.called(name, "carry")
                one.signal(signal.SIGKILL)
                assert one.ended() == -signal.SIGKILL
            site.open("go")
            with site.worker(), site.worker():
                for name in names:
                    assert isinstance(await starter.outcome(Deliver, name, timeout=30), Completed)
            assert all(steps(site.folder, name) == ["pack", "carry", "carry", "hand_over"] for name in names)

    run(main())


def test_two_workers_with_the_same_command_line_both_run(site: Site) -> None:
    """There is no name to collide: an id is new at every start, also for a process of the same pid elsewhere."""

    async def main() -> None:
        with ExitStack() as stack:
            both = [stack.enter_context(site.worker("--concurrency", "1")) for _ in range(2)]
            async with site.starter() as starter:
                for name in ("1", "2"):
                    await starter.start(Fetch, Parcel("go", "fetch"), saga_id=name)
                    await site.called(name, "fetch")
                assert {calls(site.folder, name)[0][1] for name in ("1", "2")} == {one.pid for one in both}
                assert site.place.sql("SELECT count(DISTINCT owner) FROM sagas") == [(2,)]
                site.open("go")
                for name in ("1", "2"):
                    assert isinstance(await starter.outcome(Fetch, name, timeout=30), Completed)

    run(main())


def test_a_saga_waits_for_a_worker_that_has_its_version(site: Site) -> None:
    """Two workers without it leave it alone and say so; the third, which has it, runs it, and theirs stay theirs."""

    async def main() -> None:
        with site.worker() as one, site.worker() as two:
            async with site.starter(Deliver(), DeliverFaster()) as starter:
                newer = await starter.start(DeliverFaster, Parcel(), saga_id="newer")
                for old in (one, two):
                    old.said("1 due sagas have a definition that is not registered here")
                older = await starter.start(Deliver, Parcel(), saga_id="older")
                assert isinstance(await older.outcome(timeout=30), Completed)
                assert site.place.sql("SELECT status, owner FROM sagas WHERE saga_id = 'newer'") == [("pending", None)]
                with site.worker(sagas="second") as third:
                    assert isinstance(await newer.outcome(timeout=30), Completed)
                    assert calls(site.folder, "newer") == [("hand_over", third.pid)]

    run(main())


def test_a_blocked_event_loop_keeps_its_sagas(site: Site) -> None:
    """User code that blocks for many leases: the thread renews, and nobody takes over."""

    async def main() -> None:
        with site.worker("--lease", "0.6") as one:
            async with site.starter() as starter:
                saga = await starter.start(Deliver, Parcel("go", blocked_at="carry"), saga_id="1")
                await site.called("1", "carry")
                owner = site.owner_of("1")
                with site.worker() as rival:
                    await site.after(4)
                    assert site.owner_of("1") == owner
                    assert not {one.pid, rival.pid} & site.dead()
                    site.open("go")
                    assert isinstance(await saga.outcome(timeout=30), Completed)
        assert calls(site.folder, "1") == [(name, one.pid) for name in ("pack", "carry", "hand_over")]

    run(main())


def test_a_hung_event_loop_loses_its_sagas(site: Site) -> None:
    """Stuck for longer than allowed: others go on, and when it wakes up nothing that it writes is taken."""

    async def main() -> None:
        with site.worker("--lease", "0.6", "--stall", "0.5") as one:
            async with site.starter() as starter:
                saga = await starter.start(Deliver, Parcel("go", blocked_at="carry"), saga_id="1")
                await site.called("1", "carry")
                with site.worker() as rival:
                    await site.called("1", "carry", 2)
                    assert one.pid in site.dead()
                    one.said("the event loop has not run")
                    site.open("go")
                    assert isinstance(await saga.outcome(timeout=30), Completed)
                    one.said("was declared dead")
                    assert rival.stopped() == 0
                again = await starter.start(Deliver, Parcel(), saga_id="2")
                assert isinstance(await again.outcome(timeout=30), Completed)
                assert {pid for _, pid in calls(site.folder, "2")} == {one.pid}
        assert [pid for name, pid in calls(site.folder, "1") if name == "hand_over"] == [rival.pid]

    run(main())


def test_a_flood_of_one_definition_does_not_starve_another(site: Site) -> None:
    """Three hundred wait of one; three of the other come last and do not wait for them."""

    async def main() -> None:
        async with site.starter() as starter:
            flood = [f"flood {number}" for number in range(300)]
            await asyncio.gather(*(starter.start(Deliver, Parcel("go", "pack"), saga_id=name) for name in flood))
            few = [f"few {number}" for number in range(3)]
            for name in few:
                await starter.start(Fetch, Parcel("go", "fetch"), saga_id=name)
            with site.worker("--concurrency", "8"):
                for name in few:
                    await site.called(name, "fetch")
                begun = [name for name in flood if steps(site.folder, name)]
                assert len(begun) <= 5
                site.open("go")
                for name in (*few, *flood):
                    await starter.outcome(Deliver if name in flood else Fetch, name, timeout=60)
        assert site.place.sql("SELECT status, count(*) FROM sagas GROUP BY 1") == [("completed", 303)]

    run(main())


def test_a_definition_keeps_to_its_bound(site: Site) -> None:
    """Twenty are stored; four run at once and the other definition has the rest of the room."""

    async def main() -> None:
        async with site.starter() as starter:
            names = [str(number) for number in range(20)]
            for name in names:
                await starter.start(Deliver, Parcel("go", "pack"), saga_id=name)
            with site.worker("--limit", "Deliver=4"):
                await until(lambda: sum(bool(steps(site.folder, name)) for name in names) == 4)
                fetched = await starter.execute(Fetch, Parcel(), saga_id="other", timeout=30)
                assert isinstance(fetched, Completed)
                assert sum(bool(steps(site.folder, name)) for name in names) == 4
                assert site.place.sql("SELECT count(*) FROM sagas WHERE owner IS NOT NULL AND status = 'running'") == [
                    (4,)
                ]
                site.open("go")
                for name in names:
                    assert isinstance(await starter.outcome(Deliver, name, timeout=60), Completed)

    run(main())
