"""The store port: where journals live. A store never interprets a saga; it keeps rows, versions and leases.

Eight methods and an async context; `atone.testing.contracts` holds the suite that defines them, and memory,
SQLite and PostgreSQL pass the same one. All times are epoch seconds by the store's own clock. Errors:
`StoreUnavailable` means that the outcome is unknown, so send the same call again; `WorkerDead` means that nothing was
written. Called by the runtime, by `Orchestrator` for look-ups, and by the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType, TracebackType
from typing import NamedTuple, Protocol, Self, runtime_checkable

from atone.broker import Message, Outbox

VIEW_OVER_STATUSES = frozenset({"completed", "compensated"})  # of choreographed sagas; nothing is to come
FINAL_STATUSES = frozenset({"completed", "compensated", "failed"})
NO_LIMITS: Mapping[str, int] = MappingProxyType({})


class Birth(NamedTuple):
    """What a new saga is called; written once, with its first turn."""

    tenant: str
    name: str
    saga_id: str
    definition_version: int
    plan_hash: str


class Hot(NamedTuple):
    """The columns of a saga that others look at: written only when one of them changes.

    `owned`: the committing worker keeps the saga; otherwise it is given up and anyone may claim it at `wake_at`.
    """

    status: str
    owned: bool
    wake_at: float | None


class Turn(NamedTuple):
    """One journal row to append: `version` is one more than the version it was decided on.

    `key` is the saga's internal id (16 bytes). `commit_id` (16 bytes) is new for each turn and the same when the turn
    is sent again. `entries` is a JSON array. `birth` is set for version 1 only, and then `hot` is too. `messages` go
    into the outbox with the row, in this order: only with a turn that is APPLIED, and once however often it is sent.
    """

    key: bytes
    version: int
    commit_id: bytes
    entries: bytes
    hot: Hot | None = None
    birth: Birth | None = None
    messages: tuple[Message, ...] = ()


class TurnResult(StrEnum):
    """What became of one turn of a batch.

    APPLIED: it is durable (now, or by an earlier send with the same commit id). CONFLICT: another row has that version.
    NOT_MINE: the saga belongs to somebody else. TAKEN: a saga with this tenant, name and id exists already.
    REFUSED: the row or a message of it can't be stored; the rest of the batch is not affected. Only APPLIED has written
    anything.
    """

    APPLIED = "applied"
    CONFLICT = "conflict"
    NOT_MINE = "not_mine"
    TAKEN = "taken"
    REFUSED = "refused"


class Row(NamedTuple):
    """One journal row as stored; `at` is the store's time of the commit."""

    version: int
    at: float
    commit_id: bytes
    entries: bytes


class Summary(NamedTuple):
    """One saga's hot row: what a list shows. `owner` is a worker id or None."""

    key: bytes
    tenant: str
    name: str
    saga_id: str
    definition_version: int
    plan_hash: str
    status: str
    owner: str | None
    wake_at: float | None
    created_at: float


class Loaded(NamedTuple):
    """A saga and its journal rows in order of version, read in one snapshot.

    `plan` is the stored plan as JSON, if asked for.
    """

    summary: Summary
    rows: tuple[Row, ...]
    plan: str | None = None


class StoredPlan(NamedTuple):
    """A plan to keep beside the sagas that follow it."""

    name: str
    version: int
    plan_hash: str
    plan: str


class Lease(NamedTuple):
    """What a worker may rely on: the store's clock at `now`, and the time until which nobody takes its sagas."""

    now: float
    until: float


class Claimed(NamedTuple):
    """What a claim found.

    `taken`: sagas that are mine from now on, or were mine already without my knowing (the reply of an earlier claim was
    lost); open attempts in them belong to a process that is gone. `newer`: sagas that I own and know, with a row or a
    request that I may not have seen. `unclaimable`: how many due sagas have a definition that I was not asked to run
    (a store may stop counting at 1,000).
    `dead_letters`: how many early events were given up in this call. `now`: the store's clock. `next_end`: when the
    first lease of another worker ends unless it is renewed, so that it pays to look again then; None: not told.
    """

    taken: tuple[bytes, ...]
    newer: tuple[bytes, ...]
    unclaimable: int
    dead_letters: int
    now: float
    next_end: float | None = None


class Delivery(NamedTuple):
    """A request for a saga, as a journal row's entries.

    `keep_seconds` is how long it waits for a saga that does not exist yet (events only; None: not at all).
    """

    tenant: str
    name: str
    saga_id: str
    request_id: str
    entries: bytes
    commit_id: bytes
    keep_seconds: float | None = None


