"""A process that writes to an SQLite store, for tests that need a second one, or one to kill.

It says on standard output what was acknowledged, one line for each turn: key, version, commit id. Run by
test_sqlite_processes.py as `python sqlite_child.py write|create PATH SAGAS`; it waits for a line on standard input.
"""

from __future__ import annotations

import asyncio
import os
import sys
from itertools import count

from atone.store import Birth, Hot, StoredPlan, Turn, TurnResult
from atone.stores.sqlite import SqliteStore

IN_FLIGHT = 20
LAST = 4


async def run_saga(store: SqliteStore, worker: str, number: int, until: int = LAST) -> None:
    key = number.to_bytes(6, "big") + os.urandom(10)
    for version in range(1, until + 1):
        birth = Birth("acme", "Order", key.hex(), 1, "hash") if version == 1 else None
        last = Hot("completed", False, None) if version == LAST else None
        turn = Turn(key, version, os.urandom(16), b"[]", Hot("running", True, None) if birth else last, birth)
        results = await store.commit(worker, [turn])
        assert list(results) == [TurnResult.APPLIED], results
        print(key.hex(), version, turn.commit_id.hex(), flush=True)


async def write(path: str, sagas: int) -> None:
    worker = os.urandom(8).hex()
    numbers = count()
    async with SqliteStore(path) as store:
        store.renew(worker, 60, register=[StoredPlan("Order", 1, "hash", "{}")])

        async def lane() -> None:
            while (number := next(numbers)) < sagas:
                await run_saga(store, worker, number)

        await run_saga(store, worker, sagas, until=1)  # one is left unfinished
        await asyncio.gather(*(lane() for _ in range(IN_FLIGHT)))
        store.renew(worker, 0)


async def create(path: str, sagas: int) -> None:
    async with SqliteStore(path) as store:
        store.renew(os.urandom(8).hex(), 60, register=())


if __name__ == "__main__":
    mode, path, sagas = sys.argv[1:]
    print("ready", flush=True)
    sys.stdin.readline()
    asyncio.run({"write": write, "create": create}[mode](path, int(sagas)))
