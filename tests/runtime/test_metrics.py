"""The metrics: what is scraped over HTTP and what OpenTelemetry's SDK reads are the same, and both tell the truth."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from atone import Context, Reject, Retry, Saga, step
from atone._runtime import measures
from atone._runtime.measures import COUNTERS, GAUGES, HISTOGRAMS
from atone.errors import AtoneError, DefinitionError, StoreUnavailable
from atone.integrations.opentelemetry import OpenTelemetry
from atone.integrations.prometheus import Prometheus
from atone.orchestrator import Orchestrator
from atone.store import Census, Count
from atone.stores.memory import MemoryStore
from atone.stores.sqlite import SqliteStore
from atone.telemetry import Looked, Observer
from tests.runtime.faulty_store import FaultyStore
from tests.runtime.world import (
    Order,
    PlaceOrder,
    World,
    crashing,
    hangs,
    lands,
    limits,
    raises,
    run,
    sqlite,
    until,
    waits,
)

Values: TypeAlias = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Scraped:
    """Prometheus, scraped over HTTP as a real one would."""

    def __init__(self) -> None:
        self.telemetry = Prometheus(registry=CollectorRegistry(), census_seconds=0.2)

    def values(self) -> Values:
        with self.telemetry.serve(0) as serving:
            url = f"http://127.0.0.1:{serving.port}/metrics"
            with urllib.request.urlopen(url, timeout=10) as answer:
                families = list(text_string_to_metric_families(answer.read().decode()))
        samples = (sample for family in families for sample in family.samples)
        return {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}


class Read:
    """OpenTelemetry's SDK, read in memory; under the names that a scrape would have."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        provider = MeterProvider([self._reader])
        self.telemetry = OpenTelemetry(meter_provider=provider, traces=False, census_seconds=0.2)

    def values(self) -> Values:
        data = self._reader.get_metrics_data()
        found: Values = {}
        metrics = [
            metric
            for resource in ([] if data is None else data.resource_metrics)
            for scope in resource.scope_metrics
            for metric in scope.metrics
        ]
        for metric in metrics:
            name = metric.name.replace(".", "_") + ("_seconds" if metric.unit == "s" else "")
            for point in metric.data.data_points:
                at = frozenset((_short(key), str(value)) for key, value in (point.attributes or {}).items())
                if hasattr(point, "count"):
                    found[name + "_count", at] = point.count
                    found[name + "_sum", at] = point.sum
                else:
                    is_total = getattr(metric.data, "is_monotonic", False)
                    found[name + ("_total" if is_total else ""), at] = point.value
        return found


def _short(key: str) -> str:
    return {"atone.saga.name": "saga", "atone.saga.status": "status"}.get(key, key.removeprefix("atone."))


def of(values: Values, name: str, **labels: str) -> float:
    """Return one value; 0 if it is not there."""
    return values.get((name, frozenset(labels.items())), 0)


EITHER = pytest.mark.parametrize("make", [Scraped, Read], ids=["prometheus", "opentelemetry"])


def _opened(store: Any, *sagas: Saga[Any], telemetry: Any, **other: Any) -> Orchestrator:
    return Orchestrator(store, sagas=list(sagas), limits=limits(**other), telemetry=telemetry, allow_volatile=True)


