"""Fill the disks below PostgreSQL under load: its data, then its log; free them, and see whether everything goes on.

Owns two small file systems in memory, which only this process and its children see, and which go with them. A full data
disk is an error (53100) to whoever writes; a full log ends the server, which is started again when there is room. Needs
Linux, and root to mount. Run as `python -m tests.crash.disk_full --json`; the exit status is 1 if anything is wrong,
and 3 if it can't be tried here.
"""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import psycopg

from atone.testing.postgres import PostgresServer, postgres_server
from tests.crash.child import Files
from tests.crash.fleet import Run, arguments, command, prepare
from tests.crash.processes import Broken
from tests.crash.server_restarts import seconds_to_first_commit
from tests.servers.processes import is_running

DATA_MB, LOG_MB = 160, 80
PATIENCE_SECONDS = 60.0
_NEW_MOUNTS = 0x00020000  # CLONE_NEWNS
_FULL = "No space left on device"


class Disk:
    """A file system of its own, as large as it was made; `fill` leaves no byte, `free` takes that back."""

    def __init__(self, place: Path, megabytes: int) -> None:
        self.place = place
        place.mkdir(mode=0o755)
        command_ = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0755", "atone", str(place)]
        subprocess.run(command_, check=True)

    def fill(self) -> None:
        """Take all the room that is left; what is deleted meanwhile is taken too."""
        piece = b"\0" * 4096
        with (self.place / "ballast").open("ab", buffering=0) as file, suppress(OSError):
            while file.write(piece):
                pass

    def free(self) -> None:
        """Give it back."""
        (self.place / "ballast").unlink()


def alone() -> None:
    """Let what is mounted from now on be seen by nobody else, and end with this process and its children."""
    if ctypes.CDLL(None, use_errno=True).unshare(_NEW_MOUNTS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


@contextmanager
def small_server(**settings: str) -> Generator[tuple[PostgresServer, Disk, Disk], None, None]:
    """Start a server whose data is on one small disk and whose log on another."""
    place = Path(tempfile.mkdtemp(prefix="atone-disks-"))
    place.chmod(0o755)
    before = tempfile.tempdir
    try:
        data, log = Disk(place / "data", DATA_MB), Disk(place / "log", LOG_MB)
        tempfile.tempdir = str(data.place)
        with postgres_server(settings={"min_wal_size": "32MB", "max_wal_size": "48MB", **settings}) as server:
            tempfile.tempdir = before
            server.stop()
            (old,) = data.place.glob("atone-pg-*/data/pg_wal")
            owner = old.stat()
            shutil.copytree(old, log.place / "pg_wal")
            for one in (log.place / "pg_wal", *(log.place / "pg_wal").rglob("*")):
                os.chown(one, owner.st_uid, owner.st_gid)
            shutil.rmtree(old)
            old.symlink_to(log.place / "pg_wal")
            server.start()
            yield server, data, log
    finally:
        tempfile.tempdir = before
        for name in ("data", "log"):
            subprocess.run(["umount", "--lazy", str(place / name)], check=False)
        shutil.rmtree(place, ignore_errors=True)


def _wait_for(server: PostgresServer, words: str, count: int) -> None:
    """Wait until the server has complained once more."""
    end = monotonic() + PATIENCE_SECONDS
    while _said(server, words) <= count:
        if monotonic() > end:
            raise Broken(f"the server never said {words!r}")
        sleep(0.05)


def _said(server: PostgresServer, words: str) -> int:
    return server.log.count(words)


def _is_alive(server: PostgresServer) -> bool:
    return is_running(server.pid)


def _fill_data(run: Run, server: PostgresServer, data: Disk, seconds: float) -> float:
    """Leave no room for data for a while; return how long after that the first commit came."""
    with psycopg.connect(server.url(), autocommit=True) as connection:
        begun = _errors(connection)
        data.fill()
        end = monotonic() + PATIENCE_SECONDS
        while _errors(connection) == begun:
            if monotonic() > end:
                raise Broken("nobody was turned away though the disk is full")
            data.fill()
            sleep(0.1)
    sleep(seconds)
    data.free()
    return seconds_to_first_commit(run, server)


def _errors(connection: psycopg.Connection[Any]) -> int:
    """Return how many transactions were rolled back."""
    rows = connection.execute("SELECT sum(xact_rollback) FROM pg_stat_database").fetchall()
    return int(rows[0][0])


def _fill_log(run: Run, server: PostgresServer, log: Disk, seconds: float) -> float:
    """Leave no room for the log until the server ends; start it when there is room again."""
    log.fill()
    end = monotonic() + PATIENCE_SECONDS
    with suppress(psycopg.Error), psycopg.connect(server.url(), autocommit=True) as connection:
        while monotonic() < end:  # each switch wants another file
            connection.execute("SELECT pg_logical_emit_message(true, 'fill', 'x')")
            connection.execute("SELECT pg_switch_wal()")
    sleep(seconds)
    if monotonic() > end:
        raise Broken("the server goes on though there is no room for its log")
    server.stop("kill")
    log.free()
    server.start()
    return seconds_to_first_commit(run, server)


def torment(run: Run, rounds: int = 3, workers: int = 3, feeders: int = 8, full_seconds: float = 3.0) -> dict[str, Any]:
    """Fill one disk, then the other, again and again."""
    rng = random.Random(run.seed)
    waits: dict[str, list[float]] = {"data": [], "log": []}
    with small_server() as (server, data, log):
        files = Files(run.folder, prepare(server))
        with run.fleet(files, feeders) as fleet:
            fleet.start_all(workers)
            for _ in range(rounds):
                sleep(rng.uniform(0.5, 1.5))
                waits["data"].append(_fill_data(run, server, data, rng.uniform(0.2, full_seconds)))
                sleep(rng.uniform(0.5, 1.5))
                waits["log"].append(_fill_log(run, server, log, rng.uniform(0.2, full_seconds)))
            run.done |= {"data_full": rounds, "log_full": rounds, "workers": workers}
            run.done |= {f"first_commit_seconds_{what}": round(max(some), 2) for what, some in waits.items()}
            run.judged(files, server.url(), drained=fleet.drain())
            server_said = server.log
            run.done |= {"panics": server_said.count("PANIC:"), "no_space_in_server_log": server_said.count(_FULL)}
            notes = files.notes.read_text(encoding="utf-8")
            run.done |= {"commits_turned_away_53100": notes.count("is out of something it needs")}
            if not run.done["panics"] or not run.done["commits_turned_away_53100"]:
                run.wrong.append("a disk was not full for the server: the run has shown nothing")
            return run.line(server)


def main() -> int:
    parser = arguments("Fill the disks below PostgreSQL, and see whether anything acknowledged is lost.")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    try:
        alone()
    except (OSError, subprocess.CalledProcessError, AttributeError) as error:
        print(
            f"NOT TRIED: small file systems can't be mounted here ({error}); run it as root on Linux", file=sys.stderr
        )
        return 3
    return command("disk_full", given, lambda run: torment(run, given.rounds, given.workers, given.feeders))


if __name__ == "__main__":
    sys.exit(main())