class Delivered(StrEnum):
    """APPENDED: it is in the journal. DUPLICATE: this request id was there already. FINAL: the saga is over, nothing
    was written. KEPT: there is no such saga yet, the event waits for it. UNKNOWN: there is no such saga, nothing was
    written.
    """

    APPENDED = "appended"
    DUPLICATE = "duplicate"
    FINAL = "final"
    KEPT = "kept"
    UNKNOWN = "unknown"


class Query(NamedTuple):
    """Which sagas to find; None means any. `after` is the key of the last one seen; newest keys come last.

    `other_hash_than` finds sagas whose plan differs. Results are at most `limit`.
    """

    tenant: str | None = None
    name: str | None = None
    saga_id: str | None = None
    statuses: frozenset[str] | None = None
    keys: tuple[bytes, ...] | None = None
    definition_version: int | None = None
    other_hash_than: str | None = None
    after: bytes | None = None
    limit: int = 100


class Count(NamedTuple):
    """So many unfinished sagas of one name have one status; the oldest of them was made at `oldest_at`."""

    name: str
    status: str
    sagas: int
    oldest_at: float


class Census(NamedTuple):
    """All unfinished sagas of a store, of every tenant and version, as of `now` by the store's clock."""

    now: float
    counts: tuple[Count, ...]


@runtime_checkable
class Counting(Protocol):
    """A store that can also count: what gauges show. No part of the port, for nothing but telemetry needs it."""

    async def census(self) -> Census:
        """Count the unfinished sagas exactly, without a look at the finished ones."""
        ...


class Outstanding(NamedTuple):
    """What an outbox holds: how many messages wait, since when the oldest does, and how many were set aside.

    `oldest_at` and `now` are the store's time; the first is None if nothing waits.
    """

    waiting: int
    oldest_at: float | None
    refused: int
    now: float


class SetAside(NamedTuple):
    """A message that no broker takes: why, and when it was set aside."""

    message: Message
    why: str
    at: float


@runtime_checkable
class Posting(Protocol):
    """A store that can also tell what its outbox holds, and what becomes of messages that were set aside.

    For gauges and for people, so no part of the port.
    """

    async def outstanding(self) -> Outstanding:
        """Count what waits to be published and what was set aside."""
        ...

    async def set_aside(self, *, limit: int = 100) -> Sequence[SetAside]:
        """Return what was set aside, oldest first."""
        ...

    async def post_again(self, message_id: str) -> bool:
        """Have a message that was set aside wait once more, behind all that waits already; False if there is none.

        What is published is told by its id: whoever asks twice has it posted once.
        """
        ...

    async def drop_set_aside(self, message_id: str) -> bool:
        """Forget a message that was set aside, for good; False if there is none. What waits is never dropped."""
        ...


