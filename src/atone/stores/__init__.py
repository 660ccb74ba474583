"""Store adapters: each implements the port `atone.store.Store` and passes the suite in `atone.testing.contracts`.

Owns `open_store`, the one place where a URL becomes an adapter. Adapters are imported when they are asked for, and
never import each other. Called by the orchestrator and the command line; whoever has an adapter object needs no URL.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from atone.errors import StoreError, StoreUnavailable
from atone.store import Store

_SCHEMES = "sqlite:///relative.db, sqlite:////absolute/path.db, postgresql://user@host/database or memory://"


def open_store(url: str, *, allow_volatile: bool = False, must_exist: bool = False) -> Store:
    """Return the store that `url` names, not opened yet: `async with open_store(url) as store`.

    `sqlite:///orders.db` is relative to the working directory, `sqlite:////var/lib/orders.db` is absolute. `memory://`
    forgets everything with the process, so it wants `allow_volatile=True`. With `must_exist` a look makes no new store.

    `postgresql://user:password@host:5432/database` takes several hosts, the driver's own parameters, and of Atone's
    `?schema=` (atone) and `?statement_cache_size=0` for a pooler that gives each transaction another connection.

    Raises:
        VolatileStore: The URL names the memory store and `allow_volatile` is not set.
        StoreUnavailable: `must_exist` is set, and there is no file.
        StoreError: The URL names no store that this version has.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise StoreError(f"{url!r} is no store URL. Write one of {_SCHEMES}.")
    match scheme:
        case "sqlite":
            return _sqlite(url, rest, must_exist)
        case "memory":
            from atone.stores.memory import MemoryStore

            return MemoryStore(allow_volatile=allow_volatile)
        case "postgres" | "postgresql":
            return _postgres(url, must_exist)
        case _:
            raise StoreError(f"No store is called {scheme!r}. Write one of {_SCHEMES}.")


def _sqlite(url: str, rest: str, must_exist: bool) -> Store:
    from atone.stores.sqlite import SqliteStore

    path = rest.removeprefix("/")
    if not rest.startswith("/") or not path:
        raise StoreError(f"{url!r} names no file. Write one of {_SCHEMES}; mind the number of slashes.")
    if path == ":memory:":
        raise StoreError(
            "SQLite in memory would be lost with the process. "
            "Name a file, or ask for memory:// with allow_volatile=True."
        )
    if must_exist and not _holds_something(Path(path)):
        where = Path(path).absolute()
        raise StoreUnavailable(f"There is no store at {where}. Check the path; an orchestrator makes the file.")
    return SqliteStore(path)


def _postgres(url: str, must_exist: bool) -> Store:
    try:
        from atone.stores.postgres import PostgresStore
    except ModuleNotFoundError as missing:
        if missing.name != "asyncpg":
            raise
        raise StoreError('A store on PostgreSQL needs asyncpg. Run: pip install "atone[postgres]"') from missing
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    schema, cached = options.pop("schema", "atone"), options.pop("statement_cache_size", "100")
    if not cached.isdigit():
        raise StoreError(f"statement_cache_size is a number, not {cached!r}. Write 0, or leave it out.")
    dsn = urlunsplit(parts._replace(query=urlencode(options, quote_via=quote)))
    return PostgresStore(dsn, schema=schema, migrate=not must_exist, statement_cache_size=int(cached))


def _holds_something(file: Path) -> bool:
    return file.is_file() and file.stat().st_size > 0
