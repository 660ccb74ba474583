"""The process whose relay is tormented: an orchestrator with events, and a broker that writes down what it is given.

Owns the sagas, short and of every end, and the ledger: one line a message in a file that no kill takes back, in the
order in which they came, from all processes. Must not judge. Started by `relays`; ends with its parent.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import sys
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from atone import Context, Orchestrator, Reject, Retry, Saga, SagaStatus, Tried, step
from atone._messaging import relay
from atone._messaging.posting import Report
from atone._runtime import messaging
from atone.broker import Message, Outgoing, Published
from atone.errors import BrokerUnavailable
from atone.orchestrator import Limits
from atone.store import FINAL_STATUSES, Posting, Store
from atone.stores import _sqlite_outbox
from atone.stores.postgres import PostgresStore
from atone.stores.sqlite import SqliteStore

UNFINISHED = [status for status in SagaStatus if status.value not in FINAL_STATUSES]
_AT_ONCE = Retry(attempts=50, initial=0.0, jitter=0.0)
_RELAY_LEASE_SECONDS = 0.4


class Life(msgspec.Struct):
    """What one process is to do. `url`: a PostgreSQL instead of a file in the folder. `drain`: start nothing, and leave
    when every saga is over and nothing waits. `breaks`: the fault that the run is to find, if it is to find one.
    """

    folder: str
    name: str
    seed: int
    feeders: int = 4
    drain: bool = False
    url: str | None = None
    breaks: str = ""


class Line(msgspec.Struct):
    """One message as the broker got it."""

    id: str
    key: str
    topic: str
    body: str


class Ledger:
    """A broker that appends to a file. Now and then it takes a part of a batch, or all of it, and does not answer."""

    message_bytes_max = 1_000_000

    def __init__(self, file: Path, seed: int) -> None:
        self._file = file
        self._random = random.Random(seed)

    async def __aenter__(self) -> Self:
        self._to = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._to)

    async def publish(self, messages: Sequence[Message]) -> Sequence[Published]:
        """Write them down in this order; a kill may come between any two."""
        is_cut = self._random.random() < 0.1
        for message in messages[: self._random.randint(0, len(messages))] if is_cut else messages:
            line = Line(message.id, message.key, message.topic, message.body.decode())
            # A kill may tear a line, never the next process's one: that begins anew.
            os.write(self._to, b"\n" + msgspec.json.encode(line) + b"\n")
            if self._random.random() < 0.2:
                await asyncio.sleep(self._random.uniform(0, 0.003))
        if is_cut:
            raise BrokerUnavailable("cut off; nobody knows how much of it was taken")
        return [Published.DURABLE] * len(messages)


class Errand(Saga[int], late_grace=0):
    """Three short steps: the last is sometimes refused, the second sometimes does not answer."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    async def _work(self) -> None:
        await asyncio.sleep(self._random.uniform(0, 0.004))

    @step(retry=_AT_ONCE, barrier=True)
    async def first(self, ctx: Context[int]) -> str:
        await self._work()
        return "one"

    @first.compensation(retry=_AT_ONCE)
    async def undo_first(self, ctx: Context[int], tried: Tried[str]) -> None:
        await self._work()

    @step(first, retry=_AT_ONCE, barrier=True)
    async def second(self, ctx: Context[int], one: str) -> str:
        await self._work()
        if self._random.random() < 0.2:
            raise ConnectionError("no answer")
        return "two"

    @second.compensation(retry=_AT_ONCE)
    async def undo_second(self, ctx: Context[int], tried: Tried[str]) -> None:
        await self._work()

    @step(second, retry=_AT_ONCE, barrier=True)
    async def third(self, ctx: Context[int], two: str) -> str:
        await self._work()
        if ctx.input % 4 == 0:
            raise Reject("no more of it")
        return "three"

    @third.compensation(retry=_AT_ONCE)
    async def undo_third(self, ctx: Context[int], tried: Tried[str]) -> None:
        await self._work()


def store_of(life: Life) -> SqliteStore | PostgresStore:
    """Return the store to live on."""
    if life.url is None:
        return SqliteStore(Path(life.folder) / "sagas.db")
    return PostgresStore(life.url, migrate=False)


async def live(life: Life) -> None:
    """Run sagas until killed, or to the end of all of them."""
    store, ledger = store_of(life), Ledger(Path(life.folder) / "ledger.jsonl", life.seed)
    sagas = [Errand(life.seed)]
    limits = Limits(lease_seconds=0.6, poll_seconds=0.05, grace_seconds=20.0)
    options: dict[str, Any] = {"broker": ledger, "events": True, "limits": limits}
    async with Orchestrator(store, sagas=sagas, **options) as orchestrator:
        print("ready", flush=True)
        if life.drain:
            await _until_over(orchestrator, store)
            return
        async with asyncio.TaskGroup() as feeders:
            for number in range(life.feeders):
                feeders.create_task(_feed(orchestrator, f"{life.name}-{number}"))


async def _feed(orchestrator: Orchestrator, name: str) -> None:
    for number in itertools.count():
        await orchestrator.execute(Errand, number, saga_id=f"{name}-{number}")


async def _until_over(orchestrator: Orchestrator, store: Store) -> None:
    assert isinstance(store, Posting)
    while True:
        left = await orchestrator.list(Errand, status=UNFINISHED, limit=1)
        if not left and not (await store.outstanding()).waiting:
            return
        await asyncio.sleep(0.05)


def break_it(fault: str) -> None:
    """Take a rule out, to see that the verdict finds it."""
    if fault == "told_too_early":
        relay.Relay._publish = _told_too_early
    elif fault == "no_heads":
        condition = "AND NOT EXISTS (SELECT 1 FROM outbox AS e WHERE e.key = o.key AND e.ref < o.ref)"
        assert condition in _sqlite_outbox._HEADS
        _sqlite_outbox._HEADS = _sqlite_outbox._HEADS.replace(condition, "").replace("ref, key", "ref, ref")
        _sqlite_outbox._OF_KEY = "SELECT ref FROM outbox WHERE ref = ? LIMIT ?"


async def _told_too_early(
    self: relay.Relay, outgoing: Sequence[Outgoing], until: float
) -> Report:  # what was claimed is forgotten before the broker has it
    refs = [one.ref for one in outgoing]
    await self._outbox.relay("early", published=refs, refused={}, limit=0, lease_seconds=0)
    with contextlib.suppress(BrokerUnavailable):
        await self._posting.publish([one.message for one in outgoing])
    return Report()


def leave_with_parent() -> None:
    """End when the parent's end of stdin is gone."""

    def wait() -> None:
        sys.stdin.read()
        os._exit(3)

    threading.Thread(target=wait, daemon=True).start()


def main() -> None:
    life = msgspec.json.decode(sys.argv[1], type=Life)
    leave_with_parent()
    messaging.Relay = partial(relay.Relay, lease_seconds=_RELAY_LEASE_SECONDS)
    break_it(life.breaks)
    asyncio.run(live(life))


if __name__ == "__main__":
    main()
