"""Kill the primary under load, promote its standby, and let the workers find it by an address of both.

Owns the pair of servers. With `sync` a commit is acknowledged when both have it, and then nothing may be lost; in some
rounds the standby has been silent for longer than a worker's patience when the primary dies. With `async` the last
moments are lost, and the run counts what that means. Run as `python -m tests.crash.fail_over --json`; one line for each
kind, and the exit status is 1 if anything is wrong.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from statistics import median
from time import monotonic, sleep
from typing import Any

import psycopg

from atone.testing.postgres import PostgresServer, postgres_server
from tests.crash.child import Files
from tests.crash.fleet import WORKER, Run, arguments, command, prepare
from tests.crash.processes import Broken
from tests.crash.server_restarts import seconds_to_first_commit
from tests.servers.processes import below
from tests.servers.proxy import Proxy

PATIENCE_SECONDS = 60.0
_ATTACHED = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = %s"


class Pair:
    """A primary and its standby, on two ports that stay the same; `settings` are for both."""

    def __init__(self, stack: ExitStack, *, sync: bool, settings: dict[str, str]) -> None:
        self._stack, self._settings, self._sync = stack, settings, sync
        self.primary = stack.enter_context(postgres_server(settings=settings))
        self.url = ""
        self.standby: PostgresServer | None = None
        self._between: Proxy | None = None

    def attach(self, port: int | None = None) -> None:
        """Give the primary a new standby, and wait until it follows."""
        self._between = self._stack.enter_context(Proxy(self.primary.port))
        way = f"host=127.0.0.1 port={self._between.port} user=postgres password={self.primary.password}"
        settings = {**self._settings, "primary_conninfo": way}
        self.standby = self._stack.enter_context(postgres_server(settings=settings, standby_of=self.primary, port=port))
        ports = sorted((self.primary.port, self.standby.port))
        self.url = f"postgresql://{WORKER}:{WORKER}@{','.join(f'127.0.0.1:{one}' for one in ports)}/postgres"
        with psycopg.connect(self.primary.url(), autocommit=True) as connection:
            if self._sync:
                connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
                connection.execute("SELECT pg_reload_conf()")
            wanted = "sync" if self._sync else "async"
            _until("the standby follows", lambda: connection.execute(_ATTACHED, (wanted,)).fetchall() == [(1,)])

    def silence(self) -> None:
        """Lose everything that the primary tells the standby from now on."""
        assert self._between is not None
        self._between.mode = "drop_replies"

    def fail_over(self) -> None:
        """Kill the primary, all of it at once, and promote the standby."""
        assert self.standby is not None
        _kill_all(self.primary)
        self.standby.promote()
        self.primary = self.standby


def _kill_all(server: PostgresServer) -> None:
    """End the server and all of its processes, so that none sends on what it has."""
    for number in (server.pid, *below(server.pid)):
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    server.stop("kill")


def _until(what: str, is_so: Callable[[], bool]) -> None:
    end = monotonic() + PATIENCE_SECONDS
    while not is_so():
        if monotonic() > end:
            raise Broken(f"in vain: {what}")
        sleep(0.02)


def torment(
    run: Run, *, sync: bool, rounds: int = 3, workers: int = 3, feeders: int = 8, silent_seconds: float = 5.0
) -> dict[str, Any]:
    """Fail over again and again."""
    rng = random.Random(run.seed)
    waits: list[float] = []
    with ExitStack() as stack:
        pair = Pair(stack, sync=sync, settings=run.settings)
        prepare(pair.primary)
        pair.attach()
        files = Files(run.folder, pair.url)
        # Leases outlast the silence: what a worker takes for written it acts upon.
        fleet = stack.enter_context(
            run.fleet(files, feeders, loses=not sync, **({"lease_seconds": 8.0} if sync else {}))
        )
        fleet.start_all(workers)
        for number in range(rounds):
            sleep(rng.uniform(1.0, 2.0))
            if not sync:
                pair.silence()
                sleep(0.5)
            elif number % 2 == 0:
                pair.silence()
                sleep(silent_seconds)  # longer than a statement may take, here and there
            old = pair.primary.port
            pair.fail_over()
            waits.append(seconds_to_first_commit(run, pair.primary))
            if number + 1 < rounds:
                pair.attach(old)
        sleep(1.0)
        run.done |= {"replication": "sync" if sync else "async", "fail_overs": rounds, "workers": workers}
        run.done |= {"first_commit_seconds": {"median": round(median(waits), 2), "max": round(max(waits), 2)}}
        if not sync:  # what the last moments held is gone, so the journals can't tell everything that was done
            run.tolerated = frozenset({"untrue"})
        found = run.judged(files, pair.primary.url(), drained=fleet.drain(), bites="commits_in_doubt")
        run.done["started_again"] = len(found.started_again)
        return run.line(pair.primary)


def main() -> int:
    parser = arguments("Fail over from the primary to its standby under load, and see whether anything is lost.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--replication", choices=["sync", "async", "both"], default="both")
    given = parser.parse_args()
    kinds = ["sync", "async"] if given.replication == "both" else [given.replication]
    statuses = []
    for kind in kinds:
        work = partial(torment, sync=kind == "sync", rounds=given.rounds, workers=given.workers, feeders=given.feeders)
        statuses.append(command("fail_over", given, work))
    return max(statuses)


if __name__ == "__main__":
    sys.exit(main())
