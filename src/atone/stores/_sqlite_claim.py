"""Leases and take-over on SQLite: renew a worker's lease, declare others dead, take what needs an owner.

Fair between definitions: each gives its first saga, then each its second. It must not decide what a saga does next.
Called by the adapter, in the writer thread.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from atone.store import Claimed, Lease, StoredPlan
from atone.stores._sqlite_connection import Connection
from atone.stores._sqlite_group import dead, is_alive

T = TypeVar("T")

_UNCLAIMABLE_MAX = 1000
_EARLY_MAX = 1000

_REGISTER = "INSERT INTO workers (id, lease_until) VALUES (?, ?) ON CONFLICT DO NOTHING"
_KEEP_PLAN = """
    INSERT INTO definitions (name, version, plan_hash, plan) VALUES (?, ?, ?, ?)
    ON CONFLICT (name, version, plan_hash) DO UPDATE SET plan = excluded.plan
"""
_RENEW = "UPDATE workers SET lease_until = ?, dead = ? WHERE id = ? AND dead = 0"
_PROLONG = "UPDATE workers SET lease_until = max(lease_until, ?) WHERE id = ?"
_DECLARE_DEAD = "UPDATE workers SET dead = 1 WHERE dead = 0 AND holds = 1 AND lease_until <= ?"
_LEFT = "SELECT id FROM workers WHERE dead = 1 AND holds = 1"
_FORGET = "UPDATE workers SET holds = 0 WHERE id = ?"
_HOLDS = "SELECT 1 FROM unfinished WHERE owner = ? LIMIT 1"
_DEFINITIONS = "SELECT name, version, plan_hash, id FROM definitions"
_MINE = "SELECT key FROM unfinished WHERE owner = ?"
_NAME = "SELECT name FROM sagas WHERE key = ?"
_ASKED = "SELECT key FROM unfinished WHERE owner = ? AND asked = 1"
_ORPHANS = "SELECT key FROM unfinished WHERE owner = ? AND definition = ? LIMIT ?"
_DUE = """
    SELECT key FROM unfinished WHERE owner IS NULL AND definition = ? AND wake_at <= ? ORDER BY wake_at LIMIT ?
"""
_OWN = "UPDATE sagas SET owner = ? WHERE key = ?"
_GIVE_UP = """
    INSERT INTO dead_letters (tenant, name, saga_id, request_id, entries, given_up_at)
    SELECT tenant, name, saga_id, request_id, entries, ?1 FROM early_events
     WHERE expires_at <= ?1 ORDER BY expires_at, id LIMIT ?2
"""
_DROP_EARLY = """
    DELETE FROM early_events WHERE id IN (
        SELECT id FROM early_events WHERE expires_at <= ?1 ORDER BY expires_at, id LIMIT ?2)
"""


class Wish(NamedTuple):
    """What a worker asks a claim for; `first` is the number of the claim, so that each definition is first in turn."""

    worker: str
    definitions: frozenset[tuple[str, int, str]]
    known: frozenset[bytes]
    limit: int
    lease_seconds: float
    first: int
    limits: Mapping[str, int]


def renew(
    connection: Connection,
    now: float,
    worker: str | None,
    lease_seconds: float,
    register: Sequence[StoredPlan] | None,
) -> Lease:
    """Extend a lease, or make the worker's row first; with no seconds, end it for ever. Nobody's is only the time."""
    connection.executemany(_KEEP_PLAN, register or ())
    if worker is None:
        return Lease(now, now)
    if register is not None:
        connection.execute(_REGISTER, (worker, now))
    until = now + lease_seconds
    before = connection.total_changes()
    connection.execute(_RENEW, (until, lease_seconds <= 0, worker))
    if connection.total_changes() == before:
        raise dead(worker)
    return Lease(now, until)


def claim(connection: Connection, now: float, wish: Wish) -> Claimed:
    """Take over what needs an owner; a claim that finds nothing writes nothing."""
    if not is_alive(connection, wish.worker, now):
        raise dead(wish.worker)
    connection.execute(_DECLARE_DEAD, (now,))
    left = [str(row[0]) for row in connection.execute(_LEFT)]
    mine = _keys(connection, _MINE, wish.worker)
    newer = wish.known.intersection(_keys(connection, _ASKED, wish.worker))
    queues, unclaimable = _waiting(connection, wish, left, now)
    taken = sorted(set(mine) - wish.known)[: wish.limit]
    seen = Counter[str]()
    if wish.limits:
        seen.update(str(name) for key in taken for (name,) in connection.execute(_NAME, (key,)))
    allowed = _allowed(seen, _in_turns(queues, wish.first), wish.limits)
    found = list(islice(allowed, max(0, wish.limit - len(taken))))
    connection.executemany(_OWN, [(wish.worker, key) for key in found])
    taken += found
    if taken:
        connection.execute(_PROLONG, (now + wish.lease_seconds, wish.worker))
    _forget_empty_handed(connection, left)
    return Claimed(tuple(taken), tuple(sorted(newer)), unclaimable, _give_up_early(connection, now), now)


def _waiting(
    connection: Connection, wish: Wish, left: Sequence[str], now: float
) -> tuple[Sequence[Sequence[tuple[str, bytes]]], int]:
    """Return a queue of names and keys for each definition that is asked for, and how many sagas wait of the others."""
    queues: list[list[tuple[str, bytes]]] = []
    unclaimable = 0
    for name, version, plan_hash, number in connection.execute(_DEFINITIONS).fetchall():
        wanted = (name, version, plan_hash) in wish.definitions
        most = wish.limit if wanted else _UNCLAIMABLE_MAX - unclaimable
        found = list(islice(_needing_owner(connection, number, left, now, most), most))
        if wanted:
            queues.append([(name, key) for key in found])
        else:
            unclaimable += len(found)
    return queues, unclaimable


def _needing_owner(
    connection: Connection, definition: Any, left: Sequence[str], now: float, most: int
) -> Iterator[bytes]:
    for worker in left:
        yield from _keys(connection, _ORPHANS, worker, definition, most)
    yield from _keys(connection, _DUE, definition, now, most)


def _keys(connection: Connection, statement: str, *values: Any) -> list[bytes]:
    return [key for (key,) in connection.execute(statement, values)]


def _allowed(
    taken: Mapping[str, int], waiting: Iterator[tuple[str, bytes]], limits: Mapping[str, int]
) -> Iterator[bytes]:
    """Leave out what would be too many of one name, beside those that are taken anyway."""
    seen = Counter(taken)
    for name, key in waiting:
        seen[name] += 1
        if seen[name] <= limits.get(name, seen[name]):
            yield key


def _in_turns(queues: Sequence[Sequence[T]], first: int) -> Iterator[T]:
    """Yield the first of each queue, then the second of each, and so on; another queue begins each time."""
    filled = [queue for queue in queues if queue]
    first %= max(len(filled), 1)
    for at in range(max(map(len, filled), default=0)):
        yield from (queue[at] for queue in filled[first:] + filled[:first] if at < len(queue))


def _forget_empty_handed(connection: Connection, left: Collection[str]) -> None:
    for worker in left:
        if connection.execute(_HOLDS, (worker,)).fetchone() is None:
            connection.execute(_FORGET, (worker,))


def _give_up_early(connection: Connection, now: float) -> int:
    before = connection.total_changes()
    connection.execute(_GIVE_UP, (now, _EARLY_MAX))
    given_up = connection.total_changes() - before
    if given_up:
        connection.execute(_DROP_EARLY, (now, _EARLY_MAX))
    return given_up
