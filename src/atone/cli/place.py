"""From a URL and an id to one saga: opening the store without making one, finding who is meant.

Owns how an id is read (`saga_id` or `name/saga_id`) and what is said when it fits none or several. Must not write.
Used by every command.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from atone._runtime.reader import find_one
from atone.cli.exits import Exit, Stop
from atone.errors import StoreError, StoreUnavailable
from atone.store import Query, Store, Summary
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
        case []:
            raise Stop(
                Exit.REFUSED,
                "unknown_saga",
                f"There is no saga {given!r} of tenant {tenant!r}{f' named {name!r}' if name else ''}. "
                "See what there is with: atone list",
            )
        case _:
            raise Stop(
                Exit.USAGE,
                "ambiguous",
                f"{len(found)} sagas are called {given!r}. Write one of these instead, or add --name:",
                candidates=[f"{one.name}{_SEPARATOR}{one.saga_id}" for one in found],
            )


async def _candidates(store: Store, tenant: str, given: str, name: str | None) -> list[Summary]:
    if name is not None:
        only = await find_one(store, tenant, name, given)
        return [] if only is None else [only]
    found = {one.key: one for one in await store.find(Query(tenant=tenant, saga_id=given, limit=_CANDIDATES_MAX))}
    for at, character in enumerate(given):
        if character == _SEPARATOR:
            one = await find_one(store, tenant, given[:at], given[at + 1 :])
            if one is not None:
                found[one.key] = one
    return list(found.values())
