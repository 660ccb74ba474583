"""From stored rows to a saga's state, for whoever only looks: no lease, no ownership.

Owns the fold of rows, and finding one saga by its identity. Must not write. Used by the worker when it takes a saga over,
by `Orchestrator` and by the command line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from atone._core.journal import Entry, Unfoldable, fold
from atone._core.plan import Plan
from atone._core.state import SagaState
from atone._runtime.wire import decode_entries
from atone.errors import CorruptJournal, UnknownSaga
from atone.store import Query, Row, Store, Summary


class Turned(NamedTuple):
    """One journal row, decoded: what a timeline shows. `at` is epoch seconds by the store's clock."""

    version: int
    at: float
    entries: tuple[Entry, ...]


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


def _decoded(rows: Sequence[Row]) -> tuple[Turned, ...]:
    return tuple(Turned(row.version, row.at, tuple(decode_entries(row.entries))) for row in rows)


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
    loaded = (await store.load([key], with_plan=True))[0]
    if loaded is None:
        raise UnknownSaga("There is no such saga in this store; list the sagas to see what there is.")
    if loaded.plan is None:
        raise CorruptJournal(f"The plan of saga {loaded.summary.saga_id!r} is missing from the store; start a worker that has it.")
    try:
        plan = Plan.from_json(loaded.plan)
    except ValueError as wrong:
        raise CorruptJournal(str(wrong)) from wrong
    journal = _decoded(loaded.rows)
    return Found(loaded.summary, plan, _fold(plan, journal), journal)
