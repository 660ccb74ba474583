"""The tables of a PostgreSQL store: numbered migrations, what a look at them says, roles and grants.

Migrations only go forward. A `pre` one leaves the code before it able to run, and is applied when a store is opened;
a `post` one is for when no older code runs any more, and is asked for. It must not know what the tables are for. Called
by the adapter.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from importlib import resources
from typing import NamedTuple

from atone.errors import StoreSchemaError
from atone.stores._postgres_line import Connection
from atone.stores._postgres_place import Place

_LEDGER = """
CREATE TABLE IF NOT EXISTS atone.migrations (
    number integer PRIMARY KEY,
    name text COLLATE "C" NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""
_NOTE = "INSERT INTO atone.migrations (number, name) VALUES ($1, $2)"
_LOCK = "SELECT pg_advisory_xact_lock($1)"
_HAS_SCHEMA = "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1)"
# One statement: another process may be making the tables right now.
_HOLDS = """
SELECT count(*) FILTER (WHERE c.relname = 'migrations') > 0 AS is_atones, count(*) > 0 AS is_used
  FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = $1
"""
_APPLIED = "SELECT number, name FROM atone.migrations"
_HAS_ROLES = "SELECT count(*) = 2 FROM pg_catalog.pg_roles WHERE rolname IN ('atone_worker', 'atone_reader')"
# The tables belong to the role rather than to whoever migrates, if that is a member of it and the role may make them.
_MAY_BE_OWNER = """
SELECT EXISTS (
    SELECT FROM pg_catalog.pg_roles AS r
     WHERE r.rolname = 'atone_owner' AND pg_has_role(r.oid, 'MEMBER')
       AND coalesce((SELECT n.nspowner = r.oid FROM pg_catalog.pg_namespace AS n WHERE n.nspname = $1),
                    has_database_privilege(r.oid, current_database(), 'CREATE')))
"""


class Migration(NamedTuple):
    """One step; `phase` is pre or post."""

    number: int
    name: str
    phase: str
    text: str


def migrations() -> tuple[Migration, ...]:
    """Return the migrations that this code knows, in their order."""
    found: list[Migration] = []
    for file in resources.files("atone.stores").joinpath("sql", "postgres").iterdir():
        number, _, rest = file.name.removesuffix(".sql").partition("_")
        if number.isdigit():
            name = f"{number}_{rest}"
            found.append(Migration(int(number), name, _phase(name), file.read_text(encoding="utf-8")))
    return tuple(sorted(found))


async def migrate(connection: Connection, place: Place, where: str, *, post: bool = False) -> list[str]:
    """Apply what is missing, in one transaction, and return the names of what was applied.

    Raises:
        StoreSchemaError: The schema is newer than this code, or holds something else. Nothing was changed.
    """
    if not await _missing(connection, place, where, post=post):
        return []
    async with connection.transaction():
        await connection.execute(_LOCK, _lock_number(place))
        missing = await _missing(connection, place, where, post=post)  # another process may have been faster
        if await connection.fetchval(_MAY_BE_OWNER, place.schema):
            await connection.execute("SET LOCAL ROLE atone_owner")
        if not await connection.fetchval(_HAS_SCHEMA, place.schema):
            await connection.execute(place.sql("CREATE SCHEMA atone"))
        await connection.execute(place.sql(_LEDGER))
        for migration in missing:
            await connection.execute(place.sql(migration.text))
            await connection.execute(place.sql(_NOTE), migration.number, migration.name)
        if missing and await connection.fetchval(_HAS_ROLES):
            await connection.execute(place.sql(_text("grants.sql")))
    return [migration.name for migration in missing]


async def check(connection: Connection, place: Place, where: str) -> None:
    """Complain unless this code can work with the tables as they are.

    Raises:
        StoreSchemaError: They are missing, older or newer.
    """
    missing = await _missing(connection, place, where, post=False)
    if missing:
        raise StoreSchemaError(
            f"{where} lacks {', '.join(migration.name for migration in missing)} in schema {place.schema}. "
            "Run the migrations there with: atone migrate --store URL (or open the store with migrate=True)."
        )


def migrate_sql(place: Place, *, after: int = 0, post: bool = False) -> str:
    """Return the migrations above number `after` as a script for psql."""
    wanted = [one for one in migrations() if one.number > after and (post or one.phase == "pre")]
    parts = [
        "-- Atone's tables. Run it as their owner: SET ROLE atone_owner, if you use the roles.",
        "BEGIN;",
        f"SELECT pg_advisory_xact_lock({_lock_number(place)});",
        place.sql("CREATE SCHEMA IF NOT EXISTS atone;"),
        place.sql(_LEDGER.strip() + ";"),
    ]
    for one in wanted:
        note = _NOTE.replace("$1", str(one.number)).replace("$2", f"'{one.name}'")
        parts += [f"\n-- {one.name}\n", place.sql(one.text.strip()), place.sql(note + ";")]
    return "\n".join([*parts, "COMMIT;", ""])


def roles_sql(place: Place) -> str:
    """Return a script that makes the three roles; it comes before the first migration."""
    return place.sql(_text("roles.sql"))


def grants_sql(place: Place) -> str:
    """Return a script that says what workers and readers may do; `migrate` does the same when the roles are there."""
    return place.sql(_text("grants.sql"))


async def _missing(connection: Connection, place: Place, where: str, *, post: bool) -> list[Migration]:
    applied = await _applied(connection, place, where)
    known = migrations()
    newest = known[-1].number
    # A newer pre migration leaves this code able to run; that is what pre means, and what a rolling update needs.
    newer = [name for number, name in applied.items() if number > newest and _phase(name) != "pre"]
    if newer:
        raise StoreSchemaError(
            f"{where} has {', '.join(newer)} in schema {place.schema}, this Atone knows up to {known[-1].name}. "
            "Upgrade Atone here, or name another schema."
        )
    return [one for one in known if one.number not in applied and (post or one.phase == "pre")]


async def _applied(connection: Connection, place: Place, where: str) -> Mapping[int, str]:
    holds = await connection.fetchrow(_HOLDS, place.schema)
    if holds["is_atones"]:
        return dict(await connection.fetch(place.sql(_APPLIED)))
    if holds["is_used"]:
        raise StoreSchemaError(
            f"Schema {place.schema} in {where} holds something else than Atone's tables. Name a schema of its own."
        )
    return {}


def _phase(name: str) -> str:
    phase = name.split("_")[1]
    return phase if phase in {"pre", "post"} else "post"


def _lock_number(place: Place) -> int:
    """Return a number for this schema's migrations; a lock is taken for nothing else, and within a transaction."""
    return zlib.crc32(b"atone migrations of " + place.schema.encode()) + (0x41744F6E << 32)


def _text(name: str) -> str:
    return resources.files("atone.stores").joinpath("sql", "postgres", name).read_text(encoding="utf-8")
