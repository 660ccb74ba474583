"""Threads that hold nothing up: neither a closing nor the end of the process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from concurrent.futures import wait
from pathlib import Path

import pytest

from atone import Context, Orchestrator, Saga, step
from atone._runtime.aside import aside
from atone._threads import DaemonThreads
from atone.orchestrator import Limits


def test_as_many_run_at_once_as_are_allowed_and_the_rest_waits() -> None:
    """Three calls, two threads: the third begins when one of the others has ended."""
    threads, gate = DaemonThreads(2, "test"), threading.Event()
    both = threading.Barrier(3)

    def held() -> int:
        both.wait(20)
        assert gate.wait(20)
        return 1

    first = [threads.submit(held), threads.submit(held)]
    both.wait(20)
    third = threads.submit(lambda: 2)
    assert not third.running()
    gate.set()
    wait([*first, third], timeout=20)
    assert [done.result() for done in (*first, third)] == [1, 1, 2]
    threads.shutdown()
    with pytest.raises(RuntimeError):
        threads.submit(lambda: None)


def test_an_error_in_a_thread_is_told_and_the_thread_lives_on() -> None:
    """SystemExit in user code ends neither the thread nor the process."""
    threads = DaemonThreads(1, "test")
    with pytest.raises(SystemExit):
        threads.submit(sys.exit, 3).result(20)
    assert threads.submit(lambda: "still here").result(20) == "still here"
    threads.shutdown()


class Hoarder(Saga[int], late_grace=0):
    """Fills the event loop's own executor and never gives it back."""

    def __init__(self, gate: threading.Event) -> None:
        self.gate = gate
        self.taken = asyncio.Semaphore(0)

    @step(no_compensation="a test")
    async def hoard(self, ctx: Context[int]) -> None:
        loop = asyncio.get_running_loop()
        stuck = [loop.run_in_executor(None, self.gate.wait, 60) for _ in range(64)]
        self.taken.release()
        await asyncio.gather(*stuck)


def test_closing_does_not_wait_for_an_executor_that_user_code_has_filled(tmp_path: Path) -> None:
    """The worker retires through a thread of its own; with the loop's executor it would wait for the gate."""

    async def main() -> None:
        gate = threading.Event()
        saga = Hoarder(gate)
        limits = Limits(grace_seconds=0.05, cancel_grace_seconds=0.05)
        try:
            async with asyncio.timeout(30):
                async with Orchestrator(f"sqlite:///{tmp_path}/s.db", sagas=[saga], limits=limits) as orchestrator:
                    await orchestrator.start(Hoarder, 1, saga_id="1")
                    await saga.taken.acquire()
            assert not gate.is_set()
            assert await aside(lambda: "a thread of its own") == "a thread of its own"
        finally:
            gate.set()

    asyncio.run(main())


STUCK = """
import asyncio, sys, threading
from atone import Context, Orchestrator, Saga, step
from atone.orchestrator import Limits

begun = threading.Event()

class Stuck(Saga[int]):
    @step(no_compensation="a test")
    def hang(self, ctx: Context[int]) -> None:
        begun.set()
        threading.Event().wait()

async def main():
    limits = Limits(grace_seconds=0.05, cancel_grace_seconds=0.05)
    async with Orchestrator("sqlite:///" + sys.argv[1], sagas=[Stuck()], limits=limits) as orchestrator:
        await orchestrator.start(Stuck, 1, saga_id="1")
        while not begun.is_set():
            await asyncio.sleep(0.001)
    print("closed")

asyncio.run(main())
"""


def test_a_plain_function_that_never_returns_does_not_keep_the_process(tmp_path: Path) -> None:
    """After a clean closing the process ends; to the saga it is a crash, and another worker repeats the call."""
    command = [sys.executable, "-c", STUCK, str(tmp_path / "s.db")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.stdout == "closed\n", ended.stderr
    assert ended.returncode == 0, ended.stderr
