"""A watch inside the database on who writes: a journal row of a worker that did not own its saga is a stale write.

Owns triggers that look at each row as it is written, by what the tables say at that moment, and not by what the store's
own statements have checked; and at commits that came and wrote nothing, whether or not the answer was heard. Must not
stand in the way of a write. Put beside the tables by `fleet`, before any worker.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import psycopg

# A worker's id says which process registered it, by the name of that process's connections. A request may be appended
# by anybody, and a birth has no owner before it.
_TRIGGERS = """
CREATE SCHEMA audit;
CREATE TABLE audit.lives (worker text PRIMARY KEY, process text NOT NULL);
CREATE TABLE audit.refused (process text NOT NULL);
CREATE TABLE audit.stale (saga bytea, version integer, commit_id bytea, process text, owner text, why text);

CREATE FUNCTION audit.note_life() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    INSERT INTO audit.lives VALUES (NEW.id, current_setting('application_name'));
    RETURN NULL;
END
$$;
CREATE TRIGGER note_life AFTER INSERT ON atone.workers FOR EACH ROW EXECUTE FUNCTION audit.note_life();

CREATE FUNCTION audit.note_write() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    writer text := current_setting('application_name');
    owner text;
    wrong text;
BEGIN
    IF NEW.version = 1 OR position('"request_received"'::bytea IN substring(NEW.entries FROM 1 FOR 60)) > 0 THEN
        RETURN NEW;
    END IF;
    SELECT s.owner, CASE WHEN s.owner IS NULL THEN 'nobody owns it'
                         WHEN l.process IS DISTINCT FROM writer THEN 'somebody else owns it'
                         WHEN w.dead THEN 'its owner is dead'
                         WHEN w.lease_until <= NEW.at THEN 'the lease was over' END
      INTO owner, wrong
      FROM atone.sagas AS s
      LEFT JOIN atone.workers AS w ON w.id = s.owner
      LEFT JOIN audit.lives AS l ON l.worker = s.owner
     WHERE s.key = NEW.saga;
    IF wrong IS NOT NULL THEN
        INSERT INTO audit.stale VALUES (NEW.saga, NEW.version, NEW.commit_id, writer, owner, wrong);
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER note_write BEFORE INSERT ON atone.journal FOR EACH ROW EXECUTE FUNCTION audit.note_write();

CREATE FUNCTION audit.note_refusal() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM added) AND position('FOR SHARE' IN current_query()) > 0 THEN
        INSERT INTO audit.refused VALUES (current_setting('application_name'));
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER note_refusal AFTER INSERT ON atone.journal REFERENCING NEW TABLE AS added
   FOR EACH STATEMENT EXECUTE FUNCTION audit.note_refusal();
"""
_STALE = """
SELECT encode(a.saga, 'hex'), a.version, a.process, a.owner, a.why FROM audit.stale AS a
  JOIN atone.journal AS j USING (saga, version, commit_id)
"""


class Stale(NamedTuple):
    """A row that stands in a journal and should not."""

    saga: str
    version: int
    process: str
    owner: str | None
    why: str


def install(url: str) -> None:
    """Begin to watch; `url` is a superuser's."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_TRIGGERS)


def stale_writes(url: str) -> list[Stale]:
    """Return the rows that were written by who had no right to."""
    with psycopg.connect(url, autocommit=True) as connection:
        return [Stale(*row) for row in connection.execute(_STALE).fetchall()]


def commits_refused(url: str) -> int:
    """Return how many commits came of which nothing was written: their worker was dead, or the sagas not its own."""
    with psycopg.connect(url, autocommit=True) as connection:
        return int(connection.execute("SELECT count(*) FROM audit.refused").fetchall()[0][0])


def written_unheard(url: str, in_doubt: Iterable[tuple[float, tuple[bytes, ...]]]) -> int:
    """Count the commits without an answer that the database had made by then, by its own time of the rows.

    A commit that is sent again writes its rows later, so a row that is older was written by the one in doubt.
    """
    with psycopg.connect(url, autocommit=True) as connection:
        return sum(
            bool(
                connection.execute(
                    "SELECT count(*) FROM atone.journal WHERE commit_id = ANY (%s) AND at < %s", (list(ids), at)
                ).fetchall()[0][0]
            )
            for at, ids in in_doubt
        )
