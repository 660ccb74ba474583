"""Starting a saga inside a transaction of the caller's own, on PostgreSQL.

Owns the checks that make this safe: a transaction is open, and it is in this store. What does not fit is taken back to
a savepoint, so that the caller's own work is not affected. Nothing runs before the caller commits. Called by the
adapter's `start`, on the caller's connection.
"""

from __future__ import annotations

from collections.abc import Sequence

from atone._connections.face import Face, Values
from atone.broker import Message
from atone.store import Turn, TurnResult
from atone.stores._messages import words_of
from atone.stores._postgres_early import TAKE_EARLY
from atone.stores._postgres_errors import code_of, is_data_error
from atone.stores._postgres_outbox import POST, values_of
from atone.stores._postgres_place import Place

_NO_TRANSACTION = "25P01"
_NO_TABLES = ("42P01", "3F000")

_MARK = "SAVEPOINT atone_start"
_TAKE_BACK = "ROLLBACK TO SAVEPOINT atone_start"
_FORGET = "RELEASE SAVEPOINT atone_start"
_IDENTITY = "SELECT id FROM atone.identity"
_INSERT = """
WITH born AS (
    INSERT INTO atone.sagas (key, tenant, name, saga_id, definition, status, wake_at, created_at)
    SELECT CAST(:key AS bytea), CAST(:tenant AS text), CAST(:name AS text), CAST(:saga_id AS text),
           CAST(:definition AS integer), CAST(:status AS text), coalesce(CAST(:wake_at AS float8), clock()), clock()
        ON CONFLICT DO NOTHING
    RETURNING key, created_at
), appended AS (
    INSERT INTO atone.journal (saga, version, at, commit_id, entries)
    SELECT key, 1, created_at, CAST(:commit_id AS bytea), CAST(:entries AS bytea) FROM born
    RETURNING 1
)
SELECT (SELECT count(*) FROM appended),
       EXISTS (SELECT FROM atone.early_events AS e
                WHERE e.tenant = CAST(:tenant AS text) AND e.name = CAST(:name AS text)
                  AND e.saga_id = CAST(:saga_id AS text))
"""
_JUDGE = """
SELECT CASE WHEN EXISTS (SELECT FROM atone.journal AS j WHERE j.saga = CAST(:key AS bytea) AND j.version = 1
                            AND j.commit_id = CAST(:commit_id AS bytea)) THEN 'applied'
            WHEN EXISTS (SELECT FROM atone.sagas AS s WHERE s.tenant = CAST(:tenant AS text)
                            AND s.name = CAST(:name AS text) AND s.saga_id = CAST(:saga_id AS text)) THEN 'taken'
            ELSE 'conflict' END
"""
_TAKE_EARLY = TAKE_EARLY.replace("$1::bytea[]", "ARRAY[CAST(:key AS bytea)]")


def is_storable(turn: Turn) -> bool:
    """Tell whether a first turn says all that it has to, in text that PostgreSQL takes; drivers differ on the rest."""
    if turn.birth is None or turn.hot is None or turn.version != 1:
        return False
    words = [word for word in (*turn.birth, turn.hot.status) if isinstance(word, str)]
    text = "".join([*words, *(word for message in turn.messages for word in words_of(message))])
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


async def start(turn: Turn, foreign: Face, place: Place, identity: str, definition: int) -> TurnResult:
    """Insert a saga that nobody owns, due at once unless it says when, as part of the caller's transaction.

    Raises:
        TypeError: The connection is in no transaction, or not in this store. Nothing was written.
    """
    birth, hot = turn.birth, turn.hot
    assert birth is not None, "is_storable was asked"
    assert hot is not None, "is_storable was asked"
    try:
        await foreign.run(_MARK)
    except Exception as error:
        if code_of(error) != _NO_TRANSACTION:
            raise
        raise TypeError("The connection is in no transaction, so there is nothing to join. Begin one first.") from error
    values = {
        "key": turn.key,
        "tenant": birth.tenant,
        "name": birth.name,
        "saga_id": birth.saga_id,
        "definition": definition,
        "status": hot.status,
        "wake_at": hot.wake_at,
        "commit_id": turn.commit_id,
        "entries": turn.entries,
    }
    try:
        result = await _insert(foreign, place, identity, values, turn.messages)
    except BaseException as error:
        if not isinstance(error, TypeError) and code_of(error) is None:
            raise  # the connection is gone, and its transaction with it
        await foreign.run(_TAKE_BACK)
        await foreign.run(_FORGET)
        if is_data_error(error):
            return TurnResult.REFUSED
        raise
    await foreign.run(_FORGET)
    return result


async def _insert(
    foreign: Face, place: Place, identity: str, values: Values, messages: Sequence[Message]
) -> TurnResult:
    await _check_place(foreign, place, identity)
    ((written, early),) = await foreign.run(place.sql(_INSERT), values)
    if written:
        for message in messages:
            await foreign.run(place.sql(POST), values_of(message))
        if early:
            await foreign.run(place.sql(_TAKE_EARLY), values)
        return TurnResult.APPLIED
    ((verdict,),) = await foreign.run(place.sql(_JUDGE), values)
    return TurnResult(verdict)


async def _check_place(foreign: Face, place: Place, identity: str) -> None:
    try:
        found = await foreign.run(place.sql(_IDENTITY))
    except Exception as error:
        if code_of(error) not in _NO_TABLES:
            raise
        found = []
    if found != [(identity,)]:
        raise TypeError(
            "The connection leads to another database than this store: one transaction can't cover both. "
            "Connect to the database that holds the sagas."
        )
