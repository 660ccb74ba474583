"""What throw-away servers share: a folder that goes with its parent, processes in it, and a free port.

Owns nothing of any one server. A process that is started here is the leader of a group of its own; whoever ends, with
whatever signal, a watcher kills the groups that still run and removes the folder. Called by the modules beside it that
start brokers for tests, demos and benchmarks.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias

Stop: TypeAlias = Literal["fast", "kill"]

_SIGNALS = {"fast": signal.SIGTERM, "kill": signal.SIGKILL}


@contextmanager
def watched_folder(prefix: str) -> Generator[Path, None, None]:
    """Make a folder that is gone afterwards, and what was started in it with it, even if this process is killed."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    (folder / "running").mkdir()
    script = Path(__file__).with_name("_server_watcher.py")
    command: list[Path | str] = [sys.executable, "-I", "-S", script, folder, str(os.getpid())]
    watcher = subprocess.Popen(command, stdin=subprocess.PIPE, cwd="/", start_new_session=True)  # noqa: S603 - our own
    try:
        yield folder
    finally:
        assert watcher.stdin is not None, "the watcher was started with a pipe"
        watcher.stdin.close()
        watcher.wait()
        shutil.rmtree(folder, ignore_errors=True)


class ServerProcess:
    """One process of a server in a watched folder, and those that it starts; their words go to the folder's `log`."""

    def __init__(
        self,
        folder: Path,
        command: Sequence[Path | str],
        *,
        environment: Mapping[str, str] | None = None,
        as_user: tuple[int, int] | None = None,
    ) -> None:
        """Start it. `as_user`: numbers of the user and its group, by default those of this process."""
        self._folder = folder
        whose: dict[str, Any] = {}
        if as_user is not None:
            whose = {"user": as_user[0], "group": as_user[1], "extra_groups": []}
        with (folder / "log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True,
                env=None if environment is None else dict(environment), **whose,
            )  # fmt: skip
        (folder / "running" / str(self.pid)).touch()

    @property
    def pid(self) -> int:
        """Its number, which is also its group's."""
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether the first process of the group is there."""
        return self._process.poll() is None

    def send(self, what: signal.Signals) -> None:
        """Send a signal to the whole group."""
        try:
            os.killpg(self.pid, what)
        except ProcessLookupError:
            return

    def end(self, what: signal.Signals, *, within_seconds: float = 30.0) -> None:
        """Send a signal to the group and wait for the end of its first process; then nothing of the group is left."""
        self.send(what)
        try:
            self._process.wait(within_seconds)
        except subprocess.TimeoutExpired:
            self.send(signal.SIGKILL)
            self._process.wait()
        self.send(signal.SIGKILL)
        (self._folder / "running" / str(self.pid)).unlink(missing_ok=True)  # may be another's number from now on

    def wait_until(self, is_ready: Callable[[], bool], *, within_seconds: float) -> bool:
        """Wait until it is ready; return whether it is, and still runs."""
        until = time.monotonic() + within_seconds
        while self.runs and time.monotonic() < until:
            if is_ready():
                return True
            time.sleep(0.01)
        return False


class Server:
    """What every server has: a folder, a port of its own for all its lives, and how it is ended and made to hang."""

    stops_within_seconds = 30.0

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._folder = folder
        self._process: ServerProcess | None = None

    @property
    def pid(self) -> int:
        """The number of its process, and of the group of those that it starts."""
        assert self._process is not None, "it runs"
        return self._process.pid

    @property
    def log(self) -> str:
        """Everything that the server has said."""
        return said(self._folder)

    def start(self) -> None:
        """Start it, on the same port as before, and wait until it can be used."""
        raise NotImplementedError

    def stop(self, how: Stop = "fast") -> None:
        """Stop it: `kill` is a crash."""
        if self._process is None:
            return
        self._process.end(_SIGNALS[how], within_seconds=self.stops_within_seconds)
        self._process = None

    def restart(self, how: Stop = "fast") -> None:
        """Stop it and start it again."""
        self.stop(how)
        self.start()

    def pause(self) -> None:
        """Have it hang: it keeps its connections and answers nothing."""
        assert self._process is not None, "it runs"
        self._process.send(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self._process is not None, "it runs"
        self._process.send(signal.SIGCONT)


def said(folder: Path) -> str:
    """Return everything that the servers of a folder have said."""
    file = folder / "log"
    return file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""


def free_port() -> int:
    """Return a port of the loopback that nobody uses just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    """Look whether somebody takes connections there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
