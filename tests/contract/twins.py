"""Stores beside their models: the same calls to all of them, and each answer compared with what its model says.

Owns the stores that are compared (memory, SQLite, PostgreSQL, broken ones), how they are emptied between examples, and
what in an answer is a store's own to choose: refs of messages, keys of views, which due saga a claim takes. It must not
decide what is called. Used by the differential machine.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import apsw
import psycopg

from atone.errors import WorkerDead
from atone.store import (
    Claimed,
    Delivery,
    Marked,
    Observed,
    Outstanding,
    Query,
    StoredPlan,
    Turn,
    TurnResult,
)
from atone.stores.memory import MemoryStore
from atone.stores.sqlite import SqliteStore
from tests.contract.port_model import Definition, Disagreement, PortModel
from tests.contract.scene import Clock
from tests.servers.postgres import Bench, Place

NOW = 1_750_000_000.0
ROW_BYTES_MAX = 20_000
EVERYTHING = Query(limit=10_000)
REFUSAL = "told so by a test"


class Joining(Protocol):
    """How `start` is called: in a transaction of the caller's own, which is then committed or rolled back."""

    def __call__(self, store: Any, turn: Turn, commits: bool, /) -> Awaitable[TurnResult]: ...


class Bed:
    """Where a store lives: opened once, emptied for each example. `advance` moves its clock."""

    name: str
    store: Any

    async def open(self) -> None:
        """Open the store."""
        await self.store.__aenter__()

    async def close(self) -> None:
        """Close it."""
        await self.store.__aexit__(None, None, None)

    async def reopen(self) -> None:
        """Close the store and open it again."""
        await self.store.__aexit__(None, None, None)
        await self.store.__aenter__()

    async def empty(self) -> None:
        """Take out everything, and set the clock back."""
        raise NotImplementedError

    def advance(self, seconds: float) -> None:
        """Move the store's clock."""
        raise NotImplementedError

    async def start(self, turn: Turn, commits: bool) -> TurnResult:
        """Start within a transaction of the caller's own."""
        raise NotImplementedError


class MemoryBed(Bed):
    """A memory store, or a broken one: a new object for each example."""

    def __init__(self, kind: Callable[..., Any] = MemoryStore) -> None:
        self.name = kind.__name__ if isinstance(kind, type) else "memory"
        self._kind = kind

    async def open(self) -> None:
        await self.empty()

    async def close(self) -> None:
        await self.store.__aexit__(None, None, None)

    async def empty(self) -> None:
        self._clock = Clock(NOW)
        self.store = self._kind(allow_volatile=True, clock=self._clock, row_bytes_max=ROW_BYTES_MAX)
        await self.store.__aenter__()

    def advance(self, seconds: float) -> None:
        self._clock.advance(seconds)

    async def start(self, turn: Turn, commits: bool) -> TurnResult:
        """The store has no transactions and says so; a birth without a worker is the same to whoever looks."""
        try:
            await self.store.start(turn, connection=object())
        except TypeError:
            if commits:
                (result,) = await self.store.commit(None, [turn])
                return TurnResult(result)
            raise NothingToSay from None
        raise Disagreement("the memory store started a saga in a transaction of something else")


class NothingToSay(Exception):
    """This store can't do this, so there is no answer to compare."""


class HastySqliteStore(SqliteStore):
    """Does not wait for the disk: what is compared is answers."""

    def _open_writer(self) -> Any:
        connection = super()._open_writer()
        connection.pragma("synchronous", "off")
        return connection


