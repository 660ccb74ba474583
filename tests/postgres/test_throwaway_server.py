"""The throw-away PostgreSQL: it serves, survives being killed, and leaves nothing behind, however its parent ends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

from atone.testing.postgres import NoPostgres, find_postgres, major_version, postgres_server
from tests.servers.postgres import SERVERS
from tests.servers.processes import is_running

ENDS_BADLY = """
import os, signal
from atone.testing.postgres import postgres_server
with postgres_server() as server:
    print(server._folder, server._process.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def gone(folder: Path, number: int) -> bool:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if not folder.exists() and not is_running(number):
            return True
        time.sleep(0.05)
    return False


def test_it_serves_and_is_gone_afterwards() -> None:
    """Also after it was killed and started again: same port, same data; strangers are not let in."""
    with postgres_server() as server:
        folder = server._folder
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
        for how in ("fast", "immediate", "kill"):
            server.restart(how)
        with psycopg.connect(server.url()) as connection:
            assert connection.execute("TABLE kept").fetchall() == [(1,)]
            version = connection.info.server_version // 10000
            assert connection.execute("SHOW listen_addresses").fetchall() == [("127.0.0.1",)]
            assert connection.execute("SHOW fsync").fetchall() == [("on",)]
        assert version == major_version(server.bin_dir)
        assert "ready to accept connections" in server.log
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(server.url(password="guessed"))
        assert server._process is not None
        number = server._process.pid
    assert gone(folder, number)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes the way of Linux")
def test_it_goes_with_a_parent_that_is_killed() -> None:
    """Nobody can clean up after a SIGKILL, so somebody else does."""
    done = subprocess.run([sys.executable, "-c", ENDS_BADLY], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    folder, number = done.stdout.split()
    assert gone(Path(folder), int(number))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
def test_programs_that_the_servers_user_can_not_reach_are_copied(tmp_path: Path) -> None:
    """An environment below a home that is closed to others is no obstacle."""
    package = find_postgres()[0].parents[1]
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    for part in (package, package.with_name(f"{package.name}.libs")):
        if part.exists():
            shutil.copytree(part, home / part.name)
    with postgres_server(home / package.name / find_postgres()[0].relative_to(package)) as server:
        assert server.bin_dir.is_relative_to(server._folder)
        with psycopg.connect(server.url()) as connection:
            assert connection.execute("SELECT 1").fetchall() == [(1,)]


def test_programs_that_do_not_start_are_shown_with_their_own_words(tmp_path: Path) -> None:
    """And leave nothing behind."""
    programs = tmp_path / "package" / "pginstall" / "bin"
    programs.mkdir(parents=True)
    (programs / "initdb").write_text("#!/bin/sh\necho the disk is made of cheese >&2\nexit 1\n")
    (programs / "initdb").chmod(0o755)
    with pytest.raises(NoPostgres, match="cheese"), postgres_server(programs):
        pass


def test_the_servers_here_have_different_versions() -> None:
    """One of each number is enough; the newest comes first."""
    assert len(SERVERS) >= 1
    assert [f"postgres-{major_version(folder)}" for folder in SERVERS.values()] == list(SERVERS)
