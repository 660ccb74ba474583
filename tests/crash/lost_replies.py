"""Lose the database's replies, and its callers' requests, until many commits were made that nobody was told of.

Owns the network between each worker and PostgreSQL: a proxy for each, which resets, swallows, delays and holds back in
turn. A commit counts as ambiguous when its worker had no answer and the database says that it had made it by then. Run
as `python -m tests.crash.lost_replies --ambiguous 200 --json`; the exit status is 1 if anything is wrong.
"""

from __future__ import annotations

import json
import random
import sys
import threading
from collections import Counter
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from time import monotonic, sleep
from typing import Any

from atone.testing.postgres import PostgresServer
from tests.crash import audit
from tests.crash.child import Files
from tests.crash.fleet import Run, arguments, command, on_postgres
from tests.servers.proxy import Mode, Proxy

# How often, and for how many seconds: longer than a statement may take, or only for a reply or two.
FAULTS: dict[Mode, tuple[int, tuple[float, float]]] = {
    "reset_on_reply": (8, (0.0, 0.1)),
    "drop_replies": (2, (0.0, 2.5)),
    "delay_replies": (3, (0.1, 0.8)),
    "hold_requests": (2, (0.2, 2.5)),
    "reset_on_request": (2, (0.0, 0.1)),
    "drop_requests": (1, (0.0, 2.0)),
}
PATIENCE_SECONDS = 600.0


class Weather:
    """Good and bad moments of one proxy, drawn from a seed, in a thread of its own until it is stopped."""

    def __init__(self, proxy: Proxy, seed: str) -> None:
        self._proxy, self._rng = proxy, random.Random(seed)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.faults: Counter[Mode] = Counter()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Have good weather from now on."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        modes = list(FAULTS)
        weights = [often for often, _ in FAULTS.values()]
        while not self._stopped.wait(self._rng.uniform(0.02, 0.3)):
            (mode,) = self._rng.choices(modes, weights)
            self._proxy.delay_seconds = self._rng.uniform(0.01, 0.4)
            self._proxy.mode = mode
            self.faults[mode] += 1
            sleep(self._rng.uniform(*FAULTS[mode][1]))
            self._proxy.mode = "pass"
            self._proxy.release()


@contextmanager
def weathers(server: PostgresServer, seed: int, count: int) -> Generator[tuple[list[Proxy], list[Weather]], None, None]:
    """Return proxies before the server, and what happens to each; nothing does before `start`."""
    with ExitStack() as stack:
        proxies = [stack.enter_context(Proxy(server.port)) for _ in range(count)]
        yield proxies, [Weather(proxy, f"{seed}-{number}") for number, proxy in enumerate(proxies)]


def ambiguous(files: Files, admin_url: str) -> int:
    """Count the commits so far that were made and whose answer was lost."""
    notes = [json.loads(line) for line in files.notes.read_text().splitlines()]
    doubts = [(one["at"], tuple(bytes.fromhex(id_) for id_ in one["in_doubt"])) for one in notes if "in_doubt" in one]
    return audit.written_unheard(admin_url, doubts)


def torment(run: Run, wanted: int = 200, workers: int = 3, feeders: int = 8) -> dict[str, Any]:
    """Go on until enough commits were ambiguous."""
    with (
        on_postgres(run) as (server, files),
        weathers(server, run.seed, workers) as (proxies, faults),
        run.fleet(files, feeders) as fleet,
    ):
        assert files.url is not None
        some = [fleet.start(url=files.url.replace(f":{server.port}/", f":{one.port}/")) for one in proxies]
        for process in some:
            process.wait_until_ready()
        for weather in faults:
            weather.start()
        end = monotonic() + PATIENCE_SECONDS
        while ambiguous(files, server.url()) < wanted and monotonic() < end:
            sleep(1.0)
        for weather in faults:
            weather.stop()
        happened = sum((weather.faults for weather in faults), Counter[Mode]())
        lost = sum(proxy.lost for proxy in proxies)
        run.done |= {"workers": workers, "faults": dict(happened), "replies_lost": lost}
        run.judged(files, server.url(), drained=fleet.drain())
        run.done["ambiguous_commits"] = run.done.pop("writes_without_answer_made")
        if run.done["ambiguous_commits"] < wanted:
            run.wrong.append("too few commits were ambiguous: the run has shown little")
        return run.line(server)


def main() -> int:
    parser = arguments("Lose replies of the database, and see whether anything is lost or done twice.")
    parser.add_argument("--ambiguous", type=int, default=200, help="how many commits must have been in doubt and made")
    given = parser.parse_args()
    return command("lost_replies", given, lambda run: torment(run, given.ambiguous, given.workers, given.feeders))


if __name__ == "__main__":
    sys.exit(main())
