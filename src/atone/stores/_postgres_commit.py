"""Commits on PostgreSQL: a batch of turns as one statement, and the verdicts on those that do not fit.

The statement is the whole transaction: it locks the worker's own row, checks lease and owners, and writes, in one round
trip. What it did not write is judged by a second statement, which sees what the first one met. It must not look into
entries. Called by the adapter, on the connection that is for commits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

from atone.errors import StoreError, WorkerDead
from atone.store import Turn, TurnResult
from atone.stores._messages import is_too_large, message_bytes
from atone.stores._postgres_definitions import learn_number
from atone.stores._postgres_early import take_early_events
from atone.stores._postgres_errors import is_birth_elsewhere, is_conflict, is_data_error
from atone.stores._postgres_line import Session
from atone.stores._postgres_outbox import columns_of_messages, with_messages
from atone.stores._postgres_place import Place

# Above this a statement's arrays would cost more memory, here and there, than they save round trips.
_BATCH_BYTES_MAX = 16 * 1024 * 1024
_ROUNDS_MAX = 100
_APPLIED = TurnResult.APPLIED

# Why this is safe though it takes no lock on a saga: another worker can take a saga of mine only after my row says that
# I am dead, and that row is locked here until this is durable. So an owner that was read as mine stays mine, and all
# that is left are writers at the same version, who meet at the journal's primary key: one of them gets an error, and
# nothing of its statement stays. The journal is written first (the last SELECT asks for it), as by everybody who writes
# both it and sagas. No row is changed twice: a saga is either born or shown. How long births wait for a lock is said in
# the statement, and only for it: behind a pooler there is no session to say it to.
_WRITE = """
WITH me AS MATERIALIZED (
    SELECT id, clock() AS now FROM atone.workers WHERE id = $1 AND NOT dead AND lease_until > clock() FOR SHARE
), patience AS MATERIALIZED (
    SELECT set_config('lock_timeout', $19, true) FROM me
), birth AS MATERIALIZED (
    SELECT b.*, me.id AS worker, me.now
      FROM me, patience,
           unnest($2::bytea[], $3::text[], $4::text[], $5::text[], $6::integer[], $7::text[], $8::boolean[],
                  $9::float8[], $10::bytea[], $11::bytea[])
               AS b (key, tenant, name, saga_id, definition, status, owned, wake_at, commit_id, entries)
), fit AS MATERIALIZED (
    SELECT t.*, s.asked, me.now
      FROM me, unnest($12::bytea[], $13::integer[], $14::bytea[], $15::bytea[], $16::text[], $17::boolean[],
                      $18::float8[])
               AS t (key, version, commit_id, entries, status, owned, wake_at)
      JOIN atone.sagas AS s ON s.key = t.key
     WHERE s.owner = $1
       AND EXISTS (SELECT FROM atone.journal AS j WHERE j.saga = t.key AND j.version = t.version - 1)
), appended AS (
    INSERT INTO atone.journal (saga, version, at, commit_id, entries)
    SELECT key, 1, now, commit_id, entries FROM birth
     UNION ALL
    (SELECT key, version, now, commit_id, entries FROM fit ORDER BY key)
    RETURNING 1
), born AS (
    INSERT INTO atone.sagas (key, tenant, name, saga_id, definition, status, owner, wake_at, created_at)
    SELECT key, tenant, name, saga_id, definition, status, CASE WHEN owned THEN worker END, wake_at, now FROM birth
), shown AS (
    UPDATE atone.sagas AS s
       SET status = coalesce(f.status, s.status),
           owner = CASE WHEN f.status IS NULL OR f.owned THEN s.owner END,
           wake_at = CASE WHEN f.status IS NULL THEN s.wake_at ELSE f.wake_at END,
           asked = false
      FROM fit AS f
     WHERE s.key = f.key AND (f.status IS NOT NULL OR f.asked)
)
SELECT (SELECT count(*) FROM appended) AS appended,
       EXISTS (SELECT FROM me) AS alive,
       CASE WHEN (SELECT count(*) FROM fit) < cardinality($12) THEN ARRAY (SELECT key FROM fit) END AS fitting,
       EXISTS (SELECT FROM birth AS b JOIN atone.early_events AS e
                   ON e.tenant = b.tenant AND e.name = b.name AND e.saga_id = b.saga_id) AS early
