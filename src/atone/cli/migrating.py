"""`atone migrate`: bring a store's tables to what this Atone knows, or print the script that does.

Owns what is said about it. Must not know a table: the adapter has the migrations. Called by the command of that name.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from atone.cli.exits import Exit, Stop
from atone.cli.output import Output
from atone.cli.place import checked_url, named
from atone.errors import StoreError
from atone.stores import migrate_store, migration_script
from atone.stores._address import without_secrets


@dataclass(frozen=True, kw_only=True)
class Change:
    """What was asked for; `after` goes with `sql`."""

    store: str | None = field(repr=False)
    sql: bool
    post: bool
    roles: bool
    after: int


async def migrate(out: Output, change: Change) -> Exit:
    """Apply what is missing and say what that was, or print it."""
    url = checked_url(change.store)
    if change.after < 0 or (change.after and not change.sql):
        raise Stop(Exit.USAGE, "usage", "--after N goes with --sql: a script of the migrations above number N.")
    if change.sql:
        print(_script(url, change))
        return Exit.DONE
    named(url, must_exist=False)  # a URL that names nothing is the command line's mistake
    applied = await migrate_store(url, post=change.post, roles=change.roles)
    if out.as_json:
        out.data({"applied": list(applied)})
    elif applied:
        for name in applied:
            out.say(f"applied {name}")
    else:
        out.say(f"Nothing to apply: {without_secrets(url)} is up to date.")
    return Exit.DONE


def _script(url: str, change: Change) -> str:
    try:
        return migration_script(url, post=change.post, roles=change.roles, after=change.after)
    except StoreError as wrong:
        raise Stop(Exit.USAGE, "usage", str(wrong)) from wrong