@EITHER
def test_outcomes_attempts_and_commits_are_counted(make: Callable[[], Any], tmp_path: Path) -> None:
    """Two sagas: one completes after a repeat, one is undone."""
    metrics, world = make(), World()

    async def main() -> None:
        async with _opened(sqlite(tmp_path), PlaceOrder(world), telemetry=metrics.telemetry) as orchestrator:
            world.script("charge", raises(ConnectionError("reset")), lands)
            await orchestrator.execute(PlaceOrder, Order(), saga_id="1")
            world.script("ship", raises(Reject("no carrier")))
            await orchestrator.execute(PlaceOrder, Order(), saga_id="2")
            await orchestrator.execute(PlaceOrder, Order(), saga_id="2")  # found, not started

    run(main())
    values = metrics.values()
    assert of(values, "atone_sagas_started_total", saga="PlaceOrder") == 2
    assert of(values, "atone_sagas_settled_total", saga="PlaceOrder", outcome="completed") == 1
    assert of(values, "atone_sagas_settled_total", saga="PlaceOrder", outcome="compensated") == 1
    assert of(values, "atone_sagas_turned_back_total", saga="PlaceOrder", trigger="failure") == 1
    calls = {
        (dict(at)["step"], dict(at)["operation"], dict(at)["outcome"]): value
        for (name, at), value in values.items()
        if name == "atone_attempt_duration_seconds_count"
    }
    assert calls == {
        ("reserve", "action", "succeeded"): 2,
        ("charge", "action", "unknown"): 1,
        ("charge", "action", "succeeded"): 2,
        ("ship", "action", "succeeded"): 1,
        ("ship", "action", "rejected"): 1,
        ("reserve", "compensation", "succeeded"): 1,
        ("charge", "compensation", "succeeded"): 1,
    }
    commits = of(values, "atone_commit_duration_seconds_count")
    assert 0 < commits == of(values, "atone_commit_turns_count")
    assert of(values, "atone_commit_turns_sum") >= commits


@EITHER
def test_what_is_unfinished_shows_as_gauges(make: Callable[[], Any], tmp_path: Path) -> None:
    """By name and status, with the age of the oldest and those in need of a person; what has ended is gone from it."""
    metrics, world = make(), World()
    name = {"saga": "PlaceOrder"}

    async def main() -> None:
        gate = asyncio.Event()
        world.script("reserve", waits(gate))
        world.script("refund", *[raises(ConnectionError())] * 3)
        async with _opened(sqlite(tmp_path), PlaceOrder(world), telemetry=metrics.telemetry) as orchestrator:
            waiting = await orchestrator.start(PlaceOrder, Order(), saga_id="waits")
            await world.reached("reserve")
            world.script("ship", raises(Reject("no")))
            await orchestrator.execute(PlaceOrder, Order(), saga_id="needs")
            await _until_it_shows(metrics, "atone_sagas_unfinished", 1, **name, status="needs_attention")
            values = await asyncio.to_thread(metrics.values)
            assert of(values, "atone_sagas_unfinished", **name, status="running") == 1
            assert of(values, "atone_sagas_in_need_of_attention", **name) == 1
            assert of(values, "atone_sagas_oldest_unfinished_age_seconds", **name) > 0
            assert of(values, "atone_sagas_settled_total", **name, outcome="needs_attention") == 1
            assert of(values, "atone_compensations_gave_up_total", **name, step="charge") == 1
            await _until_it_shows(metrics, "atone_sagas_in_flight", 1)
            gate.set()
            await waiting.outcome()
            await _until_it_shows(metrics, "atone_sagas_unfinished", 0, **name, status="running")

    run(main())


async def _until(metrics: Any, is_so: Callable[[Values], bool]) -> None:
    """Look until it is so."""
    while not is_so(await asyncio.to_thread(metrics.values)):  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(0.01)


async def _until_it_shows(metrics: Any, name: str, value: float, **labels: str) -> None:
    await _until(metrics, lambda now: of(now, name, **labels) == value)


@EITHER
def test_a_take_over_shows(make: Callable[[], Any], tmp_path: Path) -> None:
    """The claim, and the attempt of which nobody will say how it ended."""
    metrics, world = make(), World()

    async def main() -> None:
        world.script("charge", hangs)
        async with crashing(tmp_path, PlaceOrder(world)) as (orchestrator, _):
            await orchestrator.start(PlaceOrder, Order(), saga_id="1")
            await world.reached("charge")
        async with _opened(sqlite(tmp_path), PlaceOrder(world), telemetry=metrics.telemetry) as orchestrator:
            await orchestrator.outcome(PlaceOrder, "1", timeout=20)

    run(main())
    values = metrics.values()
    assert of(values, "atone_sagas_claimed_total", saga="PlaceOrder") == 1
    assert of(values, "atone_attempts_lost_total", saga="PlaceOrder", step="charge", operation="action") == 1
    assert of(values, "atone_sagas_started_total", saga="PlaceOrder") == 0


