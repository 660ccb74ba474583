"""The process that is tormented: one orchestrator on a shared store, told what to do by its command line and stdin.

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
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from atone import Compensated, Completed, Orchestrator, Saga, SagaStatus
from atone.errors import OutcomeTimeout, RequestRefused, StoreUnavailable, UnknownSaga
from atone.orchestrator import Handle, Limits
from atone.outcome import Outcome
from atone.store import FINAL_STATUSES, Store
from tests.crash.definitions import EVENT, SHAPES, Script, all_sagas, random_saga
from tests.crash.participant import Participant
from tests.crash.witness import Notes, Refusals, Witness

T = TypeVar("T")

UNFINISHED = [status for status in SagaStatus if status.value not in FINAL_STATUSES]


@dataclass(frozen=True)
class Files:
    """Where everything lies in a run's folder; `url` is the store's address if that is no file in it."""

    folder: Path
    url: str | None = None

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
    """What one process is to do. `feeders` start random sagas one after the other, named after `name`, until told.

    `drain`: start nothing, wait until every saga is over, then leave. `url`: a PostgreSQL instead of a file in the
    folder. `loses`: the store may lose what it has acknowledged, so callers look whether their sagas are there, and
    start them again if not. `stops_in_registration`: it stops itself inside the transaction of its n-th one.
    `late_news_seconds`: how late it hears that it is dead, other than by a commit.
    """

    folder: str
    name: str
    seed: int = 0
    feeders: int = 0
    drain: bool = False
    lease_seconds: float = 0.6
    poll_seconds: float = 0.05
    keep_seconds: float = 2.0
    url: str | None = None
    statement_seconds: float = 0.6
    loses: bool = False
    stops_in_registration: int = 0
    late_news_seconds: float = 0.0


def say(**what: Any) -> None:
    """Tell the parent."""
    print(json.dumps(what), flush=True)


def store_of(life: Life, notes: Notes) -> Store:
    """Return the store to live on, watched; connections to PostgreSQL are named after the process."""
    if life.url is None:
        from atone.stores.sqlite import SqliteStore

        return Witness(SqliteStore(Files(Path(life.folder)).store), notes, life.late_news_seconds)
    from atone.stores.postgres import PostgresStore

    url = f"{life.url}?application_name=atone-{life.name}"
    store = PostgresStore(url, migrate=False, statement_seconds=life.statement_seconds)
    return Witness(store, notes, life.late_news_seconds)


async def live(life: Life) -> None:
    """Open the orchestrator and do what was asked until killed, or told to leave."""
    files = Files(Path(life.folder))
    participant, notes = Participant(files.participant), Notes(files.notes)
    if life.stops_in_registration:
        _stop_in_transaction(life.stops_in_registration)
    limits = Limits(
        lease_seconds=life.lease_seconds,
        poll_seconds=life.poll_seconds,
        keep_seconds=life.keep_seconds,
        loop_stall_seconds=5.0,
    )
    async with Orchestrator(
        store_of(life, notes), sagas=all_sagas(participant), limits=limits, telemetry=Refusals(notes)
    ) as orchestrator:
        say(ready=os.getpid())
        orders = _orders()
        if life.drain:
            await _drain(orchestrator)
        elif life.feeders:
            await _feed(orchestrator, life, notes, orders)
        else:
            await _obey(orchestrator, notes, orders)
    participant.close()
    notes.close()


async def run_saga(
    orchestrator: Orchestrator,
    shape: type[Saga[Script]],
    saga_id: str,
    script: Script,
    notes: Notes,
    *,
    loses: bool = False,
) -> None:
    """Start one saga and wait for its end; note both as soon as they are told."""
    handle = await _patiently(lambda: orchestrator.start(shape, script, saga_id=saga_id))
    notes.write(started=saga_id)
    asked = [
        asyncio.create_task(_after(seconds, ask))
        for seconds, ask in (
            (script.cancel_after, lambda: handle.cancel(reason="changed my mind")),
            (script.event_after, lambda: handle.send_event(EVENT, "now", event_id=f"{EVENT}-{saga_id}")),
        )
        if seconds is not None
    ]
    outcome = await (_insisting(orchestrator, shape, script, handle, notes) if loses else handle.outcome())
    notes.write(ended=saga_id, status=_status_of(outcome))
    await asyncio.gather(*asked)


async def _insisting(
    orchestrator: Orchestrator, shape: type[Saga[Script]], script: Script, handle: Handle[Script], notes: Notes
) -> Outcome:
    """Wait for the end of a saga that may not be there any more; then it is started again under its id."""
    saga_id = handle.saga_id
    while True:
        try:
            return await handle.outcome(timeout=2.0)
        except (OutcomeTimeout, StoreUnavailable):
            pass  # it goes on, or it is gone: look
        try:
            await _patiently(lambda: orchestrator.get(shape, saga_id))
        except UnknownSaga:
            notes.write(started_again=saga_id)
            handle = await _patiently(lambda: orchestrator.start(shape, script, saga_id=saga_id))


async def _patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Do as the error says: send the same call again."""
    while True:
        try:
            return await call()
        except StoreUnavailable:
            await asyncio.sleep(0.1)


