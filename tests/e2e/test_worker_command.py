"""`atone worker` and `atone migrate` as people run them: what may be given, and what is said when it is wrong."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from atone import Completed, Orchestrator, Saga
from atone.brokers import open_broker
from tests.servers.deliveries import Deliver, Fetch, Parcel, calls, steps
from tests.servers.workers import TARGETS, atone, worker


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A store that is there."""
    url = f"sqlite:///{tmp_path / 'sagas.db'}"
    assert atone(tmp_path, "migrate", "--store", url).returncode == 0
    return url


def executed(url: str, saga: Saga[Any], saga_id: str) -> object:
    """Start a saga for whoever runs it, and wait for its end."""

    async def main() -> object:
        async with Orchestrator(url, sagas=[saga], runs=False) as starter:
            return await starter.execute(type(saga), Parcel(), saga_id=saga_id, timeout=60)

    return asyncio.run(main())


@pytest.mark.parametrize("target", ["first", "one", "made", "awaited", "Fetch", "opened"])
def test_a_target_is_sagas_or_what_returns_them(url: str, tmp_path: Path, target: str) -> None:
    """An object, a list, a class, a function, a coroutine, or a context manager: the worker runs what it gives."""
    with worker(url, tmp_path, sagas=target) as one:
        assert isinstance(executed(url, Fetch(), "1"), Completed)
        assert one.stopped() == 0
    assert calls(tmp_path, "1") == [("fetch", one.pid)]


def test_what_a_target_opens_is_closed_after_the_last_saga(url: str, tmp_path: Path) -> None:
    """Clients live as long as the worker; a drain uses them to the end."""
    with worker(url, tmp_path, sagas="opened") as one:
        assert (tmp_path / "opened").exists()
        assert not (tmp_path / "closed").exists()
        assert isinstance(executed(url, Deliver(), "1"), Completed)
        assert one.stopped() == 0
    assert (tmp_path / "closed").exists()


def test_several_targets_run_in_one_worker(url: str, tmp_path: Path) -> None:
    """Each brings its sagas."""
    with worker(url, tmp_path, f"{TARGETS}:second", sagas="one") as one:
        assert "running Fetch version 1, Deliver version 2" in one.log
        assert isinstance(executed(url, Fetch(), "1"), Completed)


def test_a_module_in_the_current_folder_is_found(url: str, tmp_path: Path) -> None:
    """Nothing has to be installed; a saga of one's own is a file away."""
    code = "import tests.servers.deliveries as d\nclass shop:\n    sagas = [d.Fetch()]\n"
    (tmp_path / "my_sagas.py").write_text(code)
    said = atone(tmp_path, "worker", "my_sagas:shop.sagas", "--store", url, "--limit", "Nope=1", cwd=tmp_path)
    assert "A limit is for 'Nope', which is not registered here; the names are Fetch." in said.stderr


