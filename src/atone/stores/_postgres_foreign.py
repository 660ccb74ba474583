"""Connections that are the caller's: asyncpg, psycopg 3 and SQLAlchemy, synchronous and not, behind one small face.

Recognised by what they are made of, so that none of those packages is needed here. It must not begin, commit or roll
back a transaction that is not its own savepoint. Called by `start`, in the caller's task, on the caller's connection.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

_NAMED = re.compile(r"(?<![:\w]):(\w+)")
_KINDS = "an asyncpg, psycopg 3 or SQLAlchemy connection or session"

Values = Mapping[str, Any]


class Foreign(Protocol):
    """Run a statement with named values (`:name`) and return its rows."""

    async def run(self, statement: str, values: Values | None = None) -> list[Any]: ...


def foreign(connection: object) -> Foreign:
    """Return the face of a connection.

    Raises:
        TypeError: It is of a kind that can't be used, with the reason.
    """
    packages = set(_packages(connection))
    if "asyncpg" in packages:
        return _Asyncpg(connection)
    if "psycopg" in packages:
        return _Psycopg(connection)
    if "sqlalchemy" in packages:
        return _SqlAlchemy(connection)
    kind = f"{type(connection).__module__}.{type(connection).__qualname__}"
    if "psycopg2" in packages:
        raise TypeError(f"{kind} is of psycopg 2. Take psycopg 3, or give the SQLAlchemy session that it belongs to.")
    raise TypeError(f"connection= takes {_KINDS} here, not {kind}.")


def _packages(connection: object) -> Iterator[str]:
    return (kind.__module__.partition(".")[0] for kind in type(connection).__mro__)


class _Asyncpg:
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


class _Psycopg:
    def __init__(self, connection: Any) -> None:
        if not hasattr(connection, "info"):
            raise TypeError(f"{type(connection).__qualname__} is no connection. Give the connection itself.")
        self._connection = connection

    async def run(self, statement: str, values: Values | None = None) -> list[Any]:
        cursor = self._connection.cursor(row_factory=_as_tuple)
        try:
            await _result(cursor.execute(_NAMED.sub(r"%(\1)s", statement), values))
            return [] if cursor.description is None else list(await _result(cursor.fetchall()))
        finally:
            await _result(cursor.close())


class _SqlAlchemy:
    def __init__(self, connection: Any) -> None:
        if not hasattr(connection, "execute"):
            raise TypeError(f"{type(connection).__qualname__} is no connection. Connect, or make a session of it.")
        bind = connection.get_bind() if hasattr(connection, "get_bind") else connection
        if bind.dialect.name != "postgresql":
            raise TypeError(
                f"This {type(connection).__qualname__} is connected to {bind.dialect.name}, the sagas are elsewhere: "
                "one transaction can't cover both. Give one that is connected to the store's database."
            )
        self._connection = connection

    async def run(self, statement: str, values: Values | None = None) -> list[Any]:
        from sqlalchemy import text

        result = await _result(self._connection.execute(text(statement), dict(values or {})))
        return [tuple(row) for row in result] if result.returns_rows else []


def _as_tuple(cursor: object) -> Any:
    return tuple


async def _result(of: Any) -> Any:
    return await of if inspect.isawaitable(of) else of
