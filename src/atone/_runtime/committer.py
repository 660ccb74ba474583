"""Group commit: gathers the turns of all sagas and gives them to the store, one batch in flight at a time.

Nobody waits for a timer: a batch leaves as soon as the previous one is durable. A commit whose outcome is unknown is
sent again, the same turns with the same ids, until the answer is definite or the worker is dead. Called by the
worker's runners; must not look inside a turn.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import perf_counter
from typing import TypeAlias

from atone._runtime.logs import about, report, told
from atone._runtime.telemetry import Telemetry
from atone.errors import StoreClosed, StoreUnavailable, WorkerDead
from atone.store import Store, Turn, TurnResult

log = logging.getLogger("atone.commit")

Landed: TypeAlias = Callable[[TurnResult], None]
FIRST_PAUSE_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 1.0
# A batch is told in two halves, so that the sagas fall into two groups and the store writes one while the other
# decides. All at once, the two would take turns: on PostgreSQL, 100 in flight, two cores, a quarter fewer sagas a
# second. Below this a half is not worth its round trip.
DELIVER_AT_LEAST = 32


class Committer:
    """The one writer of a worker. `on_dead` is called once if the store says that the worker is dead."""

    def __init__(
        self,
        store: Store,
        worker: str | None,
        on_dead: Callable[[], None],
        batch_max: int = 2000,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._store = store
        self._worker = worker
        self._on_dead = on_dead
        self._batch_max = batch_max
        self._telemetry = telemetry
        self._queue: list[tuple[Turn, Landed]] = []
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._telling = 0
        self.batches = 0
        self.turns = 0

    @property
    def waiting(self) -> int:
        """How many turns are not durable yet."""
        return len(self._queue)

    def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="atone-committer")

    def submit(self, turn: Turn, landed: Landed) -> None:
        """Write `turn` with the next batch, then call `landed` with what became of it.

        If the worker dies first, `landed` is never called: the saga is somebody else's.
        """
        self._queue.append((turn, landed))
        self._wanted.set()

    async def close(self) -> None:
        """Write what is queued, tell everybody what became of it, then stop."""
        self._closing = True
        self._wanted.set()
        if self._task is not None:
            await self._task

    def abandon(self) -> None:
        """Stop at once; what is queued is not written."""
        self._queue.clear()
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while True:
            if not self._queue:
                if self._closing and not self._telling:
                    return
                self._wanted.clear()
                await self._wanted.wait()
                continue
            batch, self._queue = self._queue[: self._batch_max], self._queue[self._batch_max :]
            sent_at = 0.0 if self._telemetry is None else perf_counter()
            results = await self._write([turn for turn, _ in batch])
            if results is None:
                return
            if self._telemetry is not None:
                self._telemetry.committed(results, perf_counter() - sent_at)
            self.batches += 1
            self.turns += len(batch)
            self._telling += 1
            self._deliver([landed for _, landed in batch], results, 0)

    def _deliver(self, waiting: list[Landed], results: list[TurnResult], at: int) -> None:
        """Tell half of the runners, then let what they do run: their next turns are written while the rest is told."""
        end = at + max(DELIVER_AT_LEAST, (len(waiting) + 1) // 2)
        for landed, result in zip(waiting[at:end], results[at:end], strict=True):
            try:
                landed(result)
            except Exception as error:  # noqa: BLE001 - as follows
                # That saga stands still until it is claimed again; its neighbours in the batch must hear theirs.
                report(log, f"a saga could not take in that its turn is {result.value}", error, worker=self._worker)
        if end < len(waiting):
            asyncio.get_running_loop().call_soon(self._deliver, waiting, results, end)
            return
        self._telling -= 1
        if self._closing:
            self._wanted.set()

    async def _write(self, turns: list[Turn]) -> list[TurnResult] | None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                return list(await self._store.commit(self._worker, turns))
            except (WorkerDead, StoreClosed) as end:
                # A store that somebody closed under us opens for nobody here: as far as it goes, this life is over.
                who = self._worker or "(none)"
                log.warning("worker %s is dead; its sagas go on elsewhere: %s", who, end, extra=about(worker=who))
                self._queue.clear()
                if self._telemetry is not None and isinstance(end, WorkerDead):
                    self._telemetry.refused_as_dead(len(turns))
                self._on_dead()
                return None
            except StoreUnavailable as error:
                # The outcome is unknown, so the same turns are sent again; reading instead would settle nothing.
                known = about(error, worker=self._worker)
                log.warning("commit of %d turns: %s; sending it again", len(turns), told(error), extra=known)
            except Exception as error:  # noqa: BLE001 - as follows
                # A damaged store, or a bug in it, is not ours to judge; keep the facts, and keep saying so.
                report(log, f"commit of {len(turns)} turns failed; sending it again", error, worker=self._worker)
            if self._telemetry is not None:
                self._telemetry.commit_repeated(len(turns))
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