WRONG: list[tuple[tuple[str, ...], int, str]] = [
    ((), 2, "Say what to run. Add: package.module:sagas"),
    (("tests.servers.deliveries",), 2, "names nothing. Write package.module:name"),
    (("tests.servers.nowhere:sagas",), 2, "There is no module 'tests.servers.nowhere'"),
    (("nowhere.at.all:sagas",), 2, "There is no module 'nowhere'"),
    ((f"{TARGETS}:frist",), 2, "has no 'frist'. Mind the spelling"),
    ((f"{TARGETS}:number",), 2, "gives no sagas but this: int"),
    ((f"{TARGETS}:nothing",), 2, "gives no sagas but this: empty list"),
    ((f"{TARGETS}:broken_in_parts",), 2, "gives no sagas but this: str"),
    ((f"{TARGETS}:fails",), 1, "failed: ValueError: no address of the carrier"),
    ((f"{TARGETS}:fails",), 1, "deliveries.py:"),
    ((f"{TARGETS}:WithArguments",), 1, "missing 1 required positional argument: 'carrier'"),
    ((f"{TARGETS}:one", f"{TARGETS}:made"), 1, "Fetch version 1 is given twice"),
    ((f"{TARGETS}:one", "--concurrency", "0"), 1, "Limits(sagas_in_flight_max=) is a whole number, 1 or more"),
    ((f"{TARGETS}:one", "--concurrency", "many"), 2, "--concurrency"),
    ((f"{TARGETS}:one", "--lease", "-1"), 1, "Limits(lease_seconds=)"),
    ((f"{TARGETS}:one", "--limit", "Fetch"), 2, "--limit takes NAME=N"),
    ((f"{TARGETS}:one", "--limit", "Fetch=0"), 1, "1 or more"),
    ((f"{TARGETS}:one", "--log-level", "loud"), 2, "There is no log level 'loud'"),
    ((f"{TARGETS}:one", "--codec", f"{TARGETS}:number"), 2, "gives no codec but this: int"),
    ((f"{TARGETS}:one", "--store", "sqlite:////nowhere/at/all.db"), 1, "There is no store at /nowhere/at/all.db"),
    ((f"{TARGETS}:one", "--store", "oracle://somewhere"), 2, "No store is called 'oracle'"),
    ((f"{TARGETS}:one", "--broker", "ftp://somewhere"), 2, "This is no broker URL"),
    ((f"{TARGETS}:one", "--publish-events"), 1, "events=True needs a broker"),
    ((f"{TARGETS}:one", "--broker", "memory://", "--topic-prefix", "No Topic"), 1, "begins no topic"),
    ((f"{TARGETS}:one", "--store", "memory://"), 2, "A memory store lives in its own process only"),
]


@pytest.mark.parametrize(("arguments", "status", "says"), WRONG)
def test_what_is_wrong_is_said_with_the_next_move(
    url: str, tmp_path: Path, arguments: tuple[str, ...], status: int, says: str
) -> None:
    """One line on standard error, a status that a script can tell apart, and no traceback."""
    where = () if "--store" in arguments else ("--store", url)
    done = atone(tmp_path, "worker", *arguments, *where)
    assert (done.returncode, done.stdout) == (status, ""), done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_errors_come_as_json_too(url: str, tmp_path: Path) -> None:
    """A supervisor reads the code."""
    done = atone(tmp_path, "worker", f"{TARGETS}:frist", "--store", url, "--json")
    assert json.loads(done.stderr)["error"] == "usage"


def test_unfinished_sagas_of_a_changed_plan_stop_a_worker_at_its_start(url: str, tmp_path: Path) -> None:
    """The same name and version with other steps: it says which saga, and what to do."""
    (tmp_path / "changed.py").write_text(
        "from atone import Context, Saga, step\n"
        "from tests.servers.deliveries import Parcel\n"
        "class Fetch(Saga[Parcel]):\n"
        "    @step(no_compensation='we have it')\n"
        "    async def bring(self, ctx: Context[Parcel]) -> str:\n"
        "        return ''\n"
    )

    async def left() -> None:
        async with Orchestrator(url, sagas=[Fetch()], runs=False) as starter:
            await starter.start(Fetch, Parcel(), saga_id="order-1")

    asyncio.run(left())
    done = atone(tmp_path, "worker", "changed:Fetch", "--store", url, cwd=tmp_path)
    assert done.returncode == 1
    assert "'order-1'" in done.stderr
    assert "new version=" in done.stderr


def test_a_worker_makes_the_store_if_it_is_told_to(tmp_path: Path) -> None:
    """For a first try; a fleet migrates on its own."""
    url = f"sqlite:///{tmp_path / 'new.db'}"
    with worker(url, tmp_path, "--migrate", sagas="one") as one:
        assert isinstance(executed(url, Fetch(), "1"), Completed)
        assert one.stopped() == 0


