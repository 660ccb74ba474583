"""What one forked process does: begin a saga and see it to its end, or find one that another has left, and do that.

Owns how a store is opened for a life, and what the life tells. Must not judge, except by handing over all that is left.
Run by `kills` and `zombies`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atone import Orchestrator
from atone.orchestrator import Limits
from atone.store import Loaded, Query, Store
from atone.stores.postgres import PostgresStore
from atone.stores.sqlite import SqliteStore
from tests.crash.child import Files, run_saga
from tests.crash.definitions import all_sagas
from tests.crash.forks import Tell
from tests.crash.kill_cases import Case
from tests.crash.kill_points import MarkedParticipant, MarkedStore, Point, Points, mark_decisions, mark_transactions
from tests.crash.participant import Participant
from tests.crash.verdict import Found, Saga, judge, take_notes
from tests.crash.witness import Notes, Refusals

POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Place:
    """Where one saga lives: a folder of its own, and a database unless the store is a file in the folder."""

    folder: Path
    saga_id: str
    url: str | None = None

    @property
    def files(self) -> Files:
        return Files(self.folder, self.url)

    def store(self) -> Store:
        """Return the store, not opened."""
        if self.url is None:
            return SqliteStore(self.files.store)
        return PostgresStore(f"{self.url}?application_name=atone-{os.getpid()}", migrate=False, readers=1)


@dataclass(frozen=True)
class Life:
    """What a process is to do; `dies_at` None: see the saga to its end."""

    place: Place
    case: Case
    lease_seconds: float
    dies_at: Point | None = None

    def __call__(self, tell: Tell) -> None:
        """Be that process, from its first line to its last."""
        logging.basicConfig(filename=self.place.files.errors, level=logging.WARNING, format="%(process)d %(message)s")
        points = Points(tell, self.dies_at)
        mark_decisions(points)
        if self.place.url is None:
            mark_transactions(points, str(self.place.files.store))
        asyncio.run(self._live(points))
        tell(passed=points.passed)

    async def _live(self, points: Points) -> None:
        files, case = self.place.files, self.case
        participant, notes = MarkedParticipant(files.participant, points), Notes(files.notes)
        limits = Limits(lease_seconds=self.lease_seconds, poll_seconds=POLL_SECONDS, loop_stall_seconds=5.0)
        async with Orchestrator(
            MarkedStore(self.place.store(), points),
            sagas=all_sagas(participant),
            limits=limits,
            telemetry=Refusals(notes),
        ) as orchestrator:
            points.hit("open")
            await run_saga(orchestrator, case.shape, self.place.saga_id, case.script, notes)
            points.hit("over")
        participant.close()
        notes.close()


def make_store(file: Path) -> None:
    """Make an empty SQLite store that lives can have copies of."""

    async def opened() -> None:
        async with SqliteStore(file):
            pass

    asyncio.run(opened())


def give_store(template: Path, place: Place) -> None:
    """Put a copy of an empty store where a life looks for it."""
    shutil.copy(template, place.files.store)


def judged(place: Place) -> Any:
    """Return work that reads all that is left of the saga, and tells what is wrong with it."""

    def work(tell: Tell) -> None:
        found = asyncio.run(_found(place))
        verdict = judge(found)
        wrong = [f"{kind}: {one}" for kind in ("stranded", "untrue", "twice") for one in getattr(verdict, kind)]
        if not found.sagas or not verdict.acknowledged:
            wrong.append("nothing is left of it")
        tell(
            wrong=wrong,
            ends=dict(verdict.ends),
            attempts_lost=verdict.attempts_lost,
            calls_repeated=verdict.calls_repeated,
            journal=[row.entries.decode() for saga in found.sagas for row in saga.rows] if wrong else [],
        )

    return work


async def _found(place: Place) -> Found:
    async with place.store() as store:
        page = await store.find(Query(saga_id=place.saga_id))
        loaded = [one for one in await store.load([found.key for found in page]) if isinstance(one, Loaded)]
    sagas = [Saga(one.summary.name, one.summary.saga_id, one.summary.status, one.rows) for one in loaded]
    participant = Participant(place.files.participant)
    found = Found(sagas, participant.calls(), participant.effects(), participant.refusals())
    participant.close()
    take_notes(found, place.files)
    return found