@EITHER
def test_a_worker_that_is_declared_dead_counts_what_it_could_not_write(make: Callable[[], Any], tmp_path: Path) -> None:
    """It has lost its lease, and its next write is refused."""
    metrics, world = make(), World()

    async def main() -> None:
        gate = asyncio.Event()
        world.script("charge", waits(gate))
        store = sqlite(tmp_path)
        # It looks for nothing meanwhile, so that its own write is what tells it.
        async with _opened(store, PlaceOrder(world), telemetry=metrics.telemetry, poll_seconds=30.0) as orchestrator:
            await orchestrator.start(PlaceOrder, Order(), saga_id="1")
            await world.reached("charge")
            worker: Any = orchestrator._worker
            await asyncio.to_thread(store.renew, worker.membership.id, 0.0)
            gate.set()
            await _until(metrics, lambda now: of(now, "atone_lease_losses_total") == 1)

    run(main())
    values = metrics.values()
    assert of(values, "atone_lease_losses_total") == 1
    assert of(values, "atone_writes_refused_total", why="worker_dead") == 1


@EITHER
def test_a_commit_without_an_answer_is_counted_as_sent_again(make: Callable[[], Any], tmp_path: Path) -> None:
    """And once, with its whole time, when the answer is there."""
    metrics, world = make(), World()

    class Away(FaultyStore):
        left = 2

        async def commit(self, worker: Any, turns: Any) -> Any:
            if self.left:
                self.left -= 1
                raise StoreUnavailable("the line is cut")
            return await super().commit(worker, turns)

    async def main() -> None:
        async with _opened(Away(sqlite(tmp_path)), PlaceOrder(world), telemetry=metrics.telemetry) as orchestrator:
            await orchestrator.execute(PlaceOrder, Order(), saga_id="1")

    run(main())
    values = metrics.values()
    assert of(values, "atone_commit_repeats_total") == 2
    assert of(values, "atone_commit_duration_seconds_sum") > 0.02
    assert of(values, "atone_sagas_unfinished", saga="PlaceOrder", status="running") == 0


@EITHER
def test_a_request_that_comes_first_is_counted_as_a_conflict(make: Callable[[], Any], tmp_path: Path) -> None:
    """The turn that was decided without it is refused and decided anew."""
    metrics, world = make(), World()

    async def main() -> None:
        gate = asyncio.Event()
        world.script("charge", waits(gate))
        other = sqlite(tmp_path)
        async with (
            _opened(sqlite(tmp_path), PlaceOrder(world), telemetry=metrics.telemetry, poll_seconds=30.0) as here,
            _opened(other, PlaceOrder(world), telemetry=(), poll_seconds=30.0) as there,
        ):
            saga = await here.start(PlaceOrder, Order(), saga_id="1")
            await world.reached("charge")
            await there.cancel(PlaceOrder, "1", reason="changed my mind")
            gate.set()
            await saga.outcome(timeout=20)

    run(main())
    assert of(metrics.values(), "atone_writes_refused_total", why="conflict") == 1


class Slow(Saga[Order], late_grace=0):
    """A plain function, which nobody can stop when its time is up."""

    def __init__(self) -> None:
        self.gate = threading.Event()

    @step(timeout=0.05, retry=Retry(attempts=5, initial=30.0), no_compensation="it has no effect")
    def act(self, ctx: Context[Order]) -> None:
        self.gate.wait(30)


@EITHER
def test_an_attempt_that_was_given_up_on_has_one_outcome(make: Callable[[], Any], tmp_path: Path) -> None:
    """It timed out; that it landed after all is another count."""
    metrics, saga = make(), Slow()

    async def main() -> None:
        # What waits for its repeat stays here, to hear of the late success.
        async with _opened(sqlite(tmp_path), saga, telemetry=metrics.telemetry) as orchestrator:
            started = await orchestrator.start(Slow, Order(), saga_id="1")
            place = {"saga": "Slow", "step": "act", "operation": "action", "outcome": "timed_out"}
            await _until_it_shows(metrics, "atone_attempt_duration_seconds_count", 1, **place)
            saga.gate.set()
            await started.outcome(timeout=20)

    run(main())
    values = metrics.values()
    calls = [value for (name, _), value in values.items() if name == "atone_attempt_duration_seconds_count"]
    assert calls == [1]
    assert of(values, "atone_attempts_landed_late_total", saga="Slow", step="act") == 1