"""

# Who is no worker can give birth, to sagas that are nobody's yet and due at once; there is no lease to check.
_BEAR = _WRITE.replace(
    "FROM atone.workers WHERE id = $1 AND NOT dead AND lease_until > clock() FOR SHARE",
    "FROM (SELECT CAST($1 AS text) AS id) AS nobody",
).replace("THEN worker END, wake_at, now FROM birth", "THEN worker END, coalesce(wake_at, now), now FROM birth")

# How long a birth waits when it is already known, or likely, that its name is held by a transaction that goes on.
_SHORT_MS = 20
_HELD_NAMES_MAX = 1000

_FITS = "fits"
_NO_FAULT = {_FITS, "applied"}
_JUDGE = """
SELECT t.key, CASE
       WHEN EXISTS (SELECT FROM atone.journal AS j
                     WHERE j.saga = t.key AND j.version = t.version AND j.commit_id = t.commit_id) THEN 'applied'
       WHEN t.tenant IS NOT NULL THEN CASE
           WHEN EXISTS (SELECT FROM atone.sagas AS s
                         WHERE s.tenant = t.tenant AND s.name = t.name AND s.saga_id = t.saga_id) THEN 'taken'
           WHEN EXISTS (SELECT FROM atone.sagas AS s WHERE s.key = t.key) THEN 'conflict'
           ELSE 'fits' END
       WHEN NOT EXISTS (SELECT FROM atone.sagas AS s WHERE s.key = t.key AND s.owner = $1) THEN 'not_mine'
       WHEN EXISTS (SELECT FROM atone.journal AS j WHERE j.saga = t.key AND j.version = t.version) THEN 'conflict'
       WHEN NOT EXISTS (SELECT FROM atone.journal AS j
                         WHERE j.saga = t.key AND j.version = t.version - 1) THEN 'conflict'
       ELSE 'fits' END AS verdict
  FROM unnest($2::bytea[], $3::integer[], $4::bytea[], $5::text[], $6::text[], $7::text[])
       AS t (key, version, commit_id, tenant, name, saga_id)
