"""What a participant knows of each saga: a row that is locked first, and the events that it expects by some time.

Owns the two tables beside the inbox, the outbox and the barrier. The row serialises all that one participant does for
one saga: deliveries, time-outs and starts; whoever has it locked decides. Must not interpret the state that it keeps,
nor end a transaction. Called by deliveries, the timer and `start`.
"""

from __future__ import annotations

from typing import NamedTuple

from atone._connections.face import Dialect, Face
from atone._participant.sql import FOR_UPDATE, NOW, checked_table

_CREATE: dict[Dialect, tuple[str, ...]] = {
    "postgresql": (
        """
CREATE TABLE IF NOT EXISTS {progress} (
    tenant       text   NOT NULL,
    choreography text   NOT NULL,
    participant  text   NOT NULL,
    saga         text   NOT NULL,
    state        text   NOT NULL,
    at           float8 NOT NULL,
    PRIMARY KEY (tenant, choreography, participant, saga)
)""",
        """
CREATE TABLE IF NOT EXISTS {expected} (
    tenant       text   NOT NULL,
    choreography text   NOT NULL,
    participant  text   NOT NULL,
    saga         text   NOT NULL,
    reaction     text   NOT NULL,
    cause        text   NOT NULL,
    trace        text   NOT NULL,
    result       text   NOT NULL,
    due_at       float8 NOT NULL,
    PRIMARY KEY (tenant, choreography, participant, saga, reaction, cause)
)""",
        "CREATE INDEX IF NOT EXISTS {index}_due ON {expected} (choreography, participant, due_at)",
    ),
    "sqlite": (
        """
CREATE TABLE IF NOT EXISTS {progress} (
    tenant       TEXT NOT NULL,
    choreography TEXT NOT NULL,
    participant  TEXT NOT NULL,
    saga         TEXT NOT NULL,
    state        TEXT NOT NULL,
    at           REAL NOT NULL,
    PRIMARY KEY (tenant, choreography, participant, saga)
) WITHOUT ROWID""",
        """
CREATE TABLE IF NOT EXISTS {expected} (
    tenant       TEXT NOT NULL,
    choreography TEXT NOT NULL,
    participant  TEXT NOT NULL,
    saga         TEXT NOT NULL,
    reaction     TEXT NOT NULL,
    cause        TEXT NOT NULL,
    trace        TEXT NOT NULL,
    result       TEXT NOT NULL,
    due_at       REAL NOT NULL,
    PRIMARY KEY (tenant, choreography, participant, saga, reaction, cause)
) WITHOUT ROWID""",
        "CREATE INDEX IF NOT EXISTS {index}_due ON {expected} (choreography, participant, due_at)",
    ),
}
_OF_SAGA = "tenant = :tenant AND choreography = :choreography AND participant = :participant AND saga = :saga"
_BEGIN = """
INSERT INTO {progress} (tenant, choreography, participant, saga, state, at)
VALUES (:tenant, :choreography, :participant, :saga, '', {now})
    ON CONFLICT (tenant, choreography, participant, saga) DO NOTHING"""
_LOCK = "SELECT state FROM {progress} WHERE {of_saga} {for_update}"
_WRITE = "UPDATE {progress} SET state = :state, at = {now} WHERE {of_saga}"
_EXPECT = """
INSERT INTO {expected} (tenant, choreography, participant, saga, reaction, cause, trace, result, due_at)
VALUES (:tenant, :choreography, :participant, :saga, :reaction, :cause, :trace, :result,
        {now} + CAST(:seconds AS float8))
    ON CONFLICT (tenant, choreography, participant, saga, reaction, cause) DO NOTHING"""
_CAME = "DELETE FROM {expected} WHERE {of_saga} AND reaction = :reaction AND cause = :cause"
_OVERDUE = """
DELETE FROM {expected} WHERE {of_saga} AND reaction = :reaction AND cause = :cause AND due_at <= {now}
RETURNING trace, result"""
_PUT_OFF = """
UPDATE {expected} SET due_at = {now} + CAST(:seconds AS float8)
 WHERE {of_saga} AND reaction = :reaction AND cause = :cause"""
_DUE = """
SELECT tenant, saga, reaction, cause FROM {expected}
 WHERE choreography = :choreography AND participant = :participant AND due_at <= {now}
 ORDER BY due_at LIMIT :most"""
