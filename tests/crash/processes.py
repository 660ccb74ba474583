"""Processes of one orchestrator each, on one folder: started, spoken to, stopped, killed.

Owns the pipes and the certainty that nothing is left behind: a child leaves when its parent's end of stdin is gone.
Must not judge a run. Used by `random_kill` and by the tests beside it.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from tests.crash.child import Files, Life

ROOT = Path(__file__).parents[2]
READY_SECONDS = 60.0


class Broken(Exception):
    """A process ended by itself, or never became ready: there is nothing to judge."""


class Process:
    """One life of the orchestrator, in a process of its own."""

    def __init__(self, files: Files, life: Life, env: Mapping[str, str] | None = None) -> None:
        self._files = files
        self.name = life.name
        self._is_ready = False
        self._errors = files.errors.open("ab")
        command = [sys.executable, "-m", "tests.crash.child", msgspec.json.encode(life).decode()]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, bufsize=0,
            env={**os.environ, **(env or {})},
        )  # fmt: skip
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def wait_until_ready(self) -> None:
        """Return when its orchestrator is open; a second time at once."""
        if self._is_ready:
            return
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(READY_SECONDS) or not self._process.stdout.readline():
                raise self._broken("did not become ready")
        self._is_ready = True

    def order(self, **what: Any) -> None:
        """Send it one line."""
        assert self._process.stdin is not None
        self._process.stdin.write((json.dumps(what) + "\n").encode())

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it without a word; it must have lived until now."""
        if self._process.poll() is not None:
            raise self._broken(f"ended by itself with status {self._process.returncode}")
        self._process.kill()
        self._process.wait()

    def ends_within(self, seconds: float) -> bool:
        """Wait for its end; whether it came by itself, in time."""
        try:
            status = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        if status != 0:
            raise self._broken(f"ended with status {status}")
        return True

    def close(self) -> None:
        """Make sure that it is gone."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                stream.close()

    def _broken(self, what: str) -> Broken:
        tail = self._files.errors.read_text(errors="replace")[-4000:]
        return Broken(f"process {self.pid} {what}; the end of its stderr:\n{tail}")
