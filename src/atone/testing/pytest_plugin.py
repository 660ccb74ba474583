"""Atone for pytest: async tests marked `saga` run in the deterministic simulation, once for each of several seeds.

Owns the marker, the fixtures, the options `--saga-seed` and `--saga-schedules`, and what a failure shows. It touches no
test without the marker, whatever asyncio plugin runs those. The only module here that imports pytest, and it imports
nothing else of Atone until a marked test runs. Loaded by pytest, by its entry point.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any, cast

import pytest

if TYPE_CHECKING:
    from atone.definition import Saga
    from atone.orchestrator import Orchestrator
    from atone.stores.memory import MemoryStore
    from atone.testing.clock import VirtualClock
    from atone.testing.simulate import Simulation

SCHEDULES = 10
LINES_MAX = 60
_SIMULATION = pytest.StashKey["Simulation"]()
_STORE = pytest.StashKey["MemoryStore"]()
_MARKER = "saga(schedules=10): run an async test in Atone's simulation, once for each of so many seeded schedules."


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("atone", "sagas in simulation")
    group.addoption("--saga-seed", type=int, metavar="N", help="run tests marked saga with this seed only")
    group.addoption("--saga-schedules", type=int, metavar="N", help="run tests marked saga with so many seeds each")


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known, for --strict-markers."""
    config.addinivalue_line("markers", _MARKER)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Repeat a marked test for its seeds."""
    marker = metafunc.definition.get_closest_marker("saga")
    if marker is None:
        return
    seeds = _seeds(marker, metafunc.config)
    if "saga_seed" not in metafunc.fixturenames:
        metafunc.fixturenames.append("saga_seed")
    metafunc.parametrize("saga_seed", seeds, ids=[f"seed{seed}" for seed in seeds], indirect=True)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_pycollect_makeitem() -> Generator[None, object, object]:
    """Put a plain function in the place of each marked async one, before any asyncio plugin takes it for its own."""
    made = yield
    for item in _listed(made):
        if isinstance(item, pytest.Function) and item.get_closest_marker("saga") is not None:
            function = cast("Callable[..., Any]", item.function)  # pyright: ignore[reportUnknownMemberType]
            if inspect.iscoroutinefunction(function):
                item.obj = _simulated(item, function)
    return made


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the seed, what happened, and the line that repeats it."""
    report = yield
    simulation = item.stash.get(_SIMULATION, None)
    if report.failed and report.when == "call" and simulation is not None:
        report.sections.append(("saga", _told(item, simulation)))
    return report


@pytest.fixture
def saga_seed(request: pytest.FixtureRequest) -> int:
    """The seed of this run: of the marker's schedules, or `--saga-seed`, or 0."""
    given: int = getattr(request, "param", request.config.getoption("--saga-seed") or 0)
    return given


@pytest.fixture
def saga_simulation(request: pytest.FixtureRequest, saga_seed: int) -> Simulation:
    """The simulation that the marked test runs in; a plain test calls its `run` itself."""
    return _simulation_of(request.node, saga_seed)


@pytest.fixture
def saga_clock(saga_simulation: Simulation) -> VirtualClock:
    """The virtual clock of the simulation."""
    return saga_simulation.clock


@pytest.fixture
def saga_store(request: pytest.FixtureRequest, saga_clock: VirtualClock) -> MemoryStore:
    """A store in memory, on the virtual clock."""
    from atone.stores.memory import MemoryStore

    store = MemoryStore(allow_volatile=True, clock=saga_clock.time)
    cast("pytest.Item", request.node).stash[_STORE] = store
    return store


@pytest.fixture
def saga_orchestrator(saga_store: MemoryStore) -> Callable[..., Orchestrator]:
    """What makes an orchestrator on that store: `async with saga_orchestrator(PlaceOrder(...)) as orchestrator:`."""
    from atone.orchestrator import Orchestrator

    def make(*sagas: Saga[Any], **options: Any) -> Orchestrator:
        return Orchestrator(saga_store, sagas=sagas, **options)

    return make


def _seeds(marker: pytest.Mark, config: pytest.Config) -> Sequence[int]:
    seed, schedules = config.getoption("--saga-seed"), config.getoption("--saga-schedules")
    if seed is not None:
        return [seed]
    asked = schedules if schedules is not None else marker.kwargs.get("schedules", SCHEDULES)
    unknown = sorted(marker.kwargs.keys() - {"schedules"})
    if marker.args or unknown or type(asked) is not int or asked < 1:
        raise pytest.UsageError("@pytest.mark.saga takes schedules=, a whole number, 1 or more. Write schedules=200.")
    return range(asked)


def _listed(made: object) -> list[object]:
    return cast("list[object]", made) if isinstance(made, list) else [made]


def _simulation_of(item: pytest.Item, seed: int) -> Simulation:
    from atone.testing.simulate import Simulation

    simulation = item.stash[_SIMULATION] = Simulation(seed)
    return simulation


def _seed_of(item: pytest.Function) -> int:
    return cast("int", item.callspec.params["saga_seed"])


def _simulated(item: pytest.Function, function: Callable[..., Any]) -> Callable[..., None]:
    def run(**arguments: Any) -> None:
        __tracebackhide__ = True
        simulation = item.stash.get(_SIMULATION, None) or _simulation_of(item, _seed_of(item))
        whose = () if item.instance is None else (item.instance,)
        simulation.run(lambda: function(*whose, **arguments))
        if simulation.errors:
            pytest.fail("Something failed where nobody waited for it: " + "; ".join(simulation.errors), pytrace=False)

    return run


def _told(item: pytest.Item, simulation: Simulation) -> str:
    trace = simulation.trace
    left_out = [f"... {len(trace) - LINES_MAX} lines before ..."] if len(trace) > LINES_MAX else []
    lines = [
        f"seed {simulation.seed}, {simulation.steps} steps, virtual time {simulation.clock.monotonic():.3f} s",
        f"replay: pytest '{item.nodeid}' --saga-seed {simulation.seed}",
        *left_out,
        *trace[-LINES_MAX:],
        *_journals(item),
    ]
    return "\n".join(lines)


def _journals(item: pytest.Item) -> list[str]:
    """Tell what the sagas in `saga_store` have done, in order; of very much the middle is left out."""
    from atone.testing._verify.timeline import journals
    from atone.testing.simulate import Simulation

    store = item.stash.get(_STORE, None)
    if store is None:
        return []
    try:
        lines = Simulation(None).run(lambda: journals(store))
    except Exception as error:  # noqa: BLE001 - what the test itself has to say matters more
        return [f"the journals can't be told: {error!r}"]
    return lines if len(lines) <= 2 * LINES_MAX else [*lines[:LINES_MAX], "...", *lines[-LINES_MAX:]]