class SqliteBed(Bed):
    """A file."""

    def __init__(self, folder: Path, kind: type[SqliteStore] = HastySqliteStore) -> None:
        self.name = "sqlite" if kind is HastySqliteStore else kind.__name__
        self._path = folder / "differential.db"
        self._clock = Clock(NOW)
        self.store = kind(self._path, clock=self._clock, row_bytes_max=ROW_BYTES_MAX)

    async def open(self) -> None:
        await super().open()
        self._aside = apsw.Connection(str(self._path))
        self._aside.pragma("synchronous", "off")
        tables = self._aside.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
        self._tables = [str(name) for (name,) in tables if name not in ("migrations", "identity")]
        self._tables = [name for name in self._tables if not name.startswith("sqlite_")]

    async def close(self) -> None:
        self._aside.close()
        await super().close()

    async def empty(self) -> None:
        self._clock.now = NOW
        self._aside.execute("BEGIN IMMEDIATE")
        for table in self._tables:
            self._aside.execute(f"DELETE FROM {table}")
        self._aside.execute("COMMIT")

    def advance(self, seconds: float) -> None:
        self._clock.advance(seconds)

    async def start(self, turn: Turn, commits: bool) -> TurnResult:
        self._aside.execute("BEGIN")
        try:
            return TurnResult(await self.store.start(turn, connection=self._aside))
        finally:
            self._aside.execute("COMMIT" if commits else "ROLLBACK")


class PostgresBed(Bed):
    """A schema of a database, whose clock is a row."""

    name = "postgres"
    _TABLES = (
        "workers", "sagas", "journal", "requests", "early_events", "dead_letters", "outbox", "set_aside", "views",
        "view_events",
    )  # fmt: skip

    def __init__(self, bench: Bench, **options: Any) -> None:
        self._place: Place = bench.place()
        self.store = self._place.store(row_bytes_max=ROW_BYTES_MAX, notify=False, **options)
        # Definitions stay, for the store remembers their numbers; their plans go.
        emptied = "".join(f"DELETE FROM {table};" for table in self._TABLES)
        self._emptying = f"{emptied} UPDATE definitions SET plan = NULL; UPDATE clock SET now = {NOW}"
        self._url = bench.worker_url
        self._times = 0

    async def open(self) -> None:
        await super().open()
        self._joined = psycopg.connect(self._url)

    async def close(self) -> None:
        self._joined.close()
        await super().close()

    async def empty(self) -> None:
        self._place.sql(self._emptying)
        self._times += 1
        if self._times % 25 == 0:  # what was deleted is in the way of whoever looks
            self._place.sql("VACUUM")

    def advance(self, seconds: float) -> None:
        self._place.advance(seconds)

    async def start(self, turn: Turn, commits: bool) -> TurnResult:
        try:
            return TurnResult(await self.store.start(turn, connection=self._joined))
        finally:
            (self._joined.commit if commits else self._joined.rollback)()


class Raised(Exception):
    """What a call ended with instead of an answer; two are equal if their kinds are."""

    def __init__(self, kind: type[BaseException]) -> None:
        super().__init__(kind.__name__)
        self.kind = kind

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Raised) and self.kind is other.kind

    __hash__ = None  # type: ignore[assignment]


