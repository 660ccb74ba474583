"""The process that is killed: one orchestrator on a shared SQLite file, told what to do by its command line and stdin.

Owns nothing that must survive: sagas are in the store, effects at the participant, and what callers were told is noted
in a file, a line at a time. Must not judge. Started by `processes`, which talks to it in JSON lines.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
import sys
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from atone import Compensated, Completed, Orchestrator, Saga, SagaStatus
from atone.errors import RequestRefused
from atone.orchestrator import Limits
from atone.outcome import Outcome
from atone.store import FINAL_STATUSES
from tests.crash.definitions import EVENT, SHAPES, Script, all_sagas, random_saga
from tests.crash.participant import Participant

UNFINISHED = [status for status in SagaStatus if status.value not in FINAL_STATUSES]


@dataclass(frozen=True)
class Files:
    """Where everything lies in a run's folder."""

    folder: Path

    @property
    def store(self) -> Path:
        return self.folder / "sagas.db"

    @property
    def participant(self) -> Path:
        return self.folder / "participant.db"

    @property
    def notes(self) -> Path:
        return self.folder / "notes.jsonl"

    @property
    def errors(self) -> Path:
        return self.folder / "stderr.txt"


class Life(msgspec.Struct):
    """What one process is to do. `feeders` start random sagas one after the other for ever, named after `name`.

    `drain`: start nothing, wait until every saga is over, then leave.
    """

    folder: str
    name: str
    seed: int = 0
    feeders: int = 0
    drain: bool = False
    lease_seconds: float = 0.6
    poll_seconds: float = 0.05
    keep_seconds: float = 2.0


class Notes:
    """What callers of this process were told, written before anything else can happen."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write(self, **what: Any) -> None:
        """Append one line; it survives a SIGKILL that comes right after."""
        os.write(self._file, (json.dumps(what) + "\n").encode())

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def say(**what: Any) -> None:
    """Tell the parent."""
    print(json.dumps(what), flush=True)


async def live(life: Life) -> None:
    """Open the orchestrator and do what was asked until killed, or told to leave."""
    files = Files(Path(life.folder))
    participant, notes = Participant(files.participant), Notes(files.notes)
    limits = Limits(
        lease_seconds=life.lease_seconds,
        poll_seconds=life.poll_seconds,
        keep_seconds=life.keep_seconds,
        loop_stall_seconds=5.0,
    )
    async with Orchestrator(f"sqlite:///{files.store}", sagas=all_sagas(participant), limits=limits) as orchestrator:
        say(ready=os.getpid())
        orders = _orders()
        if life.drain:
            await _drain(orchestrator)
        elif life.feeders:
            await _feed(orchestrator, life, notes)
        else:
            await _obey(orchestrator, notes, orders)
    participant.close()
    notes.close()


async def run_saga(
    orchestrator: Orchestrator, shape: type[Saga[Script]], saga_id: str, script: Script, notes: Notes
) -> None:
    """Start one saga and wait for its end; note both as soon as they are told."""
    handle = await orchestrator.start(shape, script, saga_id=saga_id)
    notes.write(started=saga_id)
    asked = [
        asyncio.create_task(_after(seconds, ask))
        for seconds, ask in (
            (script.cancel_after, lambda: handle.cancel(reason="changed my mind")),
            (script.event_after, lambda: handle.send_event(EVENT, "now", event_id=f"{EVENT}-{saga_id}")),
        )
        if seconds is not None
    ]
    outcome = await handle.outcome()
    notes.write(ended=saga_id, status=_status_of(outcome))
    await asyncio.gather(*asked)


async def _after(seconds: float, ask: Callable[[], Awaitable[object]]) -> None:
    await asyncio.sleep(seconds)
    with contextlib.suppress(RequestRefused):  # it was over already
        await ask()


def _status_of(outcome: Outcome) -> str:
    match outcome:
        case Completed():
            return "completed"
        case Compensated():
            return "compensated"
        case _:
            return repr(outcome)


async def _feed(orchestrator: Orchestrator, life: Life, notes: Notes) -> None:
    numbers = itertools.count()

    async def feeder() -> None:
        for number in numbers:
            saga_id = f"{life.name}-{number:05d}"
            shape, script = random_saga(f"{life.seed}-{saga_id}")
            await run_saga(orchestrator, shape, saga_id, script, notes)

    await asyncio.gather(*[feeder() for _ in range(life.feeders)])


async def _drain(orchestrator: Orchestrator) -> None:
    while await orchestrator.list(status=UNFINISHED, limit=1):  # noqa: ASYNC110 - other processes' sagas count too
        await asyncio.sleep(0.05)


async def _obey(orchestrator: Orchestrator, notes: Notes, orders: asyncio.Queue[dict[str, Any]]) -> None:
    """Do as told: {"start": id, "shape": name, "gate": file} runs a saga, {"leave": true} ends this."""
    shapes = {shape.__name__: shape for shape in SHAPES}
    running: set[asyncio.Task[None]] = set()
    while "leave" not in (order := await orders.get()):
        script = Script(gate=order.get("gate"))
        work = run_saga(orchestrator, shapes[order["shape"]], order["start"], script, notes)
        running.add(asyncio.create_task(work))
    for task in running:
        task.cancel()


def _orders() -> asyncio.Queue[dict[str, Any]]:
    """Return what comes on stdin, line by line; the process ends with the parent's end of the pipe."""
    loop = asyncio.get_running_loop()
    orders: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    def listen() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(orders.put_nowait, json.loads(line))
        os._exit(3)

    threading.Thread(target=listen, name="orders", daemon=True).start()
    return orders


def main() -> None:
    logging.basicConfig(level=logging.WARNING, format=f"%(relativeCreated)d {os.getpid()} %(name)s %(message)s")
    asyncio.run(live(msgspec.json.decode(sys.argv[1], type=Life)))


if __name__ == "__main__":
    main()
