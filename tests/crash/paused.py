"""Stop worker processes past their leases, let others finish their sagas, and wake them: nobody hears what they write.

Owns the moments: in the middle of calls, so that the sleeper wants to write when it wakes, and inside a transaction of
its own. Run as `python -m tests.crash.paused --json`; the exit status is 1 if anything is wrong, and also if no stale
write was refused, for then nothing was tried.
"""

from __future__ import annotations

import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import psycopg

from atone.store import FINAL_STATUSES
from tests.crash.definitions import GATED
from tests.crash.fleet import Run, arguments, command, on_postgres
from tests.crash.participant import Participant
from tests.crash.processes import Broken, Process

GATED_SAGAS = 8
PATIENCE_SECONDS = 60.0

_LEFT = """
SELECT count(*) FROM atone.workers AS w JOIN audit.lives AS l ON l.worker = w.id
 WHERE l.process = %s AND (NOT w.dead OR EXISTS (SELECT FROM atone.sagas AS s
           WHERE s.owner = w.id AND s.status NOT IN ('completed', 'compensated', 'failed')))
"""
_LIVES = (
    "SELECT count(*) FROM audit.lives AS l JOIN atone.workers AS w ON w.id = l.worker WHERE process = %s AND NOT dead"
)
_OVER = "SELECT count(*) FROM atone.sagas WHERE saga_id = ANY (%s) AND status = ANY (%s)"
_IN_TRANSACTION = """
SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND state LIKE 'idle in transaction%%'
"""


class Sleeper:
    """A process that is stopped, seen from the database and the participant."""

    def __init__(self, process: Process, url: str, participant: Path) -> None:
        self.process, self._url, self._participant = process, url, participant
        self._name = f"atone-{process.name}"

    def count(self, query: str, *values: Any) -> int:
        """Return one number."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            return int(connection.execute(query, values).fetchall()[0][0])

    def start_gated(self, prefix: str, gate: Path) -> list[str]:
        """Have it start sagas that wait in the middle of a step for a file; return when it is in the middle of all."""
        ids = [f"{prefix}-{number}" for number in range(GATED_SAGAS)]
        for saga_id in ids:
            self.process.order(start=saga_id, shape="Straight", gate=str(gate))
        self.until("all are at the gate", lambda: self._at_the_gate() >= set(ids))
        return ids

    def _at_the_gate(self) -> set[str]:
        participant = Participant(self._participant)
        calls = participant.calls()
        participant.close()
        return {call.saga for call in calls if call.pid == self.process.pid and call.step == GATED}

    def is_taken_over(self) -> bool:
        """Whether it is dead to the others, and all that it had is theirs."""
        return self.count(_LEFT, self._name) == 0

    def is_in_transaction(self) -> bool:
        """Whether the server holds a transaction of it that does nothing."""
        return self.count(_IN_TRANSACTION, self._name) > 0

    def is_back(self) -> bool:
        """Whether it has registered under a new id."""
        return self.count(_LIVES, self._name) > 0

    def are_over(self, ids: list[str]) -> bool:
        """Whether these sagas have ended."""
        return self.count(_OVER, ids, sorted(FINAL_STATUSES)) == len(ids)

    def until(self, what: str, is_so: Callable[[], bool]) -> float:
        """Look until it is so; return how long that took."""
        begun = monotonic()
        while not is_so():
            if monotonic() > begun + PATIENCE_SECONDS:
                raise Broken(f"in vain: {what}")
            sleep(0.05)
        return monotonic() - begun


def _pause(sleeper: Sleeper, folder: Path, number: int, rng: random.Random) -> None:
    """Stop it in the middle of calls, let others end its sagas or only take them, wake it."""
    gate = folder / f"gate{number}"
    ids = sleeper.start_gated(f"gated{number}", gate)
    sleep(rng.uniform(0.0, 0.2))
    sleeper.process.signal(signal.SIGSTOP)
    sleeper.until("the others have taken over", sleeper.is_taken_over)
    gate.touch()
    if rng.random() < 0.5:
        sleeper.until("the others have ended its sagas", lambda: sleeper.are_over(ids))
    sleeper.process.signal(signal.SIGCONT)
    sleeper.until("its sagas are over", lambda: sleeper.are_over(ids))
    sleeper.until("it is back under a new id", sleeper.is_back)


def _pause_in_transaction(sleeper: Sleeper) -> float:
    """Stop it past its lease; it stops again inside the transaction of its new registration, which the server ends."""
    sleeper.process.signal(signal.SIGSTOP)
    sleeper.until("the others have taken over", sleeper.is_taken_over)
    sleeper.process.signal(signal.SIGCONT)
    sleeper.until("it has stopped in its transaction", sleeper.is_in_transaction)
    seconds = sleeper.until("the server has ended the transaction", lambda: not sleeper.is_in_transaction())
    sleeper.process.signal(signal.SIGCONT)
    sleeper.until("it is back under a new id", sleeper.is_back)
    return seconds


def torment(run: Run, pauses: int = 10, in_transaction: int = 3, workers: int = 3, feeders: int = 6) -> dict[str, Any]:
    """Stop and wake one process at a time; the others work on."""
    rng = random.Random(run.seed)
    held: list[float] = []
    with on_postgres(run) as (server, files), run.fleet(files, feeders) as fleet:
        # Those that hear late of their death surely write before they do; the others may.
        victims = [*fleet.start_all(1, late_news_seconds=1.0), *fleet.start_all(workers - 1)]
        for number in range(pauses):
            sleeper = Sleeper(victims[number % workers], server.url(), files.participant)
            _pause(sleeper, run.folder, number, rng)
        for _ in range(in_transaction):
            (one,) = fleet.start_all(1, stops_in_registration=2)
            held.append(_pause_in_transaction(Sleeper(one, server.url(), files.participant)))
            fleet.replace(one)
        run.done |= {"pauses": pauses, "pauses_in_transaction": in_transaction, "workers": workers}
        run.done |= {"transaction_held_seconds_max": round(max(held, default=0.0), 2)}
        found = run.judged(files, server.url(), drained=fleet.drain())
        run.done |= {"refused_as_counted_by_telemetry": dict(found.counted)}
        if not run.done["stale_commits_refused"] or not found.counted["worker_dead"]:
            run.wrong.append("no stale write was refused, so none was tried: the run has shown nothing")
        return run.line(server)


def main() -> int:
    parser = arguments("Stop worker processes past their leases and wake them; nobody may hear what they write.")
    parser.add_argument("--pauses", type=int, default=10)
    given = parser.parse_args()
    return command("paused", given, lambda run: torment(run, given.pauses, 3, given.workers, given.feeders))


if __name__ == "__main__":
    sys.exit(main())