"""


async def commit(
    session: Session, place: Place, worker: str | None, turns: Sequence[Turn], row_bytes_max: int, lock_ms: int
) -> Sequence[TurnResult]:
    """Write the turns that fit, and say what became of each.

    Raises:
        WorkerDead: The worker has no lease. Nothing was written.
    """
    batch = Batch(session, place, worker, lock_ms)
    if _is_plain(turns, row_bytes_max):
        failed = await batch.write_all(sorted(turns, key=itemgetter(0)))
        if not failed:
            return [_APPLIED] * len(turns)
        return [failed.get(turn.key, _APPLIED) for turn in turns]
    results = [_APPLIED] * len(turns)
    for some in _portions(turns, row_bytes_max, results):
        failed = await batch.write_all(sorted((turns[at] for at in some), key=itemgetter(0)))
        for at in some:
            results[at] = failed.get(turns[at].key, _APPLIED)
    return results


def _is_plain(turns: Sequence[Turn], row_bytes_max: int) -> bool:
    """Tell whether the turns may go as one statement: of different sagas, and not too large."""
    sizes = [len(turn.entries) for turn in turns]
    if any(turn.messages for turn in turns):
        if any(is_too_large(turn, row_bytes_max) for turn in turns):
            return False
        sizes = [_bytes_of(turn) for turn in turns]
    if max(sizes, default=0) > row_bytes_max or sum(sizes) > _BATCH_BYTES_MAX:
        return False
    return len({turn.key for turn in turns}) == len(turns)


def _portions(turns: Sequence[Turn], row_bytes_max: int, results: list[TurnResult]) -> Iterator[list[int]]:
    """Yield portions that may go as one statement each, as places in `turns`; what is too large stays out."""
    some: list[int] = []
    keys: set[bytes] = set()
    size = 0
    for at, turn in enumerate(turns):
        if is_too_large(turn, row_bytes_max):
            results[at] = TurnResult.REFUSED
            continue
        more = _bytes_of(turn)
        if turn.key in keys or (some and size + more > _BATCH_BYTES_MAX):
            yield some
            some, size = [], 0
            keys.clear()
        some.append(at)
        keys.add(turn.key)
        size += more
    yield some


def _bytes_of(turn: Turn) -> int:
    return len(turn.entries) + sum(map(message_bytes, turn.messages))


class Batch:
    """Turns of different sagas, in the order of their keys, on their way into the database."""

    def __init__(self, session: Session, place: Place, worker: str | None, lock_ms: int) -> None:
        self._session = session
        self._place = place
        self._worker = worker
        self._lock_ms = lock_ms

    async def write_all(self, turns: Sequence[Turn]) -> Mapping[bytes, TurnResult]:
        """Write what fits; a birth whose name was held by another transaction last time holds up nobody again."""
        held = self._session.held_names
        if not held:
            return await self.write(turns)
        suspects = [turn for turn in turns if turn.birth is not None and turn.birth[:3] in held]
        keys = {turn.key for turn in suspects}
        rest = [turn for turn in turns if turn.key not in keys]
        failed = dict(await self.write(rest)) if rest else {}
        held.difference_update(_name_of(turn) for turn in suspects)
        for turn in suspects:
            if _name_of(turn) in held:  # the one before it, of the same name, has just met that transaction
                failed[turn.key] = TurnResult.TAKEN
            else:
                failed |= await self._hurried().write([turn])
        return failed

    async def write(self, turns: Sequence[Turn]) -> Mapping[bytes, TurnResult]:
        """Write what fits and return the verdicts on the rest, by key."""
        failed: dict[bytes, TurnResult] = {}
        for _ in range(_ROUNDS_MAX):
            try:
                unwritten = await self._send(turns)
            except Exception as error:  # noqa: BLE001 - what is nobody's fault goes on
                if not is_conflict(error):
                    return {**failed, **await self._write_halves(turns, error)}
                unwritten = turns
            if not unwritten:
                return failed
            verdicts = await self._judge(unwritten)
            stood = [turn.key for turn in unwritten if turn.birth is not None and verdicts[turn.key] == _APPLIED]
            if stood:  # what wrote them may have been cut off before it took their early events along
                await take_early_events(self._session, self._place, stood)
            failed |= {key: TurnResult(verdict) for key, verdict in verdicts.items() if verdict not in _NO_FAULT}
            before, turns = turns, [turn for turn in unwritten if verdicts[turn.key] == _FITS]
            if not turns:
                return failed
            if len(turns) == len(before) > 1:  # they fit, but not together: two births of one name
                return {**failed, **await self._write_in_two(turns)}
        raise StoreError("The journal does not take a turn that fits it. This should not happen; please report it.")

    async def _write_halves(self, turns: Sequence[Turn], error: Exception) -> Mapping[bytes, TurnResult]:
        """Find the turn that is to blame for an error; its neighbours are not."""
        is_held = is_birth_elsewhere(error)
        if not is_data_error(error) and not is_held:
            raise error
        if len(turns) == 1:
            return {turns[0].key: self._hold(turns[0]) if is_held else TurnResult.REFUSED}
        if is_held and self._lock_ms > _SHORT_MS:
            return await self._write_apart(turns)
        return await self._write_in_two(turns)

    async def _write_apart(self, turns: Sequence[Turn]) -> Mapping[bytes, TurnResult]:
        """Write first what can't be to blame, then the births, which have been waited for long enough."""
        others = [turn for turn in turns if turn.birth is None]
        failed: Mapping[bytes, TurnResult] = await self.write(others) if others else {}
        return {**failed, **await self._hurried().write([turn for turn in turns if turn.birth is not None])}

    def _hurried(self) -> Batch:
        return Batch(self._session, self._place, self._worker, min(self._lock_ms, _SHORT_MS))

    def _hold(self, turn: Turn) -> TurnResult:
        """Remember that somebody gives birth to a saga of this name in a transaction that does not end."""
        held = self._session.held_names
        if len(held) >= _HELD_NAMES_MAX:
            held.clear()  # who is still held is found again, and most were never asked for again
        held.add(_name_of(turn))
        return TurnResult.TAKEN

    async def _write_in_two(self, turns: Sequence[Turn]) -> Mapping[bytes, TurnResult]:
        middle = len(turns) // 2
        return {**await self.write(turns[:middle]), **await self.write(turns[middle:])}

    async def _send(self, turns: Sequence[Turn]) -> Sequence[Turn]:
        """Send the statement; return the turns that it found unfit and did not write."""
        births = [turn for turn in turns if turn.birth is not None]
        others = [turn for turn in turns if turn.birth is None] if births else turns
        statement = _BEAR if self._worker is None else _WRITE
        posting = [turn for turn in turns if turn.messages]
        row = await self._session.row(
            self._place.sql(with_messages(statement) if posting else statement),
            self._worker,
            *await self._columns_of_births(births),
            *_columns_of_others(others),
            str(self._lock_ms),
            *columns_of_messages(posting),
        )
        if not row["alive"]:
            raise dead(str(self._worker))
        if row["early"]:
            await take_early_events(self._session, self._place, [turn.key for turn in births])
        fitting = row["fitting"]
        if fitting is None:
            return ()
        fits = set(fitting)
        return [turn for turn in others if turn.key not in fits]

    async def _columns_of_births(self, turns: Sequence[Turn]) -> Sequence[Sequence[Any]]:
        if not turns:
            return _NO_BIRTHS
        numbers = self._session.definitions
        rows: list[tuple[Any, ...]] = []
        for turn in turns:
            birth, hot = turn.birth, turn.hot
            assert birth is not None, "only births come here"
            definition = (birth.name, birth.definition_version, birth.plan_hash)
            if definition not in numbers:
                await learn_number(self._session, self._place, definition)
            # One that does not say what the saga looks like breaks a rule of the table: it alone is refused.
            named = birth[:3] if hot is not None and turn.version == 1 else _UNCHANGED
            rows.append((turn.key, *named, numbers[definition], *(hot or _UNCHANGED), turn.commit_id, turn.entries))
        return tuple(zip(*rows, strict=True))

    async def _judge(self, turns: Sequence[Turn]) -> Mapping[bytes, str]:
        names = [(None, None, None) if turn.birth is None else turn.birth[:3] for turn in turns]
        tenants, sagas, ids = zip(*names, strict=True)
        keys, versions, commits = zip(*(turn[:3] for turn in turns), strict=True)
        rows = await self._session.rows(
            self._place.sql(_JUDGE), self._worker, keys, versions, commits, tenants, sagas, ids
        )
        return dict(rows)


