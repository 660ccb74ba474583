"""The pytest plugin: what a marked test is given, what a failure shows, and that nobody else notices it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

pytest_plugins = ["pytester"]

PLUGIN = "atone.testing.pytest_plugin"
# An environment that was made before the entry point was there loads it by name.
ENTRY_POINTS = entry_points(group="pytest11")
LOADED = [] if any(one.value == PLUGIN for one in ENTRY_POINTS) else ["-p", PLUGIN]

SAGA = """
import asyncio
import pytest
from dataclasses import dataclass
from atone import Completed, Context, Saga, step

class Pay(Saga[int]):
    @step(no_compensation="a test")
    async def charge(self, ctx: Context[int]) -> int:
        await asyncio.sleep(5)
        return ctx.input
"""


def _run(pytester: pytest.Pytester, code: str, *options: str) -> pytest.RunResult:
    pytester.makepyfile(SAGA + code)
    return pytester.runpytest_inprocess(*LOADED, "--strict-markers", "-p", "no:cacheprovider", *options)


IN_SIMULATION = """
@pytest.mark.saga(schedules=3)
async def test_pays(saga_orchestrator, saga_clock):
    async with saga_orchestrator(Pay()) as orchestrator:
        began = saga_clock.time()
        outcome = await orchestrator.execute(Pay, 7, saga_id="one")
        assert outcome == Completed({"charge": 7})
        assert saga_clock.time() - began >= 5
"""


def test_a_marked_async_test_runs_in_the_simulation_once_for_each_seed(pytester: pytest.Pytester) -> None:
    """Three schedules are three tests; five virtual seconds take none."""
    _run(pytester, IN_SIMULATION, "-v").assert_outcomes(passed=3)


def test_options_say_which_seeds(pytester: pytest.Pytester) -> None:
    """One seed by its number, or so many schedules as asked for."""
    _run(pytester, IN_SIMULATION, "-v", "--saga-seed", "41").stdout.fnmatch_lines(["*test_pays?seed41? PASSED*"])
    _run(pytester, IN_SIMULATION, "--saga-schedules", "2").assert_outcomes(passed=2)


def test_methods_and_other_parameters_work(pytester: pytest.Pytester) -> None:
    """A test in a class, with parameters and a fixture of its own; the mark stands on the module."""
    code = """
pytestmark = pytest.mark.saga(schedules=2)

@pytest.fixture
def ten():
    return 10

class TestPay:
    @pytest.mark.parametrize("cents", [1, 2])
    async def test_pays(self, cents, ten, saga_orchestrator):
        async with saga_orchestrator(Pay()) as orchestrator:
            assert await orchestrator.execute(Pay, cents * ten, saga_id="one") == Completed({"charge": cents * ten})

def test_plain(saga_simulation):
    async def main():
        await asyncio.sleep(3600)
        return 1
    assert saga_simulation.run(main) == 1
"""
    _run(pytester, code).assert_outcomes(passed=6)


def test_a_failure_shows_the_seed_what_happened_and_the_line_that_repeats_it(pytester: pytest.Pytester) -> None:
    """What stands below a failed test is enough to see it again."""
    code = """
@pytest.mark.saga(schedules=2)
async def test_pays(saga_simulation, saga_seed):
    async def work():
        saga_simulation.point("the card is charged")
    await saga_simulation.process("worker", work).wait()
    assert saga_seed == 0
"""
    result = _run(pytester, code)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        ["*- saga -*", "seed 1, *", "replay: pytest *::test_pays[[]seed1[]]' --saga-seed 1", "*the card is charged"]
    )


def test_what_fails_where_nobody_waits_fails_the_test(pytester: pytest.Pytester) -> None:
    """An exception in a callback is no line in a log: the test fails."""
    code = """
@pytest.mark.saga(schedules=1)
async def test_pays():
    asyncio.get_running_loop().call_soon(lambda: 1 / 0)
    await asyncio.sleep(1)
"""
    result = _run(pytester, code)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*where nobody waited*ZeroDivisionError*"])


@pytest.mark.parametrize("how", ["schedules=0", "schedules='many'", "200", "seeds=3"])
def test_a_mark_that_makes_no_sense_is_refused(pytester: pytest.Pytester, how: str) -> None:
    """The message says what to write."""
    result = _run(pytester, f"@pytest.mark.saga({how})\nasync def test_pays(): pass\n")
    result.stdout.fnmatch_lines(["*@pytest.mark.saga takes schedules=*"])
    assert result.ret != 0


def test_tests_without_the_mark_are_left_alone(pytester: pytest.Pytester) -> None:
    """Plain tests, and anyio's async ones, beside a marked one."""
    code = """
@pytest.fixture
def anyio_backend():
    return "asyncio"

def test_plain():
    pass

@pytest.mark.anyio
async def test_anyio():
    assert "Simulated" not in type(asyncio.get_running_loop()).__name__

@pytest.mark.anyio
@pytest.mark.saga(schedules=1)
async def test_both():
    assert "Simulated" in type(asyncio.get_running_loop()).__name__
"""
    _run(pytester, code).assert_outcomes(passed=3)


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_pytest_asyncio_keeps_its_tests_and_gets_none_of_ours(pytester: pytest.Pytester, mode: str) -> None:
    """In its automatic mode too, in which it takes every async test that it finds."""
    if importlib.util.find_spec("pytest_asyncio") is None:
        pytest.skip("pytest-asyncio is not installed")
    code = """
@pytest.mark.asyncio
async def test_theirs():
    assert "Simulated" not in type(asyncio.get_running_loop()).__name__

@pytest.mark.saga(schedules=2)
async def test_ours(saga_clock):
    assert "Simulated" in type(asyncio.get_running_loop()).__name__
    await asyncio.sleep(3600)
"""
    pytester.makepyfile(SAGA + code)
    loaded = (
        [] if any(one.value == "pytest_asyncio.plugin" for one in ENTRY_POINTS) else ["-p", "pytest_asyncio.plugin"]
    )
    options = [*loaded, "-o", f"asyncio_mode={mode}", "-W", "ignore::DeprecationWarning"]
    result = pytester.runpytest_subprocess(*LOADED, *options, "-p", "no:cacheprovider")
    result.assert_outcomes(passed=3)


def test_without_a_marked_test_nothing_of_the_runtime_is_imported() -> None:
    """Whoever has Atone installed and tests something else pays for the definitions' names, and no more."""
    code = f"""
import sys
import {PLUGIN}
heavy = {{name for name in sys.modules if name.startswith("atone")}}
assert not any(name.startswith(("atone._runtime", "atone.stores", "atone.orchestrator")) for name in heavy), heavy
assert "apsw" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


FAILS_AFTER_A_SAGA = """
@pytest.mark.saga(schedules=1)
async def test_pays(saga_orchestrator):
    async with saga_orchestrator(Pay()) as orchestrator:
        await orchestrator.execute(Pay, 7, saga_id="one")
    assert not "all is well"
"""


def test_a_failure_shows_what_the_sagas_did(pytester: pytest.Pytester) -> None:
    """The journal in words, in virtual time, stands below the seed."""
    shown = _run(pytester, FAILS_AFTER_A_SAGA).stdout
    shown.fnmatch_lines(["*replay: pytest *", "Pay/one is completed", "*0.000 s*charge: attempt 1 began*"])
    shown.fnmatch_lines(["*5.000 s*charge: attempt 1 succeeded*"])
