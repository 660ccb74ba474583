"""Move wall clocks under load: each worker's by hours and months, there and back; then the database server's.

Owns the clocks: real processes with a shim before their C library. A worker's wall clock must not matter at all; the
server's is the one that leases and deadlines are written in, so a jump of it ends leases or makes sagas wait, and still
nothing is lost or done twice. Run as `python -m tests.crash.clock_jumps --json`; the exit status is 1 if anything is
wrong, and 3 if it can't be tried here.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from time import sleep
from typing import Any

import psycopg

from atone.testing.postgres import PostgresServer, postgres_server
from tests.crash.child import Files
from tests.crash.fleet import Run, arguments, command, on_postgres, prepare
from tests.servers.clock_shift import Clock, NoShim, make_shim

HOUR, MONTH = 3600, 30 * 86400
JUMPS = (HOUR, -HOUR, MONTH, -MONTH, 0)

_DEAD = "SELECT count(*) FROM atone.workers WHERE dead"
_ENDED = "SELECT count(*) FROM atone.sagas WHERE status IN ('completed', 'compensated')"
_UNFINISHED_OF_PROCESS = """
SELECT count(*) FROM atone.sagas AS s JOIN audit.lives AS l ON l.worker = s.owner
 WHERE l.process = %s AND s.status NOT IN ('completed', 'compensated', 'failed')
"""
# What docs/failures.md tells a person to do: a lease that ends so late is of a worker from before the jump.
_END_FAR_LEASES = """
WITH ended AS (
    UPDATE atone.workers SET dead = true
     WHERE NOT dead AND lease_until > extract(epoch FROM clock_timestamp()) + 600
    RETURNING 1
)
SELECT count(*) FROM ended
"""
# A key begins with its maker's wall clock in milliseconds.
_SPAN = """
SELECT (max(made) - min(made)) / 86400000.0
  FROM (SELECT ('x' || encode(substring(key FROM 1 FOR 6), 'hex'))::bit(48)::bigint AS made FROM atone.sagas) AS k
"""


@contextmanager
def readable_folder() -> Generator[Path, None, None]:
    """Return a new folder that the server's user can read."""
    folder = Path(tempfile.mkdtemp(prefix="atone-clocks-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def number(server: PostgresServer, query: str, *values: Any) -> float:
    """Return one number from the database."""
    with psycopg.connect(server.url(), autocommit=True) as connection:
        return float(connection.execute(query, values).fetchall()[0][0])


def torment_workers(run: Run, jumps: int = 30, workers: int = 3, feeders: int = 8) -> dict[str, Any]:
    """Move one worker's wall clock after the other; nobody may notice."""
    rng = random.Random(run.seed)
    with ExitStack() as stack:
        folder = stack.enter_context(readable_folder())
        shim = make_shim(folder)
        server, files = stack.enter_context(on_postgres(run))
        fleet = stack.enter_context(run.fleet(files, feeders))
        clocks = [Clock(shim, folder / f"clock{at}") for at in range(workers)]
        for process in [fleet.start(env=clock.environment) for clock in clocks]:
            process.wait_until_ready()
        for _ in range(jumps):
            rng.choice(clocks).set(rng.choice(JUMPS))
            sleep(rng.uniform(0.1, 0.6))
        dead = int(number(server, _DEAD))
        run.done |= {"clock": "of the workers", "jumps": jumps, "workers": workers, "declared_dead": dead}
        run.judged(files, server.url(), drained=fleet.drain())
        run.done |= {"wall_clocks_span_days": round(number(server, _SPAN), 1)}
        if dead or run.done["attempts_lost"]:
            run.wrong.append(f"{dead} workers were taken for dead, {run.done['attempts_lost']} attempts for lost")
        if run.done["wall_clocks_span_days"] < 1:
            run.wrong.append("no worker has seen its clock move: the run has shown nothing")
        return run.line(server)


def torment_server(run: Run, workers: int = 3, feeders: int = 8, seconds: float = 4.0) -> dict[str, Any]:
    """Move the server's clock on by an hour and by a month, then an hour back, and on again."""
    with ExitStack() as stack:
        folder = stack.enter_context(readable_folder())
        clock = Clock(make_shim(folder), folder / "clock")
        os.environ.update(clock.environment)
        try:
            server = stack.enter_context(postgres_server(settings=run.settings))
        finally:
            for name in clock.environment:
                del os.environ[name]
        files = Files(run.folder, prepare(server))
        fleet = stack.enter_context(run.fleet(files, feeders))
        fleet.start_all(workers)
        ended: dict[str, int] = {}

        def phase(name: str, shift: int) -> None:
            clock.set(shift)
            before = number(server, _ENDED)
            sleep(seconds)
            ended[name] = int(number(server, _ENDED) - before)

        phase("right", 0)
        phase("an hour on", HOUR)
        phase("a month on", MONTH)
        victim = fleet.processes[0]
        heir = fleet.replace(victim)
        phase("an hour back", MONTH - HOUR)
        heir.wait_until_ready()
        theirs = f"atone-{victim.name}"
        left = [int(number(server, _UNFINISHED_OF_PROCESS, theirs))]
        number(server, _END_FAR_LEASES)
        phase("leases ended by hand", MONTH - HOUR)
        left.append(int(number(server, _UNFINISHED_OF_PROCESS, theirs)))
        phase("on again", MONTH)
        run.done |= {"clock": "of the server", "workers": workers, "ended_while": ended}
        run.done |= {"declared_dead": int(number(server, _DEAD))}
        run.done |= {"left_by_the_killed": dict(zip(("while back", "after the leases were ended"), left, strict=True))}
        run.judged(files, server.url(), drained=fleet.drain())
        if not run.done["declared_dead"]:
            run.wrong.append("no lease has ended by a jump: the run has shown nothing")
        return run.line(server)


def main() -> int:
    parser = arguments("Move wall clocks under load, and see whether a saga is lost, or taken from who lives.")
    parser.add_argument("--jumps", type=int, default=30)
    given = parser.parse_args()
    runs = (
        partial(torment_workers, jumps=given.jumps, workers=given.workers, feeders=given.feeders),
        partial(torment_server, workers=given.workers, feeders=given.feeders),
    )
    try:
        return max(command("clock_jumps", given, one) for one in runs)
    except NoShim as why:
        print(f"NOT TRIED: the clock of a single process can't be moved here: {why}", file=sys.stderr)
        return 3


if __name__ == "__main__":
    sys.exit(main())
