"""Closed-loop load: so many clients, each running one saga after the other, measured within a window.

Owns the clients, the window after the warm-up, and the process's CPU time in it. Must not know what a saga is: it
awaits what it is given. Used by the two sides of `throughput`, which so count in the same way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter, process_time
from typing import TypeAlias

import msgspec

RunOne: TypeAlias = Callable[[int, int], Awaitable[object]]


class Loaded(msgspec.Struct):
    """What one run of one side showed. `finished` counts the sagas that ended in the window, `sagas` all of the run.

    `cpu_seconds` is the CPU time of the whole process, all threads, in the window.
    """

    finished: int
    sagas: int
    seconds: float
    cpu_seconds: float
    p50_ms: float
    p99_ms: float
    turns: int = 0
    batches: int = 0
    disk_bytes: int = 0

    @property
    def sagas_per_second(self) -> float:
        """How many sagas ended in a second."""
        return self.finished / self.seconds

    @property
    def cpu_us_per_saga(self) -> float:
        """CPU microseconds of the process for one saga."""
        return self.cpu_seconds / self.finished * 1e6


class _Window:
    def __init__(self) -> None:
        self.open = False
        self.stopping = False
        self.sagas = 0
        self.latencies: list[float] = []


async def closed_loop(run_one: RunOne, *, inflight: int, warmup_seconds: float, seconds: float) -> Loaded:
    """Keep `inflight` sagas under way; measure for `seconds` after the warm-up, then let all of them end.

    `run_one(client, number)` runs one saga to its end. A saga counts if it ends in the window, with its whole latency.
    """
    window = _Window()
    clients = [asyncio.ensure_future(_client(run_one, client, window)) for client in range(inflight)]
    await _pass(warmup_seconds, clients)
    window.open, begun, cpu = True, perf_counter(), process_time()
    await _pass(seconds, clients)
    window.open, ended, cpu = False, perf_counter(), process_time() - cpu
    window.stopping = True
    await asyncio.gather(*clients)
    latencies = sorted(window.latencies)
    if not latencies:
        raise SystemExit(f"No saga ended within {seconds:g} s; give more --seconds.")
    return Loaded(
        finished=len(latencies),
        sagas=window.sagas,
        seconds=ended - begun,
        cpu_seconds=cpu,
        p50_ms=percentile(latencies, 0.50) * 1000,
        p99_ms=percentile(latencies, 0.99) * 1000,
    )


def percentile(ordered: list[float], share: float) -> float:
    """Return the value below which that share of an ordered list lies."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


async def _client(run_one: RunOne, client: int, window: _Window) -> None:
    number = 0
    while not window.stopping:
        begun = perf_counter()
        await run_one(client, number)
        if window.open:
            window.latencies.append(perf_counter() - begun)
        window.sagas += 1
        number += 1


async def _pass(seconds: float, clients: Sequence[asyncio.Future[None]]) -> None:
    """Let time pass; a client that fails ends the measurement at once."""
    done, _ = await asyncio.wait(clients, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    for client in done:
        client.result()