_NEXT = """
SELECT min(due_at) - {now} FROM {expected} WHERE choreography = :choreography AND participant = :participant"""
_PURGE = """
DELETE FROM {progress} WHERE (tenant, choreography, participant, saga) IN (
    SELECT tenant, choreography, participant, saga FROM {progress} AS old WHERE at < {now} - CAST(:seconds AS float8)
       AND NOT EXISTS (
           SELECT 1 FROM {expected} AS open WHERE open.tenant = old.tenant AND open.choreography = old.choreography
              AND open.participant = old.participant AND open.saga = old.saga)
     LIMIT :most)
RETURNING 1"""


class Whose(NamedTuple):
    """Whose view of which saga a row holds."""

    tenant: str
    choreography: str
    participant: str
    saga: str


class Overdue(NamedTuple):
    """An expectation that was not met in time: the trace that it belongs to, and what the reaction had returned."""

    trace: str
    result: str


class Due(NamedTuple):
    """An expectation whose time may be over."""

    tenant: str
    saga: str
    reaction: str
    cause: str


class Ledger:
    """Keep what participants know of sagas; connections are in a transaction of the caller's."""

    def __init__(self, *, progress: str = "atone_progress", expected: str = "atone_expected") -> None:
        self._progress, self._expected = checked_table(progress), checked_table(expected)

    def statements(self, dialect: Dialect) -> list[str]:
        """Return the statements that make the tables."""
        index = self._expected.rpartition(".")[2]
        return [one.format(progress=self._progress, expected=self._expected, index=index) for one in _CREATE[dialect]]

    async def lock(self, face: Face, whose: Whose) -> str:
        """Lock the saga's row, made if there is none, and return its state; "" is that of a new one."""
        await face.run(self._sql(_BEGIN, face), whose._asdict())
        ((state,),) = await face.run(self._sql(_LOCK, face), whose._asdict())
        return str(state)

    async def write(self, face: Face, whose: Whose, state: str) -> None:
        """Write the state of a row that is locked."""
        await face.run(self._sql(_WRITE, face), {**whose._asdict(), "state": state})

    async def expect(
        self, face: Face, whose: Whose, reaction: str, *, cause: str, trace: str, result: str, seconds: float
    ) -> None:
        """Expect something within so many seconds by the database's clock, on behalf of a reaction."""
        values = {"reaction": reaction, "cause": cause, "trace": trace, "result": result, "seconds": float(seconds)}
        await face.run(self._sql(_EXPECT, face), {**whose._asdict(), **values})

    async def came(self, face: Face, whose: Whose, reaction: str, cause: str) -> None:
        """Expect nothing any more on behalf of a reaction's run on the event `cause`."""
        await face.run(self._sql(_CAME, face), {**whose._asdict(), "reaction": reaction, "cause": cause})

    async def overdue(self, face: Face, whose: Whose, reaction: str, cause: str) -> Overdue | None:
        """Take an expectation out if its time is over; None if it is not, or if somebody else has taken it."""
        values = {**whose._asdict(), "reaction": reaction, "cause": cause}
        rows = await face.run(self._sql(_OVERDUE, face), values)
        return Overdue(*rows[0]) if rows else None

    async def put_off(self, face: Face, whose: Whose, reaction: str, cause: str, *, seconds: float) -> None:
        """Let an expectation be due only in so many seconds."""
        values = {"reaction": reaction, "cause": cause, "seconds": float(seconds)}
        await face.run(self._sql(_PUT_OFF, face), {**whose._asdict(), **values})

    async def due(self, face: Face, choreography: str, participant: str, most: int) -> list[Due]:
        """Return what may be overdue, the longest first; nothing is locked."""
        values = {"choreography": choreography, "participant": participant, "most": most}
        return [Due(*row) for row in await face.run(self._sql(_DUE, face), values)]

    async def seconds_to_next(self, face: Face, choreography: str, participant: str) -> float | None:
        """Return in how many seconds the next expectation is due; None if there is none."""
        values = {"choreography": choreography, "participant": participant}
        ((seconds,),) = await face.run(self._sql(_NEXT, face), values)
        return None if seconds is None else float(seconds)

    async def purge(self, face: Face, *, seconds: float, most: int) -> int:
        """Delete rows that nobody has written for so long and that expect nothing; return how many."""
        return len(await face.run(self._sql(_PURGE, face), {"seconds": float(seconds), "most": most}))

    def _sql(self, statement: str, face: Face) -> str:
        dialect = face.dialect
        return statement.format(
            progress=self._progress,
            expected=self._expected,
            of_saga=_OF_SAGA,
            now=NOW[dialect],
            for_update=FOR_UPDATE[dialect],
        )
