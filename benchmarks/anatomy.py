"""Where the CPU time of a saga goes: accounting by part without sampling, then cProfile's own list.

Owns the clocks around the parts; it replaces functions of the runtime by timed ones, in this process only. Must not run
during a measurement of throughput: a clock costs a microsecond or two, which is measured and taken off.
Shown by `python -m benchmarks.throughput --profile`.
"""

from __future__ import annotations

import asyncio
import cProfile
import functools
import io
import json
import pstats
import threading
from collections import defaultdict
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter_ns, process_time_ns, thread_time_ns
from typing import Any
from unittest.mock import patch

from atone import Orchestrator
from atone._runtime import runner, starter
from atone._runtime.bound import BoundSaga
from atone._runtime.committer import Committer
from atone._runtime.invoke import Invoker
from atone._runtime.runner import Runner
from atone._runtime.worker import Worker
from atone.codec import Schema
from atone.orchestrator import Limits
from atone.store import Store, Turn, TurnResult
from atone.stores.postgres import PostgresStore
from atone.stores.sqlite import SqliteStore
from benchmarks.database import databases
from benchmarks.load import Loaded, closed_loop
from benchmarks.order_saga import AN_ORDER, PlaceOrder, saga_id, the_saga
from benchmarks.recording import WatchedStore

TOP = 40

# part, object, attribute: every call of it counts for the part, less what it spends in other parts. One that is not
# there any more is named in the report, and its time stands in the part around it.
_TIMED: tuple[tuple[str, Any, str], ...] = (
    ("decide", runner, "decide"),
    ("decide", starter, "decide"),
    ("encode rows", runner, "encode_entries"),
    ("payloads", Schema, "encode_and_read"),
    ("payloads", Schema, "decode"),
    ("context", BoundSaga, "context"),
    ("context", BoundSaga, "arguments"),
    ("context", BoundSaga, "tried"),
    ("start", Runner, "begin"),
    ("runner: turn", Runner, "_next"),
    ("runner: turn", Runner, "_write"),
    ("runner: landed", Runner, "_landed"),
    ("runner: landed", Runner, "_applied"),
    ("runner: perform", Runner, "_perform"),
    ("release", Worker, "release"),
)


class Ledger:
    """CPU nanoseconds and calls by part; a part's time excludes the parts within it. Each thread has its own stack."""

    def __init__(self) -> None:
        self.ns: defaultdict[str, int] = defaultdict(int)
        self.calls: defaultdict[str, int] = defaultdict(int)
        self._inner = threading.local()

    def open(self) -> tuple[int, int]:
        """Begin a part; return what `close` wants."""
        before = getattr(self._inner, "ns", 0)
        self._inner.ns = 0
        return thread_time_ns(), before

    def close(self, part: str, opened: tuple[int, int]) -> None:
        """End the part that was begun last."""
        begun, before = opened
        spent = thread_time_ns() - begun
        self.ns[part] += spent - self._inner.ns
        self.calls[part] += 1
        self._inner.ns = before + spent

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function with its time booked under `part`."""

        @functools.wraps(function)
        def call(*args: Any, **keywords: Any) -> Any:
            opened = self.open()
            try:
                return function(*args, **keywords)
            finally:
                self.close(part, opened)

        return call

    def timed_coroutine(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """As `timed`, for a coroutine that never really waits, as those of the benchmark's steps."""

        @functools.wraps(function)
        async def call(*args: Any, **keywords: Any) -> Any:
            opened = self.open()
            try:
                return await function(*args, **keywords)
            finally:
                self.close(part, opened)

        return call


def clock_cost_ns() -> tuple[float, float]:
    """Return what one timed call books under its own part, and what it costs in all."""
    ledger = Ledger()
    nothing = ledger.timed("nothing", lambda: None)
    begun = thread_time_ns()
    for _ in range(20_000):
        nothing()
    return ledger.ns["nothing"] / 20_000, (thread_time_ns() - begun) / 20_000


class _Waits:
    """Wall-clock time from the moment a turn is submitted to the moment its saga hears that it is durable."""

    def __init__(self) -> None:
        self.ns = 0
        self.turns = 0

    def watch(self, submit: Callable[..., None]) -> Callable[..., None]:
        """Return `Committer.submit`, watched."""

        def submitted(committer: Committer, turn: Turn, landed: Callable[[TurnResult], None]) -> None:
            begun = perf_counter_ns()

            def heard(result: TurnResult) -> None:
                self.ns += perf_counter_ns() - begun
                self.turns += 1
                landed(result)

            submit(committer, turn, heard)

        return submitted


@contextmanager
def _clocks(ledger: Ledger, waits: _Waits) -> Generator[None]:
    there = [one for one in _TIMED if hasattr(one[1], one[2])]
    patches = [patch.object(owner, name, ledger.timed(part, getattr(owner, name))) for part, owner, name in there]
    patches.append(patch.object(Invoker, "attempt", ledger.timed_coroutine("invoke", Invoker.attempt)))
    patches.append(patch.object(Committer, "submit", waits.watch(Committer.submit)))
    for one in patches:
        one.start()
    try:
        yield
    finally:
        for one in patches:
            one.stop()


