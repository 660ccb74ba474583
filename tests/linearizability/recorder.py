"""Record histories: up to six clients at a saga, over several orchestrators and two processes, on a store with faults.

Owns the sessions: which store, which orchestrators, when which client begins, and that one orchestrator loses the store
for good in the middle. It must not judge a history. Run by the tests, and by `python -m tests.linearizability`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import astuple
from random import Random
from typing import Any

from atone.orchestrator import Orchestrator
from atone.stores import open_store
from atone.testing.faults import Fate, Faults, FaultyStore
from tests.linearizability.sagas import QUICK, Client, Parcel
from tests.linearizability.spec import Seen
from tests.linearizability.wgl import Call

CALLS = 3
WAVE = 5  # sagas that are under way at once
WAVE_SECONDS = 0.12
CLIENTS = 6
CLIENTS_ELSEWHERE = 2

History = list[Call]


class ClientFaults(Faults):
    """Faults of everything but the renewals, which come from threads."""

    def __init__(self, chance: Random) -> None:
        rare = {"unsent": 0.01, "unheard": 0.02, "late": 0.02, "slow": 0.15}
        super().__init__(chance, **rare, slow_seconds=0.02, late_seconds=0.06)

    def draw(self, method: str) -> Fate:
        """Return what becomes of a call."""
        return Fate.PASSES if method == "renew" else super().draw(method)


@asynccontextmanager
async def orchestrators(stores: Sequence[Any], chance: Random) -> AsyncIterator[list[tuple[Orchestrator, Faults]]]:
    """Open an orchestrator on each of the stores, which are open, each behind faults of its own."""
    async with AsyncExitStack() as stack:
        opened: list[tuple[Orchestrator, Faults]] = []
        for store in stores:
            faults = ClientFaults(Random(chance.random()))
            faulty = FaultyStore(store, faults)
            faults.away, share = False, faults._shares
            faults.stop()
            orchestrator = await stack.enter_async_context(Orchestrator(faulty, sagas=[Parcel()], limits=QUICK))
            faults._shares = share
            stack.callback(faults.stop)
            opened.append((orchestrator, faults))
        yield opened


async def play(
    opened: Sequence[tuple[Orchestrator, Faults]],
    sagas: Sequence[str],
    clients: range,
    seed: int,
    begin: float,
    *,
    loses_one: bool,
) -> dict[str, History]:
    """Let clients call, saga after saga, from the moment `begin` of the monotonic clock on."""
    playing: list[tuple[str, Client]] = []

    async def one(place: int, saga_id: str, number: int) -> None:
        chance = Random(f"{seed} {saga_id} {number}")
        orchestrator, _ = opened[number % len(opened)]
        client = Client(orchestrator, saga_id, f"c{number}", chance)
        playing.append((saga_id, client))
        at = begin + place // WAVE * WAVE_SECONDS
        await asyncio.sleep(max(0.0, at - time.monotonic()))
        await client.play(CALLS if number else CALLS + 1)

    async def lose() -> None:
        waves = len(sagas) // WAVE
        await asyncio.sleep(max(0.0, begin - time.monotonic()) + waves / 2 * WAVE_SECONDS)
        opened[-1][1].away = True

    async with asyncio.TaskGroup() as group:
        for place, saga_id in enumerate(sagas):
            for number in clients:
                group.create_task(one(place, saga_id, number))
        if loses_one:
            group.create_task(lose())
    histories: dict[str, History] = {saga_id: [] for saga_id in sagas}
    for saga_id, client in playing:
        histories[saga_id] += client.calls
    return histories


async def look_last(orchestrator: Orchestrator, histories: Mapping[str, History]) -> None:
    """Add a last get of each saga, with nothing going wrong."""
    for saga_id in histories:
        client = Client(orchestrator, saga_id, "last", Random(0))
        await client.get()
        histories[saga_id].extend(client.calls)


async def record(stores: Sequence[Any], sagas: int, seed: int, *, url: str | None = None) -> dict[str, History]:
    """Record one history for each saga on stores that are open: one orchestrator each.

    With `url`, two of the clients of each saga are in another process, at the same store.
    """
    chance = Random(seed)
    names = [f"saga-{seed}-{number}" for number in range(sagas)]
    async with orchestrators(stores, chance) as opened:
        elsewhere = None if url is None else await Elsewhere.started(url, names, seed)
        begin = time.monotonic() + (0.02 if elsewhere is None else 0.05)
        told = None if elsewhere is None else asyncio.create_task(elsewhere.play(begin))
        here = range(CLIENTS if elsewhere is None else CLIENTS - CLIENTS_ELSEWHERE)
        histories = await play(opened, names, here, seed, begin, loses_one=seed % 2 == 1)
        if told is not None:
            for saga_id, calls in (await told).items():
                histories[saga_id] += calls
        for _, faults in opened:
            faults.stop()
        await look_last(opened[0][0], histories)
    return histories


class Elsewhere:
    """Clients in another process: `python -m tests.linearizability.recorder URL SEED SAGA ...`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def started(cls, url: str, sagas: Sequence[str], seed: int) -> Elsewhere:
        """Start the process and wait until it is ready."""
        pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE, "limit": 2**24}
        module = "tests.linearizability.recorder"
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", module, url, str(seed), *sagas, **pipes)
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        return cls(process)

    async def play(self, begin: float) -> dict[str, History]:
        """Let them call, and return what they did."""
        told, _ = await self._process.communicate(f"{begin}\n".encode())
        assert self._process.returncode == 0
        found: dict[str, list[Any]] = json.loads(told)
        return {saga_id: [_call_of(*one) for one in calls] for saga_id, calls in found.items()}


def _call_of(asked: list[Any], answer: Any, invoked: float, returned: float) -> Call:
    if isinstance(answer, list):
        given, status, version, requests, taken, shipped = answer
        answer = Seen(given, status, version, tuple(requests), taken, shipped)
    return Call(tuple(asked), answer, invoked, returned)


async def _be_elsewhere(url: str, seed: int, sagas: Sequence[str]) -> None:
    logging.disable(logging.CRITICAL)  # what the faults make Atone say
    async with open_store(url, must_exist=True) as store, orchestrators([store], Random(-seed)) as opened:
        print("ready", flush=True)
        line = await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        numbers = range(CLIENTS - CLIENTS_ELSEWHERE, CLIENTS)
        histories = await play(opened, sagas, numbers, seed, float(line), loses_one=False)
    print(json.dumps({saga_id: [astuple(call) for call in calls] for saga_id, calls in histories.items()}))


if __name__ == "__main__":
    asyncio.run(_be_elsewhere(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