class Twin:
    """A store and the model of it, which must agree."""

    def __init__(self, bed: Bed) -> None:
        self.bed = bed
        self.model = PortModel(NOW, ROW_BYTES_MAX)
        # What the store called its messages, by their ids: the last one is the newest.
        self.refs: dict[str, list[int]] = defaultdict(list)
        self._places: dict[int, int] = {}

    @property
    def store(self) -> Any:
        """The store."""
        return self.bed.store

    async def agree(self, call: Callable[[], Awaitable[Any]], says: Callable[[Any], Any], what: str) -> Any:
        """Make the call and complain unless its answer is what the model says, given the answer."""
        answer = await _answer(call)
        wanted = _say(lambda: says(answer), f"{self.bed.name}: {what}")
        if answer != wanted:
            raise Disagreement(f"{self.bed.name}: {what}:\n  {answer!r}\n  instead of\n  {wanted!r}")
        return answer

    def advance(self, seconds: float) -> None:
        """Move the clock of both."""
        self.bed.advance(seconds)
        self.model.now += seconds

    # -- the port ------------------------------------------------------------------------------------------------

    async def renew(self, worker: str | None, seconds: float, register: Sequence[StoredPlan] | None) -> None:
        async def call() -> Any:
            return self.store.renew(worker, seconds, register=register)

        await self.agree(call, lambda _: self.model.renew(worker, seconds, register), "renew")

    async def commit(self, worker: str | None, turns: Sequence[Turn]) -> None:
        async def call() -> Any:
            return [TurnResult(result) for result in await self.store.commit(worker, turns)]

        def says(answer: Any) -> Any:
            return self.model.commit(worker, turns, answer if isinstance(answer, list) else ())

        await self.agree(call, says, f"commit of {len(turns)}")

    async def start(self, turn: Turn, commits: bool) -> None:
        def says(answer: Any) -> Any:
            if isinstance(answer, Raised) and answer.kind is NothingToSay:
                return answer
            return self.model.commit(None, [turn])[0] if commits else self.model.judge(None, turn)

        await self.agree(lambda: self.bed.start(turn, commits), says, "start")

    async def load(self, keys: Sequence[bytes], after: int, with_plan: bool) -> None:
        async def call() -> Any:
            return list(await self.store.load(keys, after=after, with_plan=with_plan))

        await self.agree(call, lambda _: self.model.load(keys, after, with_plan), "load")

    async def claim(
        self,
        worker: str,
        definitions: Collection[Definition],
        known: Collection[bytes],
        limit: int,
        lease_seconds: float,
        limits: Mapping[str, int],
    ) -> None:
        async def call() -> Any:
            return await self.store.claim(
                worker, definitions=definitions, known=known, limit=limit, lease_seconds=lease_seconds, limits=limits
            )

        def says(answer: Any) -> Any:
            chosen = answer.taken if isinstance(answer, Claimed) else ()
            claimed = self.model.claim(worker, definitions, known, limit, lease_seconds, limits, chosen)
            tells = not isinstance(answer, Claimed) or answer.next_end is not None
            return claimed if tells else claimed._replace(next_end=None)

        await self.agree(call, says, "claim")

    async def deliver(self, delivery: Delivery) -> None:
        await self.agree(lambda: self.store.deliver(delivery), lambda _: self.model.deliver(delivery), "deliver")

    async def find(self, query: Query) -> None:
        async def call() -> Any:
            return list(await self.store.find(query))

        await self.agree(call, lambda _: self.model.find(query), f"find {query}")

    async def relay(
        self,
        relay: str,
        published: Collection[tuple[str, int]],
        refused: Collection[tuple[str, int]],
        limit: int,
        lease_seconds: float,
    ) -> None:
        """Relay; messages are named by their ids, and by which of the refs that were handed out for them."""

        async def call() -> Any:
            relayed = await self.store.relay(
                relay,
                published=[self._ref(one) for one in published],
                refused={self._ref(one): REFUSAL for one in refused},
                limit=limit,
                lease_seconds=lease_seconds,
            )
            self._learn(relayed.messages)
            return [(one.message, one.at) for one in relayed.messages], relayed.now

        # A ref of before is gone, and naming it is harmless.
        gone = [one for one, at in published if self._is_newest(one, at)]
        aside = {one: REFUSAL for one, at in refused if self._is_newest(one, at)}

        def says(_: Any) -> Any:
            given = self.model.relay(relay, gone, aside, limit, lease_seconds)
            return [(one.message, one.at) for one in given], self.model.now

        await self.agree(call, says, f"relay {published} {refused}")

    def _ref(self, named: tuple[str, int]) -> int:
        message_id, at = named
        refs = self.refs.get(message_id, ())
        return refs[at] if -len(refs) <= at < len(refs) else 10**9

    def _is_newest(self, message_id: str, at: int) -> bool:
        """Tell whether the ref that is named so is the one of a message that waits: handed out since it was posted."""
        waiting = next((one.place for one in self.model.outbox if one.message.id == message_id), None)
        return waiting is not None and self._places.get(self._ref((message_id, at))) == waiting

    def _learn(self, messages: Sequence[Any]) -> None:
        places = {one.message.id: one.place for one in self.model.outbox}
        for ref, message, _ in messages:
            if ref not in self.refs[message.id]:
                self.refs[message.id].append(ref)
            place = self._places.setdefault(ref, places.get(message.id, -1))
            if place != places.get(message.id, -1):
                raise Disagreement(f"{self.bed.name}: the ref {ref} was another message's before")

    # -- what a store may have beside the port -------------------------------------------------------------------

    async def census(self) -> None:
        await self.agree(self.store.census, lambda _: self.model.census(), "census")

    async def outstanding(self) -> None:
        async def call() -> Any:
            return Outstanding(*await self.store.outstanding())

        await self.agree(call, lambda _: self.model.outstanding(), "outstanding")

    async def set_aside(self, limit: int) -> None:
        async def call() -> Any:
            return list(await self.store.set_aside(limit=limit))

        await self.agree(call, lambda _: self.model.set_aside(limit), "set_aside")

    async def post_again(self, message_id: str) -> None:
        await self.agree(
            lambda: self.store.post_again(message_id), lambda _: self.model.post_again(message_id), "post_again"
        )

    async def drop_set_aside(self, message_id: str) -> None:
        await self.agree(
            lambda: self.store.drop_set_aside(message_id), lambda _: self.model.drop_set_aside(message_id), "drop"
        )

    # -- views ---------------------------------------------------------------------------------------------------

    def view_keys(self, sagas: Collection[tuple[str, str, str]]) -> list[bytes]:
        """Return what this store calls these choreographed sagas; those that it does not know are left out."""
        return [key for key, one in self.model.views.hot.items() if one[1:4] in sagas]

    async def observe(self, events: Sequence[Observed]) -> None:
        async def call() -> Any:
            return list(await self.store.views.observe(events))

        await self.agree(call, lambda chosen: self.model.views.observe(events, _list(chosen)), "observe")

    async def mark(self, sagas: Sequence[tuple[tuple[str, str, str], int, str, float | None]]) -> None:
        marks = [Marked(key, *rest) for whose, *rest in sagas for key in self.view_keys([whose])]
        await self.agree(lambda: self.store.views.mark(marks), lambda _: self.model.views.mark(marks), "mark")

    async def load_views(self, sagas: Collection[tuple[str, str, str]]) -> None:
        keys = [*self.view_keys(sagas), b"nobody has this"]

        async def call() -> Any:
            return list(await self.store.views.load(keys))

        await self.agree(call, lambda _: self.model.views.load(keys), "load of views")

    async def find_views(self, query: Query) -> None:
        async def call() -> Any:
            return list(await self.store.views.find(query))

        await self.agree(call, lambda _: self.model.views.find(query), f"find views {query}")

    async def due_views(self, name: str, now: float, limit: int) -> None:
        async def call() -> Any:
            return list(await self.store.views.due(name, now, limit=limit))

        await self.agree(call, lambda chosen: self.model.views.due(name, now, limit, _list(chosen)), "due views")

    async def purge_views(self, name: str, before: float, limit: int) -> None:
        left: list[bytes] = []

        async def call() -> Any:
            count = await self.store.views.purge(name, before, limit=limit)
            left.extend(one.key for one in await self.store.views.find(EVERYTHING))
            return count

        await self.agree(call, lambda _: self.model.views.purge(name, before, limit, left), "purge")

    # -- everything ----------------------------------------------------------------------------------------------

    async def look_at_everything(self) -> None:
        """Compare all that can be seen."""
        await self.find(EVERYTHING)
        await self.load(sorted(self.model.sagas), 0, True)
        await self.census()
        await self.outstanding()
        await self.set_aside(1000)
        await self.find_views(EVERYTHING)
        await self.load_views([one[1:4] for one in self.model.views.hot.values()])


async def _answer(call: Callable[[], Awaitable[Any]]) -> Any:
    try:
        return await call()
    except (Disagreement, asyncio.CancelledError):
        raise
    except Exception as error:
        return Raised(type(error))


def _say(says: Callable[[], Any], what: str) -> Any:
    try:
        return says()
    except WorkerDead as error:
        return Raised(type(error))
    except Disagreement as error:
        raise Disagreement(f"{what}: {error}") from None


def _list(chosen: Any) -> list[bytes]:
    return chosen if isinstance(chosen, list) else []


@contextmanager
def opened(runner: asyncio.Runner, *beds: Bed) -> Iterator[Sequence[Bed]]:
    """Open the stores for as long as the context lasts."""
    with ExitStack() as stack:
        for bed in beds:
            runner.run(bed.open())
            stack.callback(lambda bed=bed: runner.run(bed.close()))
        yield beds