class Strange(Saga[Order], name="PlaceOrder", version=9):
    """Another version, which the first worker does not have."""

    @step(no_compensation="it has no effect")
    async def act(self, ctx: Context[Order]) -> None:
        pass


@EITHER
def test_a_saga_that_nobody_here_can_run_is_unclaimable(make: Callable[[], Any], tmp_path: Path) -> None:
    """It is due and has a version that this worker lacks."""
    metrics = make()

    async def main() -> None:
        async with _opened(sqlite(tmp_path), PlaceOrder(World()), telemetry=metrics.telemetry):
            async with Orchestrator(sqlite(tmp_path), sagas=[Strange()], runs=False) as starter:
                await starter.start(Strange, Order(), saga_id="1")
            await _until_it_shows(metrics, "atone_sagas_unclaimable", 1)

    run(main())


@EITHER
def test_workers_that_share_an_observer_are_added_up(make: Callable[[], Any], tmp_path: Path) -> None:
    """What one of them sees does not take the place of what another one saw."""
    metrics, world = make(), World()

    async def main() -> None:
        world.script("charge", *[hangs] * 3)
        async with (
            _opened(sqlite(tmp_path / "a"), PlaceOrder(world), telemetry=metrics.telemetry) as one,
            _opened(sqlite(tmp_path / "b"), PlaceOrder(world), telemetry=metrics.telemetry) as two,
        ):
            await one.start(PlaceOrder, Order(), saga_id="1")
            await two.start(PlaceOrder, Order(), saga_id="2")
            await two.start(PlaceOrder, Order(), saga_id="3")
            await world.reached("charge", 3)
            await _until_it_shows(metrics, "atone_sagas_in_flight", 3)

    for name in "ab":
        (tmp_path / name).mkdir()
    run(main())


def test_a_worker_that_has_not_looked_for_long_is_counted_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its number is no news; the others' are. One that looks seldom is given its time."""
    now = 0.0
    monkeypatch.setattr(measures, "monotonic", lambda: now)
    prometheus = Prometheus(registry=CollectorRegistry(), census_seconds=10)

    def shown() -> dict[str, float]:
        return {metric.name: value for metric, _, value in prometheus.gauges()}

    prometheus.looked(Looked(0, 1, 0, 5, "gone", 0.5))
    prometheus.looked(Looked(0, 0, 0, 2, "seldom", 100))
    assert shown() == {"atone.sagas.unclaimable": 1, "atone.sagas.in_flight": 7}
    now = 41.0
    assert shown() == {"atone.sagas.unclaimable": 0, "atone.sagas.in_flight": 2}
    now = 401.0
    assert shown() == {}
    prometheus.looked(Looked(0, 0, 0, 1, "new", 0.5))
    assert shown() == {"atone.sagas.unclaimable": 0, "atone.sagas.in_flight": 1}


def _stores(folder: Path) -> Iterable[Any]:
    yield SqliteStore(folder / "counted.db")
    yield MemoryStore(allow_volatile=True)


def test_every_store_counts_alike(tmp_path: Path) -> None:
    """An empty store too; finished sagas are in no count."""

    async def counted(store: Any) -> tuple[Census, Census]:
        world = World()
        async with store:
            empty = await store.census()
        async with _opened(store, PlaceOrder(world), telemetry=()) as orchestrator:
            await orchestrator.execute(PlaceOrder, Order(), saga_id="over")
            world.script("charge", *[hangs] * 2)
            for saga_id in "ab":
                await orchestrator.start(PlaceOrder, Order(), saga_id=saga_id)
            await world.reached("charge", 3)
            return empty, await store.census()

    for store in _stores(tmp_path):
        empty, census = run(counted(store))
        assert empty.counts == ()
        assert empty.now > 0
        (count,) = census.counts
        assert count == Count("PlaceOrder", "running", 2, count.oldest_at)
        assert census.now - 60 < count.oldest_at <= census.now


