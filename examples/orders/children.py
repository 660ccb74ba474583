"""Child processes that never outlive the process that started them.

Owns how the example starts, reads, kills and stops its processes. The rule: a child's standard input is a pipe that
only its parent holds; however the parent ends, the pipe closes, and the child goes. So it works without signals or
process groups, on any operating system. Both sides of the rule are here.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import msgspec

_STOP_SECONDS = 15.0


def when_stdin_closes(stop: Callable[[], object], *, exit_after_seconds: float) -> None:
    """Call `stop` when the parent is gone; end the process the hard way if it is still there after that time."""

    def watch() -> None:
        # Not through sys.stdin: its lock, held by a thread that waits, would spoil an orderly end.
        while os.read(0, 4096):
            pass
        stop()
        # A daemon thread: if the process ends by itself in time, this line is never reached.
        threading.Event().wait(exit_after_seconds)
        os._exit(1)

    threading.Thread(target=watch, name="stdin-watch", daemon=True).start()


class Child:
    """A running child process that speaks JSON, one value a line, on its standard output."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name, self._process = name, process

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    async def read(self) -> object:
        """Return the next value the child printed; raise EOFError when there will be no more."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise EOFError(f"{self.name} has ended, or closed its output")
        return msgspec.json.decode(line)

    async def kill(self) -> None:
        """Kill it with SIGKILL, as a power cut would, and wait until it is gone."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    def refuse_end(self) -> None:
        """Raise EOFError if it has ended by itself."""
        if self._process.returncode is not None:
            raise EOFError(f"{self.name} has ended by itself, with status {self._process.returncode}")

    async def drain(self) -> int:
        """Ask it with SIGTERM to end its work and go; return its exit status."""
        self._process.terminate()
        return await self.wait()

    async def wait(self) -> int:
        """Wait until it ends by itself; return its exit status."""
        return await self._process.wait()

    async def stop(self) -> None:
        """Close its standard input, so that it ends its work and goes; kill it if it does not."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), _STOP_SECONDS)
        except TimeoutError:
            await self.kill()


@asynccontextmanager
async def child(
    name: str, module: str, *arguments: str, environment: Mapping[str, str] | None = None, log: Path | None = None
) -> AsyncGenerator[Child, None]:
    """Run `python -m module` while the block lasts; `environment` is added to ours, standard error goes to `log`."""
    with ExitStack() as stack:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=None if log is None else stack.enter_context(log.open("ab")),
            env={**os.environ, **(environment or {})},
            # Ctrl-C goes to the parent alone, which then stops its children in order.
            start_new_session=True,
        )
    running = Child(name, process)
    try:
        yield running
    finally:
        await running.stop()


async def finished(module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
    """Run `python -m module` to its end.

    Raises:
        EOFError: it failed; what it said stands on standard error.
    """
    async with child(module, module, *arguments, environment=environment) as running:
        status = await running.wait()
    if status:
        raise EOFError(f"python -m {module} {arguments[0]} has ended with status {status}")
