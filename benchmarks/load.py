"""Closed-loop load: so many clients, each running one saga after the other, measured within a window.

Owns the clients, the window after the warm-up, and the CPU time in it, of this process and of the servers that it is
told of. Must not know what a saga is: it awaits what it is given. Used by Atone, the floors and the peers, which so
count in the same way; standard library only, as the peers have environments of their own.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field
from time import perf_counter, process_time
from typing import Any, TypeAlias

from benchmarks.guarded import cpu_seconds

RunOne: TypeAlias = Callable[[int, int], Awaitable[object]]


# What a process prints when it could begin now; it begins when it is given a line. Then one line with what it found.
READY = "READY"
RESULT = "RESULT "


@dataclass
class Loaded:
    """What one run of one side showed. `finished` counts the sagas that ended in the window, `sagas` all of the run.

    `cpu_seconds` is the CPU time of the whole process, all threads, in the window, with that of the helpers it named;
    `server_cpu_seconds` that of the servers.
    """

    finished: int
    sagas: int
    seconds: float
    cpu_seconds: float
    p50_ms: float
    p99_ms: float
    server_cpu_seconds: float = 0.0
    turns: int = 0
    batches: int = 0
    disk_bytes: int = 0
    versions: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def sagas_per_second(self) -> float:
        """How many sagas ended in a second."""
        return self.finished / self.seconds

    @property
    def cpu_us_per_saga(self) -> float:
        """CPU microseconds of the process for one saga."""
        return self.cpu_seconds / self.finished * 1e6

    @property
    def server_cpu_us_per_saga(self) -> float:
        """CPU microseconds of the servers for one saga."""
        return self.server_cpu_seconds / self.finished * 1e6


def await_go() -> None:
    """Tell the process that started this one that all is set up, and wait until it says go."""
    print(READY, flush=True)
    if not sys.stdin.readline():
        raise SystemExit("Nobody says go; this is started by another benchmark.")


def tell(loaded: Loaded) -> None:
    """Tell what was found."""
    print(RESULT + json.dumps(asdict(loaded)), flush=True)


def told(line: str) -> Loaded | None:
    """Return what a line tells, if it is the one that tells; a library may print lines of its own."""
    if not line.startswith(RESULT):
        return None
    found: dict[str, Any] = json.loads(line.removeprefix(RESULT))
    return Loaded(**found)


class _Window:
    def __init__(self) -> None:
        self.open = False
        self.stopping = False
        self.sagas = 0
        self.latencies: list[float] = []


async def closed_loop(
    run_one: RunOne,
    *,
    inflight: int,
    warmup_seconds: float,
    seconds: float,
    servers: Collection[int] = (),
    helpers: Collection[int] = (),
) -> Loaded:
    """Keep `inflight` sagas under way; measure for `seconds` after the warm-up, then let all of them end.

    `run_one(client, number)` runs one saga to its end. A saga counts if it ends in the window, with its whole latency.
    `servers` and `helpers` are processes whose CPU time counts, with all below them: as the server's, as this one's.
    """
    window = _Window()
    clients = [asyncio.ensure_future(_client(run_one, client, window)) for client in range(inflight)]
    await _pass(warmup_seconds, clients)
    of_servers, of_helpers = cpu_seconds(servers), cpu_seconds(helpers)
    window.open, begun, cpu = True, perf_counter(), process_time()
    await _pass(seconds, clients)
    window.open, ended, cpu = False, perf_counter(), process_time() - cpu
    of_servers, of_helpers = cpu_seconds(servers) - of_servers, cpu_seconds(helpers) - of_helpers
    window.stopping = True
    await asyncio.gather(*clients)
    latencies = sorted(window.latencies)
    if not latencies:
        raise SystemExit(f"No saga ended within {seconds:g} s; give more --seconds.")
    return Loaded(
        finished=len(latencies),
        sagas=window.sagas,
        seconds=ended - begun,
        cpu_seconds=cpu + of_helpers,
        server_cpu_seconds=of_servers,
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
