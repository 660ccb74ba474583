"""From a URL and an id to one saga: opening the store without making one, finding who is meant.

Owns how an id is read (`saga_id` or `name/saga_id`) and what is said when it fits none or several. Must not write.
Used by every command.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from atone.cli.exits import Exit, Stop
from atone.errors import StoreError, StoreUnavailable
from atone.store import Query, Store, Summary, Viewing, Views
from atone.stores import open_store

_CANDIDATES_MAX = 20
_SEPARATOR = "/"


@asynccontextmanager
async def opened(url: str | None, *, notify: bool = False) -> AsyncGenerator[Store]:
    """Open the store that is there; a look never makes one, and tells nobody."""
    async with named(url, must_exist=True, notify=notify) as store:
        yield store


def named(url: str | None, *, must_exist: bool, notify: bool = True) -> Store:
    """Return the store that the command line names, not opened yet."""
    try:
        return open_store(checked_url(url), must_exist=must_exist, notify=notify)
    except StoreUnavailable:
        raise
    except StoreError as wrong:
        raise Stop(Exit.USAGE, "usage", str(wrong)) from wrong


def checked_url(url: str | None) -> str:
    """Return the URL if it may name a store that several processes share."""
    if not url:
        raise Stop(Exit.USAGE, "usage", "Say which store: add --store sqlite:///orders.db, or set ATONE_STORE.")
    if url.startswith("memory:"):
        raise Stop(Exit.USAGE, "usage", "A memory store lives in its own process only; give the URL of another one.")
    return url


async def find_saga(store: Store, tenant: str, given: str, name: str | None) -> Summary:
    """Return the saga that `given` names: its id, or its name and id with a slash between."""
    found = await _candidates(store, tenant, given, name)
    match found:
        case [only]:
            return only
        case [] if await _candidates(_views(store), tenant, given, name):
            raise Stop(
                Exit.REFUSED,
                "choreographed",
                f"{given!r} is a choreographed saga: its services act by themselves, and nobody can act for them. "
                f"Look at it with: atone show {given}",
            )
        case []:
            raise Stop(
                Exit.REFUSED,
                "unknown_saga",
                f"There is no saga {given!r} of tenant {tenant!r}{f' named {name!r}' if name else ''}. "
                "See what there is with: atone list",
            )
        case _:
            raise _ambiguous(found, given)


def _ambiguous(found: Sequence[Summary], given: str) -> Stop:
    return Stop(
        Exit.USAGE,
        "ambiguous",
        f"{len(found)} sagas are called {given!r}. Write one of these instead, or add --name:",
        candidates=[f"{one.name}{_SEPARATOR}{one.saga_id}" for one in found],
    )


async def find_any(store: Store, tenant: str, given: str, name: str | None) -> tuple[Summary, Views | None]:
    """Return the saga that `given` names, orchestrated or choreographed, and where the latter is kept."""
    views = _views(store)
    seen = await _candidates(views, tenant, given, name)
    if not seen:
        return await find_saga(store, tenant, given, name), None
    found = [*await _candidates(store, tenant, given, name), *seen]
    if len(found) > 1:
        raise _ambiguous(found, given)
    return seen[0], views


def _views(store: Store) -> Views | None:
    return store.views if isinstance(store, Viewing) else None


class _Finds(Protocol):
    """What a store and its views have in common."""

    async def find(self, query: Query) -> Sequence[Summary]: ...


async def _one(place: _Finds, tenant: str, name: str, saga_id: str) -> Summary | None:
    found = await place.find(Query(tenant=tenant, name=name, saga_id=saga_id, limit=1))
    return found[0] if found else None


async def _candidates(store: _Finds | None, tenant: str, given: str, name: str | None) -> list[Summary]:
    if store is None:
        return []
    if name is not None:
        only = await _one(store, tenant, name, given)
        return [] if only is None else [only]
    found = {one.key: one for one in await store.find(Query(tenant=tenant, saga_id=given, limit=_CANDIDATES_MAX))}
    for at, character in enumerate(given):
        if character == _SEPARATOR:
            one = await _one(store, tenant, given[:at], given[at + 1 :])
            if one is not None:
                found[one.key] = one
    return list(found.values())