class Store(Outbox, Protocol):
    """What the runtime needs of a place that remembers; `relay`, the eighth method, is `atone.broker.Outbox`.

    Entering opens it and migrates its schema; leaving closes it. All methods may raise `StoreUnavailable`,
    and `StoreClosed` when the store is not open.
    """

    async def __aenter__(self) -> Self:
        """Open the store.

        Raises:
            StoreSchemaError: Its schema is newer than this code, or not Atone's.
            StoreError: It is open already; who shares an object would close it under the other.
        """
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the store; calls under way end first."""
        ...

    def renew(self, worker: str | None, lease_seconds: float, *, register: Sequence[StoredPlan] | None = None) -> Lease:
        """Extend the worker's lease; blocking, and callable from any thread at any time.

        With `register` the worker's row is created (ids are never reused) and the plans are kept. An expired lease may
        be renewed as long as nobody has declared the worker dead. `lease_seconds` 0 retires it: it is dead from then
        on.

        Without a worker there is no lease: the plans are kept, and the clock is read, for who starts sagas and runs
        none. Without plans too nothing is written.

        Raises:
            WorkerDead: The worker was declared dead, retired, or never registered. Nothing was written.
        """
        ...

    async def commit(self, worker: str | None, turns: Sequence[Turn]) -> Sequence[TurnResult]:
        """Append the turns that fit, in one durable transaction; the others are reported alone.

        The worker's row is checked in the same transaction: not dead, lease not over by the store's clock. Of each turn
        the owner (the worker) and the version are checked; a first turn needs a free tenant, name and id, and takes
        along the events that came early. A turn that stands there already with the same commit id is APPLIED.

        Without a worker sagas are only born: unowned whatever `hot` says, due at `wake_at` or at once. No other turn is
        anybody's then.

        Raises:
            WorkerDead: Nothing was written.
        """
        ...

    async def start(self, turn: Turn, *, connection: object) -> TurnResult:
        """Insert a new, unowned saga within the caller's transaction on `connection`, due at `wake_at` or at once.

        Raises:
            TypeError: The connection is of a kind that this store can't use, with the reason.
        """
        ...

    async def load(self, keys: Sequence[bytes], *, after: int = 0, with_plan: bool = False) -> Sequence[Loaded | None]:
        """Return the sagas with their rows above version `after`; None where there is none."""
        ...

    async def claim(
        self,
        worker: str,
        *,
        definitions: Collection[tuple[str, int, str]],
        known: Collection[bytes],
        limit: int,
        lease_seconds: float,
        limits: Mapping[str, int] = NO_LIMITS,
    ) -> Claimed:
        """Take over what needs an owner, at most `limit` sagas, shared fairly between the definitions.

        Workers whose lease is over are declared dead first, for ever. Taken are: unfinished sagas of dead owners,
        unowned sagas that are due, and sagas that are mine but not `known`. `definitions` are (name, version, plan
        hash). Of a name in `limits` no more are taken than make that many, all versions together; what is mine but not
        `known` counts first, and is taken all the same. A claim that takes something prolongs my lease to
        `lease_seconds` from now, if it would end sooner.

        Raises:
            WorkerDead: Nothing was written.
        """
        ...

    async def deliver(self, delivery: Delivery) -> Delivered:
        """Append a request to a saga as its next row and make it due at once; anyone may call this, of any process."""
        ...

    async def find(self, query: Query) -> Sequence[Summary]:
        """Return the sagas that fit, in the order of their keys."""
        ...


class Hint(StrEnum):
    """DUE: there may be a saga for a worker to take, or a request for one that it has. SETTLED: a saga may be over."""

    DUE = "due"
    SETTLED = "settled"


@runtime_checkable
class Hinting(Protocol):
    """What a store may have beside the port: word from other processes, so that nobody waits for the next poll.

    Any hint may be lost, come late or come for nothing; who hears it looks, as it would have soon anyway.
    """

    def on_hint(self, callback: Callable[[Hint], None]) -> None:
        """Call `callback` in the event loop when another process says so, until the store is closed."""
        ...


class Observed(NamedTuple):
    """An event of a choreographed saga, as a view has heard of it.

    `id` is the event's own: a second one with it is left out. `at` is when it was written, by its source's clock, epoch
    seconds; `entry` is JSON, for whoever folds it.
    """

    tenant: str
    name: str
    version: int
    plan_hash: str
    saga_id: str
    id: str
    at: float
    entry: bytes


class Marked(NamedTuple):
    """What a saga comes to after its first `rows` events: what a list shows. `wake_at` is when it should look again."""

    key: bytes
    rows: int
    status: str
    wake_at: float | None


class Views(Protocol):
    """Where choreographed sagas are kept for people to see: events appended, and a hot row that was made of them.

    The maps that they follow are kept as plans are. A summary has no owner, and `created_at` is the first event's time.
    All methods may raise `StoreUnavailable`, and `StoreClosed` when the store is not open.
    """

    async def observe(self, events: Sequence[Observed]) -> Sequence[bytes]:
        """Append the events that are new, in one durable transaction, and return the key of each one's saga."""
        ...

    async def mark(self, marks: Sequence[Marked]) -> None:
        """Write hot rows; one that was made of fewer events than a saga's present one is left out."""
        ...

    async def load(self, keys: Sequence[bytes]) -> Sequence[Loaded | None]:
        """Return sagas with their maps and all their events; a row's `commit_id` is the event's id in ASCII."""
        ...

    async def find(self, query: Query) -> Sequence[Summary]:
        """Return the sagas that fit, in the order of their keys."""
        ...

    async def due(self, name: str, now: float, *, limit: int = 100) -> Sequence[bytes]:
        """Return the keys of sagas of a choreography whose `wake_at` has come, the longest first."""
        ...

    async def purge(self, name: str, before: float, *, limit: int = 1000) -> int:
        """Forget sagas of a choreography that are completed or compensated, and return how many: at most `limit`.

        Only those whose events are all from before that time. What is heard of one afterwards begins it anew.
        """
        ...


@runtime_checkable
class Viewing(Protocol):
    """A store that also keeps choreographed sagas. No part of the port, for orchestration needs none of it."""

    @property
    def views(self) -> Views:
        """Where they are kept."""
        ...