async def _after(seconds: float, ask: Callable[[], Awaitable[object]]) -> None:
    await asyncio.sleep(seconds)
    with contextlib.suppress(RequestRefused, UnknownSaga):  # it was over already, or is lost
        await _patiently(ask)


def _status_of(outcome: Outcome) -> str:
    match outcome:
        case Completed():
            return "completed"
        case Compensated():
            return "compensated"
        case _:
            return repr(outcome)


async def _feed(orchestrator: Orchestrator, life: Life, notes: Notes, orders: asyncio.Queue[dict[str, Any]]) -> None:
    """Run sagas, and those it is told to; after {"leave": true} see all to their ends, everybody else's too."""
    numbers = itertools.count()
    leaving = asyncio.Event()
    told: list[asyncio.Task[None]] = []

    async def feeder() -> None:
        while not leaving.is_set():
            saga_id = f"{life.name}-{next(numbers):05d}"
            shape, script = random_saga(f"{life.seed}-{saga_id}")
            await run_saga(orchestrator, shape, saga_id, script, notes, loses=life.loses)

    async def listen() -> None:
        while "leave" not in (order := await orders.get()):
            told.append(asyncio.create_task(_ordered(orchestrator, notes, order)))
        leaving.set()

    await asyncio.gather(listen(), *[feeder() for _ in range(life.feeders)])
    await asyncio.gather(*told)
    await _drain(orchestrator)


async def _drain(orchestrator: Orchestrator) -> None:
    while await _patiently(lambda: orchestrator.list(status=UNFINISHED, limit=1)):  # noqa: ASYNC110 - others end them
        await asyncio.sleep(0.1)  # other processes' sagas count too


async def _obey(orchestrator: Orchestrator, notes: Notes, orders: asyncio.Queue[dict[str, Any]]) -> None:
    """Do as told: {"start": id, "shape": name, "gate": file} runs a saga, {"leave": true} ends this."""
    running: set[asyncio.Task[None]] = set()
    while "leave" not in (order := await orders.get()):
        running.add(asyncio.create_task(_ordered(orchestrator, notes, order)))
    for task in running:
        task.cancel()


async def _ordered(orchestrator: Orchestrator, notes: Notes, order: dict[str, Any]) -> None:
    shapes = {shape.__name__: shape for shape in SHAPES}
    await run_saga(orchestrator, shapes[order["shape"]], order["start"], Script(gate=order.get("gate")), notes)


def _stop_in_transaction(registration: int) -> None:
    """Stop this process inside the transaction of its n-th registration, when everything in it is done but its end."""
    from atone.stores import _postgres_claim

    keep_plans = vars(_postgres_claim)["keep_plans"]
    numbers = itertools.count(1)

    async def keep_and_stop(*values: Any) -> None:
        await keep_plans(*values)
        if next(numbers) == registration:
            # To this very thread: it must not go on while another one is being stopped.
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)

    vars(_postgres_claim)["keep_plans"] = keep_and_stop


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