def _name_of(turn: Turn) -> tuple[str, str, str]:
    assert turn.birth is not None, "only births come here"
    return turn.birth[:3]


_NO_BIRTHS: tuple[tuple[Any, ...], ...] = ((),) * 10
_NO_OTHERS: tuple[tuple[Any, ...], ...] = ((),) * 7
_UNCHANGED = (None, None, None)
_UNCHANGED_COLUMNS: tuple[tuple[Any, ...], ...] = ((),) * 3


def _columns_of_others(turns: Sequence[Turn]) -> Sequence[Sequence[Any]]:
    """Return the columns of turns that are no births; those that show something new stand in front.

    The columns of what is shown are only as long as there is something in them, and read as NULL beyond: a driver looks
    at each value of an array, and at a None for longest.
    """
    if not turns:
        return _NO_OTHERS
    hots = [turn.hot for turn in turns if turn.hot is not None]
    if hots and len(hots) < len(turns):
        turns = sorted(turns, key=_shows_nothing)
    keys, versions, commits, entries, _, _, _ = zip(*turns, strict=True)
    return keys, versions, commits, entries, *(zip(*hots, strict=True) if hots else _UNCHANGED_COLUMNS)


def _shows_nothing(turn: Turn) -> bool:
    return turn.hot is None


def dead(worker: str) -> WorkerDead:
    """Return what a worker without a lease is told."""
    return WorkerDead(
        f"Worker {worker} has no lease any more; nothing was written. Drop its sagas and register under a new id."
    )
