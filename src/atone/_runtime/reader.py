"""From stored rows to a saga's state, for whoever only looks: no lease, no ownership.

Owns the fold of rows, and finding one saga by its identity. Must not write. Used by the worker when it takes a saga
over, by `Orchestrator` and by the command line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from atone._core.fold import Unfoldable, fold
from atone._core.journal import Entry
from atone._core.plan import Plan
from atone._core.state import SagaState
from atone._runtime.wire import decode_entries
from atone.errors import CorruptJournal, UnknownSaga
from atone.store import Loaded, Query, Row, Store, Summary


class Turned(NamedTuple):
    """One journal row, decoded: what a timeline shows. `at` is epoch seconds by the store's clock."""

    version: int
    at: float
    entries: tuple[Entry, ...]


class Torn(NamedTuple):
    """A journal row that is missing, can't be read, or does not fit what came before it."""

    version: int
    why: str


class Glimpse(NamedTuple):
    """A saga as far as it can be read: `journal` holds the rows that can.

    `plan` and `state` are None if they can't be told; `plan_missing` or `torn` says why then.
    """

    summary: Summary
    plan: Plan | None
    plan_missing: str | None
    state: SagaState | None
    journal: tuple[Turned, ...]
    torn: tuple[Torn, ...]

    @property
    def trouble(self) -> str | None:
        """What can't be read, in words; None if everything can."""
        told = [self.plan_missing or "", *(f"Journal row {row.version} {row.why}" for row in self.torn)]
        return " ".join(part for part in told if part) or None


class Found(NamedTuple):
    """A saga as read: its hot row, its plan, its state and its journal."""

    summary: Summary
    plan: Plan
    state: SagaState
    journal: tuple[Turned, ...]


def fold_rows(plan: Plan, rows: Sequence[Row]) -> SagaState:
    """Return the state that the rows tell.

    Raises:
        CorruptJournal: A row is missing, can't be read, or does not fit.
    """
    return _fold(plan, _decoded(rows))


def state_of(plan: Plan, loaded: Loaded) -> SagaState:
    """Return the state of a saga that was loaded. Raises as `fold_rows`, also for rows of another saga."""
    return _own(loaded.summary, fold_rows(plan, loaded.rows))


def _own(summary: Summary, state: SagaState) -> SagaState:
    # The first row says whose idempotency keys the saga sends, so a row in the wrong place is no small damage.
    if (state.tenant, state.name, state.saga_id) != (summary.tenant, summary.name, summary.saga_id):
        raise CorruptJournal("Journal row 1 is of another saga. Restore it from a backup, then retry the saga.")
    return state


def _decoded(rows: Sequence[Row]) -> tuple[Turned, ...]:
    return tuple(_decoded_row(row) for row in rows)


def _decoded_row(row: Row) -> Turned:
    try:
        return Turned(row.version, row.at, tuple(decode_entries(row.entries)))
    except CorruptJournal as wrong:
        raise CorruptJournal(
            f"Journal row {row.version} {_unreadable(wrong)} Restore it from a backup, then retry the saga."
        ) from wrong


def _unreadable(wrong: CorruptJournal) -> str:
    return f"can't be read ({type(wrong.__cause__).__name__})."


def _fold(plan: Plan, rows: Sequence[Turned]) -> SagaState:
    state: SagaState | None = None
    for expected, row in enumerate(rows, start=1):
        if row.version != expected:
            raise CorruptJournal(f"Journal row {expected} is missing. Restore it from a backup, then retry the saga.")
        try:
            state = fold(plan, state, row.entries)
        except Unfoldable as wrong:
            raise CorruptJournal(
                f"Journal row {row.version} does not fit: {wrong} Restore it from a backup, then retry the saga."
            ) from wrong
    if state is None:
        raise CorruptJournal("The saga has no journal. Restore it from a backup.")
    return state


async def find_one(store: Store, tenant: str, name: str, saga_id: str) -> Summary | None:
    """Return the hot row of the saga with this identity, if there is one."""
    found = await store.find(Query(tenant=tenant, name=name, saga_id=saga_id, limit=1))
    return found[0] if found else None


async def read(store: Store, key: bytes) -> Found:
    """Read one saga with its stored plan and its whole journal.

    Raises:
        UnknownSaga: There is none with this key.
        CorruptJournal: Its journal or its plan can't be read.
    """
    loaded = await _load(store, key)
    plan = _plan_of(loaded)
    journal = _decoded(loaded.rows)
    return Found(loaded.summary, plan, _own(loaded.summary, _fold(plan, journal)), journal)


async def read_plan(store: Store, key: bytes) -> Plan:
    """Read the plan that a saga follows. Raises as `read`."""
    return _plan_of(await _load(store, key))


async def glimpse(store: Store, key: bytes) -> Glimpse:
    """Read one saga as far as it can be read; damage is told, not raised.

    Raises:
        UnknownSaga: There is none with this key.
    """
    loaded = await _load(store, key)
    plan, plan_missing = None, None
    try:
        plan = _plan_of(loaded)
    except CorruptJournal as wrong:
        plan_missing = str(wrong)
    journal, torn = _sifted(loaded.rows)
    state = None
    if plan is not None and not torn:
        state, torn = _folded_or_torn(plan, journal)
    return Glimpse(loaded.summary, plan, plan_missing, state, tuple(journal), tuple(torn))


async def _load(store: Store, key: bytes) -> Loaded:
    loaded = (await store.load([key], with_plan=True))[0]
    if loaded is None:
        raise UnknownSaga("There is no such saga in this store; list the sagas to see what there is.")
    return loaded


def _plan_of(loaded: Loaded) -> Plan:
    if loaded.plan is None:
        raise CorruptJournal(
            f"The plan of saga {loaded.summary.saga_id!r} is missing from the store; start a worker that has it."
        )
    try:
        return Plan.from_json(loaded.plan)
    except ValueError as wrong:
        raise CorruptJournal(str(wrong)) from wrong


def _sifted(rows: Sequence[Row]) -> tuple[list[Turned], list[Torn]]:
    """Return the rows that can be read, and those that can't or are missing."""
    stored = {row.version: row for row in rows}
    journal: list[Turned] = []
    torn: list[Torn] = []
    for version in range(1, max(stored, default=1) + 1):
        if version not in stored:
            torn.append(Torn(version, "is missing."))
            continue
        try:
            journal.append(Turned(version, stored[version].at, tuple(decode_entries(stored[version].entries))))
        except CorruptJournal as wrong:
            torn.append(Torn(version, _unreadable(wrong)))
    return journal, torn


def _folded_or_torn(plan: Plan, journal: Sequence[Turned]) -> tuple[SagaState | None, list[Torn]]:
    state: SagaState | None = None
    for row in journal:
        try:
            state = fold(plan, state, row.entries)
        except Unfoldable as wrong:
            return None, [Torn(row.version, f"does not fit: {wrong}")]
    return state, []
