"""A PostgreSQL and several worker processes that feed themselves sagas: what every fault run does something to.

Owns the server's roles and tables, the processes, their end, and the figures that every run reports. Must not know a
fault. Used by the commands beside it; each is `python -m tests.crash.<name> --json`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic
from typing import Any, Self

import psycopg

from atone.stores.postgres import migrate, roles_sql
from atone.testing.postgres import PostgresServer, major_version, postgres_server
from tests.crash import audit
from tests.crash.child import Files, Life
from tests.crash.processes import Broken, Process
from tests.crash.verdict import Found, Verdict, judge, read

SHOWN = 20
WORKER = "wanda"
DRAIN_SECONDS = 180.0


def prepare(server: PostgresServer) -> str:
    """Make the roles and the tables, begin to watch, and return the address for workers."""
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(roles_sql())
        connection.execute(f"CREATE ROLE {WORKER} LOGIN PASSWORD '{WORKER}' IN ROLE atone_worker")
    asyncio.run(migrate(server.url()))
    audit.install(server.url())
    return server.url(user=WORKER, password=WORKER)


class Fleet:
    """Processes on one database, each with `feeders` sagas under way; leaving makes sure that all are gone."""

    def __init__(self, files: Files, *, seed: int, feeders: int = 8, **life: Any) -> None:
        self.files, self._seed, self._feeders = files, seed, feeders
        self._life = {"lease_seconds": 2.0, "url": files.url, **life}
        self._stack = ExitStack()
        self.processes: list[Process] = []
        self.begun = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self, *, env: Mapping[str, str] | None = None, **life: Any) -> Process:
        """Start one more process; it is not ready yet."""
        options = {"feeders": self._feeders, **self._life, **life}
        name = options.pop("name", f"life{self.begun:04d}")
        self.begun += 1
        one = Process(self.files, Life(str(self.files.folder), name, self._seed, **options), env)
        self._stack.callback(one.close)
        self.processes.append(one)
        return one

    def start_all(self, count: int, *, env: Mapping[str, str] | None = None, **life: Any) -> list[Process]:
        """Start some, and wait until all are at work."""
        some = [self.start(env=env, **life) for _ in range(count)]
        for one in some:
            one.wait_until_ready()
        return some

    def replace(self, one: Process) -> Process:
        """Kill a process and start another in its place."""
        one.kill()
        one.close()
        self.processes.remove(one)
        return self.start()

    def drain(self, seconds: float = DRAIN_SECONDS) -> bool:
        """Let every process see its sagas, and the others', to their ends; return whether that was so in time."""
        for one in self.processes:
            one.order(leave=True)
        end = monotonic() + seconds
        in_time = [one.ends_within(max(0.0, end - monotonic())) for one in self.processes]
        return all(in_time)


def figures(verdict: Verdict, found: Found) -> dict[str, Any]:
    """Return what every run reports of its sagas."""
    return {
        "sagas": verdict.ends.total(),
        "stranded": len(verdict.stranded),
        "untrue": len(verdict.untrue),
        "twice": len(verdict.twice),
        "acknowledged": verdict.acknowledged,
        "acknowledged_lost": len(verdict.acknowledged_lost),
        "effects_standing": len(verdict.effects_standing),
        "calls_without_intent": len(verdict.calls_without_intent),
        "ends": dict(verdict.ends),
        "attempts_lost": verdict.attempts_lost,
        "calls_repeated": verdict.calls_repeated,
        "late_actions_refused": found.refusals,
        "commits_in_doubt": len(found.in_doubt),
        "turns_refused": {"dead": 0, "not_mine": 0, **found.refused},
    }


