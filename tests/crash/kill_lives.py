"""What one forked process does: play a shape of saga to its end, whoever has died on the way before.

Owns how a store is opened for a life, what of it has points, and what the life tells. Must not judge, except by handing
over all that is left to the shape. Run by `kills` and `zombies`.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw

from atone import Orchestrator
from atone._core.journal import AttemptLost
from atone._runtime.wire import decode_entries
from atone.brokers import open_broker
from atone.errors import BrokerUnavailable, StoreUnavailable
from atone.orchestrator import Limits
from atone.store import Loaded, Query, Store, Turn, TurnResult
from atone.stores.postgres import PostgresStore
from atone.stores.sqlite import SqliteStore
from tests.crash.forks import Tell
from tests.crash.kill_points import MarkedBroker, MarkedStore, Point, Points, mark_decisions, mark_transactions
from tests.shapes.choreographed import Dance
from tests.shapes.databases import FileDatabases
from tests.shapes.ledger import CALLED, LATE, REPEATED, FileLedger
from tests.shapes.services import no_point
from tests.shapes.shape import Shape, Stage

POLL_SECONDS = 0.05
_UNDER_WAY = "SELECT count(*) FROM broker_messages WHERE due_at IS NOT NULL AND group_name IN"


@dataclass(frozen=True)
class Place:
    """Where one run of a shape lives: a folder of its own, and a database unless the store is a file in the folder."""

    folder: Path
    saga_id: str
    url: str | None = None

    @property
    def store_file(self) -> Path:
        """The SQLite store."""
        return self.folder / "sagas.db"

    def store(self) -> Store:
        """Return the store, not opened."""
        if self.url is None:
            return SqliteStore(self.store_file)
        return PostgresStore(self.url, migrate=False, readers=1)

    def stage(self, points: Points | None = None) -> Stage:
        """Return what outlives the processes, as one process sees it."""
        point = no_point if points is None else points.around_effects
        ledger = FileLedger(self.folder / "ledger.jsonl", sync=False)
        return Stage(ledger, point=point, databases=FileDatabases(self.folder, point=point))

    @property
    def broker(self) -> str:
        """The embedded broker, in a file; what nobody holds any more is given again soon."""
        return f"sqlite:///{self.folder}/broker.db?patience_seconds=0.5"

    def under_way(self, dance: Dance) -> int:
        """Return how many messages somebody is still to hear."""
        with closing(apsw.Connection(str(self.folder / "broker.db"))) as file:
            heard = [f"{dance.choreography.name}.{role}" for role in dance.roles]
            marks = ", ".join("?" * len(heard))
            return int(file.execute(f"{_UNDER_WAY} ({marks})", heard).get)

    async def histories(self, shape: Shape) -> list[Loaded]:
        """Return what the store has of this run."""
        async with self.store() as store:
            ids = [self.saga_id + start.suffix for start in shape.starts]
            found = [one for saga_id in ids for one in await store.find(Query(saga_id=saga_id))]
            loaded = await store.load([one.key for one in found], with_plan=True)
        return [one for one in loaded if one is not None]


@dataclass(frozen=True)
class Life:
    """What a process is to do. At `dies_at` it sends itself `signal_number`; None: it sees all to the end."""

    place: Place
    shape: Shape | Dance
    lease_seconds: float
    dies_at: Point | None = None
    generation: int = -1
    signal_number: signal.Signals = signal.SIGKILL
    tells_of: str = ""
    unfenced: bool = False

    def __call__(self, tell: Tell) -> None:
        """Be that process, from its first line to its last."""
        log = self.place.folder / "log.txt"
        logging.basicConfig(filename=log, level=logging.WARNING, format="%(process)d %(relativeCreated)d %(message)s")
        points = Points(tell, self.dies_at, self.signal_number)
        points.tells_of = self.tells_of
        if self.unfenced:
            take_fences_down()
        mark_decisions(points)
        if self.place.url is None:
            mark_transactions(points, str(self.place.store_file))
        fenced = asyncio.run(self._live(points))
        tell(passed=points.passed, fenced=fenced)

    async def _live(self, points: Points) -> int:
        while True:
            try:
                return await (self._dance(points) if isinstance(self.shape, Dance) else self._play(points))
            except (StoreUnavailable, BrokerUnavailable):  # at the opening, which is the caller's to repeat
                await asyncio.sleep(POLL_SECONDS)

    async def _play(self, points: Points) -> int:
        shape, stage, place = self.shape, self.place.stage(points), self.place
        assert isinstance(shape, Shape)
        store = MarkedStore(place.store(), points)
        limits = Limits(
            lease_seconds=self.lease_seconds, poll_seconds=POLL_SECONDS, keep_seconds=0.1, loop_stall_seconds=5.0
        )
        more: dict[str, Any] = {}
        async with AsyncExitStack() as stack:
            if shape.serving is not None:
                more["broker"] = place.broker
                broker = MarkedBroker(await stack.enter_async_context(open_broker(place.broker)), points)
                await stack.enter_async_context(shape.serving(stage, broker))
            sagas = shape.make(stage, self.generation % shape.generations)
            orchestrator = await stack.enter_async_context(Orchestrator(store, sagas=sagas, limits=limits, **more))
            points.hit("open")
            await shape.play(orchestrator, stage, place.saga_id, self.generation)
            points.hit("over")
        return store.fenced

    async def _dance(self, points: Points) -> int:
        dance, stage, place = self.shape, self.place.stage(points), self.place
        assert isinstance(dance, Dance)
        async with AsyncExitStack() as stack:
            broker = MarkedBroker(await stack.enter_async_context(open_broker(place.broker)), points)
            dance.begin(stage, place.saga_id)
            for role in dance.roles:
                await stack.enter_async_context(dance.service(role, stage, broker))
            points.hit("open")
            await stage.until(lambda: dance.is_over(stage, place.saga_id))
            points.hit("over")
            if self.dies_at is None:  # whatever a dead one had in its hands comes again, and is to do nothing
                await stage.until(lambda: not place.under_way(dance))
        return 0


def take_fences_down() -> None:
    """Have this process's SQLite store take every row from anybody, as if it were the next one of its owner's."""
    from atone.stores import _sqlite_group, _sqlite_turn

    group, turns = vars(_sqlite_group), vars(_sqlite_turn)
    write = turns["write_turn"]

    def write_anyhow(connection: Any, worker: str | None, turn: Turn, now: float) -> TurnResult:
        if turn.birth is None:
            connection.execute("UPDATE sagas SET owner = ? WHERE key = ?", (worker, turn.key))
            turn = turn._replace(version=turns["newest_version"](connection, turn.key) + 1)
        result: TurnResult = write(connection, worker, turn, now)
        return result

    group["is_alive"] = lambda *_: True
    group["_write_together"] = group["_write_apart"]
    group["write_turn"] = write_anyhow


def make_store(file: Path) -> None:
    """Make an empty SQLite store that lives can have copies of."""

    async def opened() -> None:
        async with SqliteStore(file):
            pass

    asyncio.run(opened())


def give_store(template: Path, place: Place) -> None:
    """Put a copy of an empty store where a life looks for it."""
    shutil.copy(template, place.store_file)


@dataclass(frozen=True)
class Judge:
    """Reads all that is left of some runs, and tells what is wrong with each."""

    runs: Sequence[tuple[Shape | Dance, Place]]

    def __call__(self, tell: Tell) -> None:
        """Be that process."""
        asyncio.run(self._judge(tell))

    async def _judge(self, tell: Tell) -> None:
        for shape, place in self.runs:
            stage = place.stage()
            lines = shape.lines(stage)
            histories: list[Loaded] = []
            if isinstance(shape, Dance):
                wrong = [str(one) for one in shape.violations(stage, place.saga_id)]
            else:
                histories = await place.histories(shape)
                wrong = [str(one) for one in shape.violations(histories, stage, place.saga_id)]
            entries = [one for saga in histories for row in saga.rows for one in decode_entries(row.entries)]
            tell(
                wrong=wrong,
                ends=[one.summary.status for one in histories] or ["danced"],
                attempts_lost=sum(isinstance(one, AttemptLost) for one in entries),
                calls_repeated=sum(line.kind == CALLED and line.attempt > 1 for line in lines),
                known_by_key=sum(line.kind in (REPEATED, LATE) for line in lines),
            )
            if wrong:
                _keep(place, histories, stage)


def _keep(place: Place, histories: Sequence[Loaded], stage: Stage) -> None:
    with (place.folder / "journals.txt").open("w") as file:
        for one in histories:
            print(one.summary, file=file)
            for row in one.rows:
                print(f"  {row.version} {row.at:.3f} {row.entries.decode()}", file=file)
        for line in stage.lines:
            print(line, file=file)