@contextmanager
def _place(kind: str) -> Generator[Callable[[], Store], None, None]:
    """Make an empty file, or an empty database on a server of its own, and give what opens it."""
    if kind == "sqlite":
        with TemporaryDirectory(prefix="atone-anatomy-") as folder:
            yield lambda: SqliteStore(Path(folder) / "anatomy.db")
        return
    with databases() as server, server.one() as name:
        dsn = server.url(name)
        yield lambda: PostgresStore(dsn)


async def _load(inner: Store, workload: str, inflight: int, seconds: float) -> tuple[Loaded, WatchedStore]:
    store = WatchedStore(inner)
    limits = Limits(sagas_in_flight_max=max(Limits.sagas_in_flight_max, 2 * inflight))
    async with Orchestrator(store, sagas=[the_saga(workload)], limits=limits) as orchestrator:

        async def run_one(client: int, number: int) -> None:
            await orchestrator.execute(PlaceOrder, AN_ORDER, saga_id=saga_id(client, number))

        return await closed_loop(run_one, inflight=inflight, warmup_seconds=0.5, seconds=seconds), store


def account(kind: str, workload: str, inflight: int, seconds: float) -> dict[str, Any]:
    """Return CPU microseconds per saga by part; the whole run counts, warm-up included."""
    with _place(kind) as opened:
        return _account(opened(), workload, inflight, seconds) | {"store": kind}


def _account(inner: Store, workload: str, inflight: int, seconds: float) -> dict[str, Any]:
    within, around = clock_cost_ns()
    ledger, waits = Ledger(), _Waits()
    with _clocks(ledger, waits):
        loop_ns, all_ns = thread_time_ns(), process_time_ns()
        loaded, store = asyncio.run(_load(inner, workload, inflight, seconds))
        loop_ns, all_ns = thread_time_ns() - loop_ns, process_time_ns() - all_ns
    sagas = loaded.sagas
    # A clock's cost falls partly into its own part, the rest into the part around it, which here is the remainder.
    parts = {part: (ns - ledger.calls[part] * within) / sagas / 1000 for part, ns in ledger.ns.items()}
    loop = (loop_ns - sum(ledger.calls.values()) * around) / sagas / 1000
    parts["asyncio, clients, committer, the rest"] = loop - sum(parts.values())
    parts["other threads"] = (all_ns - loop_ns) / sagas / 1000
    return {
        "benchmark": "anatomy",
        "workload": workload,
        "inflight": inflight,
        "sagas": sagas,
        "cpu_us_per_saga_by_part": {part: round(us, 1) for part, us in sorted(parts.items(), key=lambda one: -one[1])},
        "calls_per_saga_by_part": {part: round(calls / sagas, 2) for part, calls in ledger.calls.items()},
        "loop_cpu_us_per_saga": round(loop, 1),
        "cpu_us_per_saga": round(loop + (all_ns - loop_ns) / sagas / 1000, 1),
        "commit_wait_ms_per_turn": round(waits.ns / waits.turns / 1e6, 3),
        "turns_per_batch": round(store.turns / store.batches, 1),
        "sagas_per_second_while_watched": round(loaded.sagas_per_second, 1),
        "clock_ns": round(around),
        "parts_not_found": [f"{owner.__name__}.{name}" for _, owner, name in _TIMED if not hasattr(owner, name)],
    }


def profile(kind: str, workload: str, inflight: int, seconds: float) -> str:
    """Return cProfile's list of the event loop's thread, by time within the function, then by time below it."""
    profiler = cProfile.Profile()
    with _place(kind) as opened:
        profiler.enable()
        loaded, _ = asyncio.run(_load(opened(), workload, inflight, seconds))
        profiler.disable()
    text = io.StringIO()
    print(f"cProfile, {kind}, {workload}, {inflight} in flight: {loaded.sagas} sagas", file=text)
    for order in ("tottime", "cumtime"):
        pstats.Stats(profiler, stream=text).strip_dirs().sort_stats(order).print_stats(TOP)
    return text.getvalue()


def show(kind: str, workload: str, inflight: int, seconds: float, *, as_json: bool) -> None:
    """Print the accounting; without `as_json`, cProfile's list as well."""
    found = account(kind, workload, inflight, seconds)
    if as_json:
        print(json.dumps(found), flush=True)
        return
    parts: dict[str, float] = found.pop("cpu_us_per_saga_by_part")
    calls: dict[str, float] = found.pop("calls_per_saga_by_part")
    for name, value in found.items():
        print(f"{name:32} {value}")
    print(f"\n{'part':40} {'us/saga':>8} {'calls':>7}")
    for part, microseconds in parts.items():
        print(f"{part:40} {microseconds:8.1f} {calls.get(part, '')!s:>7}")
    print(f"\n{profile(kind, workload, inflight, seconds)}", flush=True)
