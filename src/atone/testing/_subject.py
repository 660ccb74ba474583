"""What a store check is, what it is given, and the short words it is written in.

`Lab` makes workers, turns and requests with sensible contents, so that a check shows only what it is about. It must not
reach behind the port. Called by the modules of checks beside it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any
from uuid import uuid4

from atone.store import (
    NO_LIMITS,
    Birth,
    Claimed,
    Delivered,
    Delivery,
    Hot,
    Lease,
    Query,
    Row,
    Store,
    StoredPlan,
    Summary,
    Turn,
    TurnResult,
)

LEASE_SECONDS = 10.0


class ContractBroken(AssertionError):
    """The store did something else than the contract says."""


@dataclass(frozen=True)
class Joined:
    """A transaction of the caller's own on the store's database, to be ended by `commit` or `roll_back`."""

    connection: object
    commit: Callable[[], None]
    roll_back: Callable[[], None]


@dataclass(frozen=True)
class Subject:
    """A new, empty store that nobody has entered yet, and the ways to steer it.

    `advance(seconds)` moves the store's clock, which stands still otherwise. A row of more than `row_bytes_max` has to
    be refused; keep it small. `join` begins a transaction for `start`; None means that the store can't do that.
    """

    store: Store
    advance: Callable[[float], None]
    row_bytes_max: int
    join: Callable[[], AbstractContextManager[Joined]] | None = None


class Check:
    """One sentence of the contract: `await check(make_subject)` raises ContractBroken if it does not hold."""

    def __init__(self, body: Callable[[Lab], Awaitable[None]]) -> None:
        self._body = body
        self.name = body.__name__
        self.__doc__ = body.__doc__

    def __repr__(self) -> str:
        return self.name

    async def __call__(self, make_subject: Callable[[], Subject]) -> None:
        subject = make_subject()
        async with subject.store:
            await self._body(Lab(subject))


def same(found: object, wanted: object, what: str) -> None:
    """Complain unless both are equal."""
    if found != wanted:
        raise ContractBroken(f"{what}: {found!r} instead of {wanted!r}")


def holds(condition: object, what: str) -> None:
    """Complain unless it is so."""
    if not condition:
        raise ContractBroken(what)


async def refuses(kind: type[BaseException], call: Awaitable[object], what: str) -> None:
    """Complain unless the call raises that error."""
    try:
        await call
    except kind:
        return
    raise ContractBroken(f"{what}: no {kind.__name__} was raised")


def refuses_at_once(kind: type[BaseException], call: Callable[[], object], what: str) -> None:
    """Complain unless the function raises that error."""
    try:
        call()
    except kind:
        return
    raise ContractBroken(f"{what}: no {kind.__name__} was raised")


class Lab:
    """A store under test, with makers of what goes in."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.store = subject.store
        self.advance = subject.advance
        self._numbers = count(1)

    def key(self) -> bytes:
        """Return a new key, larger than all before it."""
        return next(self._numbers).to_bytes(8, "big") + uuid4().bytes[:8]

    @cached_property
    def poster(self) -> str:
        """A worker that writes whenever it is asked to, for it never runs out."""
        return self.worker(1_000_000.0)

    def worker(self, lease_seconds: float = LEASE_SECONDS, plans: Sequence[StoredPlan] = ()) -> str:
        """Register a worker and return its id."""
        worker = uuid4().hex
        self.store.renew(worker, lease_seconds, register=plans)
        return worker

    def lapse(self, *keep: str) -> None:
        """Let all leases run out but those of the workers in `keep`."""
        self.advance(LEASE_SECONDS + 1)
        for worker in keep:
            self.store.renew(worker, LEASE_SECONDS)

    def now(self) -> float:
        """Return the store's clock."""
        return self.register(uuid4().hex).now

    def register(self, worker: str) -> Lease:
        """Register under an id of the caller's choice."""
        return self.store.renew(worker, LEASE_SECONDS, register=())

    async def commit(self, worker: str | None, *turns: Turn) -> list[TurnResult]:
        """Commit and return the results."""
        return list(await self.store.commit(worker, turns))

    async def applied(self, worker: str, *turns: Turn) -> None:
        """Commit turns that have to fit."""
        same(await self.commit(worker, *turns), [TurnResult.APPLIED] * len(turns), "results of turns that fit")

    async def born(self, worker: str, key: bytes | None = None, /, **birth: Any) -> bytes:
        """Give birth to a saga and return its key."""
        first = birth_of(self.key() if key is None else key, **birth)
        await self.applied(worker, first)
        return first.key

    async def rows(self, key: bytes) -> tuple[Row, ...]:
        """Return a saga's rows, none if there is no saga."""
        (loaded,) = await self.store.load([key])
        return () if loaded is None else loaded.rows

    async def summary(self, key: bytes) -> Summary:
        """Return the summary of a saga that has to be there."""
        (loaded,) = await self.store.load([key])
        if loaded is None:
            raise ContractBroken("a saga is missing")
        return loaded.summary

    async def claim(
        self,
        worker: str,
        *,
        known: Collection[bytes] = (),
        limit: int = 100,
        definitions: Collection[tuple[str, int, str]] = (("Order", 1, "hash"),),
        lease_seconds: float = LEASE_SECONDS,
        limits: Mapping[str, int] = NO_LIMITS,
    ) -> Claimed:
        """Claim with the definition that `birth_of` uses."""
        return await self.store.claim(
            worker, definitions=definitions, known=known, limit=limit, lease_seconds=lease_seconds, limits=limits
        )

    async def deliver(self, **delivery: Any) -> Delivered:
        """Deliver what `request_for` makes."""
        return await self.store.deliver(request_for(**delivery))

    async def find(self, **query: Any) -> list[bytes]:
        """Return the keys of what fits, in the store's order."""
        return [summary.key for summary in await self.store.find(Query(**query))]


def birth_of(
    key: bytes,
    *,
    tenant: str = "acme",
    name: str = "Order",
    saga_id: str | None = None,
    definition_version: int = 1,
    plan_hash: str = "hash",
    status: str = "running",
    owned: bool = True,
    wake_at: float | None = None,
    entries: bytes = b'["born"]',
) -> Turn:
    """Return a first turn; the saga's id is made of the key if there is none."""
    birth = Birth(tenant, name, key.hex() if saga_id is None else saga_id, definition_version, plan_hash)
    return Turn(key, 1, uuid4().bytes, entries, Hot(status, owned, wake_at), birth)


def turn_of(key: bytes, version: int, hot: Hot | None = None, entries: bytes = b'["went on"]') -> Turn:
    """Return a later turn."""
    return Turn(key, version, uuid4().bytes, entries, hot)


def request_for(
    saga_id: str,
    *,
    request_id: str = "request-1",
    tenant: str = "acme",
    name: str = "Order",
    entries: bytes = b'["asked"]',
    keep_seconds: float | None = None,
) -> Delivery:
    """Return a request; with `keep_seconds` it is an event that may come early."""
    return Delivery(tenant, name, saga_id, request_id, entries, uuid4().bytes, keep_seconds)
