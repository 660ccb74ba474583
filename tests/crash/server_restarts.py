"""Restart PostgreSQL under load: fast, immediate and killed in turn; what was acknowledged is there, all sagas end.

Owns when and how. Run as `python -m tests.crash.server_restarts --json`; the exit status is 1 if anything is wrong.
"""

from __future__ import annotations

import random
import sys
from statistics import median
from time import monotonic, sleep
from typing import Any

import psycopg

from atone.testing.postgres import PostgresServer, Stop
from tests.crash.fleet import Run, arguments, command, on_postgres

HOW: tuple[Stop, ...] = ("fast", "immediate", "kill")
PATIENCE_SECONDS = 30.0


def seconds_to_first_commit(run: Run, server: PostgresServer, patience_seconds: float = PATIENCE_SECONDS) -> float:
    """Wait until a journal row is written after now, and return how long that took; in vain is wrong."""
    begun = monotonic()
    with psycopg.connect(server.url(), autocommit=True) as connection:
        (before,) = connection.execute("SELECT count(*) FROM atone.journal").fetchall()[0]
        while monotonic() < begun + patience_seconds:
            (now,) = connection.execute("SELECT count(*) FROM atone.journal").fetchall()[0]
            if now > before:
                break
            sleep(0.02)
        else:
            run.wrong.append(f"nobody has written anything for {patience_seconds:g} s, although the server was there")
    return monotonic() - begun


def torment(
    run: Run, restarts: int = 15, workers: int = 3, feeders: int = 8, outage_seconds: float = 4.0
) -> dict[str, Any]:
    """Restart the server, as often in each way; the workers are left alone."""
    rng = random.Random(run.seed)
    ways = [HOW[number % len(HOW)] for number in range(restarts)]
    rng.shuffle(ways)
    waits: list[float] = []
    with on_postgres(run) as (server, files), run.fleet(files, feeders) as fleet:
        fleet.start_all(workers)
        for how in ways:
            sleep(rng.uniform(0.3, 1.5))
            server.stop(how)
            sleep(rng.choice((0.0, 0.0, rng.uniform(0.0, outage_seconds))))  # some outlast the leases
            server.start()
            waits.append(seconds_to_first_commit(run, server))
        sleep(1.0)
        run.done |= {"restarts": {how: ways.count(how) for how in HOW}, "workers": workers}
        run.done |= {"first_commit_seconds": {"median": round(median(waits), 2), "max": round(max(waits), 2)}}
        run.judged(files, server.url(), drained=fleet.drain(), bites="commits_in_doubt")
        return run.line(server)


def main() -> int:
    parser = arguments("Restart PostgreSQL under load, and see whether anything acknowledged is lost.")
    parser.add_argument("--restarts", type=int, default=15)
    given = parser.parse_args()
    return command("server_restarts", given, lambda run: torment(run, given.restarts, given.workers, given.feeders))


if __name__ == "__main__":
    sys.exit(main())
