"""Workers as people run them: the real `atone worker`, each in a process of its own, gone with the test.

Owns starting them, reading what they log, and stopping them. Used by the tests of a fleet.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.servers.deliveries import FOLDER

ROOT = Path(__file__).parents[2]
COMMAND = Path(sys.executable).parent / "atone"
TARGETS = "tests.servers.deliveries"


def environment(folder: Path, **more: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name != "ATONE_STORE"}
    path = f"{ROOT}{os.pathsep}{inherited.get('PYTHONPATH', '')}".rstrip(os.pathsep)
    return {**inherited, "COLUMNS": "200", "PYTHONPATH": path, FOLDER: str(folder), **more}


def atone(folder: Path, *arguments: str, cwd: Path = ROOT, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [COMMAND, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment(folder, **more),
        stdin=subprocess.DEVNULL,
        cwd=cwd,
        timeout=60,
    )


class WorkerProcess:
    """One `atone worker` that runs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lines: list[str] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        """Everything that it has said."""
        with self._news:
            return "".join(self._lines)

    def said(self, text: str) -> None:
        """Wait until its log has this text; the test's own time limit is the only clock."""
        with self._news:
            while not any(text in line for line in self._lines):
                assert self._reader.is_alive(), f"it ended without saying {text!r}: {''.join(self._lines)}"
                self._news.wait(1)

    def signal(self, number: int = signal.SIGTERM) -> None:
        self._process.send_signal(number)

    def signalled_until_it_ends(self, number: int) -> int:
        """Signal again and again, and return its exit status: of two that come at once a process sees one."""
        for _ in range(100):
            self.signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.1)
                return self.ended()
        raise AssertionError(f"it does not end, whatever it is sent: {self.log}")

    def ended(self) -> int:
        """Wait for its end and return its exit status."""
        status = self._process.wait(60)
        self._reader.join(10)
        return status

    def stopped(self) -> int:
        """Ask it to drain, and return its exit status."""
        self.signal()
        return self.ended()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            with self._news:
                self._lines.append(line)
                self._news.notify_all()
        with self._news:
            self._news.notify_all()


@contextmanager
def worker(
    url: str, folder: Path, *arguments: str, sagas: str = "first", poll: float = 0.1, **more: Any
) -> Generator[WorkerProcess]:
    """Run a worker while the block lasts; it has begun when the block does."""
    options = ("--store", url, "--poll", str(poll), *arguments)
    process = subprocess.Popen(
        [COMMAND, "worker", f"{TARGETS}:{sagas}", *options],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(folder, **more),
        cwd=ROOT,
    )
    running = WorkerProcess(process)
    try:
        running.said("running ")
        yield running
    finally:
        process.kill()
        running.ended()
        assert process.stderr is not None
        process.stderr.close()