class Run:
    """One run on one database: what was done, and what came of it. `wrong` says what must not be so.

    `settings` are for servers, `life` for processes; a short run is less patient.
    """

    def __init__(
        self, name: str, folder: Path, seed: int, *, settings: Mapping[str, str] | None = None, **life: Any
    ) -> None:
        self.name, self.folder, self.seed = name, folder, seed
        self.settings, self._life = dict(settings or {}), life
        self.done: dict[str, Any] = {}
        self.wrong: list[str] = []
        self.tolerated: frozenset[str] = frozenset()
        self._begun = monotonic()

    def fleet(self, files: Files, feeders: int, **life: Any) -> Fleet:
        """Return processes for this run, none of them started."""
        return Fleet(files, seed=self.seed, feeders=feeders, **{**self._life, **life})

    def judged(self, files: Files, admin_url: str, *, drained: bool, bites: str | None = None) -> Found:
        """Read everything, and note the verdict; return what was read, for more figures.

        `bites` names the figure that is above 0 if the fault has reached anybody.
        """
        found = asyncio.run(read(files))
        self.weigh(found, drained=drained, bites=bites)
        stale = audit.stale_writes(admin_url)
        self.done["writes_without_answer_made"] = audit.written_unheard(admin_url, found.in_doubt)
        self.done["stale_writes_applied"] = len(stale)
        self.done["stale_commits_refused"] = audit.commits_refused(admin_url)
        self.wrong += [f"stale: {one}" for one in stale]
        if self.wrong:
            self._keep(found)
        return found

    def weigh(self, found: Found, *, drained: bool, bites: str | None = None) -> None:
        """Note what was read, what is wrong with it, and whether it shows anything at all."""
        verdict = judge(found)
        self.done |= figures(verdict, found)
        if not drained:
            self.wrong.append("the sagas were not all over in time")
        for kind in ("stranded", "untrue", "twice"):
            if kind not in self.tolerated:
                self.wrong += [f"{kind}: {case}" for case in getattr(verdict, kind)]
        for figure in ("acknowledged", bites):
            if figure is not None and not self.done[figure]:
                self.wrong.append(f"{figure} is 0: the run has shown nothing")

    def _keep(self, found: Found) -> None:
        """Write down the journals, which go with the server."""
        with Path(self.folder, "journals.txt").open("w", encoding="utf-8") as file:
            for saga in found.sagas:
                print(saga.name, saga.saga_id, saga.status, file=file)
                for row in saga.rows:
                    print(f"  {row.version} {row.at:.3f} {row.entries.decode()}", file=file)

    def line(self, server: PostgresServer | None = None) -> dict[str, Any]:
        """Return the last line."""
        return {
            "test": self.name,
            **self.done,
            "holds": not self.wrong,
            "seed": self.seed,
            "seconds": round(monotonic() - self._begun, 1),
            "python": platform.python_version(),
            **({} if server is None else {"postgres": major_version(server.bin_dir)}),
        }


@contextmanager
def on_postgres(run: Run) -> Generator[tuple[PostgresServer, Files], None, None]:
    """Start a server with everything in it."""
    with postgres_server(settings=run.settings) as server:
        yield server, Files(run.folder, prepare(server))


def arguments(about: str) -> argparse.ArgumentParser:
    """Return a parser with what all runs take."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--feeders", type=int, default=8, help="sagas that are always under way in each process")
    parser.add_argument("--workers", type=int, default=3, help="processes on the database")
    parser.add_argument("--keep", action="store_true", help="keep the files; they are kept anyway if anything is wrong")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    return parser


def command(name: str, options: argparse.Namespace, torment: Callable[[Run], dict[str, Any]]) -> int:
    """Do a run, print what came of it, and return the exit status: 1 if anything is wrong, 2 if it went wrong."""
    run = Run(name, Path(tempfile.mkdtemp(prefix=f"atone-{name}-")), options.seed)
    try:
        line = torment(run)
    except Broken as broken:
        print(f"{broken}\nEverything is kept in {run.folder}", file=sys.stderr)
        return 2
    for case in run.wrong[:SHOWN]:
        print(case, file=sys.stderr)
    if len(run.wrong) > SHOWN:
        print(f"and {len(run.wrong) - SHOWN} more", file=sys.stderr)
    if options.keep or run.wrong:
        print(f"The files are kept in {run.folder}", file=sys.stderr)
    else:
        shutil.rmtree(run.folder)
    print(json.dumps(line) if options.json else "\n".join(f"{key:28} {value}" for key, value in line.items()))
    return 1 if run.wrong else 0