def test_the_census_reads_an_index_of_unfinished_sagas_alone(tmp_path: Path) -> None:
    """A million finished sagas cost it nothing."""
    from atone.stores import _sqlite_read
    from atone.stores._sqlite_file import open_file

    connection = open_file(str(tmp_path / "plan.db"), 1.0)
    plan = " ".join(str(row) for row in connection.execute("EXPLAIN QUERY PLAN " + _sqlite_read._COUNT))
    connection.close()
    assert "sagas_unfinished" in plan


def test_a_store_that_is_away_is_counted_later(tmp_path: Path) -> None:
    """A census that fails is no reason for a worker to stop, nor for a gauge to lie."""
    heard: list[Census] = []

    class Listens(Observer):
        census_seconds = 0.01

        def counted(self, census: Census) -> None:
            heard.append(census)

    class Away(SqliteStore):
        asked = 0

        async def census(self) -> Census:
            self.asked += 1
            if self.asked < 3:
                raise StoreUnavailable("the line is cut")
            return await super().census()

    async def main() -> None:
        async with _opened(Away(tmp_path / "sagas.db"), PlaceOrder(World()), telemetry=Listens()):
            await until(lambda: bool(heard))

    run(main())


def test_both_bridges_have_every_metric(tmp_path: Path) -> None:
    """One list for both: none is forgotten in one of them."""
    scraped, read, world = Scraped(), Read(), World()
    for bridge in (scraped, read):
        for observer in bridge.telemetry.parts or (bridge.telemetry,):
            for metric in COUNTERS:
                observer._meter.counter(metric, ("x",) * len(metric.labels))(1)
            for metric in HISTOGRAMS:
                observer._meter.histogram(metric, ("x",) * len(metric.labels))(1)

    async def main() -> None:
        world.script("charge", hangs)
        telemetry = [scraped.telemetry, read.telemetry]
        async with _opened(sqlite(tmp_path), PlaceOrder(world), telemetry=telemetry) as orchestrator:
            await orchestrator.start(PlaceOrder, Order(), saga_id="1")
            await _until_it_shows(scraped, "atone_sagas_in_flight", 1)
            await _until_it_shows(read, "atone_sagas_in_flight", 1)
            for bridge in (scraped, read):
                await _until(bridge, lambda now: "atone_sagas_unfinished" in _names(now))
            there = [_names(await asyncio.to_thread(bridge.values)) for bridge in (scraped, read)]
            assert there[0] == there[1]
            assert len(there[0]) == len(COUNTERS) + len(HISTOGRAMS) + len(GAUGES)

    run(main())


def _names(values: Values) -> set[str]:
    plain = (re.sub(r"_(?:bucket|count|sum)$", "", name) for name, _ in values if not name.endswith("_created"))
    return {name for name in plain if name.startswith("atone_")}


def test_a_registry_takes_the_metrics_once() -> None:
    """The second object is told what to do instead."""
    registry = CollectorRegistry()
    Prometheus(registry=registry)
    with pytest.raises(DefinitionError, match="the same Prometheus object"):
        Prometheus(registry=registry)


def test_the_page_is_for_this_machine_unless_said_otherwise() -> None:
    """It has no password; a port that is taken is an error of ours."""
    telemetry = Prometheus(registry=CollectorRegistry())
    with telemetry.serve(0) as serving:
        assert serving._server.server_address[0] == "127.0.0.1"
        with pytest.raises(AtoneError, match="free port"):
            telemetry.serve(serving.port)


@pytest.mark.parametrize(
    ("module", "missing", "extra"),
    [("opentelemetry", "opentelemetry", "otel"), ("prometheus", "prometheus_client", "prometheus")],
)
def test_a_missing_extra_says_what_brings_it(module: str, missing: str, extra: str) -> None:
    """Whoever imports the bridge without its library is told the command."""
    code = f"import sys; sys.modules['{missing}'] = None; import atone.integrations.{module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f'pip install "atone[{extra}]"' in done.stderr
