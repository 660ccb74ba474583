"""Where the tables are and what time it is there, put into the text of statements.

Statements are written for the schema `atone` and the function `clock()`; here they become those of one store. Nothing
else may ever be put into a text: values are parameters. Called by the PostgreSQL adapter's modules, through `Place`.
"""

from __future__ import annotations

import re

from atone.errors import StoreError

CLOCK_SQL = "CAST(extract(epoch FROM clock_timestamp()) AS float8)"

_SCHEMA = re.compile(r"\bSCHEMA (IF NOT EXISTS )?atone\b")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")


class Place:
    """A schema and a clock; `sql` returns a statement for them."""

    def __init__(self, schema: str, clock_sql: str = CLOCK_SQL) -> None:
        if not _NAME.fullmatch(schema) or schema.lower().startswith("pg_"):
            raise StoreError(
                f"{schema!r} is no name for a schema. Take letters, digits and _, at most 63, and no pg_ in front."
            )
        self.schema = schema
        self._quoted = f'"{schema}"'
        self._clock_sql = clock_sql
        self._texts: dict[str, str] = {}

    def sql(self, text: str) -> str:
        """Return the statement as it reads here."""
        found = self._texts.get(text)
        if found is None:
            found = self._texts[text] = self._here(text)
        return found

    def _here(self, text: str) -> str:
        moved = _SCHEMA.sub(rf"SCHEMA \1{self._quoted}", text.replace("atone.", f"{self._quoted}."))
        return moved.replace("clock()", self._clock_sql)
