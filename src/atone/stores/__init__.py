"""Store adapters: each implements the port `atone.store.Store` and passes the suite in `atone.testing.contracts`.

Owns the one place where a URL becomes an adapter: `open_store`, and what is done to its tables. Adapters are imported
when they are asked for, and never import each other. Called by the orchestrator and the command line; whoever has an
adapter object needs no URL.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from atone.errors import StoreError, StoreUnavailable
from atone.store import Store
from atone.stores._address import POSTGRES, scheme_of, split_address

_OWN_PARAMETERS = (("schema", "atone"), ("statement_cache_size", "100"), ("notify", "on"))
_DIGITS_MAX = 9
_SWITCH = {"on": True, "off": False}
_SCHEMES = "sqlite:///relative.db, sqlite:////absolute/path.db, postgresql://user@host/database or memory://"
_ENCODE = "What is special in a password has to be percent-encoded (%2F for /, %3A for :)."


def open_store(url: str, *, allow_volatile: bool = False, must_exist: bool = False, notify: bool = True) -> Store:
    """Return the store that `url` names, not opened yet: `async with open_store(url) as store`.

    `sqlite:///orders.db` is relative to the working directory, `sqlite:////var/lib/orders.db` is absolute. `memory://`
    forgets everything with the process, so it wants `allow_volatile=True`. With `must_exist` a look makes no new store.
    Without `notify` other processes are not told of anything, nor listened to.

    `postgresql://user:password@host:5432/database` takes several hosts, the driver's own parameters, and of Atone's
    `?schema=` (atone), `?notify=off` for one that only polls, and `?statement_cache_size=0` for a pooler that gives
    each transaction another connection (it polls too).

    Raises:
        VolatileStore: The URL names the memory store and `allow_volatile` is not set.
        StoreUnavailable: `must_exist` is set, and there is no file.
        StoreError: The URL names no store that this version has.
    """
    scheme = scheme_of(url)
    match scheme:
        case None:  # nothing of it is repeated: a password may stand anywhere
            raise StoreError(f"This is no store URL. Write one of {_SCHEMES}. {_ENCODE}")
        case "sqlite":
            return _sqlite(url.removeprefix("sqlite://"), must_exist)
        case "memory":
            from atone.stores.memory import MemoryStore

            return MemoryStore(allow_volatile=allow_volatile)
        case "postgres" | "postgresql":
            return _postgres(url, must_exist, notify)
        case _:
            raise StoreError(f"No store is called {scheme!r}. Write one of {_SCHEMES}.")


def _sqlite(rest: str, must_exist: bool) -> Store:
    from atone.stores.sqlite import SqliteStore

    path = sqlite_path(rest)
    if must_exist and not _holds_something(Path(path)):
        where = Path(path).absolute()
        raise StoreUnavailable(
            f"There is no store at {where}. Check the path; an orchestrator makes the file, or atone migrate."
        )
    return SqliteStore(path)


def sqlite_path(rest: str) -> str:
    """Return the path of a file from what stands behind `sqlite://`.

    Raises:
        StoreError: It names no file.
    """
    path = rest.removeprefix("/")
    if not rest.startswith("/") or not path:
        raise StoreError(f"This URL of SQLite names no file. Write one of {_SCHEMES}; mind the number of slashes.")
    if path == ":memory:":
        raise StoreError(
            "SQLite in memory would be lost with the process. "
            "Name a file, or ask for memory:// with allow_volatile=True."
        )
    return path


def _postgres(url: str, must_exist: bool, notify: bool) -> Store:
    refuse_without_asyncpg()
    from atone.stores.postgres import PostgresStore

    dsn, schema, options = read_postgres_url(url)
    options["notify"] = notify and options["notify"]
    return PostgresStore(dsn, schema=schema, migrate=not must_exist, **options)


def refuse_without_asyncpg() -> None:
    """Complain if the package is missing, with what to install."""
    if find_spec("asyncpg") is None:
        raise StoreError('A store on PostgreSQL needs asyncpg. Run: pip install "atone[postgres]"')


def read_postgres_url(url: str) -> tuple[str, str, dict[str, Any]]:
    """Return what the driver gets, the schema, and the options of Atone's own."""
    parts = split_address(url)
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    schema, cached, notify = (given.pop(name, usual) for name, usual in _OWN_PARAMETERS)
    if not (cached.isascii() and cached.isdigit() and len(cached) <= _DIGITS_MAX):
        raise StoreError("statement_cache_size is a number. Write 0, or leave it out.")
    if notify not in _SWITCH:
        raise StoreError("notify is on or off. Write notify=off, or leave it out.")
    query = f"?{urlencode(given, quote_via=quote)}" if given else ""
    dsn = f"{parts.scheme}://{parts.netloc}{parts.path}{query}"
    return dsn, schema, {"statement_cache_size": int(cached), "notify": _SWITCH[notify]}


async def migrate_store(url: str, *, post: bool = False, roles: bool = False) -> Sequence[str]:
    """Bring a store's tables to what this code knows, and return the names of the migrations that were applied.

    `post` ones are for when no process with older code runs any more. With `roles` the roles are made first, where the
    store has some. A file of SQLite is brought up to date whenever it is opened; here it is only made.

    Raises:
        StoreSchemaError: The tables are newer than this code, or something else. Nothing was changed.
        StoreError: The URL is wrong, or this user may not do it. Nothing was changed.
    """
    if scheme_of(url) in POSTGRES:
        refuse_without_asyncpg()
        from atone.stores.postgres import migrate

        dsn, schema, _ = read_postgres_url(url)
        return await migrate(dsn, schema=schema, post=post, roles=roles)
    async with open_store(url):
        return ()


def migration_script(url: str, *, post: bool = False, roles: bool = False, after: int = 0) -> str:
    """Return the migrations above number `after` as a script for psql, between roles and grants if `roles` are wanted.

    Raises:
        StoreError: The URL names no PostgreSQL.
    """
    if scheme_of(url) not in POSTGRES:
        raise StoreError(
            "Only PostgreSQL has a script; SQLite's tables are made when a file is opened. Leave --sql out."
        )
    refuse_without_asyncpg()
    from atone.stores.postgres import grants_sql, migrate_sql, roles_sql

    _, schema, _ = read_postgres_url(url)
    script = migrate_sql(schema=schema, after=after, post=post)
    return "\n".join([roles_sql(schema=schema), script, grants_sql(schema=schema)]) if roles else script


def _holds_something(file: Path) -> bool:
    return file.is_file() and file.stat().st_size > 0
