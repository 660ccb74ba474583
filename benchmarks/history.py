"""Many finished sagas at once: the journal of a real one, written again under new names by the database itself.

Owns the bulk insert, and the proof that what it made are sagas like any other: some are read through the API, and each
must have its own results. Must not measure. Used by `scale`.
"""

from __future__ import annotations

from random import Random
from typing import Any

import asyncpg

from atone import Completed, Orchestrator
from benchmarks.order_saga import PlaceOrder, saga_id
from benchmarks.recording import Recording

PORTION = 100_000
CLIENT = 5000  # no benchmark has so many clients, so the names are free

# Keys grow with time and end in chance, as those of real sagas do; all of them are older than any saga from now on.
_NAMES = f"""
CREATE TEMP TABLE fresh ON COMMIT DROP AS
SELECT substr(int8send((extract(epoch FROM now()) * 1000)::int8 - 864000000 + n), 3)
           || substr(sha256(int8send(n)), 1, 10) AS key,
       'order-{CLIENT:04d}-' || to_char(n, 'FM0000000') AS saga_id,
       (extract(epoch FROM now()) - 864000 + n / 1000.0)::float8 AS at
  FROM generate_series($1::int8, $2::int8 - 1) AS n
"""
_SAGAS = """
INSERT INTO atone.sagas (key, tenant, name, saga_id, definition, status, owner, wake_at, created_at)
SELECT key, $1, $2, saga_id, (SELECT id FROM atone.definitions WHERE name = $2 AND version = $3 AND plan_hash = $4),
       $5, NULL, NULL, at
  FROM fresh ORDER BY key
"""
_JOURNAL = """
INSERT INTO atone.journal (saga, version, at, commit_id, entries)
SELECT f.key, t.version, f.at + t.version / 1000.0, substr(sha256(f.key || int8send(t.version)), 1, 16),
       convert_to(replace(t.entries, $2, f.saga_id), 'UTF8')
  FROM fresh AS f CROSS JOIN unnest($1::text[]) WITH ORDINALITY AS t (entries, version)
 ORDER BY f.key, t.version
"""


async def fill(dsn: str, recording: Recording, have: int, want: int) -> None:
    """Bring a database from `have` finished sagas to `want`; a worker must have registered the definition there."""
    last = recording.turns[-1].hot
    assert last is not None, "the last turn says how the saga ended"
    texts = [turn.entries.decode() for turn in recording.turns]
    plan = recording.plan
    connection: Any = await asyncpg.connect(dsn)
    try:
        for at in range(have, want, PORTION):
            async with connection.transaction():
                await connection.execute("SET LOCAL synchronous_commit = off")
                await connection.execute("SET LOCAL jit = off")
                await connection.execute(_counted(_NAMES, at, min(at + PORTION, want)))
                identity = (recording.tenant, plan.name, plan.version, plan.plan_hash)
                await connection.execute(_SAGAS, *identity, last.status)
                await connection.execute(_JOURNAL, texts, saga_id(0, 0))
        # What the server would do by itself a while later, so that it does not do it in the middle of a measurement.
        for table in ("sagas", "journal"):
            await connection.execute(f"VACUUM (ANALYZE) atone.{table}")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()


def _counted(text: str, begin: int, end: int) -> str:
    """Put two numbers into a statement that takes no parameters."""
    return text.replace("$1", str(begin)).replace("$2", str(end))


async def prove(orchestrator: Orchestrator, count: int, *, sample: int = 25) -> int:
    """Read some of the sagas through the API; return how many were as they have to be, which is all of them."""
    chosen = Random(count).sample(range(count), min(sample, count))
    for number in chosen:
        name = saga_id(CLIENT, number)
        outcome = await orchestrator.outcome(PlaceOrder, name, timeout=10)
        assert isinstance(outcome, Completed), f"{name} ended otherwise: {outcome}"
        shipment = outcome[PlaceOrder.create_shipment]
        assert shipment.id == f"shipment-{name}", f"{name} has the result of another saga: {shipment}"
        assert shipment.payment == f"payment-{name}", f"{name} has the result of another saga: {shipment}"
    return len(chosen)
