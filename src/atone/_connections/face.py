"""The face of a caller's connection: run a statement with named values, on asyncpg, psycopg 3, SQLAlchemy or SQLite.

Drivers are recognised by what a connection is made of, so that none of their packages is needed here. Synchronous ones
never suspend the coroutine, so who has no event loop can drive it by hand (`finish`). Must not end a transaction.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Coroutine, Iterator, Mapping
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

R = TypeVar("R")

Values: TypeAlias = Mapping[str, Any]
Dialect: TypeAlias = Literal["postgresql", "sqlite"]

_NAMED = re.compile(r"(?<![:\w]):(\w+)")
_KINDS = "an asyncpg, psycopg 3, SQLAlchemy, sqlite3 or aiosqlite connection, or a SQLAlchemy session"


_CHANGES: dict[Dialect, str] = {
    "postgresql": """
SELECT coalesce(sum(pg_stat_get_xact_tuples_inserted(c.oid) + pg_stat_get_xact_tuples_updated(c.oid)
                    + pg_stat_get_xact_tuples_deleted(c.oid)), 0)
  FROM pg_catalog.pg_class AS c
 WHERE c.relkind = 'r' AND c.oid >= 16384""",
    "sqlite": "SELECT total_changes()",
}


class Face(Protocol):
    """One connection. `run` takes named values (`:name`) and returns rows as tuples."""

    dialect: Dialect

    async def run(self, statement: str, values: Values | None = None) -> list[Any]: ...

    async def joins(self) -> bool:
        """Tell whether what runs next belongs to a transaction that the caller ends."""
        ...

    async def is_inside(self) -> bool:
        """Tell whether a transaction is open now, and begin none: False after it was ended, whoever did that."""
        ...


def face_of(connection: object, kinds: str = _KINDS) -> Face:
    """Return the face of a connection; `kinds` are those that a caller who gives another one is told of.

    Raises:
        TypeError: It is of a kind that can't be used, with the reason.
    """
    packages = set(_packages(connection))
    for package, kind in _KNOWN.items():
        if package in packages:
            face: Face = kind(connection)
            return face
    name = f"{type(connection).__module__}.{type(connection).__qualname__}"
    if "psycopg2" in packages:
        raise TypeError(f"{name} is of psycopg 2. Take psycopg 3, or give the SQLAlchemy session that it belongs to.")
    raise TypeError(f"A connection is {kinds} here, not {name}.")


async def changes(face: Face) -> int:
    """Return how many rows were changed on the connection so far, as its database counts them in this transaction."""
    ((count,),) = await face.run(_CHANGES[face.dialect])
    return int(count)


def finish(work: Coroutine[Any, Any, R]) -> R:
    """Run a coroutine that never waits, and return its result: that of a synchronous connection.

    Raises:
        TypeError: It waited, so the connection is an asynchronous one.
    """
    try:
        work.send(None)
    except StopIteration as done:
        result: R = done.value
        return result
    work.close()
    raise TypeError("This connection is asynchronous, and so is the barrier for it: take `Barrier`, and await it.")


async def awaited(given: Any) -> Any:
    """Return what was given, or what awaiting it gives."""
    return await given if inspect.isawaitable(given) else given


def _packages(connection: object) -> Iterator[str]:
    return (kind.__module__.partition(".")[0] for kind in type(connection).__mro__)


class _Asyncpg:
    dialect: Dialect = "postgresql"

    def __init__(self, connection: Any) -> None:
        if not hasattr(connection, "is_in_transaction"):
            raise TypeError(f"{type(connection).__qualname__} is no connection. Acquire one, and begin a transaction.")
        self._connection = connection

    async def run(self, statement: str, values: Values | None = None) -> list[Any]:
        values = values or {}
        names = list(dict.fromkeys(_NAMED.findall(statement)))
        places = {name: f"${at}" for at, name in enumerate(names, start=1)}
        numbered = _NAMED.sub(lambda found: places[found[1]], statement)
        return [tuple(row) for row in await self._connection.fetch(numbered, *(values[name] for name in names))]

    async def joins(self) -> bool:
        return await self.is_inside()

    async def is_inside(self) -> bool:
        inside: bool = self._connection.is_in_transaction()
        return inside


class _Psycopg:
    dialect: Dialect = "postgresql"

    def __init__(self, connection: Any) -> None:
        if not hasattr(connection, "info"):
            raise TypeError(f"{type(connection).__qualname__} is no connection. Give the connection itself.")
        self._connection = connection

    async def run(self, statement: str, values: Values | None = None) -> list[Any]:
        cursor = self._connection.cursor(row_factory=_as_tuple)
        try:
            await awaited(cursor.execute(_NAMED.sub(r"%(\1)s", statement), values))
            return [] if cursor.description is None else list(await awaited(cursor.fetchall()))
        finally:
            await awaited(cursor.close())

    async def joins(self) -> bool:
        # Without autocommit the driver begins a transaction with the first statement; 0 is IDLE.
        return not self._connection.autocommit or await self.is_inside()

    async def is_inside(self) -> bool:
        return int(self._connection.info.transaction_status) != 0


class _Sqlite:
    """`sqlite3` and `aiosqlite`, which has the same methods as coroutines."""

    dialect: Dialect = "sqlite"

    def __init__(self, connection: Any) -> None:
        if not hasattr(connection, "in_transaction"):
            raise TypeError(f"{type(connection).__qualname__} is no connection. Give the connection itself.")
        self._connection = connection

    async def run(self, statement: str, values: Values | None = None) -> list[Any]:
        cursor = await awaited(self._connection.execute(statement, dict(values or {})))
        try:
            return [tuple(row) for row in await awaited(cursor.fetchall())]
        finally:
            await awaited(cursor.close())

    async def joins(self) -> bool:
        if self._connection.in_transaction:
            return True
        if _begins_by_itself(self._connection):
            # As the driver itself would before the first write; at once as a writer, so that no upgrade can fail later.
            await self.run("BEGIN IMMEDIATE")
            return True
        return False

    async def is_inside(self) -> bool:
        inside: bool = self._connection.in_transaction
        return inside


class _SqlAlchemy:
    def __init__(self, connection: Any) -> None:
        if not hasattr(connection, "execute"):
            raise TypeError(f"{type(connection).__qualname__} is no connection. Connect, or make a session of it.")
        bind = connection.get_bind() if hasattr(connection, "get_bind") else connection
        name: str = bind.dialect.name
        if name not in {"postgresql", "sqlite"}:
            raise TypeError(f"This {type(connection).__qualname__} is connected to {name}; PostgreSQL or SQLite it is.")
        self.dialect: Dialect = "postgresql" if name == "postgresql" else "sqlite"
        self._connection = connection

    async def run(self, statement: str, values: Values | None = None) -> list[Any]:
        from sqlalchemy import text

        result = await awaited(self._connection.execute(text(statement), dict(values or {})))
        return [tuple(row) for row in result] if result.returns_rows else []

    async def joins(self) -> bool:
        await self.run("SELECT 1")  # whatever begins by itself has begun after this
        return await face_of(await self._drivers_own()).joins()

    async def is_inside(self) -> bool:
        return await face_of(await self._drivers_own()).is_inside()

    async def _drivers_own(self) -> object:
        """Return the driver's connection that SQLAlchemy holds for this one."""
        connection = self._connection
        if not hasattr(connection, "get_raw_connection") and not hasattr(connection, "get_isolation_level"):
            connection = await awaited(connection.connection())  # of a session
        connection = getattr(connection, "sync_connection", connection)
        own: object = connection.connection.driver_connection
        return own


def _begins_by_itself(connection: Any) -> bool:
    """Tell whether an SQLite driver begins a transaction before the first write, as it does unless told otherwise."""
    legacy = -1  # sqlite3.LEGACY_TRANSACTION_CONTROL, from Python 3.12 on
    return getattr(connection, "autocommit", legacy) == legacy and connection.isolation_level is not None


def _as_tuple(cursor: object) -> Any:
    return tuple


# SQLAlchemy first: its own connections are also made of other packages' classes.
_KNOWN: dict[str, Any] = {
    "sqlalchemy": _SqlAlchemy,
    "asyncpg": _Asyncpg,
    "psycopg": _Psycopg,
    "sqlite3": _Sqlite,
    "aiosqlite": _Sqlite,
}