def test_a_worker_publishes_what_happens_to_its_sagas(url: str, tmp_path: Path) -> None:
    """On the store's own broker here; at its stop nothing is left to publish."""
    topics = ["shop.saga.started", "shop.step.succeeded", "shop.saga.completed"]

    async def declared() -> None:
        async with open_broker(url) as broker:
            await broker.declare("ear", topics)

    async def heard() -> list[str]:
        found: list[str] = []
        async with open_broker(url) as broker, asyncio.timeout(30):
            async for delivery in broker.deliveries("ear"):
                found.append(delivery.message.topic)
                await delivery.ack()
                if found[-1] == topics[-1]:
                    break
        return found

    asyncio.run(declared())
    options = ("--broker", url, "--publish-events", "--topic-prefix", "shop")
    with worker(url, tmp_path, *options, sagas="one") as one:
        assert isinstance(executed(url, Fetch(), "1"), Completed)
        assert one.stopped() == 0
    assert asyncio.run(heard()) == ["shop.step.succeeded", "shop.saga.completed"]  # it was started elsewhere
    assert "Messages that wait to be published: 0." in atone(tmp_path, "outbox", "--store", url).stdout


def test_a_worker_runs_sagas_though_its_broker_is_down(url: str, tmp_path: Path) -> None:
    """It says so, keeps what is to be published, and stops when it is asked to."""
    options = ("--broker", "nats://127.0.0.1:1", "--publish-events")
    with worker(url, tmp_path, *options, sagas="one") as one:
        assert isinstance(executed(url, Fetch(), "1"), Completed)
        one.said("the broker is away")
        assert one.stopped() == 0
    assert "Messages that wait to be published: 2" in atone(tmp_path, "outbox", "--store", url).stdout


def test_ctrl_c_drains_as_sigterm_does(url: str, tmp_path: Path) -> None:
    """Both end with status 0: nothing went wrong."""
    with worker(url, tmp_path, sagas="one") as one:
        one.signal(signal.SIGINT)
        assert one.ended() == 0
        assert "stopped" in one.log


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_signal_ends_a_worker_whose_loop_is_blocked(
    url: str, tmp_path: Path, number: int, status: int
) -> None:
    """A step that never gives the event loop back can't keep the process: the second signal needs no loop."""
    with worker(url, tmp_path, sagas="one") as one:

        async def main() -> None:
            async with Orchestrator(url, sagas=[Fetch()], runs=False) as starter:
                await starter.start(Fetch, Parcel(gate="never", blocked_at="fetch"), saga_id="1")
                while not calls(tmp_path, "1"):  # noqa: ASYNC110 - it is written by another process
                    await asyncio.sleep(0.01)

        asyncio.run(main())
        assert one.signalled_until_it_ends(number) == status
        assert "ended by a second signal" in one.log


def test_a_file_is_migrated_when_it_is_opened_and_made_by_migrate(tmp_path: Path) -> None:
    """`atone migrate` may be run by whoever deploys, whatever the store is; a script there is none."""
    url = f"sqlite:///{tmp_path / 'new.db'}"
    for _ in range(2):
        done = atone(tmp_path, "migrate", "--store", url)
        assert (done.returncode, done.stdout) == (0, f"Nothing to apply: {url} is up to date.\n")
    assert atone(tmp_path, "list", "--store", url).returncode == 0
    scripted = atone(tmp_path, "migrate", "--store", url, "--sql")
    assert (scripted.returncode, scripted.stdout) == (2, "")
    assert "Leave --sql out" in scripted.stderr


def test_starting_is_all_that_a_starter_does(url: str, tmp_path: Path) -> None:
    """Without a worker the saga waits in the store, PENDING and unowned."""

    async def main() -> None:
        async with Orchestrator(url, sagas=[Fetch()], runs=False) as starter:
            await starter.start(Fetch, Parcel(), saga_id="1")
            with pytest.raises(TimeoutError):
                await starter.outcome(Fetch, "1", timeout=0.3)

    asyncio.run(main())
    (line,) = map(json.loads, atone(tmp_path, "list", "--json", "--store", url).stdout.splitlines())
    assert (line["status"], line["worker"]) == ("pending", None)
    assert steps(tmp_path, "1") == []
